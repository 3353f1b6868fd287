"""The method contract: all that the author of a sparsity method reads and writes.

A method decides *which* weights are kept. It never sees an optimizer, a checkpoint, a process group or a file: the
engine masks weights, gradients, moments and EMA, counts, checks, broadcasts and saves. A static method writes only
:meth:`Method.init`; a dynamic one adds :meth:`Method.plan` and :meth:`Method.update`; one that trains several times
(magnitude pruning, lottery tickets) adds :meth:`Method.rounds` and :meth:`Method.next_round`.

Time is counted in *training steps*: one generator step with its ``n_d`` discriminator steps. ``step`` is 1 for the
first step of a round, so an update planned at step 500 follows the 500th optimizer step of the generator, whatever
``n_d`` is.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from gancompress.sparsity import select

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import torch
    from torch import Tensor

    from gancompress.channels.groups import ChannelGroup
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.state import Budget, Memory, Role, SparseState

__all__ = ["Measure", "Method", "MethodConfig", "NetView", "Plan", "Round", "Size", "Start"]

#: What the weights of a network do when a round starts: ``keep`` goes on with them, ``rewind`` restores the values
#: they had at ``Round.rewind_step`` of the first round (0 = initialisation), ``reinitialise`` draws new ones.
Start: TypeAlias = Literal["keep", "rewind", "reinitialise"]


class MethodConfig(BaseModel):
    """Base of every method's ``Config``: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def shortened(self, steps: int) -> Mapping[str, int]:
        """Return the settings to change for a run of only ``steps`` training steps, as ``--smoke`` makes them.

        Integers called ``every``, ``every_*`` or ``*_every`` leave time for four updates. Override it where other
        settings count steps too.
        """
        intervals = {name: getattr(self, name) for name in type(self).model_fields if "every" in name.split("_")}
        return {name: min(value, max(1, steps // 4)) for name, value in intervals.items() if type(value) is int}


class Plan(enum.Flag):
    """What a method needs at one step of one network."""

    NOTHING = 0
    #: keep the gradient at masked positions too, for :attr:`NetView.gradients`; with ``UPDATE`` or ``OBSERVE``
    DENSE_GRADIENT = enum.auto()
    #: call :meth:`Method.update` after the optimizer step
    UPDATE = enum.auto()
    #: leave the optimizer step out (RigL updates *instead of* stepping); only together with ``UPDATE``
    SKIP_STEP = enum.auto()
    #: call :meth:`Method.observe` after the optimizer step, unless ``UPDATE`` is planned too
    OBSERVE = enum.auto()


class Measure(NamedTuple):
    """Scalar signals that a method wants measured while training.

    Every ``every`` steps the loop runs the generator on the *same latents* before and after its step and records the
    means ``d_real`` (D on the last real batch), ``d_fake`` (D on the images from before the step) and
    ``d_fake_after`` (from after it). The last ``window`` records reach :attr:`NetView.signals`.
    """

    every: int
    window: int


class Size(NamedTuple):
    """What one network holds and computes: all its parameters, and the MACs of its weights for one sample."""

    parameters: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Round:
    """One training pass. Dynamic training has one, magnitude pruning two, a lottery ticket N + 1.

    Attributes:
        name: shown in logs and reports (``train``, ``prune 3/10``, ``finetune``).
        steps: training steps of this round, all charged to the method.
        generator: what the generator's weights do at the start of this round (ignored in the first).
        discriminator: the same for the discriminator.
        rewind_step: step of the *first* round whose weights ``rewind`` restores; 0 is initialisation.
        distillation: weight of the loss that pulls the discriminator towards the one that ended the first round
            (0 = none).
    """

    name: str
    steps: int
    generator: Start = "keep"
    discriminator: Start = "keep"
    rewind_step: int = 0
    distillation: float = 0.0


@dataclasses.dataclass(frozen=True)
class NetView:
    """A read-only view of one network, as a method sees it.

    Attributes:
        role: ``generator`` or ``discriminator``.
        weights: prunable weights by name, exactly 0 where masked (with :attr:`SparseState.backward`: outside of that);
            ``layers`` says which axis is which. For a spectrally normalised layer this is the raw parameter, before the
            division by sigma.
        gradients: gradients of the step just taken, at masked positions too; ``None`` unless the plan (or
            ``Method.init_needs_gradient``) asked for them. Averaged over ranks.
        momentum: first moments of the optimizer, exactly 0 where masked unless the recipe sets
            ``sparsity.moments: dense``; empty when it keeps none.
        budget: what the recipe asks of this network.
        protected: names of the tensors that a global rule must not touch below their share (the output layer).
        signals: the last measurements asked for by :attr:`Method.measure`, oldest first, float64 on the CPU.
        step: training steps of this round so far.
        total_steps: training steps of this round.
        round: index of the round.
        layers: what the layer of each weight is, by the same names: kind, axes, kernel, groups, neighbours.
        masks: the masks in force; empty before :meth:`Method.init`.
        channels: groups of channels that masks can free, if :attr:`Method.sees_channels`: once all that makes or reads
            a channel is masked, the network computes as it would without it.
        other: the other network without gradients, if :attr:`Method.sees_both`. Of two networks that are updated at the
            same step the generator comes first, so the discriminator's update sees its new masks.
    """

    role: Role
    weights: Mapping[str, Tensor]
    budget: Budget
    gradients: Mapping[str, Tensor] | None = None
    momentum: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    protected: frozenset[str] = frozenset()
    signals: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    step: int = 0
    total_steps: int = 0
    round: int = 0
    layers: Mapping[str, Layer] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    channels: tuple[ChannelGroup, ...] = ()
    other: NetView | None = None

    def top(
        self, scores: Mapping[str, Tensor], counts: Mapping[str, int], *, candidates: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return masks of the best ``counts[name]`` weights of every tensor, in units of the recipe's pattern.

        See :func:`~gancompress.sparsity.select.best`.
        """
        return select.best(self.budget.units, scores, counts, candidates=candidates)

    def top_overall(
        self,
        scores: Mapping[str, Tensor],
        total: int,
        *,
        floors: Mapping[str, int] | None = None,
        candidates: Mapping[str, Tensor] | None = None,
        beside: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return masks of the best ``total`` weights of all tensors together, in units of the recipe's pattern.

        See :func:`~gancompress.sparsity.select.best_overall`.
        """
        return select.best_overall(
            self.budget.units, scores, total, floors=floors, candidates=candidates, beside=beside
        )

    def exchangeable(self, state: SparseState, apart: Collection[str] = ()) -> list[list[str]]:
        """Return the masked tensors in groups within which an update may drop in one and grow in another.

        Units of a group have one size, so that any can take another's place. A tensor that the recipe keeps whole, or
        that is whole in spite of an N:M limit, is in no group: it stays as it is.

        Args:
            state: the masks so far.
            apart: tensors to be updated by themselves, each in a group of its own.
        """
        limited = {name for name, own in self.budget.units.items() if own.group}
        whole = {n for n in {*limited, *self.budget.dense} if state.budgets[n] == self.budget.sizes[n]}
        groups: dict[object, list[str]] = {}
        for name in (name for name in state.masks if name not in whole):
            groups.setdefault(name if name in apart else self.budget.step(name), []).append(name)
        return list(groups.values())

    def random(self, counts: Mapping[str, int], rng: torch.Generator) -> dict[str, Tensor]:
        """Return masks of ``counts[name]`` weights of every tensor, drawn in units of the recipe's pattern.

        See :func:`~gancompress.sparsity.select.at_random`.
        """
        shapes = {name: tuple(weight.shape) for name, weight in self.weights.items()}
        device = next(iter(self.weights.values())).device
        return select.at_random(self.budget.units, shapes, counts, rng, device=device)


C = TypeVar("C", bound=MethodConfig)


class Method(abc.ABC, Generic[C]):
    """A sparsity method. Subclass it in one file, give it a ``Config``, register it under a name.

    The object holds nothing but its config: everything that changes lives in :class:`SparseState`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig

    #: one gradient of both losses on one batch is computed before :meth:`init` (SNIP and its kin)
    init_needs_gradient: ClassVar[bool] = False

    #: whether :attr:`NetView.other` is wanted
    sees_both: ClassVar[bool] = False

    #: whether :attr:`NetView.channels` is wanted
    sees_channels: ClassVar[bool] = False

    #: whether it empties whole channels, which an export leaves out then
    frees_channels: ClassVar[bool] = False

    #: what other methods are measured against: comparisons draw it in grey and never call it the best
    baseline: ClassVar[bool] = False

    #: whether it masks weights at all; one that does not cannot compress a trained generator
    sparsifies: ClassVar[bool] = True

    #: whether its first masks are chosen by what the weights are worth. One that draws them at random throws most of a
    #: trained network away, of which a run that starts from trained weights warns
    suits_trained: ClassVar[bool] = False

    #: settings of its config for weights that are trained already, so that no steps go into training them dense
    for_trained: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    def measure(self) -> Measure | None:
        """Signals wanted while training; none by default."""
        return None

    @property
    def needs_dense_moments(self) -> bool:
        """Whether updates read :attr:`NetView.momentum` at masked positions; the recipe must then keep it there."""
        return False

    def meets_density(self, role: Role) -> bool:
        """Whether ``role`` is to end at the density that the recipe asks for; not where the method chooses its own."""
        return self.sparsifies

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Return numbers worth logging beside an update, from the view it is decided on; none by default."""
        return {}

    def width(self, full: int, multiple: int, target: Size, size: Callable[[int], Size]) -> int:
        """Choose the width of one network: ``full``, or fewer multiples of ``multiple`` (``experiment/widths.py``)."""
        return full

    def rounds(self, total_steps: int, density: Mapping[Role, float]) -> Sequence[Round]:
        """Declare every round before the first step, so that cost and remaining time are known.

        Args:
            total_steps: training steps that the recipe allows.
            density: density asked for each role.

        Returns:
            At least one round.
        """
        return (Round("train", total_steps),)

    @abc.abstractmethod
    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Choose the first masks of one network.

        The state's own ``budgets`` say how many weights its masks keep, exactly. They need not be those of ``budget``:
        a method that prunes later keeps everything at first.

        Args:
            net: the network at initialisation.
            budget: kept weights per tensor as the recipe's allocation counts them.
            rng: CPU generator, a pure function of the seed and the role.
        """

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Say what step ``step`` of a round needs. Cheap and pure; called for every step of both roles."""
        return Plan.NOTHING

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Return the state after one topology update. Called only after a step whose plan says ``UPDATE``.

        Grown weights start from 0 unless ``start`` of the returned state gives them values.

        Args:
            state: the state so far; ``updates`` is advanced by the engine.
            net: the network right after the optimizer step.
            rng: CPU generator, a pure function of seed, role, round and step.
        """
        return state

    def observe(self, state: SparseState, net: NetView, rng: torch.Generator) -> Memory:
        """Look at a step whose plan says ``OBSERVE``; return what :attr:`SparseState.memory` becomes.

        Args:
            state: the state so far.
            net: the network right after the optimizer step, with gradients if the plan asks for them.
            rng: CPU generator, a pure function of seed, role, round and step.
        """
        return state.memory

    def next_round(self, state: SparseState, net: NetView, upcoming: Round, rng: torch.Generator) -> SparseState:
        """Return the state that the next round starts from, given the weights that the last one ended with."""
        return state
