"""Every check of the loss kit passes for the built-in losses and fails for one that is broken in just that way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from gancompress.components.contract import why_unusable
from gancompress.components.registry import LOSSES
from gancompress.objectives.base import DiscriminatorFn, Loss, LossConfig, input_gradients
from gancompress.objectives.losses import Hinge
from gancompress.testing import ConformanceError, check_loss, loss_checks


class Good(Loss[LossConfig]):
    """The hinge loss again, with R1 as its penalty."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (1 - real_logits.float()).relu().mean() + (1 + fake_logits.float()).relu().mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.float().mean()

    def penalty(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return input_gradients(discriminator, real).square().flatten(1).sum(1).mean()


def broken(doc: str = "Broken.", **changed: Any) -> type[Good]:
    return type("Broken", (Good,), {"__doc__": doc, **changed})


class Loose(BaseModel):
    """Takes anything."""


def without_graph(self: Any, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor, rng: Any) -> Tensor:
    return torch.autograd.grad(discriminator(real.requires_grad_()).sum(), real)[0].square().mean().requires_grad_()


WRONG: dict[str, tuple[type[Good], str]] = {
    "documented": (broken(doc=""), "no docstring"),
    "strict-settings": (broken(Config=Loose), "takes a setting that it does not have"),
    "scalars": (broken(generator=lambda self, fake: -fake.float()), r"shape \(8,\), expected a scalar"),
    "direction": (broken(generator=lambda self, fake: fake.float().mean()), "does not pull the logits of its images"),
    "mean": (broken(generator=lambda self, fake: -fake.float().sum()), "the mean of its halves"),
    "extremes": (broken(generator=lambda self, fake: (-fake.float()).exp().mean()), "inf"),
    "random-state": (
        broken(generator=lambda self, fake: -fake.float().mean() * torch.rand(())),
        "draws from a global random state",
    ),
    "penalty": (broken(penalty=without_graph), "no gradient in the discriminator's weights"),
}


@pytest.mark.parametrize("loss", LOSSES.names())
def test_built_in_losses_would_load_as_plugins(loss: str) -> None:
    assert why_unusable(LOSSES.get(loss), Loss) == ""


@pytest.mark.parametrize("loss", LOSSES.names())
def test_built_in_losses_pass(loss: str) -> None:
    report = check_loss(loss)
    assert [o.name for o in report.outcomes if o.state == "skipped"] == ([] if loss == "wgan-gp" else ["penalty"])


def test_a_good_one_passes_every_check_and_there_is_a_broken_one_for_each() -> None:
    assert all(outcome.state == "passed" for outcome in check_loss(Good).outcomes)
    assert [check.name for check in loss_checks(Good)] == list(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_broken_is_found(name: str) -> None:
    loss, told = WRONG[name]
    (check,) = [check for check in loss_checks(loss) if check.name == name]
    with pytest.raises(AssertionError, match=told):
        check()


def test_half_precision_and_a_wrong_pull_of_the_discriminator_are_found() -> None:
    with pytest.raises(ConformanceError, match="compute with logits"):
        check_loss(broken(generator=lambda self, fake: -fake.mean()))
    with pytest.raises(ConformanceError, match="pull the logits of real images up"):
        check_loss(broken(discriminator=lambda self, real, fake: Hinge.discriminator(self, fake, real)))


def test_settings_reach_the_loss() -> None:
    (penalty,) = [check for check in loss_checks("wgan-gp", {"weight": 0}) if check.name == "penalty"]
    assert "turn the penalty off" in penalty.outcome().reason
