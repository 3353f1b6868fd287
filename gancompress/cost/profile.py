"""What one sample costs in every layer of a network, from the shapes that really flow through it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gancompress.backbones.base import blank_inputs, evaluating, prunable_weights
from gancompress.sparsity.weights import LAYERS, stored_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Discriminator, Generator

__all__ = [
    "FLOPS_PER_MAC",
    "Counting",
    "LayerCost",
    "NetworkProfile",
    "profile",
    "profile_call",
    "sample_cost",
]

#: one multiplication and one addition; papers that write "FLOPs" often mean MACs
FLOPS_PER_MAC: Final = 2

#: ``published`` counts the architecture as its paper draws it, so that figures compare with the literature;
#: ``executed`` counts what this implementation computes, which exact rewrites make smaller.
Counting: TypeAlias = Literal["published", "executed"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer. Its multiply-adds (MACs) per sample are non-zeros times positions, exactly.

    Attributes:
        name: ``<module>.weight``, as in ``prunable_weights``.
        shape: shape of the weight.
        executed_positions: times that each weight is used per sample: output pixels (transposed: input pixels),
            padding included, whatever the groups.
        published_ratio: positions in the published architecture over those executed here.
        bias: additions of the bias per sample, executed; 0 without one.
        prunable: a method may mask it.
        output: it makes the image or the logits.
        frozen: its weight is a constant, which nothing trains.
    """

    name: str
    shape: tuple[int, ...]
    executed_positions: int
    published_ratio: int = 1
    bias: int = 0
    prunable: bool = True
    output: bool = False
    frozen: bool = False

    @property
    def size(self) -> int:
        """Elements of the weight."""
        return torch.Size(self.shape).numel()

    def positions(self, counting: Counting = "published") -> int:
        """Return the uses of each weight per sample."""
        return self.executed_positions * (self.published_ratio if counting == "published" else 1)

    def macs(self, nonzeros: int | None = None, counting: Counting = "published") -> int:
        """Return multiply-adds per sample with ``nonzeros`` kept weights (default: all)."""
        return (self.size if nonzeros is None else nonzeros) * self.positions(counting)


