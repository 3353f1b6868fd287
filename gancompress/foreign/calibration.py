"""Inputs that show a network what it will meet: photographs, tensors of a file, or batches of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.data.images import decode, is_image_name, to_array
from gancompress.errors import DataError
from gancompress.foreign.agreement import is_image
from gancompress.graphs.graph import DTYPES
from gancompress.seeds import generator
from gancompress.storage.reading import read_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gancompress.graphs.graph import Graph

__all__ = ["Inputs", "check_inputs", "hold_out", "read_inputs", "typical_inputs", "windows"]

#: the inputs of one call
Inputs = tuple[Tensor, ...]

#: images so many times brighter than white are of another range
_BRIGHT = 16
#: bytes of a photograph
_LARGEST = 2**28


def read_inputs(path: Path, graph: Graph, pixels: tuple[float, float] = (0.0, 1.0)) -> list[Inputs]:
    """Read calibration inputs.

    Args:
        path: a photograph, a folder of them, or a ``.safetensors`` whose every tensor is an input.
        graph: of the network, which must take one input then.
        pixels: what it takes for black and for white.

    Raises:
        DataError: there is nothing of the kind, or it does not fit the network.
    """
    where = str(path)
    if len(graph.inputs) != 1:
        raise DataError("inputs are read from files for networks with one input; from Python, give batches of yours")
    if path.suffix == ".safetensors":
        found = _tensors(path)
    elif path.is_dir():
        names = sorted(one for one in path.iterdir() if is_image_name(one.name) and one.is_file())
        if not names:
            raise DataError("holds no images; give a folder of photographs", where=where)
        found = [_image(one, graph, pixels) for one in names]
    elif is_image_name(path.name):
        found = [_image(path, graph, pixels)]
    else:
        raise DataError("give a photograph, a folder of photographs, or a .safetensors of inputs", where=where)
    inputs: list[Inputs] = [(one,) for one in found]
    check_inputs(inputs, graph, where, pixels)
    return inputs


def check_inputs(
    inputs: Sequence[Inputs], graph: Graph, where: str = "calibration", pixels: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Hold inputs against what a network declares.

    Args:
        inputs: of every call.
        graph: of the network.
        where: what errors call them.
        pixels: black and white of its images.

    Raises:
        DataError: number, shape or dtype differ, a value is not finite, or images have another range than ``pixels``.
    """
    if not inputs:
        raise DataError("is empty: give a few inputs as the network will meet them", where=where)
    for index, given in enumerate(inputs):
        if len(given) != len(graph.inputs):
            raise DataError(
                f"input {index} is {len(given)} tensors, the network takes {len(graph.inputs)}", where=where
            )
        sizes: dict[str, int] = {}
        for one, x in zip(graph.inputs, given, strict=True):
            if not one.takes(x.shape, sizes):
                asked = " x ".join(map(str, one.shape))
                raise DataError(
                    f"input {index} is {' x '.join(map(str, x.shape))}, the network takes {asked} as {one.name}",
                    where=where,
                )
            if x.dtype != DTYPES[one.dtype]:
                raise DataError(
                    f"input {index} is {str(x.dtype).removeprefix('torch.')}, the network takes {one.dtype}"
                    f"{' (pixels of 0 to 255 must become those that it was trained on)' * (x.dtype is torch.uint8)}",
                    where=where,
                )
            if x.is_floating_point() and not bool(x.isfinite().all()):
                raise DataError(f"input {index} has NaN or infinite values", where=where)
            image = x.is_floating_point() and is_image(x) and x.numel()
            if image and float(x.min()) >= 0 and _BRIGHT * max(map(abs, pixels)) < float(x.max()) <= 255:
                low, high = pixels
                raise DataError(
                    f"input {index} has values up to {float(x.max()):.4g}, the network is said to have black and white "
                    f"as {low:g} and {high:g}: scale them, or say what it has: --pixels 0 255",
                    where=where,
                )


