"""Before and after a compression, on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from gancompress.report.reader import metrics_of
from gancompress.report.words import count, density, duration, metric_value, scaled, size

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["compression_lines", "print_compression"]


def compression_lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return what is compared: name, before, after, and how they relate."""
    lines = []
    for new in metrics_of(after):
        old = next((one for one in metrics_of(before) if one.label == new.label), None)
        way = "higher is better" if new.higher_is_better else "lower is better"
        same = old is not None and old.protocol == new.protocol
        shown = metric_value(old.value, old.std) if old is not None else "—"
        lines.append((new.label, shown, metric_value(new.value, new.std), way if same else f"{way}; PROTOCOLS DIFFER"))
    lines.append(
        ("generator density", density(before["density"]), density(after["density"]), "exact, of what is pruned")
    )
    lines.append(
        (
            "generator weights",
            count(before["weights"]),
            count(after["weights"]),
            f"all layers; {after['weights'] / before['weights']:.3g}×",
        )
    )
    for name, key, write in (("FLOPs of one image", "flops", scaled), ("generator size, packed", "bytes", size)):
        lines.append((name, write(before[key]), write(after[key]), f"{after[key] / before[key]:.3g}×"))
    return lines


def print_compression(
    label: str, before: Mapping[str, Any], after: Mapping[str, Any], file: TextIO | None = None
) -> None:
    """Print the comparison as aligned lines, its protocol, and what fine-tuning cost."""
    out = file if file is not None else sys.stdout
    lines = [("", "before", "after", ""), *compression_lines(before, after)]
    widths = [max(len(line[index]) for line in lines) for index in range(3)]
    print(f"{label}, compressed", file=out)
    for name, old, new, note in lines:
        print(f"  {name:<{widths[0]}}  {old:>{widths[1]}}  {new:>{widths[2]}}  {note}".rstrip(), file=out)
    print(f"  protocol: {after['protocol']}", file=out)
    flops, seconds = scaled(after["training_flops"]), duration(after["training_seconds"])
    print(f"  fine-tuning: {flops} FLOPs, counted; {seconds}, measured", file=out)
