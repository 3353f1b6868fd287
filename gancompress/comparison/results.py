"""What the runs of a comparison came to: per cell, then mean and spread over seeds.

Three rules keep the numbers comparable. Values under different protocols are never put together. A best value is picked
among the same number of evaluations for every run, all of them at the run's final density. And costs are relative to
the dense network of the recipe at full width, not to whatever a method built.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from gancompress.comparison.choices import VALUES
from gancompress.comparison.exported import read_exported, read_shipped
from gancompress.comparison.interim import earlier_tables, first_shown
from gancompress.comparison.machines import refuse_other_machines
from gancompress.comparison.paired import differences
from gancompress.errors import RunError
from gancompress.runs.best import same_density, same_protocol
from gancompress.runs.record import ROLES, mapping, metrics_of, number, read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from gancompress.comparison.choices import MethodChoice
    from gancompress.comparison.exported import ShippedCost
    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell, Grid, Row
    from gancompress.comparison.interim import TableRow
    from gancompress.comparison.paired import Difference
    from gancompress.runs.record import RunRecord

__all__ = [
    "CellResult",
    "Evaluated",
    "Results",
    "RowResult",
    "Spread",
    "collect",
    "read_cells",
    "short_names",
    "spread",
]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A number over seeds.

    Attributes:
        mean: over all seeds.
        std: sample standard deviation (n - 1); ``None`` for one seed: an anecdote has no spread.
        low: smallest.
        high: largest.
        count: seeds.
    """

    mean: float
    std: float | None
    low: float
    high: float
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return mean and spread of what is there; ``None`` when nothing finite is."""
    found = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not found:
        return None
    std = statistics.stdev(found) if len(found) > 1 else None
    return Spread(statistics.fmean(found), std, min(found), max(found), len(found))


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One evaluation of one run.

    Attributes:
        step: training step.
        values: metrics by label.
        final: the generator had its final density.
    """

    step: int
    values: Mapping[str, float | None]
    final: bool


@dataclasses.dataclass(frozen=True)
class CellResult:
    """One run of the grid.

    Attributes:
        name: of the cell.
        method: label of its method.
        density: what was asked for; ``None`` for dense.
        seed: its seed.
        state: of the run.
        reason: why it is not done.
        path: run directory.
        steps: training steps of all rounds.
        evaluations: in order.
        protocol: printed line of the protocol of the last evaluation.
        protocol_hash: its hash; values are compared only where it is equal.
        densities: exact share of kept weights per role.
        kept: kept weights of the generator's convolutions and linear layers.
        training_flops: of all rounds, pre-training included.
        inference_flops: of the generator for one image.
        seconds: training, measured, evaluations left out.
        bytes: of the generator, packed.
        threads: CPU threads that the times were measured with.
        measured_by: fields of that protocol.
        target: what its generator was to cost, where that is held equal; ``None`` for dense.
    """

    name: str
    method: str
    density: float | None
    seed: int
    state: str
    reason: str = ""
    path: Path | None = None
    steps: int = 0
    evaluations: tuple[Evaluated, ...] = ()
    protocol: str = ""
    protocol_hash: str = ""
    densities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    kept: int = 0
    training_flops: float = 0.0
    inference_flops: float = 0.0
    seconds: float | None = None
    bytes: int | None = None
    threads: int | None = None
    measured_by: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target: float | None = None

    @property
    def done(self) -> bool:
        """Whether its numbers count."""
        return self.state == "done" and bool(self.evaluations)

    def last(self, label: str) -> float | None:
        """Return a metric of the last evaluation."""
        return self.evaluations[-1].values.get(label) if self.evaluations else None

    def best_of(self, count: int, label: str, higher: bool) -> Evaluated | None:
        """Return the best of the last ``count`` evaluations at the final density."""
        looked = [one for one in self.evaluations if one.final][-count:]
        finite = [one for one in looked if (value := one.values.get(label)) is not None and math.isfinite(value)]
        if not finite:
            return None
        return (max if higher else min)(finite, key=lambda one: float(one.values[label] or 0.0))


