"""What generators were found to cost when a comparison was laid out, kept for the same command.

Plans lie beside the comparisons and are shared by them as runs are: more seeds are another comparison of the same rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, cast

from gancompress import kernels
from gancompress.errors import RunError
from gancompress.kernels.measured import processor_key, processor_name
from gancompress.recipe.identity import run_id
from gancompress.storage.atomic import write_json
from gancompress.storage.reading import parse_json, read_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gancompress.comparison.choices import Cost, HeldEqual, MethodChoice
    from gancompress.recipe.schema import Recipe

__all__ = [
    "FARTHEST",
    "FORCED",
    "Plan",
    "PlannedRow",
    "amount_text",
    "plan_path",
    "read_plan",
    "this_machine",
    "write_plan",
]

_FORMAT = 2
#: how far from what was asked for a cost may be, as a share of it, and one that was believed by force
FARTHEST, FORCED = 0.1, 0.5


@dataclasses.dataclass(frozen=True)
class PlannedRow:
    """What one row's generator was found to cost.

    Attributes:
        method: label of its method.
        target: milliseconds of an image, or bytes, that it was to cost; ``None`` for dense networks.
        density: that its recipe asks of the generator; ``None`` for dense networks.
        channels: width of its generator, where that was fitted and everything is kept.
        amount: milliseconds of an image, or bytes, that it costs.
        spread: of a time, about a standard error of its median, as a share of it; of bytes, 0.
        runtime: what it ran on.
        learned: a run of its was trained and this is what its generator costs; else masks were drawn.
        width: times the recipe's, of a generator whose width is chosen by a sweep; ``None``: what its method says.
        tried: the primary metric at the end of the runs of that sweep.
        drawn: what it costs with masks that are drawn, where ``amount`` is, or is to be, that of learned ones.
    """

    method: str
    target: float | None
    density: float | None
    channels: int | None
    amount: float
    spread: float
    runtime: str
    learned: bool = False
    width: float | None = None
    tried: tuple[float, ...] = ()
    drawn: float | None = None

    @property
    def apart(self) -> float:
        """How far its cost is from what was asked, as a share of that."""
        return 0.0 if self.target is None else abs(self.amount / self.target - 1)

    @property
    def name(self) -> str:
        """Its method, and the width that tells it from others of it, as they are said."""
        return self.method if self.width in (None, 1) else f"{self.method} at {self.width:g} times the width"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows whose generators cost the same.

    Attributes:
        cost: what they have the same of.
        batch: images of a call that was timed.
        machine: what it was measured on.
        rows: dense networks first. Rows of one method, cost and another width each wait for a sweep to choose one.
        swept: rows of every width that a sweep tried, once it chose.
        sweep: seeds of the runs of that sweep.
        sweep_runs: how many these were.
        sweep_flops: what they were trained for, which no row is charged with.
        notes: in sentences, widths that no density gives the cost, and what costs no more than what was asked for.
        forced: costs were believed however unsure they were.
    """

    cost: Cost
    batch: int
    machine: dict[str, str]
    rows: tuple[PlannedRow, ...]
    swept: tuple[PlannedRow, ...] = ()
    sweep: tuple[int, ...] = ()
    sweep_runs: int = 0
    sweep_flops: float = 0.0
    notes: tuple[str, ...] = ()
    forced: bool = False

    @property
    def unit(self) -> Literal["ms", "bytes"]:
        """Of its amounts."""
        return "ms" if self.cost == "latency" else "bytes"

    @property
    def farthest(self) -> float:
        """How far from what was asked for a cost may be, as a share of it."""
        return FORCED if self.forced else FARTHEST

    @property
    def waiting(self) -> set[int]:
        """Places of all rows that wait for a sweep."""
        return {index for several in self.undecided for index in several}

    @property
    def undecided(self) -> list[list[int]]:
        """Places of rows that wait for a sweep: of every method and cost, those of its widths."""
        found: dict[tuple[str, float | None], list[int]] = {}
        for index, row in enumerate(self.rows):
            if row.width is not None:
                found.setdefault((row.method, row.target), []).append(index)
        return [several for several in found.values() if len(several) > 1]


def this_machine() -> dict[str, str]:
    """Return what tells this machine from others, as far as times go."""
    return {"name": processor_name(), "processor": processor_key(), "kernels": kernels.status().isa or "none"}


