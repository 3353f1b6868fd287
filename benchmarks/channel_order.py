"""What an order of channels could gain for blocks: the share of a trained generator's squared weights that they keep.

``python benchmarks/channel_order.py RUN... [--density 0.1]`` cuts every 3x3 convolution of dense runs by magnitude,
into single weights and into blocks of one output and four inputs (one tap), whose inputs are neighbours

- as trained;
- by norm: inputs sorted by the norm of all weights that read them, so that weak ones share a block;
- alike: pairs of inputs whose magnitudes over outputs and taps point the same way, most alike first, and pairs of
  pairs;
- swapped: the last, then two inputs of different blocks change places wherever more is kept.

The last is found by trying and bounds what a learned order is worth. An order is free at inference only where the layer
before writes its outputs in it, which a shortcut forbids.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.backbones.base import prunable_weights
from gancompress.experiment.finished import open_run

if TYPE_CHECKING:
    from collections.abc import Sequence

INPUTS = 4
TRIALS = 3  # swaps that are tried, times the number of inputs


def kept(squares: Tensor, density: float) -> float:
    """Return the sum of the largest of ``squares``, so many as the density gives."""
    return float(squares.flatten().topk(max(1, round(density * squares.numel()))).values.sum())


def blocks(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Return the sum of squares of every block of inputs that stand together: (outputs, inputs / 4, height, width)."""
    outputs, inputs, *taps = weight.shape
    return weight[:, list(order)].square().reshape(outputs, inputs // INPUTS, INPUTS, *taps).sum(2)


def by_norm(weight: Tensor) -> list[int]:
    """Return the inputs of a weight, those with the smallest norm first."""
    found: list[int] = weight.square().sum((0, 2, 3)).argsort().tolist()
    return found


def alike(weight: Tensor) -> list[int]:
    """Return the inputs of a weight in groups of four whose magnitudes point the same way."""
    magnitudes = weight.abs().movedim(1, 0).flatten(1)
    groups = [[index] for index in range(len(magnitudes))]
    while len(groups[0]) < INPUTS:
        together = torch.stack([magnitudes[group].square().sum(0).sqrt() for group in groups])
        together /= together.norm(dim=1, keepdim=True).clamp_min(1e-12)
        likeness = (together @ together.T).fill_diagonal_(-1)
        left, paired = set(range(len(groups))), []
        for place in likeness.flatten().argsort(descending=True).tolist():
            one, other = divmod(place, len(groups))
            if one in left and other in left and one != other:
                paired.append(groups[one] + groups[other])
                left -= {one, other}
        groups = paired
    return [index for group in groups for index in group]


def swapped(weight: Tensor, density: float, start: Sequence[int]) -> list[int]:
    """Return an order that keeps at least as much as ``start``, by exchanging two inputs at a time."""
    order, rng = list(start), torch.Generator().manual_seed(0)
    best = kept(blocks(weight, order), density)
    for _ in range(TRIALS * len(order)):
        one, other = torch.randint(len(order), (2,), generator=rng).tolist()
        if one // INPUTS == other // INPUTS:
            continue
        order[one], order[other] = order[other], order[one]
        now = kept(blocks(weight, order), density)
        if now > best:
            best = now
        else:
            order[one], order[other] = order[other], order[one]
    return order


def shares(weight: Tensor, density: float) -> dict[str, float]:
    """Return the share of a weight's squares that single weights, and blocks in every order, keep."""
    groups = alike(weight)
    orders = {
        "as trained": list(range(weight.shape[1])),
        "by norm": by_norm(weight),
        "alike": groups,
        "swapped": swapped(weight, density, groups),
    }
    whole = float(weight.square().sum())
    found = {"single weights": kept(weight.square(), density) / whole}
    return found | {name: kept(blocks(weight, order), density) / whole for name, order in orders.items()}


def main() -> None:
    """Print what every order keeps, over the layers of all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--density", type=float, default=0.1)
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    for run in given.runs:
        for weight in prunable_weights(open_run(run).generator()).values():
            values = weight.parameter.detach()
            if weight.kind == "convolution" and values.shape[2:] == (3, 3) and values.shape[0] > 3:
                for name, share in shares(values, given.density).items():
                    found.setdefault(name, []).append(share)
    for name, several in found.items():
        print(f"{name:15} {statistics.mean(several):.3f} ± {statistics.stdev(several):.3f}  ({len(several)} layers)")


if __name__ == "__main__":
    main()
