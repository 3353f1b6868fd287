"""Networks tried on inputs of their own shapes before a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gancompress.backbones.base import blank_inputs, evaluating
from gancompress.errors import BackboneError
from gancompress.sparsity.state import role_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Name

__all__ = ["check_networks"]


def check_networks(
    networks: Mapping[Name, Generator | Discriminator], image: ImageSpec, *, pairs: bool = False, patches: bool = False
) -> None:
    """Run two inputs through every generator, and what it makes through every discriminator.

    Args:
        networks: by name.
        image: what generators are to make.
        pairs: discriminators see what a generator was given and what it made of it, one behind the other.
        patches: discriminators may give a logit for every patch.

    Raises:
        BackboneError: a network lacks what the contract asks, or gives another shape.
    """
    for name, network in networks.items():
        role = role_of(name)
        needed = ("latent_dim", "num_classes", "image") if role == "generator" else ("num_classes", "image")
        missing = [one for one in needed if not hasattr(network, one)]
        if missing:
            raise BackboneError(
                f"the {name} {type(network).__name__} must set {', '.join(missing)} (backbones/base.py)"
            )
        network.output_layer()
    generator: Any = networks["generator"]
    z, labels = blank_inputs(generator, 2)
    with evaluating(*networks.values()):
        images = generator(z, labels)
        wanted = (2, image.channels, image.resolution, image.resolution)
        if tuple(images.shape) != wanted:
            raise BackboneError(f"the generator makes {tuple(images.shape)}, the data needs {wanted}")
        shown = torch.cat((z, images), 1) if pairs else images
        logits = networks["discriminator"](shown, labels)
    if tuple(logits.shape[:1]) != (2,) or (logits.dim() > 2 and not patches):
        raise BackboneError(
            f"the discriminator gives {tuple(logits.shape)} logits for 2 images, not (2,) or (2, places)"
        )