def amount_text(amount: float, unit: str) -> str:
    """Return milliseconds, or bytes, as they are said."""
    return f"{amount:.4g} ms" if unit == "ms" else f"{amount:,.0f} bytes"


def plan_path(
    root: Path,
    base: Recipe,
    choices: Sequence[MethodChoice],
    densities: Sequence[float],
    held: HeldEqual,
    batch: int,
    *,
    force: bool = False,
    widths: Sequence[float] = (),
    sweep: int = 0,
) -> Path:
    """Return where the plan of a request belongs: whatever its seeds, and whatever training has the same of.

    One that was forced is another one: who does not force does not believe it. With widths among which runs choose,
    what training has the same of counts too.
    """
    identity = run_id(base.model_copy(update={"seed": 0}))
    labels = [choice.label for choice in choices]
    more = [*(["forced"] if force else []), *([[*widths], sweep, held.axis, held.flops] if widths else [])]
    text = json.dumps([identity, labels, list(densities), held.cost, held.amount, batch, *more])
    key = hashlib.blake2b(text.encode(), digest_size=4, person=b"gancompress-pln").hexdigest()
    return root / "plans" / f"{base.name}-{key}.json"


def write_plan(path: Path, plan: Plan) -> None:
    """Keep a plan.

    Raises:
        RunError: the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": _FORMAT, **dataclasses.asdict(plan)})
    except OSError as error:
        raise RunError(f"cannot write the plan: {error.strerror}", where=str(path)) from error


def read_plan(path: Path) -> Plan | None:
    """Read a plan; ``None`` when there is none.

    Raises:
        RunError: it is damaged, says what cannot be, or holds times of another machine.
    """
    if not path.exists():
        return None
    try:
        content = parse_json(read_whole(path))
        if content.pop("format") != _FORMAT:
            raise ValueError("of another version, which may have given rows less than the time buys")
        for key in ("rows", "swept"):
            content[key] = tuple(map(_read_row, content.get(key, ())))
        for key in ("sweep", "notes"):
            content[key] = tuple(content.get(key, ()))
        plan = Plan(**content)
        _check(plan)
    except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise RunError(
            f"no plan of a comparison ({error}); delete it to measure again, or compare in another directory",
            where=str(path),
        ) from error
    here = this_machine()
    if plan.cost == "latency" and plan.machine != here:
        raise RunError(
            f"holds times of another machine ({plan.machine['name']}, kernels {plan.machine['kernels']}; this is "
            f"{here['name']}, kernels {here['kernels']}): go on there, or compare in another --out".replace(
                "--out", "directory"
            ),
            where=str(path),
        )
    return plan


def _read_row(content: dict[str, Any]) -> PlannedRow:
    return PlannedRow(**{**content, "tried": tuple(content.get("tried", ()))})


def _check(plan: Plan) -> None:
    if plan.cost not in ("latency", "bytes") or not all(type(one) is str for one in plan.machine.values()):
        raise ValueError("no cost that is held equal")
    if plan.machine.keys() != this_machine().keys() or type(plan.batch) is not int:
        raise ValueError("no machine that it was measured on")
    if not plan.rows:
        raise ValueError("no rows")
    if not all(type(one) is int for one in plan.sweep) or not all(type(one) is str for one in plan.notes):
        raise ValueError("no seeds of a sweep")
    for row in (*plan.rows, *plan.swept):
        numbers = [cast("float", one) for one in dataclasses.asdict(row).values() if type(one) in (int, float)]
        if not all(type(one) is float and math.isfinite(one) for one in row.tried):
            raise ValueError(f"impossible values of {row.method}")
        if not all(math.isfinite(one) and one >= 0 for one in numbers) or row.amount <= 0:
            raise ValueError(f"impossible numbers of {row.method}")
        if not all(type(one) in (int, float, NoneType) for one in (row.density, row.width, row.target, row.amount)):
            raise ValueError(f"no numbers of {row.method}")
        if type(row.learned) is not bool:
            raise ValueError(f"{row.method} neither learned nor not")
        if not row.learned and row.apart > plan.farthest:
            raise ValueError(f"{row.method} costs {row.amount:.4g}, not {row.target:.4g}")
