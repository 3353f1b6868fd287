"""From one density to a whole number of kept weights per tensor, summing exactly to ``round(density * total)``.

Every rule gives each tensor a share ``s_l = clamp(eps * v_l, low_l, size_l)`` and differs only in the volume ``v_l``:
its size (uniform), or what makes its density proportional to the Erdos-Renyi value (ER, ERK). The one ``eps`` that
meets the total is found in rational arithmetic; shares become integers by largest remainder, ties to the earlier
tensor. ``global`` counts instead which weights have the highest scores. With a pattern, counts are whole units.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from gancompress.errors import RecipeError, did_you_mean
from gancompress.sparsity.rounding import apportion, ceil_share, up_to_step
from gancompress.sparsity.select import best, best_overall
from gancompress.sparsity.state import Budget

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.sparsity.units import Units

__all__ = ["GLOBAL_FLOOR", "RULES", "allocate", "split_total"]

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
    units: Mapping[str, Units] | None = None,
    pattern: str = "unstructured",
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
        units: what is kept as one, of the tensors that hold the pattern; the others keep single weights.
        pattern: what messages call it.

    Returns:
        A budget with ``total == round(density * sum(sizes))``, exactly; with units the nearest that whole ones allow.

    Raises:
        RecipeError: unknown rule, density outside (0, 1], a glob that matches nothing, floors and dense tensors that
            together take more than the density gives, or a density above what the pattern allows.
    """
    if rule not in RULES:
        raise RecipeError(f"unknown allocation {rule!r}{did_you_mean(rule, RULES)}")
    if not 0 < density <= 1:
        raise RecipeError(f"density must be in (0, 1], got {density}")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    whole = _matching(dense, shapes)
    units = units or {}
    steps = {name: units[name].size if name in units else 1 for name in sizes}
    highs = dict(sizes)
    if density < 1:
        highs |= {name: own.most for name, own in units.items() if name not in whole}
    if at_most is not None:
        highs = {name: min(high, at_most[name]) for name, high in highs.items()}
    floors = {name: up_to_step(ceil_share(floor, size), steps[name]) for name, size in sizes.items()}
    lows = {name: highs[name] if name in whole else min(floors[name], highs[name]) for name in sizes}
    _check_feasible(density, total, sum(sizes.values()), lows, highs, whole, pattern)
    if rule == "global":
        if scores is None or scores.keys() != shapes.keys():
            raise RecipeError("allocation 'global' needs a score per weight, which nothing has given here; use erk")
        counts = _global(scores, total, sizes, lows, highs, steps, units, global_floor * density, frozenset(protected))
    else:
        counts = _fill(_volumes(rule, shapes), lows, highs, total, steps)
    return Budget(density, counts, sizes, rule, floor, tuple(whole), units, pattern)


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
    density: float,
    total: int,
    size: int,
    lows: Mapping[str, int],
    highs: Mapping[str, int],
    whole: Sequence[str],
    pattern: str,
) -> None:
    least, most = sum(lows.values()), sum(highs.values())
    if least > total:
        cause = f"dense weights ({', '.join(whole)}) and min_layer_density" if whole else "min_layer_density"
        raise RecipeError(
            f"density {density} keeps {total} weights, but {least} are needed for {cause}; raise the density"
        )
    if most < total:
        by = f" by pattern {pattern}" if pattern != "unstructured" else ""
        share = math.floor(1e4 * most / size) / 1e4
        raise RecipeError(
            f"density {density} keeps {total} weights, but only {most} are allowed{by}; ask for at most {share:g}"
        )


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


def _fill(
    volumes: Mapping[str, int], lows: Mapping[str, int], highs: Mapping[str, int], total: int, steps: Mapping[str, int]
) -> dict[str, int]:
    """Return multiples of ``steps`` closest to ``clamp(eps * volume, low, high)`` for the one ``eps`` that fits.

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
    slope = Fraction(total - sum(left)) / rise if rise else Fraction(0)
    exact = {name: a + (b - a) * slope for name, a, b in zip(names, left, right, strict=True)}
    return apportion(exact, total, steps, highs)


def _global(
    scores: Mapping[str, Tensor],
    total: int,
    sizes: Mapping[str, int],
    lows: Mapping[str, int],
    highs: Mapping[str, int],
    steps: Mapping[str, int],
    units: Mapping[str, Units],
    least_density: float,
    protected: frozenset[str],
) -> dict[str, int]:
    """Return how many of each tensor's weights are among the ``total`` highest scores, under the floors."""
    uniform = _fill(_volumes("uniform", {name: (size,) for name, size in sizes.items()}), lows, highs, total, steps)
    # A rule's own floors never ask for more than the uniform shares, so they always fit the total.
    floors = {}
    for name, size in sizes.items():
        own = min(up_to_step(ceil_share(least_density, size), steps[name]), uniform[name])
        floors[name] = max(lows[name], uniform[name] if name in protected else own)
    candidates = None
    if any(highs[name] < size for name, size in sizes.items()):
        candidates = best(units, scores, highs)
    masks = best_overall(units, scores, total, floors=floors, candidates=candidates)
    return {name: int(mask.sum()) for name, mask in masks.items()}
