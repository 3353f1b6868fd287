"""The table that ends a run on the terminal: drawn when there is one, plain lines in a file or a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from gancompress.report.reader import read_run
from gancompress.report.summary import headline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gancompress.report.summary import Fact

__all__ = ["plain_summary", "print_metrics", "print_summary"]


def print_summary(run_dir: Path, file: TextIO | None = None) -> None:
    """Print the headline numbers of a run: densities, FLOPs against dense, time, bytes, metric with its protocol.

    Args:
        run_dir: the run directory, finished or not.
        file: where to; standard output if not given. Only a terminal gets a drawn table.

    Raises:
        RunError: there is no run directory.
    """
    run = read_run(run_dir)
    facts = headline(run)
    out = file if file is not None else sys.stdout
    unfinished = "" if run.status.state in ("done", "running") else f" ({run.status.state})"
    title = f"{run.name}{unfinished}"
    if out.isatty():
        _draw(title, facts, out)
    else:
        print(plain_summary(title, facts), file=out)


def print_metrics(records: Sequence[Mapping[str, Any]], file: TextIO | None = None) -> None:
    """Print metrics, each with its spread and the protocol that fixes it."""
    out = file if file is not None else sys.stdout
    width = max(len(record["label"]) for record in records)
    for record in records:
        spread = f" ± {record['std']:.3g}" if record["std"] is not None else ""
        print(f"{record['label']:<{width}}  {record['value']:.5g}{spread}", file=out)
        print(f"{'':<{width}}  {record['protocol']}", file=out)


def plain_summary(title: str, facts: list[Fact]) -> str:
    """Return the same as aligned lines, one per fact."""
    if not facts:
        return f"{title}: nothing measured yet"
    label = max(len(fact.label) for fact in facts)
    value = max(len(fact.value) for fact in facts)
    lines = [title]
    for fact in facts:
        lines.append(f"  {fact.label:<{label}}  {fact.value:>{value}}  {fact.detail}".rstrip())
        if fact.protocol:
            lines.append(f"  {'':<{label}}  {'':>{value}}  {fact.protocol}")
    return "\n".join(lines)


def _draw(title: str, facts: list[Fact], out: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim", overflow="fold")
    group = facts[0].group if facts else ""
    for fact in facts:
        if fact.group != group:
            table.add_section()
            group = fact.group
        # Text, not markup: a label like FD[classifier] must not be taken for a style.
        table.add_row(Text(fact.label), Text(fact.value), Text("\n".join(filter(None, (fact.detail, fact.protocol)))))
    Console(file=out).print(table if facts else Text(f"{title}: nothing measured yet"))
