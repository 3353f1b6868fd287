"""Small generators as training leaves them: masked weights, norms that have seen data, biases that are not 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gancompress.backbones.base import Generator, prunable_weights
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec

CLASSES = ("ant", "bee", "cat")


def make(name: str, image: ImageSpec, **config: Any) -> Generator:
    """A generator in eval mode, its norms settled on its own maps."""
    backbone = BACKBONES.get(name)
    torch.manual_seed(0)
    generator = backbone(backbone.Config(**config), image).generator()
    with torch.no_grad():
        for key, parameter in generator.named_parameters():
            if "bias" in key or "norm" in key:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for weight in prunable_weights(generator).values():
            if not weight.parameter.any():  # the end of a block that starts as the identity
                weight.parameter.normal_()
            if weight.output:
                weight.parameter.mul_(4)  # images that span some of [-1, 1]
    return settle(generator)


@torch.no_grad()
def settle(generator: Generator) -> Generator:
    """Let batch norms see the maps and spectral norms find their vectors: else a network may amplify rounding."""
    generator.train()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    for _ in range(4):
        generator(*inputs(generator, 8))
    return generator.eval()


def mask(generator: Generator, density: float = 0.2) -> dict[str, Tensor]:
    """Mask every prunable weight in place, and return the masks."""
    masks = {}
    rng = torch.Generator().manual_seed(1)
    for name, weight in prunable_weights(generator).items():
        masks[name] = torch.rand(weight.parameter.shape, generator=rng) < density
        with torch.no_grad():
            weight.parameter.masked_fill_(~masks[name], 0)
    settle(generator)
    return masks


def inputs(generator: Generator, batch: int) -> tuple[Tensor, Tensor | None]:
    z = torch.randn(
        batch,
        *getattr(generator, "input_shape", (generator.latent_dim,)),
        generator=torch.Generator().manual_seed(batch),
    )
    labels = torch.arange(batch) % generator.num_classes if generator.num_classes else None
    return z, labels


def images(generator: Any, batch: int) -> Tensor:
    with torch.no_grad():
        made: Tensor = generator(*inputs(generator, batch))
    return made


TINY = {"name": "dcgan", "channels": 4, "latent_dim": 5}


def tiny() -> tuple[Generator, dict[str, Tensor]]:
    config = {key: value for key, value in TINY.items() if key != "name"}
    generator = make("dcgan", ImageSpec(1, 16), **config)
    return generator, mask(generator)
