"""Images of latents: what GANs are for unless a recipe says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.backbones.base import Generator, StyleGenerator
from gancompress.components.registry import TASKS
from gancompress.cost.counter import TrainingCounter
from gancompress.data.subset import draw_subset
from gancompress.errors import BackboneError, RecipeError
from gancompress.evaluation.samples import sample_grid
from gancompress.tasks.base import Setup, Task, TaskConfig
from gancompress.tasks.checks import check_networks
from gancompress.training.batches import BatchSource
from gancompress.training.carried import AdaptiveAugmentation, LeCam, PathLength
from gancompress.training.feed import DeviceDataset, Prefetcher, choose_feed
from gancompress.training.latent import LatentPlay
from gancompress.training.objective import Consistency, Objective, ZeroCentred

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from gancompress.backbones.base import Discriminator
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import Recipe, TrainingConfig
    from gancompress.sparsity.state import Name
    from gancompress.training.play import Play

__all__ = ["Latent", "LatentConfig"]


class LatentConfig(TaskConfig):
    """A task without settings."""


@TASKS.register("latent")
class Latent(Task[LatentConfig]):
    """A generator makes images of latents, and of classes where it is conditional (Goodfellow et al., 2014)."""

    Config: ClassVar[type[TaskConfig]] = LatentConfig

    def check(self, networks: Mapping[Name, Generator | Discriminator], dataset: Dataset[DatasetConfig]) -> None:
        """Run two latents through the generator, and what it makes through the discriminator."""
        if any(isinstance(network, Generator) and network.translates for network in networks.values()):
            raise BackboneError(
                "the generator eats images, and the task 'latent' gives it latents: use --set task=pix2pix or cyclegan"
            )
        check_networks(networks, dataset.spec)

    def counter(self, training: TrainingConfig) -> TrainingCounter:
        """Count a pair."""
        return TrainingCounter(
            batch_size=training.batch_size,
            generator_batch_size=training.generator_batch_size or training.batch_size,
            discriminator_steps=training.discriminator_steps,
        )

    def play(self, setup: Setup) -> Play:
        """Return the steps of the discriminator and the step of the generator."""
        recipe, training, group = setup.recipe, setup.recipe.training, setup.group
        generator: Any = setup.networks["generator"]
        discriminator: Any = setup.networks["discriminator"]
        objective = Objective(
            loss=setup.loss,
            seed=recipe.seed,
            diffaugment=recipe.objective.diffaugment,
            adaptive=_adaptive(recipe),
            lecam=LeCam(**dict(recipe.objective.lecam)) if recipe.objective.lecam.weight else None,
            path_length=_path_length(recipe, generator),
            consistency=Consistency(**dict(recipe.objective.consistency)),
            r1=ZeroCentred(**dict(recipe.objective.r1)),
            r2=ZeroCentred(**dict(recipe.objective.r2)),
            orthogonal_weight=recipe.objective.orthogonal.weight,
            orthogonal_networks=recipe.objective.orthogonal.networks,
            joint_batch=training.joint_batch and not discriminator.sees_batch,
            bf16=training.precision == "bf16",
            taught=setup.taught,
            rank=group.rank,
        )
        dataset = setup.dataset
        if training.images is not None:
            dataset = draw_subset(dataset, training.images, recipe.seed, whole_classes=generator.num_classes > 0)
        feed = choose_feed(training.feed, dataset, setup.device)
        source = BatchSource(
            dataset=DeviceDataset(dataset, setup.device) if feed == "device" else dataset,
            latent_dim=generator.latent_dim,
            num_classes=generator.num_classes,
            seed=recipe.seed,
            flip=training.flip,
            device=setup.device,
            rank=group.rank,
            world=group.world,
            channels_last=training.channels_last,
        )
        return LatentPlay(objective, Prefetcher(source, setup.device) if feed == "prefetch" else source)

    def grid(
        self, generators: Mapping[Name, Generator], dataset: Dataset[DatasetConfig], path: Path, seed: int
    ) -> Path:
        """Draw images of the same latents, a row per class where there are classes."""
        return sample_grid(generators["generator"], path, seed=seed)


def _adaptive(recipe: Recipe) -> AdaptiveAugmentation | None:
    config = recipe.objective.ada
    if config is None:
        return None
    settings = dict(config)
    return AdaptiveAugmentation(images=1000 * settings.pop("kimg"), **settings)


def _path_length(recipe: Recipe, generator: Generator) -> PathLength | None:
    config = recipe.objective.path_length
    if not config.weight:
        return None
    if not isinstance(generator, StyleGenerator):
        raise RecipeError(
            f"objective.path_length: {recipe.model.name} has no styles whose paths have a length, as stylegan2 has; "
            "use --set objective.path_length.weight=0"
        )
    return PathLength(**dict(config))
