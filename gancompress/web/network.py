"""From a network from elsewhere to the file that pages run: an image or numbers in, an image or sound out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress import __version__
from gancompress.errors import ExportError
from gancompress.graphs.build import CapturedModule, check
from gancompress.graphs.values import constants_of, values_of
from gancompress.lowering.network import SparseNetwork
from gancompress.web.blob import Tensors, write_blob
from gancompress.web.graph_tape import GraphTape
from gancompress.web.sizes import UnevenError, followed, merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.quantization.ranges import LayerBytes

__all__ = ["RATE", "network_blob"]

#: samples per second of sound, where nothing says it
RATE = 22050
#: what open sizes are multiples of: strips of an image, which may be halved several times; the first that does is taken
_UNITS = (4, 8, 16, 32, 64)
#: the smallest sizes that are tried, in turn
_LEAST = (16, 32, 64, 128)
#: how far from torch a plan's outputs may be, of the largest: rounding, and no wrong fusion
_TOLERANCE = 1e-3
#: numbers of an example that is no image
_NUMBERS = 50_000


def network_blob(
    network: CapturedModule,
    masks: Mapping[str, Tensor],
    *,
    ranges: Mapping[str, LayerBytes] | None = None,
    name: str = "network",
    pixels: tuple[float, float] = (0.0, 1.0),
    rate: int | None = None,
    examples: Sequence[Tensor] = (),
    rounds: bool = True,
) -> bytes:
    """Return a network as a ``.gcw`` file; see :mod:`gancompress.web.blob`.

    Args:
        network: in eval mode, with one input; weights that a mask leaves out are 0.
        masks: by the names of weights; True is kept. Of a weight without one, what is not 0 is kept.
        ranges: how convolutions compute in bytes, by the names of their weights.
        name: of the network.
        pixels: black and white of its images.
        rate: samples per second of sound.
        examples: inputs that the page begins with, ``(1, ...)``; cut to sizes that it takes.
        rounds: round weights of convolutions to bfloat16.

    Raises:
        ExportError: it has an operation that pages lack, which is named; or it takes or gives what they cannot show.
    """
    shape, gives = _shapes(network)
    network = _rounded(network) if rounds and not ranges else network
    tensors = Tensors()
    record, axes = _recorded(_Lowered(network, masks, ranges, tensors), shape)
    takes = "image" if len(shape) == 3 and shape[0] in (1, 3) else "numbers"
    header: dict[str, Any] = {
        "gancompress": __version__,
        "kind": "network",
        "name": name,
        "takes": takes,
        "gives": gives,
        "shape": [size if isinstance(size, int) else {"axis": _index(axes, size)} for size in shape],
        "axes": [{"unit": one.unit, "least": one.least} for one in axes],
        "pixels": list(pixels),
        "rate": rate or RATE,
        **record,
    }
    cut = [_cut(one, shape, axes, takes) for one in examples]
    header["examples"] = [_example(one, takes, pixels, tensors) for one in cut if one is not None]
    return write_blob(header, tensors)


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A size that may change: ``unit`` times ``least`` or more."""

    name: str
    unit: int
    least: int

    def size(self, more: int = 0) -> int:
        return self.unit * (self.least + more)


def _index(axes: Sequence[_Axis], name: str) -> int:
    return next(index for index, one in enumerate(axes) if one.name == name)


def _shapes(network: CapturedModule) -> tuple[tuple[int | str, ...], str]:
    """Return the shape of the one input, without its batch, and what the network gives."""
    graph = network.captured
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ExportError(
            f"pages give one input and show one output, and this has {len(graph.inputs)} and {len(graph.outputs)}"
        )
    (given,) = graph.inputs
    batch, *shape = given.shape
    single = isinstance(batch, str) or batch == 1
    if given.dtype != "float32" or not 1 <= len(shape) <= 3 or not single:
        raise ExportError(f"pages give one image, or one piece of float32 numbers, and this takes {given}")
    if isinstance(shape[0], str):
        raise ExportError(f"pages give a fixed number of channels, and this takes {given}")
    sizes = {size: 128 for size in shape if isinstance(size, str)} | ({batch: 1} if isinstance(batch, str) else {})
    (made,) = check(graph, network.state_dict(), sizes)
    if len(made) == 4 and made[1] in (1, 3):
        return tuple(shape), "image"
    if len(made) == 3 and made[1] == 1:
        return tuple(shape), "sound"
    raise ExportError(f"pages show images and play sound of one channel, and this gives {' x '.join(map(str, made))}")


