"""What a run directory says, read without trust: missing or damaged parts become notices, never errors."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gancompress.errors import RunError
from gancompress.runs.best import best_evaluation, of_other_protocol
from gancompress.runs.directory import RunDirectory
from gancompress.runs.log import LogDigest, Record, digest
from gancompress.runs.status import Status
from gancompress.storage.reading import LARGEST_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Metric", "RunRecord", "list_runs", "mapping", "metrics_of", "number", "read_run", "records_of"]

T = TypeVar("T")
ROLES = ("generator", "discriminator")
#: what is read of a run, as attributes of :class:`RunRecord`
PARTS = ("status", "recipe", "log", "metrics", "cost", "environment", "last_step")


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
class RunRecord:
    """A run as its directory tells it, finished or not; a part is read when it is first asked for.

    Attributes:
        path: the run directory.
    """

    path: Path
    _notices: list[str] = dataclasses.field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._directory  # noqa: B018 - raises where there is none

    @functools.cached_property
    def _directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    def _read(self, what: Callable[[RunDirectory], T], otherwise: T) -> T:
        try:
            return what(self._directory)
        except RunError as error:
            self._notices.append(str(error))
            return otherwise

    @property
    def notices(self) -> tuple[str, ...]:
        """What could not be read of the parts that were asked for, in words."""
        return tuple(self._notices)

    @functools.cached_property
    def status(self) -> Status:
        """How the run is doing; ``unknown`` when its ``status.json`` is damaged."""
        lost = Status("unknown", "status.json is damaged; run the recipe again to go on")
        return self._read(RunDirectory.read_status, lost)

    @functools.cached_property
    def recipe(self) -> Mapping[str, Any]:
        """Resolved recipe as plain values."""
        return self._read(RunDirectory.recipe, {})

    @functools.cached_property
    def log(self) -> LogDigest:
        """What ``log.jsonl`` says; :meth:`RunDirectory.read_log` returns its records."""
        return self._read(lambda run: digest(run.log_path), LogDigest())

    @functools.cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Contents of ``metrics.json``; empty when nothing was evaluated."""
        return self._read(lambda run: run.read_json("metrics.json"), {})

    @functools.cached_property
    def cost(self) -> Mapping[str, Any]:
        """Contents of ``cost.json``."""
        return self._read(lambda run: run.read_json("cost.json"), {})

    @functools.cached_property
    def compression(self) -> Mapping[str, Any]:
        """Contents of ``compress.json``; empty where nothing was compressed."""
        return self._read(lambda run: run.read_json("compress.json"), {})

    @functools.cached_property
    def int8(self) -> Mapping[str, Any]:
        """Contents of ``export/int8.json``; empty where nothing was exported so."""
        return self._read(lambda run: run.read_json("export/int8.json"), {})

    @functools.cached_property
    def environment(self) -> Mapping[str, Any]:
        """Contents of ``environment.json``."""
        return self._read(lambda run: run.read_json("environment.json"), {})

    @functools.cached_property
    def last_step(self) -> int:
        """Last step that the log knows, from its end."""
        return self._directory.last_step()

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return str(self.recipe.get("name", self.path.name))

    @property
    def is_smoke(self) -> bool:
        """Whether this run only shows that everything works, so that its numbers mean nothing."""
        marked = any(bool(part.get("smoke")) for part in (self.environment, self.metrics, self.recipe))
        return marked or self.name.endswith("-smoke")

    @functools.cached_property
    def _evaluations(self) -> list[Record]:
        """Records of the evaluations; from the log, or from ``metrics.json`` when the log has none."""
        return self.log.evaluations or records_of(self.metrics.get("evaluations"))

    @functools.cached_property
    def evaluations(self) -> list[tuple[int, list[Metric]]]:
        """Every evaluation as (step, metrics)."""
        return [_evaluation(record) for record in self._evaluations]

    @functools.cached_property
    def best(self) -> tuple[int, list[Metric]] | None:
        """The best evaluation as (step, metrics), see :mod:`gancompress.runs.best`."""
        if not self._evaluations:
            return self.noted_best
        found = best_evaluation(self._evaluations)
        return _evaluation(found) if found is not None else None

    @functools.cached_property
    def _noted(self) -> Mapping[str, Any]:
        """What ``metrics.json`` says before it lists every evaluation."""
        return self._read(lambda run: run.read_json("metrics.json", until="evaluations"), {})

    @property
    def noted_smoke(self) -> bool:
        """Whether ``metrics.json`` is marked as a smoke run's."""
        return bool(self._noted.get("smoke"))

    @functools.cached_property
    def noted_best(self) -> tuple[int, list[Metric]] | None:
        """The best evaluation as ``metrics.json`` has it, which was found by the same rule; needs no log."""
        step, metrics = _evaluation(mapping(self._noted.get("best")))
        return (step, metrics) if metrics else None

    @property
    def noted_of_other_protocol(self) -> int:
        """Evaluations that ``metrics.json`` left out of the search for the best, see :attr:`of_other_protocol`."""
        return int(number(self._noted.get("of_other_protocol")) or 0)

    @property
    def of_other_protocol(self) -> int:
        """Evaluations under another protocol than the last one, which are never its best."""
        return of_other_protocol(self._evaluations)

    @property
    def last(self) -> tuple[int, list[Metric]] | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @functools.cached_property
    def networks(self) -> tuple[str, ...]:
        """What the networks are called: generator and discriminator, and those that play beside them."""
        known = [str(layer.get("role")) for layer in records_of(self.cost.get("layers"))]
        logged = [key.removeprefix("density_") for key in self.log.keys("train") if key.startswith("density_")]
        return tuple(dict.fromkeys((*ROLES, *known, *logged)))

    def asked_density(self, name: str) -> float | None:
        """Return the density that the recipe asks of a network, or None when it leaves it to a rule (total density)."""
        role = next((role for role in ROLES if name.startswith(role)), name)
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
        return [layer for layer in records_of(self.cost.get("layers")) if layer.get("role") == role]

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
        if (found := self.log.last(f"density_{role}")) is not None:
            return found
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
        return self.log.last("seconds")


def read_run(path: Path) -> RunRecord:
    """Read all of a run directory now.

    Raises:
        RunError: there is no run directory at ``path``.
    """
    run = RunRecord(path)
    for part in PARTS:
        getattr(run, part)
    return run


def list_runs(root: str | Path = "runs") -> list[RunRecord]:
    """Return all runs under ``root``, the one touched last first. Damaged ones are among them."""
    root = Path(root)
    paths = [path for path in root.iterdir() if (path / "recipe.yaml").exists()] if root.is_dir() else []
    return sorted(map(RunRecord, paths), key=lambda run: (run.status.updated or "", run.path.name), reverse=True)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """Return ``value`` if it is a number that something may have measured, else None."""
    return value if type(value) in (float, int) and abs(value) <= LARGEST_NUMBER else None


def metrics_of(record: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics of one evaluation's record, in order."""
    return [_metric(item, record) for item in records_of(record.get("metrics"))]


def records_of(value: Any) -> list[Record]:
    """Return the objects in a JSON list; none when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _counts(layers: list[Record]) -> tuple[int, int] | None:
    pairs = [(number(x.get("nonzeros")), number(x.get("numel"))) for x in layers]
    whole = [(int(kept), int(all_)) for kept, all_ in pairs if kept is not None and all_ and all_ > 0]
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


def _evaluation(record: Mapping[str, Any]) -> tuple[int, list[Metric]]:
    return int(number(record.get("step")) or 0), metrics_of(record)
