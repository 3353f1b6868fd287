"""Sparse or dense? Measured once per machine and layer shape, then remembered; never guessed.

The time of a sparse layer is close to ``a + b * density``, the time of the dense one is constant. Both are timed on
random data at two densities, and the density where the lines cross is the break-even of that layer shape. It is kept in
memory and in a file under the user's cache directory, so a second run (and a resumed one) makes the same choices.

Environment:
    GANCOMPRESS_SPARSE: ``always``, ``never`` or ``auto`` (the default) for every call that does not say.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch

from gancompress.errors import KernelError, did_you_mean
from gancompress.kernels import masked
from gancompress.kernels.layout import to_batch_last
from gancompress.kernels.measured import DENSITIES, Figures, crossing, drawn, fastest, processor_key, rounded_batch
from gancompress.kernels.native_library import library
from gancompress.kernels.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from gancompress.kernels.layer import Layer

__all__ = ["ENVIRONMENT", "FIGURES", "Mode", "break_even", "choose", "chosen_mode"]

Mode = Literal["auto", "always", "never"]

#: The environment variable that sets the mode of calls which do not say.
ENVIRONMENT = "GANCOMPRESS_SPARSE"

#: the break-evens of this machine
FIGURES = Figures("break-even.json")


def chosen_mode(mode: str | None) -> str:
    """Return the mode that holds: the one given, else that of :data:`ENVIRONMENT`, else ``auto``.

    Raises:
        KernelError: an unknown mode.
    """
    chosen = mode or os.environ.get(ENVIRONMENT) or "auto"
    if chosen not in ("auto", "always", "never"):
        source = "sparse" if mode else ENVIRONMENT
        raise KernelError(f"{source}={chosen}: not a mode{did_you_mean(chosen, ['auto', 'always', 'never'])}")
    return chosen


def choose(
    layer: Layer, density: float, *, training: bool, mode: Mode | None = None, table: dict[str, float] | None = None
) -> Literal["sparse", "dense"]:
    """Say how a layer of this shape and density is to be computed here.

    Args:
        layer: its shape.
        density: share of weights kept; of a layer in pairs, of pairs (:attr:`Pattern.pair_density`).
        training: whether the gradients will be computed too.
        mode: ``always`` or ``never`` decide at once; ``auto`` compares with the measured break-even; None takes
            ``GANCOMPRESS_SPARSE``.
        table: as for :func:`break_even`.

    Raises:
        KernelError: an unknown mode.
    """
    mode_here = chosen_mode(mode)
    if mode_here == "never" or library() is None:
        return "dense"
    if mode_here == "always":
        return "sparse"
    return "sparse" if density <= break_even(layer, training=training, table=table) else "dense"


def break_even(layer: Layer, *, training: bool, table: dict[str, float] | None = None) -> float:
    """The density below which this layer is faster sparse on this machine, in [0, 1]. Measured on the first call.

    It is 0 where there are no kernels. Batches are rounded up to a multiple of 16 and measured with 32 at most: the
    times per image hardly change beyond.

    Args:
        layer: its shape.
        training: time forward and backward, or forward alone.
        table: break-evens that hold whatever was measured since; new ones are added to it. A run keeps one, so that
            it goes on with the choices it began with.
    """
    layer = replace(layer, batch=rounded_batch(layer.batch))
    key = _key(layer, training)
    if table is not None and key in table:
        return table[key]
    if library() is None:
        return 0.0
    known = FIGURES.get(_machine(), key, lambda: crossing(*_times(layer, training)))
    if table is not None:
        table[key] = known
    return known


def _key(layer: Layer, training: bool) -> str:
    size = "x".join(map(str, layer.weight))
    return (
        f"{layer.op} {size} on {layer.batch}x{layer.height}x{layer.width}, stride {layer.stride}, "
        f"padding {layer.padding}+{layer.output_padding}, "
        f"{f'{layer.groups} groups, ' if layer.groups > 1 else ''}{'training' if training else 'inference'}"
        f"{', batch last' if layer.batch_last else ''}{', a product' if layer.batch_last and layer.pointwise else ''}"
        f"{', bf16 in pairs' if layer.in_pairs else ', under bf16' if layer.bf16 else ''}, "
        f"{torch.get_num_threads()} threads"
    )


def _machine() -> str:
    lib = library()
    return f"{processor_key()}, {lib.isa if lib else 'none'}, torch {torch.__version__}"


def _times(layer: Layer, training: bool) -> tuple[float, float, float]:
    """Return seconds of the layer: dense, and sparse at :data:`DENSITIES`."""
    lib = library()
    assert lib is not None
    random = torch.Generator().manual_seed(0)  # never the user's generator: a measurement must not change a run
    x = torch.randn(layer.in_shape, generator=random)
    weight = torch.randn(layer.weight, generator=random)
    gradient = torch.randn(layer.out_shape, generator=random)
    if layer.batch_last:
        x, gradient = to_batch_last(x), to_batch_last(gradient)
    low, high = (Pattern(drawn(layer.weight, d, random, in_blocks=layer.in_pairs)) for d in DENSITIES)
    kept = {pattern: torch.where(pattern.mask, weight, 0.0) for pattern in (low, high)}

    def turn(pattern: Pattern | None) -> float:
        start = time.perf_counter()
        own = weight if pattern is None else kept[pattern]
        a, b = x.detach().requires_grad_(training), own.detach().requires_grad_(training)
        if pattern is None:
            out = masked.dense(layer, a, b, None)
        else:
            out = masked.sparse(lib, layer, a, b, None, pattern, masked=True)
        if training:
            out.backward(gradient.to(out.dtype))  # type: ignore[no-untyped-call]
        return time.perf_counter() - start

    turns: list[Callable[[], float]] = [partial(turn, pattern) for pattern in (None, low, high)]
    with torch.enable_grad() if training else torch.no_grad(), torch.autocast("cpu", torch.bfloat16, layer.bf16):
        dense, *sparse = fastest(turns)
    return dense, sparse[0], sparse[1]
