"""Plans of generators that cost the same: found, kept, found again, and corrected by runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.comparison.fitting import Candidate, make_plan
from gancompress.comparison.folder import ComparisonFolder
from gancompress.comparison.grid import split
from gancompress.comparison.pilots import refitted, settled
from gancompress.comparison.plan import plan_path, read_plan, write_plan
from gancompress.comparison.recipes import CellRecipes
from gancompress.comparison.runner import run_missing
from gancompress.comparison.shipped import measuring
from gancompress.comparison.shipping import exported_file

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

__all__ = ["Planning"]


@dataclasses.dataclass(frozen=True)
class Planning:
    """A request of generators that cost the same, and where its plan is kept.

    Attributes:
        base: as for :func:`~gancompress.comparison.fitting.make_plan`, as are the others.
        methods: what is compared.
        densities: of the first method.
        held: what is held equal.
        image: of the data.
        root: directory of comparisons.
        narrow: compare with a narrow dense network too.
        batch: images of a call that is timed.
        force: believe times however they spread.
        say: told what is measured.
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

    @property
    def path(self) -> Path:
        """File of the plan."""
        return plan_path(
            self.root, self.base.recipe, self._choices, self.densities, self.held, self.batch, force=self.force
        )

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
                    narrow=self.narrow, batch=self.batch, force=self.force, say=self.say,
                )  # fmt: skip
            write_plan(self.path, plan)
        return plan

    def learn(
        self,
        plan: Plan,
        lay_out: Callable[[Plan], Grid],
        runner: Runner,
        watcher: Callable[[Grid, ComparisonFolder], contextlib.AbstractContextManager[Watcher]],
    ) -> Grid:
        """Return the comparison of a plan that holds for generators as they are trained, and keep that plan.

        Runs that are trained for it lie where those of the comparison do, which shares them.

        Args:
            plan: what was found.
            lay_out: makes the comparison of a plan; a row's first run is the one that is trained.
            runner: trains.
            watcher: is told how that goes.

        Raises:
            RecipeError: no density of a method costs what it should once trained.
            RunError: the machine is too loaded to measure.
        """

        def train(grid: Grid, waiting: Mapping[int, Row]) -> Trained:
            names = ", ".join(dict.fromkeys(row.choice.label for row in waiting.values()))
            self.say(f"training a run of {names}: what it costs depends on which weights it learns to keep")
            rows = tuple(dataclasses.replace(row, cells=row.cells[:1]) for row in waiting.values())
            several = dataclasses.replace(grid, rows=rows, seeds=grid.seeds[:1])
            folder = ComparisonFolder(self.path.with_suffix(""), runs=self.root / "runs")
            folder.open(several)
            with watcher(several, folder) as watching:
                run_missing(folder, several.cells, runner, watching)
            return {
                index: exported_file(folder, row.cells[0], row.choice.values)
                for index, row in waiting.items()
                if folder.status(row.cells[0]).state == "done"
            }

        def refit(plan: Plan, trained: Trained, last: bool) -> Plan:
            with self._measuring() as meter:
                return refitted(
                    self.base, self._choices, self.held, self.image, meter, plan, trained, last=last, say=self.say
                )

        found = settled(plan, lay_out, train, refit)
        if found.plan is not None and found.plan != plan:
            write_plan(self.path, found.plan)
        return found
