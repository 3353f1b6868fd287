"""What the singular vectors of the live weights do to a generator's average, and its own to that: a table.

The average has weights of its own, and beside it lie the vectors of the live weights: a layer divides by
``u' W_average v``, which is at most the true norm. ``python benchmarks/averaged_norms.py ZIP MODEL [STEPS] [fd]``
trains BigGAN or SNGAN small and prints, every so often, the largest and the median of ``true norm / stored norm`` over
the layers, and the mean absolute difference between images under the stored and under the right vectors (pixels in
[-1, 1]) beside their standard deviation. With ``fd`` it adds the distance of both, and of the live generator, to the
real images; the classifier for it takes minutes.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import Tensor, nn

from gancompress.backbones.spectral import norm_vectors
from gancompress.evaluation.evaluate import evaluate
from gancompress.evaluation.extractors import build_extractor
from gancompress.evaluation.sampler import open_sampler
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.recipe.load import parse_recipe

MODELS = {
    "biggan": {"name": "biggan", "channels": 8, "discriminator_channels": 8},
    "sngan": {
        "name": "sngan",
        "channels": 16,
        "discriminator_channels": 16,
        "generator_spectral_norm": True,
    },
}
STEPS = (1, 10, 30, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000)
IMAGES, SAMPLES = 64, 2000


def factors(network: nn.Module) -> list[float]:
    """Return true norm over stored norm of every spectrally normed layer."""
    return [
        float(torch.linalg.matrix_norm(weight.float().cpu(), 2) / torch.dot(u, weight @ v).cpu())
        for weight, u, v in norm_vectors(network)
    ]


def images(network: nn.Module) -> Tensor:
    """Return the first images of the network, in eval mode."""
    with open_sampler(network, seed=0, batch_size=IMAGES) as sampler:
        return sampler.images(0, IMAGES)


def main(path: str, name: str, steps: int, distances: bool) -> None:
    """Train and print."""
    document = {
        "name": name,
        "data": {"name": "zip", "path": path},
        "model": MODELS[name],
        "training": {"steps": steps, "batch_size": 16, "discriminator_steps": 1, "ema": {"decay": 0.9999}},
    }
    recipe = parse_recipe(document).recipe
    dataset = build_dataset(recipe)
    trainer = build_trainer(recipe, dataset)
    extractor = build_extractor("classifier", dataset) if distances else None
    (current,) = declared_rounds(recipe, trainer)
    trainer.engine.init(trainer.probe)
    begun = time.perf_counter()

    def distance(network: nn.Module) -> list[str]:
        if extractor is None or step < 100:
            return []
        found = evaluate(network, dataset=dataset, extractor=extractor, metrics=("fd",), samples=SAMPLES)
        return [f"{found['fd'].value:.1f}"]

    for step in range(1, steps + 1):
        trainer.step(current)
        if step not in STEPS and step != steps:
            continue
        average, live = trainer.ema.module, factors(trainer.generator)
        stored = factors(average)
        before, told = images(average), distance(average)
        with trainer.ema.measured():
            right, difference = factors(average), float((images(average) - before).abs().mean())
            told += distance(average) + distance(trainer.generator)
        print(
            f"{name} step {step}: average max {max(stored):.3f} median {statistics.median(stored):.3f}, settled max "
            f"{max(right):.7f}, live max {max(live):.3f}, {len(stored)} layers; images differ by {difference:.4f} (std "
            f"{float(before.std()):.3f}); FD {', '.join(told) or 'not asked for'}; "
            f"{time.perf_counter() - begun:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 300, "fd" in sys.argv[4:])