def typical_inputs(graph: Graph, size: int = 64) -> Inputs:
    """Return inputs that the network takes: numbers of 0 to 1, or zeros where it takes integers.

    Args:
        graph: of the network.
        size: along axes that are open; the first has 1 then.
    """
    rng = generator(0, "calibration", "typical")
    sizes = {name: size for one in graph.inputs for name in one.shape if isinstance(name, str)}
    sizes |= {one.shape[0]: 1 for one in graph.inputs if one.shape and isinstance(one.shape[0], str)}
    empty = [one.example(sizes) for one in graph.inputs]
    return tuple(torch.rand(x.shape, generator=rng).to(x.dtype) if x.is_floating_point() else x for x in empty)


def hold_out(inputs: Sequence[Inputs]) -> tuple[list[Inputs], list[Inputs]]:
    """Split inputs into those to prune by and those to measure by: every fourth; a single one is both."""
    if len(inputs) == 1:
        return list(inputs), list(inputs)
    turn = min(3, len(inputs) - 1)
    apart = [index % 4 == turn for index in range(len(inputs))]
    return [one for one, held in zip(inputs, apart, strict=True) if not held], [
        one for one, held in zip(inputs, apart, strict=True) if held
    ]


def windows(inputs: Sequence[Inputs], graph: Graph, size: int, count: int, seed: int = 0) -> list[Inputs]:
    """Cut pieces at random out of inputs whose sizes may differ: much to see for little to compute.

    Axes that the network leaves open are cut, the first excepted. Inputs that none can be cut of are taken whole.

    Args:
        inputs: whole ones.
        graph: of the network.
        size: of a piece along every axis.
        count: pieces in all; each has the batch of its input.
        seed: of the places.
    """
    names = [size for one in graph.inputs for size in one.shape[1:] if isinstance(size, str)]
    if not names:
        return list(inputs)
    found = []
    for index in range(count):
        given = inputs[index % len(inputs)]
        rng = generator(seed, "calibration", "window", index)
        starts: dict[str, int] = {}
        pieces = []
        for one, x in zip(graph.inputs, given, strict=True):
            for axis, name in enumerate(one.shape):
                if axis and isinstance(name, str) and x.shape[axis] > size:
                    if name not in starts:
                        starts[name] = int(torch.randint(x.shape[axis] - size + 1, (), generator=rng))
                    x = x.narrow(axis, starts[name], size)
            pieces.append(x)
        found.append(tuple(pieces))
    return found


def _image(path: Path, graph: Graph, pixels: tuple[float, float]) -> Tensor:
    wanted = graph.inputs[0]
    if len(wanted.shape) != 4 or wanted.shape[1] not in (1, 3) or not wanted.dtype.startswith("float"):
        raise DataError(
            f"the network takes {' x '.join(map(str, wanted.shape))} of {wanted.dtype}, which no photograph is; "
            "give a .safetensors of inputs",
            where=str(path),
        )
    try:
        content = read_whole(path, _LARGEST)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    image = decode(content, path.name, str(path.parent))
    height, width = wanted.shape[2:]
    array = to_array(image, int(wanted.shape[1]), None, "lanczos", path.name, str(path.parent))
    x = torch.from_numpy(array.copy()).to(DTYPES[wanted.dtype]) / 255 * (pixels[1] - pixels[0]) + pixels[0]
    fixed = [size if isinstance(size, int) else own for size, own in zip((height, width), x.shape[1:], strict=True)]
    if list(x.shape[1:]) != fixed:
        x = torch.nn.functional.interpolate(x[None], fixed, mode="bilinear", antialias=True)[0]
    batch = wanted.shape[0]
    return x[None].repeat(batch, 1, 1, 1) if isinstance(batch, int) else x[None]


def _tensors(path: Path) -> list[Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return list(load_file(str(path)).values())
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot be read as safetensors: {error}", where=str(path)) from error
