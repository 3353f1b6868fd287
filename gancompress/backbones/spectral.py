"""Spectral norms of weights that were not trained as they are: the vectors of an average belong to other weights.

A spectrally normed layer keeps one pair of vectors ``u, v`` and divides its weight ``W`` by ``u' W v``. One power
iteration per training step keeps the pair close to the weight that is trained. The moving average of that weight is
another matrix; under the vectors of the live weight its norm is not 1 but anything above. :func:`settle` gives such a
network the vectors of its own weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["norm_vectors", "settle"]


def norm_vectors(network: nn.Module) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return ``(W, u, v)`` of every spectrally normed tensor in both of torch's ways.

    ``W`` is the raw weight as a matrix (rows, columns), in the layer's own convention of which axis is the rows, and
    may be a copy; ``u`` (rows,) and ``v`` (columns,) are the buffers themselves.
    """
    return list(_normed(network))


def _normed(network: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for module in network.modules():
        if is_parametrized(module):
            parametrizations: Any = module.parametrizations
            for parametrization in parametrizations.values():
                if not any(isinstance(norm, _SpectralNorm) for norm in parametrization):
                    continue
                leaves = (*parametrization.named_parameters(), *parametrization.named_buffers())
                parts = [leaf for name, leaf in leaves if name.startswith("original")]
                for norm in parametrization:
                    if isinstance(norm, _SpectralNorm) and parts[0].dim() > 1:
                        yield norm._reshape_weight_to_matrix(parts[0].detach()), norm._u, norm._v
                    parts = parts if isinstance(norm, _SpectralNorm) else [norm(*parts)]
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                weight, u, v = (getattr(module, f"{hook.name}_{part}") for part in ("orig", "u", "v"))
                yield hook.reshape_weight_to_matrix(weight.detach()), u, v


@torch.no_grad()
def settle(network: nn.Module) -> bool:
    """Set the vectors of every spectrally normed layer to the first singular vectors of its own weight.

    They are computed and not iterated towards: a power iteration crawls where the two largest singular values are
    close, and stays where it is when it starts at right angles to the answer, as with other masks. All is done in
    float64 on the CPU, from the smaller of ``W W'`` and ``W' W``, so that the result depends on the weights alone. What
    remains is the rounding of the vectors to their own type: the norm is off by about 1e-7. Layers without a finite
    weight above 0 are left as they are.

    Returns:
        Whether the network has a spectrally normed layer.
    """
    found = norm_vectors(network)
    for weight, u, v in found:
        matrix = weight.to("cpu", torch.float64)
        scale = float(matrix.abs().max()) if matrix.numel() else 0.0
        if not 0 < scale < float("inf"):
            continue
        matrix = matrix / scale
        wide = matrix.shape[0] <= matrix.shape[1]
        small = matrix if wide else matrix.T
        first = torch.linalg.eigh(small @ small.T)[1][:, -1]
        other = nn.functional.normalize(small.T @ first, dim=0)
        left, right = (first, other) if wide else (other, first)
        # of the two signs the nearer one, so that no machine's linear algebra decides
        sign = -1.0 if float(left @ u.to(left)) < 0 else 1.0
        u.copy_(sign * left)
        v.copy_(sign * right)
    return bool(found)
