"""Which density or width gives every generator the same cost: found by trying, before anything is trained.

Generators are tried as they are built, with random masks of the recipe's allocation and pattern: what a network costs
depends on how many weights it keeps and where, not on what they are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gancompress.comparison.grid import about, split
from gancompress.comparison.plan import FARTHEST, Plan, PlannedRow, amount_text, this_machine
from gancompress.comparison.recipes import CellRecipes
from gancompress.components.registry import METHODS
from gancompress.errors import GancompressError, RecipeError, RunError
from gancompress.methods.base import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gancompress.comparison.choices import HeldEqual, MethodChoice
    from gancompress.data.base import ImageSpec
    from gancompress.recipe.load import LoadedRecipe
    from gancompress.recipe.schema import Recipe

__all__ = ["Candidate", "Cost", "Found", "Knob", "Meter", "contested", "make_plan", "steer", "steered"]

#: how near a cost is to its target before no other is tried, and how many are
_NEAR, _TRIES = 0.03, 12
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
    target: float, guess: int, limits: tuple[int, int], measure: Callable[[int], Cost | None], near: float = _NEAR
) -> Found | None:
    """Return the position whose cost is nearest to a target, of those that were tried; costs grow with the position.

    Args:
        target: what it is to cost.
        guess: tried first.
        limits: smallest and largest position.
        measure: what a position costs; ``None`` where it is too small to be built.
        near: share of the target that is near enough.

    Returns:
        ``None`` when nothing could be built.
    """
    low: tuple[int, float] = (limits[0] - 1, 0.0)
    high: tuple[int, float] | None = None
    best: Found | None = None
    at = min(max(guess, limits[0]), limits[1])
    for attempt in range(1, _TRIES + 1):
        cost = measure(at)
        if cost is not None and (best is None or abs(cost.amount - target) < abs(best.cost.amount - target)):
            best = Found(at, cost)
        amount = cost.amount if cost is not None else 0.0
        if abs(amount / target - 1) <= near:
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
        return _text(*self.setting(position))

    def candidate(self, position: int) -> Candidate:
        """Return the generator at a position."""
        density, channels = self.setting(position)
        return Candidate(self.recipes.of(self.choice, density, self.seed, channels=channels), self.choice.values)


def make_plan(
    base: LoadedRecipe,
    methods: Sequence[MethodChoice],
    densities: Sequence[float],
    held: HeldEqual,
    image: ImageSpec,
    meter: Meter,
    *,
    widths: Sequence[float] = (),
    sweep: Sequence[int] = (),
    narrow: bool = True,
    batch: int = 1,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Find what gives every generator the same cost.

    Args:
        base: recipe that is compared over.
        methods: as for :func:`~gancompress.comparison.grid.build_grid`.
        densities: of the first method, whose cost there is that of all; default: the recipe's own. Not used where
            ``held`` says an amount.
        held: what is held equal.
        image: of the data.
        meter: measures.
        widths: at which every generator with masks is tried, times the recipe's: a row each, of which a sweep keeps
            one; default: only what its method says.
        sweep: seeds of that sweep.
        narrow: compare with a narrow dense network too.
        batch: images of a call that is timed.
        force: believe costs that differ when they are measured again.
        say: told what was found.

    Raises:
        RecipeError: a method can be made neither sparser nor narrower, or no density or width of it costs so much.
        RunError: costs differ when they are measured again.
    """
    assert held.cost is not None
    recipes, seed = CellRecipes(base, image), base.recipe.seed
    dense, contenders = split(methods, narrow=narrow)
    if not contenders:
        raise RecipeError(f"nothing could have the {held.cost} of another: dense is alone; name a method beside it")
    for choice in contenders:
        if not (METHODS.get(choice.name).sparsifies or Knob.of_width(choice)):
            raise RecipeError(
                f"{choice.label} has neither a density nor a width that its {held.cost} could be steered by"
            )
    unit = "ms" if held.cost == "latency" else "bytes"
    first = contested(contenders)
    planned = [
        _Planned(choice, None, None, None, None, Candidate(recipes.of(choice, None, seed), choice.values))
        for choice in dense
    ]
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        say(text)

    for guess, target in _targets(recipes, first, densities, held, seed, meter, unit, say):
        for choice in contenders:
            own_density = guess if choice == first and held.amount is None else None
            fit = _Fit(recipes, choice, seed, target, guess, own_density, meter, unit, say)
            swept = METHODS.get(choice.name).sparsifies and widths
            planned += fit.at_widths(widths, note) if swept else [fit.at(None)]
    # all rows once more, side by side: the costs that are kept
    costs = meter([one.candidate for one in planned])
    own = {
        one.target: cost.amount
        for one, cost in zip(planned, costs, strict=True)
        if one.choice.at_width(one.width) == first and held.amount is None
    }
    rows = [
        PlannedRow(
            one.choice.label,
            None if one.target is None else own.get(one.target, one.target),
            one.density,
            one.channels,
            *cost,
            width=one.width,
        )
        for one, cost in zip(planned, costs, strict=True)
    ]
    for row in rows if not force else ():
        if row.target is not None and abs(row.amount / row.target - 1) > FARTHEST:
            raise RunError(
                f"this machine is too loaded to measure: {row.method} was to cost {amount_text(row.target, unit)}, and "
                f"costs {amount_text(row.amount, unit)} beside the others; try again when it is quieter, or force it"
            )
    return Plan(held.cost, batch, this_machine(), tuple(rows), sweep=tuple(sweep), notes=tuple(notes), forced=force)


