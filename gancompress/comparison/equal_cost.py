"""Rows whose generators cost the same, laid out before anything is trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.comparison.fitting import (
    Candidate,
    Cost,
    Found,
    Knob,
    beside,
    contested,
    largest,
    setting_text,
    steered,
)
from gancompress.comparison.grid import about, split
from gancompress.comparison.plan import FARTHEST, FORCED, Plan, PlannedRow, amount_text, this_machine
from gancompress.comparison.recipes import CellRecipes
from gancompress.components.registry import METHODS
from gancompress.errors import GancompressError, RecipeError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gancompress.comparison.choices import HeldEqual, MethodChoice
    from gancompress.comparison.fitting import Meter
    from gancompress.data.base import ImageSpec
    from gancompress.recipe.load import LoadedRecipe

__all__ = ["make_plan"]

#: how often all rows are measured side by side, those that are too far off there being fitted again in between
_SIDE_BY_SIDE = 3


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
    _check_distinct(widths, recipes)
    first = contested(contenders)
    bench = _Bench(recipes, seed, meter, "ms" if held.cost == "latency" else "bytes", say)
    rows = [_Row(choice, None, None, bench.candidate(choice, None)) for choice in dense]
    for guess, target in bench.targets(first, densities, held):
        fitted = held.amount is not None or Knob(recipes, first, seed).fits_width
        bench.reference = None if fitted else (bench.candidate(first, guess), target)
        for choice in contenders:
            given = guess if choice == first and not fitted else None
            swept = METHODS.get(choice.name).sparsifies and widths
            several = bench.at_widths(choice, widths, target, guess, given) if swept else []
            rows += several or [bench.row(choice, None, target, guess, given)]
    found = bench.side_by_side(rows)
    farthest = FORCED if force else FARTHEST
    for row in found:
        if row.target is not None and row.apart > farthest:
            again = f"; more than {FORCED:.0%} off is not believed by force either" if force else ", or force it"
            raise RunError(
                f"this machine is too loaded to measure: {row.name} was to cost "
                f"{amount_text(row.target, bench.unit)}, and costs {amount_text(row.amount, bench.unit)} beside the "
                f"others; try again when it is quieter{again}"
            )
    return Plan(
        held.cost, batch, this_machine(), tuple(found), sweep=tuple(sweep), notes=tuple(bench.notes), forced=force
    )


def _check_distinct(widths: Sequence[float], recipes: CellRecipes) -> None:
    channels = [recipes.channels(width) for width in widths]
    for width, own in zip(widths, channels, strict=True):
        if (same := widths[channels.index(own)]) != width:
            raise RecipeError(f"widths: {same:g} and {width:g} are both {own} channels")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row that was fitted.

    Attributes:
        choice: its method.
        width: times the recipe's, where a sweep is to choose it.
        target: what it is to cost; ``None`` for dense.
        candidate: its generator.
        knob: what was turned; ``None`` where nothing was: it is dense, or sets the target itself.
        position: of the knob.
        alone: what it cost when it was fitted.
        density: that it was given.
        reference: generator that it was measured beside, and what that costs.
    """

    choice: MethodChoice
    width: float | None
    target: float | None
    candidate: Candidate
    knob: Knob | None = None
    position: int = 0
    alone: float = 0.0
    density: float | None = None
    reference: tuple[Candidate, float] | None = None

    def planned(self, target: float | None, cost: Cost) -> PlannedRow:
        """Return the row as a plan keeps it."""
        density, channels = (self.density, None) if self.knob is None else self.knob.setting(self.position)
        return PlannedRow(self.choice.label, target, density, channels, *cost, width=self.width)


