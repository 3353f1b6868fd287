"""The generator in a run's report: what was written of it into the run directory, as a part of the page."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from gancompress.runs.record import mapping, number
from gancompress.units import size
from gancompress.web.page import player, player_script, player_style, policy

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BEFORE", "FILE", "MOST_BYTES", "NOTE", "PlayerPart", "player_part"]

#: below a run directory: the generator, and which step it is of, or why there is none
FILE, NOTE = "export/player.gcw", "export/player.json"
#: of a compressed run, the generator that it began from
BEFORE = "export/player-before.gcw"
#: bytes of a generator that a report takes
MOST_BYTES = 4_000_000


@dataclasses.dataclass(frozen=True)
class PlayerPart:
    """What a page shows of a generator.

    Attributes:
        content: HTML; empty without one.
        missing: why there is none, in a sentence.
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
    try:
        note = mapping(json.loads((run / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return PlayerPart()
    if missing := note.get("missing"):
        return PlayerPart(missing=f"The generator is not in this page: {missing}.")
    try:
        blob = (run / FILE).read_bytes()
    except OSError:
        return PlayerPart(missing=f"The generator is not in this page: {FILE} is not in the run directory any more.")
    if len(blob) > MOST_BYTES:
        sizes = f"it has {size(len(blob))}, and a report takes {size(MOST_BYTES)}"
        return PlayerPart(missing=f"The generator is not in this page: {sizes}.")
    script, before = player_script(), _before(run, len(blob))
    content = player(blob if before is None else {"before": before, "after": blob})
    return PlayerPart(content, "", int(number(note.get("step")) or 0), script, player_style(), policy(script))


def _before(run: Path, others: int) -> bytes | None:
    """Return the generator from before a compression, where there is one and both fit."""
    try:
        blob = (run / BEFORE).read_bytes()
    except OSError:
        return None
    return blob if len(blob) + others <= MOST_BYTES else None
