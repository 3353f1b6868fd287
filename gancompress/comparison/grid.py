"""A grid of method, density and seed over one recipe: every cell a recipe of its own, fitted to what is held equal."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from gancompress.comparison.choices import HeldEqual, MethodChoice
from gancompress.comparison.price import Price, price
from gancompress.components.registry import METHODS
from gancompress.errors import GancompressError, RecipeError
from gancompress.experiment.assemble import build_dataset
from gancompress.recipe.composition import apply_override, without_densities
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import LoadedRecipe, check_document, load_recipe
from gancompress.recipe.smoke import SUFFIX, fitted, longer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.data.base import Dataset
    from gancompress.recipe.schema import Recipe

__all__ = ["Cell", "Grid", "Row", "build_grid", "evaluations_of"]

#: settings of a choice that are not its method's: ``dst:pattern=1x4`` is ``sparsity.pattern``
_BESIDE_METHODS = ("pattern",)

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
    """

    choice: MethodChoice
    density: float | None
    price: Price
    cells: tuple[Cell, ...]

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
    """

    base: Recipe
    held: HeldEqual
    density_of: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    dense: Price
    messages: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order they are run: every method once before any method twice."""
        return [row.cells[index] for index in range(len(self.seeds)) for row in self.rows]

    @property
    def evaluations(self) -> int:
        """Evaluations of every run that are planned over its training."""
        return evaluations_of(self.base.training.steps, self.base.evaluation.every)

    @property
    def id(self) -> str:
        """Short hash of all cells: the same grid is the same comparison."""
        cells = sorted(cell.directory for cell in self.cells)
        text = json.dumps([str(self.held), cells])
        return hashlib.blake2b(text.encode(), digest_size=4, person=b"gancompress-cmp").hexdigest()


def evaluations_of(steps: int, every: int) -> int:
    """Return how often a run of ``steps`` is evaluated: on multiples of ``every``, and at the end."""
    return math.ceil(steps / every) if every else 1


