"""Where a layer keeps its weight: as it is, or below one of torch's normalisations; and whether zeros stay 0 there.

A mask is held on the parameter that the weight is computed from: ``weight`` itself, what a spectral norm divides, the
direction of a weight norm (of either flavour of torch), or what a parametrisation or hook of someone else's scales.
One that would give a masked weight another value is refused.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

# the hooks' classes; torch.nn.utils has functions of the same names as their modules
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from gancompress.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LAYERS",
    "Scaled",
    "duplicate",
    "masked_parameter",
    "steady",
    "stored_parameter",
    "to_channels_last",
    "write_out",
]

_CONVOLUTION = nn.modules.conv._ConvNd
#: modules whose weight may be masked; a parametrised one has a class of its own, which is a subclass
LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear
)  # fmt: skip
_SPECTRAL, _DIRECTION = parametrizations._SpectralNorm, parametrizations._WeightNorm
#: suffix of the parameter that a hook of torch computes a tensor from
_HOOKS: dict[type, str] = {SpectralNorm: "_orig", WeightNorm: "_v"}
_ADVICE = "use torch's spectral_norm or weight_norm, or keep the layer dense with `prunable = False`"

N = TypeVar("N", bound=nn.Module)


class Scaled(nn.Module):
    """A parametrisation that multiplies by a number, so that masks and zeros stay where they are."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, stored: Tensor) -> Tensor:
        """Return the tensor that is computed with."""
        return stored * self.scale

    def extra_repr(self) -> str:
        """Say the number."""
        return f"{self.scale:.4g}"


def masked_parameter(layer: nn.Module, name: str) -> nn.Parameter:
    """Return the leaf parameter to mask, shaped like the weight of ``layer``, whose zeros are zeros of that weight.

    Args:
        layer: one of :data:`LAYERS`.
        name: what to call it in errors.

    Raises:
        BackboneError: there is none: what computes the weight moves, fills or adds zeros, or another mask lies over it.
    """
    found = stored_parameter(layer)
    hooks = [hook for hook in layer._forward_pre_hooks.values() if type(hook) not in _HOOKS]
    if any(isinstance(hook, prune.BasePruningMethod) and hook._tensor_name.startswith("weight") for hook in hooks):
        raise BackboneError(
            f"layer {name} has a mask of torch.nn.utils.prune, which would hide weights that are counted as kept: make "
            "it permanent first with torch.nn.utils.prune.remove"
        )
    hooks = [hook for hook in hooks if not isinstance(hook, prune.BasePruningMethod)]
    chain = _chain(layer)
    if found is None:
        raise BackboneError(
            f"layer {name} has no parameter of its weight's shape to hold a mask, because of {_named(chain, hooks)}: "
            f"{_ADVICE}"
        )
    if isinstance(found, nn.parameter.UninitializedParameter):
        raise BackboneError(f"layer {name} is lazy and has no weight yet: run the network once in its constructor")
    if found.is_meta or type(found.detach()) is not Tensor:  # without values nothing can be tried
        return found
    known = not hooks and all(type(one) in (_SPECTRAL, _DIRECTION, _Steady, Scaled) for one in chain)
    reason = None if known else _why_not(layer, found, hooks)
    if reason is not None:
        raise BackboneError(
            f"layer {name}: its weight is not 0 exactly where it is masked, because of {_named(chain, hooks)}{reason}: "
            f"{_ADVICE}"
        )
    if _computes_otherwise(layer, found):
        raise BackboneError(
            f"layer {name}: {type(layer).__name__}.forward computes with weights that are masked, as where it centres "
            f"them: scale them at most, or keep the layer dense with `prunable = False`"
        )
    return found


def stored_parameter(layer: nn.Module) -> nn.Parameter | None:
    """Return the leaf of the weight's shape that the weight of ``layer`` is, or is computed from; None without one.

    The weight itself is not computed for it: under spectral norm that would take a power iteration.
    """
    own = layer._parameters.get("weight")
    if own is not None:
        return own
    chain = _chain(layer)
    if chain:
        leaves: dict[str, Any] = layer.parametrizations["weight"]._parameters  # type: ignore[index,union-attr]
        if isinstance(chain[0], _DIRECTION):
            direction: nn.Parameter = leaves["original1"]
            return direction
    else:
        for hook in layer._forward_pre_hooks.values():
            suffix = "_orig" if isinstance(hook, prune.BasePruningMethod) else _HOOKS.get(type(hook), "")
            if suffix and getattr(hook, "name", getattr(hook, "_tensor_name", "")) == "weight":
                return layer._parameters["weight" + suffix]
        leaves = {name: leaf for name, leaf in layer._parameters.items() if name != "bias"}
    fitting = [leaf for leaf in leaves.values() if leaf is not None and tuple(leaf.shape) == _shape(layer)]
    return fitting[0] if len(fitting) == 1 else None


