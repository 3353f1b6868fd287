"""Kill real processes at every file operation, repeat their command, and hold what comes out to the byte.

Each trial starts a command on a tiny network in a process of its own and ends it at one operation: opening a file for
writing, fsync, rename, unlink, mkdir, rmdir. It is killed before the operation or in the middle of it (a file that is
empty or half-written), or sent SIGTERM, SIGINT or SIGHUP; or the disk is full from there on, which must end in words
and not in a traceback. The same command must then succeed, leave the files of a command that nothing disturbed, and
nothing else. Exits 1 if anything failed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tests.soak.dying import TEARABLE, WAYS, Death, Operation
from tests.soak.scenarios import Scenario, differences, facts, fresh, scenarios, warm_up

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_KINDS = ("open", "fsync", "rename", "unlink", "mkdir", "rmdir", "truncate")
_DEATHS = ("kill", "torn")
#: a trial that hangs is a trial that failed
_PATIENCE = 300


class Point(NamedTuple):
    """Where a process is struck."""

    scenario: int
    at: int
    kind: str
    path: str
    way: str


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=300, help="how many, spread over all commands; 0: all")
    parser.add_argument("--minutes", type=float, default=30.0, help="start no trial after these")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once")
    parser.add_argument("--seed", type=int, default=0, help="another choice of operations")
    parser.add_argument("--only", default="", metavar="TEXT", help="commands whose name contains TEXT")
    parser.add_argument("--way", default="", choices=("", *WAYS), help="strike in this way only")
    parser.add_argument("--keep", action="store_true", help="keep the directories of failed trials")


def run(given: argparse.Namespace) -> int:
    began = time.monotonic()
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="soak-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        lab = Lab(root, given)
        import gancompress.cli.main
        import gancompress.data.prepare  # noqa: F401 - once, rather than in every process

        if any(scenario.trains for scenario in lab.found):
            _warm_up(root)
        points = lab.points()
        print(f"{len(points):,} operations and ways to strike at them", flush=True)
        chosen = _spread(points, lab.found, given.seed)[: given.trials or None]
        results = lab.try_all(chosen, began + 60 * given.minutes)
    finally:
        if not given.keep:
            shutil.rmtree(root, ignore_errors=True)
    _print_table(results, lab.found)
    for point, failures in results:
        for line in failures[:4]:
            where = f"{lab.found[point.scenario].name}, {point.way} at {point.kind} {point.path} ({point.at})"
            print(f"FAILED {where}: {line}")
    failed = sum(bool(failures) for _, failures in results)
    seconds = time.monotonic() - began
    print(f"{len(results)} trials, {failed} failed, in {seconds / 60:.1f} minutes ({len(points):,} points known)")
    return int(failed > 0 or not results)


class Lab:
    """The directories of all trials.

    Args:
        root: an empty directory.
        given: the options.
    """

    def __init__(self, root: Path, given: argparse.Namespace) -> None:
        self.root, self.given = root, given
        os.environ.update(GANCOMPRESS_CACHE=str(root / "cache"), GANCOMPRESS_SPARSE="never", OMP_NUM_THREADS="1")
        self.found = [one for one in scenarios(root / "cache") if given.only in one.name]
        self.expected: list[dict[str, Any]] = []

    def points(self) -> list[Point]:
        """Run every command undisturbed, keep what comes out, and return where it could have been struck."""
        points = []
        for number, scenario in enumerate(self.found):
            template, whole = self.root / f"template-{number}", self.root / f"whole-{number}"
            template.mkdir()
            self._must(_forked(template, lambda one=scenario: one.ready(Path()) or 0), scenario, "preparing it")
            fresh(template, whole)
            death = Death(whole)
            notes = self.root / f"operations-{number}.json"

            def counted(scenario: Scenario = scenario, death: Death = death, notes: Path = notes) -> int:
                death.watch()
                code = scenario.command()
                notes.write_text(json.dumps(death.seen))
                return code

            self._must(_forked(whole, counted), scenario, "undisturbed")
            self.expected.append(facts(whole))
            seen = [Operation(*pair) for pair in json.loads(notes.read_text())]
            points += [
                Point(number, at, operation.kind, operation.path, way)
                for at, operation in enumerate(seen)
                for way in WAYS
                if (way != "torn" or operation.kind in TEARABLE) and self.given.way in ("", way)
            ]
        return points

    def _must(self, ended: tuple[int, str], scenario: Scenario, what: str) -> None:
        code, said = ended
        if code:
            raise SystemExit(f"{scenario.name}: {what} ended with {code}\n{said}")

    def try_all(self, points: list[Point], until: float) -> list[tuple[Point, list[str]]]:
        """Try points in worker processes until the time is up; return the failures of each that was tried."""
        files = [self.root / f"results-{index}.jsonl" for index in range(max(1, self.given.jobs))]
        workers = []
        for index, file in enumerate(files):
            pid = os.fork()
            if not pid:
                self._work(points[index :: len(files)], file, until)
                os._exit(0)
            workers.append(pid)
        for pid in workers:
            os.waitpid(pid, 0)
        lines = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
        return [(Point(*point), failures) for point, failures in lines]

    def _work(self, points: list[Point], file: Path, until: float) -> None:
        for point in points:
            if time.monotonic() > until:
                return
            failures = self.try_one(point)
            with file.open("a") as results:
                results.write(json.dumps([point, failures]) + "\n")

    def try_one(self, point: Point) -> list[str]:
        """Strike, repeat, and return what is wrong after it."""
        scenario = self.found[point.scenario]
        directory = self.root / f"trial-{os.getpid()}" / f"{point.scenario}-{point.at}-{point.way}"
        fresh(self.root / f"template-{point.scenario}", directory)

        def struck() -> int:
            Death(directory, point.at, point.way).watch()
            return scenario.command()

        code, said = _forked(directory, struck)
        failures = [] if code in _ends(point.way) else [f"ended with {code} when it was struck: {said[-400:]}"]
        failures += [f"a traceback: {said[-900:]}"] if "Traceback" in said else []
        code, said = _forked(directory, scenario.command)
        if code:
            failures.append(f"the same command again ended with {code}: {said[-600:]}")
        failures += differences(self.expected[point.scenario], facts(directory)) if not code else []
        failures += [f"still runs: {line}" for line in _processes_in(directory)]
        if not (failures and self.given.keep):
            shutil.rmtree(directory)
        return failures


def _ends(way: str) -> tuple[int, ...]:
    """Return the exit codes that are right: it may have been past the last operation that counts."""
    if way in _DEATHS:
        return (-signal.SIGKILL, 0)
    if way == "full":
        return (0, 1, 2)
    return (0, 130, -getattr(signal, way))


def _forked(directory: Path, what: Callable[[], int]) -> tuple[int, str]:
    """Do something in a process of its own, in a directory; return its exit code and what it said."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if not pid:
            _be_the_child(directory, said.fileno(), what)
        status = os.waitpid(pid, 0)[1]
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode(errors="replace")


