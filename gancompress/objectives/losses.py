"""The adversarial losses: hinge, non-saturating, least squares, relativistic, Wasserstein with gradient penalty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gancompress.components.registry import LOSSES
from gancompress.objectives.base import DiscriminatorFn, Loss, LossConfig, input_gradients
from gancompress.seeds import to_device

__all__ = ["WGANGP", "Hinge", "LeastSquares", "NoSettings", "NonSaturating", "Relativistic", "WGANGPConfig"]


class NoSettings(LossConfig):
    """A loss without settings."""


@LOSSES.register("hinge")
class Hinge(Loss[NoSettings]):
    """D: E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]; G: -E[D(G(z))].

    Source: Lim & Ye, Geometric GAN, 2017; Miyato et al., Spectral Normalization for GANs, 2018, eqs. 16 and 17.
    """

    Config = NoSettings

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the hinge loss; logits beyond the margin of 1 pull no more."""
        return F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Return minus the mean logit."""
        return -fake_logits.float().mean()


@LOSSES.register("non-saturating")
class NonSaturating(Loss[NoSettings]):
    """D: -E[log s(D(x))] - E[log(1 - s(D(G(z))))]; G: -E[log s(D(G(z)))], s the logistic function.

    Source: Goodfellow et al., Generative Adversarial Nets, 2014, eq. 1 and the last paragraph of section 3.
    """

    Config = NoSettings

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the cross-entropy, through softplus, which neither overflows nor rounds to log 0."""
        return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Return the cross-entropy of the fake images against the label *real*."""
        return F.softplus(-fake_logits.float()).mean()


@LOSSES.register("least-squares")
class LeastSquares(Loss[NoSettings]):
    """D: E[(D(x) - 1)²]/2 + E[D(G(z))²]/2; G: E[(D(G(z)) - 1)²]/2.

    Source: Mao et al., Least Squares GAN, 2017, eq. 9 (labels 0 and 1).
    """

    Config = NoSettings

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return half the squared distance of the logits to 1 (real) and 0 (fake)."""
        return 0.5 * ((real_logits.float() - 1).square().mean() + fake_logits.float().square().mean())

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Return half the squared distance of the logits to 1."""
        return 0.5 * (fake_logits.float() - 1).square().mean()


@LOSSES.register("relativistic")
class Relativistic(Loss[NoSettings]):
    """D: E[softplus(D(G(z)) - D(x))]; G: E[softplus(D(x) - D(G(z)))], over pairs of a real and a generated image.

    Each image should look more real than the other one of its pair, or less, and not just real. Pairs are random. With
    R1 and R2 (``objective.r1``, ``objective.r2``) it is R3GAN's.

    Source: Jolicoeur-Martineau, The relativistic discriminator, 2019, section 4.1; On Relativistic f-Divergences, 2020
    (RpGAN); Huang et al., The GAN is dead; long live the GAN!, 2024, eq. 2.
    """

    Config = NoSettings

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the cross-entropy of telling which image of a pair is the real one.

        Raises:
            ValueError: the two batches differ in size.
        """
        return self.generator(real_logits, fake_logits)

    def generator(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        """Return the cross-entropy of taking the generated image of a pair for the real one.

        Raises:
            ValueError: the two batches differ in size.
        """
        fake, real = fake_logits.float().flatten(), real_logits.float().flatten()
        if fake.shape != real.shape:
            raise ValueError(f"relativistic pairs images one by one: got {len(fake)} and {len(real)} logits")
        return F.softplus(real - fake).mean()


class WGANGPConfig(LossConfig):
    """Settings of the Wasserstein loss with gradient penalty."""

    weight: float = Field(10.0, ge=0, description="weight of the gradient penalty; 0 turns it off")


@LOSSES.register("wgan-gp")
class WGANGP(Loss[WGANGPConfig]):
    """D: E[D(G(z))] - E[D(x)] + weight · E[(‖∇D(x̂)‖ - 1)²]; G: -E[D(G(z))]; x̂ between a real and a fake image.

    Source: Gulrajani et al., Improved Training of Wasserstein GANs, 2017, eq. 3 and algorithm 1.
    """

    Config = WGANGPConfig

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return minus the estimate of the Wasserstein distance."""
        return fake_logits.float().mean() - real_logits.float().mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Return minus the mean logit."""
        return -fake_logits.float().mean()

    @property
    def penalises(self) -> bool:
        """Not with a weight of 0."""
        return self.config.weight > 0

    def penalty(
        self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Return ``weight`` times the mean squared deviation from 1 of the gradient norm between real and fake.

        Each pair draws its own place on the line between the two images.

        Raises:
            ValueError: the two batches differ in shape.
        """
        if not self.penalises:
            return None
        if real.shape != fake.shape:
            raise ValueError(f"wgan-gp pairs real and fake images: got {tuple(real.shape)} and {tuple(fake.shape)}")
        place = to_device(torch.rand(real.shape[0], 1, 1, 1, generator=rng, device=rng.device), real.device)
        between = torch.lerp(fake.detach().float(), real.detach().float(), place)
        norms = torch.linalg.vector_norm(input_gradients(discriminator, between).flatten(1), dim=1)
        penalty: Tensor = self.config.weight * (norms - 1).square().mean()
        return penalty
