"""Before and after a compression, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.report.text import aligned
from gancompress.report.words import count, density, duration, metric_value, scaled, size
from gancompress.runs.record import metrics_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

__all__ = ["compression_lines", "compression_notes", "compression_title", "drawn_compression", "plain_compression"]


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


def compression_notes(after: Mapping[str, Any]) -> list[str]:
    """Return the lines below the comparison: its protocol, and what fine-tuning cost."""
    flops, seconds = scaled(after["training_flops"]), duration(after["training_seconds"])
    return [f"protocol: {after['protocol']}", f"fine-tuning: {flops} FLOPs, counted; {seconds}, measured"]


def compression_title(label: str, before: Mapping[str, Any]) -> str:
    """Return what stands above the comparison."""
    return f"{label}, compressed{' (smoke run: the numbers mean nothing)' if before.get('smoke') else ''}"


def plain_compression(label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the comparison as aligned lines."""
    lines = aligned([("", "before", "after", ""), *compression_lines(before, after)], numbers=(1, 2))
    below = [*lines, *compression_notes(after)]
    return "\n".join([compression_title(label, before), *(f"  {line}" for line in below)])


def drawn_compression(label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> RenderableType:
    """Return the comparison as a table for ``rich``."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(compression_title(label, before), style="bold"), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True, style="bold")
    table.add_column("", style="dim", overflow="fold")
    for line in compression_lines(before, after):
        table.add_row(*(Text(text) for text in line))
    return Group(table, *(Padding(Text(note, style="dim"), (0, 2)) for note in compression_notes(after)))
