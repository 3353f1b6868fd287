"""Image to image without pairs (Zhu et al., 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from gancompress.components.registry import TASKS
from gancompress.cost.counter import TrainingCounter, Work
from gancompress.errors import RecipeError
from gancompress.tasks.images import GROUPS, ImagesConfig, ImagesTask, apply, draw_groups
from gancompress.training.cycle import CyclePlay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gancompress.backbones.base import Generator
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import TrainingConfig
    from gancompress.sparsity.state import Name
    from gancompress.tasks.base import Setup, TaskConfig
    from gancompress.training.play import Play

__all__ = ["CycleGAN", "CycleGANConfig"]


class CycleGANConfig(ImagesConfig):
    """Settings of image to image without pairs."""

    cycle: float = Field(10.0, ge=0, description="weight of the mean absolute difference after going there and back")
    identity: float = Field(
        0.5, ge=0, description="share of that for images that are of the target domain already, and should stay; 0: off"
    )
    adversarial: float = Field(
        2.0, gt=0, description="weight of the adversarial loss; least squares are published without the half of ours"
    )
    pool: int = Field(50, ge=0, description="made images kept, of which discriminators see half the time an older one")


@TASKS.register("cyclegan")
class CycleGAN(ImagesTask[CycleGANConfig]):
    """Two generators go there and back, and two discriminators judge what either makes.

    ``generator`` makes targets from sources and is measured and shipped; ``generator_back`` goes back.
    ``discriminator`` judges targets, ``discriminator_back`` sources.

    Source: Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017, eqs. 1 to
    4, sections 4 and 5.2; the pool is Shrivastava et al.'s (2017).
    """

    Config: ClassVar[type[TaskConfig]] = CycleGANConfig
    beside = ("generator_back", "discriminator_back")
    paired = False
    shows = "input, output, and the way back; then the other direction"

    def counter(self, training: TrainingConfig) -> TrainingCounter:
        """Count three passes of each generator (there, back, identity), and each discriminator's."""
        b, passes = training.batch_size, 3 if self.config.identity else 2
        generator, discriminator = Work(3 * passes * b, passes * b), Work(6 * b + 2 * b, 2 * b)
        work = {
            "generator": generator,
            "discriminator": discriminator,
            "generator_back": generator,
            "discriminator_back": discriminator,
        }
        return TrainingCounter(b, b, work=work)

    def play(self, setup: Setup) -> Play:
        """Return the step of all four."""
        config = self.config
        if config.pool and setup.group.world > 1:
            raise RecipeError(
                "task.pool: checkpoints hold the pool of one process; train with one, or use --set task.pool=0"
            )
        return CyclePlay(
            setup.loss,
            self.source(setup),
            setup.recipe.training.precision == "bf16",
            seed=setup.recipe.seed,
            cycle=config.cycle,
            identity=config.identity,
            adversarial=config.adversarial,
            pool=config.pool,
        )

    def grid(
        self, generators: Mapping[Name, Generator], dataset: Dataset[DatasetConfig], path: Path, seed: int
    ) -> Path:
        """Draw images, what they become, and what becomes of that on the way back; half of either domain."""
        count = GROUPS // 2
        there, back = generators["generator"], generators["generator_back"]
        groups = []
        for images, first, second in (
            (self.inputs(dataset), there, back),
            (self.targets(dataset), back, there),
        ):
            given = images(0, min(count, len(images)))
            made = apply(first, given, seed)
            groups.append((given, made, apply(second, made, seed)))
        fewest = min(len(group[0]) for group in groups)
        return draw_groups(
            [torch.cat([part[:fewest] for part in column]) for column in zip(*groups, strict=True)], path
        )
