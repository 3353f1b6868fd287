"""A recipe looked at without training: ``gancompress.validate``."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from gancompress.api.commands import expressions, resolve
from gancompress.recipe.composition import compose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.api.commands import Overrides, RecipeLike
    from gancompress.data.base import ImageSpec
    from gancompress.experiment.memory import MemoryEstimate
    from gancompress.experiment.ready import OpenedImages
    from gancompress.recipe.load import LoadedRecipe
    from gancompress.sparsity.state import Budget, Name, SparseState

__all__ = ["ImageFacts", "NetworkFacts", "RunFacts", "Validation", "validate"]


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """The images of a recipe, all of them read.

    Attributes:
        count: how many.
        spec: their shape and classes.
        of_class: images of each class; empty without classes.
        warnings: what is odd about them.
    """

    count: int
    spec: ImageSpec
    of_class: tuple[int, ...]
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NetworkFacts:
    """One network as it starts.

    Attributes:
        parameters: all of them.
        budget: what the recipe asks to be kept of its prunable weights.
        state: its first masks.
    """

    parameters: int
    budget: Budget
    state: SparseState


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run of a recipe would start with.

    Attributes:
        networks: by role.
        memory: what it takes.
        free: bytes of memory that are free now; None where nobody says.
        notes: what becomes of the masks of a run that it starts from.
        warnings: what it will not do although it was asked to.
    """

    networks: Mapping[Name, NetworkFacts]
    memory: MemoryEstimate | None
    free: int | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class Validation:
    """A recipe looked at step by step; a step is taken when its attribute is first asked for, and raises if it fails.

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change.
        smoke: look at its smoke run.
    """

    def __init__(self, recipe: RecipeLike, overrides: Overrides = (), *, smoke: bool = False) -> None:
        self._recipe, self._overrides, self._smoke = recipe, overrides, smoke

    @functools.cached_property
    def files(self) -> tuple[Path, ...]:
        """The files that the recipe is made of, all of them YAML; none for a recipe that is not in a file."""
        return compose(self._recipe, expressions(self._overrides)).files if isinstance(self._recipe, str | Path) else ()

    @functools.cached_property
    def loaded(self) -> LoadedRecipe:
        """The recipe, after its keys and values were checked."""
        return resolve(self._recipe, self._overrides, smoke=self._smoke)

    @functools.cached_property
    def components(self) -> dict[str, str]:
        """What it is made of, by kind; its metrics and its extractor can be used here too."""
        from gancompress.experiment.measure import check_evaluation

        recipe = self.loaded.recipe
        check_evaluation(recipe.evaluation)
        parts = {
            "data": recipe.data,
            "model": recipe.model,
            "discriminator": recipe.discriminator,
            "loss": recipe.objective.loss,
            "method": recipe.sparsity.method,
        }
        return {kind: part.name for kind, part in parts.items() if part is not None}

    @functools.cached_property
    def _opened(self) -> OpenedImages:
        from gancompress.experiment.ready import open_images

        return open_images(self.loaded.recipe)

    @functools.cached_property
    def images(self) -> ImageFacts:
        """Its images, which were all read, and can be measured as it says."""
        from gancompress.data.classes import class_counts, data_warnings

        dataset = self._opened.dataset
        return ImageFacts(len(dataset), dataset.spec, class_counts(dataset), tuple(data_warnings(dataset)))

    @functools.cached_property
    def run(self) -> RunFacts:
        """What trains, after it was built and found to fit into memory, and the first masks were drawn."""
        from gancompress.experiment.acceleration import device_of
        from gancompress.experiment.memory import available_memory
        from gancompress.experiment.ready import get_ready
        from gancompress.experiment.shortfall import planned_shortfalls, start_notes
        from gancompress.seeds import kept_global

        recipe = self.loaded.recipe
        with kept_global(device_of(recipe)):
            ready = get_ready(recipe, self._opened)
            engine, free = ready.trainer.engine, available_memory(ready.trainer.device)
        networks = {
            role: NetworkFacts(
                sum(parameter.numel() for parameter in ready.trainer.network(role).parameters()),
                engine.budget(role),
                engine.state(role),
            )
            for role in engine.roles
        }
        return RunFacts(
            networks,
            ready.memory,
            free,
            tuple(start_notes(recipe, engine, ready.kept or ())),
            tuple(planned_shortfalls(engine.method, ready.rounds, engine)),
        )


def validate(recipe: RecipeLike, overrides: Overrides = (), *, smoke: bool = False) -> Validation:
    """Check a recipe, its data and the shapes of its networks without training; as ``gancompress validate``.

    Example::

        gancompress.validate("quickstart", {"sparsity.density": 0.05}).run.networks["generator"].kept

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change.
        smoke: look at its smoke run.

    Returns:
        What was found; every step of it passed.

    Raises:
        GancompressError: whatever would keep it from running.
    """
    found = Validation(recipe, overrides, smoke=smoke)
    for step in ("files", "loaded", "components", "images", "run"):
        getattr(found, step)
    return found
