"""``gancompress validate``: everything that can be checked before training, in five steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from gancompress.cli.app import RecipeArgument, SetOption, SmokeOption, color
from gancompress.errors import GancompressError

if TYPE_CHECKING:
    from gancompress.api.validation import ImageFacts, NetworkFacts, RunFacts, Validation

__all__ = ["validate"]

_STEPS = ("YAML", "schema", "components", "data", "shapes")


def validate(recipe: RecipeArgument, set_: SetOption = None, smoke: SmokeOption = False) -> None:
    """Check a recipe, its data and the shapes of its networks without training.

    Five steps: the YAML, the schema, the components it names, the images on disk, one forward pass of both networks.
    The first one that fails says why.

    Example: gancompress validate quickstart
    """
    from gancompress.api.validation import Validation
    from gancompress.components.plugins import command_line
    from gancompress.recipe.document import show_path

    found = Validation(recipe, set_ or (), smoke=smoke)
    with _step(1):
        files = found.files
    _passed(1, " <- ".join(show_path(file) for file in files))
    _passed(2, f"{_keys(found)} keys")
    with _step(3):
        components = found.components
    _passed(3, ", ".join(f"{kind} {name}" for kind, name in components.items()))
    with _step(4):
        images = found.images
    _passed(4, *_image_lines(images, smoke=found.loaded.recipe.smoke))
    with _step(5):
        facts = found.run
    _passed(5, *_run_lines(facts))
    arguments = [recipe, *(part for one in set_ or () for part in ("--set", one)), *(["--smoke"] if smoke else [])]
    typer.echo(f"ready: {command_line('run', *arguments)}")


def _keys(found: Validation) -> int:
    """Return how many keys were written; the mistakes of steps 2 and 3 are found together and reported together."""
    from gancompress.recipe.mistakes import InvalidRecipeError

    try:
        return sum(1 for path in found.loaded.document.marks if path)
    except InvalidRecipeError as error:
        if "schema" in {mistake.stage for mistake in error.mistakes}:
            _failed(2)
        else:
            _passed(2)
            _failed(3)
        raise


def _image_lines(images: ImageFacts, *, smoke: bool) -> list[str]:
    spec = images.spec
    lines = [f"{images.count:,} images, {spec.resolution}x{spec.resolution}, {'grey' if spec.channels == 1 else 'RGB'}"]
    if smoke:
        lines.append("drawn for the smoke run, which reads none of the recipe's")
    if counts := images.of_class:
        lines.append(f"{spec.num_classes} classes, {min(counts):,} to {max(counts):,} images each")
        lines += _histogram(spec.classes, counts)
    else:
        lines.append("no classes")
    return [*lines, *(f"warning: {line}" for line in images.warnings)]


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


def _run_lines(facts: RunFacts) -> list[str]:
    from gancompress.units import size

    lines = [*facts.notes, *(f"warning: {line}" for line in facts.warnings)]
    lines += [_network_line(role, network) for role, network in facts.networks.items()]
    if facts.memory is not None:
        free = f"; {size(facts.free)} are free" if facts.free is not None else ""
        lines.append(f"memory         {facts.memory.describe()}{free}")
    return lines


def _network_line(role: str, network: NetworkFacts) -> str:
    budget, state = network.budget, network.state
    asked = "" if state.nonzeros == budget.total else f" ({budget.exact_density:.4f} asked)"
    units = f"; pattern {budget.pattern}, {budget.unstructured:,} stay unstructured" if budget.units else ""
    return (
        f"{role:<13}  {network.parameters:>11,} parameters; of {sum(budget.sizes.values()):,} prunable weights in "
        f"{len(budget.sizes)} layers {state.nonzeros:,} are kept at the start: density {state.density:.4f}"
        f"{asked}{units}"
    )


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
