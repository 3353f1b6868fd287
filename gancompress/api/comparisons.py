"""Methods compared: ``gancompress.compare``, and the two steps of it that the command line takes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.api.commands import plain, resolve
from gancompress.errors import RecipeError, RunError

if TYPE_CHECKING:
    from gancompress.api.commands import Overrides, RecipeLike
    from gancompress.api.outcomes import ComparisonOutcome
    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Grid
    from gancompress.comparison.plan import Plan
    from gancompress.comparison.runner import Outcome, Runner
    from gancompress.comparison.seeds import AutoSeeds
    from gancompress.data.base import Dataset
    from gancompress.progress import Watcher

__all__ = ["PlannedComparison", "compare", "plan_comparison", "run_comparison", "run_seeds"]


def compare(
    recipe: RecipeLike = "compare_digits",
    methods: str | Sequence[str] = ("static", "dst"),
    overrides: Overrides = (),
    *,
    densities: float | Sequence[float] = (),
    seeds: int | str | Sequence[int] = 1,
    until: float | None = None,
    budget: str = "steps",
    widths: Sequence[float] = (),
    sweep: int | None = None,
    values: str | Sequence[str] = (),
    narrow: bool = True,
    jobs: int | None = None,
    out: str | Path = "compare",
    batch: int = 16,
    force: bool = False,
    noise: int = 0,
    smoke: bool = False,
    player: bool = True,
    progress: bool | Watcher = True,
) -> ComparisonOutcome:
    """Compare methods on equal terms, or finish what is missing of it; as ``gancompress compare``.

    Example::

        outcome = gancompress.compare(methods=["dst", "imp"], densities=[0.1, 0.2], seeds=3)
        outcome.rows[0].best.mean

    Args:
        recipe: base of all runs.
        methods: names, with settings if wanted: ``["dst", "dst:growth=random", "imp:rate=0.5"]``.
        overrides: settings of the base recipe to change.
        densities: of the generator, or of both networks where the recipe gives one for both; default: the recipe's own.
        seeds: how many, counted from the recipe's, or which. ``"auto"`` begins with five and adds seeds until the 95 %
            interval of the first method's difference to narrow (without it, to dense) is narrow enough at every density
            or cost, at most 20, ``"auto:30"`` at most 30; every number of seeds is a comparison of its own.
        until: with ``"auto"``, half of that interval, over the mean of what is held against, that is narrow enough;
            default 0.1.
        budget: what every run has the same of: ``steps``, ``flops`` or ``flops=NUMBER``; and what every generator has
            the same of, its density or width fitted to it: ``latency`` or ``latency=MS``, the measured time of an image
            on this machine, ``bytes`` or ``bytes=NUMBER``, of the exported file. Without a number that of the first
            method, at every density. ``"latency,flops"`` is both.
        widths: of the generators of methods with masks, times the recipe's, where ``budget`` gives them the same cost:
            ``[0.5, 1, 1.5]``. A density is fitted to each, and a sweep of runs with seeds of their own chooses the best
            before the comparison begins.
        sweep: runs of every width in it; default: 2.
        values: of the weights of exported files, ``float32``, ``bf16``, ``int8``: each is a row of its own, evaluated
            as exported from a run that was trained all the same.
        narrow: compare with a dense network that is as small as the sparse ones.
        jobs: runs at once, each in a process of its own; default: one per core, at most 4, and 1 on a GPU. 0: one after
            the other in this process, which suits small runs in a notebook and components registered in it.
        out: directory that holds comparisons.
        batch: images of a call that is timed.
        force: believe times however they spread.
        noise: seeds of latents, and of the classifier, that one run of the first method is evaluated with; 0: none.
        smoke: shrink every run as :func:`~gancompress.run` does, to see the comparison work; the numbers mean nothing.
        player: put the generators into the page, where they run; not of smoke runs.
        progress: show how it goes; False is silent; a :class:`~gancompress.progress.Watcher` is told.

    Returns:
        The comparison. Runs that failed are in its ``missing``, each with its reason, and the others count.

    Raises:
        GancompressError: whatever is wrong with the grid; or no run at all ended.
        KeyboardInterrupt: interrupted; the running ones wrote their checkpoints first.
    """
    from gancompress.comparison.runner import InThisProcess, LocalProcesses
    from gancompress.comparison.seeds import parse_auto

    auto = parse_auto(str(seeds), until) if isinstance(seeds, str | int) else parse_auto("0,1", until)

    def plan(seeds: str) -> PlannedComparison:
        planned = plan_comparison(
            recipe,
            methods if isinstance(methods, str) else ",".join(methods),
            overrides,
            densities=",".join(str(plain(one)) for one in _listed(densities)),
            seeds=seeds,
            budget=budget,
            narrow=narrow,
            jobs=jobs,
            out=Path(out),
            smoke=smoke,
            widths=",".join(str(plain(one)) for one in widths),
            sweep=sweep,
            values=values if isinstance(values, str) else ",".join(values),
            batch=batch,
            force=force,
            pilots=at_once,
            progress=progress,
        )
        return dataclasses.replace(planned, noise=noise, player=player)

    def at_once(jobs_at_once: int) -> Runner:
        return InThisProcess() if jobs == 0 else LocalProcesses(jobs_at_once)

    def runner(planned: PlannedComparison) -> Runner:
        return at_once(planned.jobs)

    if auto is not None:
        outcome, ended = run_seeds(auto, plan, runner, progress)
    else:
        told = str(seeds) if isinstance(seeds, int | str) else ",".join([*(str(seed) for seed in seeds), ""])
        planned = plan(told)
        outcome, ended = run_comparison(planned, runner(planned), progress)
    if not outcome.results.tables:
        reasons = "; ".join(f"{one.cell.name} {one.state}: {one.reason}" for one in ended if one.state != "done")
        raise RunError(
            f"no run of this comparison ended: {reasons or 'none was evaluated'}", where=str(outcome.directory)
        )
    return outcome


def run_seeds(
    auto: AutoSeeds,
    plan: Callable[[str], PlannedComparison],
    runner: Callable[[PlannedComparison], Runner],
    progress: bool | Watcher = True,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[ComparisonOutcome, list[Outcome]]:
    """Run comparisons of more and more seeds, which share their runs, until differences are known well enough.

    Args:
        auto: how well, and with how many seeds at most.
        plan: lays out the comparison of so many seeds.
        runner: what runs it.
        progress: as for :func:`run_comparison`.
        say: told how wide intervals are.

    Returns:
        The last comparison, and how the runs ended that were run for it.
    """
    from gancompress.comparison.paired import FEWEST
    from gancompress.comparison.results import collect
    from gancompress.comparison.seeds import widest

    count = FEWEST
    while True:
        planned = plan(str(count))
        ended = _run_cells(planned, runner(planned), progress)
        results = collect(planned.grid, planned.folder)
        if (width := widest(results)) is not None:
            say(f"{count} seeds: half of the widest main interval is {width:.1%} of the mean, asked {auto.until:.1%}")
        following = auto.following(results)
        if following is None:  # no table before the last: one that was shown would count as a look
            return _finish(planned, progress), ended
        count = following


def _listed(value: float | Sequence[float]) -> Sequence[float]:
    return value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


@dataclasses.dataclass(frozen=True)
class PlannedComparison:
    """A comparison that was found possible; nothing is written yet.

    Attributes:
        grid: what is compared.
        folder: where it belongs.
        dataset: its images.
        jobs: runs at once.
        batch: images of a call that is timed.
        force: whether times are believed however they spread.
        command: what repeats it, as it is typed; empty when it was not.
        noise: seeds of latents, and of the classifier, that one run of the first method is evaluated with.
        player: whether the page holds the generators.
        sweep: runs that come before it, of which the first is dense and is not trained, to choose widths; ``None``:
            there are none, or they are done.
    """

    grid: Grid
    folder: ComparisonFolder
    dataset: Dataset[Any]
    jobs: int
    batch: int = 16
    force: bool = False
    command: str = ""
    noise: int = 0
    player: bool = True
    sweep: Grid | None = None


def plan_comparison(
    recipe: RecipeLike,
    methods: str,
    overrides: Overrides = (),
    *,
    densities: str | None,
    seeds: str,
    budget: str,
    narrow: bool,
    jobs: int | None,
    out: Path,
    smoke: bool,
    widths: str | None = None,
    sweep: int | None = None,
    values: str | None = None,
    batch: int = 16,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
    pilots: Callable[[int], Runner] | None = None,
    progress: bool | Watcher = True,
) -> PlannedComparison:
    """Lay out a comparison as it is typed, and check every run of it as far as that goes without training.

    What generators cost is measured here where that is held equal, unless it was before; ``say`` is told of it. Where
    it depends on what is learned, ``pilots`` makes what trains a run of the row, so many at once; without it the row
    is fitted with masks that are drawn.

    Raises:
        GancompressError: the first thing that is wrong.
    """
    from gancompress.comparison.choices import (
        parse_densities,
        parse_held,
        parse_methods,
        parse_seeds,
        parse_values,
        parse_widths,
    )

    choices, asked, held = parse_methods(methods), parse_densities(densities), parse_held(budget)
    wide, exported = parse_widths(widths), parse_values(values)
    if sweep is not None and (sweep < 1 or not wide):
        said = f"at least one run of every width is needed, got {sweep}" if wide else "there are no --widths to choose"
        raise RecipeError(f"sweep: {said}")
    base = resolve(recipe, overrides, smoke=smoke)
    chosen = parse_seeds(seeds, base.recipe.seed)

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import build_grid, check_widths, multiplied
    from gancompress.comparison.machines import refuse_other_machines
    from gancompress.comparison.runner import cores
    from gancompress.experiment.acceleration import device_of
    from gancompress.experiment.assemble import build_dataset
    from gancompress.experiment.memory import check_networks
    from gancompress.experiment.networks import build_architecture

    dataset = build_dataset(base.recipe)
    check_networks(base.recipe, build_architecture(base.recipe, dataset.spec), device_of(base.recipe))
    check_widths(choices, wide, held)
    choices = multiplied(choices, exported)
    wished = 1 if device_of(base.recipe).type == "cuda" else min(4, cores())

    def lay_out(plan: Plan | None, seeds: Sequence[int] | None = None) -> Grid:
        own, sweeping = chosen if seeds is None else seeds, seeds is not None
        return build_grid(base, choices, asked, own, held, narrow=narrow, dataset=dataset, plan=plan, sweeping=sweeping)

    swept: Grid | None = None
    if held.cost is None:
        grid = lay_out(None)
    else:
        from gancompress.comparison.planning import PilotTrainer, Planning
        from gancompress.comparison.shipping import evaluate_exported
        from gancompress.comparison.sweep import at_first_sight, undecided_part

        request = Planning(
            base, choices, asked, held, dataset.spec, out, narrow, batch, force, say, widths=wide, sweep=sweep or 2
        )
        plan = request.find()
        grid = lay_out(at_first_sight(plan))  # what is wrong with a row is said before anything is trained
        refuse_other_machines(grid, ComparisonFolder.of(out, grid))
        if pilots is None:
            swept = lay_out(undecided_part(plan), plan.sweep) if plan.undecided else None
        else:
            watcher = partial(_watching, dataset, progress)
            evaluate = partial(evaluate_exported, dataset=dataset, say=say)
            grid = request.learn(plan, PilotTrainer(lay_out, pilots(jobs or wished), watcher, evaluate))
            refuse_other_machines(grid, ComparisonFolder.of(out, grid))  # other widths and densities are other runs
    folder, jobs = ComparisonFolder.of(out, grid), max(1, min(jobs or wished, len(grid.cells)))
    return PlannedComparison(grid, folder, dataset, jobs, batch, force, sweep=swept)


@contextlib.contextmanager
def _watching(
    dataset: Dataset[Any], progress: bool | Watcher, grid: Grid, folder: ComparisonFolder
) -> Iterator[Watcher]:
    """Yield what is told of a grid's runs, once what all of them are evaluated with is there."""
    from gancompress.evaluation.extractors import build_extractor
    from gancompress.experiment.acceleration import device_of

    # trained or loaded once, rather than in every process at the same time
    dataset.prepare()
    build_extractor(grid.base.evaluation.extractor, dataset, device=device_of(grid.base))
    with _telling(progress, grid, folder) as told:
        yield told


