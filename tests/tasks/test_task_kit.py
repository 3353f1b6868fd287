"""Every built-in task is held to the conformance kit, and the kit finds what is wrong with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gancompress.components.registry import TASKS
from gancompress.tasks.latent import Latent
from gancompress.tasks.pix2pix import Pix2Pix
from gancompress.testing import ConformanceError, check, checks
from gancompress.training.paired import PairedPlay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.methods.base import Plan
    from gancompress.training.play import Play

SETTINGS: dict[str, dict[str, Any]] = {"latent": {}, "pix2pix": {"jitter": 2}, "cyclegan": {"pool": 2}}
CHECKS = [
    pytest.param(one, id=f"{name}-{one}")
    for name, settings in SETTINGS.items()
    for one in checks(name, settings, kind="task")
]


def test_every_built_in_task_is_here() -> None:
    assert set(TASKS.builtin_names()) == set(SETTINGS)


@pytest.mark.parametrize("one", CHECKS)
def test_conformance(one: Any) -> None:
    one()


class _Idle(PairedPlay):
    def take(self, name: str, plans: Mapping[str, Plan]) -> None:
        if name == "generator":
            super().take(name, plans)


class Idle(Pix2Pix):
    """Never steps its discriminator."""

    def play(self, setup: Any) -> Play:
        made: Any = super().play(setup)
        return _Idle(made.loss, made.source, False, l1=1.0, discriminator=0.5, pairs=True)


class Nameless(Latent):
    """A name that says no role."""

    beside = ("critic",)


def test_the_kit_finds_a_network_that_never_steps() -> None:
    with pytest.raises(ConformanceError, match="a step leaves the discriminator as it was"):
        check(Idle, {}, kind="task")


def test_the_kit_finds_a_name_without_a_role() -> None:
    with pytest.raises(ConformanceError, match="network 'critic' plays on no side"):
        check(Nameless, {}, kind="task")
