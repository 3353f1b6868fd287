"""Two sparse 3x3 convolutions on bytes against the same in float32, by pattern: what int8 gains on this processor.

    python benchmarks/bench_bytes.py [--quick]

Both programs keep the same weights; the one on bytes takes and gives float32 as well. Turns alternate in one process,
each is paired with its neighbour, and medians of the paired ratios are shown. One thread; process CPU time.
"""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING

import torch
from bench_kernels import alternate

from gancompress.kernels import Program, Quantized, status
from gancompress.training.freed import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = [(256, 16, 16), (64, 32, 16), (256, 16, 1), (64, 32, 1)]  # channels, pixels of a side, batch
DENSITIES = (0.05, 0.1, 0.2)
PATTERNS = {"single weights": (1, 1), "1x4": (1, 4), "2x4": (2, 4)}


def programs(channels: int, size: int, density: float, block: tuple[int, int]) -> dict[str, Program]:
    """The float32 program and the one on bytes."""
    coarse = torch.rand(channels // block[0], channels // block[1], 3, 3) < density
    mask = coarse.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    weight, bias = torch.randn(mask.shape), torch.randn(channels)
    int8 = (weight / weight.abs().amax((1, 2, 3), keepdim=True) * 127).round().to(torch.int8)
    made = {"float32": Program((channels, size, size)), "int8": Program((channels, size, size))}
    for name, net in made.items():
        h = net.input
        for _ in range(2):
            if name == "int8":
                held = net.quantize(h, Quantized(0.02))
                scales = torch.full((channels,), 1e-3)
                h = net.conv(held, int8, mask, bias, padding=1, weight_scale=scales, activation=0.0)
            else:
                h = net.conv(h, weight, mask, bias, padding=1, activation=0.0)
        net.output(h)
    return made


def turns(made: dict[str, Program], x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """What each program does in its turn: a few times the same where it takes little time."""
    repeats = 1 if len(x) > 1 else 8
    return {name: lambda net=net: [net(x) for _ in range(repeats)] for name, net in made.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one shape, fewer rounds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    print(f"kernels {status().isa}, bytes by {status().int8}; times faster than float32 with the same mask\n")
    print("| channels, pixels, batch | density | " + " | ".join(PATTERNS) + " |")
    print("|---|---|" + "---|" * len(PATTERNS))
    for channels, size, batch in SHAPES[:1] if args.quick else SHAPES:
        for density in DENSITIES:
            cells = []
            for block in PATTERNS.values():
                made = programs(channels, size, density, block)
                times = alternate(turns(made, torch.rand(batch, channels, size, size)), 5 if args.quick else 11)
                ratios = [a / b for a, b in zip(times["float32"], times["int8"], strict=True)]
                cells.append(f"{statistics.median(ratios):.2f}")
            print(f"| {channels}, {size}x{size}, {batch} | {density} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
