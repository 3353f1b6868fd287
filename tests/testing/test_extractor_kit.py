"""Every check of the extractor kit passes for a good extractor and fails for one that is broken in just that way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gancompress.evaluation.extractors import Extractor
from gancompress.testing import check_extractor, extractor_checks


class Good(Extractor):
    """Means of rows and of columns."""

    label = "means"  # type: ignore[assignment]
    weights_hash = "none"  # type: ignore[assignment]

    @classmethod
    def prepare(cls, dataset: Any, *, option: str = "", device: Any = "cpu", progress: Any = None) -> Extractor:
        return cls()

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.float() / 255
        return pixels.mean(2).flatten(1), pixels.mean(3).flatten(1)


def broken(doc: str = "Broken.", **changed: Any) -> type[Good]:
    return type("Broken", (Good,), {"__doc__": doc, **changed})


def features(change: Any) -> dict[str, Any]:
    return {"features": lambda self, images: tuple(map(change, Good.features(self, images)))}


def editing(self: Good, images: Tensor) -> tuple[Tensor, Tensor]:
    return Good.features(self, images.clamp_(max=10))


calls: list[int] = []


def renamed(self: Good) -> str:
    calls.append(1)
    return f"means{len(calls)}"


WRONG: dict[str, tuple[type[Good], str]] = {
    "documented": (broken(doc=""), "no docstring"),
    "prepares": (broken(prepare=classmethod(lambda cls, *a, **k: 3)), "gives a int, expected an Extractor"),
    "shapes": (broken(**features(lambda x: x[:, :, None])), "expected two axes"),
    "named": (broken(label=property(renamed)), "when it is prepared again"),
    "each-by-itself": (broken(**features(lambda x: x - x.mean(0))), "the other images in the batch"),
    "tells-apart": (broken(**features(lambda x: x * 0)), "all images have the same features"),
    "random-state": (broken(**features(lambda x: x + torch.rand(()))), "global random state"),
    "untouched": (broken(features=editing), "changes the images"),
}


def test_a_good_one_passes_every_check_and_there_is_a_broken_one_for_each() -> None:
    assert all(outcome.state == "passed" for outcome in check_extractor(Good).outcomes)
    assert [check.name for check in extractor_checks(Good)] == list(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_broken_is_found(name: str) -> None:
    extractor, told = WRONG[name]
    (check,) = [check for check in extractor_checks(extractor) if check.name == name]
    with pytest.raises(AssertionError, match=told):
        check()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (features(lambda x: x.double()), "are torch.float64, expected float32"),
        (features(lambda x: x / 0), "are not finite"),
        (features(lambda x: x.requires_grad_()), "carry a graph"),
        ({"classes": 3}, "classes is 3, there are 96 logits"),
    ],
)
def test_every_part_of_the_shapes_is_looked_at(change: dict[str, Any], told: str) -> None:
    (check,) = [check for check in extractor_checks(broken(**change)) if check.name == "shapes"]
    with pytest.raises(AssertionError, match=told):
        check()


def test_one_that_cannot_be_used_here_is_skipped_with_its_reason() -> None:
    absent = broken(available=classmethod(lambda cls: "its weights are not here"))
    states = {outcome.name: (outcome.state, outcome.reason) for outcome in check_extractor(absent).outcomes}
    assert states["prepares"] == ("skipped", "it cannot be used here: its weights are not here")
    assert states["shapes"][0] == "skipped"
    assert states["documented"][0] == "passed"


def test_the_built_in_one_passes() -> None:
    assert all(outcome.state == "passed" for outcome in check_extractor("classifier").outcomes)
