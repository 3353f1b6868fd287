"""Tables of the same runs that were shown before, with fewer seeds: interim analyses, which a verdict has to pay for.

Whoever looks after five seeds, adds two because they nearly decide, and looks again, finds more differences than there
are. Comparisons lie beside each other and share their runs, so the tables that were shown are known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from gancompress.comparison.results import CellResult

__all__ = ["TableEntry", "earlier_tables", "entry_of", "shown_before", "values_of"]


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


def entry_of(cell: CellResult) -> TableEntry:
    """Return what a table shows of a run that is done."""
    return TableEntry("" if cell.path is None else cell.path.name, values_of(cell.method), cell.protocol_hash)


def values_of(label: str) -> str:
    """Return the values that the label of a method ends with; empty: those it was trained in."""
    return label.partition(":values=")[2]


def earlier_tables(path: Path) -> tuple[frozenset[TableEntry], ...]:
    """Return what the other comparisons of this directory show; one whose table cannot be read showed nothing.

    Args:
        path: of a comparison.
    """
    found = (_read(table) for table in sorted(path.parent.glob("*/compare.json")) if table.parent != path)
    return tuple(one for one in found if one)


def _read(table: Path) -> frozenset[TableEntry]:
    try:
        cells = json.loads(table.read_text(encoding="utf-8"))["cells"]
        return frozenset(
            TableEntry(cell["run"], values_of(cell["method"]), cell["protocol_hash"])
            for cell in cells
            if cell["state"] == "done"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def shown_before(
    tables: Iterable[frozenset[TableEntry]], pairs: Mapping[int, tuple[TableEntry, TableEntry]], fewest: int
) -> tuple[int, ...]:
    """Return with how many seeds a difference was shown before, ascending.

    Args:
        tables: earlier ones.
        pairs: what the difference is between, by seed.
        fewest: seeds below which a table has no verdict to give.

    Returns:
        Numbers of seeds, at least ``fewest`` and fewer than those now; the same seeds in two tables count once.
    """
    before = {tuple(seed for seed, pair in pairs.items() if table.issuperset(pair)) for table in tables}
    return tuple(sorted(len(seeds) for seeds in before if fewest <= len(seeds) < len(pairs)))
