"""The suite's figures as Markdown: one table per group and kind of column, ids down, densities or widths across."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from entries import Row

#: first letter of an entry's id, and what stands above its table
GROUPS = {
    "I": "Generators: how many times our compiled sparse one is faster than a dense one",
    "Q": "Engines of today, quantised too: how many times ours is faster, below 1 they are",
    "N": "A narrow dense generator of equal size: how many times ours is faster",
    "F": "Files",
    "E": "Evaluation",
    "M": "Masks, optimizers and averages",
    "T": "Topology updates",
    "S": "Sparse training",
    "D": "Dense training",
    "P": "Distance to what a core can do",
}
#: where a page takes the tables
BEGIN, END = "<!-- suite: begin -->", "<!-- suite: end -->"
LEGEND = (
    "Cells: median of the paired ratios [quartiles] (target; stretch target). **Bold**: target missed. "
    "Without a sign in front of the target, more is better."
)


def number(value: float) -> str:
    """A figure in as few digits as say something."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 20 else 2}f}"


def cell(row: Row) -> str:
    """One figure with its quartiles, targets and note."""
    measured = "not measured" if row.value is None else number(row.value)
    if row.met is False:
        measured = f"**{measured}**"
    if row.quartiles is not None:
        measured += f" [{number(row.quartiles[0])}–{number(row.quartiles[1])}]"
    aims = [("≤ " if row.lower else "") + f"{aim:g}" for aim in (row.target, row.stretch) if aim is not None]
    if row.target is None and aims:
        aims = [f"stretch {aims[0]}"]
    return measured + (f" ({'; '.join(aims)})" if aims else "") + (f", {row.note}" if row.note else "")


def into(page: str, text: str) -> str:
    """Put the tables between the marks of a page that has them; without marks they are the page."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    return f"{head}{begin}\n\n{text}\n{end}{tail}" if begin and end else text


def kind_of(row: Row) -> str:
    """What its column counts: ``density`` of ``density 0.05``, ``channels`` of ``32 channels``."""
    found = re.search("[a-zA-Z]+", row.at)
    return found[0] if found else ""


def table(rows: Sequence[tuple[str, Row]]) -> list[str]:
    """One table of figures whose columns count the same thing."""
    columns = list(dict.fromkeys(row.at for _, row in rows))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    ran: dict[tuple[str, str], list[str]] = {}
    for name, row in rows:
        lines.setdefault((name, row.case), {})[row.at] = cell(row)
        ran.setdefault((name, row.case), []).append(row.ran)
    said = {key: " / ".join(filter(None, dict.fromkeys(words))) for key, words in ran.items()}
    ran_in = any(said.values())  # a column only where engines tell
    heads = ["id", "case", *(["ran in"] if ran_in else []), *(column or "measured" for column in columns)]
    found = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (name, case), cells in lines.items():
        told = [said[name, case]] if ran_in else []
        found.append(f"| {' | '.join([name, case, *told, *(cells.get(column, '') for column in columns)])} |")
    return found


def markdown(
    rows: Sequence[tuple[str, Row]],
    whats: Mapping[str, str],
    left_out: Mapping[str, str] | None = None,
    level: int = 3,
) -> str:
    """All tables, each under a heading and the list of what its entries compare, then what was missed.

    Args:
        rows: figures with the ids of their entries.
        whats: by id, what an entry compares.
        left_out: by engine, why it was not measured.
        level: of the headings.
    """
    parts = [LEGEND]
    for letter, title in GROUPS.items():
        own = [(name, row) for name, row in rows if name[0] == letter]
        if not own:
            continue
        parts.append(f"{'#' * level} {title}")
        parts.append("\n".join(f"- {name}: {whats[name]}" for name in dict.fromkeys(name for name, _ in own)))
        kinds = dict.fromkeys(kind_of(row) for _, row in own)
        parts.extend("\n".join(table([(name, row) for name, row in own if kind_of(row) == kind])) for kind in kinds)
    if left_out:
        parts.append("Not measured:\n\n" + "\n".join(f"- {name}: {why}" for name, why in left_out.items()))
    missed = [
        f"- {name}, {row.case}{', ' if row.at else ''}{row.at}: {number(row.value)} for {row.target:g}"
        for name, row in rows
        if row.met is False and row.value is not None
    ]
    judged = sum(row.met is not None for _, row in rows)
    parts.append(f"{'#' * level} Missed: {len(missed)} of {judged} targets")
    return "\n\n".join([*parts, "\n".join(missed)] if missed else parts) + "\n"
