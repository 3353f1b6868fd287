"""What a run does not do although it was asked to: a density never reached, masks never updated, empty layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.methods.base import Method, MethodConfig, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Role
    from gancompress.training.engine import Engine

__all__ = ["planned_shortfalls", "shortfalls", "start_notes"]


def start_notes(recipe: Recipe, engine: Engine, kept: Sequence[Role]) -> list[str]:
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
    if any(Plan.UPDATE in method.plan(role, step, steps) for role in engine.roles for step in range(1, steps + 1)):
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
        if engine.method.meets_density(role) and abs(state.nonzeros - budget.total) >= max(
            map(budget.step, budget.sizes)
        ):
            lines.append(f"the {role} has density {state.density:.4f}, {budget.exact_density:.4f} was asked")
        lines += [f"{name} of the {role} keeps no weight" for name, kept in state.budgets.items() if not kept]
    return lines
