"""Images of latents: a discriminator's steps and a generator's step, as GANs are trained since 2014."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.methods.base import Plan
from gancompress.training.batch_norm import global_statistics
from gancompress.training.batches import Latents, RealBatch
from gancompress.training.forward_backward import ForwardBackward
from gancompress.training.objective import Objective, frozen, unchanged
from gancompress.training.play import Play

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gancompress.sparsity.state import Name
    from gancompress.training.carried import Carried
    from gancompress.training.feed import Source
    from gancompress.training.loop import Trainer

__all__ = ["METERS", "LatentPlay"]

METERS = ("loss_generator", "loss_discriminator", "d_real", "d_fake")
#: before the name of a term that is learned from a teacher
_TAUGHT = "distillation_"


class LatentPlay(Play):
    """A generator makes images of latents, and a discriminator tells them from real ones.

    Args:
        objective: losses.
        source: batches.
    """

    teaches = True

    def __init__(self, objective: Objective, source: Source) -> None:
        self.objective, self.source = objective, source
        taught = objective.taught
        self._terms = tuple(f"{_TAUGHT}{term}" for term in (() if taught is None else taught.weights))
        self._teacher_macs = None if taught is None else taught.macs()

    def begin(self, trainer: Trainer) -> None:
        """Take the pair."""
        super().begin(trainer)
        self.passes = ForwardBackward(
            trainer.generator, trainer.discriminator, self.objective, trainer.config, trainer.record
        )

    @property
    def meters(self) -> tuple[str, ...]:
        """Losses and logits, and what is learned from a teacher."""
        followed = ("ada_probability",) if self.objective.adaptive is not None else ()
        return (*METERS, *self._terms, *followed)

    @property
    def carried(self) -> Mapping[str, Carried]:
        """What the objective carries."""
        return self.objective.carried

    @property
    def progress(self) -> float:
        """See :class:`~gancompress.training.play.Play`."""
        return self.objective.progress

    @progress.setter
    def progress(self, value: float) -> None:
        self.objective.progress = value
        if self.objective.adaptive is not None:
            self.objective.adaptive.follow(value)

    @property
    def held(self) -> Iterable[nn.Module]:
        """The generator that is learned from."""
        return () if self.objective.taught is None else (self.objective.taught.teacher,)

    def teach(self, teacher: nn.Module | None, weight: float) -> None:
        """Let the discriminator learn from another one."""
        self.objective.teacher, self.objective.distillation = teacher, weight

    def show(self) -> None:
        """Take two images through both networks as in training, and change nothing."""
        self.passes.show(self.trainer.device)

    def images(self, name: Name, world: int) -> int:
        """Return how many images one process takes through a network at once in that network's own step."""
        return self.passes.images(self.trainer.engine.role(name), world)

    def rehearse(self, networks: Mapping[Name, nn.Module]) -> None:
        """Compute the passes of one discriminator step and one generator step."""
        trainer, config = self.trainer, self.trainer.config.model_copy(update={"compile": False, "cuda_graphs": False})
        source, image, device = trainer.generator, trainer.generator.image, trainer.device
        generator: Any = networks["generator"]
        discriminator: Any = networks["discriminator"]
        passes = ForwardBackward(generator, discriminator, self.objective, config)

        def batch(kind: type[Any], size: int, *shape: int) -> Any:
            count = size // trainer.group.world
            labels = torch.zeros(count, dtype=torch.int64, device=device) if source.num_classes else None
            return kind(torch.empty(count, *shape, device=device), labels)

        pixels = (image.channels, image.resolution, image.resolution)
        size, of_generator = config.batch_size, self._generator_batch
        passes.discriminator(batch(RealBatch, size, *pixels), batch(Latents, size, source.latent_dim), 0)
        real = batch(RealBatch, of_generator, *pixels) if self.objective.loss.compares else None
        passes.generator(batch(Latents, of_generator, source.latent_dim), 0, real)

    def step(self, total: int, plans: Mapping[Name, Plan]) -> None:
        """Let the discriminator take its steps and the generator its one, and measure if that is due."""
        for k in range(self.trainer.config.discriminator_steps):
            last = k == self.trainer.config.discriminator_steps - 1
            real = self._discriminator_step(total, k, plans["discriminator"] if last else Plan.NOTHING)
        due = self.trainer.measure is not None and total % self.trainer.measure.every == 0
        latents = self.source.latents(self._generator_batch, "generator", total)
        d_fake = self._signal(latents) if due else None
        self._generator_step(latents, total, plans["generator"], real)
        if d_fake is not None:
            self._measure(real, latents, d_fake)

    def _discriminator_step(self, total: int, k: int, plan: Plan) -> RealBatch:
        trainer, config = self.trainer, self.trainer.config
        draw = (total - 1) * config.discriminator_steps + k
        real = self.source.real(config.batch_size, draw)
        latents = self.source.latents(config.batch_size, "discriminator", draw)
        trainer.engine.expect("discriminator", plan)
        for terms in self.passes.discriminator(real, latents, draw):
            trainer.meters.add("loss_discriminator", terms.loss)
            trainer.meters.add("d_real", terms.d_real)
            trainer.meters.add("d_fake", terms.d_fake)
        self._count_extras(draw)
        trainer.average_gradients(trainer.discriminator)
        trainer.engine.step("discriminator", plan)
        adaptive = self.objective.adaptive
        if adaptive is not None:
            adaptive.adjust(draw, config.batch_size, trainer.group)
            trainer.meters.add("ada_probability", adaptive.scalars["probability"])
        return real

    @property
    def _generator_batch(self) -> int:
        return self.trainer.config.generator_batch_size or self.trainer.config.batch_size

    def _generator_step(self, latents: Latents, total: int, plan: Plan, real: RealBatch) -> None:
        trainer = self.trainer
        trainer.engine.expect("generator", plan)
        for terms in self.passes.generator(latents, total, self._to_compare(real, total)):
            for name, term in zip(("loss_generator", *self._terms), terms, strict=True):
                trainer.meters.add(name, term)
        self._count_teacher(trainer.engine.state("discriminator").budgets)
        if self.objective.follows_paths(total):
            trainer.counter.follow_paths(trainer.engine.state("generator").budgets, self._images_of_paths)
        trainer.average_gradients(trainer.generator)
        trainer.engine.step("generator", plan)

    @property
    def _images_of_paths(self) -> int:
        paths, parts = self.objective.path_length, self.trainer.config.accumulate * self.trainer.group.world
        return 0 if paths is None else parts * paths.images(self._generator_batch // parts)

    def _to_compare(self, real: RealBatch, total: int) -> RealBatch | None:
        """Return real images for a generator step whose loss compares, and charge the look that D takes at them.

        Args:
            real: the last batch that the discriminator trained on, which does if as many are wanted.
            total: training step of the run.
        """
        if not self.objective.loss.compares:
            return None
        self.trainer.counter.compare(self.trainer.engine.state("discriminator").budgets)
        if self._generator_batch == self.trainer.config.batch_size:
            return real
        return self.source.real(self._generator_batch, total - 1)

    def probe(self) -> None:
        """Leave the gradient of both losses on one batch in ``.grad``, stepping neither network (SNIP and its kin)."""
        trainer, config = self.trainer, self.trainer.config
        real = self.source.real(config.batch_size, 0)
        latents = self.source.latents(config.batch_size, "probe")
        for network in trainer.networks.values():
            network.zero_grad(set_to_none=True)
        trainer.seed_noise("probe")
        carried = {value: value.clone() for one in self.objective.carried.values() for value in one.scalars.values()}
        with global_statistics(trainer.group):
            with torch.no_grad():
                fake = self.objective.generate(trainer.generator, latents)
            self.objective.discriminator(trainer.discriminator, real, fake, latents.labels, 0).loss.backward()  # type: ignore[no-untyped-call]
            with frozen(trainer.discriminator):
                loss = self.objective.generator(trainer.generator, trainer.discriminator, latents, 1, real=real)
                loss.backward()  # type: ignore[no-untyped-call]
        if self.objective.loss.compares:
            trainer.counter.compare({})
        if self.objective.follows_paths(1):
            trainer.counter.follow_paths({}, self._images_of_paths)
        self._count_teacher({})
        for value, before in carried.items():  # a look changes nothing
            value.copy_(before)
        for network in trainer.networks.values():
            trainer.average_gradients(network)

    def _signal(self, latents: Latents) -> Tensor:
        """Return the mean logit of the generator's images as they are, without augmentation."""
        with torch.no_grad(), self.objective.autocast(self.trainer.device):
            images = unchanged(self.trainer.generator, latents.z, latents.labels).float()
            return unchanged(self.trainer.discriminator, images, latents.labels).float().mean()

    def _measure(self, real: RealBatch, latents: Latents, d_fake: Tensor) -> None:
        """Record D on real images and on the same latents before and after the generator step (ADAPT, section 4.1).

        All three are computed alike: what a step happens to compute is augmented, and in micro-batches.
        """
        with torch.no_grad(), self.objective.autocast(self.trainer.device):
            d_real = unchanged(self.trainer.discriminator, real.images, real.labels).float().mean()
        values = self.trainer.group.mean(torch.stack((d_real, d_fake, self._signal(latents))))
        self.trainer.engine.record(d_real=values[0], d_fake=values[1], d_fake_after=values[2])

    def _count_extras(self, draw: int) -> None:
        """Charge what a discriminator step computes beyond its plain forward and backward pass."""
        budgets = self.trainer.engine.state("discriminator").budgets
        penalties = self.objective.penalties(draw)
        if penalties:
            self.trainer.counter.penalty(budgets, penalties)
        if self.objective.consistency.sides:
            self.trainer.counter.consistency(budgets, self.objective.consistency.sides)
        if self.objective.teacher is not None:
            self.trainer.counter.count_extra("distillation", "discriminator", {}, 2 * self.trainer.config.batch_size)

    def _count_teacher(self, budgets: Mapping[str, int]) -> None:
        """Charge what a generator step computes of a teacher; ``budgets`` are the discriminator's."""
        taught = self.objective.taught
        if taught is not None and self._teacher_macs is not None:
            self.trainer.counter.teach(self._teacher_macs, budgets if taught.judged else None)
