"""What plays from image to image share: batches of two domains, passes on all networks, and how they are tried out."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING

import torch

from gancompress.training.batch_norm import global_statistics
from gancompress.training.domain_batches import DomainBatch, DomainSource
from gancompress.training.objective import DiscriminatorTerms, unchanged
from gancompress.training.play import Play

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from gancompress.methods.base import Plan
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.sparsity.state import Name

__all__ = ["DomainPlay", "forget"]


@dataclasses.dataclass
class DomainPlay(Play):
    """A step from image to image.

    Attributes:
        loss: the adversarial loss.
        source: batches.
        bf16: run the networks under bf16 autocast; losses stay float32.
    """

    loss: Loss[LossConfig]
    source: DomainSource
    bf16: bool

    @abc.abstractmethod
    def compute(self, networks: Mapping[Name, nn.Module], batch: DomainBatch) -> None:
        """Leave the gradients of all losses on a batch in ``.grad``, forgetting what was there."""

    def probe(self) -> None:
        """Leave the gradients of all losses on the first batch in ``.grad``."""
        trainer = self.trainer
        trainer.seed_noise("probe")
        with global_statistics(trainer.group):
            self.compute(trainer.networks, self.source.both(trainer.config.batch_size, 0))
        for network in trainer.networks.values():
            trainer.average_gradients(network)

    def rehearse(self, networks: Mapping[Name, nn.Module]) -> None:
        """Compute the passes of a step on zeros."""
        self.compute(networks, self._blank(self.images("generator", self.trainer.group.world)))

    def show(self) -> None:
        """Take two inputs through every network, and change nothing."""
        trainer = self.trainer
        with torch.no_grad(), self._autocast():
            for network in trainer.networks.values():
                unchanged(network, torch.zeros(2, *network.input_shape, device=trainer.device), None)

    def images(self, name: Name, world: int) -> int:
        """Return one process's share of the batch: real and made images go apart."""
        return max(1, self.trainer.config.batch_size // world)

    def apply(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return what a network makes of images, as float32."""
        with self._autocast():
            out: Tensor = network(images)
        return out.float()

    def judge(self, network: nn.Module, real: Tensor, made: Tensor) -> DiscriminatorTerms:
        """Return a discriminator's loss; ``made`` has no graph."""
        real_logits, fake_logits = self.apply(network, real), self.apply(network, made)
        loss = self.loss.discriminator(real_logits, fake_logits)
        return DiscriminatorTerms(loss, real_logits.detach().mean(), fake_logits.detach().mean())

    def start(self, total: int, plans: Mapping[Name, Plan]) -> DomainBatch:
        """Return the batch of a step, with all gradients forgotten and every network told what is wanted of it."""
        trainer = self.trainer
        batch = self.source.both(trainer.config.batch_size, total - 1)
        for name, plan in plans.items():
            trainer.engine.expect(name, plan)
        forget(trainer.networks.values())
        return batch

    def take(self, name: Name, plans: Mapping[Name, Plan]) -> None:
        """Let one network take its optimizer step."""
        self.trainer.average_gradients(self.trainer.network(name))
        self.trainer.engine.step(name, plans[name])

    def _blank(self, count: int) -> DomainBatch:
        zeros = torch.zeros(count, *self.trainer.generator.input_shape, device=self.trainer.device)
        return DomainBatch(zeros, zeros)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.trainer.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def forget(networks: Iterable[nn.Module]) -> None:
    """Forget all gradients."""
    for network in networks:
        network.zero_grad(set_to_none=True)
