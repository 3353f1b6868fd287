"""A generator from elsewhere, whatever it was: a graph and its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.errors import ExportError, located
from gancompress.export.plain import plain_copy
from gancompress.foreign.onnx_file import read_onnx
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.capture import capture
from gancompress.graphs.layers import with_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gancompress.graphs.graph import Graph

__all__ = ["capture_module", "open_onnx"]

#: Largest difference between a network and its graph, of the network's largest output.
_TOLERANCE = 1e-5
#: what a size that may change is while a network is captured: no two alike, so that none is taken for another
_SIZES = (24, 32, 40, 48, 56)

Axes = dict[int, str]


def capture_module(
    module: nn.Module, example: Sequence[Tensor], dynamic: Sequence[Axes] | None = None
) -> CapturedModule:
    """Return a network of its own that computes the same as ``module`` in eval mode, and needs no class.

    Args:
        module: left as it is; weights that are computed, by a spectral or weight norm or a mask, are written out.
        example: inputs that it takes.
        dynamic: for every input, names of the axes whose sizes may change; default: the first axis of each. Axes
            of one name have one size.

    Raises:
        ExportError: it does not run on the example, holds NaN, draws random numbers, or cannot be captured.
    """
    axes = [dict(one) for one in dynamic] if dynamic is not None else [{0: "n"} if x.dim() else {} for x in example]
    if len(axes) != len(example):
        raise ExportError(f"dynamic sizes of {len(axes)} inputs, the example has {len(example)}")
    for index, (x, names) in enumerate(zip(example, axes, strict=True)):
        if far := [axis for axis in names if axis >= x.dim()]:
            raise ExportError(f"input {index} is {'x'.join(map(str, x.shape))} and has no axis {far[0]}")
    broken = [name for name, tensor in module.state_dict().items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ExportError(f"{broken[0]} holds NaN or infinite values")
    given = [_at_least_two(x.detach().cpu(), own) for x, own in zip(example, axes, strict=True)]
    plain = plain_copy(module)
    with torch.no_grad():
        _run(plain, [x.detach().cpu() for x in example])
        wanted = _run(plain, given)
        if not all(bool(one.isfinite().all()) for one in wanted):
            raise ExportError("it gives NaN or infinite outputs on its example")
        if any(not torch.equal(a, b) for a, b in zip(wanted, _run(plain, given), strict=True)):
            raise ExportError("two runs give two answers: it draws random numbers, which a graph cannot do")
        named = {f"input_{index}": x for index, x in enumerate(given)}
        graph, tensors = capture(plain, named, axes)
        parameters = [name for name, _ in plain.named_parameters(remove_duplicate=False)]
        found = _built(*with_layers(graph, tensors, given, parameters))
        if not all(
            _difference(plain, found, inputs) <= _TOLERANCE for inputs in (given, _one_more(plain, given, axes))
        ):
            found = _built(graph, tensors)  # with weights that stay computed
        difference = _difference(plain, found, given)
        if not difference <= _TOLERANCE:
            raise ExportError(f"its graph gives outputs that differ by {difference:.1e} of the largest")
    return found


def _built(graph: Graph, tensors: Mapping[str, Tensor]) -> CapturedModule:
    return CapturedModule(graph, {name: tensor.clone() for name, tensor in tensors.items()})


def _difference(module: nn.Module, network: CapturedModule, inputs: Sequence[Tensor]) -> float:
    """Return the largest difference of two networks' outputs, of the largest one or 1."""
    pairs = zip(_run(module, inputs), _run(network, inputs), strict=True)
    return max(float((one - other).abs().max()) / max(float(one.abs().max()), 1.0) for one, other in pairs)


def _one_more(module: nn.Module, inputs: Sequence[Tensor], axes: Sequence[Axes]) -> Sequence[Tensor]:
    """Return inputs of one image more, if it takes them: what is right for one size alone is found out."""
    batch = next((own[0] for own in axes if 0 in own), None)
    found = []
    for x, own in zip(inputs, axes, strict=True):
        for axis in (axis for axis, name in own.items() if name == batch):
            x = torch.cat((x, x.narrow(axis, 0, 1)), axis)
        found.append(x)
    try:
        _run(module, found)
    except ExportError:
        return inputs
    return found


def open_onnx(path: Path, sizes: Mapping[str, int] | None = None) -> CapturedModule:
    """Read an ``.onnx`` file; the sizes that it leaves open stay open, and inputs and outputs keep their names.

    Args:
        path: the file.
        sizes: by name, of what the file leaves open, for trying it; for networks that take not every size.

    Raises:
        ExportError: it is none, or it has operations that are not known here.
    """
    module, inputs = read_onnx(path)
    names = list(dict.fromkeys(size for one in inputs for size in one.shape if isinstance(size, str)))
    tried = {name: 2 if index == 0 else _SIZES[index % len(_SIZES)] for index, name in enumerate(names)}
    tried |= sizes or {}
    rng = torch.Generator().manual_seed(0)
    example = []
    for one in inputs:
        shape = [tried[size] if isinstance(size, str) else size for size in one.shape]
        if not one.dtype.startswith("float"):
            example.append(torch.zeros(shape, dtype=getattr(torch, one.dtype)))
        else:
            example.append(torch.rand(shape, generator=rng))
    dynamic = [{axis: size for axis, size in enumerate(one.shape) if isinstance(size, str)} for one in inputs]
    with located(str(path)):
        found = capture_module(module, example, dynamic)
    graph = found.captured
    named = dict(zip(graph.outputs, module.outputs, strict=True))
    named |= {own.name: one.name for own, one in zip(graph.inputs, inputs, strict=True)}
    return CapturedModule(graph.renamed(named), found.state_dict())


def _run(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    try:
        found = module(*inputs)
    except ExportError:
        raise
    except Exception as error:  # someone else's code
        shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"it does not run on an example of {shapes} ({type(error).__name__}: {reason})") from error
    outputs = tuple(found) if isinstance(found, tuple | list) else (found,)
    if not outputs or not all(isinstance(one, Tensor) for one in outputs):
        raise ExportError("it must return a tensor or a tuple of tensors")
    return outputs


def _at_least_two(x: Tensor, axes: Axes) -> Tensor:
    """A size of one is taken for a constant, so an axis that may change has two at least."""
    for axis in axes:
        if x.shape[axis] == 1:
            x = x.repeat_interleave(2, axis)
    return x
