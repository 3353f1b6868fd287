"""What regularises training: gradient penalties, and filters of one layer that point in different directions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.objectives.base import DiscriminatorFn, input_gradients
from gancompress.seeds import to_device
from gancompress.sparsity.weights import stored_parameter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Styled(Protocol):
        """A generator in two halves: latents to styles, styles to images."""

        def styles(self, z: Tensor, labels: Tensor | None = None) -> Tensor: ...

        def synthesise(self, styles: Tensor) -> Tensor: ...


__all__ = ["filter_matrices", "gradient_penalty", "orthogonal_penalty", "path_lengths"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FORWARD = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def gradient_penalty(discriminator: DiscriminatorFn, images: Tensor) -> Tensor:
    """Return E[‖∇D(x)‖²] over real images (R1) or generated ones (R2), exact and differentiable in D's weights.

    The caller weights it: the loss is ``gamma / 2`` times this, and ``every`` times more when it is added only every
    ``every``-th step (lazy regularisation; Karras et al., 2020, section 4.1).

    Source: Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018, eqs. 9 and 10.

    Args:
        discriminator: images to logits, labels closed over.
        images: float, (B, C, H, W).

    Returns:
        float32 scalar.
    """
    return input_gradients(discriminator, images).square().flatten(1).sum(1).mean()


def path_lengths(network: Styled, z: Tensor, labels: Tensor | None, rng: torch.Generator) -> Tensor:
    """Return how much a random change of each image asks of its styles, ‖Jᵀ y‖, differentiable in the weights.

    ``y`` is normal noise divided by the root of the number of pixels. Squares are summed over a style and averaged
    over the layers that it goes to, as in the published implementation.

    Source: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020, appendix B.

    Args:
        network: the generator, in two halves.
        z: latents, (B, latent_dim).
        labels: classes, (B,), of a conditional one.
        rng: the only source of randomness of ``y``.

    Returns:
        float32, (B,).
    """
    with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
        styles = network.styles(z, labels)
        images = network.synthesise(styles)
        noise = to_device(torch.randn(images.shape, generator=rng, device=rng.device), images.device)
        pixels = images.shape[2] * images.shape[3]
        (slopes,) = torch.autograd.grad((images * (noise / math.sqrt(pixels))).sum(), styles, create_graph=True)
        return slopes.square().sum(2).mean(1).sqrt()


def filter_matrices(network: nn.Module) -> list[Tensor]:
    """Return the weights of all convolutions and linear layers with filters first, embeddings and biases left out.

    Under spectral norm it is the raw parameter, before the division by sigma, as in the published code; under weight
    norm the direction. The tensors
    are views: gradients reach the parameters.
    """
    found = []
    for module in network.modules():
        if not isinstance(module, (*_FORWARD, *_TRANSPOSED)):
            continue
        stored = stored_parameter(module)
        weight = module.weight if stored is None else stored
        found.append(weight.transpose(0, 1) if isinstance(module, _TRANSPOSED) else weight)
    return found


def orthogonal_penalty(weights: Iterable[Tensor]) -> Tensor:
    """Return Σ ‖W Wᵀ ⊙ (1 − I)‖²_F over ``weights``: squared products of all pairs of filters, norms left free.

    The caller weights it. The published implementation adds 2 β (W Wᵀ ⊙ (1 − I)) W to the gradient, half of what
    eq. 3 gives, so its β of 1e-4 is 5e-5 here.

    It costs min(r, c)·r·c multiply-adds forward for r filters of c elements, once a step and not once an image: of
    a BigGAN step on CIFAR-10 at batch 50 0.2 % for the generator and 0.8 % for both networks. The FLOPs of a run leave
    it out, as they do the optimizer, which is paid once a step too.

    Source: Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, 2019, eq. 3.

    Args:
        weights: float, each (filters, ...), see :func:`filter_matrices`.

    Returns:
        float32 scalar, also under autocast.

    Raises:
        ValueError: there are no weights.
    """
    terms = [_off_diagonal(weight) for weight in weights]
    if not terms:
        raise ValueError("there are no weights to regularise")
    return torch.stack(terms).sum()


def _off_diagonal(weight: Tensor) -> Tensor:
    with torch.autocast(weight.device.type, enabled=False):
        rows = weight.flatten(1).float()
        if rows.shape[0] <= rows.shape[1]:
            products = rows @ rows.t()
            return (products - torch.diag(products.diagonal())).square().sum()
        # ‖W Wᵀ‖ = ‖Wᵀ W‖, which is the smaller matrix: the first layer of a generator has thousands of rows of a few
        return (rows.t() @ rows).square().sum() - rows.square().sum(1).square().sum()
