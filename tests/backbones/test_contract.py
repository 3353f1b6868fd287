"""Every built-in backbone is held to the conformance kit. A new one joins with one line in ``SMALL``."""

from __future__ import annotations

from typing import Any

import pytest

from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.testing import backbone_checks
from tests.small_backbones import SMALL

CLASSES = ("ant", "bee", "cat")
CHECKS = [
    pytest.param(
        check,
        id=f"{name}-{check}",
        marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")] if check.slow else [],
    )
    for name, settings in SMALL.items()
    for check in backbone_checks(
        name, settings, every_size=name != "projected", slow=True
    )  # its generator is fastgan's
]


def test_every_built_in_backbone_is_here() -> None:
    assert set(BACKBONES.builtin_names()) == set(SMALL)


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("name", SMALL)
def test_a_refusal_says_how_to_mend_it(name: str) -> None:
    kind = BACKBONES.get(name)
    conditional = "conditional" in kind.Config.model_fields
    config = kind.Config(**SMALL[name], **({"conditional": True} if conditional else {}))
    # one that every backbone can make, and its neighbour, which none can
    size = 128 if name.startswith(("biggan", "fastgan", "projected")) else 32
    with pytest.raises(BackboneError, match=rf"these have {size + 1}: .*--set data\.resolution={size}\)"):
        kind(config, ImageSpec(3, size + 1, CLASSES)).generator()
    for classes in ((), ("only",)) if conditional else ():
        with pytest.raises(BackboneError, match=r"--set model\.conditional=false"):
            kind(config, ImageSpec(3, size, classes))
