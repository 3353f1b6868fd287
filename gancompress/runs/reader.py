"""What a run directory says, read without trust: missing or damaged parts become notices, never errors."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any

from gancompress.errors import RunError
from gancompress.runs.directory import RunDirectory, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Metric", "RunData", "mapping", "metrics_of", "number", "read_run"]

Record = dict[str, Any]
ROLES = ("generator", "discriminator")


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        label: what it is called, with its extractor unless it is the standard one.
        value: the number, or None when it was not finite.
        std: its spread, or None; one part alone has no spread, whatever the record says.
        higher_is_better: which way is up.
        protocol: one line that fixes how it was measured; empty when the record does not say.
        key: short name, such as ``fd`` or ``precision``; empty when the record does not say.
    """

    label: str
    value: float | None
    std: float | None
    higher_is_better: bool
    protocol: str
    key: str = ""


@dataclasses.dataclass(frozen=True)
class RunData:
    """Everything a report shows.

    Attributes:
        path: the run directory.
        status: how the run is doing.
        recipe: resolved recipe as plain values.
        log: records of ``log.jsonl``.
        metrics: contents of ``metrics.json``.
        cost: contents of ``cost.json``.
        environment: contents of ``environment.json``.
        notices: what could not be read, in words.
    """

    path: Path
    status: Status
    recipe: Mapping[str, Any]
    log: list[Record]
    metrics: Mapping[str, Any]
    cost: Mapping[str, Any]
    environment: Mapping[str, Any]
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return str(self.recipe.get("name", self.path.name))

    def records(self, kind: str) -> list[Record]:
        """Return the log's records of one kind."""
        return [record for record in self.log if record.get("kind") == kind]

    @property
    def last_step(self) -> int:
        """Last step that the log knows."""
        return max((int(record["step"]) for record in self.log if number(record.get("step")) is not None), default=0)

    @property
    def is_smoke(self) -> bool:
        """Whether this run only shows that everything works, so that its numbers mean nothing."""
        marked = any(bool(part.get("smoke")) for part in (self.environment, self.metrics, self.recipe))
        return marked or self.name.endswith("-smoke")

    @functools.cached_property
    def evaluations(self) -> list[tuple[int, list[Metric]]]:
        """Every evaluation as (step, metrics); from the log, or from ``metrics.json`` when the log has none."""
        records = self.records("evaluation") or self.metrics.get("evaluations") or []
        return [(int(number(r.get("step")) or 0), metrics_of(r)) for r in records if isinstance(r, dict)]

    @functools.cached_property
    def best(self) -> tuple[int, list[Metric]] | None:
        """The evaluation with the best primary metric, as the run itself chose it or else as the numbers say."""
        chosen = self.metrics.get("best")
        if isinstance(chosen, dict) and metrics_of(chosen):
            return int(number(chosen.get("step")) or 0), metrics_of(chosen)
        finite = [(step, found) for step, found in self.evaluations if found and found[0].value is not None]
        return min(finite, key=lambda pair: _badness(pair[1][0])) if finite else None

    @property
    def last(self) -> tuple[int, list[Metric]] | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    def asked_density(self, role: str) -> float | None:
        """Return the density that the recipe asks for, or None when it leaves it to a rule (total density)."""
        sparsity = mapping(self.recipe.get("sparsity"))
        if mapping(sparsity.get("method")).get("name") == "dense":
            return 1.0
        own = number(mapping(sparsity.get(role)).get("density"))
        common = number(sparsity.get("density"))
        if own is not None or common is not None:
            return own if own is not None else common
        return None if number(sparsity.get("total_density")) is not None else 1.0

    def layers(self, role: str) -> list[Record]:
        """Return the layers of one network from ``cost.json``."""
        layers = self.cost.get("layers")
        return [x for x in layers if isinstance(x, dict) and x.get("role") == role] if isinstance(layers, list) else []

    def counts(self, role: str) -> tuple[int, int] | None:
        """Return (non-zeros, weights) over the layers of one network, or None when unknown."""
        return _counts(self.layers(role))

    def counted(self, role: str) -> tuple[str, int, int] | None:
        """Return what the density of one network speaks of, as (words, non-zeros, weights), or None when unknown.

        The words are empty when it is every weight of every layer; a recipe may count convolutions only, and then the
        density says nothing about the rest.
        """
        exact, layers = self.exact_density(role), self.layers(role)
        if exact is None:
            return None
        convolutions = [layer for layer in layers if len(_shape(layer)) > 2]
        only = mapping(self.recipe.get("sparsity")).get("weights") == "convolutions"
        kinds = [("convolution weights", convolutions), ("", layers)] if only else [("", layers)]
        for words, some in (*kinds, ("prunable weights", [layer for layer in layers if layer.get("prunable")])):
            counts = _counts(some)
            if counts is not None and abs(counts[0] / counts[1] - exact) < 1e-9:
                return (words if len(some) < len(layers) else "", *counts)
        return None

    def exact_density(self, role: str) -> float | None:
        """Return the density as counted over the prunable weights, from the last line of the log.

        The layers of ``cost.json`` only stand in for a missing log: layers outside the budget are among them.
        """
        found = [value for r in self.records("train") if (value := number(r.get(f"density_{role}"))) is not None]
        if found:
            return found[-1]
        counts = self.counts(role)
        return counts[0] / counts[1] if counts is not None else None

    def macs(self, role: str) -> tuple[float, float] | None:
        """Return (dense, sparse) multiply-adds per sample over the layers of one network, or None when unknown."""
        pairs = [(number(x.get("macs_dense")), number(x.get("macs_sparse"))) for x in self.layers(role)]
        whole = [(dense, sparse) for dense, sparse in pairs if dense is not None and sparse is not None]
        return (sum(dense for dense, _ in whole), sum(sparse for _, sparse in whole)) if whole else None

    @property
    def training_seconds(self) -> float | None:
        """Measured seconds of training, evaluations left out."""
        found = [number(record.get("seconds")) for record in self.records("train")]
        return found[-1] if found else None


