"""Which density or width gives a generator a cost: found by trying, before anything is trained.

Generators are tried as they are built, with random masks of the recipe's allocation and pattern: what a network costs
depends on how many weights it keeps and where, not on what they are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gancompress.comparison.grid import about
from gancompress.comparison.plan import FARTHEST, PlannedRow, amount_text
from gancompress.components.registry import METHODS
from gancompress.errors import RecipeError
from gancompress.methods.base import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gancompress.comparison.choices import MethodChoice
    from gancompress.comparison.recipes import CellRecipes
    from gancompress.recipe.schema import Recipe

__all__ = [
    "Candidate",
    "Cost",
    "Found",
    "Knob",
    "Meter",
    "beside",
    "contested",
    "largest",
    "setting_text",
    "steer",
    "steered",
]

#: how near a cost is to its target before none that is nearer is tried, how many are, and how many that are larger then
_NEAR, _TRIES, _CLIMBS = 0.03, 12, 6
#: channels that kernels may compute together
_BLOCKS = (4, 8, 16)
#: densities that are tried are multiples of this
_STEP = 0.0005
#: how many times as wide as the recipe's a narrow network may be: in bytes one may cost what a dense one does in float
_WIDEST = 4


class Candidate(NamedTuple):
    """A generator that may become a row: ``recipe`` is of a run, ``values`` are those of its exported file."""

    recipe: Recipe
    values: str


class Cost(NamedTuple):
    """What a generator costs: milliseconds of an image, or bytes; a standard error, as a share; what it ran on."""

    amount: float
    spread: float = 0.0
    runtime: str = ""


#: Measures generators side by side, in order: candidates as they are drawn, or files that were exported. A
#: :class:`~gancompress.errors.RecipeError` says that one keeps too few weights to be built, a
#: :class:`~gancompress.errors.RunError` that the machine is too loaded to measure.
Meter: TypeAlias = "Callable[[Sequence[Candidate | Path]], list[Cost]]"


class Found(NamedTuple):
    """What was tried, and what it costs."""

    position: int
    cost: Cost


def steer(
    target: float,
    guess: int,
    limits: tuple[int, int],
    measure: Callable[[int], Cost | None],
    rounder: Callable[[int], Sequence[int]] = lambda _: (),
) -> Found | None:
    """Return the largest position that costs no more than is wanted, of those that were tried.

    Costs grow with the position, about: times grow in steps, since kernels compute channels in blocks, and a round
    width may take less than a narrower one. A rival that stopped at the first width that takes as long would be less
    than the time buys.

    Args:
        target: what it is to cost.
        guess: tried first.
        limits: smallest and largest position.
        measure: what a position costs; ``None`` where it is too small to be built.
        rounder: larger positions that may cost less than one does.

    Returns:
        The nearest where the largest is too far below; ``None`` when nothing could be built.
    """
    known: dict[int, Cost | None] = {}

    def cost_of(position: int) -> Cost | None:
        if position not in known:
            known[position] = measure(position)
        return known[position]

    nearest = _nearest(target, guess, limits, cost_of)
    affordable = [Found(one, cost) for one, cost in known.items() if cost and not _dearer(cost, target)]
    if nearest is None or not affordable:
        return nearest
    found = largest(max(affordable), target, limits[1], cost_of, known)
    for position in rounder(found.position):
        cost = cost_of(position) if position <= limits[1] else None
        if cost is not None and not _dearer(cost, target):
            found = Found(position, cost)
    return found if abs(found.cost.amount / target - 1) <= FARTHEST else nearest


def _nearest(target: float, guess: int, limits: tuple[int, int], measure: Callable[[int], Cost | None]) -> Found | None:
    low: tuple[int, float] = (limits[0] - 1, 0.0)
    high: tuple[int, float] | None = None
    best: Found | None = None
    at = min(max(guess, limits[0]), limits[1])
    for attempt in range(1, _TRIES + 1):
        cost = measure(at)
        if cost is not None and (best is None or abs(cost.amount - target) < abs(best.cost.amount - target)):
            best = Found(at, cost)
        amount = cost.amount if cost is not None else 0.0
        if abs(amount / target - 1) <= _NEAR:
            break
        if amount < target:
            low = (at, amount)
        else:
            high = (at, amount)
        if high is None:
            # a part of a time does not grow with the position, so the longer the search the larger its steps
            factor = min(8.0, max(1.1, target / amount) ** attempt) if amount else 4.0
            following = min(max(at + 1, round(at * factor)), limits[1])
        else:
            share = (target - low[1]) / (high[1] - low[1])
            following = low[0] + round((high[0] - low[0]) * min(max(share, 0.1), 0.9))
            following = min(max(following, low[0] + 1), high[0] - 1)
        if following in (low[0], at) or (high is not None and following >= high[0]):
            break
        at = following
    return best


def largest(
    found: Found,
    most: float,
    limit: int,
    measure: Callable[[int], Cost | None],
    known: Mapping[int, Cost | None] | None = None,
) -> Found:
    """Return the largest position that costs no more than ``most``, as sure as times are, of those that are tried.

    Args:
        found: one that does.
        most: what it may cost.
        limit: largest position.
        measure: what a position costs.
        known: what was measured before.
    """
    dear = [one for one, cost in (known or {}).items() if one > found.position and cost and _dearer(cost, most)]
    low, high = found, min(dear, default=limit + 1)
    for _ in range(_CLIMBS):
        step = min(max(1, low.position // 4), max(1, (high - low.position) // 2))
        at = low.position + step
        if at >= high or step * 50 < low.position:  # a fiftieth more of it is not worth a measurement
            break
        cost = measure(at)
        if cost is None or _dearer(cost, most):
            high = at
        else:
            low = Found(at, cost)
    return low


def _dearer(cost: Cost, most: float) -> bool:
    return cost.amount > most * (1 + min(cost.spread, _NEAR))


@dataclasses.dataclass(frozen=True)
class Knob:
    """What is turned to make a row's generator cheaper: its density, or the width of one without masks."""

    recipes: CellRecipes
    choice: MethodChoice
    seed: int

    @property
    def fits_width(self) -> bool:
        """Whether it is the width that is turned."""
        return type(self).of_width(self.choice)

    @staticmethod
    def of_width(choice: MethodChoice) -> bool:
        """Whether a method has no masks and chooses how wide its network is."""
        kind = METHODS.get(choice.name)
        return not kind.sparsifies and kind.width is not Method.width

    def limits(self) -> tuple[int, int]:
        """Return the smallest and the largest position."""
        if not self.fits_width:
            return 1, round(1 / _STEP)
        width = self.recipes.width()
        return 1, _WIDEST * width.channels // width.multiple

    def guess(self, density: float) -> int:
        """Return the position of a generator that keeps about as many weights as masks of a density do."""
        if not self.fits_width:
            return round(density / _STEP)
        width = self.recipes.width()
        return round(math.sqrt(density) * width.channels / width.multiple)

    def rounder(self, position: int) -> list[int]:
        """Return wider networks that may take less time than one: of channels that kernels compute in whole blocks."""
        if not self.fits_width:
            return []
        multiple = self.recipes.width().multiple
        channels = position * multiple
        above = {-(-(channels + 1) // block) * block for block in _BLOCKS} | {(channels // 8 + 2) * 8}
        return sorted(one // multiple for one in above if one <= 1.3 * channels and not one % multiple)

    def setting(self, position: int) -> tuple[float, int | None]:
        """Return density and width at a position."""
        if not self.fits_width:
            return round(position * _STEP, 4), None
        return 1.0, position * self.recipes.width().multiple

    def position(self, row: PlannedRow) -> int:
        """Return where a planned row stands, about."""
        if row.channels is not None:
            return row.channels // self.recipes.width().multiple
        return self.guess(1.0 if row.density is None else row.density)

    def text(self, position: int) -> str:
        """Return what a position is, in words."""
        return setting_text(*self.setting(position))

    def candidate(self, position: int) -> Candidate:
        """Return the generator at a position."""
        density, channels = self.setting(position)
        return Candidate(self.recipes.of(self.choice, density, self.seed, channels=channels), self.choice.values)


def beside(meter: Meter, reference: Candidate, amount: float) -> Meter:
    """Return a meter that measures everything together with a reference, which costs a known amount.

    Times of one generator that are measured apart may differ by a fifth, those that are measured together by a few per
    cent.
    """

    def measure(several: Sequence[Candidate | Path]) -> list[Cost]:
        own, *found = meter([reference, *several])
        return [one._replace(amount=one.amount * amount / own.amount) for one in found]

    return measure


def contested(methods: Sequence[MethodChoice]) -> MethodChoice:
    """Return the method whose cost all others are to have: the first with masks, else the first that is not dense."""
    others = [choice for choice in methods if choice.name != "dense"]
    return next((choice for choice in others if METHODS.get(choice.name).sparsifies), others[0])


def setting_text(density: float, channels: int | None) -> str:
    """Return a density, or the width of a network that keeps everything, as it is said."""
    return f"density {density:g}" if channels is None else f"{channels} channels"


def steered(choice: MethodChoice, knob: Knob, target: float, guess: int, meter: Meter, unit: str) -> Found:
    """Return the position of a knob that costs what is wanted.

    Raises:
        RecipeError: none does.
    """
    said: list[RecipeError] = []

    def measure(position: int) -> Cost | None:
        try:
            return meter([knob.candidate(position)])[0]
        except RecipeError as error:  # too sparse for its allocation
            said.append(error)
            return None

    found = steer(target, guess, knob.limits(), measure, rounder=knob.rounder)
    if found is None:
        raise about(choice.label, said[-1])
    if abs(found.cost.amount / target - 1) <= FARTHEST:
        return found
    what = "width" if knob.fits_width else "density"
    remedy = "; ask for a cost nearer to that, or leave narrow out (--no-narrow)" if choice.name == "narrow" else ""
    raise RecipeError(
        f"{choice.label}: no {what} costs {amount_text(target, unit)}; the nearest, {knob.text(found.position)}, "
        f"costs {amount_text(found.cost.amount, unit)}{remedy}"
    )
