"""A trained generator made sparse: an ordinary run that starts from its weights, evaluated before and after."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.architecture.description import Architecture
from gancompress.backbones.base import prunable_weights
from gancompress.components.plugins import command_line
from gancompress.components.registry import BACKBONES, METHODS
from gancompress.cost.profile import FLOPS_PER_MAC, profile, sample_cost
from gancompress.cost.summary import network_bytes
from gancompress.errors import ComponentError, RecipeError, RunError
from gancompress.experiment.acceleration import device_of
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.budgets import build_budgets, masked_weights
from gancompress.experiment.finished import open_run
from gancompress.experiment.initial import InitialWeights, check_tensors, load_initial, read_initial, whole_generator
from gancompress.experiment.measure import Evaluator, metric_record
from gancompress.experiment.networks import build_architecture, build_networks, build_task
from gancompress.experiment.run import Experiment
from gancompress.progress import Observer, Silent
from gancompress.recipe.composition import apply_override, without_densities
from gancompress.recipe.load import check_document, load_recipe
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import metrics_of, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.backbones.base import Generator
    from gancompress.recipe.document import Document
    from gancompress.recipe.load import LoadedRecipe
    from gancompress.recipe.schema import Recipe

__all__ = [
    "Compression",
    "Source",
    "compress",
    "open_source",
    "plan_compression",
    "starting_generator",
    "starting_network",
]


@dataclasses.dataclass(frozen=True)
class Source:
    """What is compressed.

    Attributes:
        path: checkpoint directory or file.
        weights: its weights.
        base: recipe of the run, or the one that was named for a file from elsewhere.
        label: how reports call it.
    """

    path: Path
    weights: InitialWeights
    base: LoadedRecipe
    label: str


@dataclasses.dataclass(frozen=True)
class Compression:
    """What came of it, also in ``compress.json`` of the run directory.

    Attributes:
        directory: the run.
        before: the generator as it was: metrics with protocol, density, FLOPs of one image, bytes.
        after: the same of the compressed one.
    """

    directory: Path
    before: dict[str, Any]
    after: dict[str, Any]


def open_source(path: Path, *, recipe: str | None = None, backbone: str | None = None, step: str = "last") -> Source:
    """Open what is to be compressed.

    Args:
        path: a finished run directory, or a generator's weights as ``.safetensors``.
        recipe: for a file: the recipe with its data and model.
        backbone: for a file: backbone to use in place of the recipe's.
        step: for a run: checkpoint, ``last``, ``best`` or a number.

    Raises:
        GancompressError: it is neither, it is not finished, or what it needs is not given.
    """
    if path.suffix == ".safetensors" or (path.is_file() and not path.is_dir()):
        weights = read_initial(path)
        if recipe is None:
            raise RecipeError(
                "holds weights alone. To be trained on, it needs a recipe; to be pruned without data, what makes its "
                "module: `gancompress compress my_net.py:make` with these weights and an example, or in Python "
                "gancompress.compress(module, example=(x,))",
                where=str(path),
            )
        overrides: tuple[str, ...] = ()
        if backbone is not None:
            try:
                BACKBONES.entry(backbone)
            except ComponentError as error:
                raise RecipeError(f"backbone: {error.message}") from None
            overrides = (f"model.name={backbone}",)
        return Source(path, weights, load_recipe(recipe, overrides), path.name)
    if recipe is not None or backbone is not None:
        raise RecipeError("recipe and backbone are for a generator from elsewhere; a run brings its own")
    run = open_run(path)
    state = run.directory.read_status().state
    if state != "done":
        end = command_line("run", path)
        raise RunError(f"this run is not finished ({state}): end it with `{end}`", where=str(path))
    checkpoint = run.directory.checkpoints / f"{run.step(step):08d}"
    return Source(checkpoint, read_initial(checkpoint), load_recipe(path), path.name)


def plan_compression(
    source: Source, method: str, density: float, steps: int | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Return the recipe of the run that compresses ``source``; it is checked against the weights and the layers.

    Args:
        source: what is compressed.
        method: a method that makes networks sparse.
        density: share of the generator's weights to keep; the discriminator keeps all of its own unless overridden.
        steps: fine-tuning; default: half the steps of the recipe.
        overrides: ``key.path=value``, laid over all of that.

    Raises:
        GancompressError: the method is unknown or makes nothing sparse, a layer cannot meet the density, or the weights
            do not fit the backbone.
    """
    try:
        kind = METHODS.get(method)
    except ComponentError as error:
        raise RecipeError(f"method: {error.message}") from None
    if not kind.sparsifies:
        raise RecipeError(f"method: {method} makes nothing sparse; use magnitude or gmp")
    if not 0 < density < 1:
        raise RecipeError(f"density: must be above 0 and below 1, got {density:g}")
    base = source.base.recipe
    document = source.base.document
    name = f"{base.name}-{method}-d{density:g}"
    at_once = (f"sparsity.method.{key}={value}" for key, value in kind.for_trained.items())
    for expression in (f"name={name}", f"sparsity.method.name={method}", *at_once):
        document = apply_override(document, expression)
    document = apply_override(without_densities(document), f"sparsity.generator.density={density!r}")
    shorter = max(1, base.training.steps // 2)
    document = apply_override(
        _as_built(document, base, source), f"training.steps={shorter if steps is None else steps}"
    )
    for key, value in (("path", str(source.path.resolve())), ("hash", source.weights.hash)):
        document = apply_override(document, f"training.init_from.{key}={value!r}")
    for expression in overrides:
        document = apply_override(document, expression)
    recipe = check_document(document)
    _check_fits(recipe, source)
    return recipe


def _as_built(document: Document, base: Recipe, source: Source) -> Document:
    """Put the settings that the backbone was built with where the recipe has others: a method may have chosen them."""
    stored = source.weights.scalars.get("architecture")
    built = None if stored is None else Architecture.from_json(stored)
    for node, component, part in (
        ("model", base.model, built),
        ("discriminator", base.discriminator, None if built is None else built.judge),
    ):
        asked = {} if component is None else component.model_dump(mode="json")
        for key, value in ({} if part is None else part.config).items():
            if value != asked.get(key):
                document = apply_override(document, f"{node}.{key}={json.dumps(value)}")
    return document


def _check_fits(recipe: Recipe, source: Source) -> None:
    """Raise before anything is written if the weights do not fit, or are sparser than what is asked for already."""
    architecture = build_architecture(recipe, build_dataset(recipe).spec)
    networks = build_networks(architecture, recipe.seed)
    for name, state in source.weights.known.items():
        check_tensors(networks.of(name), state, str(source.path))
    masked = {name: masked_weights(network, recipe.sparsity) for name, network in networks.named.items()}
    budgets = build_budgets(recipe, masked)
    load_initial(recipe, networks.named)
    counts = budgets["generator"].counts
    weights = prunable_weights(networks.generator)
    kept = sum(int(weights[name].parameter.count_nonzero()) for name in counts)
    if kept < sum(counts.values()):
        size = sum(weights[name].parameter.numel() for name in counts)
        raise RecipeError(
            f"the generator keeps {kept:,} of {size:,} weights already (density {kept / size:.4g}); "
            f"ask for a density below that"
        )


def compress(recipe: Recipe, source: Source, root: Path, observer: Observer | None = None) -> Compression:
    """Run what :func:`plan_compression` planned, or go on with it, and evaluate before and after.

    Raises:
        GancompressError: whatever is wrong with the data, the directory or the training.
        KeyboardInterrupt: the run was interrupted; a checkpoint was written first.
    """
    watching: Observer = observer if observer is not None else Silent()
    directory = RunDirectory.open(root, recipe)
    mark = {"smoke": True} if recipe.smoke else {}
    before = directory.read_json("before.json")
    if not _is_measured(before):
        before = {**mark, **_before(recipe, watching)}
        directory.write_json("before.json", before)
    result = Experiment(recipe, root, watching).run()
    generator = result.cost["theory"]["inference"]["generator"]
    layers = [layer for layer in result.cost["layers"] if layer["role"] == "generator"]
    counted = [layer for layer in layers if layer["name"] in before["counted"]]
    last = result.metrics["last"]
    after = {
        "metrics": last["metrics"],
        "protocol": last["protocol"]["text"],
        # a narrower network keeps a share of the whole one's weights
        "density": sum(int(layer["nonzeros"]) for layer in counted)
        / (before.get("counted_weights") or sum(int(layer["numel"]) for layer in counted)),
        "weights": sum(int(layer["nonzeros"]) for layer in layers),
        "weights_dense": sum(int(layer["numel"]) for layer in layers),
        "flops": generator["flops"],
        "bytes": result.cost["bytes"]["generator"]["packed"],
        "training_flops": result.cost["theory"]["training"]["flops"],
        "training_seconds": result.cost["time"]["training_seconds"],
        "step": last["step"],
    }
    directory.write_json(
        "compress.json",
        {
            **mark,
            "source": source.label,
            "path": str(source.path),
            "hash": source.weights.hash,
            "before": before,
            "after": after,
        },
    )
    return Compression(result.path, before, after)


def _is_measured(before: Mapping[str, Any]) -> bool:
    counted, numbers = before.get("counted"), (before.get(key) for key in ("density", "weights", "flops", "bytes"))
    told = isinstance(counted, list) and isinstance(before.get("protocol"), str) and metrics_of(before)
    return bool(told) and all(number(one) is not None for one in numbers)


def starting_generator(recipe: Recipe) -> Generator:
    """Return the generator that a compressing run starts from, on the CPU and in eval mode.

    Raises:
        GancompressError: its weights are not there any more, or were changed.
    """
    return starting_network(recipe)[0]


def starting_network(recipe: Recipe) -> tuple[Generator, Architecture]:
    """Return the generator that a compressing run starts from, and what it was built as; see above."""
    start = recipe.training.init_from
    cut = {} if start is None else read_initial(Path(start.path)).scalars.get("channels", {})
    if cut:  # what it was cut from
        whole = Architecture.from_json(cut["whole"])
        return whole_generator(whole, read_initial(Path(cut["source"])), cut["source"]), whole
    architecture = build_architecture(recipe, build_dataset(recipe).spec)
    networks = build_networks(architecture, recipe.seed)
    load_initial(recipe, networks.named)
    return networks.generator.eval(), architecture


def _before(recipe: Recipe, observer: Observer) -> dict[str, Any]:
    """Measure the generator as it is, under the protocol that the run will use."""
    dataset, device = build_dataset(recipe), device_of(recipe)
    network = starting_generator(recipe).to(device)
    outcome = Evaluator(recipe.evaluation, dataset, device, observer, build_task(recipe))(network)
    weights = prunable_weights(network)
    counts = {name: int(weight.parameter.count_nonzero()) for name, weight in weights.items()}
    layers = profile(network)
    # a weight that trains dense is hardly ever exactly 0; one that is masked always is
    sparse = {name: count for name, count in counts.items() if count < layers.sizes[name]}
    counted = masked_weights(network, recipe.sparsity)
    return {
        "counted": list(counted),
        "counted_weights": sum(layers.sizes[name] for name in counted),
        "density": sum(counts[name] for name in counted) / sum(layers.sizes[name] for name in counted),
        "metrics": [metric_record(one) for one in outcome.results],
        "protocol": str(outcome.protocol),
        "weights": sum(counts.get(layer.name, layer.size) for layer in layers.layers),
        "weights_dense": sum(layer.size for layer in layers.layers),
        "flops": FLOPS_PER_MAC * sample_cost(layers, sparse).macs,
        "bytes": network_bytes(network, sparse)["packed"],
    }
