"""Real processes, forked from this one: two that train together are cheap enough for a test."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gancompress.testing.conformance import require, skip_check
from gancompress.testing.training_runs import run_folder
from gancompress.training.groups import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PATIENCE", "forked", "in_two_processes"]

# Whoever captures a network before autograd first runs leaves it unusable in forked processes (torch 2.14).
torch.zeros((), requires_grad=True).backward()  # type: ignore[no-untyped-call]

#: seconds until processes that wait for each other are given up
PATIENCE = 60.0


def forked(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a forked process and return what it gave, which must be JSON-able.

    Raises:
        AssertionError: it raised, died or did not end in time.
    """
    return _run([work], PATIENCE)[0]


def in_two_processes(work: Callable[[Group, Path], Any], patience: float | None = None) -> list[Any]:
    """Run ``work`` on both ranks of a gloo group and return what each of them gave, rank 0 first.

    The processes are forked, so ``work`` may be any function; what it returns must be JSON-able.

    Args:
        work: given the group and a folder that both see.
        patience: seconds; default :data:`PATIENCE`.

    Raises:
        AssertionError: a process raised, died or did not end in time.
        unittest.SkipTest: this system cannot fork.
    """
    if not hasattr(os, "fork") or not torch.distributed.is_available():
        skip_check("this system cannot fork processes, or torch was built without torch.distributed")

    with run_folder() as folder:

        def member(rank: int) -> Any:
            group = Group.join("cpu", rank=rank, world=2, init_method=f"file://{folder}/meet")
            value = work(group, folder)
            group.close()
            return value

        return _run([partial(member, rank) for rank in range(2)], PATIENCE if patience is None else patience)


def _run(works: Sequence[Callable[[], Any]], patience: float) -> list[Any]:
    """Run every function in a process of its own, all at the same time."""
    limit = time.monotonic() + patience
    with run_folder() as folder:
        members = [_fork(folder / f"{rank}.json", work) for rank, work in enumerate(works)]
        waiting = set(members)
        try:
            while waiting and time.monotonic() < limit:
                for member in list(waiting):
                    if os.waitpid(member, os.WNOHANG)[0]:
                        waiting.remove(member)
                time.sleep(0.01)
            # before the others are killed: those that hear of it would say so
            results = [_read(folder / f"{rank}.json") for rank in range(len(works))]
        finally:
            for member in waiting:
                os.kill(member, signal.SIGKILL)
                os.waitpid(member, 0)
    # a process that raised is the reason; another one only waited for it
    for rank, result in enumerate(results):
        require("raised" not in result, f"rank {rank} failed: {result.get('raised')}")
    require(not waiting, "the processes wait for each other: does plan() depend on what only rank 0 saw?")
    for rank, result in enumerate(results):
        require("value" in result, f"rank {rank} died")
    return [result["value"] for result in results]


def _fork(target: Path, work: Callable[[], Any]) -> int:
    with warnings.catch_warnings():
        # Python warns of forking beside threads; as in torch's own data loader, the child computes on one
        warnings.simplefilter("ignore", DeprecationWarning)
        member = os.fork()
    if member:
        return member
    try:
        torch.set_num_threads(1)
        result: dict[str, Any] = {}
        try:
            result["value"] = work()
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            result["raised"] = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        target.write_text(json.dumps(result), encoding="utf-8")
    finally:
        # neither the tests' nor the program's own endings may run a second time
        os._exit(0)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