def _rounded(network: CapturedModule) -> CapturedModule:
    """Return a network whose weights of several axes are bfloat16 numbers."""
    state = {
        name: tensor.to(torch.bfloat16).float() if tensor.dim() > 1 and tensor.dtype is torch.float32 else tensor
        for name, tensor in network.state_dict().items()
    }
    return CapturedModule(network.captured, state)


class _Lowered:
    """A network as lists of numbers, for inputs of any one size."""

    def __init__(
        self,
        network: CapturedModule,
        masks: Mapping[str, Tensor],
        ranges: Mapping[str, LayerBytes] | None,
        tensors: Tensors,
    ) -> None:
        self.network, self.tensors = network, tensors
        self._run = SparseNetwork(network, masks, "always", ranges)
        self._state, self._constants = network.state_dict(), constants_of(network)
        self._meta = CapturedModule(network.captured, {key: one.to("meta") for key, one in self._state.items()})
        self._places: list[dict[int, int]] = []
        self._exact = not ranges

    def at(self, size: Sequence[int]) -> dict[str, Any]:
        """Return programs and operations for an input of this shape, without its batch."""
        x = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
        values = values_of(self._meta, [x])
        plan = self._run.plan([x])
        tape = GraphTape(self.tensors, self.network.captured, values, self._state, self._constants, self._places)
        for step in plan.steps:
            tape.add(step)
        self._places = tape.places
        if self._exact:
            self._compare(plan, x)
            self._exact = False  # once will do
        return tape.record(self.network.captured.outputs[0])

    def _compare(self, plan: Any, x: Tensor) -> None:
        with torch.no_grad():
            wanted, found = self.network(x), plan(x)
        difference = float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1e-30))
        if not difference <= _TOLERANCE:
            raise ExportError(f"its programs give outputs that differ by {difference:.1e} of the largest")


def _recorded(lowered: _Lowered, shape: Sequence[int | str]) -> tuple[dict[str, Any], list[_Axis]]:
    """Return what a page runs, and the sizes that may change."""
    names = list(dict.fromkeys(size for size in shape if isinstance(size, str)))
    why: Exception | None = None
    for unit in _UNITS if names else _UNITS[:1]:
        for least in _LEAST:
            if least % unit:
                continue
            axes = [_Axis(name, unit, least // unit) for name in names]

            def at(*more: int, axes: Sequence[_Axis] = axes) -> dict[str, Any]:
                sizes = {axis.name: axis.size(count) for axis, count in zip(axes, more, strict=True)}
                return lowered.at([sizes[size] if isinstance(size, str) else size for size in shape])

            try:
                whole = at(*(0 for _ in names))
                larger = [at(*(int(one == name) for one in names)) for name in names]
                record = merged(whole, larger)
                steps = range(2, 2 + len(names))
                if followed(record, steps) == at(*steps):
                    return dict(record), axes
            except ExportError:
                raise
            except UnevenError:
                pass
            except Exception as error:  # sizes that do not go together: torch says so in many ways
                why = error
                continue
            break  # larger ones of this unit differ alike
    reason = f" ({' '.join(str(why).split())[:160]})" if why is not None else ""
    raise ExportError(f"pages run networks whose maps grow evenly with the input, and this one's do not{reason}")


def _cut(example: Tensor, shape: Sequence[int | str], axes: Sequence[_Axis], takes: str) -> Tensor | None:
    """Return an example of sizes that the page takes, without its batch; None if it is too small."""
    x = example[0].float()
    most = _NUMBERS // max(1, int(shape[0])) if takes == "numbers" else 2**31
    for dim, size in enumerate(shape):
        if isinstance(size, str):
            axis = axes[_index(axes, size)]
            kept = min(x.shape[dim], most) // axis.unit * axis.unit
            if kept < axis.size():
                return None
            x = x.narrow(dim, 0, kept)
    return x


def _example(x: Tensor, takes: str, pixels: tuple[float, float], tensors: Tensors) -> dict[str, Any]:
    if takes == "image":
        grey = ((x - pixels[0]) / (pixels[1] - pixels[0]) * 255).round().clamp(0, 255) - 128
        return {"tensor": tensors.add(grey.to(torch.int8)), "shape": list(x.shape)}
    near = x.to(torch.bfloat16).float()
    return {"tensor": tensors.add(near.reshape(1, -1), rounded=near.reshape(1, -1)), "shape": list(x.shape)}
