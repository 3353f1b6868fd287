"""What a device makes of a generator in bf16: dense, with fewer channels, and in 2:4."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import nn

from gancompress.bench.timing import Ratio, alternate, keep_memory, ratios
from gancompress.components.registry import BACKBONES
from gancompress.experiment.assemble import build_dataset
from gancompress.kernels.semi_structured import semi_structured, two_of_four
from gancompress.recipe.components import component_config
from gancompress.sparsity.weights import duplicate, write_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from gancompress.backbones.base import Generator
    from gancompress.recipe.schema import Recipe

__all__ = ["CHANNELS", "DENSE", "TWO_OF_FOUR", "BenchGenerators", "bench_generators"]

DENSE, CHANNELS, TWO_OF_FOUR = "dense", "half of the channels", "2:4"


@dataclasses.dataclass(frozen=True)
class BenchGenerators:
    """What was measured.

    Attributes:
        rows: every variant against the dense generator.
        batch: images of a call.
        missing: why a variant has no row, by its name.
        dense_layers: of the 2:4 variant, why its other layers stay dense, by name.
    """

    rows: dict[str, Ratio]
    batch: int
    missing: dict[str, str]
    dense_layers: dict[str, str]

    def images_per_second(self, name: str) -> float:
        """Return how many images a variant makes in a second."""
        return self.batch / self.rows[name].seconds


def bench_generators(
    recipe: Recipe, *, device: str = "cuda", batch: int = 256, rounds: int = 7, calls: int = 4
) -> BenchGenerators:
    """Time the generator of a recipe, weights as initialised, in inference, with norms written out, channels last.

    Half of the channels is the network that ``compress --method channels --density 0.5`` leaves, which is the backbone
    at half its width.

    Args:
        recipe: whose generator, data and classes.
        device: ``cuda`` or ``cpu``.
        batch: images of a call.
        rounds: timed turns of each.
        calls: calls in one turn.
    """
    backbone = BACKBONES.get(recipe.model.name)(component_config(recipe.model), build_dataset(recipe).spec)
    narrow = backbone.resized({"generator": backbone.widths["generator"].channels // 2})
    generator: Generator = backbone.generator()
    networks = {DENSE: _ready(generator, device), CHANNELS: _ready(narrow.generator(), device)}
    missing: dict[str, str] = {}
    left: dict[str, str] = {}
    try:
        networks[TWO_OF_FOUR], left = semi_structured(_two_of_four(_ready(generator, device)))
    except (RuntimeError, ValueError) as error:
        missing[TWO_OF_FOUR] = str(error)
    z = torch.randn(batch, generator.latent_dim, device=device, dtype=torch.bfloat16)
    labels = torch.arange(batch, device=device) % generator.num_classes if generator.num_classes else None

    def call(network: nn.Module) -> Callable[[], object]:
        return lambda: network(z, labels)

    keep_memory()
    failed: dict[str, Exception] = {}
    with torch.inference_mode():
        steps = {name: call(network) for name, network in networks.items()}
        times = alternate(steps, rounds, warm=3, calls=calls, gpu=device == "cuda", failed=failed)
    missing.update({name: f"{type(error).__name__}: {error}" for name, error in failed.items()})
    return BenchGenerators(ratios(times, DENSE), batch, missing, left)


def _ready(network: nn.Module, device: str) -> nn.Module:
    plain = write_out(duplicate(network).eval()).to(device, torch.bfloat16)
    return plain.to(memory_format=torch.channels_last)


@torch.no_grad()
def _two_of_four(network: nn.Module) -> nn.Module:
    """Keep the two largest of every four consecutive inputs, in layers whose inputs four divide."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[1] % 4 == 0:
            layer.weight.copy_(two_of_four(layer.weight))
    return network
