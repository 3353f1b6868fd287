"""Every built-in backbone in settings that make it quick, and what it is trained on, for tests that go through all."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["SMALL", "overrides"]

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
    # wide enough for a weight in every layer to matter under bf16
    "unet": {"channels": 4, "discriminator_channels": 4},
    "resnet": {"channels": 4, "discriminator_channels": 4, "blocks": 2},
    # two channels at the largest size: with one, demodulation takes out all that a style does
    "stylegan2": {"channels": 32, "latent_dim": 8, "style_dim": 8, "mapping_layers": 2},
}

#: images that a backbone makes, where 16 pixels are too few for it
_SIZES = {"sngan": 32, "biggan": 32, "biggan-deep": 128, "fastgan": 64, "projected": 64}
#: what others than latents become images in: the generator of CycleGAN plays with three other networks
_TASKS = {"unet": ("pix2pix", "non-saturating"), "resnet": ("cyclegan", "least-squares")}


def overrides(name: str) -> tuple[str, ...]:
    """Return what makes any small recipe one of this backbone: its settings, a task that it serves, few images."""
    data: dict[str, Any] = {"name": "shapes", "resolution": _SIZES.get(name, 16), "images": 16, "classes": 3}
    chosen = [f"model={json.dumps({'name': name, **SMALL[name]})}"]
    if name in _TASKS:
        task, loss = _TASKS[name]
        data = {"name": "outlines", "resolution": 32, "images": 16, "held_out": 16, "paired": task == "pix2pix"}
        chosen += [f"task={task}", f"objective.loss={loss}"]
    return *chosen, f"data={json.dumps(data)}"