@dataclasses.dataclass(frozen=True)
class NetworkProfile:
    """The layers of one network and what else it computes per sample.

    Attributes:
        layers: every convolution and linear layer, in the network's order.
        norm: two operations per element of every normalised map. Shown, but part of no total: at inference they
            are merged into the convolutions, and they would be a thousandth of SNGAN's training.
        products: MACs of products without weights (attention), as torch's own counter sees them.
    """

    layers: tuple[LayerCost, ...]
    norm: int
    products: int

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of every prunable weight."""
        return {layer.name: layer.size for layer in self.layers if layer.prunable}

    def weight_macs(self, budgets: Mapping[str, int] | None = None, counting: Counting = "published") -> int:
        """Return MACs per sample of all weights; those that ``budgets`` does not name count as dense."""
        kept = budgets or {}
        return sum(layer.macs(kept.get(layer.name), counting) for layer in self.layers)

    def frozen_macs(self, counting: Counting = "published") -> int:
        """Return those of :meth:`weight_macs` and :meth:`other_macs` that are of frozen layers, which are dense."""
        published = counting == "published"
        ratio = {layer.name: layer.published_ratio if published else 1 for layer in self.layers if layer.frozen}
        return sum(
            layer.macs(counting=counting) + layer.bias * ratio[layer.name] for layer in self.layers if layer.frozen
        )

    def other_macs(self, counting: Counting = "published") -> int:
        """Return what no mask makes cheaper: biases (one per output) and products without weights.

        Normalisation, activations, resampling, residual sums, embeddings and power iterations are not counted.
        """
        published = counting == "published"
        biases = sum(layer.bias * (layer.published_ratio if published else 1) for layer in self.layers)
        return biases + self.products


@dataclasses.dataclass(frozen=True)
class SampleCost:
    """MACs of one forward pass of one sample.

    Attributes:
        dense_macs: all weights, as the architecture is published.
        macs: kept weights only.
        other_macs: biases and products without weights, part of neither of the above.
        norm_operations: scaling and shifting by normalisation, part of none of the above.
        executed_dense_macs: all weights, as this implementation computes them.
        executed_macs: kept weights, as this implementation would compute them with ideal sparse kernels.
    """

    dense_macs: int
    macs: int
    other_macs: int
    norm_operations: int
    executed_dense_macs: int
    executed_macs: int

    @property
    def ratio(self) -> float:
        """Sparse over dense MACs of the weights."""
        return self.macs / self.dense_macs

    def to_dict(self) -> dict[str, int | float]:
        """Return every figure, MACs and FLOPs, ready for JSON."""
        flops = {
            "dense_flops": FLOPS_PER_MAC * self.dense_macs,
            "flops": FLOPS_PER_MAC * self.macs,
            "flops_ratio": self.ratio,
        }
        return {**dataclasses.asdict(self), **flops}


def sample_cost(profile: NetworkProfile, budgets: Mapping[str, int] | None = None) -> SampleCost:
    """Cost one sample.

    Args:
        profile: the network's layers.
        budgets: kept weights per tensor; tensors that it does not name are dense.

    Raises:
        ValueError: ``budgets`` names a tensor that the network does not have, or keeps more than there are.
    """
    kept = budgets or {}
    sizes = profile.sizes
    for name, count in kept.items():
        if not 0 <= count <= sizes.get(name, -1):
            raise ValueError(f"{name} keeps {count} of {sizes.get(name, 'no')} prunable weights")
    return SampleCost(
        dense_macs=profile.weight_macs(),
        macs=profile.weight_macs(kept),
        other_macs=profile.other_macs(),
        norm_operations=profile.norm,
        executed_dense_macs=profile.weight_macs(counting="executed"),
        executed_macs=profile.weight_macs(kept, "executed"),
    )


class _Counter:
    """Forward hooks that add up the uses of every layer of one call."""

    def __init__(self) -> None:
        self.positions: dict[nn.Module, int] = {}
        self.bias: dict[nn.Module, int] = {}
        self.norm = 0

    def weighted(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        # elements over channels: pixels of a map, or rows of a linear layer
        if isinstance(module, _TRANSPOSED):
            used = args[0].numel() // module.in_channels
        elif isinstance(module, nn.Linear):
            used = out.numel() // module.out_features
        else:
            assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            used = out.numel() // module.out_channels
        self.positions[module] = self.positions.get(module, 0) + used
        if module.bias is not None:
            self.bias[module] = self.bias.get(module, 0) + out.numel()

    def normalised(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        self.norm += 2 * out.numel()


def profile_call(network: nn.Module, *inputs: Tensor | None) -> NetworkProfile:
    """Profile any network on inputs of batch size 1. Its modes, statistics and gradients stay as they are.

    A layer that is called several times counts as often; one that is not called costs nothing.
    """
    counter, handles = _Counter(), []
    for module in network.modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(counter.weighted))
        elif isinstance(module, _NORMS):
            handles.append(module.register_forward_hook(counter.normalised))
    flops = FlopCounterMode(display=False)
    # the counter follows what asks for gradients, and fails at views of parameters, which ask without having any
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with evaluating(network), flops:
            network(*inputs)
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for handle in handles:
            handle.remove()
    layers = _layers(network, counter)
    weights = sum(layer.macs(counting="executed") for layer in layers)
    return NetworkProfile(layers, counter.norm, max(0, flops.get_total_flops() // 2 - weights))


def _layers(network: nn.Module, counter: _Counter) -> tuple[LayerCost, ...]:
    prunable = prunable_weights(network)
    found = []
    for name, module in network.named_modules():
        if not isinstance(module, LAYERS):
            continue
        label = f"{name}.weight" if name else "weight"
        # the parametrised weight is never computed for its shape alone: that would take a power iteration
        stored = stored_parameter(module)
        weight = module.weight if stored is None else stored
        found.append(
            LayerCost(
                name=label,
                shape=tuple(weight.shape),
                executed_positions=counter.positions.get(module, 0),
                published_ratio=int(getattr(module, "published_ratio", 1)),
                bias=counter.bias.get(module, 0),
                prunable=label in prunable,
                output=label in prunable and prunable[label].output,
                frozen="weight" in module._buffers,
            )
        )
    return tuple(found)


def profile(network: Generator | Discriminator) -> NetworkProfile:
    """Profile a generator or a discriminator on one sample of its own shape."""
    return profile_call(network, *blank_inputs(network, 1))
