"""How many weights each network keeps: the density that a recipe asks, as an exact number per layer."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import TYPE_CHECKING, cast

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.connections import connected_layers
from gancompress.components.registry import METHODS, PATTERNS
from gancompress.errors import RecipeError
from gancompress.recipe.components import component_config
from gancompress.sparsity.allocate import allocate, split_total
from gancompress.sparsity.scores import magnitude
from gancompress.sparsity.state import PAIR, role_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Discriminator, Generator, PrunableWeight
    from gancompress.methods.base import Method, MethodConfig
    from gancompress.recipe.schema import Recipe, SparsityConfig
    from gancompress.sparsity.patterns.base import Pattern, PatternConfig
    from gancompress.sparsity.state import Budget, Name, Role

__all__ = [
    "ROLES",
    "build_budgets",
    "build_method",
    "connected_weights",
    "densities",
    "masked_weights",
    "with_densities",
]

ROLES: tuple[Role, Role] = PAIR


def with_densities(recipe: Recipe, generator: float, discriminator: float) -> Recipe:
    """Return a recipe that asks these densities of its networks, whatever it asked before."""
    sparsity, asked = recipe.sparsity, {"generator": generator, "discriminator": discriminator}
    networks: dict[str, object] = {
        role: getattr(sparsity, role).model_copy(update={"density": asked[role]}) for role in ROLES
    }
    changed = sparsity.model_copy(update={"density": None, "total_density": None, **networks})
    return recipe.model_copy(update={"sparsity": changed})


def build_method(recipe: Recipe) -> Method[MethodConfig]:
    """Return the sparsity method of a recipe."""
    return cast(
        "Method[MethodConfig]", METHODS.get(recipe.sparsity.method.name)(component_config(recipe.sparsity.method))
    )


def masked_weights(network: Generator | Discriminator, config: SparsityConfig) -> dict[str, PrunableWeight]:
    """Return the weights of ``network`` that a density counts, by the recipe's convention."""
    weights = prunable_weights(network)
    if config.weights == "all":
        return weights
    return {name: weight for name, weight in weights.items() if weight.kind == "convolution"}


def connected_weights(network: Generator | Discriminator, config: SparsityConfig) -> dict[str, PrunableWeight]:
    """Return :func:`masked_weights` whose layers know their neighbours, also those that are not masked."""
    layers = connected_layers(network, prunable_weights(network))
    weights = masked_weights(network, config)
    return {name: dataclasses.replace(weight, layer=layers[name]) for name, weight in weights.items()}


def densities(recipe: Recipe, sizes: Mapping[Role, int]) -> dict[Role, float]:
    """Return the density asked of each role; ``sizes`` are the weights that it counts, on all of a side.

    Raises:
        RecipeError: a total density leaves the discriminator nothing, or more than it has.
    """
    config = recipe.sparsity
    if config.total_density is not None:
        generator = cast("float", config.generator.density)
        rest = split_total(config.total_density, generator, sizes["generator"], sizes["discriminator"])
        return {"generator": generator, "discriminator": rest}
    default = config.density if config.density is not None else 1.0
    asked: dict[Role, float] = {}
    for role in ROLES:
        density = getattr(config, role).density
        asked[role] = default if density is None else density
    return asked


def build_budgets(recipe: Recipe, weights: Mapping[Name, Mapping[str, PrunableWeight]]) -> dict[Name, Budget]:
    """Turn densities into an exact number of kept weights per tensor, in whole units of the recipe's pattern.

    Args:
        recipe: asks its densities by role: networks on one side are alike.
        weights: of every network, by name.

    Raises:
        RecipeError: a density, a glob or the pattern does not fit the network.
    """
    sizes = {name: sum(weight.parameter.numel() for weight in own.values()) for name, own in weights.items()}
    sides: dict[Role, int] = {role: sum(n for name, n in sizes.items() if role_of(name) == role) for role in ROLES}
    by_role = densities(recipe, sides)
    asked = {name: by_role[role_of(name)] for name in weights}
    node = recipe.sparsity.pattern
    pattern = cast("Pattern[PatternConfig]", PATTERNS.get(node.name)(component_config(node)))
    budgets: dict[Name, Budget] = {}
    for role in weights:
        side = role_of(role)
        config = getattr(recipe.sparsity, side)
        shapes = {name: tuple(weight.parameter.shape) for name, weight in weights[role].items()}
        if not shapes:
            raise RecipeError(
                f"the {role} has no convolution to mask; count linear layers too with --set sparsity.weights=all"
            )
        unmatched = [glob for glob in config.dense if not any(fnmatch.fnmatchcase(name, glob) for name in shapes)]
        if unmatched:
            raise RecipeError(
                f"sparsity.{side}.dense: {unmatched[0]!r} matches no weight; there are: {', '.join(shapes)}"
            )
        found = {name: pattern.units(weight.layer) for name, weight in weights[role].items()}
        units = {name: own for name, own in found.items() if own is not None}
        if not units and recipe.sparsity.pattern.name != "unstructured" and asked[role] < 1:
            raise RecipeError(
                f"sparsity.pattern: no layer of the {role} can hold pattern {pattern}; its weights are "
                f"{', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
            )
        try:
            budgets[role] = allocate(
                config.allocation,
                shapes,
                asked[role],
                floor=config.min_layer_density,
                dense=config.dense,
                scores={name: magnitude(weight.parameter.detach()) for name, weight in weights[role].items()},
                protected=[name for name, weight in weights[role].items() if weight.output],
                units=units,
                pattern=str(pattern),
            )
        except RecipeError as error:
            raise RecipeError(f"sparsity.{side}.density: {error.message}") from None
        if not budgets[role].total:
            raise RecipeError(
                f"density {asked[role]:g} keeps none of the {sizes[role]:,} weights of the {role}; raise it"
            )
        empty = [name for name, count in budgets[role].counts.items() if not count]
        if any(weights[role][name].output for name in empty):  # no path leads around the output layer
            raise RecipeError(
                f"density {asked[role]:g} leaves the {role} without a weight in {', '.join(empty)}: it computes "
                f"nothing; raise it, or set sparsity.{side}.min_layer_density"
            )
    return budgets
