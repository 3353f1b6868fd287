"""Damage every kind of file that is read, and open it by every public way that reads it.

Bytes are cut, flipped and doubled; values of JSON are of other types, huge, missing or nested without end; sizes are
forged and hashes made to fit. The answer must be a result, or one clear error that names the file: never a traceback,
never a second of work, never 300 MB. The same seed gives the same inputs. Exits 1 if anything failed.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gancompress.errors import GancompressError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from tests.soak.fuzz_files import Kind

#: CPU seconds and bytes that opening one small file may take
_SECONDS, _BYTES = 1.0, 300 * 2**20
#: seconds on the clock after which a call that waits for something is ended
_PATIENCE = 20


class Failure(NamedTuple):
    """What one input did to one way of opening it."""

    kind: str
    number: int
    entry: str
    what: str


class Hung(BaseException):
    """A call took too long."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inputs", type=int, default=10_000, help="how many, spread over all kinds of files")
    parser.add_argument("--minutes", type=float, default=15.0, help="try no more after these")
    parser.add_argument("--seed", type=int, default=0, help="other inputs")
    parser.add_argument("--only", default="", metavar="KIND[:NUMBER]", help="one kind of file, or one input of it")
    parser.add_argument("--keep", action="store_true", help="keep the directory, with the last input in it")


def run(given: argparse.Namespace) -> int:
    from tests.soak.fuzz_files import kinds

    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ["GANCOMPRESS_CACHE"] = str(root / "cache")
    began = time.monotonic()
    try:
        found = kinds(root)
        name, _, number = given.only.partition(":")
        chosen = [kind for kind in found if not name or kind.name == name]
        print(f"{len(chosen)} kinds of files made in {time.monotonic() - began:.0f} s", flush=True)
        end = time.monotonic() + 60 * given.minutes
        numbers = [int(number)] if number else range(-(-given.inputs // max(1, len(chosen))))
        counts, failures = _try_all(chosen, numbers, given.seed, end)
    finally:
        if not given.keep:
            shutil.rmtree(root, ignore_errors=True)
    for kind in chosen:
        tried, opened, refused = (counts[kind.name, what] for what in ("tried", "opened", "refused"))
        print(f"{kind.name:24} {tried:6,} inputs  {opened:6,} opened  {refused:6,} refused")
    for (kind_name, entry, what), some in _grouped(failures).items():
        print(f"FAILED {kind_name}, {entry}: {what}\n    {len(some)} inputs, the first: --only {kind_name}:{some[0]}")
    total = sum(counts[kind.name, "tried"] for kind in chosen)
    seconds = time.monotonic() - began
    print(f"{total:,} inputs, {len({one[:2] for one in failures})} failed, in {seconds / 60:.1f} minutes")
    return int(bool(failures) or not total)


def _try_all(
    chosen: list[Kind], numbers: range | list[int], seed: int, end: float
) -> tuple[collections.Counter[tuple[str, str]], list[Failure]]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    failures: list[Failure] = []
    for number in numbers:
        for kind in chosen:
            if time.monotonic() > end:
                return counts, failures
            rng = random.Random(f"{seed} {kind.name} {number}")
            with kind.damaged(rng):
                counts[kind.name, "tried"] += 1
                for entry, opens in kind.entries.items():
                    outcome = _outcome(opens, kind.names)
                    if outcome.startswith("slow:"):  # a collection of garbage, another process: once more
                        outcome = _outcome(opens, kind.names)
                    counts[kind.name, outcome] += 1
                    if outcome not in ("opened", "refused"):
                        failures.append(Failure(kind.name, number, entry, outcome))
    return counts, failures


def _outcome(opens: Callable[[], object], names: tuple[str, ...]) -> str:
    """Open a damaged file; return ``opened``, ``refused``, or what is wrong with the answer."""
    _forget_peak()
    before, began = _memory("VmRSS"), time.process_time()
    try:
        with _watched():
            opens()
        answer = "opened"
    except GancompressError as error:
        said = "\n".join((str(error), *getattr(error, "broken", ())))  # the command prints broken images below it
        answer = "refused" if any(name in said for name in names) else f"names no file: {said[:150]}"
        if len(str(error)) > 4000:
            answer = f"an error of {len(str(error))} characters"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "gancompress" in frame.filename] or frames
        at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        answer = f"{type(error).__name__} at {at}: {str(error)[:150]}"
    took, grew = time.process_time() - began, _memory("VmHWM") - before
    if took > _SECONDS:
        return f"slow: {took:.0f} s"
    return f"large: {grew >> 20} MB" if grew > _BYTES else answer


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """End a call that hangs; one that hangs outside Python ends the process, with a traceback."""

    def end(number: int, frame: object) -> None:
        raise Hung(f"more than {_PATIENCE} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    faulthandler.dump_traceback_later(4 * _PATIENCE, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _memory(key: str) -> int:
    """Return a figure of this process in bytes, 0 where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(key)), 0)
    return 0


def _forget_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _grouped(failures: list[Failure]) -> dict[tuple[str, str, str], list[int]]:
    """Return the numbers of the inputs by what they did."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for one in failures:
        what = one.what.split(": ")[0] if one.what.startswith(("slow", "large")) else one.what
        where = what.split(": ")[0]
        key = next((key for key in found if key[:2] == (one.kind, one.entry) and key[2].startswith(where)), None)
        found.setdefault(key or (one.kind, one.entry, one.what), []).append(one.number)
    return found
