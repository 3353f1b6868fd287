"""The table that ends a run on the terminal: drawn when there is one, plain lines in a file or a pipe."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.report.published import answers_of_run
from gancompress.report.summary import headline, metric_facts
from gancompress.report.text import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from gancompress.report.summary import Fact
    from gancompress.runs.record import Metric, RunRecord

__all__ = ["Summary", "drawn_summary", "plain_metrics", "plain_summary", "summary_of"]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run comes down to, ready to be written anywhere.

    Attributes:
        title: name of the recipe, and its state where the run did not end.
        facts: densities, FLOPs against dense, time, bytes, and every metric of the best evaluation.
        lines: what holds for all metrics: the protocol that they share, a warning where there is one to give, and the
            published figures that they answer to.
    """

    title: str
    facts: tuple[Fact, ...]
    lines: tuple[str, ...]


def summary_of(run: RunRecord) -> Summary:
    """Return the numbers of a run; what is a metric's own stands beside it, the shared protocol below."""
    facts, lines = headline(run), list[str]()
    chosen = run.best if run.best is not None else run.last
    if chosen is not None:
        # The headline's own metric is the first of these, and says of which step it is and what came last.
        of_step = "".join(fact.detail for fact in facts if fact.group == "metric")
        measured, lines = metric_facts(chosen[1], of_step)
        facts = [*(fact for fact in facts if fact.group != "metric"), *measured]
    unfinished = "" if run.status.state in ("done", "running") else f" ({run.status.state})"
    smoke = " (smoke run: the numbers mean nothing)" if run.is_smoke else ""
    lines += [answer.line for answer in answers_of_run(run)]
    return Summary(f"{run.name}{unfinished}{smoke}", tuple(facts), tuple(lines))


def plain_metrics(metrics: Sequence[Metric]) -> list[str]:
    """Return the metrics of one evaluation as lines, what is each one's own beside it, and what they share below."""
    facts, lines = metric_facts(metrics)
    return [*_aligned(facts), *lines]


def plain_summary(title: str, facts: Sequence[Fact], lines: Sequence[str] = ()) -> str:
    """Return the same as aligned lines, one per fact, and ``lines`` below them."""
    if not facts:
        return f"{title}: nothing measured yet"
    return "\n".join([title, *(f"  {line}" for line in (*_aligned(facts), *lines))])


def _aligned(facts: Sequence[Fact]) -> list[str]:
    return aligned([(fact.label, fact.value, fact.detail) for fact in facts], numbers=(1,))


def drawn_summary(summary: Summary) -> RenderableType:
    """Return the same as a table for ``rich``."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not summary.facts:
        return Text(f"{summary.title}: nothing measured yet")
    table = Table(title=Text(summary.title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim", overflow="fold")
    group = summary.facts[0].group
    for fact in summary.facts:
        if fact.group != group:
            table.add_section()
            group = fact.group
        # Text, not markup: a label like FD[classifier] must not be taken for a style.
        table.add_row(Text(fact.label), Text(fact.value), Text(fact.detail))
    return Group(table, *(Padding(Text(line, style="dim"), (0, 2)) for line in summary.lines))
