"""How much of what is seen is evaluation: one finished run measured again with other latents and other classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.comparison.exported import NOISE, read_noise
from gancompress.errors import GancompressError
from gancompress.evaluation.extractors import parse_extractor, resolve_extractor
from gancompress.experiment.finished import open_run
from gancompress.experiment.measure import Evaluator
from gancompress.experiment.networks import build_task
from gancompress.progress import Silent
from gancompress.storage.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell, Grid, Row
    from gancompress.data.base import Dataset

__all__ = ["measure_noise"]


def measure_noise(
    grid: Grid, folder: ComparisonFolder, dataset: Dataset[Any], count: int, say: Callable[[str], None]
) -> None:
    """Evaluate a finished run of the first method with so many seeds of latents, and under so many classifiers.

    Under each classifier a run of ``narrow`` (else of dense) with the same seed is measured too, with the same latents:
    what matters of a classifier is whether it changes a difference. Where another extractor is asked for, its weights
    are given and there is nothing to vary. What is there is kept.

    Args:
        grid: what is compared.
        folder: of the comparison.
        dataset: its images.
        count: seeds of each kind; below 2 nothing is done.
        say: told what takes long, and what does not work.
    """
    pair = _pair(grid, folder)
    known = read_noise(folder.path)
    if pair is None or count < 2 or (known is not None and len(known.values) == count):
        return
    row, cell, against, other = pair
    try:
        measure = _Measure(grid, folder, dataset)
        say(f"evaluating {cell.name} with {count} seeds of latents")
        first = grid.base.evaluation.seed
        record: dict[str, Any] = {
            "method": row.choice.label,
            "run": cell.directory,
            "values": [measure(cell, seed=seed) for seed in range(first, first + count)],
        }
        task = measure.classifier
        if task is not None and other is not None and against is not None:
            say(f"evaluating {cell.name} and {other.name} under {count} classifiers, trained where they are new")
            extractors = [f"classifier:{task}seed={seed}" for seed in range(count)]
            record["against"] = against.choice.label
            record["classifiers"] = [[measure(one, extractor=text) for one in (cell, other)] for text in extractors]
    except GancompressError as error:
        say(f"warning: evaluation noise is not measured: {error}")
        return
    write_json(folder.path / NOISE, record)


def _pair(grid: Grid, folder: ComparisonFolder) -> tuple[Row, Cell, Row | None, Cell | None] | None:
    """Return the first method's row, its first finished run, and a baseline with a run of the same seed."""
    done = {cell.directory for cell in grid.cells if folder.status(cell).state == "done"}
    row = next((row for row in grid.rows if not row.baseline), grid.rows[0])
    for index, cell in enumerate(row.cells):
        if cell.directory not in done:
            continue
        # narrow rows come after dense: the last that was made for the same density, else any
        others = [one for one in grid.rows if one.baseline and one is not row and one.cells[index].directory in done]
        others.sort(key=lambda one: (one.choice.name == "narrow", one.density == row.density))
        against = others[-1] if others else None
        return row, cell, against, against.cells[index] if against is not None else None
    return None


class _Measure:
    """Evaluates finished runs by their first metric, as their recipes say but for a seed or an extractor."""

    def __init__(self, grid: Grid, folder: ComparisonFolder, dataset: Dataset[Any]) -> None:
        self._folder, self._dataset = folder, dataset
        name, option = parse_extractor(resolve_extractor(grid.base.evaluation.extractor, dataset))
        #: what the classifier learns, as its option begins; ``None``: the extractor is another one
        self.classifier = None if name != "classifier" else "rotation," if "rotation" in option.split(",") else ""

    def __call__(self, cell: Cell, **changes: Any) -> float:
        run = open_run(self._folder.run_path(cell))
        config = run.recipe.evaluation
        config = config.model_copy(update={"metrics": config.metrics[:1], **changes})
        evaluator = Evaluator(config, self._dataset, torch.device("cpu"), Silent(), build_task(run.recipe))
        return evaluator(run.generator(weights=config.weights)).results[0].value
