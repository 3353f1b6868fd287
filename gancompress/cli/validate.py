"""``gancompress validate``: everything that can be checked before training, in five steps."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from gancompress.cli.app import RecipeArgument, SetOption, SmokeOption, color
from gancompress.errors import GancompressError

if TYPE_CHECKING:
    from gancompress.data.base import Dataset
    from gancompress.recipe.load import LoadedRecipe

__all__ = ["validate"]

_STEPS = ("YAML", "schema", "components", "data", "shapes")


def validate(recipe: RecipeArgument, set_: SetOption = None, smoke: SmokeOption = False) -> None:
    """Check a recipe, its data and the shapes of its networks without training.

    Five steps: the YAML, the schema, the components it names, the images on disk, one forward pass of both networks.
    The first one that fails says why.

    Example: gancompress validate quickstart
    """
    from gancompress.components.plugins import plugin_options
    from gancompress.recipe.document import show_path
    from gancompress.recipe.layers import compose

    with _step(1):
        composed = compose(recipe, set_ or ())
    _passed(1, " <- ".join(show_path(file) for file in composed.files))

    loaded = _check(recipe, set_ or [], smoke)
    with _step(4):
        dataset, images, lines = _data(loaded)
    _passed(4, *lines)
    with _step(5):
        lines = _shapes(loaded, dataset, images)
    _passed(5, *lines)
    arguments = [recipe, *(part for one in set_ or () for part in ("--set", one)), *(["--smoke"] if smoke else [])]
    typer.echo(f"ready: gancompress run {shlex.join([*arguments, *plugin_options(typed=True)])}")


def _check(address: str, overrides: list[str], smoke: bool) -> LoadedRecipe:
    """Run steps 2 and 3, which find their mistakes together and report them together."""
    from gancompress.experiment.measure import check_evaluation
    from gancompress.recipe.load import load_recipe
    from gancompress.recipe.mistakes import InvalidRecipeError

    try:
        loaded = load_recipe(address, tuple(overrides), smoke)
    except InvalidRecipeError as error:
        stages = {mistake.stage for mistake in error.mistakes}
        if "schema" in stages:
            _failed(2)
        else:
            _passed(2)
            _failed(3)
        raise
    recipe = loaded.recipe
    written = sum(1 for path in loaded.document.marks if path)
    _passed(2, f"{written} keys")
    with _step(3):
        check_evaluation(recipe.evaluation)
    _passed(
        3,
        f"data {recipe.data.name}, model {recipe.model.name}, loss {recipe.objective.loss.name}, "
        f"method {recipe.sparsity.method.name}",
    )
    return loaded


def _data(loaded: LoadedRecipe) -> tuple[Dataset[Any], int, list[str]]:
    """Open the images, read every one of them, and count their classes; also return the bytes they take."""
    from gancompress.data.classes import class_counts, data_warnings
    from gancompress.experiment.assemble import build_dataset
    from gancompress.experiment.memory import check_images

    dataset = build_dataset(loaded.recipe)
    images = check_images(dataset)
    dataset.prepare()
    spec = dataset.spec
    lines = [f"{len(dataset):,} images, {spec.resolution}x{spec.resolution}, {'grey' if spec.channels == 1 else 'RGB'}"]
    if loaded.recipe.smoke:
        lines.append("drawn for the smoke run, which reads none of the recipe's")
    if counts := class_counts(dataset):
        lines.append(f"{spec.num_classes} classes, {min(counts):,} to {max(counts):,} images each")
        lines += _histogram(spec.classes, counts)
    else:
        lines.append("no classes")
    return dataset, images, [*lines, *(f"warning: {line}" for line in data_warnings(dataset))]


def _histogram(names: tuple[str, ...], counts: tuple[int, ...], most: int = 20) -> list[str]:
    """Return a bar per class; of many classes only the largest and the smallest."""
    shown = list(range(len(names)))
    if len(names) > most:
        ranked = sorted(shown, key=lambda index: (-counts[index], index))
        shown = ranked[: most // 2] + ranked[-most // 2 :]
    width = max(len(names[index]) for index in shown)
    longest = max(1, *counts)
    bars = [
        f"{names[index]:<{width}}  {counts[index]:>7,}  {'#' * round(30 * counts[index] / longest)}".rstrip()
        for index in shown
    ]
    if len(names) > most:
        bars.insert(most // 2, f"… {len(names) - most} more classes …")
    return bars


def _shapes(loaded: LoadedRecipe, dataset: Dataset[Any], images: int) -> list[str]:
    """Build everything that trains, as `run` does, and say what the densities keep."""
    from gancompress.experiment.acceleration import device_of
    from gancompress.experiment.assemble import build_trainer, declared_rounds
    from gancompress.experiment.budgets import ROLES
    from gancompress.experiment.initial import load_initial
    from gancompress.experiment.measure import check_measurable
    from gancompress.experiment.memory import available_memory, check_memory, check_networks
    from gancompress.experiment.networks import build_backbone
    from gancompress.experiment.shortfall import planned_shortfalls, start_notes
    from gancompress.report.words import size

    check_networks(loaded.recipe, build_backbone(loaded.recipe, dataset.spec), device_of(loaded.recipe))
    trainer = build_trainer(loaded.recipe, dataset)
    memory = check_memory(loaded.recipe, trainer, images=images)
    free = available_memory(trainer.device)
    masks = load_initial(loaded.recipe, trainer.network("generator"), trainer.network("discriminator"))
    rounds = declared_rounds(loaded.recipe, trainer)
    kept = trainer.engine.init(trainer.probe, masks)
    check_measurable(loaded.recipe.evaluation, dataset)
    lines = start_notes(loaded.recipe, trainer.engine, kept)
    lines += [f"warning: {line}" for line in planned_shortfalls(trainer.engine.method, rounds, trainer.engine)]
    for role in ROLES:
        every = sum(parameter.numel() for parameter in trainer.network(role).parameters())
        budget, state = trainer.engine.budget(role), trainer.engine.state(role)
        asked = "" if state.nonzeros == budget.total else f" ({budget.exact_density:.4f} asked)"
        units = f"; pattern {budget.pattern}, {budget.unstructured:,} stay unstructured" if budget.units else ""
        lines.append(
            f"{role:<13}  {every:>11,} parameters; of {sum(budget.sizes.values()):,} prunable weights in "
            f"{len(budget.sizes)} layers {state.nonzeros:,} are kept at the start: density {state.density:.4f}{asked}"
            f"{units}"
        )
    lines.append(f"memory         {memory.describe()}" + (f"; {size(free)} are free" if free is not None else ""))
    return lines


# --------------------------------------------------------------------------- how the steps are shown


@contextmanager
def _step(number: int) -> Iterator[None]:
    try:
        yield
    except GancompressError:
        _failed(number)
        raise


def _passed(number: int, *lines: str) -> None:
    first, *more = lines or ("",)
    typer.echo(f"{_label(number)} {_word('ok', 'green')}      {first}".rstrip())
    for line in more:
        typer.echo(" " * 23 + line)


def _failed(number: int) -> None:
    typer.echo(f"{_label(number)} {_word('failed', 'red')}")


def _label(number: int) -> str:
    return f"{number}/{len(_STEPS)} {_STEPS[number - 1]:<10}"


def _word(text: str, hue: str) -> str:
    return typer.style(text, fg=hue) if color() else text