def _be_the_child(directory: Path, said: int, what: Callable[[], int]) -> NoReturn:
    code = 70
    try:
        os.setsid()
        os.chdir(directory)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        for name in ("SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(_PATIENCE)
        code = what()
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _processes_in(directory: Path) -> list[str]:
    """Return the command lines of processes that work in a directory."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.path.realpath(process / "cwd").startswith(str(directory)):
                lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return lines


def _spread(points: list[Point], found: list[Scenario], seed: int) -> list[Point]:
    """Return points in an order of which every beginning is spread over all commands and ways."""
    shuffled = random.Random(seed)
    queues = []
    for number, scenario in enumerate(found):
        own = [point for point in points if point.scenario == number]
        shuffled.shuffle(own)
        # two thirds of all are kills at a whole or half operation
        deaths = [point for point in own if point.way in _DEATHS]
        signals = [point for point in own if point.way not in _DEATHS]
        mixed = [point for three in zip(deaths[::2], deaths[1::2], signals, strict=False) for point in three]
        tried = set(mixed)
        rest = [point for point in own if point not in tried]
        queues.append(collections.deque([*mixed, *rest][: scenario.most]))
    order = []
    while any(queues):
        order += [queue.popleft() for queue in queues if queue]
    return order


def _warm_up(root: Path) -> None:
    """Do once, before all forks, what every process would do again: imports, first calls, the classifier."""
    import torch

    from gancompress.experiment import ready

    torch.set_num_threads(1)
    # half of the time of a run this small, and they touch no file
    ready.check_networks = lambda *_: None
    ready.check_memory = lambda *_, **__: None
    here, place = Path.cwd(), root / "warm"
    place.mkdir()
    os.chdir(place)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warm_up(place)
    finally:
        os.chdir(here)


def _print_table(results: list[tuple[Point, list[str]]], found: list[Scenario]) -> None:
    columns = [*_KINDS, "full", "signals", "failed"]
    print(f"{'struck at':24}" + "".join(f"{column:>9}" for column in columns))
    totals: collections.Counter[str] = collections.Counter()
    for number, scenario in enumerate(found):
        counts: collections.Counter[str] = collections.Counter()
        for point, failures in results:
            if point.scenario == number:
                counts[point.kind if point.way in _DEATHS else "full" if point.way == "full" else "signals"] += 1
                counts["failed"] += bool(failures)
        totals += counts
        print(f"{scenario.name:24}" + "".join(f"{counts[column]:9}" for column in columns))
    print(f"{'all':24}" + "".join(f"{totals[column]:9}" for column in columns))
