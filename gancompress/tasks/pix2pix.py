"""Image to image from pairs (Isola et al., 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gancompress.components.registry import TASKS
from gancompress.cost.counter import TrainingCounter, Work
from gancompress.tasks.images import GROUPS, ImagesConfig, ImagesTask, apply, draw_groups
from gancompress.training.paired import PairedPlay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gancompress.backbones.base import Generator
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import TrainingConfig
    from gancompress.sparsity.state import Name
    from gancompress.tasks.base import Setup, TaskConfig
    from gancompress.training.play import Play

__all__ = ["Pix2Pix", "Pix2PixConfig"]


class Pix2PixConfig(ImagesConfig):
    """Settings of image to image from pairs."""

    l1: float = Field(100.0, ge=0, description="weight of the mean absolute difference to the target")
    discriminator: float = Field(0.5, gt=0, description="factor of the discriminator's loss, which slows it down")


@TASKS.register("pix2pix")
class Pix2Pix(ImagesTask[Pix2PixConfig]):
    """A generator makes the target of a pair from its source; a discriminator sees both, beside an L1 loss.

    Source: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017, eqs. 1 to 4 and
    section 3.3. The generator makes its images once a step, for both players, as the published code does.
    """

    Config: ClassVar[type[TaskConfig]] = Pix2PixConfig
    pairs = True
    shows = "input, output, target"

    def counter(self, training: TrainingConfig) -> TrainingCounter:
        """Count a pair that looks at the same images: forward and backward once, and the discriminator's look."""
        b = training.batch_size
        work = {"generator": Work(3 * b, b), "discriminator": Work(6 * b + 2 * b, 2 * b)}
        return TrainingCounter(b, b, work=work)

    def play(self, setup: Setup) -> Play:
        """Return the step of both."""
        seen = setup.networks["discriminator"].input_shape[0]
        return PairedPlay(
            setup.loss,
            self.source(setup),
            setup.recipe.training.precision == "bf16",
            l1=self.config.l1,
            discriminator=self.config.discriminator,
            pairs=seen == 2 * setup.dataset.spec.channels,
        )

    def grid(
        self, generators: Mapping[Name, Generator], dataset: Dataset[DatasetConfig], path: Path, seed: int
    ) -> Path:
        """Draw input, output and target of the first held-out pairs."""
        domains = self._domains(dataset).held_out
        count = min(GROUPS, len(domains))
        given, wanted = (images(0, count) for images in (self.inputs(dataset), self.targets(dataset)))
        return draw_groups((given, apply(generators["generator"], given, seed), wanted), path)
