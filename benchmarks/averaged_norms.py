"""How far the stored singular vectors of an averaged, spectrally normed generator are off: a table of factors.

The vectors belong to the live weights and are copied beside the average; the averaged layer divides by
``u' W_average v``, which is at most the true norm. ``python benchmarks/averaged_norms.py ZIP [steps]`` trains BigGAN
and SNGAN small and prints, every so often, the largest and the median of ``true norm / stored norm`` over the layers.
"""

from __future__ import annotations

import statistics
import sys

import torch
from torch import nn

from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.recipe.load import parse_recipe

MODELS = {
    "biggan": {"name": "biggan", "channels": 8},
    "sngan": {"name": "sngan", "channels": 16, "generator_spectral_norm": True, "conditional": False},
}


def factors(network: nn.Module) -> list[float]:
    """Return true norm over stored norm of every spectrally normed layer, in the convention of its own matrix."""
    found = []
    for module in network.modules():
        for parametrization in getattr(module, "parametrizations", {}).values():
            original = parametrization.original.detach()
            for norm in parametrization:
                if not hasattr(norm, "_u"):
                    continue
                training, norm.training = norm.training, False
                divided = norm(original)
                norm.training = training
                matrix = norm._reshape_weight_to_matrix(divided)
                found.append(float(torch.linalg.matrix_norm(matrix.float().cpu(), 2)))
    return found


def main(path: str, steps: int) -> None:
    """Train both and print."""
    for name, model in MODELS.items():
        document = {
            "name": name,
            "data": {"name": "zip", "path": path},
            "model": model,
            "training": {"steps": steps, "batch_size": 16, "discriminator_steps": 1, "ema": {"decay": 0.9999}},
        }
        recipe = parse_recipe(document).recipe
        trainer = build_trainer(recipe, build_dataset(recipe))
        (current,) = declared_rounds(recipe, trainer)
        trainer.engine.init(trainer.probe)
        for step in range(1, steps + 1):
            trainer.step(current)
            if step in (1, 10, 30, 100, 300, 1000, 3000, 10000) or step == steps:
                averaged, live = factors(trainer.ema.module), factors(trainer.generator)
                if not averaged:
                    print(name, "has no spectrally normed layer in its generator")
                    break
                print(
                    f"{name} step {step}: average max {max(averaged):.3f} median {statistics.median(averaged):.3f}; "
                    f"live max {max(live):.3f}; {len(averaged)} layers",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300)
