"""The loss contract: two scalars from logits, and optionally a penalty on the discriminator's gradient."""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

__all__ = ["DiscriminatorFn", "Loss", "LossConfig", "input_gradients"]

#: images (B, C, H, W) -> logits (B,) or (B, places); labels and augmentation are closed over by the caller
DiscriminatorFn: TypeAlias = Callable[[Tensor], Tensor]


class LossConfig(BaseModel):
    """Base of every loss's ``Config``: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


C = TypeVar("C", bound=LossConfig)


class Loss(abc.ABC, Generic[C]):
    """An adversarial loss. Subclass it in one file, give it a ``Config``, register it. It holds nothing but its config.

    Logits may come in any float type; losses are computed and returned in float32.
    """

    Config: ClassVar[type[LossConfig]] = LossConfig

    def __init__(self, config: C) -> None:
        self.config = config

    @abc.abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return what the discriminator minimises: a scalar, the mean over each batch."""

    @abc.abstractmethod
    def generator(self, fake_logits: Tensor, *real_logits: Any, **_: Any) -> Tensor:
        """Return what the generator minimises: a scalar, the mean over the batch.

        Write it as ``generator(self, fake_logits)``, or as ``generator(self, fake_logits, real_logits)``: then as many
        real images of the same step go through the discriminator too, and their logits come without a graph.
        """

    @functools.cached_property
    def compares(self) -> bool:
        """Whether :meth:`generator` asks for the logits of real images as well."""
        given = inspect.signature(self.generator).parameters.values()
        return len([p for p in given if p.kind <= p.POSITIONAL_OR_KEYWORD and p.default is p.empty]) > 1

    @property
    def penalises(self) -> bool:
        """Whether every discriminator step computes :meth:`penalty`, which costs and is counted."""
        return type(self).penalty is not Loss.penalty

    def penalty(
        self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Return a term to add to the discriminator's loss, already weighted; ``None`` (the default) for no term.

        Args:
            discriminator: images to logits, labels closed over.
            real: float, (B, C, H, W).
            fake: float, (B, C, H, W), without graph.
            rng: the only source of randomness.
        """
        return None


def input_gradients(discriminator: DiscriminatorFn, images: Tensor) -> Tensor:
    """Return the gradient of each image's logit with respect to that image, differentiable in the weights.

    In float32 even under autocast: a squared gradient of half-precision gradients loses the small ones. The logits are
    summed before differentiation, which is exact as long as no logit depends on another image (batch norm in the
    discriminator breaks that; instance, layer and spectral norm do not).

    Returns:
        float32, the shape of ``images``.
    """
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        inputs = images.detach().to(torch.float32).requires_grad_(True)
        (gradients,) = torch.autograd.grad(discriminator(inputs).sum(), inputs, create_graph=True)
    return gradients
