"""Which prunable layer feeds which, and whether masks leave a path through: read off one forward pass."""

from __future__ import annotations

import copy
import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gancompress.backbones.base import blank_inputs, evaluating, prunable_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Discriminator, Generator, PrunableWeight
    from gancompress.sparsity.layers import Layer

__all__ = ["connected_layers", "passes_through"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def connected_layers(network: Generator | Discriminator, weights: Mapping[str, PrunableWeight]) -> dict[str, Layer]:
    """Return the layers of ``weights`` with their neighbours and the norms that follow them.

    The network runs once, on two zeros, in evaluation mode; neither its buffers nor a random state move. One that
    cannot run so gets the neighbours that the order of its modules suggests, and says so in ``connections``.
    """
    layers = {name: weight.layer for name, weight in weights.items()}
    try:
        sources, norms = _trace(network, weights)
    except Exception:  # whatever a network of someone else's does
        feeds = list(pairwise(weights))
        sources, norms = {after: {before} for before, after in feeds}, {}
        how: Any = "order"
    else:
        how = "traced"
    return {
        name: dataclasses.replace(
            layer,
            norm=norms.get(name),
            sources=tuple(other for other in layers if other in sources.get(name, ())),
            targets=tuple(other for other in layers if name in sources.get(other, ())),
            connections=how,
        )
        for name, layer in layers.items()
    }


def _trace(
    network: Generator | Discriminator, weights: Mapping[str, PrunableWeight]
) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return what feeds each weight, and the norm that follows it alone."""
    x, labels = blank_inputs(network, 2)
    x.requires_grad_()
    normed: list[tuple[Any, str]] = []

    def note(name: str) -> Any:
        return lambda module, arguments: normed.append((arguments[0].grad_fn, name))

    modules = [(name, module) for name, module in network.named_modules() if isinstance(module, _NORMS)]
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in modules]
    try:
        with evaluating(network), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            out = network(x, labels)
    finally:
        for hook in hooks:
            hook.remove()
    leaves = {id(weight.parameter): name for name, weight in weights.items()}
    return _walk(out.grad_fn, id(x), leaves, normed)


def _walk(
    last: Any, start: int, leaves: Mapping[int, str], normed: list[tuple[Any, str]]
) -> tuple[dict[str, set[str]], dict[str, str]]:
    order, users = _in_order(last)
    carries: dict[Any, bool] = {}  # whether a node depends on the input
    nearest: dict[Any, frozenset[str]] = {}  # the last prunable weights before and at a node
    sources: dict[str, set[str]] = {}
    for node in order:
        variable = getattr(node, "variable", None)
        before = [parent for parent, _ in node.next_functions if parent is not None]
        if variable is not None:
            carries[node] = id(variable) == start
            nearest[node] = frozenset({leaves[id(variable)]} if id(variable) in leaves else ())
            continue
        carries[node] = any(carries[parent] for parent in before)
        data = frozenset().union(*(nearest[parent] for parent in before if carries[parent]))
        own = frozenset().union(*(nearest[parent] for parent in before if not carries[parent]))
        if carries[node]:
            for name in own:
                sources.setdefault(name, set()).update(data)
        nearest[node] = own or data
    # a norm belongs to a layer when it is all that reads the layer's output
    norms: dict[str, str] = {}
    for node, norm in normed:
        while node is not None and users.get(node, 0) == 1:
            weighed = [parent for parent, _ in node.next_functions if parent is not None and not carries[parent]]
            names = frozenset().union(*(nearest[parent] for parent in weighed))
            if names:
                norms.update(dict.fromkeys(names, norm))
                break
            data_parents = [parent for parent, _ in node.next_functions if parent is not None and carries[parent]]
            # a view or a change of resolution may stand between; an activation or a sum may not
            follows = len(data_parents) == 1 and node.name().startswith(("View", "Reshape", "Upsample", "Unsafe"))
            node = data_parents[0] if follows else None
    return sources, norms


def _in_order(last: Any) -> tuple[list[Any], dict[Any, int]]:
    """Return every node of an autograd graph after those it depends on, and how many nodes use each."""
    order: list[Any] = []
    users: dict[Any, int] = {}
    opened: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(last, False)]
    while stack:
        node, closed = stack.pop()
        if closed:
            order.append(node)
            continue
        if node in opened:
            continue
        opened.add(node)
        stack.append((node, True))
        for parent, _ in node.next_functions:
            if parent is not None:
                users[parent] = users.get(parent, 0) + 1
                stack.append((parent, False))
    return order, users


def passes_through(network: Generator | Discriminator, masks: Mapping[str, Tensor], *, as_it_is: bool = True) -> bool:
    """Whether what ``network`` makes can depend on its latents or images where it keeps the weights of ``masks`` only.

    One whose output moves with its input as it is passes. One whose output does not (a layer that starts at zero,
    dead units) is asked again with every kept weight positive, where no two paths cancel: only masks can stop it.
    Neither weights, buffers nor a random state move; a network that cannot be asked passes.

    Args:
        network: computes under these masks, unless told otherwise.
        masks: kept weights, by names of ``prunable_weights``.
        as_it_is: whether the network's own weights may answer.
    """
    try:
        return (as_it_is and _moves(network)) or _moves(_all_positive(network, masks))
    except Exception:  # whatever a network of someone else's does
        return True


def _moves(network: Generator | Discriminator) -> bool:
    """Whether the gradient of the output with respect to the input is anything but zero, for one of eight inputs."""
    x, labels = blank_inputs(network, 8)
    x = _spread(x).to(next(network.parameters()).dtype).requires_grad_()
    with evaluating(network), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        out = network(x, labels)
        (gradient,) = torch.autograd.grad((out * _spread(out)).sum(), x)
    return bool((gradient.isfinite() & (gradient != 0)).any())  # the spectral norm of an empty layer is 0 / 0


def _spread(like: Tensor) -> Tensor:
    """Return numbers between 0.1 and 1.1 without a pattern, in the shape of ``like``: multiples of the golden ratio."""
    steps = torch.arange(like.numel(), dtype=torch.float64) * 0.6180339887498949
    return (steps.frac() + 0.1).view(like.shape).to(like.device, torch.float32)


def _all_positive(network: Generator | Discriminator, masks: Mapping[str, Tensor]) -> Generator | Discriminator:
    """Return a copy whose kept weights and gains are positive and whose biases are zero."""
    network = copy.deepcopy(network)
    kept = {id(weight.parameter): masks.get(name) for name, weight in prunable_weights(network).items()}
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and module.is_tensor:
            # what divides a weight may turn its sign; removing it would take it from the original as well, whose class
            # the copy shares
            for index in range(len(module)):
                module[index] = nn.Identity()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
        with torch.no_grad():
            for key, parameter in module.named_parameters(recurse=False):
                mask = kept.get(id(parameter))
                parameter.fill_(0 if key == "bias" else 1).mul_(1 if mask is None else mask)
                if parameter.dim() > 1:  # averages: no sum of them saturates what bounds the image
                    sums = [parameter.transpose(0, axis).flatten(1).sum(1).max() for axis in (0, 1)]
                    parameter.div_(max(1.0, *map(float, sums)))
    with torch.no_grad():
        for parameter in network.output_layer().parameters():
            parameter.mul_(1e-3)
    return network