@dataclasses.dataclass(frozen=True)
class RowResult:
    """One method at one density under one protocol, over its seeds.

    Attributes:
        method: label, settings included.
        name: without the settings where no other method of the grid has the same name; for charts.
        density: what was asked for; ``None`` for dense.
        baseline: it is there to be compared with.
        cells: the runs that are done.
        best: primary metric, the best of the same number of evaluations for every run.
        last: every metric of the last evaluation.
        densities: exact, per role.
        kept_ratio: kept weights of the generator over all weights of the dense one.
        training_flops: of one run.
        training_ratio: over the dense run's.
        inference_ratio: over the dense generator's.
        seconds: measured training time.
        bytes: of the generator, packed.
        shipped: what its exported generator was measured to take, of its first seed; ``None``: not measured.
        target: what its generator was to cost, where that is held equal; ``None`` for dense.
        channels: width of its generator, where that was fitted.
        width: times the recipe's, where a sweep chose it.
    """

    method: str
    name: str
    density: float | None
    baseline: bool
    cells: tuple[CellResult, ...]
    best: Spread | None
    last: Mapping[str, Spread | None]
    densities: Mapping[str, Spread | None]
    kept_ratio: float
    training_flops: Spread | None
    training_ratio: Spread | None
    inference_ratio: Spread | None
    seconds: Spread | None
    bytes: Spread | None
    shipped: ShippedCost | None = None
    target: float | None = None
    channels: int | None = None
    width: float | None = None

    @property
    def group(self) -> float | None:
        """What it shares with the rows it is held against: density, or what the generator may cost; dense: ``None``."""
        return self.density if self.target is None else self.target

    @property
    def label(self) -> str:
        """Method and density, as charts call it."""
        if self.channels is not None:
            return f"{self.name}, {self.channels} channels"
        return self.name if self.density is None else f"{self.name} {self.density:g}{self.wide}"

    @property
    def wide(self) -> str:
        """Width that a sweep chose, as it is said behind a density; empty where it is the recipe's."""
        return "" if self.width in (None, 1) else f", {self.width:g}× wide"


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything that tables and charts show.

    Attributes:
        grid: what was compared.
        path: directory of the comparison.
        cells: every run of the grid, done or not.
        tables: rows by hash of the protocol; more than one when the runs cannot be compared with each other.
        protocols: printed line of every protocol, by hash.
        primary: label of the metric that picks the best.
        higher: whether it is better when higher.
        metrics: labels of all metrics, the primary one first, with whether higher is better.
        looks: evaluations that pick every run's best.
        hardware: what the runs ran on, one line per machine.
        earlier: what tables of the comparisons beside this one showed before it.
        shown: when its own table was first written, in UTC.
    """

    grid: Grid
    path: Path
    cells: tuple[CellResult, ...]
    tables: Mapping[str, tuple[RowResult, ...]]
    protocols: Mapping[str, str]
    primary: str
    higher: bool
    metrics: Mapping[str, bool]
    looks: int
    hardware: tuple[str, ...]
    earlier: tuple[tuple[TableRow, ...], ...] = ()
    shown: str = ""

    @property
    def missing(self) -> list[CellResult]:
        """Runs without numbers."""
        return [cell for cell in self.cells if not cell.done]

    def differences(self, rows: Sequence[RowResult]) -> list[Difference]:
        """Hold every row of a table against its references, by the primary metric."""
        return differences(rows, self.primary, higher=self.higher, earlier=self.earlier)


def collect(grid: Grid, folder: ComparisonFolder) -> Results:
    """Read every run of a comparison."""
    of_rows, metrics, hardware = read_cells(grid, folder)
    cells = [cell for found in of_rows for cell in found]
    refuse_other_machines(grid, folder)
    costs = read_shipped(folder.path, len(grid.rows))
    done = [cell for cell in cells if cell.done]
    looks = min((sum(one.final for one in cell.evaluations) for cell in done), default=0)
    primary = next(iter(metrics), "")
    hashes = dict.fromkeys(cell.protocol_hash for cell in done)
    shown = first_shown(folder.path)
    tables = {one: tuple(_rows(grid, of_rows, one, metrics, primary, looks, costs)) for one in hashes}
    return Results(
        grid=grid,
        path=folder.path,
        cells=tuple(cells),
        tables=tables,
        protocols={cell.protocol_hash: cell.protocol for cell in done},
        primary=primary,
        higher=metrics.get(primary, False),
        metrics=metrics,
        looks=looks,
        hardware=tuple(hardware),
        earlier=earlier_tables(folder.path, shown),
        shown=shown,
    )


def read_cells(grid: Grid, folder: ComparisonFolder) -> tuple[list[list[CellResult]], dict[str, bool], list[str]]:
    """Return the runs of every row, whether each metric is better when higher (the primary one first), and hardware."""
    metrics: dict[str, bool] = {}
    hardware: dict[str, None] = {}
    cells = [[_cell(row, cell, folder, metrics, hardware) for cell in row.cells] for row in grid.rows]
    return cells, metrics, [*hardware]


def short_names(choices: Iterable[MethodChoice]) -> dict[str, str]:
    """Return what charts call each label: the method's name, its settings only where two would be called the same."""
    names = {choice.label: choice.name for choice in choices}
    count = Counter(names.values())
    return {label: name if count[name] == 1 else label for label, name in names.items()}


