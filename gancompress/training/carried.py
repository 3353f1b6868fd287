"""What an objective carries from step to step: running means, and a probability that follows the discriminator.

All of it is scalars on the device, which a checkpoint keeps, and nothing waits for them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.objectives.ada import Pipe, ada
from gancompress.objectives.regularisers import path_lengths
from gancompress.sparsity.schedules import cosine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import StyleGenerator
    from gancompress.training.groups import Group

__all__ = ["AdaptiveAugmentation", "Carried", "LeCam", "PathLength"]


@dataclasses.dataclass
class Carried:
    """Something with scalars that the next step depends on.

    Attributes:
        scalars: by name; they are changed in place.
    """

    scalars: dict[str, Tensor] = dataclasses.field(default_factory=dict, kw_only=True)

    def start(self, device: torch.device) -> None:
        """Bring the scalars to the device of the networks."""
        self.scalars = {name: value.to(device) for name, value in self.scalars.items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint kept."""
        for name, value in self.scalars.items():
            value.copy_(saved[name])


@dataclasses.dataclass
class AdaptiveAugmentation(Carried):
    """ADA: augment as often as the discriminator tells real images from generated ones.

    The mean sign of its logits at real images, ``r``, is 1 for one that knows every image, and 0 for one that does not
    know any. Every few steps the probability goes up when ``r`` is above the target, down when below. Without a target
    it stays, or grows along a schedule, and is a function of the step alone.

    Source: Karras et al., Training Generative Adversarial Networks with Limited Data, 2020, section 3; the schedule:
    Huang et al., The GAN is dead; long live the GAN!, 2024.

    Attributes:
        pipe: groups of augmentations.
        target: what ``r`` is held at; None keeps the probability.
        every: discriminator steps between two changes.
        images: real images in which the probability would go from 0 to 1.
        probability: at the start.
        final: where the schedules end; None: as at the start.
        colours: share of the probability at which colours change.
    """

    pipe: tuple[Pipe, ...] = ("blit", "geometry", "colour")
    target: float | None = 0.6
    every: int = 4
    images: float = 500_000.0
    probability: float = 0.0
    final: float | None = None
    colours: float = 1.0

    def __post_init__(self) -> None:
        self.scalars = {
            "probability": torch.tensor(self.probability),
            "signs": torch.zeros(()),
            "logits": torch.zeros(()),
        }

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return the images, each change made with the probability that holds now."""
        return ada(images, self.scalars["probability"], rng, self.pipe, self.colours)

    def follow(self, progress: float) -> None:
        """Take the probability to where the schedule has it; ``progress`` is 0 at its start and 1 at its end."""
        if self.final is not None:
            self.scalars["probability"].fill_(cosine(self.probability, self.final, progress))

    def see(self, real_logits: Tensor) -> None:
        """Take in the discriminator's logits at real images."""
        logits = real_logits.detach()
        self.scalars["signs"] += logits.sign().sum()
        self.scalars["logits"] += logits.numel()

    def adjust(self, draw: int, batch: int, group: Group) -> None:
        """Change the probability after the ``draw``-th discriminator step, if that is due; ranks agree on it.

        Args:
            draw: 0 for the first step.
            batch: real images per step, over all ranks.
            group: processes that train together.
        """
        if self.target is None or (draw + 1) % self.every:
            return
        p, signs, logits = (self.scalars[name] for name in ("probability", "signs", "logits"))
        above = group.mean(signs / logits) - self.target
        p.copy_((p + above.sign() * (batch * self.every / self.images)).clamp(0, 1))
        signs.zero_()
        logits.zero_()


@dataclasses.dataclass
class PathLength(Carried):
    """Path length regularisation: a step of a style should change the image as much wherever it is taken.

    Source: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020, section 3.2 and eq. 4.

    Attributes:
        weight: of the mean squared deviation from the running mean.
        every: generator steps between two; the weight is scaled up to match.
        decay: share of the running mean that a batch takes over.
        share: one of so many images of a batch.
    """

    weight: float = 2.0
    every: int = 4
    decay: float = 0.01
    share: int = 2

    def __post_init__(self) -> None:
        self.scalars = {"length": torch.zeros(())}

    def due(self, step: int) -> bool:
        """Whether the ``step``-th generator step, 1 for the first, computes it."""
        return (step - 1) % self.every == 0

    def images(self, batch: int) -> int:
        """Return how many images of a batch are looked at."""
        return max(1, batch // self.share)

    def penalty(self, network: StyleGenerator, z: Tensor, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        """Return the weighted penalty, a scalar, and move the running mean."""
        count = self.images(z.shape[0])
        lengths = path_lengths(network, z[:count], None if labels is None else labels[:count], rng)
        mean = self.scalars["length"]
        mean.copy_(torch.lerp(mean, lengths.detach().mean(), self.decay))
        return self.weight * self.every * (lengths - mean.clone()).square().mean()


@dataclasses.dataclass
class LeCam(Carried):
    """LeCam regularisation: logits stay near the running mean of those of the other kind of images.

    Source: Tseng et al., Regularizing Generative Adversarial Networks under Limited Data, 2021, section 3.2, eq. 5.

    Attributes:
        weight: of both mean squared distances.
        decay: of the running means, per batch.
    """

    weight: float = 0.3
    decay: float = 0.99

    def __post_init__(self) -> None:
        self.scalars = {"real": torch.zeros(()), "fake": torch.zeros(())}

    def penalty(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the weighted penalty, a scalar, and move the running means."""
        for name, logits in (("real", real_logits), ("fake", fake_logits)):
            mean = self.scalars[name]
            mean.copy_(torch.lerp(logits.detach().mean(), mean, self.decay))
        real, fake = self.scalars["real"].clone(), self.scalars["fake"].clone()
        return self.weight * ((real_logits - fake).square().mean() + (fake_logits - real).square().mean())
