"""What a training run did, counted in exact integers: the one input of its training FLOPs.

The training loop keeps a :class:`TrainingCounter` beside its state and saves it with every checkpoint, so that a
resumed run counts the same as one that was never stopped. Nothing here knows about layers or FLOPs: those are in
:mod:`gancompress.cost.training`.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from gancompress.errors import CheckpointError
from gancompress.sparsity.state import PAIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gancompress.cost.profile import Counting
    from gancompress.sparsity.state import Name

__all__ = ["NonzeroCount", "TrainingCounter", "Work"]


@dataclasses.dataclass
class NonzeroCount:
    """A sum over time of non-zeros, for tensors that may be masked at some times and dense at others.

    Attributes:
        amount: how much was counted in all (steps, or samples).
        weights: per tensor, the sum of non-zeros times amount, over the times when it had a budget.
        masked: per tensor, the amount during which it had a budget; for the rest it was dense.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    amount: NonNegativeInt = 0
    weights: dict[str, NonNegativeInt] = dataclasses.field(default_factory=dict)
    masked: dict[str, NonNegativeInt] = dataclasses.field(default_factory=dict)

    def add(self, budgets: Mapping[str, int], amount: int = 1) -> None:
        """Count ``amount`` with ``budgets`` non-zeros per tensor; tensors that are not named were dense."""
        if amount < 0:
            raise ValueError(f"cannot count a negative amount: {amount}")
        self.amount += amount
        for name, nonzeros in budgets.items():
            self.weights[name] = self.weights.get(name, 0) + nonzeros * amount
            self.masked[name] = self.masked.get(name, 0) + amount

    def total(self, name: str, size: int) -> int:
        """Return the sum of non-zeros times amount of tensor ``name``, which has ``size`` elements."""
        return self.weights.get(name, 0) + (self.amount - self.masked.get(name, 0)) * size


