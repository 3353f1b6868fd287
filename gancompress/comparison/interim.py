"""Tables of the same runs that were shown before, with other seeds: interim analyses, which a verdict has to pay for.

Whoever looks after five seeds, adds two because they nearly decide, and looks again, finds more differences than there
are; and so does whoever leaves one out. Comparisons lie beside each other and share their runs, so the tables that were
shown are known, and when each was shown first.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gancompress.comparison.choices import values_of
from gancompress.storage.reading import parse_json, read_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gancompress.comparison.results import CellResult

__all__ = ["TableEntry", "TableRow", "earlier_tables", "entry_of", "first_shown", "shown_before"]


class TableEntry(NamedTuple):
    """What a number in a table is of.

    Attributes:
        run: directory of the run.
        values: that its generator was exported with.
        protocol: hash of the protocol that it was evaluated by.
    """

    run: str
    values: str
    protocol: str


#: what one row of a table is of, by seed
TableRow: TypeAlias = Mapping[int, TableEntry]


def entry_of(cell: CellResult) -> TableEntry:
    """Return what a table shows of a run that is done."""
    return TableEntry("" if cell.path is None else cell.path.name, values_of(cell.method), cell.protocol_hash)


def first_shown(path: Path) -> str:
    """Return when the table of the comparison at ``path`` was first written, in UTC; now where it is not yet."""
    return _read(path)[0] or datetime.datetime.now(datetime.UTC).isoformat()


def earlier_tables(path: Path, shown: str) -> tuple[tuple[TableRow, ...], ...]:
    """Return the tables beside a comparison that were shown before it; one that cannot be read showed nothing.

    Args:
        path: of the comparison.
        shown: when its own table was first.
    """
    others = (_read(table.parent) for table in sorted(path.parent.glob("*/compare.json")) if table.parent != path)
    return tuple(rows for when, rows in others if rows and when < shown)


def _read(path: Path) -> tuple[str, tuple[TableRow, ...]]:
    """Return when a table was first shown, or of files that do not say so was begun, and its rows."""
    found: dict[tuple[str, str], dict[int, TableEntry]] = {}
    try:
        table = parse_json(read_whole(path / "compare.json"))
        for cell in table["cells"]:
            if cell["state"] == "done":
                entry = TableEntry(cell["run"], values_of(cell["method"]), cell["protocol_hash"])
                found.setdefault((cell["method"], str(cell["density_asked"])), {})[cell["seed"]] = entry
        shown = table.get("shown") or parse_json(read_whole(path / "comparison.json"))["made"]
        return str(shown), tuple(found.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", ()


def shown_before(tables: Iterable[Iterable[TableRow]], left: TableRow, right: TableRow, fewest: int) -> tuple[int, ...]:
    """Return with how many seeds a difference was shown before, ascending.

    Args:
        tables: earlier ones.
        left: one row of the difference.
        right: the other, of the same seeds.
        fewest: seeds below which a table has no verdict to give.

    Returns:
        Numbers of seeds, at least ``fewest``, of the tables that share a seed with this one and are not of the same
        seeds; two of the same count once. New seeds alone are a new question.
    """
    before = {_seeds(table, left) & _seeds(table, right) for table in map(tuple, tables)}
    return tuple(sorted(len(seeds) for seeds in before if len(seeds) >= fewest and seeds != left.keys()))


def _seeds(table: Iterable[TableRow], row: TableRow) -> frozenset[int]:
    """Return the seeds of a row in a table; none where it is not in there."""
    return frozenset(next((other.keys() for other in table if other.items() & row.items()), ()))
