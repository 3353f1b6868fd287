"""``gancompress bench infer``: a recipe's generator, dense in every way that is installed, and compiled sparse.

Weights and masks are random: no engine is faster for particular values, and the masked-dense row shows that none gains
from zeros. Every density is that of the recipe's prunable weights, spread over layers by the recipe's rule.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.bench.engines import onnx_bytes, onnxruntime_session, openvino_model, ready
from gancompress.bench.styles import fold
from gancompress.bench.timing import Ratio, alternate, keep_memory, machine, ratios
from gancompress.cost.profile import profile
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.budgets import build_budgets, masked_weights, with_densities
from gancompress.experiment.networks import build_backbone, build_networks
from gancompress.export.compiled import compile_generator
from gancompress.export.plain import plain_copy
from gancompress.seeds import generator as seeded
from gancompress.sparsity.select import at_random
from gancompress.sparsity.weights import duplicate, to_channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gancompress.backbones.base import Generator
    from gancompress.experiment.networks import Networks
    from gancompress.recipe.schema import Recipe

__all__ = ["BenchInfer", "bench_infer", "dense_engines", "masked_generator", "random_masks"]

REFERENCE = "torch, masked dense"
_IMAGES_PER_TURN = 8


@dataclasses.dataclass(frozen=True)
class BenchInfer:
    """What was measured.

    Attributes:
        settings: the recipe's name, the model, rounds, and the machine in words.
        batches: by batch size, every variant against masked-dense eager torch.
        times: by batch size and variant, CPU and wall seconds of every turn.
        macs: by density, multiply-adds per image that are left in the convolutions and linear layers.
        error: by density, the largest difference of a pixel to the eager generator with the same masks.
        missing: by engine that was left out, why.
    """

    settings: dict[str, Any]
    batches: dict[int, dict[str, Ratio]]
    times: dict[int, dict[str, list[tuple[float, float]]]]
    macs: dict[str, int]
    error: dict[str, float]
    missing: dict[str, str]

    def against(self, batch: int, reference: str) -> dict[str, Ratio]:
        """Return every variant against another one than torch's, paired with it round by round."""
        return ratios(self.times[batch], reference)

    def gflops(self, batch: int, density: str) -> float:
        """Return 1e9 floating-point operations per second of the kept weights, two per multiply-add.

        Slightly fewer are done: taps that read the same small pixel are added up when a generator is compiled.
        """
        return 2e-9 * batch * self.macs[density] / self.batches[batch][density].seconds

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        found = dataclasses.asdict(self)
        for batch, rows in found["batches"].items():
            for name in self.macs:
                rows[name]["gflops"] = self.gflops(batch, name)
        return {**found, "batches": {str(batch): rows for batch, rows in found["batches"].items()}}


