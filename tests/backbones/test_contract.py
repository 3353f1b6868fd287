"""Every built-in backbone is held to the conformance kit. A new one joins with one line in ``SMALL``."""

from __future__ import annotations

from typing import Any

import pytest

from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.testing import backbone_checks

#: settings that make it quick
SMALL: dict[str, dict[str, Any]] = {
    "dcgan": {"channels": 4, "latent_dim": 8},
    # two channels where the width is divided by 16: a spectrally normalised 1x1 matrix has no gradient
    "sngan": {"channels": 32, "discriminator_channels": 32, "latent_dim": 8},
    # eight where the attending map has as many channels, a latent that splits into five and into six
    "biggan": {"channels": 8, "latent_dim": 60},
    # few latents: 40 gains that each are sums of many would magnify the rounding of bf16 in maps of one channel
    "biggan-deep": {"channels": 4, "latent_dim": 3, "attention": 16},
    # two groups in every block
    "r3gan": {"channels": 8, "group_width": 8, "blocks": 1, "latent_dim": 8, "embedding": 4},
    # two channels at the largest size
    "fastgan": {"channels": 16, "latent_dim": 8},
    # a network of timm's own tests, drawn
    "projected": {
        "channels": 16,
        "latent_dim": 8,
        "discriminator_channels": 4,
        "mixed_channels": 2,
        "features": "test_efficientnet",
        "weights": "random",
    },
    # two channels at the largest size: with one, demodulation takes out all that a style does
    # wide enough for a weight in every layer to matter under bf16
    "unet": {"channels": 4, "discriminator_channels": 4},
    "resnet": {"channels": 4, "discriminator_channels": 4, "blocks": 2},
    "stylegan2": {"channels": 32, "latent_dim": 8, "style_dim": 8, "mapping_layers": 2},
}
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
