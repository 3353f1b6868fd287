"""Networks from elsewhere in bytes: ranges from calibration inputs, and how near they stay to float."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.export.network import decode_network, encode_network, write_network
from gancompress.foreign.agreement import agreement, first_output, is_image
from gancompress.foreign.calibration import check_inputs, hold_out, windows
from gancompress.lowering.network import SparseNetwork
from gancompress.quantization.kept import bearable, kept_in_float
from gancompress.quantization.programs import calibrate_all, convolutions, merges, unfit
from gancompress.quantization.ranges import RULES, LayerBytes
from gancompress.quantization.rounding import rounding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from gancompress.foreign.calibration import Inputs
    from gancompress.graphs.build import CapturedModule
    from gancompress.quantization.ranges import RangeRule

__all__ = ["calibrate_network", "check_for_bytes", "quality_of", "rounded", "save_in_bytes"]

#: pieces of calibration inputs that ranges are taken from, and that layers are kept by; their size along open axes
_WINDOWS, _COMPARED, _WINDOW = 12, 3, 48
_NOWHERE = "none is in a place where a sparse program can be"


def calibrate_network(
    network: CapturedModule,
    masks: Mapping[str, Tensor],
    inputs: Sequence[Inputs],
    rule: RangeRule = "mse",
    pixels: tuple[float, float] = (0.0, 1.0),
) -> dict[str, LayerBytes]:
    """Choose how the convolutions of a network compute in bytes.

    Args:
        network: with what masks leave out zeroed.
        masks: by the names of weights.
        inputs: as the network will meet them; every fourth is left out, as in pruning.
        rule: how the ends of ranges are chosen.
        pixels: black and white of its images.

    Returns:
        By the names of weights; what is missing stays in float.

    Raises:
        ExportError: there are no inputs, they hold one number alone, or no layer fits.
        DataError: an input does not fit the network.
    """
    if rule not in RULES:
        raise ExportError(f"range {rule!r}: use {', '.join(RULES)}")
    check_for_bytes(network, inputs, pixels)
    pieces = windows(hold_out(inputs)[0], network.captured, _WINDOW, _WINDOWS + _COMPARED, 1)
    compared = pieces[_WINDOWS:] or pieces[:1]
    calibrated = calibrate_all(SparseNetwork(network, masks, "always").calls(pieces[:_WINDOWS] or pieces), rule)
    found, work = calibrated.ranges, calibrated.work
    if not found:
        raise ExportError(f"no layer of this network fits int8: {calibrated.reason or _NOWHERE}")
    with torch.no_grad():
        wanted = [_cut(network.compute(given)[0], pixels) for given in compared]
    power = math.fsum(float(one.double().square().mean()) for one in wanted) / len(wanted)
    most = bearable(peak=pixels[1] - pixels[0] if is_image(wanted[0]) else None, power=power)

    def error(layers: Collection[str]) -> float:
        coded = SparseNetwork(network, masks, "always", {name: found[name] for name in layers})
        outputs = [_cut(first_output(coded(*given)), pixels) for given in compared]
        return sum(float((a - b).double().square().mean()) for a, b in zip(outputs, wanted, strict=True)) / len(wanted)

    kept = kept_in_float(error, {name: work[name] for name in found}, sum(work.values()), most)
    return {name: own for name, own in found.items() if name not in kept}


def check_for_bytes(network: CapturedModule, inputs: Sequence[Inputs], pixels: tuple[float, float]) -> None:
    """Refuse, before anything takes long, what cannot become int8.

    Raises:
        ExportError: there are no inputs, they hold one and the same pixel alone, or no layer fits.
        DataError: an input does not fit the network.
    """
    if not inputs:
        raise ExportError("int8 needs calibration inputs: a few of those that the network will meet")
    check_inputs(inputs, network.captured, pixels=pixels)
    numbers = [given for given in zip(*inputs, strict=True) if given[0].is_floating_point()]
    if numbers and all(_constant([x for x in given if x.numel()]) for given in numbers):
        raise ExportError("every calibration input is one and the same all over, which says nothing of ranges")
    piece = windows(inputs[:1], network.captured, _WINDOW, 1)
    calls = SparseNetwork(network, {}, "always").calls(piece)
    steps = [(name, unfit(step)) for layers, program, _ in calls
             for name, step in zip(layers, convolutions(program), strict=True)]  # fmt: skip
    if all(why for _, why in steps):
        first = next((f"{name.removesuffix('.weight')}: {why}" for name, why in steps), _NOWHERE)
        raise ExportError(f"no layer of this network fits int8: {first}")


def _constant(inputs: Sequence[Tensor]) -> bool:
    """Whether every channel of these is one number at all of their positions; where there is one position, all are."""
    rows = [x.transpose(0, 1).flatten(1) if x.dim() > 2 else x.reshape(1, -1) for x in inputs]
    if sum(one.shape[1] for one in rows) == 1:
        rows = [one.reshape(1, -1) for one in rows]
    ends = [torch.stack([one.amin(1), one.amax(1)]) for one in rows]
    return not ends or all(bool((one == ends[0][0]).all()) for one in ends)


def save_in_bytes(
    network: CapturedModule,
    masks: Mapping[str, Tensor],
    path: Path,
    inputs: Sequence[Inputs],
    source: Mapping[str, Any],
    rule: RangeRule = "mse",
    pixels: tuple[float, float] = (0.0, 1.0),
    ranges: Mapping[str, LayerBytes] | None = None,
) -> dict[str, Any]:
    """Calibrate a network, measure it in bytes, and write it with what was measured, which is returned.

    Args:
        network: left as it is.
        masks: of its weights, by name.
        path: the file.
        inputs: as for :func:`calibrate_network`.
        source: what to remember beside.
        rule: how the ends of ranges are chosen.
        pixels: black and white of images.
        ranges: those that the network was trained with, in place of calibration.

    Raises:
        GancompressError: as for :func:`calibrate_network`, or the file cannot be written.
    """
    ranges = ranges or calibrate_network(network, masks, inputs, rule, pixels)
    kept: dict[str, Any] = {**source, "range": rule}
    stored, document = encode_network(network, masks, values="int8", source=kept, ranges=ranges)
    loaded = dataclasses.replace(decode_network(stored, document), sparse="always")
    quality = quality_of(network, masks, loaded, ranges, inputs, pixels)
    document["source"]["quality"] = quality
    write_network(path, stored, document)
    return quality


@contextlib.contextmanager
def rounded(
    network: CapturedModule, masks: Mapping[str, Tensor], ranges: Mapping[str, LayerBytes], inputs: Sequence[Inputs]
) -> Iterator[None]:
    """Let a network compute with the rounding of bytes inside, to be trained so.

    Args:
        network: changed inside.
        masks: of its weights, by name.
        ranges: from :func:`calibrate_network`; without any, nothing is changed.
        inputs: some that it takes.
    """
    pieces = windows(inputs, network.captured, _WINDOW, 1) if ranges else []
    calls = SparseNetwork(network, masks, "always").calls(pieces)
    doubled = {name for layers, program, _ in calls for name in merges(program, layers)}
    with rounding(network, ranges, doubled):
        yield


def quality_of(
    network: CapturedModule,
    masks: Mapping[str, Tensor],
    coded: Any,
    ranges: Mapping[str, LayerBytes],
    inputs: Sequence[Inputs],
    pixels: tuple[float, float],
) -> dict[str, Any]:
    """Return how near a network in bytes stays to the same weights in float32, on inputs that set no range.

    Args:
        network: in float32.
        masks: of its weights.
        coded: is called as the network is.
        ranges: of what is in bytes.
        inputs: as for :func:`calibrate_network`.
        pixels: black and white of images.
    """
    exact = SparseNetwork(network, masks, "never")  # whatever is faster here, equal networks give equal files
    layers = exact.convolutions
    measured = agreement(exact, coded, hold_out(inputs)[1], pixels)
    return {
        "convolutions": len(layers),
        "float": [name.removesuffix(".weight") for name in layers if name not in ranges],
        "agreement": [
            {"name": one.name.replace("dense", "float32"), "unit": one.unit, "mean": one.mean} for one in measured
        ],
    }


def _cut(x: Tensor, pixels: tuple[float, float]) -> Tensor:
    return x.clamp(*pixels) if is_image(x) else x
