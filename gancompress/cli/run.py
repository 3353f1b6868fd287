"""``gancompress run`` and ``gancompress train``: a recipe in, a run directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gancompress.cli.app import RecipeArgument, SetOption
from gancompress.errors import RunError

__all__ = ["run", "train"]

OutOption = Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")]


def run(recipe: RecipeArgument, set_: SetOption = None, out: OutOption = Path("runs")) -> None:
    """Train, evaluate and report a recipe; the same command resumes.

    Example: gancompress run quickstart --set seed=1
    """
    _execute(recipe, set_ or [], out, evaluates=True)


def train(recipe: RecipeArgument, set_: SetOption = None, out: OutOption = Path("runs")) -> None:
    """Train a recipe without evaluating it; `gancompress run` evaluates the result later.

    Example: gancompress train quickstart --set training.steps=500
    """
    _execute(recipe, set_ or [], out, evaluates=False)


def _execute(recipe: str, overrides: list[str], out: Path, *, evaluates: bool) -> None:
    from gancompress.recipe.identity import directory_name
    from gancompress.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides=tuple(overrides))
    if (Path(recipe) / "recipe.yaml").is_file():
        out = _parent_of_run(Path(recipe), directory_name(loaded.recipe))

    from gancompress.assemble import device_of
    from gancompress.experiment import Experiment
    from gancompress.progress import progress
    from gancompress.report.html import build_report
    from gancompress.report.tables import print_summary
    from gancompress.training.groups import Group

    with Group.from_environment(device_of(loaded.recipe)) as group:
        result = Experiment(
            loaded.recipe, out, progress() if group.is_main else None, evaluates=evaluates, group=group
        ).run()
    if not group.is_main:
        return
    page = build_report(result.directory)
    print_summary(result.directory)
    typer.echo(f"report: {page}")


def _parent_of_run(directory: Path, name: str) -> Path:
    """Return where a run directory lies, so that the run goes on in it and not beside it."""
    if directory.resolve().name != name:
        raise RunError(
            f"its recipe would run in {name}: the recipe was changed; copy the recipe elsewhere and run the copy",
            where=str(directory),
        )
    return directory.resolve().parent
