from __future__ import annotations

from typing import Any

import pytest
from method_views import rng, view

from gancompress.methods.base import Plan
from gancompress.methods.dst import DST, DSTConfig
from gancompress.methods.presets import SET, STUGAN, RigL

VALUES: dict[type[DST], dict[str, Any]] = {
    SET: {
        "growth": "random",
        "explore": "both",
        "every": 500,
        "drop_fraction": {"name": "constant", "value": 0.3},
        "stop": 1.0,
    },
    RigL: {
        "growth": "gradient",
        "explore": "both",
        "every": 100,
        "drop_fraction": {"name": "cosine", "start": 0.3, "end": 0.0},
        "stop": 0.75,
        "placement": "instead-of-step",
    },
    STUGAN: {
        "growth": {"generator": "gradient", "discriminator": "random"},
        "explore": "generator",
        "every": 500,
        "drop_fraction": {"name": "cosine", "start": 0.5, "end": 0.005},
        "stop": None,
        "placement": "after-step",
        "regrow": "allowed",
    },
}
presets = pytest.mark.parametrize("preset", [SET, RigL, STUGAN])


@presets
def test_dst_with_the_right_values_is_the_preset(preset: type[DST]) -> None:
    theirs, ours = preset(preset.Config()), DST(DSTConfig.model_validate(VALUES[preset]))
    assert theirs.config.model_dump() == ours.config.model_dump()
    current, copy = (method.init(view(), view().budget, rng()) for method in (theirs, ours))
    for step in range(1, 1001):
        for role in ("generator", "discriminator"):
            assert theirs.plan(role, step, 1000) == ours.plan(role, step, 1000)
        if Plan.UPDATE in theirs.plan("generator", step, 1000):
            net = view(current, seed=step, step=step)
            current, copy = theirs.update(current, net, rng(step)), ours.update(copy, net, rng(step))
            assert current.hash() == copy.hash()


@presets
def test_presets_are_settings_alone(preset: type[DST]) -> None:
    own = {name for name in vars(preset) if not name.startswith("__") and name not in ("_abc_impl", "__parameters__")}
    assert own <= {"Config"}
    assert preset.Config.model_fields.keys() == DSTConfig.model_fields.keys()
    assert all(field.description for field in preset.Config.model_fields.values())


def test_rigl_is_set_with_another_growth_score() -> None:
    shared = RigL.Config().model_dump() | {"growth": "random"}
    as_set = DST(DSTConfig.model_validate(shared))
    rigl = RigL(RigL.Config())
    before = rigl.init(view(), view().budget, rng())
    net = view(before, step=100)
    by_gradient, at_random = rigl.update(before, net, rng()), as_set.update(before, net, rng())
    assert by_gradient.hash() != at_random.hash()
    assert by_gradient.budgets == at_random.budgets
    for name in before.masks:  # what survives of the old mask by magnitude is the same, up to regrowth
        weakest = net.weights[name].abs()[before.masks[name]].sort().values
        survivors = net.weights[name].abs() > weakest[: -(-len(weakest) * 3 // 10)].max()
        assert bool(by_gradient.masks[name][survivors].all())
        assert bool(at_random.masks[name][survivors].all())


def test_published_numbers_of_updates() -> None:
    stu_gan = STUGAN(STUGAN.Config())
    assert sum(Plan.UPDATE in stu_gan.plan("generator", step, 125_000) for step in range(0, 125_001, 250)) == 250
    sngan = STUGAN(STUGAN.Config.model_validate({"every": 1000}))
    assert sum(Plan.UPDATE in sngan.plan("generator", step, 50_048) for step in range(0, 50_049, 500)) == 50
    rigl = RigL(RigL.Config())
    due = [step for step in range(32_001) if rigl.plan("generator", step, 32_000)]
    assert (due[0], due[-1], len(due)) == (100, 23_900, 239)
    set_ = SET(SET.Config())
    assert not set_.plan("generator", 1000, 1000)  # nothing grows after the last step
    assert set_.plan("generator", 1000, 1001)
