"""Fits corrected by runs: what a generator costs may depend on which weights it learns to keep.

Masks that are ranked over all layers together move weights from layer to layer while they train, and a weight of a
layer with large maps costs more than one of another. A plan made with masks drawn by the recipe's allocation is a first
guess of such a row. One run of it is trained, its generator is measured, and where that is too far from what was asked
the density is fitted again, knowing how many times as much learned masks cost as drawn ones. The run that is near
enough is the first run of the row.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeAlias

from gancompress.comparison.fitting import Candidate, Cost, Knob, beside, contested, steered
from gancompress.comparison.plan import amount_text
from gancompress.comparison.recipes import CellRecipes
from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gancompress.comparison.choices import HeldEqual, MethodChoice
    from gancompress.comparison.fitting import Meter
    from gancompress.comparison.grid import Grid, Row
    from gancompress.comparison.plan import Plan, PlannedRow
    from gancompress.data.base import ImageSpec
    from gancompress.recipe.load import LoadedRecipe

__all__ = ["PILOTS", "Trained", "refitted", "settled", "unsettled"]

#: runs of a row that are trained to find its density, at most
PILOTS = 3

#: Exported generators of trained runs, by the place of their row in the plan.
Trained: TypeAlias = "dict[int, Path]"


def unsettled(grid: Grid) -> dict[int, Row]:
    """Return the rows whose cost was fitted with masks that were drawn, and depends on what is learned."""
    return {
        index: row
        for index, row in enumerate(grid.rows)
        if row.planned is not None
        and row.planned.target is not None
        and not row.planned.learned
        and not row.price.exact
    }


def settled(
    plan: Plan,
    lay_out: Callable[[Plan], Grid],
    train: Callable[[Grid, Mapping[int, Row]], Trained],
    refit: Callable[[Plan, Trained, bool], Plan],
) -> Grid:
    """Return the comparison of a plan whose rows cost what they should as trained.

    Args:
        plan: fitted with masks that were drawn.
        lay_out: makes the comparison of a plan.
        train: trains a run of every given row and exports its generator; those that failed are left out.
        refit: corrects a plan; told whether this was the last time.
    """
    grid = lay_out(plan)
    for attempt in range(1, PILOTS + 1):
        waiting = unsettled(grid)
        found = train(grid, waiting) if waiting else {}
        if not found:
            break
        plan = refit(plan, found, attempt == PILOTS)
        grid = lay_out(plan)
    return grid


def refitted(
    base: LoadedRecipe,
    methods: Sequence[MethodChoice],
    held: HeldEqual,
    image: ImageSpec,
    meter: Meter,
    plan: Plan,
    trained: Trained,
    *,
    last: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Return a plan with what trained generators cost, and other densities where that is too far from what was asked.

    Args:
        base: recipe that is compared over.
        methods: what is compared.
        held: what is held equal.
        image: of the data.
        meter: measures; everything in proportion to the row as it was drawn, whose cost the plan has.
        plan: what was fitted so far.
        trained: generators of its rows.
        last: no run follows: rows stay as they were trained, however far.
        say: told what was found.

    Raises:
        RecipeError: no density costs what is asked.
        RunError: the machine is too loaded to measure.
    """
    recipes, seed = CellRecipes(base, image), base.recipe.seed
    choices = {choice.label: choice for choice in methods}
    first = contested(methods)

    def candidate(row: PlannedRow) -> Candidate:
        choice = choices[row.method].at_width(row.width)
        density = None if row.target is None else row.density
        return Candidate(recipes.of(choice, density, seed, channels=row.channels), choice.values)

    rows, learned, factors = list(plan.rows), dict[int, Cost](), dict[int, float]()
    for index, file in trained.items():
        # a machine may be faster now than it was when the rows were fitted, so only what is measured together counts
        drawn, own = meter([candidate(rows[index]), file])
        factors[index] = own.amount / drawn.amount
        learned[index] = own._replace(amount=_drawn(rows[index]) * factors[index])
    targets = {
        rows[index].target: cost.amount
        for index, cost in learned.items()
        if held.amount is None and choices[rows[index].method] == first and rows[index].width is None
    }
    notes = [*plan.notes]
    out: set[int] = set()  # widths that others of the same method stay beside
    for index, row in enumerate(rows):
        if row.target is None:
            continue
        target = targets.get(row.target, row.target)
        cost = learned.get(index) or Cost(row.amount, row.spread, row.runtime)
        known = index in learned or row.learned
        drawn_cost = _drawn(row) if index in learned else row.drawn
        kept = dataclasses.replace(row, target=target, learned=known, drawn=drawn_cost, **cost._asdict())
        if index in learned:
            asked = amount_text(target, plan.unit)
            say(f"{row.name} as trained: {amount_text(cost.amount, plan.unit)}, {asked} asked")
        if kept.apart <= plan.farthest or (last and known):
            rows[index] = kept
            continue
        choice = choices[row.method].at_width(row.width)
        knob = Knob(recipes, choice, seed)
        factor = factors.get(index, row.amount / _drawn(row))
        more = beside(meter, candidate(row), _drawn(row) * factor)
        try:
            found = steered(choice, knob, target, knob.position(row), more, plan.unit)
        except RecipeError as error:
            if not any(index in several and set(several) - out - {index} for several in plan.undecided):
                raise
            out.add(index)
            notes.append(str(error))
            say(str(error))
            continue
        density, channels = knob.setting(found.position)
        say(f"{choice.label}: {knob.text(found.position)} for {amount_text(target, plan.unit)}")
        new = {"density": density, "channels": channels, "learned": False, **found.cost._asdict()}
        rows[index] = dataclasses.replace(kept, **new, drawn=found.cost.amount / factor)
    staying = tuple(row for index, row in enumerate(rows) if index not in out)
    return dataclasses.replace(plan, rows=staying, notes=tuple(notes))


def _drawn(row: PlannedRow) -> float:
    return row.amount if row.drawn is None else row.drawn
