"""Before and after a compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.report.shown import Shown, Table
from gancompress.report.words import count, density, duration, metric_value, scaled, size
from gancompress.runs.record import metrics_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["shown_compression"]


def shown_compression(label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Shown:
    """Return the two records of ``compress.json`` beside each other, and below them what fine-tuning cost."""
    smoke = " (smoke run: the numbers mean nothing)" if before.get("smoke") else ""
    flops, seconds = scaled(after["training_flops"]), duration(after["training_seconds"])
    below = [f"protocol: {after['protocol']}", f"fine-tuning: {flops} FLOPs, counted; {seconds}, measured"]
    table = Table(_rows(before, after), ("", "before", "after", ""), numbers={1, 2}, strong={2}, soft={3})
    return Shown(f"{label}, compressed{smoke}", [table], below=below, indent="  ")


def _rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
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
    return rows
