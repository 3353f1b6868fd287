"""The recipe of every run of a comparison: the base recipe with another method, density, width, seed and length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gancompress.components.registry import METHODS
from gancompress.errors import RecipeError
from gancompress.experiment.assemble import check_served
from gancompress.experiment.networks import build_backbone
from gancompress.recipe.composition import apply_override, without_densities, without_masks
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import check_document, load_recipe
from gancompress.recipe.smoke import fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.backbones.base import Width
    from gancompress.comparison.choices import MethodChoice
    from gancompress.data.base import ImageSpec
    from gancompress.recipe.load import LoadedRecipe
    from gancompress.recipe.schema import Recipe

__all__ = ["CellRecipes", "evaluations_of"]

#: settings of a choice that are not its method's: ``dst:pattern=1x4`` is ``sparsity.pattern``
_BESIDE_METHODS = ("pattern",)
#: and those that are in no recipe, or in another place of it
_ELSEWHERE = ("width", "values")


def evaluations_of(steps: int, every: int) -> int:
    """Return how often a run of ``steps`` is evaluated: on multiples of ``every``, and at the end."""
    return math.ceil(steps / every) if every else 1


class CellRecipes:
    """Makes recipes of cells of one base recipe.

    Args:
        base: the recipe that is compared over.
        image: of its data.

    Attributes:
        density_of: what a density speaks of: ``generator``, or ``both`` networks.
    """

    def __init__(self, base: LoadedRecipe, image: ImageSpec) -> None:
        self.base, self.image = base, image
        self.published = _published_rows(base)
        self.steps = base.recipe.training.steps
        self.evaluations = evaluations_of(self.steps, base.recipe.evaluation.every)
        sparsity = base.recipe.sparsity
        self.density_of = "both" if sparsity.density is not None and sparsity.generator.density is None else "generator"

    def width(self) -> Width:
        """Return the setting that makes the generator wider or narrower.

        Raises:
            RecipeError: the backbone has none.
        """
        found = build_backbone(self.base.recipe, self.image).widths.get("generator")
        if found is None:
            raise RecipeError(
                f"the model {self.base.recipe.model.name} does not say how its generator is made narrower"
            )
        return found

    def channels(self, width: float) -> int:
        """Return the setting of a generator that is so many times as wide as the recipe's."""
        own = self.width()
        return max(1, round(width * own.channels / own.multiple)) * own.multiple

    def own_densities(self) -> tuple[float, ...]:
        """Return the density that the recipe itself asks for."""
        sparsity = self.base.recipe.sparsity
        own = sparsity.density if self.density_of == "both" else sparsity.generator.density
        if own is None:
            raise RecipeError("the recipe keeps every weight of the generator; give a density to compare, such as 0.1")
        return (own,)

    def of(
        self,
        choice: MethodChoice,
        density: float | None,
        seed: int,
        steps: int | None = None,
        name: str = "cell",
        channels: int | None = None,
    ) -> Recipe:
        """Return one recipe, checked as far as it goes alone.

        Args:
            choice: method and settings.
            density: ``None`` for dense.
            seed: of the run.
            steps: default: those of the base.
            name: of the recipe.
            channels: width of the generator, of which every channel is kept; default: what the choice says.

        Raises:
            RecipeError: the recipe's task cannot serve the method, or something that the recipe asks for.
        """
        document = self.base.document
        for expression in (f"name={name}", f"seed={seed}", f"sparsity.method.name={choice.name}"):
            document = apply_override(document, expression)
        for key, value in (*self._forced(choice), *choice.settings):
            if key not in _ELSEWHERE:
                node = "sparsity" if key.partition(".")[0] in _BESIDE_METHODS else "sparsity.method"
                document = apply_override(document, f"{node}.{key}={value}")
        for expression in self._widths(choice, channels):
            document = apply_override(document, expression)
        if density is None:  # the dense run is one run, whatever masks it is compared with
            document = (without_masks if choice.name == "dense" else without_densities)(document)
            if self.base.recipe.training.distillation is not None:  # nor does it learn from a dense run: it is one
                document = apply_override(document, "training.distillation=null")
        else:
            both = self.density_of == "both" and channels is None
            key = "sparsity.density" if both else "sparsity.generator.density"
            document = apply_override(document, f"{key}={density!r}")
        if steps is not None and steps != self.steps:
            document = apply_override(document, f"training.steps={steps}")
            if self.base.recipe.evaluation.every:
                every = math.ceil(steps / self.evaluations)
                document = apply_override(document, f"evaluation.every={every}")
        recipe = check_document(document)
        check_served(recipe)
        if not recipe.smoke:
            return recipe
        for key, value in fitted(recipe).items():
            document = apply_override(document, f"sparsity.method.{key}={value}")
        return check_document(document)

    def of_cell(
        self, choice: MethodChoice, density: float | None, seed: int, steps: int, name: str, channels: int | None
    ) -> Recipe:
        """Return :meth:`of` with the published figures of the row that it is."""
        return _with_published(self.of(choice, density, seed, steps, name, channels), self.published)

    def _widths(self, choice: MethodChoice, channels: int | None) -> list[str]:
        """Return what gives the generator another width and leaves the discriminator the one it has."""
        if channels is None and choice.width == 1:
            return []
        widths = build_backbone(self.base.recipe, self.image).widths
        own, wanted = self.width(), channels or self.channels(choice.width)
        kept = [(one.field, one.channels) for role, one in widths.items() if role != "generator"]
        return [f"model.{field}={value}" for field, value in [*kept, (own.field, wanted)]]

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
    loaded = [load_recipe(address, base.overrides) for address in addresses]
    return [_as_compared(row) for row in loaded if row.recipe.published]


def _as_compared(row: LoadedRecipe) -> Recipe:
    """Return a row's recipe, a dense one as its cell is."""
    if row.recipe.sparsity.method.name != "dense":
        return row.recipe
    return row.recipe.model_copy(update={"sparsity": check_document(without_masks(row.document)).sparsity})


def _with_published(recipe: Recipe, rows: Sequence[Recipe]) -> Recipe:
    """Return a cell's recipe with the figures of the row that it is, whatever its seed, and without any other's."""
    identity = run_id(recipe)
    for row in rows:
        if run_id(row.model_copy(update={"seed": recipe.seed})) == identity:
            return recipe.model_copy(update={"published": row.published, "changed": row.changed})
    return recipe.model_copy(update={"published": (), "changed": ()})
