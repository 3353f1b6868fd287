"""How much of what is seen is evaluation: one finished run measured again with other latents and other classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.comparison.exported import NOISE, read_noise
from gancompress.components.registry import EXTRACTORS
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
    if not pair or count < 2 or (known is not None and len(known.values) == count):
        return
    row, cell = pair[0]
    config = grid.base.evaluation.model_copy(update={"metrics": grid.base.evaluation.metrics[:1]})
    try:
        runs = [open_run(folder.run_path(one)) for _, one in pair]
        generators = [run.generator(weights=config.weights) for run in runs]
        evaluator = Evaluator(config, dataset, torch.device("cpu"), Silent(), build_task(grid.base))
        say(f"evaluating {cell.name} with {count} seeds of latents")
        values = []
        for seed in range(config.seed, config.seed + count):
            evaluator.config = config.model_copy(update={"seed": seed})
            values.append(evaluator(generators[0]).results[0].value)
        record: dict[str, Any] = {"method": row.choice.label, "run": cell.directory, "values": values}
        name, option = parse_extractor(resolve_extractor(config.extractor, dataset))
        if name == "classifier" and len(pair) > 1:
            against, other = pair[1]
            say(f"evaluating {cell.name} and {other.name} under {count} classifiers, trained where they are new")
            task = "" if EXTRACTORS.get(name).knows_classes(option) else "rotation,"
            record |= {"against": against.choice.label, "classifiers": []}
            for seed in range(count):
                changed = config.model_copy(update={"extractor": f"{name}:{task}seed={seed}"})
                evaluator = Evaluator(changed, dataset, torch.device("cpu"), Silent(), build_task(grid.base))
                record["classifiers"].append([evaluator(one).results[0].value for one in generators])
    except GancompressError as error:
        say(f"warning: evaluation noise is not measured: {error}")
        return
    write_json(folder.path / NOISE, record)


def _pair(grid: Grid, folder: ComparisonFolder) -> list[tuple[Row, Cell]]:
    """Return the first method's first finished run, and a baseline's of the same seed where there is one."""
    done = {cell.directory for cell in grid.cells if folder.status(cell).state == "done"}
    row = next((row for row in grid.rows if not row.baseline), grid.rows[0])
    for index, cell in enumerate(row.cells):
        if cell.directory not in done:
            continue
        others = [one for one in grid.rows if one.baseline and one is not row and one.cells[index].directory in done]
        # narrow before dense, and that of the same density before others
        others.sort(key=lambda one: (one.choice.name == "narrow", one.density == row.density))
        return [(row, cell), *((one, one.cells[index]) for one in others[-1:])]
    return []
