"""The task contract: all that training, evaluation and sampling ask about what a generator is for."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.cost.counter import TrainingCounter
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.evaluation.sampler import Inputs
    from gancompress.methods.base import Method, MethodConfig
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.recipe.schema import Recipe, TrainingConfig
    from gancompress.sparsity.state import Name
    from gancompress.training.distillation import GeneratorDistillation
    from gancompress.training.groups import Group
    from gancompress.training.play import Play

__all__ = ["Setup", "Task", "TaskConfig"]


class TaskConfig(BaseModel):
    """Base of every task's ``Config``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a play is made of.

    Attributes:
        recipe: of the run.
        loss: its adversarial loss.
        networks: all that play, by name, on their device.
        dataset: its images.
        device: where the networks are.
        group: processes that train together.
        taught: what the generator learns from a trained one, or None.
    """

    recipe: Recipe
    loss: Loss[LossConfig]
    networks: Mapping[Name, Generator | Discriminator]
    dataset: Dataset[DatasetConfig]
    device: torch.device
    group: Group
    taught: GeneratorDistillation | None = None


C = TypeVar("C", bound=TaskConfig)


class Task(abc.ABC, Generic[C]):
    """What a generator is trained for. Subclass it in one file, give it a ``Config``, register it.

    Every task has a network called ``generator``, which is measured and shipped, and one called ``discriminator``,
    which plays against it. Sparsity, averages, checkpoints, costs and comparisons go through networks by name and
    know no task.

    Attributes:
        beside: names of networks that play beside these two; a name begins with the role that is played, as
            ``generator_back``, and the backbone builds each like the others of its role.
    """

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    beside: ClassVar[tuple[Name, ...]] = ()

    #: whether batch norm may see one image at a time: its pixels are many
    takes_single_images: ClassVar[bool] = False
    #: what a grid shows from left to right, in words; empty where that goes without saying
    shows: ClassVar[str] = ""

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def drawn(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of generated images for a smoke run: the name of a dataset, and what it takes.

        Args:
            settings: what would do for images of latents: those of the dataset ``shapes``.
        """
        return dict(settings)

    def unserved(self, recipe: Recipe, method: Method[MethodConfig]) -> Iterator[str]:
        """Yield a line for every setting that this task has no use for, and for a method that it cannot serve.

        Args:
            recipe: of the run.
            method: of the recipe.
        """
        yield from ()

    @abc.abstractmethod
    def check(self, networks: Mapping[Name, Generator | Discriminator], dataset: Dataset[DatasetConfig]) -> None:
        """Run two inputs through every network, whatever its backbone promises.

        Raises:
            BackboneError: a network lacks what the contract asks, or takes or gives another shape.
            DataError: these images are of another task.
        """

    @abc.abstractmethod
    def counter(self, training: TrainingConfig) -> TrainingCounter:
        """Return what counts the work of a run, with what every network computes in a step."""

    @abc.abstractmethod
    def play(self, setup: Setup) -> Play:
        """Return what a training step computes."""

    def inputs(self, dataset: Dataset[DatasetConfig]) -> Inputs | None:
        """Return what the generator is fed when it is measured; None: latents, which are drawn."""
        return None

    def references(self, dataset: Dataset[DatasetConfig]) -> Dataset[DatasetConfig]:
        """Return the images that generated ones are measured against."""
        return dataset

    @abc.abstractmethod
    def grid(
        self, generators: Mapping[Name, Generator], dataset: Dataset[DatasetConfig], path: Path, seed: int
    ) -> Path:
        """Draw what the generators make of the same inputs at every call as a PNG.

        Args:
            generators: averages, by name.
            dataset: of the run.
            path: file to write.
            seed: of what is drawn.
        """
