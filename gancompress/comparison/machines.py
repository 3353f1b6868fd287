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
        environment = RunDirectory(folder.run_path(cell)).read_json("environment.json")
        if not _is_of(environment, grid.plan.machine):
            raise RunError(
                f"ran on another machine ({environment.get('processor')}) than the times of this comparison were "
                f"measured on ({grid.plan.machine['name']}): latencies are compared on one machine; run it again here",
                where=str(folder.run_path(cell)),
            )


def _is_of(environment: Mapping[str, Any], machine: Mapping[str, str]) -> bool:
    key = environment.get("processor_key")
    if key is not None:
        return bool(key == machine["processor"])
    return environment.get("processor") in (None, "", machine["name"])
