"""What the functions of the front door return: values that know where their files are and print themselves.

``print`` writes an outcome as aligned text, ``rich.print`` draws it, a notebook shows it as HTML, and ``repr`` is one
line. All of them are made from the files of the run, so an outcome of a finished run can be read again at any time.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from gancompress.errors import RunError, did_you_mean
from gancompress.report.comparison_table import shown_comparison
from gancompress.report.compression import shown_compression
from gancompress.report.summary import shown_run
from gancompress.report.words import metric_value
from gancompress.runs.record import Metric, mapping, metrics_of, number, read_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from gancompress.comparison.results import CellResult, Results, RowResult
    from gancompress.report.shown import Shown
    from gancompress.runs.record import RunRecord

__all__ = [
    "ComparisonOutcome",
    "CompressionOutcome",
    "Cost",
    "Evaluation",
    "GeneratorFacts",
    "Metric",
    "RunOutcome",
    "print_outcome",
]


class _Outcome:
    """A value that says what it is wherever it is looked at."""

    @property
    def _shown(self) -> Shown:
        raise NotImplementedError

    @property
    def _picture(self) -> Path | None:
        """What a notebook shows below it."""
        return None

    def __str__(self) -> str:
        return self._shown.plain()

    def __rich__(self) -> RenderableType:
        return self._shown.drawn()

    def _repr_html_(self) -> str:
        return self._shown.html(self._picture)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a generator.

    Attributes:
        step: training step.
        metrics: by short name (``fd``, ``kd``, ``is``, ``precision``, ``recall``), the recipe's first metric first.
            Each carries its value, its label, which way is up, and the protocol that fixes it.
    """

    step: int
    metrics: Mapping[str, Metric]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run costs: counted operations, measured time and bytes, which are never mixed.

    Each is ``None`` where it is not known. Everything else is in ``cost.json``.

    Attributes:
        inference_flops: of the generator for one image.
        inference_flops_dense: of the same generator without masks.
        training_flops: of the whole run, all rounds included.
        training_flops_dense: of the same steps without masks.
        training_seconds: measured, evaluations left out.
        latency_seconds: of the generator for one image, measured.
        generator_bytes: packed.
        generator_bytes_dense: as float32 without masks.
    """

    inference_flops: float | None = None
    inference_flops_dense: float | None = None
    training_flops: float | None = None
    training_flops_dense: float | None = None
    training_seconds: float | None = None
    latency_seconds: float | None = None
    generator_bytes: int | None = None
    generator_bytes_dense: int | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class RunOutcome(_Outcome):
    """A run, as its directory tells it.

    Attributes:
        record: everything that the files of the run say.
    """

    record: RunRecord

    @classmethod
    def read(cls, directory: str | Path) -> RunOutcome:
        """Read a run directory, finished or not.

        Raises:
            RunError: there is no run directory.
        """
        return cls(read_run(Path(directory)))

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.record.name

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.record.path

    @property
    def state(self) -> str:
        """``done``, or how far it came."""
        return self.record.status.state

    @property
    def step(self) -> int:
        """Last training step."""
        return self.record.last_step

    @functools.cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """All of them, in order."""
        return tuple(_evaluation(step, metrics) for step, metrics in self.record.evaluations)

    @functools.cached_property
    def best(self) -> Evaluation | None:
        """The best by the recipe's first metric, among those at the final density under the last protocol.

        ``None`` without evaluations.
        """
        return _evaluation(*self.record.best) if self.record.best is not None else None

    @property
    def densities(self) -> Mapping[str, float]:
        """Exact share of kept weights per network."""
        return {role: found for role in self.record.networks if (found := self.record.exact_density(role)) is not None}

    @functools.cached_property
    def cost(self) -> Cost:
        """Operations, time, bytes."""
        return _cost(self.record)

    @property
    def samples(self) -> Path | None:
        """The last sample grid, a PNG; ``None`` when none was drawn."""
        return max((self.directory / "samples").glob("*.png"), default=None)

    @property
    def report(self) -> Path | None:
        """The run's page; ``None`` when there is none."""
        page = self.directory / "report.html"
        return page if page.is_file() else None

    @property
    def last(self) -> Evaluation | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of the best evaluation by short name; empty when nothing was evaluated."""
        return self.best.metrics if self.best is not None else _Metrics()

    @property
    def _shown(self) -> Shown:
        return shown_run(self.record)

    @property
    def _picture(self) -> Path | None:
        return self.samples

    def export(
        self,
        path: str | Path | None = None,
        *,
        step: str = "last",
        values: Literal["float32", "bf16"] = "float32",
        compact: bool | None = None,
    ) -> Path:
        """Write the averaged generator into one packed file, which :func:`gancompress.load` opens.

        Args:
            path: the file; default: as :func:`gancompress.api.export` names it, in the run directory.
            step: checkpoint: ``last``, ``best`` or a number.
            values: ``bf16`` halves the file again and rounds the weights.
            compact: leave out empty channels; default: where the run's method empties whole ones.

        Returns:
            The file.

        Raises:
            RunError: there is no such checkpoint.
            ExportError: the generator cannot be written.
        """
        from gancompress.experiment.finished import open_run
        from gancompress.export.packed import export_run, file_name

        file = Path(path) if path is not None else self.directory / "export" / file_name(values)
        export_run(open_run(self.directory), file, step=step, values=values, compacted=compact)
        return file

    def __repr__(self) -> str:
        first = next(iter(self.metrics.values()), None)
        facts = [f"{first.label} {metric_value(first.value, first.std)}"] if first is not None else []
        facts += [f"{role} density {found:.4g}" for role, found in self.densities.items() if role == "generator"]
        return f"<{type(self).__name__} {self.name}: {', '.join([self.state, *facts])}; {self.directory}>"


@dataclasses.dataclass(frozen=True, repr=False)
class ComparisonOutcome(_Outcome):
    """A comparison: its runs, and what they come to per method and density.

    Attributes:
        results: everything that tables and charts show.
        report: the comparison's page.
    """

    results: Results
    report: Path

    @property
    def directory(self) -> Path:
        """The directory of the comparison."""
        return self.results.path

    @property
    def rows(self) -> tuple[RowResult, ...]:
        """One row per method and density, mean and spread over seeds.

        Raises:
            RunError: the runs were evaluated under different protocols, so no single table holds them all; see
                ``results.tables``.
        """
        if len(self.results.tables) > 1:
            raise RunError(
                f"the runs were evaluated under {len(self.results.tables)} protocols and must not be put into one "
                "table: use results.tables",
                where=str(self.directory),
            )
        return next(iter(self.results.tables.values()), ())

    @property
    def runs(self) -> Mapping[str, RunOutcome]:
        """The runs that ended, by the name of their cell."""
        return {
            cell.name: RunOutcome.read(cell.path) for cell in self.results.cells if cell.done and cell.path is not None
        }

    @property
    def missing(self) -> Sequence[CellResult]:
        """The runs without numbers, each with its reason; comparing again finishes them."""
        return self.results.missing

    @property
    def _shown(self) -> Shown:
        return shown_comparison(self.results)

    def __repr__(self) -> str:
        cells = self.results.cells
        done = len(cells) - len(self.missing)
        return f"<{type(self).__name__} {done} of {len(cells)} runs; {self.directory}>"


@dataclasses.dataclass(frozen=True)
class GeneratorFacts:
    """A generator, measured.

    Attributes:
        metrics: by short name, with protocol.
        density: exact, of the weights that the compression prunes.
        weights: kept weights of all layers.
        flops: of one image, counted.
        bytes: packed.
    """

    metrics: Mapping[str, Metric]
    density: float
    weights: int
    flops: float
    bytes: int


@dataclasses.dataclass(frozen=True, repr=False)
class CompressionOutcome(_Outcome):
    """A trained generator made sparse, measured before and after under one protocol.

    Attributes:
        source: what was compressed.
        before: the generator as it was.
        after: the compressed one.
        run: the run that compressed it, an ordinary run.
    """

    source: str
    before: GeneratorFacts
    after: GeneratorFacts
    run: RunOutcome
    _records: tuple[Mapping[str, Any], Mapping[str, Any]] = dataclasses.field(compare=False)

    @classmethod
    def of(
        cls, source: str, before: Mapping[str, Any], after: Mapping[str, Any], directory: Path
    ) -> CompressionOutcome:
        """Make it of the two records in ``compress.json``."""
        return cls(source, _facts(before), _facts(after), RunOutcome.read(directory), (before, after))

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.run.directory

    @property
    def _shown(self) -> Shown:
        return shown_compression(
            self.source, *self._records, mapping(read_run(self.directory).compression.get("measured"))
        )

    @property
    def _picture(self) -> Path | None:
        return self.run.samples

    def __repr__(self) -> str:
        change = f"density {self.before.density:.4g} to {self.after.density:.4g}"
        for key, new in list(self.after.metrics.items())[:1]:
            old = self.before.metrics[key]
            change += f", {new.label} {metric_value(old.value)} to {metric_value(new.value)}"
        return f"<{type(self).__name__} {self.source}: {change}; {self.directory}>"


def print_outcome(outcome: object, file: TextIO | None = None) -> None:
    """Print an outcome: drawn on a terminal, plain lines in a file or a pipe.

    Args:
        outcome: what to print.
        file: where to; standard output if not given.
    """
    out = file if file is not None else sys.stdout
    if not out.isatty():
        print(outcome, file=out)
        return
    from rich.console import Console

    # A table that is wider than the terminal is cut into lines by the terminal, but no number is ever cut short.
    least = 150 if isinstance(outcome, ComparisonOutcome) else 0
    console = Console(file=out)
    console.print(outcome, crop=False, width=max(console.width, least))


class _Metrics(dict[str, Metric]):
    """Metrics by short name; asking for one that was not measured says which were."""

    def __missing__(self, key: str) -> Metric:
        raise KeyError(f"{key!r} was not measured{did_you_mean(key, self)}")


def _by_key(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return _Metrics({metric.key or metric.label: metric for metric in metrics})


def _evaluation(step: int, metrics: Sequence[Metric]) -> Evaluation:
    return Evaluation(step, _by_key(metrics))


def _facts(record: Mapping[str, Any]) -> GeneratorFacts:
    return GeneratorFacts(
        metrics=_by_key(metrics_of(record)),
        density=float(record["density"]),
        weights=int(record["weights"]),
        flops=float(record["flops"]),
        bytes=int(record["bytes"]),
    )


def _cost(run: RunRecord) -> Cost:
    theory, time, sizes = (mapping(run.cost.get(group)) for group in ("theory", "time", "bytes"))
    inference = mapping(mapping(theory.get("inference")).get("generator"))
    training = mapping(theory.get("training"))
    generator = mapping(sizes.get("generator"))

    def whole(value: Any) -> int | None:
        found = number(value)
        return None if found is None else int(found)

    return Cost(
        inference_flops=number(inference.get("flops")),
        inference_flops_dense=number(inference.get("dense_flops")),
        training_flops=number(training.get("flops")),
        training_flops_dense=number(training.get("dense_flops")),
        training_seconds=number(time.get("training_seconds")),
        latency_seconds=number(mapping(time.get("generator_latency")).get("median_seconds")),
        generator_bytes=whole(generator.get("packed")),
        generator_bytes_dense=whole(generator.get("dense")),
    )
