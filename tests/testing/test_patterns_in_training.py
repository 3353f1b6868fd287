"""Patterns in short real runs: masks hold them at every step, and a run that was stopped ends with the same bytes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.experiment.budgets import ROLES
from gancompress.testing.methods import MethodSuite
from gancompress.testing.training_runs import Watcher
from tests.small_backbones import SMALL, overrides

#: the kit's DCGAN has layers of 4 and 8 channels; its transposed convolutions come input first
RUNS: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    ("1x4", "dst", {"every": 2, "explore": "both"}, ()),
    ("4x1", "gmp", {"every": 1}, ("sparsity.weights=all", "sparsity.moments=compact")),
    ("kernels", "rigl", {"every": 1, "stop": 1.0}, ("sparsity.generator.allocation=global",)),
    ("2:4", "magnitude", {}, ("model.name=sngan", "data.resolution=32", "model.channels=4",
                              "model.discriminator_channels=4")),
    ("channels", "imp", {"rate": 0.5, "budget": "total"}, ("training.steps=8",)),
]  # fmt: skip


#: backbones whose images have 64 pixels or more; by default they hold one pattern
LARGE = ("biggan-deep", "fastgan", "projected")


class AsGiven(MethodSuite):
    """With no settings but those that are given."""

    quick: ClassVar = {}


@pytest.mark.parametrize(("pattern", "method", "settings", "overrides"), RUNS, ids=[run[0] for run in RUNS])
def test_a_pattern_is_held_and_a_run_resumes(
    pattern: str, method: str, settings: dict[str, Any], overrides: tuple[str, ...]
) -> None:
    bench = AsGiven(method, settings, overrides=(f"sparsity.pattern={pattern}", *overrides)).bench
    whole = bench.run()
    assert not whole.watcher.counts + whole.watcher.leaks
    for role in ROLES:
        budget, state = whole.budgets[role], whole.states[role]
        assert budget.pattern == pattern
        assert budget.units
        assert abs(state.nonzeros - budget.total) < max(map(budget.step, budget.sizes))
        budget.check_units(state.masks, role)
    if pattern == "2:4":  # SNGAN's networks are slower
        return
    stop = sum(whole.rounds) // 2 + 1
    assert not whole.differing(bench.run(stops=[stop]))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        pytest.param(name, pattern, marks=[pytest.mark.slow] if pattern == "2:4" and name in LARGE else [])
        for name in SMALL
        for pattern in ("1x4", "2:4")
    ],
)
def test_a_pattern_is_held_in_every_backbone(name: str, pattern: str) -> None:
    """Two steps with an update each, in memory, looked at before and after; all networks that play have the pattern."""
    watcher = Watcher(dense_moments=False)
    given = (f"sparsity.pattern={pattern}", *overrides(name), "training.steps=2")
    with AsGiven("dst", {"every": 1, "stop": 1.0, "explore": "both"}, overrides=given).bench.recipe() as recipe:
        trainer = build_trainer(recipe, build_dataset(recipe))
        trainer.engine.init(trainer.probe)
        (current,) = declared_rounds(recipe, trainer)
        before = {role: trainer.engine.state(role).hash() for role in trainer.engine.roles}
        for _ in range(current.steps):
            watcher.before(trainer)
            trainer.step(current)
            watcher.after(trainer)
    assert not watcher.counts + watcher.leaks
    assert len(before) == (4 if name == "resnet" else 2)
    for role, masks in before.items():
        budget, state = trainer.engine.budget(role), trainer.engine.state(role)
        assert budget.pattern == pattern
        assert budget.units
        assert abs(state.nonzeros - budget.total) < max(map(budget.step, budget.sizes))
        budget.check_units(state.masks, role)
        assert state.hash() != masks, f"no update changed the masks of the {role}"
