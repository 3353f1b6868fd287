"""Image to image from pairs: a discriminator sees what an image was made from, and pixels are held to the target."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gancompress.training.domain_play import DomainPlay, forget
from gancompress.training.objective import DiscriminatorTerms, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from gancompress.methods.base import Plan
    from gancompress.sparsity.state import Name
    from gancompress.training.domain_batches import DomainBatch

__all__ = ["PairedPlay"]


@dataclasses.dataclass
class PairedPlay(DomainPlay):
    """One step of the discriminator and one of the generator, on the same images (Isola et al., 2017, section 3.3).

    Attributes:
        l1: weight of the mean absolute difference to the target.
        discriminator: factor of the discriminator's loss.
        pairs: the discriminator sees what an image was made from beside it.
    """

    l1: float
    discriminator: float
    pairs: bool

    @property
    def meters(self) -> tuple[str, ...]:
        """Losses, logits, and the difference to the target."""
        return "loss_generator", "loss_discriminator", "d_real", "d_fake", "l1"

    def step(self, total: int, plans: Mapping[Name, Plan]) -> None:
        """Make images once, and train first the discriminator at them, then the generator."""
        trainer, meters = self.trainer, self.trainer.meters
        batch = self.start(total, plans)
        made = self.apply(trainer.generator, batch.source)
        terms = self._of_discriminator(trainer.discriminator, batch, made)
        terms.loss.backward()  # type: ignore[no-untyped-call]
        for name, value in zip(("loss_discriminator", "d_real", "d_fake"), terms, strict=True):
            meters.add(name, value.detach())
        self.take("discriminator", plans)
        with frozen(trainer.discriminator):
            loss, difference = self._of_generator(trainer.discriminator, batch, made)
            loss.backward()  # type: ignore[no-untyped-call]
        meters.add("loss_generator", loss.detach())
        meters.add("l1", difference)
        self.take("generator", plans)

    def compute(self, networks: Mapping[Name, nn.Module], batch: DomainBatch) -> None:
        """Leave the gradients of both losses."""
        judge = networks["discriminator"]
        forget(networks.values())
        made = self.apply(networks["generator"], batch.source)
        self._of_discriminator(judge, batch, made).loss.backward()  # type: ignore[no-untyped-call]
        with frozen(judge):
            self._of_generator(judge, batch, made)[0].backward()  # type: ignore[no-untyped-call]

    def _of_discriminator(self, network: nn.Module, batch: DomainBatch, made: Tensor) -> DiscriminatorTerms:
        terms = self.judge(network, self._seen(batch, batch.target), self._seen(batch, made.detach()))
        return terms._replace(loss=self.discriminator * terms.loss)

    def _of_generator(self, network: nn.Module, batch: DomainBatch, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the difference to the target."""
        difference = F.l1_loss(made, batch.target)
        adversarial = self.loss.generator(self.apply(network, self._seen(batch, made)))
        return adversarial + self.l1 * difference, difference.detach()

    def _seen(self, batch: DomainBatch, images: Tensor) -> Tensor:
        """Return what the discriminator is shown."""
        return torch.cat((batch.source, images), 1) if self.pairs else images
