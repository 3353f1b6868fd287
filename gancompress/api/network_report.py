"""What a network from elsewhere costs before and after: measured once it is written, kept beside it with its page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gancompress.api.network_player import network_player
from gancompress.report.network import build_network_report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.export.network import LoadedNetwork
    from gancompress.foreign.compress import CompressedNetwork
    from gancompress.graphs.build import CapturedModule

__all__ = ["report_network"]

#: size of a timed input along every axis that is open
_TIMED = 128
#: operations in torch that a report names
_SHOWN = 12


def report_network(
    whole: CapturedModule,
    made: CompressedNetwork,
    file: Path,
    calibration: Sequence[tuple[Tensor, ...]],
    *,
    asked: float | str,
    pattern: str,
    pixels: tuple[float, float],
    rate: int | None = None,
    onnx: Path | None = None,
    player: bool = True,
) -> dict[str, Any]:
    """Time the file that was written, and write ``compress.json`` and ``report.html`` beside it.

    Args:
        whole: the network as it was.
        made: what came of it.
        file: where that is.
        calibration: inputs, of which the ones held out are shown.
        asked: the density that was asked for, or the target.
        pattern: units in which weights are kept.
        pixels: black and white of images.
        rate: samples per second of sound, None where nobody said it.
        onnx: the file that the network was read from.
        player: put the network into the page, where it runs.

    Returns:
        The content of ``compress.json``.
    """
    from gancompress.bench.networks import time_network
    from gancompress.bench.timing import machine, with_threads
    from gancompress.export.network import load_network
    from gancompress.foreign.agreement import agreement
    from gancompress.foreign.calibration import hold_out, typical_inputs, windows
    from gancompress.foreign.examples import RATE, examples
    from gancompress.storage.atomic import write_json

    loaded = load_network(file)
    held = hold_out(calibration)[1] if calibration else []
    timed = windows(held[:1], whole.captured, _TIMED, 1)[0] if held else typical_inputs(whole.captured, _TIMED)
    with with_threads(1):
        times = time_network(whole, {"sparse": loaded}, timed, onnx=onnx)
        dense, parts, notes = _execution(loaded, timed)
        measured_on = machine()
    measured = agreement(whole, loaded, held, pixels) if held else []  # of the file: its values may be rounded
    record = {
        "name": made.name,
        "method": made.method,
        "distilled": made.distilled,
        "pattern": pattern,
        "asked": asked,
        "density": made.density,
        "weights": made.weights,
        "kept": sum(one.kept for one in made.layers),
        "file": str(file),
        "values": loaded.source.get("values", "float32"),
        "int8": dict(loaded.source.get("quality", {})),
        "bytes": {"dense": made.dense_bytes, "packed": loaded.bytes},
        "channels": {name: [int(kept.sum()), len(kept)] for name, kept in made.channels.items()},
        "calibration": len(calibration),
        "held_out": made.held_out,
        "rate": rate,
        "pixels": list(pixels),
        "inputs": [one.name for one in whole.captured.inputs],
        "agreement": [
            {"name": one.name, "unit": one.unit, "mean": one.mean, "values": list(one.values),
             "higher_is_better": one.higher_is_better}
            for one in measured
        ],
        **times.before_and_after("sparse"),
        "torch": parts,
        "machine": measured_on,
        "layers": [
            {"name": one.name.removesuffix(".weight"), "shape": list(one.shape), "kept": one.kept,
             "weights": math.prod(one.shape), "error": one.error, "dense": dense.get(one.name, "")}
            for one in made.layers
        ],
        "notes": [*notes, *times.missing],
    }  # fmt: skip
    write_json(file.parent / "compress.json", record)
    shown = [(one.pictures, one.sounds) for one in examples(whole, loaded.network, held, pixels, rate or RATE)]
    part = network_player(whole, loaded, held, pixels, rate) if player else None
    build_network_report(file.parent / "report.html", record, shown, rate or RATE, part)
    return record


def _execution(
    loaded: LoadedNetwork, inputs: tuple[Tensor, ...]
) -> tuple[dict[str, str], list[dict[str, Any]], list[str]]:
    """Return why layers ran dense, by the names of their weights; what ran in torch, and how long; and a warning."""
    profile = loaded.profile(*inputs)
    if not profile.programs:
        why = next(iter(profile.dense.values()), "it has no convolution")
        return {}, [], [f"nothing ran sparse on this machine: {why}"]
    parts = sorted((one for one in profile.parts if one.operation != "program"), key=lambda one: -one.share)
    shown = [{"operation": one.operation, "where": one.name, "share": one.share} for one in parts[:_SHOWN]]
    return dict(profile.dense), shown, []
