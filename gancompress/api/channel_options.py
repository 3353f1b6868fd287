"""What is asked of whole channels, with a clock for those who ask for milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gancompress.foreign.channels import ChannelOptions

__all__ = ["channel_options", "in_turn"]

#: rounds of every measurement, seconds that they may take, about, and seconds of a turn: in a short one the first call,
#: which finds the caches full of the other network, would count for much
_ROUNDS, _SECONDS, _TURN = 9, 6.0, 0.1


def channel_options(method: str | None, target: str | None, importance: str | None) -> ChannelOptions:
    """Return the options of method ``channels``.

    Raises:
        RecipeError: they are for another method.
        ChannelError: there is no such target.
    """
    from gancompress.foreign.channels import ChannelOptions

    if method is None and (target or importance):
        raise RecipeError(f"{'target' if target else 'importance'} is for whole channels: method channels")
    options = ChannelOptions(target, importance, in_turn)
    options.check(method or "", None)
    return options


def in_turn(
    whole: Callable[..., object], narrow: Callable[..., object], inputs: tuple[Tensor, ...]
) -> tuple[float, float]:
    """Return milliseconds of a call of a narrow network, and its share of the whole one's, in turn, on one thread."""
    import time

    import torch

    from gancompress.bench.timing import alternate, keep_memory, ratios, with_threads

    with with_threads(1), torch.no_grad():
        keep_memory()
        narrow(*inputs)  # programs are made and chosen on the first call
        whole(*inputs)
        start = time.process_time()
        whole(*inputs)
        narrow(*inputs)
        taken = max(time.process_time() - start, 1e-6)
        calls = max(1, min(50, int(_TURN / taken)))
        rounds = max(3, min(_ROUNDS, int(_SECONDS / (calls * taken))))
        steps = {"whole": lambda: whole(*inputs), "narrow": lambda: narrow(*inputs)}
        found = ratios(alternate(steps, rounds, calls=calls), "whole")["narrow"]
    return found.seconds * 1e3, 1 / found.faster
