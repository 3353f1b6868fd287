"""What the tasks from image to image share: what they refuse, what they feed, and how they are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from pydantic import Field

from gancompress.backbones.base import Translator
from gancompress.components.registry import LOSSES, METRICS
from gancompress.data.domains import Domains
from gancompress.data.transform import to_float, to_uint8
from gancompress.errors import BackboneError, DataError
from gancompress.evaluation.generator_metrics import GeneratorMetric
from gancompress.evaluation.sampler import device_of
from gancompress.evaluation.samples import grid_scale, save_picture, tile
from gancompress.evaluation.sandbox import sampling
from gancompress.recipe.components import component_config
from gancompress.tasks.base import Task, TaskConfig
from gancompress.tasks.checks import check_networks
from gancompress.training.domain_batches import DomainSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.methods.base import Method, MethodConfig
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Name
    from gancompress.tasks.base import Setup

__all__ = ["GROUPS", "ImageInputs", "ImagesConfig", "ImagesTask", "apply", "draw_groups"]

#: pixels of a smoke run's images at most: these networks take many sizes
_SMOKE = 64
#: images per forward pass of a grid
_BATCH = 16
#: groups of a grid, and how many of them are beside each other
GROUPS, _ACROSS = 12, 3


class ImagesConfig(TaskConfig):
    """Settings of the tasks from image to image."""

    jitter: int = Field(
        0,
        ge=0,
        description="pixels by which images are enlarged before a piece of the old size is cut out; published: 30",
    )


class ImageInputs:
    """The images of a dataset as a generator is fed them, from the first to the last and again."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __call__(self, start: int, stop: int) -> Tensor:
        """Return inputs ``start`` to ``stop``, (stop - start, C, H, W), float32 in [-1, 1]."""
        return to_float(self._dataset.read(torch.arange(start, stop) % len(self)).images)


C = TypeVar("C", bound=ImagesConfig)


