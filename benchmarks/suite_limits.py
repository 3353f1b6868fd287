"""Entries of the suite about the distance to what a core can do: multiply-adds really done, beside the bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from entries import DENSITIES, Row, at_density, entry, generators, narrowed, of_setup
from peaks import BUFFERS, peaks
from torch.nn import functional as F

from gancompress import kernels
from gancompress.bench.timing import alternate
from gancompress.kernels.layout import to_batch_last

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPES = ((256, 16, 32), (256, 32, 16), (64, 32, 64))  # channels, pixels of a side, batch


def share(case: str, at: str, rate: float, peak: float | None) -> Row:
    """A rate, and what part of the peak it is."""
    return Row(case, at, rate, note=f"{rate / peak:.2f}" if peak else "")


@entry("P0", "GFLOP/s of one core, two per multiply-add, and share of the peak; with loads they bound P1 and P2")
def p0(rounds: int) -> Iterator[Row]:
    found = peaks()
    peak = found.get("registers")
    if peak is None:
        yield Row("multiply-adds from registers: the peak", "", None, note="no C++ compiler")
        return
    yield Row("multiply-adds from registers: the peak", "", peak)
    for name in BUFFERS:
        yield share(f"each with a load from the {name}", "", found[name], peak)


@entry("P1", "GFLOP/s that one 3x3 convolution does, forward, best of its turns, and share of the peak")
def p1(rounds: int) -> Iterator[Row]:
    peak = peaks().get("registers")
    for channels, size, batch in SHAPES:
        x = torch.randn(batch, channels, size, size)
        weight = torch.randn(channels, channels, 3, 3) * 0.05
        work = 2e-9 * batch * channels * channels * 9 * size * size
        cl, by = x.to(memory_format=torch.channels_last), weight.to(memory_format=torch.channels_last)
        last = to_batch_last(x)
        steps: dict[str, Callable[[], object]] = {"density 1, torch": lambda x=cl, w=by: F.conv2d(x, w, padding=1)}
        kept = {"density 1, torch": 1.0}
        for density in (*DENSITIES, 0.5):
            pattern: Any = kernels.Pattern(torch.rand(weight.shape) < density)
            name = f"density {density}"
            kept[name] = float(pattern.mask.float().mean())
            steps[name] = lambda x=last, w=weight, p=pattern: kernels.conv2d(x, w, p, padding=1, sparse="always")
        with torch.no_grad():
            times = alternate(steps, 2 * rounds, warm=2)
        for name in (*list(steps)[1:], "density 1, torch"):
            rate = work * kept[name] / min(cpu for cpu, _ in times[name])
            yield share(f"{channels} channels, {size}x{size}, batch {batch}", name, rate, peak)


@entry("P2", "GFLOP/s of the kept weights in a compiled generator, median of its turns, and share of the peak")
def p2(rounds: int) -> Iterator[Row]:
    peak = peaks().get("registers")
    for channels, batch in narrowed(((256, 16), (64, 64)), of_setup):
        result = generators(channels, batch, rounds)
        for density in narrowed(DENSITIES, at_density):
            rate = result.gflops(batch, f"sparse {density:g}")
            yield share(f"{channels} channels, batch {batch}: whole generator", f"density {density}", rate, peak)
