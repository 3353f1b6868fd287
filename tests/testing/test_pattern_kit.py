"""Every check of the pattern kit passes for the built-in patterns and fails for one that is broken in just that way."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig
from gancompress.sparsity.units import Units
from gancompress.testing import check, checks

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer

BUILT_IN: list[tuple[str, dict[str, Any]]] = [
    ("unstructured", {}), ("block", {}), ("block", {"outputs": 16, "inputs": 1}), ("kernels", {}), ("channels", {}),
    ("nm", {}), ("nm", {"n": 1, "m": 4}),
]  # fmt: skip


class Pairs(Pattern[PatternConfig]):
    """Two neighbouring inputs, one position of the kernel."""

    kind: ClassVar[type[Units]] = Units

    def units(self, layer: Layer) -> Units | None:
        box = layer.box(1, 2)
        return None if box is None else self.kind(layer.shape, box)


class Limited(Pairs):
    """One of two neighbouring inputs."""

    def units(self, layer: Layer) -> Units | None:
        group = layer.box(1, 2)
        return None if group is None else self.kind(layer.shape, (1,) * len(layer.shape), group, 1)


class Loose(BaseModel):
    """Takes anything."""


class Shifted(Units):
    """Counts from the second unit on: the first weights belong to two."""

    def expand(self, chosen: Tensor) -> Tensor:
        grown = super().expand(chosen)
        return torch.cat([grown.flatten()[:1], grown.flatten()[:-1]]).reshape(grown.shape)


class ByLargest(Units):
    """Ranks a unit by twice the mean."""

    def pool(self, scores: Tensor) -> Tensor:
        return super().pool(scores) * 2


class Forgetful(Units):
    """Sees room in every group, and nothing wrong with that."""

    def room(self, scores: Tensor, candidates: Tensor | None, beside: Tensor | None) -> Tensor | None:
        return candidates


class Beside(Units):
    """Forgets what a group keeps already."""

    def room(self, scores: Tensor, candidates: Tensor | None, beside: Tensor | None) -> Tensor | None:
        return super().room(scores, candidates, None)


def broken(base: type[Pairs] = Pairs, doc: str = "Broken.", **changed: Any) -> type[Pairs]:
    return type("Broken", (base,), {"__doc__": doc, **changed})


_calls = itertools.count()

WRONG: dict[str, tuple[type[Pairs], str]] = {
    "documented": (broken(doc=""), "no docstring"),
    "strict-settings": (broken(Config=Loose), "takes a setting that it does not have"),
    "answers": (
        broken(units=lambda self, layer: Units(layer.shape, layer.box(1, 1 + next(_calls) % 2) or layer.shape)),
        "when asked again",
    ),
    "partition": (broken(kind=Shifted), "unit 0 has 3 weights, a unit has 2"),
    "pooled": (broken(kind=ByLargest), "is not the mean score"),
    "exact-counts": (broken(Limited, kind=Forgetful), "exceeds a limit"),
    "capacity": (broken(Limited, kind=Beside), "has room for more"),
    # always the second axis, which are the outputs of a transposed convolution
    "axes": (
        broken(
            units=lambda self, layer: (
                None if layer.shape[1] % 2 else Units(layer.shape, (1, 2, *(1 for _ in layer.kernel)))
            )
        ),
        "whose weight comes input first",
    ),
    # all that one input reaches: the outputs of every group
    "groups": (
        broken(units=lambda self, layer: Units(layer.shape, (layer.shape[0], 1, *layer.kernel))),
        "a group has",
    ),
    "trains": (broken(Limited, kind=Forgetful), "pattern"),
}


@pytest.mark.parametrize(("pattern", "settings"), BUILT_IN, ids=str)
def test_built_in_patterns_pass(pattern: str, settings: dict[str, Any]) -> None:
    # short runs with them are in test_patterns_in_training
    report = check(pattern, settings, kind="pattern", skip=["trains"])
    assert (pattern == "unstructured") == any(outcome.state == "skipped" for outcome in report.outcomes)


def test_every_built_in_pattern_is_held_to_the_kit() -> None:
    assert {name for name, _ in BUILT_IN} == set(PATTERNS.names())


@pytest.mark.parametrize("pattern", [Pairs, Limited])
def test_good_ones_pass_every_check(pattern: type[Pairs]) -> None:
    assert all(outcome.state == "passed" for outcome in check(pattern).outcomes)


def test_there_is_a_broken_one_for_each_check() -> None:
    assert [one.name for one in checks(Pairs)] == list(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_broken_is_found(name: str) -> None:
    pattern, told = WRONG[name]
    (one,) = [one for one in checks(pattern) if one.name == name]
    outcome = one.outcome()
    assert outcome.state == "failed"
    assert told in outcome.reason


def test_units_of_another_weight_are_found() -> None:
    other = broken(units=lambda self, layer: Units.single((2, 2)))
    (one,) = [one for one in checks(other) if one.name == "answers"]
    with pytest.raises(AssertionError, match="are those of a weight"):
        one()


def test_a_run_takes_overrides() -> None:
    (one,) = [one for one in checks("block", {"inputs": 64}, kind="pattern") if one.name == "trains"]
    assert "no layer of the generator can hold pattern 1x64" in one.outcome().reason
    wide = ("model.channels=64", "model.latent_dim=64", "training.steps=2")
    (one,) = [one for one in checks("block", {"inputs": 64}, kind="pattern", overrides=wide) if one.name == "trains"]
    assert one.outcome().state == "passed"
