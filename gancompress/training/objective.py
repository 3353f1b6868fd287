"""One discriminator loss and one generator loss, with augmentation, penalties and distillation put together."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import StyleGenerator
from gancompress.objectives.augment import Policy, diffaugment
from gancompress.objectives.consistency import flipped_and_shifted, inconsistency
from gancompress.objectives.regularisers import filter_matrices, gradient_penalty, orthogonal_penalty
from gancompress.seeds import generator as seeded
from gancompress.sparsity.schedules import cosine
from gancompress.training.distillation import Lesson, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.sparsity.state import Role
    from gancompress.training.batches import Latents, RealBatch
    from gancompress.training.carried import AdaptiveAugmentation, Carried, LeCam, PathLength
    from gancompress.training.distillation import GeneratorDistillation

__all__ = ["Consistency", "DiscriminatorTerms", "Objective", "ZeroCentred", "frozen", "unchanged", "written"]


@dataclasses.dataclass(frozen=True)
class ZeroCentred:
    """A gradient penalty of some discriminator steps.

    Attributes:
        weight: gamma at the first step of a round, 0 = off.
        every: discriminator steps between two penalties; the weight is scaled up to match.
        final: gamma where the schedules end, None: as at the start.
    """

    weight: float = 0.0
    every: int = 16
    final: float | None = None

    def due(self, draw: int) -> bool:
        """Whether the ``draw``-th discriminator step computes it."""
        return self.weight > 0 and draw % self.every == 0

    def factor(self, progress: float) -> float:
        """Return what the mean squared gradient is multiplied by."""
        gamma = self.weight if self.final is None else cosine(self.weight, self.final, progress)
        return 0.5 * gamma * self.every


@dataclasses.dataclass(frozen=True)
class Consistency:
    """Consistency of the discriminator under flips and shifts, as published on images that nothing else augments.

    Source: Zhang et al., Consistency Regularization for Generative Adversarial Networks, 2020 (CR: real images);
    Zhao et al., Improved Consistency Regularization for GANs, 2021, algorithm 1 (bCR: generated ones too).

    Attributes:
        real: weight at real images, 0 = off.
        fake: weight at generated ones, 0 = off.
        shift: pixels at most.
    """

    real: float = 0.0
    fake: float = 0.0
    shift: int = 4

    @property
    def sides(self) -> int:
        """How many batches the discriminator takes once more."""
        return (self.real > 0) + (self.fake > 0)


class DiscriminatorTerms(NamedTuple):
    """The loss to minimise (scalar) and the mean logits it saw, all still on the device."""

    loss: Tensor
    d_real: Tensor
    d_fake: Tensor


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Compute no weight gradients for ``network`` inside: the generator step needs only its input gradient."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def written(network: nn.Module) -> nn.Module:
    """Return the network as written, when ``network`` is its compiled form: that has no gradients of gradients."""
    inner = getattr(network, "_orig_mod", network)
    assert isinstance(inner, nn.Module)
    return inner


def unchanged(network: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run ``network`` as it is while training, but on copies of its buffers: looking must change nothing."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    out: Tensor = torch.func.functional_call(network, buffers, inputs)
    return out


@dataclasses.dataclass
class Objective:
    """What both players optimise.

    Attributes:
        loss: the adversarial loss.
        seed: the run's seed, for augmentation and interpolation.
        diffaugment: DiffAugment policies.
        adaptive: ADA, or None.
        lecam: LeCam regularisation, or None.
        path_length: path length regularisation, or None.
        consistency: under flips and shifts.
        r1: penalty on the gradient at real images.
        r2: the same at generated ones.
        progress: of the schedules, 0 at the first step of a round and 1 where they end; the loop sets it.
        orthogonal_weight: beta of orthogonal regularisation, 0 = off.
        orthogonal_networks: whose weights it regularises.
        joint_batch: one discriminator call on real and generated images together (one power iteration of spectral
            norm per step instead of two).
        bf16: run the networks under bf16 autocast; losses and penalties stay float32.
        teacher: discriminator to distil from, or None.
        distillation: weight of the distillation loss.
        taught: what the generator learns from a trained one, or None.
        rank: this process, so that no two augment alike.
    """

    loss: Loss[LossConfig]
    seed: int
    diffaugment: tuple[Policy, ...] = ()
    adaptive: AdaptiveAugmentation | None = None
    lecam: LeCam | None = None
    path_length: PathLength | None = None
    consistency: Consistency = Consistency()
    r1: ZeroCentred = ZeroCentred()
    r2: ZeroCentred = ZeroCentred()
    progress: float = 0.0
    orthogonal_weight: float = 0.0
    orthogonal_networks: Literal["generator", "discriminator", "both"] = "generator"
    joint_batch: bool = True
    bf16: bool = False
    teacher: nn.Module | None = None
    distillation: float = 0.0
    taught: GeneratorDistillation | None = None
    rank: int = 0

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which networks run."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def generate(self, generator: nn.Module, latents: Latents) -> Tensor:
        """Return float32 images for ``latents``."""
        with self.autocast(latents.z.device):
            images: Tensor = generator(latents.z, latents.labels)
        return images.float()

    def discriminator(
        self, network: nn.Module, real: RealBatch, fake: Tensor, fake_labels: Tensor | None, draw: int, micro: int = 0
    ) -> DiscriminatorTerms:
        """Return the loss of the ``draw``-th discriminator step (0-based) on one micro-batch.

        Args:
            network: the discriminator.
            real: real images.
            fake: generated images, detached.
            fake_labels: classes that ``fake`` was asked to show.
            draw: index of the discriminator step in the run; R1 and R2 fall on multiples of their ``every``.
            micro: index of the micro-batch.
        """

        def judge(images: Tensor, labels: Tensor | None = real.labels) -> Tensor:
            out: Tensor = written(network)(images, labels)  # penalties need second derivatives, in float32
            return out

        real_images = self._augment(real.images, "real", draw, micro)
        fake_images = self._augment(fake, "fake", draw, micro)
        real_logits, fake_logits = self._both(network, real_images, real.labels, fake_images, fake_labels)
        loss = self.loss.discriminator(real_logits, fake_logits)
        if self.adaptive is not None:
            self.adaptive.see(real_logits)
        if self.lecam is not None:
            loss = loss + self.lecam.penalty(real_logits, fake_logits)
        if self.consistency.sides:
            loss = loss + self._inconsistency(
                network,
                (real_images, real.labels, real_logits, self.consistency.real),
                (fake_images, fake_labels, fake_logits, self.consistency.fake),
                draw,
                micro,
            )
        penalty = self.loss.penalty(
            judge, real_images, fake_images, seeded(self.seed, "penalty", draw, micro, self.rank)
        )
        if penalty is not None:
            loss = loss + penalty
        if self.r1.due(draw):
            loss = loss + self.r1.factor(self.progress) * gradient_penalty(judge, real_images)
        if self.r2.due(draw):
            loss = loss + self.r2.factor(self.progress) * gradient_penalty(
                lambda images: judge(images, fake_labels), fake_images
            )
        loss = self._regularised(loss, "discriminator", written(network))
        if self.teacher is not None and self.distillation:
            with torch.no_grad():
                taught = self._both(self.teacher, real_images, real.labels, fake_images, fake_labels)
            student, target = torch.cat((real_logits, fake_logits)), torch.cat(taught)
            loss = loss + self.distillation * _bernoulli_divergence(student, target)
        return DiscriminatorTerms(loss, real_logits.detach().mean(), fake_logits.detach().mean())

    @property
    def carried(self) -> dict[str, Carried]:
        """What the next step depends on besides weights, by name."""
        found = {"ada": self.adaptive, "lecam": self.lecam, "path_length": self.path_length}
        return {name: one for name, one in found.items() if one is not None}

    def follows_paths(self, step: int) -> bool:
        """Whether the ``step``-th generator step, 1 for the first, computes path lengths."""
        return self.path_length is not None and self.path_length.due(step)

    def penalties(self, draw: int) -> int:
        """Return how many gradient penalties the ``draw``-th discriminator step computes."""
        return sum((self.loss.penalises, self.r1.due(draw), self.r2.due(draw)))

    def generator(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latents: Latents,
        step: int,
        micro: int = 0,
        real: RealBatch | None = None,
    ) -> Tensor:
        """Return the loss of the ``step``-th generator step on one micro-batch, a scalar still on the device.

        Args:
            generator: the generator.
            discriminator: the discriminator, whose weights want no gradient.
            latents: of the images to make.
            step: index of the generator step in the run.
            micro: index of the micro-batch.
            real: as many real images, for a loss that compares; the others leave it alone.
        """
        return self.generator_terms(generator, discriminator, latents, step, micro, real)[0]

    def generator_terms(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latents: Latents,
        step: int,
        micro: int = 0,
        real: RealBatch | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the loss as :meth:`generator` does, and after it every term that is learned from a teacher."""
        taught = self.taught
        if taught is not None:  # a compiled network may not stop for whoever watches its maps
            generator = written(generator) if taught.maps else generator
            discriminator = written(discriminator) if taught.judged else discriminator
        with watched(generator, {} if taught is None else taught.students) as maps:
            made = self.generate(generator, latents)
        images = self._augment(made, "generator", step, micro)
        others: tuple[Tensor, ...] = ()
        if self.loss.compares:
            assert real is not None, "this loss compares with real images"
            with torch.no_grad():
                shown = self._augment(real.images, "generator-real", step, micro)
                others = (self.logits(discriminator, shown, real.labels),)
        # before the discriminator takes the student's images, so that it takes both with the same norms
        lesson = None if taught is None else self._lesson(taught, discriminator, latents, step, micro)
        with watched(discriminator, {} if taught is None else taught.judged) as judged:
            logits = self.logits(discriminator, images, latents.labels)
        loss = self._regularised(self.loss.generator(logits, *others), "generator", written(generator))
        if self.path_length is not None and self.path_length.due(step):
            styled, rng = written(generator), seeded(self.seed, "path", step, micro, self.rank)
            assert isinstance(styled, StyleGenerator)
            loss = loss + self.path_length.penalty(styled, latents.z, latents.labels, rng)
        if taught is None or lesson is None:
            return (loss,)
        terms = taught.compare(Lesson(made, maps, judged), lesson)
        for term, weight in zip(terms, taught.weights.values(), strict=True):
            loss = loss + weight * term
        return loss, *(term.detach() for term in terms)

    def _lesson(
        self, taught: GeneratorDistillation, discriminator: nn.Module, latents: Latents, step: int, micro: int
    ) -> Lesson:
        """Return what the teacher makes of the same latents, and the discriminator of that, which stays as it is."""
        with torch.no_grad():
            with watched(taught.teacher, taught.teachers) as maps:
                images = self.generate(taught.teacher, latents)
            with watched(discriminator, taught.judged) as judged, self.autocast(images.device):
                if taught.judged:
                    unchanged(discriminator, self._augment(images, "generator", step, micro), latents.labels)
        return Lesson(images, maps, judged)

    def logits(self, network: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return float32 logits of ``images``, without augmentation."""
        with self.autocast(images.device):
            logits: Tensor = network(images, labels)
        return logits.float()

    def _regularised(self, loss: Tensor, role: Role, network: nn.Module) -> Tensor:
        """Add orthogonal regularisation, if there is any of this network.

        Masked weights are exactly 0, so it is of the weights in effect; what it says about masked positions reaches
        growth by gradient as any other part of the objective does, and the optimizer never sees it.
        """
        if not self.orthogonal_weight or self.orthogonal_networks not in (role, "both"):
            return loss
        return loss + self.orthogonal_weight * orthogonal_penalty(filter_matrices(network))

    def _inconsistency(
        self,
        network: nn.Module,
        real: tuple[Tensor, Tensor | None, Tensor, float],
        fake: tuple[Tensor, Tensor | None, Tensor, float],
        draw: int,
        micro: int,
    ) -> Tensor:
        """Return what the discriminator's differences between images and moved ones cost; drawn for each side apart."""
        total = real[2].new_zeros(())
        for side, (images, labels, logits, weight) in (("real", real), ("fake", fake)):
            if weight:
                rng = seeded(self.seed, "consistency", side, draw, micro, self.rank)
                moved = flipped_and_shifted(images, self.consistency.shift, rng)
                total = total + weight * inconsistency(logits, self.logits(network, moved, labels))
        return total

    def _augment(self, images: Tensor, side: str, draw: int, micro: int) -> Tensor:
        if self.adaptive is not None:
            return self.adaptive.augment(images, seeded(self.seed, "augment", side, draw, micro, self.rank))
        if not self.diffaugment:
            return images
        return diffaugment(images, self.diffaugment, seeded(self.seed, "augment", side, draw, micro, self.rank))

    def _both(
        self, network: nn.Module, real: Tensor, real_labels: Tensor | None, fake: Tensor, fake_labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if not self.joint_batch:
            return self.logits(network, real, real_labels), self.logits(network, fake, fake_labels)
        labels = None if real_labels is None or fake_labels is None else torch.cat((real_labels, fake_labels))
        logits = self.logits(network, torch.cat((real, fake)), labels)
        return logits[: len(real)], logits[len(real) :]


def _bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL(teacher || student) of the Bernoulli variables whose logits the discriminators give.

    Source: the distillation loss of Chen et al., 2021 (GAN lottery tickets), averaged over images.
    """
    probability = torch.sigmoid(teacher)
    cross = F.binary_cross_entropy_with_logits(student, probability)
    return cross - F.binary_cross_entropy_with_logits(teacher, probability)