def read_run(path: Path) -> RunData:
    """Read a run directory.

    Raises:
        RunError: there is no run directory at ``path``.
    """
    run = RunDirectory(path)
    notices: list[str] = []

    def attempt(read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except RunError as error:
            notices.append(str(error))
            return otherwise

    return RunData(
        path=path,
        status=attempt(run.read_status, Status("unknown")),
        recipe=attempt(run.recipe, {}),
        log=attempt(run.read_log, []),
        metrics=attempt(lambda: run.read_json("metrics.json"), {}),
        cost=attempt(lambda: run.read_json("cost.json"), {}),
        environment=attempt(lambda: run.read_json("environment.json"), {}),
        notices=tuple(notices),
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """Return ``value`` if it is a number, else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def metrics_of(record: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics of one evaluation's record, in order."""
    found = record.get("metrics")
    return [_metric(item, record) for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _counts(layers: list[Record]) -> tuple[int, int] | None:
    pairs = [(number(x.get("nonzeros")), number(x.get("numel"))) for x in layers]
    whole = [(int(kept), int(all_)) for kept, all_ in pairs if kept is not None and all_]
    return (sum(kept for kept, _ in whole), sum(all_ for _, all_ in whole)) if whole else None


def _shape(layer: Record) -> list[Any]:
    shape = layer.get("shape")
    return shape if isinstance(shape, list) else []


#: the settings of a metric whose spread would be that of a single number
_ONE_PART = re.compile(r"\b1 (?:split|subset)\b")


def _metric(item: Mapping[str, Any], record: Mapping[str, Any]) -> Metric:
    protocol = item.get("protocol") or record.get("protocol")
    text = protocol.get("text", "") if isinstance(protocol, dict) else protocol or ""
    return Metric(
        label=str(item.get("label") or item.get("name") or "metric"),
        value=number(item.get("value")),
        std=None if _ONE_PART.search(str(text)) else number(item.get("std")),
        higher_is_better=bool(item.get("higher_is_better", item.get("better") == "higher")),
        protocol=str(text),
        key=str(item.get("name") or ""),
    )


def _badness(metric: Metric) -> float:
    value = metric.value if metric.value is not None else float("inf")
    return -value if metric.higher_is_better else value
