"""Before and after a compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.report.network import before_and_after, measured_on
from gancompress.report.pages import png_uri
from gancompress.report.shown import Shown, Table
from gancompress.report.words import count, density, duration, metric_value, scaled, size
from gancompress.runs.record import mapping, metrics_of, number, records_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.runs.record import RunRecord

__all__ = ["compression_section", "int8_section", "shown_compression"]


def compression_section(run: RunRecord) -> dict[str, Any] | None:
    """Return what the report of a compressed run says of before and after; None where it is not known."""
    record = run.compression
    if not record:
        return None
    before, after, measured = (mapping(record.get(key)) for key in ("before", "after", "measured"))
    try:
        rows = _rows(before, after, measured)
        pictures = [
            (name, uri)
            for name, file in mapping(measured.get("pictures")).items()
            if (path := (run.path / file).resolve()).is_relative_to(run.path.resolve()) and (uri := png_uri(path))
        ]
        nearness = _nearness(measured)
        machine = measured_on(measured) if measured else ""
        notes = [str(one) for one in measured.get("notes", ())]
    except (ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError):  # of another version, or edited
        return None
    return {"source": record.get("source"), "rows": rows, "pictures": pictures, "nearness": nearness,
            "measured_on": machine, "notes": notes}  # fmt: skip


def int8_section(run: RunRecord) -> dict[str, Any] | None:
    """Return what the report says of a generator exported in int8; None where there is none."""
    record = run.int8
    try:
        rows = [
            (
                one.label,
                metric_value(number(old.get("before")), number(old.get("before_spread"))),
                metric_value(one.value, number(old.get("spread"))),
                one.protocol,
            )
            for one, old in zip(metrics_of(record), records_of(record.get("metrics")), strict=True)
        ]
        return {"rows": rows, "psnr": f"{record['psnr']:.1f}", "images": count(record["images"]),
                "step": count(record["step"]), "convolutions": count(record["convolutions"] - len(record["float"])),
                "float": ", ".join(map(str, record["float"])), "file": str(record["file"]),
                "note": str(record.get("note", ""))}  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError):  # none, of another version, or edited
        return None


def shown_compression(
    label: str, before: Mapping[str, Any], after: Mapping[str, Any], measured: Mapping[str, Any] | None = None
) -> Shown:
    """Return the records of ``compress.json`` beside each other, and below them what fine-tuning cost.

    Args:
        label: what was compressed.
        before: of the generator as it was.
        after: of the compressed one.
        measured: milliseconds and nearness of both, if they were measured.
    """
    smoke = " (smoke run: the numbers mean nothing)" if before.get("smoke") else ""
    flops, seconds = scaled(after["training_flops"]), duration(after["training_seconds"])
    below = [f"protocol: {after['protocol']}", f"fine-tuning: {flops} FLOPs, counted; {seconds}, measured"]
    measured = measured or {}
    below += [f"times: one call on {measured_on(measured)}"] if measured else []
    below += [_nearness(measured), *measured.get("notes", ())] if measured else []
    table = Table(_rows(before, after, measured), ("", "before", "after", ""), numbers={1, 2}, strong={2}, soft={3})
    return Shown(f"{label}, compressed{smoke}", [table], below=below, indent="  ")


def _nearness(measured: Mapping[str, Any]) -> str:
    if not measured:
        return ""
    found = measured["psnr"]
    mean = metric_value(found["mean"])
    return f"{count(found['images'])} images before and after, of the same inputs each: PSNR {mean} dB"


def _rows(
    before: Mapping[str, Any], after: Mapping[str, Any], measured: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """Return what is compared: name, before, after, and how they relate."""
    rows = []
    for new in metrics_of(after):
        old = next((one for one in metrics_of(before) if one.label == new.label), None)
        way = "higher is better" if new.higher_is_better else "lower is better"
        same = old is not None and old.protocol == new.protocol
        shown = metric_value(old.value, old.std) if old is not None else "—"
        rows.append((new.label, shown, metric_value(new.value, new.std), way if same else f"{way}; PROTOCOLS DIFFER"))
    rows.append(
        ("generator density", density(before["density"]), density(after["density"]), "exact, of what is pruned")
    )
    rows.append(
        (
            "generator weights",
            count(before["weights"]),
            count(after["weights"]),
            f"all layers; {after['weights'] / before['weights']:.3g}×",
        )
    )
    for name, key, write in (("FLOPs of one image", "flops", scaled), ("generator size, packed", "bytes", size)):
        rows.append((name, write(before[key]), write(after[key]), f"{after[key] / before[key]:.3g}×"))
    return rows + (before_and_after(measured) if measured else [])
