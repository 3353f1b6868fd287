"""What was measured of finished runs as they are shipped, as files have it; ``comparison/shipping.py`` writes them.

What stands in ``evaluations/`` of a run serves every comparison of it. ``shipped.json`` of a comparison has the times
of its rows, all measured together, each of the run of its first seed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from gancompress.errors import RunError
from gancompress.runs.record import mapping, number
from gancompress.storage.reading import parse_json, read_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "NOISE",
    "SHIPPED",
    "Noise",
    "ShippedCost",
    "exported_name",
    "read_exported",
    "read_noise",
    "read_shipped",
    "shipped_record",
]

#: in the directory of a comparison
SHIPPED, NOISE = "shipped.json", "noise.json"


class ShippedCost(NamedTuple):
    """What an exported generator costs.

    Attributes:
        bytes: of its file.
        milliseconds: of an image, on one thread of a CPU.
        unsure: about a standard error of them, as a share.
        runtime: what it ran on.
        batch: images of a call.
    """

    bytes: int
    milliseconds: float
    unsure: float
    runtime: str
    batch: int


def exported_name(step: int, values: str) -> str:
    """Return the file in a run directory that has what was measured of it as exported with these values."""
    return f"evaluations/{step:08d}-{values}.json"


def read_exported(run: Path, step: int, values: str) -> Mapping[str, Any] | None:
    """Return what was measured of an exported file, or ``None``."""
    path = run / exported_name(step, values)
    if not path.is_file():
        return None
    try:
        record = parse_json(read_whole(path))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot be read ({error}); delete it to measure again", where=str(path)) from error
    return mapping(record)


@dataclasses.dataclass(frozen=True)
class Noise:
    """What evaluating one run of a method again and again gave.

    Attributes:
        method: label of the method.
        values: of the primary metric, one per seed of latents.
        against: label of the method whose run of the same seed was measured beside it; empty: none was.
        classifiers: of both runs, one pair per seed of the classifier, with the same latents.
    """

    method: str
    values: tuple[float, ...]
    against: str = ""
    classifiers: tuple[tuple[float, float], ...] = ()


def read_noise(folder: Path) -> Noise | None:
    """Return what is known of the noise of evaluation in a comparison's directory."""
    try:
        record = mapping(parse_json(read_whole(folder / NOISE)))
    except (OSError, ValueError):
        return None
    values = tuple(found for one in record.get("values") or () if (found := number(one)) is not None)
    pairs = [pair for pair in record.get("classifiers") or () if isinstance(pair, list) and len(pair) == 2]
    both = [tuple(found for one in pair if (found := number(one)) is not None) for pair in pairs]
    classifiers = tuple((pair[0], pair[1]) for pair in both if len(pair) == 2)
    noise = Noise(str(record.get("method", "")), values, str(record.get("against", "")), classifiers)
    return noise if len(values) > 1 else None


def shipped_record(folder: Path) -> Mapping[str, Any]:
    """Return what ``shipped.json`` of a comparison has; nothing when it is missing or damaged."""
    try:
        return mapping(parse_json(read_whole(folder / SHIPPED)))
    except (OSError, ValueError):
        return {}


def read_shipped(folder: Path, rows: int) -> list[ShippedCost | None]:
    """Return what the rows of a comparison, so many, were measured to cost, as far as they were."""
    known = shipped_record(folder)
    records = known.get("rows")
    found: list[ShippedCost | None] = []
    for record in records if isinstance(records, list) and len(records) == rows else [None] * rows:
        one = mapping(record)
        numbers = [number(one.get(key)) for key in ("bytes", "milliseconds", "unsure")]
        size, milliseconds, unsure = numbers
        if size is None or milliseconds is None or unsure is None:
            found.append(None)
        else:
            batch = int(number(known.get("batch")) or 1)
            found.append(ShippedCost(int(size), milliseconds, unsure, str(one.get("runtime", "")), batch))
    return found
