"""Patterns in short real runs: masks hold them at every step, and a run that was stopped ends with the same bytes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from gancompress.experiment.budgets import ROLES
from gancompress.testing.methods import MethodSuite

#: the kit's DCGAN has layers of 4 and 8 channels; its transposed convolutions come input first
RUNS: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    ("1x4", "dst", {"every": 2, "explore": "both"}, ()),
    ("4x1", "gmp", {"every": 1}, ("sparsity.weights=all", "sparsity.moments=compact")),
    ("kernels", "rigl", {"every": 1, "stop": 1.0}, ("sparsity.generator.allocation=global",)),
    ("2:4", "magnitude", {}, ("model.name=sngan", "data.resolution=32", "model.channels=4",
                              "model.discriminator_channels=4")),
    ("channels", "imp", {"rate": 0.5, "budget": "total"}, ("training.steps=8",)),
]  # fmt: skip


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
