"""Results as people read them: described once, written as plain text, drawn on a terminal, or as HTML for a notebook.

The HTML has neither script nor address and is readable on light and on dark pages.
"""

from __future__ import annotations

import dataclasses
import html
from typing import TYPE_CHECKING

from gancompress.report.pages import png_uri

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import RenderableType
    from rich.table import Table as DrawnTable

__all__ = ["Shown", "Table", "aligned"]

#: larger pictures stay in their file: a notebook keeps a copy of everything that it shows
_LARGEST_PICTURE = 400_000

_CELL = "padding: 2px 12px 2px 0; border: none; vertical-align: top"
_SOFT = "opacity: 0.7; font-size: 90%"


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> list[str]:
    """Return one line of plain text per row, its columns below each other.

    Args:
        rows: as many texts each, a heading among them if there is one.
        numbers: columns that are aligned on the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if index in numbers else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


@dataclasses.dataclass(frozen=True)
class Table:
    """Texts in rows and columns; both are named by their index.

    Attributes:
        rows: as many texts each.
        header: one text per column; empty for a table without.
        title: the line above it, if there is one.
        numbers: columns that are aligned on the right.
        strong: columns in bold, on a terminal.
        soft: columns that stand back, and are wrapped where there is too little room.
        wraps: other columns that may be wrapped.
        bold: rows that stand out.
        dim: rows that stand back, on a terminal.
        sections: rows before which a new group begins, on a terminal.
    """

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    title: str = ""
    numbers: Collection[int] = ()
    strong: Collection[int] = ()
    soft: Collection[int] = ()
    wraps: Collection[int] = ()
    bold: Collection[int] = ()
    dim: Collection[int] = ()
    sections: Collection[int] = ()

    def plain(self) -> list[str]:
        """Return lines of text, the title among them."""
        lines = aligned([*([self.header] if self.header else []), *self.rows], self.numbers)
        return ["", self.title, *lines] if self.title else lines

    def drawn(self) -> DrawnTable:
        """Return the table without its title for ``rich``."""
        from rich import box
        from rich.table import Table as DrawnTable
        from rich.text import Text

        table = DrawnTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=bool(self.header))
        for index in range(len(self.header or self.rows[0])):
            table.add_column(
                self.header[index] if self.header else "",
                justify="right" if index in self.numbers else "left",
                style="bold" if index in self.strong else "dim" if index in self.soft else "",
                no_wrap=index not in self.soft and index not in self.wraps,
                overflow="fold",
            )
        for index, row in enumerate(self.rows):
            if index in self.sections:
                table.add_section()
            style = "bold green" if index in self.bold else "dim" if index in self.dim else ""
            # Text, not markup: a label like FD[classifier] must not be taken for a style.
            table.add_row(*(Text(text, style=style) for text in row))
        return table

    def html(self) -> str:
        """Return the table as HTML, its title above it."""

        def line(tag: str, texts: Sequence[str], bold: bool) -> str:
            return f"<tr>{''.join(cell(tag, index, text, bold) for index, text in enumerate(texts))}</tr>"

        def cell(tag: str, index: int, text: str, bold: bool) -> str:
            styles = [_CELL, f"text-align: {'right' if index in self.numbers else 'left'}"]
            styles += ["font-variant-numeric: tabular-nums; white-space: nowrap"] if index in self.numbers else []
            styles += [_SOFT] if index in self.soft else []
            styles += ["font-weight: 600"] if bold else []
            return f'<{tag} style="{"; ".join(styles)}">{html.escape(text)}</{tag}>'

        head = line("th", self.header, True) if self.header else ""
        body = "".join(line("td", row, index in self.bold) for index, row in enumerate(self.rows))
        return (_line(self.title) if self.title else "") + f"<table><tbody>{head}{body}</tbody></table>"


@dataclasses.dataclass(frozen=True)
class Shown:
    """Tables with words around them.

    Attributes:
        title: first line.
        tables: in their order; none of them is empty.
        above: lines between the title and the tables.
        below: lines after the tables.
        indent: what lines of plain text begin with, but the title.
    """

    title: str
    tables: Sequence[Table] = ()
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    indent: str = ""

    def plain(self) -> str:
        """Return aligned plain text, for a file, a pipe or a narrow terminal."""
        lines = [*self.above, *(line for table in self.tables for line in table.plain()), *self.below]
        return "\n".join([self.title, *(self.indent + line for line in lines)])

    def drawn(self) -> RenderableType:
        """Return the same for ``rich``."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        def parts() -> Iterator[RenderableType]:
            yield Text(self.title, style="bold")
            yield from map(Text, self.above)
            for table in self.tables:
                if table.title:
                    yield Text(f"\n{table.title}")
                yield table.drawn()
            yield from (Padding(Text(line, style="dim"), (0, 1)) for line in self.below)

        return Group(*parts())

    def __str__(self) -> str:
        return self.plain()

    def __rich__(self) -> RenderableType:
        return self.drawn()

    def html(self, picture: Path | None = None) -> str:
        """Return the same for a notebook, with a PNG below it unless that is none or too large."""
        parts = [_lines(self.above), *(table.html() for table in self.tables), _lines(self.below)]
        uri = png_uri(picture, _LARGEST_PICTURE) if picture is not None else None
        if uri is not None:
            parts.append(f'<img src="{uri}" alt="samples" style="max-width: min(100%, 420px); margin-top: 8px">')
        return f'<div style="overflow-x: auto"><strong>{html.escape(self.title)}</strong>{"".join(parts)}</div>'


def _line(text: str) -> str:
    return f'<div style="{_SOFT}">{html.escape(text)}</div>'


def _lines(texts: Iterable[str]) -> str:
    return "".join(map(_line, texts))
