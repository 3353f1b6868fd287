"""How everything here is timed: alternating, paired, on process CPU time.

Variants run in the order A B C … C B A. Each turn is paired with the reference's turn of the same round, and the median
of the paired ratios is reported with its quartiles, so that a machine that slows down for a while slows both sides.
Process CPU time counts the work of all threads and not the time that other processes take.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from gancompress import kernels
from gancompress.kernels.measured import processor_key
from gancompress.training.freed import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Ratio", "alternate", "keep_memory", "machine", "ratios", "with_threads"]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One variant against the reference.

    Attributes:
        name: of the variant.
        seconds: median CPU seconds of one turn.
        faster: median of reference seconds over own seconds in the same round: 2 is twice as fast.
        quartiles: first and third quartile of the same.
        wall: fastest turn of the reference over the fastest own turn, on the wall clock: a check, not the figure.
    """

    name: str
    seconds: float
    faster: float
    quartiles: tuple[float, float]
    wall: float


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Compute with so many CPU threads while this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def alternate(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: int = 1,
    calls: int = 1,
    gpu: bool = False,
    failed: dict[str, Exception] | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """Run every variant once per round, in alternating order.

    Args:
        steps: what to time, by name. One that works in another process has a method ``turn``, which makes so many calls
            and returns the CPU and wall seconds of all of them.
        rounds: timed turns of each.
        warm: calls of each before that.
        calls: calls in one turn.
        gpu: the work is a GPU's: a turn ends when that is done, and the wall clock stands for CPU time too.
        failed: gets the errors of variants that raise, which lose their own times alone; without it they are raised.

    Returns:
        CPU and wall seconds of every turn, per call.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}

    def attempt(name: str, work: Callable[[], object]) -> None:
        if name not in times:
            return
        try:
            work()
        except Exception as error:
            if failed is None:
                raise
            failed[name] = error
            del times[name]

    def timed(name: str) -> None:
        turn: Callable[[int], tuple[float, float]] | None = getattr(steps[name], "turn", None)
        cpu, wall = turn(calls) if turn else _turn(steps[name], calls, gpu)
        times[name].append((cpu / calls, wall / calls))

    for name, step in steps.items():
        for _ in range(warm):
            attempt(name, step)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            for name in list(steps) if i % 2 == 0 else list(steps)[::-1]:
                attempt(name, functools.partial(timed, name))
    finally:
        gc.enable()
    return times


def _turn(step: Callable[[], object], calls: int, gpu: bool) -> tuple[float, float]:
    if gpu:
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        step()
    if gpu:
        torch.cuda.synchronize()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return (wall if gpu else cpu), wall


def ratios(times: Mapping[str, list[tuple[float, float]]], reference: str) -> dict[str, Ratio]:
    """Compare every variant with the reference.

    Args:
        times: of :func:`alternate`; at least two rounds.
        reference: name of the variant that the others are measured against.
    """
    base = times[reference]
    found = {}
    for name, own in times.items():
        paired = [b[0] / t[0] for b, t in zip(base, own, strict=True)]
        low, middle, high = statistics.quantiles(paired, n=4, method="inclusive")
        wall = min(b[1] for b in base) / min(t[1] for t in own)
        found[name] = Ratio(name, statistics.median(t[0] for t in own), middle, (low, high), wall)
    return found


def machine(gpu: bool = False) -> dict[str, Any]:
    """Return, in words, what the figures were measured on."""
    status = kernels.status()
    return {
        **({"gpu": torch.cuda.get_device_name()} if gpu else {}),
        "processor": processor_key(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": status.isa or f"none: {status.reason}",
        "torch": torch.__version__,
        "clock": "wall" if gpu else "process CPU time",
    }
