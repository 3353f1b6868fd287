"""Results as HTML for a notebook: small tables without script or address, readable on light and on dark pages."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from gancompress.report.comparison_table import COLUMNS, notes, row_texts, table_title, winner
from gancompress.report.compression import compression_lines, compression_notes, compression_title
from gancompress.report.pages import png_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from gancompress.comparison.results import Results
    from gancompress.report.tables import Summary

__all__ = ["comparison_html", "compression_html", "picture_html", "summary_html"]

#: larger pictures stay in their file: a notebook keeps a copy of everything that it shows
_LARGEST_PICTURE = 400_000

_CELL = "padding: 2px 12px 2px 0; border: none; vertical-align: top"
_SOFT = "opacity: 0.7; font-size: 90%"


def summary_html(summary: Summary, picture: Path | None = None) -> str:
    """Return the numbers of a run, and its last sample grid below them.

    Args:
        summary: from :func:`gancompress.report.tables.summary_of`.
        picture: a PNG to show, if there is one.
    """
    rows = [((fact.label, fact.value, fact.detail), False) for fact in summary.facts]
    empty = [] if summary.facts else ["nothing measured yet"]
    return _page(summary.title, [_table(None, rows, numbers={1}, soft={2})], [*empty, *summary.lines], picture)


def comparison_html(results: Results) -> str:
    """Return the tables of a comparison; the best sparse row of each is set in bold."""
    above, below = notes(results)
    seeds = len(results.grid.seeds)
    tables = []
    for key, rows in results.tables.items():
        best = winner(results, rows)
        lines = [(row_texts(row, seeds), row is best) for row in rows]
        numbers = set(range(1, len(COLUMNS)))
        tables += [_line(table_title(results, key)), _table([name for name, _ in COLUMNS], lines, numbers=numbers)]
    return _page(above[0], [*(_line(line) for line in above[1:]), *tables], below)


def compression_html(
    label: str, before: Mapping[str, Any], after: Mapping[str, Any], picture: Path | None = None
) -> str:
    """Return before and after, and the last sample grid of the compressed generator below them."""
    rows = [(line, False) for line in compression_lines(before, after)]
    table = _table(["", "before", "after", ""], rows, numbers={1, 2}, soft={3})
    return _page(compression_title(label, before), [table], compression_notes(after), picture)


def picture_html(path: Path) -> str:
    """Return a PNG as an image that needs no file beside the page; empty when it is none, or too large."""
    uri = png_uri(path, _LARGEST_PICTURE)
    if uri is None:
        return ""
    return f'<img src="{uri}" alt="samples" style="max-width: min(100%, 420px); margin-top: 8px">'


def _page(title: str, parts: Sequence[str], lines: Iterable[str], picture: Path | None = None) -> str:
    shown = picture_html(picture) if picture is not None else ""
    body = "".join([*parts, *(_line(line) for line in lines), shown])
    return f'<div style="overflow-x: auto"><strong>{html.escape(title)}</strong>{body}</div>'


def _line(text: str) -> str:
    return f'<div style="{_SOFT}">{html.escape(text)}</div>'


def _table(
    header: Sequence[str] | None,
    rows: Iterable[tuple[Sequence[str], bool]],
    *,
    numbers: set[int],
    soft: set[int] | None = None,
) -> str:
    """Return a table; ``numbers`` are aligned right, ``soft`` columns stand back, marked rows are bold."""
    weak = soft or set()

    def cell(tag: str, index: int, text: str, bold: bool = False) -> str:
        align = "right" if index in numbers else "left"
        styles = [_CELL, f"text-align: {align}"]
        styles += ["font-variant-numeric: tabular-nums; white-space: nowrap"] if index in numbers else []
        styles += [_SOFT] if index in weak else []
        styles += ["font-weight: 600"] if bold or tag == "th" else []
        return f'<{tag} style="{"; ".join(styles)}">{html.escape(text)}</{tag}>'

    lines = [] if header is None else ["".join(cell("th", index, name) for index, name in enumerate(header))]
    lines += ["".join(cell("td", index, text, bold) for index, text in enumerate(row)) for row, bold in rows]
    return f"<table><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
