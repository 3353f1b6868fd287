"""What every sparsity pattern must do: on layers of every kind, and in short real runs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import torch

from gancompress.components.registry import METHODS, PATTERNS
from gancompress.experiment.budgets import ROLES
from gancompress.sparsity import select
from gancompress.sparsity.layers import Layer
from gancompress.sparsity.units import Units
from gancompress.testing.conformance import ConfiguredSuite, Once, promise, require, skip_check
from gancompress.testing.training_runs import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from gancompress.sparsity.state import Role
    from gancompress.testing.training_runs import KitRun

__all__ = ["PatternSuite"]

#: many channels that divide, and a few that do not; weights of transposed convolutions come input first
_LAYERS: Final[Mapping[str, Layer]] = {
    "a convolution": Layer("convolution", (32, 16, 3, 3), stride=(1, 1)),
    "a 1x1 convolution": Layer("convolution", (32, 16, 1, 1), stride=(1, 1)),
    "a convolution over time": Layer("convolution", (32, 16, 3), stride=(2,)),
    "a grouped convolution": Layer("convolution", (32, 16, 3, 3), groups=2, stride=(1, 1)),
    "a depthwise convolution": Layer("convolution", (32, 1, 3, 3), groups=32, stride=(1, 1)),
    "a transposed convolution": Layer("transposed convolution", (16, 32, 4, 4), stride=(2, 2)),
    "a grouped transposed convolution": Layer("transposed convolution", (32, 16, 4, 4), groups=2, stride=(2, 2)),
    "a linear layer": Layer("linear", (32, 16)),
    "a convolution of odd channels": Layer("convolution", (7, 5, 3, 3), stride=(1, 1)),
    "a transposed convolution of odd channels": Layer("transposed convolution", (5, 7, 4, 4), stride=(2, 2)),
    "a linear layer of odd channels": Layer("linear", (7, 5)),
    "the convolution that makes the image": Layer("convolution", (3, 16, 3, 3), stride=(1, 1), output=True),
    "the linear layer that makes the logit": Layer("linear", (1, 64), output=True),
}

#: a method that never changes its masks, and one that drops and grows
_TRAINED: Final[Mapping[str, Mapping[str, Any]]] = {"static": {}, "dst": {"every": 2, "explore": "both"}}

#: wide enough for large units, sparse enough for tight limits
_RECIPE: Final = ("model.channels=16", "model.latent_dim=32", *(f"sparsity.{role}.density=0.1" for role in ROLES))


class _Method(ConfiguredSuite):
    """A method to train with a pattern; the kit's bench asks no more of it."""

    registry = METHODS