def _rows(
    grid: Grid,
    of_rows: Sequence[Sequence[CellResult]],
    protocol: str,
    metrics: Mapping[str, bool],
    primary: str,
    looks: int,
    costs: Sequence[ShippedCost | None],
) -> Iterable[RowResult]:
    names = short_names(row.choice for row in grid.rows)
    for row, cells, shipped in zip(grid.rows, of_rows, costs, strict=True):
        mine = tuple(cell for cell in cells if cell.done and cell.protocol_hash == protocol)
        if not mine:
            continue
        best = [cell.best_of(looks, primary, metrics[primary]) for cell in mine]
        yield RowResult(
            method=row.choice.label,
            name=names[row.choice.label],
            density=row.density,
            baseline=row.baseline,
            cells=mine,
            best=spread(one.values[primary] for one in best if one is not None),
            last={label: spread(cell.last(label) for cell in mine) for label in metrics},
            densities={role: spread(cell.densities.get(role) for cell in mine) for role in ROLES},
            kept_ratio=statistics.fmean(cell.kept for cell in mine) / grid.dense.parameters,
            training_flops=spread(cell.training_flops for cell in mine),
            training_ratio=spread(cell.training_flops / grid.dense.training_flops for cell in mine),
            inference_ratio=spread(cell.inference_flops / grid.dense.inference_flops for cell in mine),
            seconds=spread(cell.seconds for cell in mine),
            bytes=spread(cell.bytes for cell in mine),
            shipped=shipped,
            target=row.planned.target if row.planned is not None else None,
            channels=row.planned.channels if row.planned is not None else None,
            width=row.planned.width if row.planned is not None else None,
        )


# --------------------------------------------------------------------------- one run


def _cell(
    row: Row, cell: Cell, folder: ComparisonFolder, metrics: dict[str, bool], hardware: dict[str, None]
) -> CellResult:
    status = folder.status(cell)
    target = row.planned.target if row.planned is not None else None
    known = CellResult(
        cell.name, cell.row, cell.density, cell.seed, status.state, status.reason or "", folder.run_path(cell),
        target=target,
    )  # fmt: skip
    return _read(known, row.choice.values, metrics, hardware) if status.state == "done" else known


def _read(known: CellResult, values: str, metrics: dict[str, bool], hardware: dict[str, None]) -> CellResult:
    """Add the numbers of a finished run; one that is damaged counts as failed, and says so."""
    assert known.path is not None
    try:
        run = read_run(known.path)
        found = _with_numbers(known, run)
        trouble = next(iter(run.notices), None)
        if trouble is None and values != VALUES[0]:
            found = _as_exported(found, values)
    except RunError as error:
        trouble = error.message
    if trouble is not None:
        return dataclasses.replace(known, state="failed", reason=f"its files cannot be read: {trouble}")
    if run.last is not None:
        for metric in run.last[1]:
            metrics.setdefault(metric.label, metric.higher_is_better)
        hardware.setdefault(_machine(run.environment))
    return found


def _with_numbers(known: CellResult, run: RunRecord) -> CellResult:
    records = run.log.evaluations
    if not records:
        return known
    records = [record for record, same in zip(records, same_protocol(records), strict=True) if same]
    if not metrics_of(records[-1]):
        raise RunError("the last evaluation in log.jsonl has no metrics")
    protocol, cost = mapping(records[-1].get("protocol")), run.cost
    time = mapping(cost.get("time"))
    return dataclasses.replace(
        known,
        steps=run.last_step,
        evaluations=tuple(
            Evaluated(record.get("step", 0), {one.label: one.value for one in metrics_of(record)}, final)
            for record, final in zip(records, same_density(records), strict=True)
        ),
        protocol=str(protocol.get("text", "not recorded")),
        protocol_hash=str(protocol.get("hash", "")),
        densities={role: found for role in run.networks if (found := run.exact_density(role)) is not None},
        kept=sum(int(number(layer.get("nonzeros")) or 0) for layer in run.layers("generator")),
        training_flops=_counted(cost, "theory", "training", "flops"),
        inference_flops=_counted(cost, "theory", "inference", "generator", "flops"),
        seconds=number(time.get("training_seconds")),
        bytes=int(_counted(cost, "bytes", "generator", "packed")),
        threads=run.environment.get("threads"),
        measured_by=protocol,
    )


def _as_exported(known: CellResult, values: str) -> CellResult:
    """Put what was measured of the exported file in the place of what was measured in training."""
    assert known.path is not None
    record = read_exported(known.path, known.steps, values)
    if record is None:
        return dataclasses.replace(known, state="pending", reason=f"not evaluated with the values {values} yet")
    protocol = mapping(record.get("protocol"))
    measured = {one.label: one.value for one in metrics_of(record)}
    return dataclasses.replace(
        known,
        evaluations=(Evaluated(known.steps, measured, True),),
        protocol=str(protocol.get("text", "not recorded")),
        protocol_hash=str(protocol.get("hash", "")),
        bytes=int(number(record.get("bytes")) or 0),
        measured_by=protocol,
    )


def _counted(cost: Mapping[str, Any], *keys: str) -> float:
    value: Any = cost
    for key in keys:
        value = mapping(value).get(key)
    found = number(value)
    if found is None:
        raise RunError(f"cost.json has no number at {'.'.join(keys)}")
    return float(found)


def _machine(environment: Mapping[str, Any]) -> str:
    device = environment.get("device", "unknown device")
    where = environment.get("processor") if device == "cpu" else device
    threads = environment.get("threads")
    torch = mapping(environment.get("versions")).get("torch", "?")
    share = f", {threads} of {environment.get('cores')} cores for each run" if device == "cpu" else ""
    return f"{where}{share}; torch {torch}, Python {environment.get('python')}, {environment.get('platform')}"
