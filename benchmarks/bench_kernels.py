"""One layer at a time: our sparse convolution against torch's dense one, forward and forward with backward.

    python benchmarks/bench_kernels.py [--quick] [--json results.json]

Every figure is a ratio inside one run: variants alternate A B C ... C B A, each turn is paired with the dense turn of
the same round, and the median of the paired ratios is shown with its quartiles. One thread; the clock is process CPU
time. Both sides take and give ordinary NCHW tensors, so the sparse times include all changes of layout.

"of best" is the rate of multiply-adds really done over that of the fastest dense convolution of this run, which on the
processors tried is within 10 to 20 % of what one core can do at all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from gancompress import kernels
from gancompress.training.freed import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = [(64, 32, 64), (128, 16, 64), (256, 16, 32), (256, 8, 64)]  # channels, pixels of a side, batch
QUICK = [(64, 16, 16), (128, 8, 16)]
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5)


def alternate(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU of every step in every round, in alternating order."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        for name in list(steps) if i % 2 == 0 else list(steps)[::-1]:
            start = time.process_time()
            steps[name]()
            times[name].append(time.process_time() - start)
    return times


def steps_of(channels: int, size: int, batch: int, backward: bool) -> dict[str, Callable[[], object]]:
    """The dense step and one sparse step per density."""
    x = torch.randn(batch, channels, size, size, requires_grad=backward)
    weight = (torch.randn(channels, channels, 3, 3) * 0.05).requires_grad_(backward)
    bias = torch.zeros(channels)
    gradient = torch.randn(batch, channels, size, size)

    def finish(out: torch.Tensor) -> None:
        if backward:
            x.grad = weight.grad = None
            out.backward(gradient)

    def sparse(pattern: kernels.Pattern) -> Callable[[], object]:
        return lambda: finish(kernels.conv2d(x, weight, pattern, bias, padding=1, sparse="always"))

    steps: dict[str, Callable[[], object]] = {"dense": lambda: finish(F.conv2d(x, weight, bias, padding=1))}
    for density in DENSITIES:
        steps[f"{density}"] = sparse(kernels.Pattern(torch.rand(weight.shape) < density))
    return steps


def main() -> None:
    """Run and print; optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds")
    parser.add_argument("--rounds", type=int, default=0, help="rounds per shape (default 9, quick 3)")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 9)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    print(f"kernels: {kernels.status()}; torch {torch.__version__}; {rounds} rounds")
    rows = []
    for channels, size, batch in QUICK if options.quick else SHAPES:
        for backward in (False, True):
            times = alternate(steps_of(channels, size, batch, backward), rounds)
            work = batch * channels * channels * 9 * size * size * (3 if backward else 1)
            for name, own in times.items():
                ratios = sorted(d / t for d, t in zip(times["dense"], own, strict=True))
                low, middle, high = statistics.quantiles(ratios, n=4)
                density = 1.0 if name == "dense" else float(name)
                rate = 2 * work * density / statistics.median(own) / 1e9
                rows.append(
                    {
                        "channels": channels, "size": size, "batch": batch, "pass": "fwd+bwd" if backward else "fwd",
                        "density": density, "kind": "dense" if name == "dense" else "sparse",
                        "ms": 1e3 * statistics.median(own), "speedup": middle, "quartiles": [low, high], "gflops": rate,
                    }
                )  # fmt: skip
    best = max(row["gflops"] for row in rows if row["kind"] == "dense")
    print(f"{'layer':22} {'pass':8} {'density':>7} {'ms':>8} {'faster than dense':>22} {'GF/s':>7} {'of best':>8}")
    for row in rows:
        row["of_best"] = row["gflops"] / best
        layer = f"C{row['channels']} {row['size']}x{row['size']} B{row['batch']}"
        low, high = row["quartiles"]
        speed = f"{row['speedup']:5.2f}x [{low:.2f}-{high:.2f}]"
        name = "dense" if row["kind"] == "dense" else f"{row['density']:g}"
        rate = f"{row['gflops']:7.1f} {row['of_best']:8.2f}"
        print(f"{layer:22} {row['pass']:8} {name:>7} {row['ms']:8.2f} {speed:>22} {rate}")
    if options.json:
        options.json.write_text(json.dumps({"status": repr(kernels.status()), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
