"""A grid of method, density and seed over one recipe: every cell a recipe of its own, fitted to what is held equal."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

from gancompress.comparison.choices import VALUES, HeldEqual, MethodChoice
from gancompress.comparison.price import Price, price
from gancompress.comparison.recipes import CellRecipes, evaluations_of
from gancompress.components.registry import METHODS
from gancompress.errors import GancompressError, RecipeError
from gancompress.experiment.assemble import build_dataset
from gancompress.recipe.composition import apply_override
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import LoadedRecipe, check_document
from gancompress.recipe.smoke import SUFFIX, longer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.comparison.plan import Plan, PlannedRow
    from gancompress.data.base import Dataset
    from gancompress.recipe.schema import Recipe

__all__ = ["Cell", "Grid", "Row", "about", "build_grid", "check_widths", "evaluations_of", "multiplied", "split"]

#: rounds of the search for the steps that meet a FLOPs budget
_FITTING = 6


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        name: of its recipe, its file and its run directory.
        row: label of its method.
        density: what was asked for; ``None`` for dense.
        seed: its seed.
        recipe: everything that decides its numbers.
    """

    name: str
    row: str
    density: float | None
    seed: int
    recipe: Recipe

    @property
    def directory(self) -> str:
        """Name of its run directory."""
        return f"{self.name}-{run_id(self.recipe)}"


@dataclasses.dataclass(frozen=True)
class Row:
    """The cells of one method at one density, which differ in their seed alone.

    Attributes:
        choice: method and settings.
        density: what was asked for; ``None`` for dense.
        price: what one of its runs costs.
        cells: one per seed.
        planned: what its generator was found to cost, where that is held equal.
    """

    choice: MethodChoice
    density: float | None
    price: Price
    cells: tuple[Cell, ...]
    planned: PlannedRow | None = None

    @property
    def width(self) -> float:
        """How many times as wide as the recipe's its generator is."""
        chosen = self.planned.width if self.planned is not None else None
        return self.choice.width if chosen is None else chosen

    @property
    def group(self) -> float | None:
        """What it shares with the rows it is held against: density, or what the generator may cost; dense: ``None``."""
        return self.density if self.planned is None else self.planned.target

    @property
    def baseline(self) -> bool:
        """Whether it is no contender, but what these are measured against."""
        return METHODS.get(self.choice.name).baseline


@dataclasses.dataclass(frozen=True)
class Grid:
    """Everything that is compared.

    Attributes:
        base: recipe that all cells share but for what is compared.
        held: what is held equal.
        density_of: what a density speaks of: ``generator``, or ``both`` networks.
        seeds: the seeds.
        rows: dense first.
        dense: what a run of the dense network costs, the yardstick of all others.
        messages: what a person should know before it starts.
        plan: what generators were found to cost, where that is held equal.
    """

    base: Recipe
    held: HeldEqual
    density_of: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    dense: Price
    messages: tuple[str, ...] = ()
    plan: Plan | None = None

    @property
    def cells(self) -> list[Cell]:
        """All runs, in the order they are run: every method once before any method twice."""
        found = [cell for nth in itertools.zip_longest(*(row.cells for row in self.rows)) for cell in nth if cell]
        return list({cell.directory: cell for cell in reversed(found)}.values())[::-1]

    @property
    def evaluations(self) -> int:
        """Evaluations of every run that are planned over its training."""
        return evaluations_of(self.base.training.steps, self.base.evaluation.every)

    @property
    def id(self) -> str:
        """Short hash of all cells: the same grid is the same comparison."""
        cells: list[Any] = sorted(cell.directory for cell in self.cells)
        exported = sorted(row.choice.label for row in self.rows if row.choice.values != VALUES[0])
        more = [exported] * bool(exported) + ([] if self.plan is None else [self.plan.batch, *self.plan.sweep])
        text = json.dumps([str(self.held), cells, *more])
        return hashlib.blake2b(text.encode(), digest_size=4, person=b"gancompress-cmp").hexdigest()