@dataclasses.dataclass(frozen=True)
class Work:
    """What one network computes in a training step, in samples of the whole run.

    Attributes:
        step: forward-equivalents of a training step (forward 1, backward to the input 1, to the weights 1).
        gradient: samples whose gradient to the weights one optimizer step takes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    step: NonNegativeInt
    gradient: NonNegativeInt


_Counts: TypeAlias = Annotated[dict[str, NonzeroCount], Field(min_length=2)]


def _no_counts(names: Iterable[Name] = PAIR) -> dict[Name, NonzeroCount]:
    return {name: NonzeroCount() for name in names}


@dataclasses.dataclass
class TrainingCounter:
    """Exact counts of one training run; all methods but the conversions change it in place.

    A *training step* is one generator step with its ``discriminator_steps`` discriminator steps. Batches are those
    of the whole run, summed over ranks and over micro-batches.

    Attributes:
        batch_size: real images per discriminator step (b); the discriminator also sees b generated ones.
        generator_batch_size: images per generator step (g).
        discriminator_steps: discriminator steps per training step (n_d).
        steps: per network, training steps and their non-zeros.
        dense_gradients: per network, optimizer steps whose gradient was wanted at masked positions too.
        extra: per reason and network, forward-equivalents (samples) beyond the training steps; see :meth:`count_extra`.
        beside: per reason and way of counting, multiply-adds outside both networks.
        work: by name, of a task with steps of its own, each with one optimizer step per network; empty for images of
            latents, whose pair computes what the sizes above say.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    batch_size: NonNegativeInt
    generator_batch_size: NonNegativeInt
    discriminator_steps: NonNegativeInt = 1
    steps: _Counts = dataclasses.field(default_factory=_no_counts)
    dense_gradients: _Counts = dataclasses.field(default_factory=_no_counts)
    extra: dict[str, _Counts] = dataclasses.field(default_factory=dict)
    beside: dict[str, dict[Literal["published", "executed"], NonNegativeInt]] = dataclasses.field(default_factory=dict)
    work: dict[str, Work] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not {*self.names} <= {*self.steps}:
            self.steps, self.dense_gradients = _no_counts(self.names), _no_counts(self.names)

    @property
    def names(self) -> tuple[Name, ...]:
        """What the networks are called."""
        return tuple(self.work) or PAIR

    def forward_equivalents(self, name: Name) -> int:
        """Return the forward-equivalents (samples) of one training step of a network."""
        if self.work:
            return self.work[name].step
        b, g, n_d = self.batch_size, self.generator_batch_size, self.discriminator_steps
        return b * n_d + 3 * g if name == "generator" else 6 * b * n_d + 2 * g

    def gradient_samples(self, name: Name) -> int:
        """Return how many samples one optimizer step of a network takes the gradient to its weights of."""
        if self.work:
            return self.work[name].gradient
        return self.generator_batch_size if name == "generator" else 2 * self.batch_size

    def optimizer_steps(self, name: Name) -> int:
        """Return how many optimizer steps of a network are a training step."""
        return self.discriminator_steps if name == "discriminator" and not self.work else 1

    def advance(self, role: Name, budgets: Mapping[str, int], steps: int = 1) -> None:
        """Count ``steps`` training steps that ``role`` took with ``budgets`` non-zeros per tensor.

        Call it for every network. Tensors that ``budgets`` does not name count as dense, so a dense network passes an
        empty mapping. It may be called once per step or once per stretch between two topology updates.
        """
        self.steps[role].add(budgets, steps)

    def dense_gradient(self, role: Name, budgets: Mapping[str, int], times: int = 1) -> None:
        """Count ``times`` optimizer steps of ``role`` whose gradient was also wanted at masked positions.

        When all ``n_d`` discriminator steps of a training step made a dense gradient, ``times`` is ``n_d``.
        """
        self.dense_gradients[role].add(budgets, times)

    def count_extra(self, reason: str, role: Name, budgets: Mapping[str, int], samples: int) -> None:
        """Count forward-equivalents beyond the training steps.

        Args:
            reason: why, as reports show it (``measurement``, ``probe``, ``penalty``, ``distillation``,
                ``real_logits``, ``teacher``, ``path_length``, ``consistency``).
            role: network that computed.
            budgets: its non-zeros per tensor at that time; tensors that are not named were dense.
            samples: samples times forward-equivalents each (forward 1, backward to the input 1, to the weights 1).
        """
        self.extra.setdefault(reason, _no_counts(self.names))[role].add(budgets, samples)

    def measure(self, budgets: Mapping[Name, Mapping[str, int]], times: int = 1) -> None:
        """Count ``times`` measurements of signals around a generator step (see ``methods.base.Measure``).

        Each is two more generator forwards on the same latents (g each), before and after the step, the discriminator
        on those images (g each) and on the last real batch (b).
        """
        self.count_extra("measurement", "generator", budgets["generator"], times * 2 * self.generator_batch_size)
        samples = 2 * self.generator_batch_size + self.batch_size
        self.count_extra("measurement", "discriminator", budgets["discriminator"], times * samples)

    def probe(self, role: Name, times: int = 1) -> None:
        """Count ``times`` probe batches: the dense gradient of one role's loss, before any mask exists.

        The discriminator's probe is a discriminator step (D: 6 b, G: b), the generator's a generator step
        (G: 3 g, D: 2 g), both without an optimizer step.
        """
        if self.work:
            self.count_extra("probe", role, {}, self.work[role].step * times)
        elif role == "discriminator":
            self.count_extra("probe", "discriminator", {}, 6 * self.batch_size * times)
            self.count_extra("probe", "generator", {}, self.batch_size * times)
        else:
            self.count_extra("probe", "generator", {}, 3 * self.generator_batch_size * times)
            self.count_extra("probe", "discriminator", {}, 2 * self.generator_batch_size * times)

    def penalty(self, budgets: Mapping[str, int], times: int = 1) -> None:
        """Count ``times`` gradient penalties (R1, WGAN-GP) on a batch of b through the discriminator.

        Forward, gradient to the input, and the two products of its double backward: 4 forward-equivalents, as a
        piecewise linear discriminator needs.
        """
        self.count_extra("penalty", "discriminator", budgets, 4 * self.batch_size * times)

    def consistency(self, budgets: Mapping[str, int], times: int = 1) -> None:
        """Count ``times`` further batches of b images that the discriminator takes and learns from: 3 each."""
        self.count_extra("consistency", "discriminator", budgets, 3 * self.batch_size * times)

    def follow_paths(self, budgets: Mapping[str, int], images: int) -> None:
        """Count path lengths of ``images`` images through the generator.

        Forward, gradient to the styles, and back through both, to inputs and to weights: 6 forward-equivalents.
        """
        self.count_extra("path_length", "generator", budgets, 6 * images)

    def compare(self, budgets: Mapping[str, int], times: int = 1) -> None:
        """Count ``times`` generator steps whose loss compares with g real images: one more forward pass of each."""
        self.count_extra("real_logits", "discriminator", budgets, self.generator_batch_size * times)

    def teach(self, macs: Mapping[Counting, int], budgets: Mapping[str, int] | None, times: int = 1) -> None:
        """Count ``times`` generator steps that learn from a teacher.

        Args:
            macs: per image (g a step), of its forward pass and of what is compared.
            budgets: of the discriminator, where it looks at the teacher's images too (g, forward); None where not.
            times: generator steps.
        """
        spent = self.beside.setdefault("teacher", {"published": 0, "executed": 0})
        for counting, each in macs.items():
            spent[counting] += each * self.generator_batch_size * times
        if budgets is not None:
            self.count_extra("teacher", "discriminator", budgets, self.generator_batch_size * times)

    def to_dict(self) -> dict[str, object]:
        """Return the counter as plain dictionaries and integers, ready for JSON."""
        found = dataclasses.asdict(self)
        if not self.beside:  # as it was before there were teachers
            del found["beside"]
        if not self.work:
            del found["work"]
        return found

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> TrainingCounter:
        """Rebuild a counter from :meth:`to_dict`.

        Raises:
            CheckpointError: a key is missing or unknown, or a count is not an integer.
        """
        try:
            read = _RECORD.validate_json(json.dumps(record), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its top"
            raise CheckpointError(f"the training counts are damaged at {where}: {first['msg']}") from error
        if read.to_dict() != record:
            raise CheckpointError("the training counts are damaged: not everything is in them")
        return read


_RECORD = TypeAdapter(TrainingCounter)
