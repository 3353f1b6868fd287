"""What the networks of a task do in one training step: the one part of training that knows what it trains for."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from gancompress.methods.base import Plan
    from gancompress.sparsity.state import Name
    from gancompress.training.carried import Carried
    from gancompress.training.loop import Trainer

__all__ = ["Play"]


class Play(abc.ABC):
    """One step of training, played by the networks of a :class:`~gancompress.training.loop.Trainer`.

    Around it the trainer asks the method for plans, follows the schedules, seeds what networks draw, updates averages
    and masks. A play asks ``trainer.source`` for batches, leaves gradients in ``.grad``, has them averaged over ranks,
    and calls ``trainer.engine.expect`` before and ``trainer.engine.step`` after the passes of every network.
    """

    trainer: Trainer
    #: whether the discriminator may learn from another one, see :meth:`teach`
    teaches: ClassVar[bool] = False

    def begin(self, trainer: Trainer) -> None:
        """Take the networks that play; called once, when these are on their device."""
        self.trainer = trainer
        for one in self.carried.values():
            one.start(trainer.device)

    @property
    @abc.abstractmethod
    def meters(self) -> tuple[str, ...]:
        """Names of what :attr:`Trainer.meters` is given at every step, as the log calls it."""

    @property
    def carried(self) -> Mapping[str, Carried]:
        """What the next step depends on besides weights, by name; a checkpoint keeps it."""
        return {}

    @property
    def progress(self) -> float:
        """Of the schedules, 0 at the first step of a round and 1 where they end; the trainer sets it."""
        return self._progress

    @progress.setter
    def progress(self, value: float) -> None:
        self._progress = value

    _progress = 0.0

    @abc.abstractmethod
    def step(self, total: int, plans: Mapping[Name, Plan]) -> None:
        """Play one training step.

        Args:
            total: its number in the run, 1 for the first.
            plans: what the method wants of every network.
        """

    @abc.abstractmethod
    def probe(self) -> None:
        """Leave the gradient of every network's loss on one batch in ``.grad``, stepping none (SNIP and its kin)."""

    @abc.abstractmethod
    def rehearse(self, networks: Mapping[Name, nn.Module]) -> None:
        """Compute the passes of one step on ``networks``, which have shapes and no values: what memory do they take?"""

    @abc.abstractmethod
    def show(self) -> None:
        """Take inputs through every network as in training, and change nothing: layers see what they are given."""

    @abc.abstractmethod
    def images(self, name: Name, world: int) -> int:
        """Return how many images one process takes through a network at once in that network's own step."""

    @property
    def held(self) -> Iterable[nn.Module]:
        """What it holds besides the networks that train: memory that counts as theirs."""
        return ()

    def teach(self, teacher: nn.Module | None, weight: float) -> None:
        """Let the discriminator learn from another one with this weight; None: from none.

        Args:
            teacher: a discriminator, in eval mode.
            weight: of the distillation loss.
        """
        assert teacher is None, f"{type(self).__name__} teaches no discriminator"