def build_grid(
    base: LoadedRecipe,
    methods: Sequence[MethodChoice],
    densities: Sequence[float] = (),
    seeds: Sequence[int] = (0,),
    held: HeldEqual | None = None,
    *,
    narrow: bool = True,
    dataset: Dataset[Any] | None = None,
    plan: Plan | None = None,
    sweeping: bool = False,
) -> Grid:
    """Lay out a comparison; every cell's recipe is checked as far as that goes without training.

    Args:
        base: the recipe that is compared over.
        methods: what is compared; dense is added, and so is narrow unless told not to.
        densities: of the generator, or of both networks where the recipe gives one density for both; default: the
            recipe's own.
        seeds: the seeds of every method and density.
        held: what is held equal; default: training steps.
        narrow: compare with a dense network that is as small as the sparse ones.
        dataset: the images, if they are open already.
        plan: which density or width gives every generator the same cost, where ``held`` asks for that.
        sweeping: it is the sweep of that plan; no other comparison has its seeds.

    Raises:
        GancompressError: the first thing that is wrong with a cell, naming it.
    """
    images = dataset or build_dataset(base.recipe)
    if plan is not None and not sweeping and (taken := set(seeds) & set(plan.sweep)):
        raise RecipeError(f"seeds: {min(taken)} is one that widths are chosen with; ask for others")
    asked = (methods, densities, tuple(seeds), held or HeldEqual(), narrow, images, plan)
    if not base.recipe.smoke:
        return _laid_out(base, *asked)
    *shorter, last = (
        dataclasses.replace(base, recipe=check_document(document), document=document)
        for steps in longer(base.recipe)
        for document in [apply_override(base.document, f"training.steps={steps}")]
    )
    for attempt in shorter:
        with contextlib.suppress(RecipeError):  # more rounds than steps; or what the last attempt says
            return _laid_out(attempt, *asked)
    return _laid_out(last, *asked)


def _laid_out(
    base: LoadedRecipe,
    methods: Sequence[MethodChoice],
    densities: Sequence[float],
    seeds: tuple[int, ...],
    held: HeldEqual,
    narrow: bool,
    dataset: Dataset[Any],
    plan: Plan | None,
) -> Grid:
    """Lay out a comparison over a base recipe that is as it will be run."""
    layout = _Layout(base, held, seeds, dataset)
    baselines, contenders = split(methods, narrow=narrow)
    if plan is None:
        asked = tuple(densities) or layout.recipes.own_densities()
        rows = [layout.row(choice, None) for choice in baselines]
        rows += [layout.row(choice, density) for density in asked for choice in contenders]
    else:
        choices = {choice.label: choice for choice in (*baselines, *contenders)}
        rows = [layout.row(choices[found.method], found.density, found) for found in plan.rows]
    messages = [
        f"{row.choice.label} changes its masks {row.price.updates} times in {row.price.steps} steps: give it a shorter "
        f"interval, such as {row.choice.label}:every={max(1, row.price.steps // 12)}"
        for row in rows
        if row.price.dynamic and row.price.updates < 4
    ]
    if base.recipe.training.distillation is not None:
        messages.append("dense trains without training.distillation, all others learn from its teacher")
    return Grid(
        base=base.recipe,
        held=held,
        density_of=layout.recipes.density_of,
        seeds=seeds,
        rows=tuple(rows),
        dense=layout.dense,
        messages=tuple(dict.fromkeys(messages)),
        plan=plan,
    )


def split(methods: Sequence[MethodChoice], *, narrow: bool) -> tuple[list[MethodChoice], list[MethodChoice]]:
    """Return the dense networks, the one whose weights stay as trained first, and all others.

    Args:
        methods: as asked for.
        narrow: whether a narrow network is added where none is asked for, with all values that others have.
    """
    dense = [choice for choice in methods if choice.name == "dense"]
    if not any(choice.values == VALUES[0] and choice.width == 1 for choice in dense):
        dense.insert(0, MethodChoice("dense"))
    others = [choice for choice in methods if choice.name != "dense"]
    if narrow and not any(choice.name == "narrow" for choice in others):
        wanted = dict.fromkeys(choice.setting("values") for choice in others) or {None: None}
        others = [MethodChoice("narrow", (("values", one),) if one else ()) for one in wanted] + others
    return dense, others


def multiplied(methods: Sequence[MethodChoice], values: Sequence[str]) -> tuple[MethodChoice, ...]:
    """Return every method with every kind of values; none asked for leaves all as they are.

    Raises:
        RecipeError: a method says its own already.
    """
    if not values:
        return tuple(methods)
    _refuse_own(methods, "values")
    found = [*methods]
    if not any(choice.name == "dense" for choice in found):
        found.insert(0, MethodChoice("dense"))
    return tuple(
        choice if one == VALUES[0] else choice.with_setting("values", one) for choice in found for one in values
    )


