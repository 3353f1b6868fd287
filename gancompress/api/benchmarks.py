"""Timings of this machine: a recipe's training step and its generator, sparse against the dense alternatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gancompress.api.commands import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gancompress.api.commands import Overrides, RecipeLike
    from gancompress.bench.infer import BenchInfer
    from gancompress.bench.networks import NetworkTimes
    from gancompress.bench.train import BenchTrain

__all__ = ["bench_infer", "bench_network", "bench_train"]


def bench_train(
    recipe: RecipeLike,
    overrides: Overrides = (),
    *,
    densities: Sequence[float | tuple[float, float]] = (),
    rounds: int = 5,
    threads: int = 1,
    bf16: bool = False,
    compile: bool = False,
    brief: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> BenchTrain:
    """Time one training step of a recipe in every way; as ``gancompress bench train``.

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change.
        densities: of both networks, or pairs for generator and discriminator; default: the recipe's own.
        rounds: timed turns of every variant, at least 2.
        threads: CPU threads, while this lasts.
        bf16: time bf16 too.
        compile: time ``torch.compile`` too, which takes minutes to start.
        brief: leave out the switches one by one.
        device: where to train.

    Raises:
        GancompressError: the recipe is wrong, or there is no such device.
    """
    from gancompress.bench import train
    from gancompress.bench.timing import with_threads

    pairs = [one if isinstance(one, tuple) else (one, one) for one in densities]
    with with_threads(threads):
        return train.bench_train(
            resolve(recipe, overrides).recipe,
            pairs,
            rounds=rounds,
            bf16=bf16,
            compile=compile,
            alone=not brief,
            device=device,
        )


def bench_infer(
    recipe: RecipeLike,
    overrides: Overrides = (),
    *,
    densities: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    batches: Sequence[int] = (1, 16, 64),
    rounds: int = 7,
    threads: int = 1,
    compile: bool = False,
) -> BenchInfer:
    """Time the generator of a recipe in every way that is installed; as ``gancompress bench infer``.

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change.
        densities: of the sparse generators.
        batches: images per call.
        rounds: timed turns of every variant, at least 2.
        threads: CPU threads, while this lasts.
        compile: time ``torch.compile`` too, which takes minutes to start.

    Raises:
        GancompressError: the recipe is wrong.
    """
    from gancompress.bench import infer
    from gancompress.bench.timing import with_threads

    with with_threads(threads):
        return infer.bench_infer(resolve(recipe, overrides).recipe, densities, batches, rounds=rounds, compile=compile)


def bench_network(
    source: str | Path | nn.Module,
    *,
    densities: Sequence[float] = (0.1, 0.3),
    inputs: Sequence[str] | Sequence[Tensor] = (),
    rounds: int = 7,
    threads: int = 1,
) -> NetworkTimes:
    """Time a network from elsewhere, dense and sparse; as ``gancompress bench infer FILE.onnx``.

    Args:
        source: an ``.onnx`` file, ``FILE.py:NAME`` or a module.
        densities: of the sparse ones, whose smallest weights are taken out: that is about speed alone.
        inputs: of one call, or their shapes, such as ``1x3x128x128``; an ONNX file says its own, with 1 for the first
            size where it is open and 64 for others.
        rounds: timed turns of every variant, at least 2; fewer where a turn takes seconds.
        threads: CPU threads, while this lasts.

    Raises:
        GancompressError: it cannot be opened, or does not run on the inputs.
    """
    from gancompress.api.networks import open_foreign
    from gancompress.bench.networks import time_network
    from gancompress.bench.timing import with_threads
    from gancompress.foreign.calibration import check_inputs, typical_inputs
    from gancompress.foreign.compress import compress_network
    from gancompress.foreign.opening import parse_example
    from gancompress.progress import RunProgress

    given = [parse_example(one, "--input") if isinstance(one, str) else one for one in inputs]
    onnx = Path(source) if isinstance(source, str | Path) and str(source).lower().endswith(".onnx") else None
    observer = RunProgress()
    network, name = open_foreign(
        source, example=None if onnx else given or None, dynamic=None, name=None, observer=observer
    )
    taken = tuple(given) or typical_inputs(network.captured)
    check_inputs([taken], network.captured, "--input")
    sparse = {}
    for density in densities:
        observer.message(f"pruning {name} to density {density:g}")
        sparse[f"sparse {density:g}"] = compress_network(network, density, name=name, method="magnitude")
    with with_threads(threads):
        return time_network(network, sparse, taken, onnx=onnx, rounds=rounds)
