"""The page of a compressed network from elsewhere: what it costs before and after, how near it stays, what it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from gancompress.report.pages import data_uri, fill, write_page
from gancompress.report.player import PlayerPart
from gancompress.report.shown import Shown, Table
from gancompress.report.words import count, density, duration, metric_value, size

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["before_and_after", "build_network_report", "int8_lines", "measured_on", "shown_network"]

_LABELS = {"sparse": "gancompress, sparse"}
#: a title and a file each: pictures as PNG, sounds as WAV
Media: TypeAlias = Sequence[tuple[str, bytes]]


def build_network_report(
    path: Path,
    record: Mapping[str, Any],
    examples: Sequence[tuple[Media, Media]],
    rate: int,
    player: PlayerPart | None = None,
) -> Path:
    """Write the page and return its path.

    Args:
        path: of the page.
        record: the content of ``compress.json``.
        examples: pictures and sounds of an input each, as titles and bytes of PNG and WAV.
        rate: samples per second of the sounds.
        player: the network itself, or why it is not there.

    Raises:
        RunError: it cannot be written.
    """
    page = fill(
        "network.html.j2",
        record=record,
        facts=_facts(record),
        layers=_layers(record),
        has_errors=any(one["error"] is not None for one in record["layers"]),
        agreement=_agreement(record),
        times=_times(record),
        parts=[(one["operation"], one["where"], f"{100 * one['share']:.1f} %") for one in record.get("torch", ())],
        examples=[
            {
                "pictures": [(title, data_uri("image/png", content)) for title, content in pictures],
                "sounds": [(title, data_uri("audio/wav", content)) for title, content in sounds],
            }
            for pictures, sounds in examples
        ],
        rate=f"{rate:,}",
        player=player or PlayerPart(),
        measured_on=measured_on(record),
    )
    return write_page(path, page)


def shown_network(record: Mapping[str, Any]) -> Shown:
    """Return the end of ``gancompress compress``: before and after."""
    rows = [("weights", count(record["weights"]), count(record["kept"]), f"density {density(record['density'])}")]
    before, after = record["bytes"]["dense"], record["bytes"]["packed"]
    rows.append(("bytes", size(before), size(after), f"{before / after:.3g}× smaller"))
    times = record["times"]
    if "sparse" in times:
        rows += before_and_after(record)
    below = [f"{_measure(one)} ({_on(record)})" for one in record["agreement"]]
    below += int8_lines(record.get("int8", {}))
    if "sparse" in times:
        below.append(f"times: one call on {measured_on(record)}")
    below += record["notes"]
    table = Table(rows, ("", "dense", "compressed", ""), numbers={1, 2}, strong={2}, soft={3})
    by = record["method"] + f", distilled for {record['distilled']}" * bool(record["distilled"])
    return Shown(f"{record['name']}, by {by}", [_layer_table(record), table], below=below)


def int8_lines(quality: Mapping[str, Any]) -> list[str]:
    """Return what is said of a network in bytes, nothing of others."""
    if not quality:
        return []
    total, floats = quality["convolutions"], quality["float"]
    kept = f" ({', '.join(floats)} in float32)" if floats else ""
    near = [f"{one['name']} {metric_value(one['mean'])} {one['unit']}".rstrip() for one in quality.get("agreement", ())]
    return ["; ".join([f"int8: {total - len(floats)} of {total} convolutions in bytes{kept}", *near])]


def before_and_after(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return a row per dense engine: its time, the time of the sparse network, and how many times as fast that is."""
    times = record["times"]
    own = duration(times["sparse"]["seconds"])
    return [
        (f"time, {name}", duration(times[name]["seconds"]), own, f"{faster:.2f}× as fast")
        for name, faster in record["faster"].items()
    ]


def _layer_table(record: Mapping[str, Any]) -> Table:
    heads = ("layer", "weight", "density", "error")
    rows = [tuple(str(one[key]) for key in ("name", "shape", "density", "error")) for one in _layers(record)]
    return Table(rows, heads, numbers={2, 3}, wraps={0})


def _facts(record: Mapping[str, Any]) -> list[dict[str, str]]:
    kept, before, after = record["kept"], record["bytes"]["dense"], record["bytes"]["packed"]
    facts = [
        _fact("density", "weights kept", density(record["density"]), f"{count(kept)} of {count(record['weights'])}"),
        _fact("bytes", "file, smaller by", f"{before / after:.3g}×",
              f"{size(after)} with {record['values']} values; {size(before)} dense"),
    ]  # fmt: skip
    times = record["times"]
    if "sparse" in times:
        best = min(record["faster"], key=lambda name: times[name]["seconds"])
        detail = f"{duration(times['sparse']['seconds'])}, and {duration(times[best]['seconds'])} in {best}"
        facts.append(_fact("time", f"as fast as {best}", f"{record['faster'][best]:.2f}×", detail))
    facts += [
        _fact(
            "metric", one["name"], f"{metric_value(one['mean'])} {one['unit']}".strip(), int8_lines(record["int8"])[0]
        )
        for one in record.get("int8", {}).get("agreement", ())
    ]
    facts += [
        _fact("metric", one["name"], f"{metric_value(one['mean'])} {one['unit']}".strip(),
              f"{'higher' if one['higher_is_better'] else 'lower'} is nearer; {_on(record)}")
        for one in record["agreement"]
    ]  # fmt: skip
    return facts


def _fact(group: str, label: str, value: str, detail: str) -> dict[str, str]:
    return {"group": group, "label": label, "value": value, "detail": detail}


def _layers(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    most = max((one["error"] or 0.0 for one in record["layers"]), default=0.0)
    return [
        {
            "name": one["name"],
            "shape": " × ".join(map(str, one["shape"])),
            "weights": count(one["weights"]),
            "kept": count(one["kept"]),
            "density": density(one["kept"] / one["weights"]),
            "density_bar": f"{100 * one['kept'] / one['weights']:.2f}",
            "error": "—" if one["error"] is None else f"{one['error']:.2g}",
            "error_bar": f"{100 * (one['error'] or 0.0) / most:.2f}" if most else "0",
            "dense": one.get("dense", ""),
        }
        for one in record["layers"]
    ]


def _agreement(record: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [
        (f"{one['name']}{', ' * bool(one['unit'])}{one['unit']}", metric_value(one["mean"]),
         [metric_value(value) for value in one["values"]])
        for one in record["agreement"]
    ]  # fmt: skip


def _times(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, one in record["times"].items():
        low, high = one["quartiles"]
        spread = f"{low:.2f} to {high:.2f}" if high != low else "—"
        rows.append((_LABELS.get(name, name), f"{1e3 * one['seconds']:.4g}", f"{one['faster']:.2f}×", spread))
    return rows


def _measure(one: Mapping[str, Any]) -> str:
    unit = f" {one['unit']}" if one["unit"] else ""
    spread = f", {metric_value(min(one['values']))} to {metric_value(max(one['values']))}" * (len(one["values"]) > 1)
    return f"{one['name']}: {metric_value(one['mean'])}{unit}{spread}"


def _on(record: Mapping[str, Any]) -> str:
    held = record["held_out"]
    if not held:
        return "on the one calibration input, which the weights were fitted to as well"
    return f"on {held} inputs held out" if held > 1 else "on 1 input held out"


def measured_on(record: Mapping[str, Any]) -> str:
    """Return what was timed, and where."""
    shapes = record.get("call") or ", ".join("×".join(map(str, shape)) for shape in record["input_shapes"])
    machine = record["machine"]
    return f"{shapes}, median, 1 thread of {machine['processor']}, torch {machine['torch']}"
