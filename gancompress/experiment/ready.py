"""What a run is made of before its first step: built, and refused where it cannot work, cheapest mistakes first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.data.classes import counted
from gancompress.experiment.acceleration import device_of
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.experiment.initial import load_initial
from gancompress.experiment.measure import check_evaluation, check_measurable
from gancompress.experiment.memory import MemoryEstimate, check_images, check_memory, check_networks
from gancompress.experiment.networks import build_architecture, last_architecture
from gancompress.storage.checkpoint import checkpoints
from gancompress.training.groups import Group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.data.base import Dataset
    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.training.loop import Trainer

__all__ = ["OpenedImages", "Ready", "get_ready", "open_images"]


@dataclasses.dataclass(frozen=True)
class OpenedImages:
    """The images of a recipe, read and counted.

    Attributes:
        dataset: ready for training.
        size: bytes that it takes in main memory.
    """

    dataset: Dataset[Any]
    size: int


@dataclasses.dataclass(frozen=True)
class Ready:
    """Everything of a run that can be refused before its first step.

    Attributes:
        architecture: what the networks are.
        trainer: at initialisation: masks are not drawn yet.
        rounds: what its method declares.
        masks: of the networks that the run starts from, by role; empty where it starts from none, or goes on.
        memory: what the run takes; known to the first process.
    """

    architecture: Architecture
    trainer: Trainer
    rounds: Sequence[Round]
    masks: Mapping[str, Mapping[str, Tensor]]
    memory: MemoryEstimate | None


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
    if evaluates:
        check_evaluation(recipe.evaluation)
    dataset = build_dataset(recipe)
    if evaluates:
        check_measurable(recipe.evaluation, dataset)
    size = group.first(lambda: check_images(dataset, group.neighbours)) or 0
    dataset.prepare()
    return OpenedImages(dataset, size)


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
    architecture = stored if stored is not None and stored.image == image else build_architecture(recipe, image)
    group.first(lambda: check_networks(recipe, architecture, device_of(recipe), processes))
    trainer = build_trainer(recipe, images.dataset, group, architecture)
    memory = group.first(lambda: check_memory(recipe, trainer, images=images.size, processes=processes))
    masks: Mapping[str, Mapping[str, Tensor]] = {}
    if directory is None or not checkpoints(directory):
        masks = load_initial(recipe, trainer.network("generator"), trainer.network("discriminator"))
    return Ready(architecture, trainer, declared_rounds(recipe, trainer), masks, memory)
