"""The generator in a run's report: what was written of it into the run directory, as a part of the page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from gancompress.runs.record import mapping, number
from gancompress.units import size
from gancompress.web.container import header_of
from gancompress.web.page import holds_network, player, player_script, player_style, policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "BEFORE",
    "FILE",
    "MOST_BEFORE",
    "MOST_BYTES",
    "NOTE",
    "PlayerPart",
    "comparison_part",
    "part_of",
    "player_part",
]

#: below a run directory: the generator, and which step it is of, or why there is none
FILE, NOTE = "export/player.gcw", "export/player.json"
#: of a compressed run, the generator that it began from
BEFORE = "export/player-before.gcw"
#: bytes of a generator that a report takes
MOST_BYTES = 4_000_000
#: bytes of the dense one beside it, which is larger, and of all generators of a comparison
MOST_BEFORE, MOST_COMPARED = 8_000_000, 16_000_000

_NOT_HERE = "The generator is not in this page"


@dataclasses.dataclass(frozen=True)
class PlayerPart:
    """What a page shows of a generator.

    Attributes:
        content: HTML; empty without one.
        missing: why there is none, or why one is left out, in a sentence.
        step: that the generator is of.
        script: of the page; empty without a player.
        style: the same.
        policy: the page's content security policy.
    """

    content: str = ""
    missing: str = ""
    step: int = 0
    script: str = ""
    style: str = ""
    policy: str = policy("")


def player_part(run: Path) -> PlayerPart:
    """Return the player of a run's report; one without content or reason where none was asked for."""
    note = _note(run)
    if note is None:
        return PlayerPart()
    blob, missing = _blob(run, note)
    if blob is None:
        return PlayerPart(missing=f"{_NOT_HERE}: {missing}.")
    blobs, said = {"": blob}, str(note.get("before", ""))
    with contextlib.suppress(OSError):
        before = (run / BEFORE).read_bytes()
        if len(before) <= MOST_BEFORE:
            blobs = {"before": before, "after": blob}
        else:
            said = f"it has {size(len(before))}, and a report takes {size(MOST_BEFORE)}"
    part = part_of(blobs, step=int(number(note.get("step")) or 0))
    beside = f"The generator from before is not beside it: {said}." if said and "before" not in blobs else ""
    return dataclasses.replace(part, missing=beside)


def comparison_part(rows: Iterable[tuple[str, Path]]) -> PlayerPart:
    """Return the player of a comparison: one generator for every run, two of which are shown at a time.

    Args:
        rows: names and run directories, in the order of the list; several of one run become one.
    """
    names: dict[Path, list[str]] = {}
    for name, run in rows:
        names.setdefault(run, []).append(name)
    blobs: dict[str, bytes] = {}
    left, room = list[str](), MOST_COMPARED
    for run, own in names.items():
        name, note = ", ".join(dict.fromkeys(own)), _note(run)
        if note is None:
            continue
        blob, missing = _blob(run, note)
        if blob is None:
            left.append(f"{name} ({missing})")
        elif len(blob) > room:
            left.append(f"{name} (it has {size(len(blob))}, and all generators of a page {size(MOST_COMPARED)})")
        else:
            blobs[name], room = blob, room - len(blob)
    missing = f"Not in this page: {'; '.join(left)}." if left else ""
    return dataclasses.replace(part_of(blobs), missing=missing) if blobs else PlayerPart(missing=missing)


def part_of(blobs: Mapping[str, bytes], *, step: int = 0) -> PlayerPart:
    """Return the player of files that are there, by name."""
    script = player_script(network=any(holds_network(header_of(blob)) for blob in blobs.values()))
    return PlayerPart(player(blobs), "", step, script, player_style(), policy(script))


def _note(run: Path) -> Mapping[str, Any] | None:
    """Return what was written of a run's player; None where none was asked for."""
    try:
        return mapping(json.loads((run / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _blob(run: Path, note: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """Return the generator of a run, or why there is none."""
    if missing := note.get("missing"):
        return None, str(missing)
    try:
        blob = (run / FILE).read_bytes()
    except OSError:
        return None, f"{FILE} is not in the run directory any more"
    if len(blob) > MOST_BYTES:
        return None, f"it has {size(len(blob))}, and a report takes {size(MOST_BYTES)}"
    return blob, ""
