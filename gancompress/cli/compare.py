"""``gancompress compare``: methods against each other, dense and a narrow dense network, on equal terms."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gancompress.cli.app import SetOption, SmokeOption, key_values
from gancompress.errors import GancompressError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gancompress.api.comparisons import PlannedComparison
    from gancompress.comparison.runner import Outcome, Runner
    from gancompress.comparison.seeds import AutoSeeds

__all__ = ["compare"]


#: where cells run
ExecutorName = StrEnum("ExecutorName", "local slurm submitit debug")


def compare(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Base recipe: a file, a run directory or a shipped name. [default: compare_digits]"),
    ] = None,
    methods: Annotated[
        str,
        typer.Option("--methods", metavar="M,M", help="Methods, with settings if wanted: dst,dst:growth=random,imp."),
    ] = "static,dst",
    recipe_option: Annotated[str | None, typer.Option("--recipe", help="The same as RECIPE.")] = None,
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds", help="How many seeds, a list such as 0,1,2, or auto (auto:30): as many as --until takes."
        ),
    ] = "1",
    until: Annotated[
        float | None,
        typer.Option("--until", help="With --seeds auto: half of the main interval, over the mean. [default: 0.1]"),
    ] = None,
    density: Annotated[
        str | None, typer.Option("--density", metavar="D,D", help="Densities. [default: the recipe's]")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            help="What every run has the same of: steps, flops, flops=NUMBER; and every generator, its density or "
            "width fitted to it: latency, latency=MS of an image, bytes, bytes=200k. latency,flops is both.",
        ),
    ] = "steps",
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            metavar="W,W",
            help="With --budget latency or bytes: widths of generators with masks, times the recipe's, such as "
            "0.5,1,1.5. A sweep chooses the best before the comparison.",
        ),
    ] = None,
    sweep: Annotated[
        int | None,
        typer.Option("--sweep", min=1, help="Runs of every width in that sweep, of seeds of their own. [default: 2]"),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option("--values", metavar="V,V", help="Values of exported files: float32,bf16,int8, a row for each."),
    ] = None,
    narrow: Annotated[
        bool, typer.Option("--narrow/--no-narrow", help="Compare with a dense network as small as the sparse ones.")
    ] = True,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at once. [default: one per core, at most 4; 1 on a GPU]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Directory that holds comparisons.")] = Path("compare"),
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images of a call whose time is held equal.")] = 16,
    force: Annotated[bool, typer.Option("--force", help="Believe measured times however they spread.")] = False,
    noise: Annotated[
        int,
        typer.Option("--noise", min=0, help="Evaluate one run with so many seeds of latents and classifiers."),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the grid and what it will cost, and stop.")] = False,
    set_: SetOption = None,
    smoke: SmokeOption = False,
    player: Annotated[
        bool,
        typer.Option(
            "--player/--no-player", help="Put the generators into the page, where they run; not of smoke runs."
        ),
    ] = True,
    executor: Annotated[
        ExecutorName,
        typer.Option("--executor", help="local: processes here; the others need submitit, debug runs in this process."),
    ] = ExecutorName.local,
    cluster: Annotated[
        list[str] | None,
        typer.Option("--cluster", metavar="KEY=VALUE", help="Setting of submitit, e.g. slurm_partition=gpu."),
    ] = None,
) -> None:
    """Compare methods on equal terms; the same command finishes what is missing.

    Every method, density and seed is an ordinary run in its own process, with dense and a narrow dense network beside
    them. Rounds and pre-training are charged to the method that needs them.

    Example: gancompress compare --methods dst,imp
    """
    if recipe is not None and recipe_option is not None and recipe != recipe_option:
        raise RecipeError(f"two recipes were given, {recipe} and --recipe {recipe_option}; give one")
    settings = _cluster_settings(cluster, executor)

    from gancompress.api.comparisons import plan_comparison
    from gancompress.comparison.paired import FEWEST
    from gancompress.comparison.seeds import parse_auto
    from gancompress.report.dry_run import planned_comparison

    auto = parse_auto(seeds, until)

    def plan(seeds: str, pilots: Callable[[int], Runner] | None = None) -> PlannedComparison:
        planned = plan_comparison(
            recipe or recipe_option or "compare_digits",
            methods,
            set_ or (),
            densities=density,
            seeds=seeds,
            budget=budget,
            narrow=narrow,
            jobs=jobs,
            out=out,
            smoke=smoke,
            widths=widths,
            sweep=sweep,
            values=values,
            batch=batch,
            force=force,
            say=lambda text: typer.echo(text, err=True),
            pilots=pilots,
        )
        return dataclasses.replace(
            planned, command=shlex.join(["gancompress", *sys.argv[1:]]), noise=noise, player=player
        )

    def runner(at_once: int) -> Runner:
        return _runner(executor, at_once, settings)

    if dry_run:
        planned = plan(seeds if auto is None else str(FEWEST))
        again = shlex.join(argument for argument in sys.argv[1:] if argument != "--dry-run")
        for text in planned_comparison(planned.grid, planned.folder, planned.jobs, planned.sweep):
            typer.echo(text)
        typer.echo(f"to start it: gancompress {again}")
        return
    _run(lambda seeds: plan(seeds, runner), seeds, auto, lambda planned: runner(planned.jobs))


def _cluster_settings(items: list[str] | None, executor: ExecutorName) -> dict[str, Any]:
    if items and executor is ExecutorName.local:
        raise RecipeError("--cluster says how jobs are submitted, but --executor is local; add --executor slurm")
    return key_values("--cluster", items or (), "slurm_partition=gpu")


def _runner(executor: ExecutorName, jobs: int, settings: Mapping[str, Any]) -> Runner:
    from gancompress.comparison.runner import LocalProcesses, Submitted, cores

    if executor is ExecutorName.local:
        return LocalProcesses(jobs)
    cluster = "local" if executor is ExecutorName.submitit else executor.value
    return Submitted(cluster, threads=max(1, cores() // jobs), parameters=settings)


def _run(
    plan: Callable[[str], PlannedComparison],
    seeds: str,
    auto: AutoSeeds | None,
    runner: Callable[[PlannedComparison], Runner],
) -> None:
    from gancompress.api.comparisons import run_comparison, run_seeds
    from gancompress.api.outcomes import print_outcome

    def announced(seeds: str) -> PlannedComparison:
        planned = plan(seeds)
        grid, folder = planned.grid, planned.folder
        for message in grid.messages:
            typer.echo(f"note: {message}", err=True)
        typer.echo(
            f"comparing {len(grid.cells)} runs, {planned.jobs} at once, in {folder.path} "
            f"({sum(folder.status(cell).state == 'done' for cell in grid.cells)} done)",
            err=True,
        )
        return planned

    try:
        if auto is None:
            planned = announced(seeds)
            outcome, ended = run_comparison(planned, runner(planned))
        else:
            outcome, ended = run_seeds(auto, announced, runner, say=lambda text: typer.echo(text, err=True))
    except KeyboardInterrupt:
        typer.echo("stopped; the same command finishes what is missing", err=True)
        raise
    print_outcome(outcome)
    typer.echo(f"report: {outcome.report}")
    failed = [one for one in ended if one.state != "done"]
    if failed:
        raise _FailedCellsError(failed, outcome.directory / "cells")


class _FailedCellsError(GancompressError):
    """Some runs of a comparison failed."""

    def __init__(self, failed: list[Outcome], logs: Path) -> None:
        lines = [f"{outcome.cell.name} {outcome.state}: {outcome.reason}" for outcome in failed]
        lines.append(f"{len(failed)} of the runs did not end; what they said is in {logs}/*.log")
        super().__init__("\n".join(lines))
