"""Image to image without pairs: there and back again must end where it began."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gancompress.seeds import generator as seeded
from gancompress.training.carried import Carried
from gancompress.training.domain_play import DomainPlay, forget
from gancompress.training.objective import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from gancompress.methods.base import Plan
    from gancompress.sparsity.state import Name
    from gancompress.training.domain_batches import DomainBatch
    from gancompress.training.loop import Trainer

__all__ = ["CyclePlay", "ImagePool"]

#: networks in the order of their steps
_GENERATORS, _DISCRIMINATORS = ("generator", "generator_back"), ("discriminator", "discriminator_back")


@dataclasses.dataclass
class ImagePool(Carried):
    """Made images of earlier steps, which a discriminator sees half the time in place of the latest.

    Until it is full every image is kept and shown. Then, for each image a coin is tossed: it is shown, or an image of
    the pool is, whose place it takes. Source: Shrivastava et al., Learning from Simulated and Unsupervised Images
    through Adversarial Training, 2017, section 2.3.

    Attributes:
        size: images that it holds, 0 = none.
        shape: of an image, (C, H, W).
    """

    size: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self.scalars = {"images": torch.zeros(self.size, *self.shape), "kept": torch.zeros(())}

    def query(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return what is shown instead of ``images`` (B, C, H, W), which have no graph, and keep some of them."""
        if not self.size:
            return images
        held, kept = self.scalars["images"], int(self.scalars["kept"])
        shown = []
        for image in images:
            older, place = torch.rand(2, generator=rng).tolist()
            index = min(int(place * self.size), self.size - 1)
            if kept < self.size:
                held[kept].copy_(image)
                kept += 1
                shown.append(image)
            elif older > 0.5:
                shown.append(held[index].clone())
                held[index].copy_(image)
            else:
                shown.append(image)
        self.scalars["kept"].fill_(kept)
        return torch.stack(shown)


@dataclasses.dataclass
class CyclePlay(DomainPlay):
    """One step of both generators together, then one of each discriminator (Zhu et al., 2017).

    Attributes:
        seed: the run's seed, for the pools.
        cycle: weight of the difference after going there and back.
        identity: share of that for images that are of the target domain already.
        adversarial: weight of the adversarial loss in the generators' step.
        pool: images that each pool holds.
    """

    seed: int
    cycle: float
    identity: float
    adversarial: float
    pool: int

    def begin(self, trainer: Trainer) -> None:
        """Take the four networks, with a pool for each discriminator."""
        self._pools = {name: ImagePool(self.pool, trainer.generator.input_shape) for name in _DISCRIMINATORS}
        super().begin(trainer)

    @property
    def carried(self) -> Mapping[str, Carried]:
        """The pools, where images are kept."""
        return {f"pool_{name}": pool for name, pool in self._pools.items()} if self.pool else {}

    @property
    def meters(self) -> tuple[str, ...]:
        """The losses of all four, the logits of the discriminator that judges targets, and what comes back."""
        losses = tuple(f"loss_{name}" for name in (*_GENERATORS, *_DISCRIMINATORS))
        return (*losses, "d_real", "d_fake", "cycle", *(("identity",) if self.identity else ()))

    def step(self, total: int, plans: Mapping[Name, Plan]) -> None:
        """Train both generators at one loss, then each discriminator at what was made."""
        trainer, meters = self.trainer, self.trainer.meters
        batch = self.start(total, plans)
        parts, made = self._of_generators(trainer.networks, batch)
        for name in self.meters:
            if name in parts:
                meters.add(name, parts[name])
        for name in _GENERATORS:
            self.take(name, plans)
        for name, real in zip(_DISCRIMINATORS, (batch.target, batch.source), strict=True):
            rng = seeded(self.seed, "pool", name, total, trainer.group.rank)
            terms = self.judge(trainer.network(name), real, self._pools[name].query(made[name], rng))
            terms.loss.backward()  # type: ignore[no-untyped-call]
            meters.add(f"loss_{name}", terms.loss.detach())
            if name == "discriminator":
                meters.add("d_real", terms.d_real)
                meters.add("d_fake", terms.d_fake)
            self.take(name, plans)

    def compute(self, networks: Mapping[Name, nn.Module], batch: DomainBatch) -> None:
        """Leave the gradients of all losses."""
        forget(networks.values())
        _, made = self._of_generators(networks, batch)
        for name, real in zip(_DISCRIMINATORS, (batch.target, batch.source), strict=True):
            self.judge(networks[name], real, made[name]).loss.backward()  # type: ignore[no-untyped-call]

    def _of_generators(
        self, networks: Mapping[Name, nn.Module], batch: DomainBatch
    ) -> tuple[dict[str, Tensor], dict[Name, Tensor]]:
        """Leave the gradients of both generators.

        Returns:
            The parts of their loss, and what was made, by the discriminator that judges it; both without graph.
        """
        there, back = networks["generator"], networks["generator_back"]
        with contextlib.ExitStack() as stack:
            for name in _DISCRIMINATORS:
                stack.enter_context(frozen(networks[name]))
            target, source = self.apply(there, batch.source), self.apply(back, batch.target)
            returned = F.l1_loss(self.apply(back, target), batch.source)
            parts = {"cycle": returned + F.l1_loss(self.apply(there, source), batch.target)}
            loss = self.cycle * parts["cycle"]
            for name, judge, made in zip(_GENERATORS, _DISCRIMINATORS, (target, source), strict=True):
                parts[f"loss_{name}"] = self.loss.generator(self.apply(networks[judge], made))
                loss = loss + self.adversarial * parts[f"loss_{name}"]
            if self.identity:
                stays = F.l1_loss(self.apply(there, batch.target), batch.target)
                parts["identity"] = stays + F.l1_loss(self.apply(back, batch.source), batch.source)
                loss = loss + self.cycle * self.identity * parts["identity"]
            loss.backward()  # type: ignore[no-untyped-call]
        made_of = dict(zip(_DISCRIMINATORS, (target.detach(), source.detach()), strict=True))
        return {name: part.detach() for name, part in parts.items()}, made_of
