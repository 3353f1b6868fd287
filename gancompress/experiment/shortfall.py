"""What a run does not do although it was asked to: a density never reached, masks never updated, no path through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.backbones.connections import passes_through
from gancompress.errors import RecipeError
from gancompress.experiment.initial import load_initial
from gancompress.methods.base import Method, MethodConfig, Plan
from gancompress.methods.pruning import PruningConfig
from gancompress.units import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Name
    from gancompress.training.engine import Engine
    from gancompress.training.loop import Trainer

__all__ = ["planned_shortfalls", "shortfalls", "start", "start_notes"]


def start(recipe: Recipe, trainer: Trainer) -> list[Name]:
    """Give fresh networks the weights and the first masks of a run; return those that keep masks, as the engine does.

    Raises:
        GancompressError: the weights to start from are not there or do not fit, or the method's masks are none.
        RecipeError: no path of kept weights leads through a network, or none will where its layers are pruned to.
    """
    engine = trainer.engine
    masks = load_initial(recipe, trainer.networks)
    kept = engine.init(trainer.probe, masks)
    with engine.dense():
        for role in engine.roles:
            network, state = trainer.network(role), engine.state(role)
            if not passes_through(network, state.trained):
                raise RecipeError(
                    _blocked(engine, role, [name for name, mask in state.trained.items() if not mask.any()])
                )
            emptied = _emptied(engine, role)
            later = {name: torch.full_like(mask, name not in emptied) for name, mask in state.masks.items()}
            if emptied and not passes_through(network, later, as_it_is=False):
                raise RecipeError(_blocked(engine, role, emptied))
    return kept


def _emptied(engine: Engine, role: Name) -> list[str]:
    """Return the layers that a method which starts with more weights takes the last one from."""
    config, budget = engine.method.config, engine.budget(role)
    ranked = isinstance(config, PruningConfig) and config.scope == "global"
    if ranked or not engine.method.meets_density(engine.role(role)):
        return []
    return [name for name, count in budget.counts.items() if not count]


def _blocked(engine: Engine, role: Name, empty: Sequence[str]) -> str:
    side = engine.role(role)
    ends = "a latent to the image" if side == "generator" else "an image to the logit"
    why = f"nothing is kept in {some(empty, len(empty))}" if empty else "the kept weights do not meet"
    density = engine.budget(role).density
    return (
        f"density {density:g} of the {role} leaves no path from {ends}: {why}; raise sparsity.{side}.density, or set "
        f"sparsity.{side}.min_layer_density"
    )


def start_notes(recipe: Recipe, engine: Engine, kept: Sequence[Name]) -> list[str]:
    """Return what becomes of the masks of a network that a run starts from: kept, or drawn anew.

    Args:
        recipe: of the run.
        engine: initialised.
        kept: networks whose masks :meth:`Engine.init` kept.
    """
    start = recipe.training.init_from
    if start is None:
        return []
    lines = [f"the {role} keeps the masks of {start.path}" for role in kept]
    for role in engine.roles:
        state, budget = engine.state(role), engine.budget(role)
        masked = state.nonzeros < sum(budget.sizes.values())
        if masked and role not in kept and not engine.method.suits_trained:
            lines.append(
                f"warning: method {recipe.sparsity.method.name!r} is not made for trained networks: it draws masks of "
                f"the {role} whatever its weights are worth, and training has to make up for it; magnitude and gmp "
                "keep the largest"
            )
    return lines


def planned_shortfalls(method: Method[MethodConfig], rounds: Sequence[Round], engine: Engine) -> list[str]:
    """Return what is known before the first step: no update is due, or the masks that stay miss what was asked.

    Args:
        method: asked for nothing but its plans.
        rounds: all rounds of the run.
        engine: initialised, so that the densities at the start are known.
    """
    if len(rounds) > 1:
        return []
    if type(method).plan is Method.plan:
        return _off_density(engine)
    steps = rounds[0].steps
    if any(
        Plan.UPDATE in method.plan(engine.role(role), step, steps)
        for role in engine.roles
        for step in range(1, steps + 1)
    ):
        return []
    return [
        f"no topology update is due in {steps:,} steps: give sparsity.method a shorter interval",
        *_off_density(engine),
    ]


def shortfalls(engine: Engine) -> list[str]:
    """Return what is known after the last step: masks that were never updated by a method that updates some.

    And a line for every network off its density, unless the method chooses it, and for every empty layer. Less than a
    unit of the pattern is no miss: whole units cannot come nearer.
    """
    updates = type(engine.method).update is not Method.update
    if updates and not any(engine.state(role).updates for role in engine.roles):
        return ["no mask was ever updated: give sparsity.method a shorter interval", *_off_density(engine)]
    return _off_density(engine)


def _off_density(engine: Engine) -> list[str]:
    lines = []
    for role in engine.roles:
        state, budget = engine.state(role), engine.budget(role)
        if engine.method.meets_density(engine.role(role)) and abs(state.nonzeros - budget.total) >= max(
            map(budget.step, budget.sizes)
        ):
            lines.append(f"the {role} has density {state.density:.4f}, {budget.exact_density:.4f} was asked")
        lines += [f"{name} of the {role} keeps no weight" for name, kept in state.budgets.items() if not kept]
    return lines
