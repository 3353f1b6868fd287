"""Timings of this machine: a recipe's training step and its generator, sparse against the dense alternatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gancompress.api.commands import resolve
from gancompress.api.networks import is_foreign
from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.api.commands import Overrides, RecipeLike
    from gancompress.bench.infer import BenchInfer
    from gancompress.bench.train import BenchTrain

__all__ = ["bench_infer", "bench_train"]


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

    if isinstance(recipe, str | Path) and is_foreign(recipe):
        raise RecipeError("a network from elsewhere is timed by itself: bench_network", where=str(recipe))
    with with_threads(threads):
        return infer.bench_infer(resolve(recipe, overrides).recipe, densities, batches, rounds=rounds, compile=compile)