def check_widths(methods: Sequence[MethodChoice], widths: Sequence[float], held: HeldEqual) -> None:
    """Refuse widths that nothing could be chosen among.

    Raises:
        RecipeError: generators do not cost the same, no method has masks, or one says its own width already.
    """
    if not widths:
        return
    if len(widths) == 1:
        raise RecipeError(f"widths: give two or more to choose among, or name one as a method: dst:width={widths[0]:g}")
    if held.cost is None:
        raise RecipeError(
            "widths: the best is chosen among generators of the same cost; add --budget latency or bytes, or name "
            f"each as a method, such as dst:width={widths[0]:g}"
        )
    if not any(METHODS.get(choice.name).sparsifies for choice in methods):
        raise RecipeError("widths: none of the methods has masks, and the width of one without is what the cost fits")
    _refuse_own(methods, "width")


def _refuse_own(methods: Sequence[MethodChoice], key: str) -> None:
    for choice in methods:
        if choice.setting(key) is not None:
            raise RecipeError(f"{choice.label} says its {key} already; leave out one of them")


class _Layout:
    """Makes rows of one base recipe."""

    def __init__(self, base: LoadedRecipe, held: HeldEqual, seeds: tuple[int, ...], dataset: Dataset[Any]) -> None:
        self.base, self.held, self.seeds = base, held, seeds
        self.image = dataset.spec
        self.recipes = CellRecipes(base, dataset.spec)
        self.dense = price(self.recipes.of(MethodChoice("dense"), None, self.seeds[0]), self.image)

    def row(self, choice: MethodChoice, density: float | None, found: PlannedRow | None = None) -> Row:
        """Make the cells of one method at one density, with the steps that the budget gives them."""
        made = choice.at_width(found.width) if found is not None else choice
        where = f"{made.label} at density {density:g}" if density is not None else made.label
        channels = found.channels if found is not None else None
        try:
            fit = self._fit_steps if self.held.axis == "steps" else self._fit_flops
            steps, cost = fit(made, density, channels)
            cells = tuple(
                dataclasses.replace(self._cell(made, density, seed, steps, channels), row=choice.label)
                for seed in self.seeds
            )
        except GancompressError as error:
            raise about(where, error) from error
        return Row(choice, density, cost, cells, found)

    # ------------------------------------------------------------------ steps that spend the budget, and their price

    def _fit_steps(self, choice: MethodChoice, density: float | None, channels: int | None) -> tuple[int, Price]:
        steps = self.recipes.steps
        cost = self._price(choice, density, steps, channels)
        if cost.steps != steps:
            raise RecipeError(
                f"trains {cost.steps:,} steps in {_rounds(cost)}, but the budget of steps gives every method "
                f"{steps:,}; drop the setting that lengthens it, or compare with the budget flops"
            )
        return steps, cost

    def _fit_flops(self, choice: MethodChoice, density: float | None, channels: int | None) -> tuple[int, Price]:
        wanted = self.held.flops if self.held.flops is not None else float(self.dense.training_flops)
        count = self.recipes.evaluations
        steps = self.recipes.steps
        best: tuple[int, Price] | None = None
        for _ in range(_FITTING):
            cost = self._price(choice, density, steps, channels)
            if best is None or abs(cost.training_flops - wanted) < abs(best[1].training_flops - wanted):
                best = steps, cost
            # whole evaluation intervals, so that every run is looked at equally often
            scaled = max(1, round(steps * wanted / cost.training_flops / count)) * count
            if scaled == steps:
                break
            steps = scaled
        assert best is not None
        return best

    def _price(self, choice: MethodChoice, density: float | None, steps: int, channels: int | None) -> Price:
        recipe = self.recipes.of(choice, density, self.seeds[0], steps, channels=channels)
        return price(recipe, self.image)

    def _cell(self, choice: MethodChoice, density: float | None, seed: int, steps: int, channels: int | None) -> Cell:
        kept = [] if density is None else [f"d{density:g}" if channels is None else f"w{channels}"]
        name = "-".join([choice.trained.slug, *kept, f"s{seed}"])
        if self.base.recipe.smoke:
            name += SUFFIX
        recipe = self.recipes.of_cell(choice, density, seed, steps, name, channels)
        return Cell(name, choice.label, density, seed, recipe)


def about(cell: str, error: GancompressError) -> GancompressError:
    """Return ``error`` saying which cell it is about; every line of it stands by itself."""
    message = "\n".join(f"{cell}: {line}" for line in str(error).splitlines())
    kind = RecipeError if isinstance(error, RecipeError) else type(error)
    return kind(message)


def _rounds(cost: Price) -> str:
    return f"{len(cost.rounds)} rounds" if len(cost.rounds) > 1 else "one round"