class ImagesTask(Task[C]):
    """A generator makes images of one domain from images of another."""

    takes_single_images = True
    #: the two belong together image by image
    paired = True
    #: discriminators see what an image was made from beside it
    pairs = False

    @classmethod
    def drawn(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of generated images for a smoke run: outlines, of a size that ends in seconds."""
        kept = {key: settings[key] for key in ("channels", "images")}
        size = min(settings["resolution"], _SMOKE)
        return {"name": "outlines", **kept, "resolution": size, "held_out": settings["images"], "paired": cls.paired}

    def unserved(self, recipe: Recipe, method: Method[MethodConfig]) -> Iterator[str]:
        """Yield a line for whatever is of images of latents."""
        task, objective, training = recipe.task.name, recipe.objective, recipe.training
        asked = {
            "objective.r1.weight": (objective.r1.weight, 0),
            "objective.r2.weight": (objective.r2.weight, 0),
            "objective.orthogonal.weight": (objective.orthogonal.weight, 0),
            "objective.path_length.weight": (objective.path_length.weight, 0),
            "objective.lecam.weight": (objective.lecam.weight, 0),
            "objective.consistency.real": (objective.consistency.real, 0),
            "objective.consistency.fake": (objective.consistency.fake, 0),
            "objective.diffaugment": (objective.diffaugment, ()),
            "objective.ada": (objective.ada, None),
            "training.discriminator_steps": (training.discriminator_steps, 1),
            "training.generator_batch_size": (training.generator_batch_size, None),
            "training.accumulate": (training.accumulate, 1),
            "training.images": (training.images, None),
            "training.distillation": (training.distillation, None),
            "training.values": (training.values, "float32"),
            "training.compile": (training.compile, False),
            "training.cuda_graphs": (training.cuda_graphs, False),
        }
        for key, (found, served) in asked.items():
            if found != served:
                wanted = {None: "null", (): "[]"}.get(served, str(served).lower())  # type: ignore[call-overload]
                yield f"{key}: the task {task!r} cannot serve it; use --set {key}={wanted}"
        if training.feed in ("prefetch", "device"):
            yield f"training.feed: the task {task!r} makes batches when they are due; use --set training.feed=direct"
        loss = LOSSES.get(recipe.objective.loss.name)(component_config(recipe.objective.loss))
        if loss.compares or loss.penalises:
            why = "compares with real images" if loss.compares else "looks between real and made images"
            yield (
                f"objective.loss: {recipe.objective.loss.name} {why}, which the task {task!r} cannot serve; use "
                "--set objective.loss=least-squares"
            )
        name = recipe.sparsity.method.name
        if method.measure is not None or (method.sees_both and self.beside):
            yield (
                f"sparsity.method: {name} follows how a discriminator answers images of latents, which the task "
                f"{task!r} cannot serve; use another one, such as dst"
            )
        for metric in recipe.evaluation.metrics:
            if issubclass(METRICS.get(metric), GeneratorMetric):
                yield (
                    f"evaluation.metrics: {metric} is of images of latents, which the task {task!r} cannot serve: "
                    "leave it out"
                )

    def check(self, networks: Mapping[Name, Generator | Discriminator], dataset: Dataset[DatasetConfig]) -> None:
        """Run two images through the generator, and what it makes through the discriminator."""
        self._domains(dataset)
        for name, network in networks.items():
            if name.startswith("generator") and not isinstance(network, Translator):
                raise BackboneError(
                    f"the {name} makes images of latents, and the task {type(self).__name__.lower()!r} makes them of "
                    "images: use --set model.name=unet or resnet"
                )
        seen, whole = networks["discriminator"].input_shape[0], dataset.spec.channels
        if seen not in (whole, *((2 * whole,) if self.pairs else ())):
            raise BackboneError(
                f"the discriminator sees {seen} channels, and the task {type(self).__name__.lower()!r} shows it "
                f"{whole}: use --set model.pairs=false"
            )
        check_networks(networks, dataset.spec, pairs=seen == 2 * whole, patches=True)

    def inputs(self, dataset: Dataset[DatasetConfig]) -> ImageInputs:
        """Return the held-out images of the source domain, or those of training."""
        return ImageInputs(self._domains(dataset).held_out.source)

    def targets(self, dataset: Dataset[DatasetConfig]) -> ImageInputs:
        """Return the held-out images of the target domain, or those of training, as floats."""
        return ImageInputs(self._domains(dataset).held_out.target)

    def references(self, dataset: Dataset[DatasetConfig]) -> Dataset[DatasetConfig]:
        """Return the held-out images of the target domain, or those of training."""
        return self._domains(dataset).held_out

    def source(self, setup: Setup) -> DomainSource:
        """Return what draws the batches of a run."""
        training = setup.recipe.training
        return DomainSource(
            dataset=self._domains(setup.dataset),
            seed=setup.recipe.seed,
            pairs=self.paired,
            flip=training.flip,
            jitter=self.config.jitter,
            device=setup.device,
            rank=setup.group.rank,
            world=setup.group.world,
            channels_last=training.channels_last,
        )

    def _domains(self, dataset: Dataset[DatasetConfig]) -> Domains[DatasetConfig]:
        wanted = "pairs of images" if self.paired else "two domains of images"
        if not isinstance(dataset, Domains) or (self.paired and not dataset.paired):
            kinds = "paired, or outlines" if self.paired else "unpaired, or outlines"
            raise DataError(
                f"the task {type(self).__name__.lower()!r} needs {wanted}, which this dataset does not have: set "
                f"data.name to {kinds}"
            )
        return cast("Domains[DatasetConfig]", dataset)


def draw_groups(groups: Sequence[Tensor], path: Path) -> Path:
    """Write a grid of groups of images, each a row of as many as there are sequences.

    Args:
        groups: of every column, its images, float (N, C, H, W) in [-1, 1].
        path: the PNG to write.
    """
    rows = torch.stack(tuple(groups), 1)
    count, width = rows.shape[:2]
    pixels = to_uint8(rows.flatten(0, 1))
    return save_picture(tile(pixels, width * min(_ACROSS, count), grid_scale(pixels.shape[-1])), path)


def apply(network: Generator, images: Tensor, seed: int) -> Tensor:
    """Return what a generator makes of images in evaluation mode, on the CPU; it is left as it was."""
    device = device_of(network)
    with sampling(network, seed=seed, device=device):
        return torch.cat([network(part.to(device)).float().cpu() for part in torch.split(images, _BATCH)])
