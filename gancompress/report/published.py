"""What was published beside what was measured here: the numbers, how each was measured, and what the recipe changed.

Never a verdict: two numbers agree or not only under one protocol, so what differs is listed field by field.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from gancompress.recipe.schema import PublishedFigure, PublishedProtocol
from gancompress.report.words import metric_value
from gancompress.runs.record import mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gancompress.comparison.results import Results, RowResult
    from gancompress.runs.record import RunRecord

__all__ = ["Answer", "Difference", "Measured", "answers", "answers_of_comparison", "answers_of_run", "selection_words"]

#: metrics as papers call them, and as runs do
_KEYS: Final = {"FID": "fd", "FD": "fd", "IS": "is"}
_WORDS: Final = {"reference_count": "real images", "batch_norm": "batch norm", "samples": "generated images"}


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Attributes:
        name: field of the protocol, or setting of the recipe.
        published: what it was there.
        here: what it is here.
    """

    name: str
    published: str
    here: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number of this program.

    Attributes:
        label: what it is called, extractor included.
        text: the value, with its spread over seeds if there are several.
    """

    label: str
    text: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """A published figure and the number here that answers to it.

    Attributes:
        metric: as published.
        published: the figure as text.
        here: the number here; ``None`` when this metric was not measured.
        differences: of the protocol, among the fields that the publication tells.
        changed: settings of the recipe that are not those of the published row.
        source: where the figure stands.
        note: what to know about it.
    """

    metric: str
    published: str
    here: Measured | None
    differences: tuple[Difference, ...]
    changed: tuple[Difference, ...]
    source: str
    note: str

    @property
    def comparable(self) -> bool:
        """Whether both are the same metric; a distance between other features than the published ones is not."""
        return self.here is not None and self.here.label == self.metric

    @property
    def line(self) -> str:
        """All but the details, in one line."""
        here = "not measured here"
        if self.here is not None:
            here = f"here {self.here.text}"
            if not self.comparable:
                here = f"here {self.here.label} {self.here.text}, which is another metric"
        parts = [f"{self.metric}: published {self.published}, {here}"]
        if self.here is not None:
            named = ", ".join(one.name for one in self.differences)
            parts.append(f"protocol differs in: {named}" if named else "no known difference of protocol")
        if self.changed:
            parts.append(f"settings changed: {', '.join(one.name for one in self.changed)}")
        return "; ".join(parts)


def answers(
    recipe: Mapping[str, Any], measured: Mapping[str, Measured], protocol: Mapping[str, Any], selection: str, seeds: int
) -> list[Answer]:
    """Put every published figure of a recipe beside what was measured.

    Args:
        recipe: resolved recipe as plain values.
        measured: numbers by the key of their metric (``fd``, ``is``).
        protocol: fields of the protocol that they were measured under.
        selection: which evaluation they are of, see :func:`selection_words`.
        seeds: runs that they are the mean of.
    """
    if recipe.get("smoke"):
        return []
    known = {**protocol, "selection": selection, "seeds": seeds}
    changed = tuple(
        Difference(str(one.get("key")), str(one.get("published")), _said(_at(recipe, str(one.get("key")))))
        for one in map(mapping, _listed(recipe.get("changed")))
    )
    found = []
    for item in _listed(recipe.get("published")):
        # one that another version wrote is not worth a broken report
        with contextlib.suppress(ValidationError):
            figure = PublishedFigure.model_validate(item)
            differences = tuple(_differences(figure.protocol, known))
            found.append(
                Answer(
                    figure.metric,
                    figure.text,
                    measured.get(_KEYS[figure.metric]),
                    differences,
                    changed,
                    figure.source,
                    figure.note,
                )
            )
    return found


def answers_of_run(run: RunRecord) -> list[Answer]:
    """Put the published figures of a run's recipe beside its best evaluation."""
    if run.best is None or not run.best[1]:
        return []
    step, metrics = run.best
    records = run.log.evaluations
    record = next((one for one in records if one.get("step") == step), {})
    last = records[-1] if records else {}
    alike = [one for one in records if one.get("density_generator") == last.get("density_generator")]
    measured = {one.key: Measured(one.label, metric_value(one.value)) for one in metrics if one.value is not None}
    protocol = mapping(record.get("protocol")) or mapping(run.metrics.get("protocol"))
    return answers(run.recipe, measured, protocol, selection_words(max(len(alike), 1), metrics[0].label), 1)


def answers_of_comparison(results: Results) -> Iterator[tuple[RowResult, Answer]]:
    """Put the published figures of every row of a comparison beside its mean over seeds.

    Of the primary metric it is the best value, of others that of the last evaluation.
    """
    recipes = {cell.name: cell.recipe for cell in results.grid.cells}
    for rows in results.tables.values():
        for row in rows:
            cell = row.cells[0]
            found = {label: row.last[label] for label in results.metrics} | {results.primary: row.best}
            measured = {
                key: Measured(label, metric_value(value.mean, value.std))
                for label, value in found.items()
                if value is not None and (key := _KEYS.get(label.partition("[")[0]))
            }
            selection = selection_words(results.looks, results.primary)
            plain = recipes[cell.name].model_dump(mode="json")
            for answer in answers(plain, measured, cell.measured_by, selection, len(row.cells)):
                yield row, answer


def selection_words(looks: int, primary: str) -> str:
    """Return which of ``looks`` evaluations a number is of, in the words that published protocols use."""
    return f"best of {looks} by {primary.partition('[')[0]}" if looks > 1 else "last"


def _differences(published: PublishedProtocol, here: Mapping[str, Any]) -> Sequence[Difference]:
    fields = ((name, getattr(published, name)) for name in PublishedProtocol.model_fields)
    return [
        Difference(_WORDS.get(name, name), _said(value), _said(here[name]) if name in here else "not recorded")
        for name, value in fields
        if value is not None and here.get(name) != value
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _said(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _at(recipe: Mapping[str, Any], key: str) -> Any:
    value: Any = recipe
    for step in key.split("."):
        value = mapping(value).get(step)
    return value
