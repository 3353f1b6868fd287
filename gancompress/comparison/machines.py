"""Which machine a comparison of times belongs to: runs of another are refused before anything more is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.errors import RunError
from gancompress.runs.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Grid

__all__ = ["refuse_other_machines"]


def refuse_other_machines(grid: Grid, folder: ComparisonFolder) -> None:
    """Refuse a comparison of latencies of which a finished run ran elsewhere than its times were measured.

    Runs that say no more than the name of their processor are told apart by it.

    Raises:
        RunError: one did.
    """
    if grid.plan is None or grid.plan.cost != "latency":
        return
    for cell in grid.cells:
        if folder.status(cell).state != "done":
            continue
        try:
            environment = RunDirectory(folder.run_path(cell)).read_json("environment.json")
        except RunError:  # damaged, which is said of the run where it is read
            continue
        here, there = _told_apart(environment, grid.plan.machine)
        if here != there:
            raise RunError(
                f"ran on another machine ({there}) than the times of this comparison were measured on ({here}): "
                "latencies are compared on one machine; delete it to run it again here, or compare in another place",
                where=str(folder.run_path(cell)),
            )


def _told_apart(environment: Mapping[str, Any], machine: Mapping[str, str]) -> tuple[str, str]:
    """Return what tells the machine of a plan from that of a run, as far as the run says."""
    key = environment.get("processor_key")
    if key is not None:
        return machine["processor"], str(key)
    return machine["name"], str(environment.get("processor") or machine["name"])