def _shape(layer: nn.Module) -> tuple[int, ...]:
    if isinstance(layer, _CONVOLUTION):
        ins, outs, groups = layer.in_channels, layer.out_channels, layer.groups
        first = (ins, outs // groups) if layer.transposed else (outs, ins // groups)
        return (*first, *layer.kernel_size)
    assert isinstance(layer, nn.Linear)
    return layer.out_features, layer.in_features


def _chain(layer: nn.Module) -> list[nn.Module]:
    """Return the parametrisations of a layer's weight, in the order in which they are applied."""
    if not parametrize.is_parametrized(layer, "weight"):
        return []
    return list(layer.parametrizations["weight"])  # type: ignore[index]


def _named(chain: list[nn.Module], hooks: list[Callable[..., Any]]) -> str:
    words = [f"the parametrization {type(one).__name__.removeprefix('_')}" for one in chain]
    words += [f"the forward pre-hook {getattr(hook, '__name__', type(hook).__name__)}" for hook in hooks]
    return " and ".join(words) or "what computes it"


def _why_not(layer: nn.Module, leaf: nn.Parameter, hooks: list[Callable[..., Any]]) -> str | None:
    """Try on a copy whether the weight is 0 where ``leaf`` is, and only there; None if so, else words to add."""
    rng = torch.Generator().manual_seed(0)
    kept = torch.rand(leaf.shape, generator=rng) < 0.5
    drawn = torch.where(kept, torch.randn(leaf.shape, generator=rng), 0.0).to(leaf)
    try:
        twin = duplicate(layer)
        own = stored_parameter(twin)
        assert own is not None
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for training in (False, True):
                twin.train(training)
                own.copy_(drawn)
                for hook in twin._forward_pre_hooks.values() if hooks else ():
                    hook(twin, (_example(layer),))
                weight: Any = twin.weight
                if tuple(weight.shape) != tuple(leaf.shape):
                    return f", which gives a weight of shape {tuple(weight.shape)}"
                if not torch.equal(weight != 0, kept.to(weight.device)):
                    return ""
    except Exception as error:  # the code of someone else was called
        if layer._parameters.get("weight") is leaf:
            return None  # a hook that wants other inputs, on a weight that is its own
        return f" (it cannot be tried: {type(error).__name__}: {' '.join(str(error).split())[:80]})"
    return None


def _computes_otherwise(layer: nn.Module, leaf: nn.Parameter) -> bool:
    """Whether a ``forward`` of someone else's lets inputs through whose weights are 0.

    It is tried on a copy that keeps the weights of one input channel: the others must change nothing. What takes other
    arguments, or has one channel only, is believed.
    """
    methods = ("forward", "_conv_forward")
    of_torch = {getattr(kind, method, None) for kind in LAYERS for method in methods}
    if all(getattr(type(layer), method, None) in of_torch for method in methods):
        return False
    rng = torch.Generator().manual_seed(0)
    axis = 0 if getattr(layer, "transposed", False) else 1
    x = _example(layer)
    with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
        twin = duplicate(layer).eval()
        own = stored_parameter(twin)
        assert own is not None
        own.copy_(torch.randn(leaf.shape, generator=rng))
        own.narrow(axis, 1, own.shape[axis] - 1).zero_()
        blank = twin(x)
        groups = x.shape[1] // leaf.shape[axis] if axis else 1
        x.copy_(torch.randn(x.shape, generator=rng)).view(groups, -1, *x.shape[2:])[:, 0] = 0
        return bool((twin(x) - blank).abs().max() > 1e-6)
    return False


def _example(layer: nn.Module) -> Tensor:
    """Return zeros that ``layer`` takes."""
    like = next(layer.parameters())
    if isinstance(layer, _CONVOLUTION):
        reach = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return like.new_zeros(1, layer.in_channels, *reach)
    assert isinstance(layer, nn.Linear)
    return like.new_zeros(1, layer.in_features)


# ----------------------------------------------------------------------------------------------- networks as a whole


def duplicate(network: N) -> N:
    """Return a deep copy, also of a network whose hooks keep computed tensors, which torch does not copy."""
    computed = {
        id(tensor): tensor.detach().clone()
        for module in network.modules()
        for tensor in vars(module).values()
        if isinstance(tensor, Tensor) and not tensor.is_leaf
    }
    return copy.deepcopy(network, computed)


def to_channels_last(network: nn.Module) -> None:
    """Lay the 4-d tensors of ``network`` out channels last; torch refuses networks that have 5-d ones."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def write_out(network: N) -> N:
    """Replace every computed tensor of ``network``, which is in eval mode, by what it evaluates to.

    These are parametrised ones, and the weights that forward pre-hooks compute: spectral norm, weight norm and masks of
    ``torch.nn.utils``, and hooks of someone else's that give a layer its weight.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            # A deep copy shares the class that holds the parametrised properties with its original, and torch
            # would remove them from there.
            own = {key: value for key, value in vars(type(module)).items() if key not in ("__dict__", "__weakref__")}
            module.__class__ = type(type(module).__name__, type(module).__bases__, own)
            parametrisations = module.parametrizations
            assert isinstance(parametrisations, nn.ModuleDict)
            for name in list(parametrisations):
                learned = any(True for _ in parametrisations[name].parameters(recurse=False))
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                if learned and name not in module._parameters:  # torch makes a buffer of what needs no gradient
                    value = getattr(module, name)
                    delattr(module, name)
                    module.register_parameter(name, nn.Parameter(value))
        for hook in reversed(list(module._forward_pre_hooks.values())):
            if isinstance(hook, SpectralNorm):
                nn.utils.remove_spectral_norm(module, hook.name)
                _forget_loading(module)
            elif isinstance(hook, WeightNorm):
                nn.utils.remove_weight_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        if isinstance(module, LAYERS) and module._forward_pre_hooks and "weight" not in module._parameters:
            _write_out_hooks(module)
    return network.requires_grad_(False)


def _forget_loading(module: nn.Module) -> None:
    """Remove what a spectral norm does while a state is loaded: torch, which wraps it, does not find it any more."""
    for key, hook in list(module._load_state_dict_pre_hooks.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del module._load_state_dict_pre_hooks[key]


def _write_out_hooks(layer: nn.Module) -> None:
    """Replace what a hook of someone else's computes by a parameter."""
    leaf = stored_parameter(layer)
    for key, hook in list(layer._forward_pre_hooks.items()):
        before = vars(layer).get("weight")
        changed = hook(layer, (_example(layer),))
        computed = vars(layer).get("weight")
        if changed is None and isinstance(computed, Tensor) and computed is not before:
            del layer._forward_pre_hooks[key]
            for name in [name for name, parameter in layer._parameters.items() if parameter is leaf]:
                del layer._parameters[name]
            del layer.weight
            layer.weight = nn.Parameter(computed.detach())


# ----------------------------------------------------------------------------------------------- empty filters


class _Steady(parametrizations._WeightNorm):
    """Weight norm that takes 1 for the norm of a direction that is all 0, where torch's gives NaN.

    Every other filter has the same bits. One that a mask left empty is 0, and grows again with a gradient of the gain's
    size.
    """

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return _normalised(weight_v, weight_g, self.dim)


class _SteadyHook(WeightNorm):
    """The same for the hook."""

    def compute_weight(self, module: nn.Module) -> Tensor:
        return _normalised(getattr(module, self.name + "_v"), getattr(module, self.name + "_g"), self.dim)


_HOOKS[_SteadyHook] = "_v"


def _normalised(direction: Tensor, gain: Tensor, dim: int) -> Tensor:
    axes = [axis for axis in range(direction.dim()) if axis != dim]
    empty = (direction == 0).all(axes, keepdim=True) if axes else direction == 0
    for_torch = torch.where(empty, 1.0, direction)
    return torch.where(empty, gain * direction, torch._weight_norm(for_torch, gain, dim))


def steady(network: N) -> N:
    """Make weight norms of ``network``, of either flavour, survive filters without a kept weight; returns it."""
    for module in network.modules():
        if type(module) is _DIRECTION:
            module.__class__ = _Steady
        for hook in module._forward_pre_hooks.values():
            if type(hook) is WeightNorm:
                hook.__class__ = _SteadyHook
    return network
