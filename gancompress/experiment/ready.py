"""What a run is made of before its first step: built, and refused where it cannot work, cheapest mistakes first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.data.classes import counted
from gancompress.errors import ready_to_work
from gancompress.experiment.acceleration import device_of
from gancompress.experiment.assemble import build_dataset, build_trainer, check_served, declared_rounds
from gancompress.experiment.measure import check_evaluation, check_generator, check_measurable
from gancompress.experiment.memory import MemoryEstimate, check_images, check_memory, check_networks
from gancompress.experiment.networks import build_architecture, build_task, last_architecture
from gancompress.experiment.pinning import relocated
from gancompress.experiment.shortfall import start
from gancompress.storage.checkpoint import checkpoints
from gancompress.training.groups import Group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gancompress.architecture.description import Architecture
    from gancompress.data.base import Dataset
    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Name
    from gancompress.training.loop import Trainer

__all__ = ["OpenedImages", "Ready", "get_ready", "open_images"]


@dataclasses.dataclass(frozen=True)
class OpenedImages:
    """The images of a recipe, read and counted.

    Attributes:
        dataset: ready for training.
        size: bytes that it takes in main memory.
        evaluates: the run measures its generator too.
    """

    dataset: Dataset[Any]
    size: int
    evaluates: bool = True


@dataclasses.dataclass(frozen=True)
class Ready:
    """Everything of a run that can be refused before its first step.

    Attributes:
        architecture: what the networks are.
        trainer: at its start, with its first masks; where the run goes on, as the networks are initialised.
        rounds: what its method declares.
        kept: networks that keep the masks of what the run starts from; None where it goes on.
        memory: what the run takes; known to the first process.
    """

    architecture: Architecture
    trainer: Trainer
    rounds: Sequence[Round]
    kept: Sequence[Name] | None
    memory: MemoryEstimate | None


@ready_to_work()
def open_images(recipe: Recipe, group: Group | None = None, *, evaluates: bool = True) -> OpenedImages:
    """Open, check and read the images of a recipe.

    Args:
        recipe: of the run.
        group: processes that train together.
        evaluates: the run measures its generator too.

    Raises:
        GancompressError: they are missing, too large, or cannot be measured as the recipe says.
    """
    group = group if group is not None else Group()
    check_served(recipe)
    if evaluates:
        check_evaluation(recipe.evaluation)
    dataset = build_dataset(recipe)
    if evaluates:
        check_measurable(recipe.evaluation, dataset, build_task(recipe))
    size = group.first(lambda: check_images(dataset, group.neighbours)) or 0
    dataset.prepare()
    return OpenedImages(dataset, size, evaluates)


@ready_to_work()
def get_ready(recipe: Recipe, images: OpenedImages, group: Group | None = None, directory: Path | None = None) -> Ready:
    """Build everything that trains, and refuse what cannot.

    Args:
        recipe: of the run.
        images: its images.
        group: processes that train together.
        directory: checkpoints of the run: where there are some, the networks are what the last one says.

    Raises:
        GancompressError: whatever is wrong with the networks, the memory, the method or what the run starts from.
    """
    group = group if group is not None else Group()
    image, processes = counted(images.dataset), group.neighbours
    stored = None if directory is None else last_architecture(directory)
    if stored is not None and stored.image == image:
        architecture = relocated(stored, recipe)
    else:
        architecture = build_architecture(recipe, image)
    group.first(lambda: check_networks(recipe, architecture, device_of(recipe), processes))
    trainer = build_trainer(recipe, images.dataset, group, architecture)
    if images.evaluates:
        check_generator(recipe.evaluation, trainer.generator)
    memory = group.first(lambda: check_memory(recipe, trainer, images=images.size, processes=processes))
    rounds = declared_rounds(recipe, trainer)
    goes_on = group.any(directory is not None and bool(checkpoints(directory)))
    return Ready(architecture, trainer, rounds, None if goes_on else start(recipe, trainer), memory)
