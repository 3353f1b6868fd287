"""The only source of randomness: generators that are pure functions of a seed, a stream name and keys.

Nothing random is ever *carried* from one step to the next. Whoever needs randomness at step ``s`` asks for
``generator(seed, "latent", s, rank)`` and gets the same draws today, after a resume, and whatever else was drawn in
between. So there is no random state to save, streams cannot disturb each other, and evaluating more often never
changes the training.

Streams are named by what they are for: ``init``, ``latent``, ``label``, ``data``, ``flip``, ``augment``,
``topology``, ``penalty``, ``evaluation``, …
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["derive", "generator", "kept_global", "seed_global", "to_device"]


def derive(seed: int, stream: str, *keys: int | str) -> int:
    """Return a number that depends on every argument and on nothing else.

    The arguments are hashed with BLAKE2b after an encoding that keeps types and lengths, so ``("a", "bc")``,
    ``("ab", "c")``, ``1`` and ``"1"`` all differ. The same on every machine, Python and torch version.

    Args:
        seed: the seed of the recipe.
        stream: what the randomness is for.
        keys: what tells one draw from another: step, rank, role, name of a tensor, ….

    Returns:
        A number in [0, 2**63).
    """
    parts = []
    for value in (seed, stream, *keys):
        text = f"{'s' if isinstance(value, str) else 'i'}{value if isinstance(value, str) else int(value)}".encode()
        parts.append(len(text).to_bytes(8, "little") + text)
    digest = hashlib.blake2b(b"".join(parts), digest_size=8, person=b"gancompress").digest()
    return int.from_bytes(digest, "little") >> 1


def generator(
    seed: int, stream: str, *keys: int | str, device: torch.device | str | int | None = "cpu"
) -> torch.Generator:
    """Return a fresh generator whose draws are a pure function of the arguments.

    A CPU generator starts from the low 32 bits of :func:`derive` (that is all torch's Mersenne twister takes): two
    of a million steps may draw alike, which biases nothing. A CUDA generator draws other numbers than a CPU one from
    the same seed; whatever must agree between devices (masks, data order) is drawn on the CPU.

    Args:
        seed: the seed of the recipe.
        stream: what the randomness is for.
        keys: what tells one draw from another: step, rank, role, name of a tensor, ….
        device: where the generator draws; it must match the tensors it fills.
    """
    rng = torch.Generator(device=device if device is not None else "cpu")
    rng.manual_seed(derive(seed, stream, *keys))
    return rng


def seed_global(seed: int, stream: str, *keys: int | str, device: torch.device | str | int | None = "cpu") -> None:
    """Seed the global random states by the arguments: networks that drop out or add noise know no other place to draw.

    Torch's CPU state, that of the CUDA device in use, NumPy's and Python's are meant. It costs microseconds; putting
    them back costs a hundred times that, so a run does it once: see :func:`kept_global`.

    Args:
        seed: the seed of the recipe.
        stream: what the randomness is for.
        keys: what tells one draw from another: step, rank, ….
        device: where the networks are.
    """
    number = derive(seed, stream, *keys)
    # Not torch.manual_seed: it would seed every device there is, beyond those that are put back.
    torch.default_generator.manual_seed(number)
    if (cuda := _cuda(device)) is not None:
        with torch.cuda.device(cuda):
            torch.cuda.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


@contextlib.contextmanager
def kept_global(device: torch.device | str | int | None = "cpu") -> Iterator[None]:
    """Put the global random states back on leaving, those that :func:`seed_global` sets for this device."""
    cuda = _cuda(device)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[] if cuda is None else [cuda]):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def _cuda(device: torch.device | str | int | None) -> torch.device | None:
    where = torch.device(device if device is not None else "cpu")
    return where if where.type == "cuda" else None


def to_device(drawn: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Bring what was drawn on the CPU to ``device`` without waiting for it.

    A GPU copies from pinned memory while the host goes on; from ordinary memory the host would wait.
    """
    where = torch.device(device)
    if where.type == "cuda" and drawn.device.type == "cpu":
        return drawn.pin_memory().to(where, non_blocking=True)
    return drawn.to(where)
