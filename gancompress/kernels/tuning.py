"""Sparse or dense? Measured once per machine and layer shape, then remembered; never guessed.

The time of a sparse layer is close to ``a + b * density``, the time of the dense one is constant. Both are timed on
random data at two densities, and the density where the lines cross is the break-even of that layer shape. It is kept in
memory and in a file under the user's cache directory, so a second run (and a resumed one) makes the same choices.

Environment:
    GANCOMPRESS_SPARSE: ``always``, ``never`` or ``auto`` (the default) for every call that does not say.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from gancompress.errors import KernelError, did_you_mean
from gancompress.kernels import masked
from gancompress.kernels.layout import to_batch_last
from gancompress.kernels.measured import processor_key, recall, remember
from gancompress.kernels.native_library import library
from gancompress.kernels.pattern import Pattern
from gancompress.storage.cache import cache_directory

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.kernels.layer import Layer

__all__ = ["ENVIRONMENT", "Mode", "break_even", "cache_file", "choose"]

Mode = Literal["auto", "always", "never"]

#: The environment variable that sets the mode of calls which do not say.
ENVIRONMENT = "GANCOMPRESS_SPARSE"

_DENSITIES = (0.1, 0.4)
_REPEATS = 4
_LARGEST_BATCH = 32


def _mode(mode: str | None) -> str:
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
        density: share of weights kept.
        training: whether the gradients will be computed too.
        mode: ``always`` or ``never`` decide at once; ``auto`` compares with the measured break-even; None takes
            ``GANCOMPRESS_SPARSE``.
        table: as for :func:`break_even`.

    Raises:
        KernelError: an unknown mode.
    """
    mode_here = _mode(mode)
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
    layer = replace(layer, batch=min(_LARGEST_BATCH, -(-layer.batch // 16) * 16))
    key = _key(layer, training)
    if table is not None and key in table:
        return table[key]
    if library() is None:
        return 0.0
    with _lock:
        known = _known.get(key)
        if known is None:
            known = recall(cache_file(), _machine(), key)
            if known is None:
                known = round(_measured(layer, training), 4)
                remember(cache_file(), _machine(), key, known)
            _known[key] = known
    if table is not None:
        table[key] = known
    return known


_known: dict[str, float] = {}
_lock = threading.RLock()


def _key(layer: Layer, training: bool) -> str:
    size = "x".join(map(str, layer.weight))
    return (
        f"{layer.op} {size} on {layer.batch}x{layer.height}x{layer.width}, stride {layer.stride}, "
        f"padding {layer.padding}+{layer.output_padding}, "
        f"{'training' if training else 'inference'}{', batch last' if layer.batch_last else ''}, "
        f"{torch.get_num_threads()} threads"
    )


def _machine() -> str:
    lib = library()
    return f"{processor_key()}, {lib.isa if lib else 'none'}, torch {torch.__version__}"


def cache_file() -> Path:
    """The file that remembers break-evens: JSON, machine to layer to density. Deleting it is safe."""
    return cache_directory() / "break-even.json"


def _measured(layer: Layer, training: bool) -> float:
    """Time the layer and return where the sparse line crosses the dense one."""
    dense, low, high = _times(layer, training)
    slope = (high - low) / (_DENSITIES[1] - _DENSITIES[0])
    if slope <= 0:  # noise: sparse costs the same at any density, so compare the levels
        return 1.0 if low < dense else 0.0
    return min(1.0, max(0.0, _DENSITIES[0] + (dense - low) / slope))


def _times(layer: Layer, training: bool) -> tuple[float, float, float]:
    lib = library()
    assert lib is not None
    random = torch.Generator().manual_seed(0)  # never the user's generator: a measurement must not change a run
    x = torch.randn(layer.in_shape, generator=random)
    weight = torch.randn(layer.weight, generator=random)
    gradient = torch.randn(layer.out_shape, generator=random)
    if layer.batch_last:
        x, gradient = to_batch_last(x), to_batch_last(gradient)
    low, high = (Pattern(torch.rand(layer.weight, generator=random) < d) for d in _DENSITIES)

    def run(pattern: Pattern | None) -> None:
        a, b = x.detach().requires_grad_(training), weight.detach().requires_grad_(training)
        out = masked.dense(layer, a, b, None) if pattern is None else masked.sparse(lib, layer, a, b, None, pattern)
        if training:
            out.backward(gradient)  # type: ignore[no-untyped-call]

    ways = (None, low, high)
    best = [float("inf")] * len(ways)
    with torch.enable_grad() if training else torch.no_grad():
        for repeat in range(_REPEATS):
            for i, pattern in enumerate(ways):
                start = time.perf_counter()
                run(pattern)
                if repeat > 0:  # the first turn fills caches and builds plans
                    best[i] = min(best[i], time.perf_counter() - start)
    return best[0], best[1], best[2]