class PatternSuite(ConfiguredSuite):
    """All checks of one pattern.

    Args:
        component: the class, or a registered name.
        settings: its settings.
        overrides: ``key.path=value``, laid over the recipe that the kit trains.
    """

    registry = PATTERNS

    def __init__(
        self, component: str | type, settings: Mapping[str, Any] | None = None, *, overrides: Sequence[str] = ()
    ) -> None:
        super().__init__(component, settings)
        self.overrides = tuple(overrides)
        self.fitting = Once(self._answers)

    def _answers(self) -> dict[str, Units]:
        """Return the units of every layer that the pattern fits."""
        pattern, other = (self.target(self.config()) for _ in range(2))
        found = {where: pattern.units(layer) for where, layer in _LAYERS.items()}
        for where in reversed(list(_LAYERS)):
            units = found[where]
            require(
                units is None or isinstance(units, Units),
                f"units() of {where} gives a {type(units).__name__}, expected Units or None",
            )
            shape = _LAYERS[where].shape
            require(
                units is None or units.shape == shape,
                f"units() of {where} are those of a weight {getattr(units, 'shape', ())}, the weight is {shape}",
            )
            again = other.units(_LAYERS[where])
            require(
                again == units,
                f"units() of {where} gives {units}, and {again} when asked again: it counts its calls, or draws at "
                "random",
            )
        return {where: units for where, units in found.items() if units is not None}

    def _units(self) -> dict[str, Units]:
        found = self.fitting.need("answers")
        if not found:
            skip_check("it leaves every layer of the kit in single weights")
        return found

    # ------------------------------------------------------------------ the units of single layers

    @promise
    def answers(self) -> None:
        """Of a layer of any kind it gives the units of its weight, or nothing, and the same when asked again."""
        self.fitting.get()

    @promise
    def partition(self) -> None:
        """Every weight is in exactly one unit, and all units of a weight are of one size."""
        for where, units in self._units().items():
            owner = _owner(where, units)
            sizes = torch.bincount(owner.flatten(), minlength=units.count)
            wrong = (sizes != units.size).nonzero().flatten().tolist()
            require(
                len(sizes) == units.count and not wrong,
                f"of {where}, unit {wrong[0] if wrong else 0} has {int(sizes[wrong[0]]) if wrong else 0} weights, a "
                f"unit has {units.size}",
            )
            require(units.count * units.size == owner.numel(), f"the units of {where} are not all of its weights")

    @promise
    def pooled(self) -> None:
        """Scores of a unit are the mean of its weights', and what is chosen of a mask is what made the mask."""
        rng = torch.Generator().manual_seed(0)
        for where, units in self._units().items():
            owner = _owner(where, units).flatten()
            scores = torch.rand(units.shape, generator=rng, dtype=torch.float64)
            sums = torch.zeros(units.count, dtype=torch.float64).index_add_(0, owner, scores.flatten())
            found = units.pool(scores)
            require(
                found.shape == units.grid and torch.allclose(found.flatten(), sums / units.size),
                f"pool() of {where} is not the mean score of the weights of a unit",
            )
            chosen = torch.rand(units.grid, generator=rng) < 0.5
            require(
                torch.equal(units.chosen(units.expand(chosen)), chosen),
                f"chosen() of {where} does not give back the units that expand() made a mask of",
            )

    @promise
    def exact_counts(self) -> None:
        """As many weights are kept as are asked for, up to the limit, by score and at random, in whole units."""
        for where, units in self._units().items():
            rng = torch.Generator().manual_seed(0)
            scores = {where: torch.rand(units.shape, generator=rng)}
            own, shapes = {where: units}, {where: units.shape}
            most = units.most // units.size
            for count in sorted({0, 1, most // 2, most, units.count}):
                asked = {where: count * units.size}
                for mask in (
                    select.best(own, scores, asked)[where],
                    select.at_random(own, shapes, asked, rng)[where],
                ):
                    kept = int(mask.sum())
                    require(kept == asked[where], f"{kept} weights of {where} are kept, {asked[where]} were asked for")
                    require(
                        not units.violated(mask) and not _split_units(_owner(where, units), mask),
                        f"{count} of {units.count} units of {where} are chosen, and the mask splits one or exceeds a "
                        "limit",
                    )

    @promise
    def capacity(self) -> None:
        """Beside as many weights as a limit allows there is no room for one more; without a limit all are kept."""
        for where, units in self._units().items():
            if not units.group:
                numel = math.prod(units.shape)
                require(units.most == numel, f"{where} may keep {units.most} of {numel} weights, and has no limit")
                continue
            groups = units.count // math.prod(units.group)
            most = groups * units.at_most * units.size
            require(
                units.most == most,
                f"{where} may keep {units.most} weights, {groups} groups of {units.at_most} units are {most}",
            )
            scores = torch.rand(units.grid, generator=torch.Generator().manual_seed(0))
            full = units.room(scores, None, None)
            require(
                full is not None and int(full.sum()) * units.size == most, f"{where} has room for other than {most}"
            )
            more = units.room(scores, ~full if full is not None else None, full)
            require(more is not None and not more.any(), f"beside a full mask {where} has room for more")

    # ------------------------------------------------------------------ axes

    @promise
    def axes(self) -> None:
        """A unit holds the same connections in a convolution and in its transposed kind, however weights are stored."""
        self._units()
        pattern = self.target(self.config())
        for outputs, inputs in ((32, 16), (16, 32), (7, 5)):
            first = pattern.units(Layer("convolution", (outputs, inputs, 4, 4), stride=(2, 2)))
            second = pattern.units(Layer("transposed convolution", (inputs, outputs, 4, 4), stride=(2, 2)))
            require(
                _connections(first) == _connections(second, transposed=True),
                f"of {outputs} outputs and {inputs} inputs a convolution has units of {getattr(first, 'box', None)}, "
                f"its transposed kind, whose weight comes input first, of {getattr(second, 'box', None)}",
            )

    @promise
    def groups(self) -> None:
        """No unit and no limit reaches over two groups of a grouped convolution."""
        for where, units in self._units().items():
            layer = _LAYERS[where]
            extents = units.box
            if units.group:
                extents = tuple(box * group for box, group in zip(units.box, units.group, strict=True))
            for axis, channels in ((layer.output_axis, layer.outputs), (layer.input_axis, layer.inputs)):
                require(
                    channels % extents[axis] == 0,
                    f"units of {where} reach over {extents[axis]} channels, a group has {channels}",
                )

    # ------------------------------------------------------------------ real runs

    @promise
    def trains(self) -> None:
        """Short runs of a static and of a dynamic method keep every mask whole, and come to their density."""
        for method, settings in _TRAINED.items():
            for role, said in self._trained(method, settings).items():
                require(not said, f"{method}: {role}: {said}")

    def _trained(self, method: str, settings: Mapping[str, Any]) -> dict[Role, str]:
        with self.registered() as name:
            chosen = json.dumps({**self.settings, "name": name})
            overrides = (*_RECIPE, f"sparsity.pattern={chosen}", *self.overrides)
            run = Bench(_Method(method, settings), overrides).run()
        return {role: _wrong(run, role) for role in ROLES}


def _owner(where: str, units: Units) -> Tensor:
    """Return the number of the unit that every weight belongs to, as :meth:`Units.expand` says it."""
    owner = units.expand(torch.arange(units.count).reshape(units.grid))
    require(owner.shape == units.shape, f"expand() of {where} gives {tuple(owner.shape)}, its weight is {units.shape}")
    return owner


def _split_units(owner: Tensor, mask: Tensor) -> bool:
    kept = torch.bincount(owner.flatten(), weights=mask.flatten().double())
    return bool(((kept != 0) & (kept != torch.bincount(owner.flatten()))).any())


def _connections(units: Units | None, *, transposed: bool = False) -> object:
    """Return box and limit by output and input channel, whichever comes first in the weight."""
    if units is None:
        return None

    def by_output(extents: tuple[int, ...]) -> tuple[int, ...]:
        return (extents[1], extents[0], *extents[2:]) if transposed and extents else extents

    return by_output(units.box), by_output(units.group), units.at_most


def _wrong(run: KitRun, role: Role) -> str:
    """Return what is wrong with the masks of one network of a run; nothing if all is well."""
    budget, state = run.budgets[role], run.states[role]
    seen = run.watcher.counts + run.watcher.leaks
    if seen:
        return seen[0]
    unit = max(map(budget.step, budget.sizes), default=1)
    if abs(state.nonzeros - budget.total) >= unit:
        return f"{state.nonzeros} weights are kept at the end, its budget is {budget.total}"
    for name, units in budget.units.items():
        if _split_units(_owner(name, units), state.masks[name]):
            return f"the last mask of {name} splits a unit"
    return ""
