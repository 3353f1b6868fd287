"""One network held to its masks: what the engine does in place to weights, gradients, moments and their average."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from gancompress.errors import InvariantError, UnsupportedOptimizerError
from gancompress.sparsity.state import Role, role_of
from gancompress.training.compact import CompactMoments
from gancompress.training.moments import first_moment, is_elementwise, moments_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from gancompress.backbones.base import PrunableWeight
    from gancompress.channels.groups import ChannelGroup
    from gancompress.sparsity.state import Budget, Memory, Name, SparseState
    from gancompress.training.ema import SparseEMA
    from gancompress.training.execution import Execution

__all__ = ["Change", "MaskedNetwork", "Moments", "RoleParts"]

#: ``masked``: moments are exactly 0 off the mask; ``compact``: the same, stored at kept weights only; ``dense``: they
#: integrate dense gradients, as published codes do
Moments = Literal["masked", "compact", "dense"]


#: integers of a float's size: a float's bits times 1 are the float, times 0 they are +0.0, NaN and infinity too. So
#: one operation masks all tensors, where 0.0 * NaN would stay NaN and filling takes an operation (and 5x the time) each
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(_BITS[tensor.element_size()])


@dataclasses.dataclass(frozen=True)
class RoleParts:
    """What the engine is given of one network.

    Attributes:
        network: the live network, on its device.
        optimizer: of all its parameters.
        budget: kept weights per tensor that the recipe asks for.
        weights: the weights that the recipe's convention masks, by name.
        channels: groups of channels, for a method that sees them.
        role: the side that it plays on; None: its name says it.
    """

    network: nn.Module
    optimizer: Optimizer
    budget: Budget
    weights: Mapping[str, PrunableWeight]
    channels: tuple[ChannelGroup, ...] = ()
    role: Role | None = None


@dataclasses.dataclass(frozen=True)
class Change:
    """What one change of masks did, in weights.

    Attributes:
        grown: kept now, masked before.
        dropped: masked now, kept before.
        ever: kept now or at any time before.
    """

    grown: int
    dropped: int
    ever: int


class MaskedNetwork:
    """One network, its optimizer, its sparse state, and the in-place operations that keep them together.

    Args:
        name: what the network is called.
        parts: network, optimizer, budget and weights.
        moments: what happens to optimizer moments off the mask.
        ema: the average that follows the masks of this network, if any.
        execution: computes masked layers on the sparse kernels, if any.
    """

    def __init__(
        self,
        name: Name,
        parts: RoleParts,
        moments: Moments,
        ema: SparseEMA | None = None,
        execution: Execution | None = None,
    ) -> None:
        if parts.budget.counts.keys() != parts.weights.keys():
            odd = sorted(set(parts.budget.counts) ^ set(parts.weights))
            raise InvariantError(f"budget and weights of the {name} name different tensors: {', '.join(odd)}")
        self.name = name
        self.role = parts.role or role_of(name)
        self.parts = parts
        self.moments = moments
        self.ema = ema
        self.layers = None if execution is None else execution.layers(parts.network, parts.weights)
        self.parameters = {name: weight.parameter for name, weight in parts.weights.items()}
        self.keys = {name: weight.key for name, weight in parts.weights.items()}
        self._elementwise = is_elementwise(parts.optimizer)
        self.compact = CompactMoments(parts.optimizer, self.parameters) if moments == "compact" else None
        self.ever: dict[str, Tensor] = {}
        self.ever_count = 0
        #: optimizer steps of this network, and those since its moments were last cleared
        self.steps = 0
        self.age = 0
        #: dense gradients of the step just taken, when they were asked for
        self.gradients: dict[str, Tensor] | None = None
        #: values of the weights that are trained but masked (``SparseState.backward``), 0 elsewhere; between two
        #: optimizer steps the network itself holds 0 there
        self.held: dict[str, Tensor] = {}
        self._state: SparseState | None = None

    # ------------------------------------------------------------------ masks

    @property
    def state(self) -> SparseState:
        """The sparse state; exists once the engine is initialised."""
        if self._state is None:
            raise InvariantError(f"the {self.name} has no masks yet: call Engine.init or load_state_dict first")
        return self._state

    @property
    def has_state(self) -> bool:
        """Whether the engine is initialised."""
        return self._state is not None

    def remember(self, memory: Memory) -> None:
        """Put what the method remembers in place of what it did."""
        device = next(iter(self.parameters.values())).device
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in memory.items()}
        self._state = self.state.replace(memory=moved)

    def load(self, state: SparseState) -> None:
        """Take ``state`` as it is and rebuild what is derived from its masks; weights are not touched."""
        masks = {name: state.masks[name].to(p.device) for name, p in self.parameters.items()}
        budgets = {name: int(state.budgets[name]) for name in self.parameters}
        backward = {name: mask.to(self.parameters[name].device) for name, mask in state.backward.items()}
        self._state = state.replace(masks=masks, budgets=budgets, backward=backward, start={})
        self.remember(state.memory)
        # dense tensors need nothing; the others get their masks in the weight's own memory layout, for one fused pass
        self._sparse = {name: p for name, p in self.parameters.items() if budgets[name] < p.numel()}
        trained = self.state.trained
        self._off = {n: torch.empty_like(p, dtype=torch.bool).copy_(~masks[n]) for n, p in self._sparse.items()}
        self._untrained = {n: off & ~trained[n] if n in backward else off for n, off in self._off.items()}
        self._apart = {n: off & trained[n] for n, off in self._off.items() if n in backward}
        if self.compact is not None:
            self.compact.follow({name: trained[name] for name in self._sparse})
        else:
            self._weights = [_bits(p.detach()) for p in self._sparse.values()]
            keep, learn = (
                [torch.empty_like(p, dtype=_BITS[p.element_size()]).copy_(kept[n]) for n, p in self._sparse.items()]
                for kept in ((masks, trained) if backward else (masks, masks))
            )
            self._keep, self._learn = keep, learn if backward else keep
        if self.layers is not None:
            self.layers.follow(masks)

    @torch.no_grad()
    def change(self, new: SparseState) -> Change:
        """Move to the masks of ``new``: zero what they mask in weights, moments and average; waits for the device.

        A weight that is dropped and grown again in one change is in neither set and keeps its value, moments and
        average. A grown weight starts at 0, or at its start value, with moments 0 (with dense moments: with the ones it
        has). One that was trained while it was masked keeps value and moments.
        """
        old = self._state
        self._give_back()
        self.load(new)
        masks = self.state.masks
        before = old.masks if old is not None else masks
        grown = {name: masks[name] & ~before[name] for name in masks}
        dropped = {name: before[name] & ~masks[name] for name in masks}
        self.ever = {name: self.ever[name] | mask if name in self.ever else mask for name, mask in masks.items()}
        groups = (grown, dropped, self.ever)
        counts = torch.stack([mask.sum() for group in groups for mask in group.values()]).tolist()
        split = len(masks)
        n_grown, n_dropped, n_ever = (sum(counts[i * split : (i + 1) * split]) for i in range(3))
        self.ever_count = n_ever
        trained, trained_before = self.state.trained, (old or self.state).trained
        for name, values in new.start.items():
            parameter = self.parameters[name]
            started = trained[name] & ~trained_before[name]
            parameter.copy_(torch.where(started, values.to(parameter), parameter))
        self.zero_off_mask()
        self._hold()
        if self.ema is not None:
            fresh = {self.keys[n]: g for (n, g), count in zip(grown.items(), counts, strict=False) if count}
            self.ema.retarget({self.keys[name]: off for name, off in self._off.items()}, fresh)
        return Change(n_grown, n_dropped, n_ever)

    @torch.no_grad()
    def zero_off_mask(self) -> None:
        """Zero the weights and, unless they are kept dense, the moments of weights that are not trained."""
        for name, parameter in self._sparse.items():
            parameter.masked_fill_(self._untrained[name], 0)
        if self.moments == "masked":
            for name, _, moment in moments_of(self.parts.optimizer, self._sparse):
                moment.masked_fill_(self._untrained[name], 0)

    @torch.no_grad()
    def _hold(self) -> None:
        """Put trained but masked weights aside, leaving 0 in the network."""
        self.held = {}
        for name, apart in self._apart.items():
            parameter = self._sparse[name].detach()
            self.held[name] = torch.where(apart, parameter, 0)
            parameter.masked_fill_(apart, 0)

    @torch.no_grad()
    def _give_back(self) -> None:
        """Undo :meth:`_hold`."""
        for name, held in self.held.items():
            parameter = self.parameters[name]
            parameter.copy_(torch.where(self._apart[name], held, parameter))

    def weights(self) -> dict[str, Tensor]:
        """Return the weights, those that are trained but masked included."""
        return {
            name: torch.where(self._apart[name], self.held[name], p.detach()) if name in self.held else p.detach()
            for name, p in self.parameters.items()
        }

    # ------------------------------------------------------------------ around one optimizer step

    @torch.no_grad()
    def before_step(self, dense_gradient: bool) -> None:
        """Keep the dense gradients if asked for, then zero those of untrained weights (NaN and infinity included)."""
        self.gradients = None
        if dense_gradient:
            self.gradients = {
                name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
                for name, p in self.parameters.items()
            }
        self._give_back()
        if self.compact is not None:
            self.compact.load()
        elif self.moments == "masked":
            pairs = zip(self._sparse.values(), self._learn, strict=True)
            found = [(_bits(p.grad), keep) for p, keep in pairs if p.grad is not None]
            if found:
                gradients, keeps = zip(*found, strict=True)
                torch._foreach_mul_(gradients, keeps)

    @torch.no_grad()
    def after_step(self, taken: bool = True) -> None:
        """Zero the weights off the mask again where need be, or store the kept ones; count the step if it was taken."""
        self.steps += taken
        if self.compact is not None and taken:
            self.compact.store()
        self._hold()
        if self.compact is not None or not taken:
            return
        if not self._sparse:
            return
        # with gradient and moments 0, an optimizer that treats every weight alone has left masked weights at 0
        if self.moments == "dense" or self.age < 2 or not self._elementwise:
            torch._foreach_mul_(self._weights, self._keep)
        if self.moments == "masked" and self.age < 2:
            self._inspect_moments()

    def _inspect_moments(self) -> None:
        """Meet the optimizer's state: after its first step mask it (it may start at 1), after the second trust it."""
        self.age += 1
        if self.age == 1:
            self.zero_off_mask()
            return
        leaks = self.leaks(weights=False, average=False)
        if leaks:
            raise UnsupportedOptimizerError(
                f"optimizer {type(self.parts.optimizer).__name__} does not keep the moments of masked weights at 0 "
                f"({leaks[0]}); choose another (adam, adamw, sgd, rmsprop, lion) or set sparsity.moments: dense"
            )

    def reset_moments(self) -> None:
        """Forget the optimizer's state, as a new optimizer would (step counters too)."""
        self.parts.optimizer.state.clear()
        for group in self.parts.optimizer.param_groups:
            group.pop("step", None)  # the LAMB and Adan families count here
        self.age = 0

    # ------------------------------------------------------------------ what others ask

    def momentum(self) -> dict[str, Tensor]:
        """Return the first moments by weight; empty when the optimizer keeps none."""
        optimizer, compact = self.parts.optimizer, self.compact
        if compact is None:
            found = {name: first_moment(optimizer, p) for name, p in self.parameters.items()}
            return {name: moment.detach() for name, moment in found.items() if moment is not None}
        short = {name: first_moment(optimizer, compact.holder(name)) for name in self.parameters}
        with torch.no_grad():
            return {name: compact.dense(name, moment) for name, moment in short.items() if moment is not None}

    @torch.no_grad()
    def leaks(self, *, weights: bool = True, moments: bool = True, average: bool = True) -> list[str]:
        """Name every tensor that is not exactly 0 off the mask; waits for the device once."""
        suspects: list[tuple[str, Tensor, Tensor]] = []
        for name, parameter in self._sparse.items():
            if weights:
                suspects.append((f"weight {name}", parameter, self._off[name]))
            if average and self.ema is not None:
                suspects.append((f"average of {name}", self.ema.parameter(self.keys[name]), self._off[name]))
        if moments and self.moments == "masked" and self.age:
            for name, key, moment in moments_of(self.parts.optimizer, self._sparse):
                suspects.append((f"moment {key} of {name}", moment, self._untrained[name]))
        if not suspects:
            return []
        counts = torch.stack([((tensor != 0) & off).sum() for _, tensor, off in suspects]).tolist()
        return [
            f"{what} is not 0 at {count} masked positions"
            for (what, _, _), count in zip(suspects, counts, strict=True)
            if count
        ]