@dataclasses.dataclass
class _Bench:
    """What rows are fitted with.

    Attributes:
        recipes: of networks.
        seed: of masks that are drawn.
        meter: measures.
        unit: of costs.
        say: told what was found.
        notes: what is to be kept of that.
        reference: generator that others of its cost are measured beside, and what it costs: the one that sets the cost,
            else the first that was fitted.
    """

    recipes: CellRecipes
    seed: int
    meter: Meter
    unit: str
    say: Callable[[str], None]
    notes: list[str] = dataclasses.field(default_factory=list)
    reference: tuple[Candidate, float] | None = None

    def note(self, text: str) -> None:
        """Say something that is kept with the plan."""
        self.notes.append(text)
        self.say(text)

    @property
    def _meter(self) -> Meter:
        return self.meter if self.reference is None else beside(self.meter, *self.reference)

    def candidate(self, choice: MethodChoice, density: float | None) -> Candidate:
        """Return the generator of a method at a density."""
        return Candidate(self.recipes.of(choice, density, self.seed), choice.values)

    def targets(
        self, first: MethodChoice, densities: Sequence[float], held: HeldEqual
    ) -> Iterator[tuple[float, float]]:
        """Yield of every group the density to begin at, and what its generators are to cost."""
        if held.amount is not None:
            yield (densities[0] if densities else 0.1), held.amount
            return
        for density in tuple(densities) or self.recipes.own_densities():
            knob, where = Knob(self.recipes, first, self.seed), f"{first.label} at density {density:g}"
            fitted = knob.candidate(knob.guess(density)) if knob.fits_width else None
            try:
                (cost,) = self.meter([fitted or self.candidate(first, density)])
            except GancompressError as error:
                raise about(where, error) from error
            self.say(f"{where}: {amount_text(cost.amount, self.unit)}")
            yield density, cost.amount

    def row(self, choice: MethodChoice, width: float | None, target: float, guess: float, given: float | None) -> _Row:
        """Fit a row.

        Args:
            choice: its method.
            width: times the recipe's; ``None`` is what the method says.
            target: what it is to cost.
            guess: density that is tried first.
            given: density that it has at its own width whatever it costs: it is the method that sets the target.

        Raises:
            RecipeError: no density there costs so much.
        """
        made = choice.at_width(width)
        knob = Knob(self.recipes, made, self.seed)
        if given is not None and made == choice and not knob.fits_width:
            row = _Row(choice, width, target, self.candidate(made, given), density=given)
            self._note_what_costs_no_more(knob, given, target)
        else:
            row = self._steered(choice, width, target, knob, knob.guess(guess), target)
        text = setting_text(given or 0, None) if row.knob is None else knob.text(row.position)
        self.say(f"{made.label}: {text} for {amount_text(target, self.unit)}")
        return row

    def _note_what_costs_no_more(self, knob: Knob, density: float, target: float) -> None:
        """Times grow in steps: a density that was asked for may be less than its own time buys."""
        if self.unit != "ms":
            return
        own = Found(knob.guess(density), Cost(target))
        more = largest(own, target, knob.limits()[1], lambda at: self._meter([knob.candidate(at)])[0])
        if more.position > 1.1 * own.position:
            self.note(
                f"{knob.choice.label}: {knob.text(more.position)} costs no more than the {density:g} that was asked "
                f"for; --budget latency={target:.3g} gives every method the most that the time buys"
            )

    def _steered(
        self, choice: MethodChoice, width: float | None, target: float | None, knob: Knob, guess: int, amount: float
    ) -> _Row:
        """Return a row at the position of its knob that costs an amount, measured beside the reference alone."""
        found = steered(knob.choice, knob, amount, guess, self._meter, self.unit)
        candidate = knob.candidate(found.position)
        beside_it, self.reference = self.reference, self.reference or (candidate, found.cost.amount)
        return _Row(choice, width, target, candidate, knob, found.position, found.cost.amount, reference=beside_it)

    def at_widths(
        self,
        choice: MethodChoice,
        widths: Sequence[float],
        target: float,
        guess: float,
        given: float | None,
    ) -> list[_Row]:
        """Fit rows at all widths that a density gives the cost, and note the others.

        Raises:
            RecipeError: there is none.
        """
        try:
            self.candidate(choice, guess)  # what is wrong with its settings is wrong at every width
        except GancompressError as error:
            raise about(choice.label, error) from error
        found, errors = [], []
        for width in widths:
            try:
                found.append(self.row(choice, width, target, guess, given))
            except RecipeError as error:
                errors.append(error)
        if not found:
            raise errors[-1]
        for each in errors:
            self.note(str(each))
        return found

    def side_by_side(self, rows: Sequence[_Row]) -> list[PlannedRow]:
        """Measure all rows beside each other: the costs that are kept.

        A generator may take longer beside others than alone, since they share caches: those that are too far off are
        fitted again, by as much.
        """
        for attempt in range(_SIDE_BY_SIDE):
            costs = self._as_fitted(rows, self.meter([row.candidate for row in rows]))
            # the method that sets a target sets it as measured here
            own: dict[float | None, float] = {
                row.target: cost.amount
                for row, cost in zip(rows, costs, strict=True)
                if row.target is not None and row.knob is None
            }
            found = [
                row.planned(own.get(row.target) or row.target, cost) for row, cost in zip(rows, costs, strict=True)
            ]
            far = {index for index, one in enumerate(found) if rows[index].knob is not None and one.apart > FARTHEST}
            if not far or attempt == _SIDE_BY_SIDE - 1:
                break
            rows = [self._again(row, found[index]) if index in far else row for index, row in enumerate(rows)]
        return found

    def _as_fitted(self, rows: Sequence[_Row], costs: Sequence[Cost]) -> list[Cost]:
        """Return costs in proportion to the row of each target that others were fitted beside, as it cost then."""
        faster = {
            row.target: row.alone / cost.amount
            for row, cost in zip(rows, costs, strict=True)
            if row.knob is not None and row.reference is None
        }
        overall = next(iter(faster.values()), 1.0)  # of dense networks
        return [
            cost._replace(amount=cost.amount * (overall if row.target is None else faster.get(row.target, 1.0)))
            for row, cost in zip(rows, costs, strict=True)
        ]

    def _again(self, row: _Row, found: PlannedRow) -> _Row:
        assert found.target is not None
        assert row.knob is not None
        self.say(
            f"{row.choice.at_width(row.width).label}: {amount_text(found.amount, self.unit)} beside the others, "
            f"{amount_text(found.target, self.unit)} asked; fitted again"
        )
        try:
            alone = found.target * row.alone / found.amount
            self.reference = row.reference
            return self._steered(row.choice, row.width, row.target, row.knob, row.position, alone)
        except RecipeError:  # it stays as it is, and is refused or forced as it is
            return row