class _Planned(NamedTuple):
    """A row that was fitted, before all are measured side by side."""

    choice: MethodChoice
    width: float | None
    target: float | None
    density: float | None
    channels: int | None
    candidate: Candidate


def _targets(
    recipes: CellRecipes,
    first: MethodChoice,
    densities: Sequence[float],
    held: HeldEqual,
    seed: int,
    meter: Meter,
    unit: str,
    say: Callable[[str], None],
) -> Iterator[tuple[float, float]]:
    """Yield of every group the density to begin at, and what its generators are to cost."""
    if held.amount is not None:
        yield (densities[0] if densities else 0.1), held.amount
        return
    for density in tuple(densities) or recipes.own_densities():
        knob = Knob(recipes, first, seed)
        with_density = knob.candidate(knob.guess(density)) if knob.fits_width else None
        candidate = with_density or Candidate(recipes.of(first, density, seed), first.values)
        cost = _measured(meter, candidate, f"{first.label} at density {density:g}")
        say(f"{first.label} at density {density:g}: {amount_text(cost.amount, unit)}")
        yield density, cost.amount


@dataclasses.dataclass(frozen=True)
class _Fit:
    """One method that is to cost a target.

    Attributes:
        recipes: of its networks.
        choice: the method.
        seed: of the masks that are drawn.
        target: what it is to cost.
        guess: density that is tried first.
        density: that it has at its own width whatever it costs: it is the method that sets the target.
        meter: measures.
        unit: of the target.
        say: told what was found.
    """

    recipes: CellRecipes
    choice: MethodChoice
    seed: int
    target: float
    guess: float
    density: float | None
    meter: Meter
    unit: str
    say: Callable[[str], None]

    def at(self, width: float | None) -> _Planned:
        """Return the row at a width, times the recipe's; ``None`` is what the method says.

        Raises:
            RecipeError: no density there costs so much.
        """
        made = self.choice.at_width(width)
        knob = Knob(self.recipes, made, self.seed)
        density, channels = self.density, None
        if density is None or made != self.choice or knob.fits_width:
            found = steered(made, knob, self.target, knob.guess(self.guess), self.meter, self.unit)
            density, channels = knob.setting(found.position)
            candidate = knob.candidate(found.position)
        else:
            candidate = Candidate(self.recipes.of(made, density, self.seed), made.values)
        self.say(f"{made.label}: {_text(density, channels)} for {amount_text(self.target, self.unit)}")
        return _Planned(self.choice, width, self.target, density, channels, candidate)

    def at_widths(self, widths: Sequence[float], note: Callable[[str], None]) -> list[_Planned]:
        """Return rows at all widths that a density gives the cost; ``note`` is told of the others.

        Raises:
            RecipeError: there is none.
        """
        found, errors = [], []
        for width in widths:
            try:
                found.append(self.at(width))
            except RecipeError as error:
                errors.append(error)
        if not found:
            raise errors[-1]
        for each in errors:
            note(str(each))
        return found


def contested(methods: Sequence[MethodChoice]) -> MethodChoice:
    """Return the method whose cost all others are to have: the first with masks, else the first that is not dense."""
    others = [choice for choice in methods if choice.name != "dense"]
    return next((choice for choice in others if METHODS.get(choice.name).sparsifies), others[0])


def _text(density: float, channels: int | None) -> str:
    return f"density {density:g}" if channels is None else f"{channels} channels"


def _measured(meter: Meter, candidate: Candidate, where: str) -> Cost:
    try:
        return meter([candidate])[0]
    except GancompressError as error:
        raise about(where, error) from error


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

    found = steer(target, guess, knob.limits(), measure)
    if found is None:
        raise about(choice.label, said[-1])
    if abs(found.cost.amount / target - 1) <= FARTHEST:
        return found
    what = "width" if knob.fits_width else "density"
    remedy = "; ask for a cost nearer to that, or leave it out with --no-narrow" if choice.name == "narrow" else ""
    raise RecipeError(
        f"{choice.label}: no {what} costs {amount_text(target, unit)}; the nearest, {knob.text(found.position)}, "
        f"costs {amount_text(found.cost.amount, unit)}{remedy}"
    )
