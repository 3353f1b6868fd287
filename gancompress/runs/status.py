"""What ``status.json`` of a run directory says. Imports no torch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from gancompress.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["State", "Status", "status_of"]

State: TypeAlias = Literal["pending", "running", "interrupted", "done", "failed", "unknown"]


@dataclasses.dataclass(frozen=True)
class Status:
    """How a run is doing.

    Attributes:
        state: what it is doing; ``interrupted`` also when it says running but nobody holds its lock; ``unknown`` when
            its ``status.json`` is damaged.
        reason: why it failed or stopped, or None.
        id: identity of the recipe (see :mod:`gancompress.recipe.identity`).
        pid: process that runs or ran it, or None.
        host: machine of that process, or None.
        started: when it was first started, ISO 8601 in UTC, or None.
        updated: when this was written, ISO 8601 in UTC.
    """

    state: State = "pending"
    reason: str | None = None
    id: str = ""
    pid: int | None = None
    host: str | None = None
    started: str | None = None
    updated: str | None = None


def status_of(record: Mapping[str, Any], where: str) -> Status:
    """Return a status from the contents of its file; keys of another version are left out.

    Args:
        record: what the file holds; empty for a run without one.
        where: the file, for the message.

    Raises:
        RunError: a value is not what it must be.
    """
    known = {field.name for field in dataclasses.fields(Status)}
    status = Status(**{key: value for key, value in record.items() if key in known})
    texts = (status.reason, status.host, status.started, status.updated)
    if not (
        status.state in get_args(State)
        and isinstance(status.id, str)
        and (status.pid is None or type(status.pid) is int)
        and all(text is None or isinstance(text, str) for text in texts)
    ):
        raise RunError("cannot be read: not a status", where=where)
    return status
