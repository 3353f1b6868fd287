"""Every built-in method is held to the conformance kit. A new one joins by itself; ``SETTINGS`` makes it act early."""

from __future__ import annotations

from typing import Any

import pytest

from gancompress.components.registry import METHODS
from gancompress.experiment.budgets import ROLES
from gancompress.testing import method_checks
from gancompress.testing.methods import MethodSuite
from gancompress.testing.training_runs import Bench

DYNAMIC = {"explore": "both", "every": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "dst": DYNAMIC,
    "set": DYNAMIC,
    "rigl": DYNAMIC,
    "srigl": DYNAMIC,
    "magnitude": {"scope": "global"},
    "gmp": {"every": 2},
    "granet": {"every": 2},
    "chase": {"every": 2, "channels": 0.75, "end": 0.75},
    "channels": {"start": 0.5, "end": 0.75, "rounds": 2},
    "imp": {
        "rate": 0.5,
        "rewind_step": 2,
        "discriminator": "reinitialise",
        "distillation": 0.5,
        "control": "random",
    },
    "adapt": {"every": 2, "every_discriminator": 2, "measure_every": 1, "window": 2},
}
#: methods whose masks keep everything, whatever the recipe asks for
WHOLE = ("dense", "narrow")
#: residual networks with other layers: for one method that updates and one that does not
SNGAN = ["model={name: sngan, channels: 4, latent_dim: 8}", "data.resolution=32"]

CHECKS = [
    pytest.param(check, id=f"{name}-{check}")
    for name in METHODS.builtin_names()
    for check in method_checks(name, SETTINGS.get(name))
    # whole channels are no pattern of weights
    if not (name in ("channels", "chase") and check.name == "holds-a-pattern")
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("method", ["dst", "snip"])
def test_other_networks(method: str) -> None:
    checks = method_checks(method, SETTINGS.get(method), overrides=SNGAN)
    for check in checks:
        if check.name in ("trains", "exact-counts", "zero-off-mask", "budget-met", "bit-exact-resume"):
            check()


@pytest.mark.parametrize("method", [*WHOLE, "adapt"])
def test_those_that_keep_another_number_keep_the_right_one(method: str) -> None:
    finished = Bench(MethodSuite(method, SETTINGS.get(method))).run()
    for role in ROLES:
        state = finished.states[role]
        if method in WHOLE:
            assert state.density == 1
        elif role == "generator":
            assert state.nonzeros == finished.budgets[role].total
        else:
            # one decision, after step 2, the first with a full window
            sizes = sum(mask.numel() for mask in state.masks.values())
            assert abs(state.nonzeros - finished.budgets[role].total) == round(0.05 * sizes)


def test_what_methods_say_about_themselves() -> None:
    kinds = {name: METHODS.get(name) for name in METHODS.builtin_names()}
    assert [name for name, kind in kinds.items() if kind.baseline] == ["dense", "narrow"]
    assert [name for name, kind in kinds.items() if not kind.sparsifies] == ["dense", "narrow"]
    trained = {name: dict(kind.for_trained) for name, kind in kinds.items() if kind.for_trained}
    dynamic = {name: {"start": 0} for name in ("dst", "set", "rigl", "srigl", "stu-gan", "chase", "gmp", "granet")}
    assert trained == {**dynamic, "channels": {"start": 0}, "magnitude": {"finetune": 1}}
    suited = {name for name, kind in kinds.items() if kind.suits_trained}
    assert suited == {"magnitude", "gmp", "granet", "imp", "snip", "channels"}
    defaults = {name: kind(kind.Config()) for name, kind in kinds.items()}
    meeting = {name: [*filter(method.meets_density, ROLES)] for name, method in defaults.items()}
    assert {name: roles for name, roles in meeting.items() if roles != [*ROLES]} == {
        "dense": [], "narrow": [], "adapt": ["generator"], "channels": [], "chase": [],
    }  # fmt: skip
    pruning = METHODS.get("gmp")
    assert not pruning(pruning.Config(prune="generator")).meets_density("discriminator")


@pytest.mark.parametrize(
    ("method", "settings", "short"),
    [
        ("static", {}, {}),
        ("channels", {}, {"least": 1}),
        ("dst", {}, {"every": 3}),
        ("gmp", {"every": 2}, {"every": 2}),
        ("imp", {"rewind_step": 40}, {"rewind_step": 6}),
        ("adapt", {}, {"every": 3, "every_discriminator": 3, "measure_every": 3, "window": 2}),
    ],
)
def test_what_counts_steps_is_shortened_to_twelve_of_them(
    method: str, settings: dict[str, Any], short: dict[str, int]
) -> None:
    assert METHODS.get(method).Config(**settings).shortened(12) == short


def test_the_settings_above_are_of_methods_that_exist() -> None:
    assert SETTINGS.keys() <= set(METHODS.builtin_names())
