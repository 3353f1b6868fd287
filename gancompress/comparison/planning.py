"""Plans of generators that cost the same: found, kept, found again, and corrected by runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.comparison.equal_cost import make_plan
from gancompress.comparison.fitting import Candidate
from gancompress.comparison.folder import ComparisonFolder
from gancompress.comparison.grid import split
from gancompress.comparison.pilots import refitted, settled
from gancompress.comparison.plan import amount_text, plan_path, read_plan, write_plan
from gancompress.comparison.recipes import CellRecipes
from gancompress.comparison.results import read_cells
from gancompress.comparison.runner import run_missing
from gancompress.comparison.shipped import measuring
from gancompress.comparison.shipping import exported_file
from gancompress.comparison.sweep import Key, chosen, key_of, merged, sweep_seeds, undecided_part
from gancompress.errors import RunError
from gancompress.experiment.session import DIVERGED

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gancompress.comparison.choices import HeldEqual, MethodChoice
    from gancompress.comparison.fitting import Meter
    from gancompress.comparison.grid import Grid, Row
    from gancompress.comparison.pilots import Trained
    from gancompress.comparison.plan import Plan
    from gancompress.comparison.runner import Runner
    from gancompress.data.base import ImageSpec
    from gancompress.progress import Watcher
    from gancompress.recipe.load import LoadedRecipe

__all__ = ["PilotTrainer", "Planning"]


@dataclasses.dataclass(frozen=True)
class Planning:
    """A request of generators that cost the same, and where its plan is kept.

    Attributes:
        base: as for :func:`~gancompress.comparison.equal_cost.make_plan`, as are the others.
        methods: what is compared.
        densities: of the first method.
        held: what is held equal.
        image: of the data.
        root: directory of comparisons.
        narrow: compare with a narrow dense network too.
        batch: images of a call that is timed.
        force: believe times however they spread.
        say: told what is measured.
        widths: of generators with masks, times the recipe's, among which a sweep chooses; default: none is chosen.
        sweep: runs of it at every width.
    """

    base: LoadedRecipe
    methods: Sequence[MethodChoice]
    densities: Sequence[float]
    held: HeldEqual
    image: ImageSpec
    root: Path
    narrow: bool = True
    batch: int = 16
    force: bool = False
    say: Callable[[str], None] = lambda _: None
    widths: Sequence[float] = ()
    sweep: int = 2

    @property
    def path(self) -> Path:
        """File of the plan."""
        return plan_path(
            self.root, self.base.recipe, self._choices, self.densities, self.held, self.batch, force=self.force,
            widths=self.widths, sweep=self.sweep,
        )  # fmt: skip

    @property
    def _choices(self) -> list[MethodChoice]:
        dense, others = split(self.methods, narrow=self.narrow)
        return [*dense, *others]

    def _measuring(self) -> contextlib.AbstractContextManager[Meter]:
        assert self.held.cost is not None
        dense, *_ = self._choices
        yardstick = Candidate(CellRecipes(self.base, self.image).of(dense, None, self.base.recipe.seed), dense.values)
        return measuring(self.held.cost, yardstick, self.image, self.batch, force=self.force)

    def find(self) -> Plan:
        """Return the plan that was made of the same request, or make and keep one.

        Raises:
            RecipeError: a method cannot cost what it should.
            RunError: the machine is too loaded to measure, or the plan that is there is of another one.
        """
        plan = read_plan(self.path)
        if plan is None:
            self.say(f"measuring which generators have the same {self.held.cost}")
            with self._measuring() as meter:
                plan = make_plan(
                    self.base, self.methods, self.densities, self.held, self.image, meter,
                    widths=self.widths, sweep=sweep_seeds(self.sweep) if self.widths else (), narrow=self.narrow,
                    batch=self.batch, force=self.force, say=self.say,
                )  # fmt: skip
            write_plan(self.path, plan)
        return plan

    def learn(self, plan: Plan, trainer: PilotTrainer) -> Grid:
        """Return the comparison of a plan that holds for generators as they are trained, and keep that plan.

        Widths are chosen first, by runs of seeds of their own. Other runs that are trained for a plan lie where those
        of the comparison do, which shares them.

        Raises:
            RecipeError: no density of a method costs what it should once trained.
            RunError: the machine is too loaded to measure, or no width of a method ended its runs.
        """
        if plan.undecided:
            plan = self._choose_widths(plan, trainer)
        return self._settled(plan, trainer, lambda one: trainer.lay_out(one, None), lambda one: one)

    def _choose_widths(self, plan: Plan, trainer: PilotTrainer) -> Plan:
        names = ", ".join(dict.fromkeys(plan.rows[several[0]].method for several in plan.undecided))
        self.say(f"choosing the width of {names} by runs of other seeds than the comparison's")
        part, whole = undecided_part(plan), plan
        found = self._settled(
            part, trainer, lambda one: trainer.lay_out(one, plan.sweep), lambda one: merged(whole, one)
        )
        assert found.plan is not None
        plan = merged(plan, found.plan)
        waiting = found.plan.waiting
        grid = dataclasses.replace(found, rows=tuple(row for i, row in enumerate(found.rows) if i in waiting))
        if waiting:
            values, higher = self._swept(grid, trainer)
            plan = chosen(plan, values, higher=higher)
        prices = {cell.directory: row.price.training_flops for row in grid.rows for cell in row.cells}
        plan = dataclasses.replace(plan, sweep_runs=len(prices), sweep_flops=float(sum(prices.values())))
        write_plan(self.path, plan)
        for best in plan.rows:
            if best.tried and best.target is not None:
                self.say(f"{best.method}: {best.width:g} times the width for {amount_text(best.target, plan.unit)}")
        return plan

    def _swept(self, grid: Grid, trainer: PilotTrainer) -> tuple[dict[Key, list[float]], bool]:
        """Train and evaluate the runs of a sweep; return the primary metric of every row, and whether higher is better.

        One that diverged ended so: its width is not chosen.

        Raises:
            RunError: others did not end, which would decide what is chosen.
        """
        folder = self._trained(grid, trainer)
        trainer.evaluate(grid, folder)
        cells, metrics, _ = read_cells(grid, folder)
        missing = [cell for own in cells for cell in own if not (cell.done or DIVERGED in cell.reason)]
        if missing:
            reasons = "; ".join(f"{cell.name} {cell.state}: {cell.reason or 'no numbers'}" for cell in missing)
            raise RunError(
                f"runs of the sweep did not end, and widths would be chosen without them ({reasons}); the same command "
                "tries them again",
                where=str(folder.cells),
            )
        primary = next(iter(metrics), "")
        values: dict[Key, list[float]] = {}
        for row, own in zip(grid.rows, cells, strict=True):
            assert row.planned is not None
            last = [cell.last(primary) for cell in own if cell.done]
            values[key_of(row.planned)] = [one for one in last if one is not None]
        return values, metrics.get(primary, False)

    def _settled(
        self, plan: Plan, trainer: PilotTrainer, lay_out: Callable[[Plan], Grid], whole: Callable[[Plan], Plan]
    ) -> Grid:
        """Return the comparison of a plan that holds for generators as they are trained.

        Args:
            plan: fitted with masks that were drawn; perhaps a part of another.
            trainer: trains.
            lay_out: makes the comparison of it.
            whole: puts the part back, to be kept after every correction.
        """

        def train(grid: Grid, waiting: Mapping[int, Row]) -> Trained:
            names = ", ".join(dict.fromkeys(row.choice.label for row in waiting.values()))
            self.say(f"training a run of {names}: what it costs depends on which weights it learns to keep")
            rows = tuple(dataclasses.replace(row, cells=row.cells[:1]) for row in waiting.values())
            folder = self._trained(dataclasses.replace(grid, rows=rows, seeds=grid.seeds[:1]), trainer)
            return {
                index: exported_file(folder, row.cells[0], row.choice.values)
                for index, row in waiting.items()
                if folder.status(row.cells[0]).state == "done"
            }

        def refit(plan: Plan, trained: Trained, last: bool) -> Plan:
            with self._measuring() as meter:
                found = refitted(
                    self.base, self._choices, self.held, self.image, meter, plan, trained, last=last, say=self.say
                )
            write_plan(self.path, whole(found))  # what is trained next lies where this says, however it goes on
            return found

        return settled(plan, lay_out, train, refit)

    def _trained(self, grid: Grid, trainer: PilotTrainer) -> ComparisonFolder:
        """Train what is missing of a grid, beside the runs of comparisons."""
        folder = ComparisonFolder(self.path.with_suffix(""), runs=self.root / "runs")
        folder.open(grid)
        with trainer.watcher(grid, folder) as watching:
            ended = run_missing(folder, grid.cells, trainer.runner, watching)
        for one in ended:
            if one.state != "done":
                self.say(f"warning: {one.cell.name} {one.state}: {one.reason}")
        return folder


@dataclasses.dataclass(frozen=True)
class PilotTrainer:
    """What trains and evaluates runs that a plan depends on.

    Attributes:
        lay_out: makes the comparison of a plan and of seeds; ``None``: those of the comparison.
        runner: trains.
        watcher: is told how that goes.
        evaluate: evaluates runs whose rows ask for other values than they were trained with.
    """

    lay_out: Callable[[Plan, Sequence[int] | None], Grid]
    runner: Runner
    watcher: Callable[[Grid, ComparisonFolder], contextlib.AbstractContextManager[Watcher]]
    evaluate: Callable[[Grid, ComparisonFolder], None]
