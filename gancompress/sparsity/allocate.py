"""From one density to a whole number of kept weights per tensor, summing exactly to ``round(density * total)``.

Every rule gives each tensor a share ``s_l = clamp(eps * v_l, low_l, size_l)`` and differs only in the volume ``v_l``:
its size (uniform), or what makes its density proportional to the Erdos-Renyi value (ER, ERK). The one ``eps`` that
meets the total is found in rational arithmetic; shares become integers by largest remainder, ties to the earlier
tensor. ``global`` counts instead which weights have the highest scores.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from gancompress.errors import RecipeError, did_you_mean
from gancompress.sparsity.masks import global_topk_masks
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.state import Budget

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GLOBAL_FLOOR", "RULES", "allocate", "reallocate", "split_total"]

#: the rules of :func:`allocate`
RULES = ("uniform", "er", "erk", "global")

#: under a global rule no tensor falls below this share of the network's density (a global magnitude cut of a GAN
#: otherwise empties whole layers, the output first)
GLOBAL_FLOOR = 0.1

Shapes: TypeAlias = Mapping[str, Sequence[int]]


def allocate(
    rule: str,
    shapes: Shapes,
    density: float,
    *,
    floor: float = 0.0,
    dense: Sequence[str] = (),
    scores: Mapping[str, Tensor] | None = None,
    protected: Sequence[str] | frozenset[str] = (),
    global_floor: float = GLOBAL_FLOOR,
    at_most: Mapping[str, int] | None = None,
) -> Budget:
    """Spread a density over the tensors of one network.

    Args:
        rule: ``uniform`` (every tensor the same density), ``er`` (density proportional to (n_in + n_out) / (n_in *
            n_out): SET, Methods), ``erk`` (to sum(shape) / prod(shape) over all dimensions, tensors that would
            exceed 1 kept whole: RigL, section 3) or ``global`` (the highest scores).
        shapes: shape per prunable tensor, in the network's order.
        density: share of all these weights that is kept, dense tensors included, in (0, 1].
        floor: least share kept of every tensor.
        dense: glob patterns of tensors that are kept whole.
        scores: one tensor of scores per name; for ``global`` only.
        protected: tensors that ``global`` gives at least their uniform share (the output layer).
        global_floor: least density of every tensor under ``global``, as a share of ``density``.
        at_most: kept weights that a tensor may not exceed (those it has, when weights can only be removed).

    Returns:
        A budget with ``total == round(density * sum(sizes))``, exactly.

    Raises:
        RecipeError: unknown rule, density outside (0, 1], a pattern that matches nothing, or floors and dense tensors
            that together take more than the density gives.
    """
    if rule not in RULES:
        raise RecipeError(f"unknown allocation {rule!r}{did_you_mean(rule, RULES)}")
    if not 0 < density <= 1:
        raise RecipeError(f"density must be in (0, 1], got {density}")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    whole = _matching(dense, shapes)
    highs = {name: size if at_most is None else min(size, at_most[name]) for name, size in sizes.items()}
    lows = {name: highs[name] if name in whole else min(ceil_share(floor, sizes[name]), highs[name]) for name in sizes}
    _check_feasible(density, total, lows, highs, whole)
    if rule == "global":
        if scores is None or scores.keys() != shapes.keys():
            raise RecipeError("allocation 'global' needs a score per weight, which nothing has given here; use erk")
        counts = _global(scores, total, sizes, lows, highs, global_floor * density, frozenset(protected))
    else:
        counts = _fill(_volumes(rule, shapes), lows, highs, total)
    return Budget(density, counts, sizes, rule, floor=floor, dense=tuple(whole))


def reallocate(
    budget: Budget,
    shapes: Shapes,
    density: float,
    *,
    scores: Mapping[str, Tensor] | None = None,
    protected: Sequence[str] | frozenset[str] = (),
    at_most: Mapping[str, int] | None = None,
) -> Budget:
    """Return ``budget`` at another density: same rule, floor and dense tensors (gradual pruning, tickets, ADAPT).

    Args:
        budget: made by :func:`allocate`.
        shapes: as given to :func:`allocate`.
        density: the new density, in (0, 1].
        scores: for the ``global`` rule.
        protected: for the ``global`` rule.
        at_most: kept weights that a tensor may not exceed; with ``state.budgets`` the new masks can nest in the old.

    Raises:
        RecipeError: as :func:`allocate`.
    """
    return allocate(
        budget.allocation,
        shapes,
        density,
        floor=budget.floor,
        dense=budget.dense,
        scores=scores,
        protected=protected,
        at_most=at_most,
    )


def split_total(total_density: float, generator_density: float, generator_size: int, discriminator_size: int) -> float:
    """Return the discriminator's density when both networks share one ('imbalanced' in STU-GAN's code of August 2021).

    Args:
        total_density: share of the weights of both networks together that is kept.
        generator_density: share of the generator's weights that is kept; the discriminator gets the rest.
        generator_size: prunable weights of the generator.
        discriminator_size: prunable weights of the discriminator.

    Returns:
        A density in (0, 1] such that both budgets sum to ``round(total_density * (generator + discriminator))``.

    Raises:
        RecipeError: the rest is nothing, or more than the discriminator has.
    """
    for label, density in (("total_density", total_density), ("generator.density", generator_density)):
        if not 0 < density <= 1:
            raise RecipeError(f"{label} must be in (0, 1], got {density}")
    both = generator_size + discriminator_size
    rest = round(total_density * both) - round(generator_density * generator_size)
    if not 0 < rest <= discriminator_size:
        highest = (generator_density * generator_size + discriminator_size) / both
        lowest = generator_density * generator_size / both
        raise RecipeError(
            f"total_density {total_density} leaves the discriminator {max(rest, 0)} of {discriminator_size} weights "
            f"when the generator keeps {generator_density}; choose it above {lowest:.4g} and up to {highest:.4g}"
        )
    return rest / discriminator_size


def _matching(patterns: Sequence[str], shapes: Shapes) -> list[str]:
    """Return the names that match a pattern, in order."""

    def fits(name: str, pattern: str) -> bool:
        return name == pattern or fnmatch.fnmatchcase(name, pattern)

    for pattern in patterns:
        if not any(fits(name, pattern) for name in shapes):
            raise RecipeError(f"dense pattern {pattern!r} matches no weight{did_you_mean(pattern, shapes)}")
    return [name for name in shapes if any(fits(name, pattern) for pattern in patterns)]


def _check_feasible(
    density: float, total: int, lows: Mapping[str, int], highs: Mapping[str, int], whole: Sequence[str]
) -> None:
    least, most = sum(lows.values()), sum(highs.values())
    if least > total:
        cause = f"dense weights ({', '.join(whole)}) and min_layer_density" if whole else "min_layer_density"
        raise RecipeError(
            f"density {density} keeps {total} weights, but {least} are needed for {cause}; raise the density"
        )
    if most < total:
        raise RecipeError(f"density {density} keeps {total} weights, but only {most} are allowed")


def _volumes(rule: str, shapes: Shapes) -> dict[str, int]:
    """Return per tensor what its share is proportional to before clamping, at least 1: raw density times size."""
    volumes = {}
    for name, shape in shapes.items():
        if rule == "uniform":
            volume = math.prod(shape)
        elif rule == "erk":
            volume = sum(shape)  # sum / prod * size
        else:
            volume = sum(shape[:2]) * math.prod(shape[2:])  # (out + in) / (out * in) * size
        volumes[name] = max(volume, 1)
    return volumes


def _fill(volumes: Mapping[str, int], lows: Mapping[str, int], highs: Mapping[str, int], total: int) -> dict[str, int]:
    """Return integers with the given sum, closest to ``clamp(eps * volume, low, high)`` for the one fitting ``eps``.

    Capping the tensors that exceed 1 and solving again until none does (the published loop) finds the same ``eps``.
    """
    names = list(volumes)

    def shares(eps: Fraction) -> list[Fraction]:
        return [min(max(eps * volumes[name], Fraction(lows[name])), Fraction(highs[name])) for name in names]

    # The sum is piecewise linear and rising in eps: bracket the total between two neighbouring kinks, then interpolate.
    kinks = sorted({Fraction(edge[name], volumes[name]) for name in names for edge in (lows, highs)} | {Fraction(0)})
    below, above = 0, len(kinks) - 1
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if sum(shares(kinks[middle])) <= total else (below, middle)
    left, right = shares(kinks[below]), shares(kinks[above])
    rise = sum(right) - sum(left)
    slope = (total - sum(left)) / rise if rise else Fraction(0)
    exact = [a + (b - a) * slope for a, b in zip(left, right, strict=True)]
    counts = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(names)), key=lambda i: (counts[i] - exact[i], i))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return dict(zip(names, counts, strict=True))


def _global(
    scores: Mapping[str, Tensor],
    total: int,
    sizes: Mapping[str, int],
    lows: Mapping[str, int],
    highs: Mapping[str, int],
    least_density: float,
    protected: frozenset[str],
) -> dict[str, int]:
    """Return how many of each tensor's weights are among the ``total`` highest scores, under the floors."""
    uniform = _fill(_volumes("uniform", {name: (size,) for name, size in sizes.items()}), lows, highs, total)
    # A rule's own floors never ask for more than the uniform shares, so they always fit the total.
    floors = {
        name: max(
            lows[name], uniform[name] if name in protected else min(ceil_share(least_density, size), uniform[name])
        )
        for name, size in sizes.items()
    }
    candidates = None
    if any(highs[name] < size for name, size in sizes.items()):
        candidates = {name: global_topk_masks({name: score}, highs[name])[name] for name, score in scores.items()}
    masks = global_topk_masks(scores, total, floors=floors, candidates=candidates)
    return {name: int(mask.sum()) for name, mask in masks.items()}