@contextlib.contextmanager
def _telling(progress: bool | Watcher, grid: Grid, folder: ComparisonFolder) -> Iterator[Watcher]:
    """Yield what is told of a grid's runs."""
    from gancompress.progress import ComparisonProgress, Silent

    if progress is not True:
        yield Silent() if progress is False else progress
        return
    shown = ComparisonProgress(grid, folder)
    try:
        yield shown
    finally:
        shown.end()


def run_comparison(
    planned: PlannedComparison, runner: Runner, progress: bool | Watcher = True
) -> tuple[ComparisonOutcome, list[Outcome]]:
    """Run what is missing of a comparison and write its tables and its page.

    Returns:
        The comparison, and how the runs ended that were run now.

    Raises:
        KeyboardInterrupt: stopped by a signal, after the running ones wrote their checkpoints.
    """
    ended = _run_cells(planned, runner, progress)
    return _finish(planned, progress), ended


def _run_cells(planned: PlannedComparison, runner: Runner, progress: bool | Watcher) -> list[Outcome]:
    """Run what is missing, and evaluate what is exported with other values."""
    from gancompress.comparison.runner import run_missing
    from gancompress.comparison.shipping import evaluate_exported

    grid, folder = planned.grid, planned.folder
    folder.open(grid)
    with _watching(planned.dataset, progress, grid, folder) as told:
        ended = run_missing(folder, grid.cells, runner, told)
        evaluate_exported(grid, folder, planned.dataset, _say(told))
    return ended


def _finish(planned: PlannedComparison, progress: bool | Watcher) -> ComparisonOutcome:
    """Measure what the generators take, and write the tables and the page."""
    from gancompress.api.outcomes import ComparisonOutcome
    from gancompress.api.player import make_player
    from gancompress.comparison.noise import measure_noise
    from gancompress.comparison.results import collect
    from gancompress.comparison.shipping import ship
    from gancompress.report.comparison import build_comparison, shown_generators
    from gancompress.report.player import NOTE

    grid, folder = planned.grid, planned.folder
    with _telling(progress, grid, folder) as told:
        ship(grid, folder, planned.batch, force=planned.force, say=_say(told))
        measure_noise(grid, folder, planned.dataset, planned.noise, _say(told))
    results = collect(grid, folder)
    if planned.player:
        for _, run in shown_generators(results):  # of runs in this process, and of earlier versions
            if not (run / NOTE).is_file():
                make_player(run)
    return ComparisonOutcome(results, build_comparison(results, planned.command, player=planned.player))


def _say(told: Watcher) -> Callable[[str], None]:
    from gancompress.progress import ComparisonProgress

    return told.message if isinstance(told, ComparisonProgress) else lambda _: None
