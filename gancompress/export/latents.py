"""The latents of a loaded generator: numbers that a web page draws too, bit for bit.

Uniform numbers come from torch's Mersenne twister, as everywhere; they become normal ones as in ``torch.randn``, but in
float64, so that vector instructions of one processor do not round them otherwise. Both agree to a rounding of float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.evaluation.sampler import BLOCK
from gancompress.seeds import generator

__all__ = ["draw_latents", "interpolated", "within"]

#: numbers that torch makes normal together: the first half are radii, the second angles
_TOGETHER = 16
#: beyond so many standard deviations, a threshold changes nothing that float32 could hold
_FAR = 8.0


def draw_latents(dim: int, seed: int, start: int, stop: int) -> Tensor:
    """Return the latents of images ``start`` to ``stop`` of a seed, (stop - start, dim), float32.

    They are those of :class:`~gancompress.evaluation.sampler.Sampler`, to a rounding.
    """
    parts = []
    for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
        rng = generator(seed, "evaluation", "latent", block)
        uniform = torch.rand(BLOCK * dim, generator=rng).double()
        whole = len(uniform) // _TOGETHER * _TOGETHER
        numbers = torch.cat((_normal(uniform[:whole]), uniform[whole:]))
        if whole < len(uniform):  # the last sixteen are drawn anew, over what was there
            numbers[-_TOGETHER:] = _normal(torch.rand(_TOGETHER, generator=rng).double())
        low = block * BLOCK
        parts.append(numbers.float().reshape(BLOCK, dim)[max(start - low, 0) : min(stop - low, BLOCK)])
    return torch.cat(parts)


def _normal(uniform: Tensor) -> Tensor:
    first, second = uniform.reshape(-1, 2, _TOGETHER // 2).unbind(1)
    radius, angle = (-2 * (1 - first).log()).sqrt(), 2 * math.pi * second
    return torch.stack((radius * angle.cos(), radius * angle.sin()), 1).reshape(-1)


def within(latents: Tensor, most: float) -> Tensor:
    """Bring normal numbers between ``-most`` and ``most``, where they have the law of normal ones that lie there.

    What Brock et al. (2019, section 3.1) get by drawing again until a number lies there; every number here stays where
    it is among the others, so that images change steadily with ``most``.

    Raises:
        ExportError: ``most`` is not above 0.
    """
    if not most > 0:
        raise ExportError(f"a threshold is a number above 0, got {most}")
    if most >= _FAR:
        return latents
    low = float(torch.special.ndtr(torch.tensor(-most, dtype=torch.float64)))
    share = low + (1 - 2 * low) * torch.special.ndtr(latents.double())
    found: Tensor = torch.special.ndtri(share).clamp(-most, most)
    return found.float()


def interpolated(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Return latents on the way from ``a`` to ``b``, both (dim,), both ends included: (steps, dim), float32.

    Along the arc between them (Shoemake, "Animating rotation with quaternion curves", 1985): the middle of the straight
    way is nearer to 0 than latents ever lie.
    """
    first, second = a.double(), b.double()
    cosine = (first @ second / (first.norm() * second.norm())).clamp(-1, 1)
    angle, t = cosine.acos(), torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    if not angle.sin() > 1e-6:
        return ((1 - t) * first + t * second).float()
    way: Tensor = ((1 - t) * angle).sin() / angle.sin() * first + (t * angle).sin() / angle.sin() * second
    return way.float()