def bench_infer(
    recipe: Recipe,
    densities: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    batches: Sequence[int] = (1, 16, 64),
    *,
    rounds: int = 7,
    compile: bool = False,
) -> BenchInfer:
    """Time the generator of a recipe in every way.

    Args:
        recipe: gives the generator and the rule that spreads a density over layers.
        densities: of the sparse generators.
        batches: images per call.
        rounds: turns of each variant, at least 2.
        compile: time ``torch.compile`` too, which takes minutes to start.
    """
    keep_memory()
    backbone = build_backbone(recipe, build_dataset(recipe).spec)
    generator = build_networks(backbone, recipe.seed).generator.eval()
    masked = {density: masked_generator(recipe, density) for density in densities}
    sparse = {density: compile_generator(net, masks, sparse="always") for density, (net, masks) in masked.items()}
    dense = _dense(masked[densities[0]][0], compile)
    times: dict[int, dict[str, list[tuple[float, float]]]] = {}
    error: dict[str, float] = {}
    missing: dict[str, str] = {}
    with torch.no_grad():
        for batch in batches:
            z = torch.randn(batch, *generator.input_shape, generator=seeded(recipe.seed, "bench", batch))
            labels = torch.arange(batch) % generator.num_classes if generator.num_classes else None
            inputs = (z,) if labels is None else (z, labels)
            steps: dict[str, Callable[[], object]] = {name: _call(net, inputs) for name, net in dense.items()}
            others, left_out = ready(dense_engines(masked[densities[0]][0], inputs))
            steps |= others
            missing |= left_out
            for density, net in sparse.items():
                steps[_name(density)] = _call(net, inputs)
                difference = float((net(*inputs) - masked[density][0](*inputs)).abs().max())
                error[_name(density)] = max(difference, error.get(_name(density), 0.0))
            # a short call says more about what ran before it than about itself
            times[batch] = alternate(steps, rounds, warm=2, calls=max(1, _IMAGES_PER_TURN // batch))
    return BenchInfer(
        settings={"recipe": recipe.name, "model": recipe.model.model_dump(mode="json"), "rounds": rounds, **machine()},
        batches={batch: ratios(found, REFERENCE) for batch, found in times.items()},
        times=times,
        macs={
            _name(density): profile(net).weight_macs({n: int(mask.sum()) for n, mask in masks.items()}, "executed")
            for density, (net, masks) in masked.items()
        },
        error=error,
        missing=missing,
    )


def _name(density: float) -> str:
    return f"sparse {density:g}"


def masked_generator(recipe: Recipe, density: float) -> tuple[Generator, dict[str, Tensor]]:
    """Return a generator with random masks at this density in the recipe's pattern, its weights 0 off them."""
    recipe = with_densities(recipe, density, density)
    networks = build_networks(build_backbone(recipe, build_dataset(recipe).spec), recipe.seed)
    return networks.generator.eval(), random_masks(recipe, networks)


def random_masks(recipe: Recipe, networks: Networks) -> dict[str, Tensor]:
    """Draw masks of a generator as sparse as its recipe asks, in its pattern, and make its weights 0 off them.

    Raises:
        RecipeError: a layer cannot keep so few.
    """
    weights = {name: masked_weights(network, recipe.sparsity) for name, network in networks.named.items()}
    budget = build_budgets(recipe, weights)["generator"]
    shapes = {name: tuple(weight.parameter.shape) for name, weight in weights["generator"].items()}
    masks = at_random(budget.units, shapes, budget.counts, seeded(recipe.seed, "bench", "masks"))
    with torch.no_grad():
        for name, weight in weights["generator"].items():
            weight.parameter.masked_fill_(~masks[name], 0)
    return masks


class _Autocast(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out: Tensor = self.network(*inputs)
        return out


def _dense(generator: Generator, compile: bool) -> dict[str, nn.Module]:
    """The dense variants in torch; weights are 0 off the masks, which makes none of them faster."""
    last = duplicate(generator)
    to_channels_last(last)
    variants: dict[str, nn.Module] = {REFERENCE: generator, "torch, channels last": last}
    best = plain_copy(generator)
    to_channels_last(best)
    if fold(best, frozen=True):
        variants["torch, channels last, folded"] = best
        variants["torch, channels last, folded, bf16"] = _Autocast(best)
    else:
        variants["torch, channels last, bf16"] = _Autocast(last)
    if compile:
        compiled: Any = torch.compile(duplicate(generator))
        variants["torch.compile"] = compiled
    return variants


def dense_engines(generator: Generator, inputs: tuple[Tensor, ...]) -> dict[str, Callable[[], Callable[[], object]]]:
    """Return what makes the engines of others: with the graph as it is, and with our exact rewrites."""
    ours = plain_copy(generator)
    graphs: dict[str, nn.Module] = {"": generator}
    if fold(ours, frozen=True):
        graphs[", folded"] = ours
    threads = torch.get_num_threads()
    found: dict[str, Callable[[], Callable[[], object]]] = {}
    for suffix, graph in graphs.items():
        model = functools.cache(functools.partial(onnx_bytes, graph, inputs))
        found["onnxruntime" + suffix] = functools.partial(_runtime, model, inputs, threads)
        for precision, title in (("f32", "openvino"), ("bf16", "openvino bf16")):
            found[title + suffix] = functools.partial(_openvino, model, inputs, threads, precision)
    return found


def _runtime(model: Callable[[], bytes], inputs: tuple[Tensor, ...], threads: int) -> Callable[[], object]:
    return onnxruntime_session(model(), inputs, threads)


def _openvino(
    model: Callable[[], bytes], inputs: tuple[Tensor, ...], threads: int, precision: str
) -> Callable[[], object]:
    return openvino_model(model(), inputs, threads, precision)


def _call(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: network(*inputs)
