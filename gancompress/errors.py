"""Every error a user can cause, each saying what is wrong, where, and how to mend it.

The command line prints ``str(error)`` on one line and exits with :func:`exit_code`: 2 where what was given is wrong
(the command, a recipe, a file, data) and nothing was done, 1 where something failed at work. A traceback is shown only
with ``--debug``. Anything that is *not* a :class:`GancompressError` is our own bug.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "BackboneError",
    "ChannelError",
    "CheckpointError",
    "ComponentError",
    "DataError",
    "EvaluationError",
    "ExportError",
    "GancompressError",
    "GroupError",
    "InvariantError",
    "KernelError",
    "MethodError",
    "RecipeError",
    "RunError",
    "UnsupportedOptimizerError",
    "did_you_mean",
    "located",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or the list of known names when none is close.

    It is ready to be appended to a message; empty when ``known`` is empty.
    """
    candidates = sorted(known)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(candidates)}" if candidates else ""


#: characters of an error that are shown
_LONGEST = 4000


class GancompressError(Exception):
    """Base of every error that is the user's (or their machine's) to mend.

    Args:
        message: what is wrong and how to mend it, in one line.
        where: ``file:line:column`` or a path, put in front of the message when given.
    """

    #: 1 = something failed at work, 2 = what was given is wrong; see :func:`exit_code`
    exit_code: int = 1

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.message = message
        self.where = where
        said = f"{where}: {message}" if where else message
        # a damaged file may hold a value of any length, which libraries repeat
        super().__init__(said if len(said) <= _LONGEST else f"{said[: _LONGEST // 2]} … {said[-_LONGEST // 4 :]}")


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where`` in front of errors that name no place of their own."""
    try:
        yield
    except GancompressError as error:
        if not error.where:
            error.where, error.args = where, (f"{where}: {error}", *error.args[1:])
        raise


class RecipeError(GancompressError):
    """A recipe or an override is wrong. May hold several lines, one per mistake."""

    exit_code = 2


class ComponentError(GancompressError):
    """A registered component is unknown, a duplicate, or cannot be imported."""

    exit_code = 2


class DataError(GancompressError):
    """Images or labels are missing, unreadable, or do not fit the recipe."""

    exit_code = 2


class BackboneError(GancompressError):
    """A backbone cannot be built as asked (image size, classes, channels)."""

    exit_code = 2


class ChannelError(GancompressError):
    """Channels of a network cannot be cut as asked."""

    exit_code = 2


class RunError(GancompressError):
    """A run directory is missing, belongs to another recipe, or is not in the needed state."""

    exit_code = 2


class CheckpointError(GancompressError):
    """A checkpoint is truncated, altered, or does not fit the recipe."""

    exit_code = 2


class EvaluationError(GancompressError):
    """A metric cannot be computed as its protocol asks."""

    exit_code = 2


class ExportError(GancompressError):
    """A generator cannot be exported as asked, or an exported file is truncated, altered or from a newer version."""

    exit_code = 2


class KernelError(GancompressError):
    """A sparse kernel was given tensors that it cannot take."""


class GroupError(GancompressError):
    """Another process of the run failed, was killed, or stopped answering."""


class InvariantError(GancompressError):
    """A sparsity invariant broke: the numbers of this run can no longer be trusted."""


class MethodError(GancompressError):
    """A sparsity method raised, or answered with something that is no answer."""


class UnsupportedOptimizerError(GancompressError):
    """An optimizer holds state that the engine does not know how to mask."""

    exit_code = 2


#: what the system says of a path that was given wrong
_WRONG_PATH = frozenset(
    (
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
    )
)


def exit_code(error: BaseException) -> int:
    """Return what a command that ends with ``error`` exits with: 2 where what was given is wrong, else 1."""
    told = vars(error).get("exit_code")
    if told is not None:
        return int(told)
    said = error.__cause__ if isinstance(error, GancompressError) and error.__cause__ is not None else error
    if isinstance(said, OSError):
        return 2 if said.errno in _WRONG_PATH else 1
    return error.exit_code if isinstance(error, GancompressError) else 1


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Whatever fails inside failed at work: a command exits with 1."""
    with _exits(1):
        yield


@contextlib.contextmanager
def ready_to_work() -> Iterator[None]:
    """Whatever fails inside is wrong with what was given, a component of one's own too: a command exits with 2."""
    with _exits(2):
        yield


@contextlib.contextmanager
def _exits(code: int) -> Iterator[None]:
    try:
        yield
    except (GancompressError, OSError) as error:
        if not isinstance(error, GroupError) and (code == 1 or not isinstance(error, OSError)):
            error.exit_code = code  # type: ignore[union-attr]
        raise
