"""What is asked of whole channels, with a clock for those who ask for milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.channels.target import Clock
    from gancompress.foreign.channels import ChannelOptions
    from gancompress.graphs.build import CapturedModule

__all__ = ["channel_options", "clock_of"]

#: size of a timed input along every axis that is open, rounds of every measurement, seconds that they may take, about
_TIMED, _ROUNDS, _SECONDS = 128, 7, 6.0


def channel_options(method: str | None, target: str | None, importance: str | None) -> ChannelOptions:
    """Return the options of method ``channels``.

    Raises:
        RecipeError: they are for another method.
        ChannelError: there is no such target.
    """
    from gancompress.foreign.channels import ChannelOptions

    if method is None and (target or importance):
        raise RecipeError(f"{'target' if target else 'importance'} is for whole channels: method channels")
    options = ChannelOptions(target, importance, clock_of)
    options.check(method or "", None)
    return options


def clock_of(whole: CapturedModule, inputs: tuple[Tensor, ...] | None = None) -> Clock:
    """Return what measures a narrow network as it will run, in turn with the whole one in torch, on one thread."""
    import time

    import torch

    from gancompress.backbones.base import prunable_weights
    from gancompress.bench.timing import alternate, keep_memory, ratios, with_threads
    from gancompress.foreign.calibration import typical_inputs
    from gancompress.lowering.network import SparseNetwork

    given = typical_inputs(whole.captured, _TIMED) if inputs is None else inputs

    def measure(narrow: CapturedModule) -> tuple[float, float]:
        masks = {name: torch.ones_like(one.parameter).bool() for name, one in prunable_weights(narrow).items()}
        run = SparseNetwork(narrow, masks)
        with with_threads(1), torch.no_grad():
            keep_memory()
            run(*given)  # programs are made and chosen on the first call
            start = time.process_time()
            whole(*given)
            run(*given)
            taken = max(time.process_time() - start, 1e-6)
            rounds, calls = max(3, min(_ROUNDS, int(_SECONDS / taken))), max(1, min(20, int(0.02 / taken)))
            steps = {"whole": lambda: whole(*given), "narrow": lambda: run(*given)}
            found = ratios(alternate(steps, rounds, calls=calls), "whole")["narrow"]
        return found.seconds * 1e3, 1 / found.faster

    return measure