def build_grid(
    base: LoadedRecipe,
    methods: Sequence[MethodChoice],
    densities: Sequence[float] = (),
    seeds: Sequence[int] = (0,),
    held: HeldEqual | None = None,
    *,
    narrow: bool = True,
    dataset: Dataset[Any] | None = None,
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

    Raises:
        GancompressError: the first thing that is wrong with a cell, naming it.
    """
    images = dataset or build_dataset(base.recipe)
    asked = (methods, densities, tuple(seeds), held or HeldEqual(), narrow, images)
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
) -> Grid:
    """Lay out a comparison over a base recipe that is as it will be run."""
    layout = _Layout(base, held, seeds, dataset)
    asked = tuple(densities) or layout.own_densities()
    dense_choice = next((choice for choice in methods if choice.name == "dense"), MethodChoice("dense"))
    contenders = [choice for choice in methods if choice.name != "dense"]
    if narrow and not any(choice.name == "narrow" for choice in contenders):
        contenders.insert(0, MethodChoice("narrow"))
    dense = layout.row(dense_choice, None)
    rows = [dense, *(layout.row(choice, density) for density in asked for choice in contenders)]
    messages = [
        f"{row.choice.label} changes its masks {row.price.updates} times in {row.price.steps} steps: give it a shorter "
        f"interval, such as {row.choice.label}:every={max(1, row.price.steps // 12)}"
        for row in rows
        if row.price.dynamic and row.price.updates < 4
    ]
    return Grid(
        base=base.recipe,
        held=held,
        density_of=layout.density_of,
        seeds=seeds,
        rows=tuple(rows),
        dense=layout.dense,
        messages=tuple(dict.fromkeys(messages)),
    )


class _Layout:
    """Makes rows of one base recipe."""

    def __init__(self, base: LoadedRecipe, held: HeldEqual, seeds: tuple[int, ...], dataset: Dataset[Any]) -> None:
        self.base, self.held, self.seeds = base, held, seeds
        self.image = dataset.spec
        self.published = _published_rows(base)
        self.steps = base.recipe.training.steps
        self.evaluations = evaluations_of(self.steps, base.recipe.evaluation.every)
        sparsity = base.recipe.sparsity
        self.density_of = "both" if sparsity.density is not None and sparsity.generator.density is None else "generator"
        self.dense = price(self._recipe(MethodChoice("dense"), None, self.seeds[0]), self.image)

    def own_densities(self) -> tuple[float, ...]:
        """Return the density that the recipe itself asks for."""
        sparsity = self.base.recipe.sparsity
        own = sparsity.density if self.density_of == "both" else sparsity.generator.density
        if own is None:
            raise RecipeError("the recipe keeps every weight of the generator; give a density to compare, such as 0.1")
        return (own,)

    def row(self, choice: MethodChoice, density: float | None) -> Row:
        """Make the cells of one method at one density, with the steps that the budget gives them."""
        where = f"{choice.label} at density {density:g}" if density is not None else choice.label
        try:
            fit = self._fit_steps if self.held.axis == "steps" else self._fit_flops
            steps, cost = fit(choice, density)
            cells = tuple(self._cell(choice, density, seed, steps) for seed in self.seeds)
        except GancompressError as error:
            raise _about(where, error) from error
        return Row(choice, density, cost, cells)

    # ------------------------------------------------------------------ steps that spend the budget, and their price

    def _fit_steps(self, choice: MethodChoice, density: float | None) -> tuple[int, Price]:
        cost = self._price(choice, density, self.steps)
        if cost.steps != self.steps:
            raise RecipeError(
                f"trains {cost.steps:,} steps in {_rounds(cost)}, but the budget of steps gives every method "
                f"{self.steps:,}; drop the setting that lengthens it, or compare with the budget flops"
            )
        return self.steps, cost

    def _fit_flops(self, choice: MethodChoice, density: float | None) -> tuple[int, Price]:
        wanted = self.held.flops if self.held.flops is not None else float(self.dense.training_flops)
        count = self.evaluations
        steps = self.steps
        best: tuple[int, Price] | None = None
        for _ in range(_FITTING):
            cost = self._price(choice, density, steps)
            if best is None or abs(cost.training_flops - wanted) < abs(best[1].training_flops - wanted):
                best = steps, cost
            # whole evaluation intervals, so that every run is looked at equally often
            scaled = max(1, round(steps * wanted / cost.training_flops / count)) * count
            if scaled == steps:
                break
            steps = scaled
        assert best is not None
        return best

    def _price(self, choice: MethodChoice, density: float | None, steps: int) -> Price:
        return price(self._recipe(choice, density, self.seeds[0], steps), self.image)

    # ------------------------------------------------------------------ recipes

    def _cell(self, choice: MethodChoice, density: float | None, seed: int, steps: int) -> Cell:
        name = "-".join([choice.slug, *([f"d{density:g}"] if density is not None else []), f"s{seed}"])
        if self.base.recipe.smoke:
            name += SUFFIX
        recipe = _with_published(self._recipe(choice, density, seed, steps, name), self.published)
        return Cell(name, choice.label, density, seed, recipe)

    def _recipe(
        self, choice: MethodChoice, density: float | None, seed: int, steps: int | None = None, name: str = "cell"
    ) -> Recipe:
        document = self.base.document
        for expression in (f"name={name}", f"seed={seed}", f"sparsity.method.name={choice.name}"):
            document = apply_override(document, expression)
        for key, value in (*self._forced(choice), *choice.settings):
            node = "sparsity" if key.partition(".")[0] in _BESIDE_METHODS else "sparsity.method"
            document = apply_override(document, f"{node}.{key}={value}")
        if density is None:  # the dense run is one run, whatever densities it is compared with
            document = without_densities(document)
        else:
            key = "sparsity.density" if self.density_of == "both" else "sparsity.generator.density"
            document = apply_override(document, f"{key}={density!r}")
        if steps is not None and steps != self.steps:
            document = apply_override(document, f"training.steps={steps}")
            if self.base.recipe.evaluation.every:
                every = math.ceil(steps / self.evaluations)
                document = apply_override(document, f"evaluation.every={every}")
        recipe = check_document(document)
        if not recipe.smoke:
            return recipe
        for key, value in fitted(recipe).items():
            document = apply_override(document, f"sparsity.method.{key}={value}")
        return check_document(document)

    def _forced(self, choice: MethodChoice) -> list[tuple[str, str]]:
        """Return what holds every method to the same terms: the recipe's interval, and no rounds beyond its steps.

        A method with a row in the recipe's published table keeps the interval of that row.
        """
        wanted = {"budget": "total", "every": self.base.document.value(("sparsity", "method", "every"))}
        if any(row.sparsity.method.name == choice.name for row in self.published):
            del wanted["every"]
        known = METHODS.get(choice.name).Config.model_fields
        return [
            (key, str(value))
            for key, value in wanted.items()
            if value is not None and key in known and choice.setting(key) is None
        ]


def _published_rows(base: LoadedRecipe) -> list[Recipe]:
    """Return the base recipe's file and all its variants, as far as they carry figures, with the base's overrides."""
    if not base.files or base.recipe.smoke:
        return []
    file = str(base.files[0])
    addresses = [file, *(f"{file}@{variant}" for variant in base.variants)]
    return [row for address in addresses if (row := load_recipe(address, base.overrides).recipe).published]


def _with_published(recipe: Recipe, rows: Sequence[Recipe]) -> Recipe:
    """Return a cell's recipe with the figures of the row that it is, whatever its seed, and without any other's."""
    identity = run_id(recipe)
    for row in rows:
        if run_id(row.model_copy(update={"seed": recipe.seed})) == identity:
            return recipe.model_copy(update={"published": row.published, "changed": row.changed})
    return recipe.model_copy(update={"published": (), "changed": ()})


def _about(cell: str, error: GancompressError) -> GancompressError:
    """Return ``error`` saying which cell it is about; every line of it stands by itself."""
    message = "\n".join(f"{cell}: {line}" for line in str(error).splitlines())
    kind = RecipeError if isinstance(error, RecipeError) else type(error)
    return kind(message)


def _rounds(cost: Price) -> str:
    return f"{len(cost.rounds)} rounds" if len(cost.rounds) > 1 else "one round"
