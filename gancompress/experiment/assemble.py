"""Recipe to objects: the dataset, both networks, the masks' budgets, the optimizers, the trainer.

One half of the composition root; :mod:`gancompress.experiment.run` is the other. Nothing here trains.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from gancompress.backbones.base import (
    Backbone,
    BackboneConfig,
    Discriminator,
    Generator,
    PrunableWeight,
    prunable_weights,
)
from gancompress.backbones.connections import connected_layers
from gancompress.components.registry import BACKBONES, DATASETS, LOSSES, METHODS, PATTERNS, Registry
from gancompress.cost.ledger import TrainingLedger
from gancompress.errors import BackboneError, DataError, RecipeError, RunError
from gancompress.experiment.acceleration import build_execution, build_folding, check_accelerations, device_of, numbered
from gancompress.experiment.widths import ChosenWidth, choose_widths, with_widths
from gancompress.recipe.load import component_config
from gancompress.seeds import derive
from gancompress.sparsity.allocate import allocate, split_total
from gancompress.sparsity.scores import magnitude
from gancompress.training.batch_norm import synchronise_batch_norm
from gancompress.training.batches import BatchSource
from gancompress.training.ema import SparseEMA
from gancompress.training.engine import Engine, RoleParts
from gancompress.training.feed import DeviceDataset, Prefetcher, choose_feed
from gancompress.training.groups import Group
from gancompress.training.loop import Trainer
from gancompress.training.objective import Objective
from gancompress.training.optimizers import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.data.base import Dataset, DatasetConfig, ImageSpec
    from gancompress.methods.base import Method, MethodConfig, Round
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.recipe.schema import Component, Recipe, SparsityConfig
    from gancompress.sparsity.patterns.base import Pattern, PatternConfig
    from gancompress.sparsity.state import Budget, Role

__all__ = [
    "Networks",
    "build_backbone",
    "build_budgets",
    "build_dataset",
    "build_loss",
    "build_method",
    "build_networks",
    "build_pattern",
    "build_trainer",
    "check_shapes",
    "chosen_widths",
    "connected_weights",
    "declared_rounds",
    "densities",
    "device_of",
    "make_backbone",
    "masked_weights",
]

ROLES: tuple[Role, Role] = ("generator", "discriminator")


@dataclasses.dataclass(frozen=True)
class Networks:
    """A freshly initialised pair."""

    generator: Generator
    discriminator: Discriminator

    def of(self, role: Role) -> Generator | Discriminator:
        """Return the network of ``role``."""
        return self.generator if role == "generator" else self.discriminator


def _make(registry: Registry[Any], node: Component, *arguments: Any) -> Any:
    return registry.get(node.name)(component_config(node), *arguments)


def build_dataset(recipe: Recipe) -> Dataset[DatasetConfig]:
    """Open the images of a recipe.

    Raises:
        DataError: they are missing, unreadable or too few.
    """
    dataset = cast("Dataset[DatasetConfig]", _make(DATASETS, recipe.data))
    if len(dataset) < 2:
        raise DataError(f"dataset {recipe.data.name!r} holds {len(dataset)} images; training needs at least 2")
    return dataset


def make_backbone(recipe: Recipe, image: ImageSpec) -> Backbone[BackboneConfig]:
    """Return the backbone of a recipe, fitted to the images, as wide as the recipe's method wants it."""
    backbone = cast("Backbone[BackboneConfig]", _make(BACKBONES, recipe.model, image))
    chosen = _ask_widths(_Question(recipe, backbone))
    if not chosen:
        return backbone
    return with_widths(backbone, backbone.widths, {role: width.chosen for role, width in chosen.items()})


def chosen_widths(recipe: Recipe, image: ImageSpec) -> dict[Role, ChosenWidth]:
    """Return the widths that the method of a recipe chose, and what they came to; empty when it chose none."""
    return dict(_ask_widths(_Question(recipe, _make(BACKBONES, recipe.model, image))))


class _Question:
    """A recipe and its backbone, equal to another when the method would choose the same widths."""

    def __init__(self, recipe: Recipe, backbone: Backbone[BackboneConfig]) -> None:
        self.recipe, self.backbone = recipe, backbone
        self._key = (recipe.model.model_dump_json(), recipe.sparsity.model_dump_json(), backbone.image)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


# a search builds several networks, if empty ones, and a run asks for its backbone more than once
@functools.lru_cache(maxsize=16)
def _ask_widths(question: _Question) -> Mapping[Role, ChosenWidth]:
    recipe = question.recipe

    def budgets_of(networks: Mapping[Role, Generator | Discriminator]) -> dict[Role, Budget]:
        return build_budgets(recipe, {role: masked_weights(networks[role], recipe.sparsity) for role in ROLES})

    return choose_widths(build_method(recipe), question.backbone, budgets_of)


def build_backbone(recipe: Recipe, image: ImageSpec) -> Backbone[BackboneConfig]:
    """Return the backbone of a recipe after checking that it can make such images.

    Raises:
        BackboneError: it cannot, or it is conditional on data with fewer than two classes.
    """
    backbone = make_backbone(recipe, image)
    if image.resolution not in backbone.resolutions:
        known = ", ".join(str(size) for size in backbone.resolutions)
        raise BackboneError(
            f"backbone {recipe.model.name!r} makes images of {known} pixels, the data has {image.resolution}; "
            f"resize it with --set data.resolution={backbone.resolutions[0]}"
        )
    if backbone.conditional and image.num_classes < 2:
        raise BackboneError(
            f"the model is conditional, but the data has {image.num_classes or 'no'} "
            f"class{'' if image.num_classes == 1 else 'es'}; use labelled data or --set model.conditional=false"
        )
    return backbone


def build_networks(backbone: Backbone[BackboneConfig], seed: int, round_index: int = 0) -> Networks:
    """Initialise both networks; a pure function of the seed and the round."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", round_index))
        return Networks(backbone.generator(), backbone.discriminator())


def build_method(recipe: Recipe) -> Method[MethodConfig]:
    """Return the sparsity method of a recipe."""
    return cast("Method[MethodConfig]", _make(METHODS, recipe.sparsity.method))


def build_pattern(recipe: Recipe) -> Pattern[PatternConfig]:
    """Return the pattern of a recipe: the units in which its weights are kept."""
    return cast("Pattern[PatternConfig]", _make(PATTERNS, recipe.sparsity.pattern))


def build_loss(recipe: Recipe) -> Loss[LossConfig]:
    """Return the adversarial loss of a recipe."""
    return cast("Loss[LossConfig]", _make(LOSSES, recipe.objective.loss))


def masked_weights(network: Generator | Discriminator, config: SparsityConfig) -> dict[str, PrunableWeight]:
    """Return the weights of ``network`` that a density counts, by the recipe's convention."""
    weights = prunable_weights(network)
    if config.weights == "all":
        return weights
    return {name: weight for name, weight in weights.items() if weight.kind == "convolution"}


def connected_weights(network: Generator | Discriminator, config: SparsityConfig) -> dict[str, PrunableWeight]:
    """Return :func:`masked_weights` whose layers know their neighbours, also those that are not masked."""
    layers = connected_layers(network, prunable_weights(network))
    weights = masked_weights(network, config)
    return {name: dataclasses.replace(weight, layer=layers[name]) for name, weight in weights.items()}


def densities(recipe: Recipe, sizes: dict[Role, int]) -> dict[Role, float]:
    """Return the density asked of each role.

    Args:
        recipe: the recipe.
        sizes: weights that a density counts, per role.

    Raises:
        RecipeError: a total density leaves the discriminator nothing, or more than it has.
    """
    config = recipe.sparsity
    if config.total_density is not None:
        generator = cast("float", config.generator.density)
        rest = split_total(config.total_density, generator, sizes["generator"], sizes["discriminator"])
        return {"generator": generator, "discriminator": rest}
    default = config.density if config.density is not None else 1.0
    asked: dict[Role, float] = {}
    for role in ROLES:
        density = getattr(config, role).density
        asked[role] = default if density is None else density
    return asked


def build_budgets(recipe: Recipe, weights: dict[Role, dict[str, PrunableWeight]]) -> dict[Role, Budget]:
    """Turn densities into an exact number of kept weights per tensor, in whole units of the recipe's pattern.

    Raises:
        RecipeError: a density, a glob or the pattern does not fit the network.
    """
    sizes: dict[Role, int] = {
        role: sum(weight.parameter.numel() for weight in weights[role].values()) for role in ROLES
    }
    asked = densities(recipe, sizes)
    pattern = build_pattern(recipe)
    budgets: dict[Role, Budget] = {}
    for role in ROLES:
        config = getattr(recipe.sparsity, role)
        shapes = {name: tuple(weight.parameter.shape) for name, weight in weights[role].items()}
        if not shapes:
            raise RecipeError(
                f"the {role} has no convolution to mask; count linear layers too with --set sparsity.weights=all"
            )
        unmatched = [glob for glob in config.dense if not any(fnmatch.fnmatchcase(name, glob) for name in shapes)]
        if unmatched:
            raise RecipeError(
                f"sparsity.{role}.dense: {unmatched[0]!r} matches no weight; there are: {', '.join(shapes)}"
            )
        found = {name: pattern.units(weight.layer) for name, weight in weights[role].items()}
        units = {name: own for name, own in found.items() if own is not None}
        if not units and recipe.sparsity.pattern.name != "unstructured" and asked[role] < 1:
            raise RecipeError(
                f"sparsity.pattern: no layer of the {role} can hold pattern {pattern}; its weights are "
                f"{', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
            )
        budgets[role] = allocate(
            config.allocation,
            shapes,
            asked[role],
            floor=config.min_layer_density,
            dense=config.dense,
            scores={name: magnitude(weight.parameter.detach()) for name, weight in weights[role].items()},
            protected=[name for name, weight in weights[role].items() if weight.output],
            units=units,
            pattern=str(pattern),
        )
    return budgets


def check_shapes(networks: Networks, image: ImageSpec) -> None:
    """Run two images through both networks, whatever their backbone promises.

    Raises:
        BackboneError: a network lacks what the contract asks, or gives another shape.
    """
    generator, discriminator = networks.generator, networks.discriminator
    for role, network, names in (
        ("generator", generator, ("latent_dim", "num_classes", "image")),
        ("discriminator", discriminator, ("num_classes", "image")),
    ):
        missing = [name for name in names if not hasattr(network, name)]
        if missing:
            raise BackboneError(
                f"the {role} {type(network).__name__} must set {', '.join(missing)} (backbones/base.py)"
            )
        network.output_layer()
    labels = torch.zeros(2, dtype=torch.int64) if generator.num_classes else None
    modes = [(module, module.training) for network in (generator, discriminator) for module in network.modules()]
    try:
        with torch.no_grad():
            images = generator.eval()(torch.zeros(2, generator.latent_dim), labels)
            logits = discriminator.eval()(images, labels)
    finally:
        for module, mode in modes:
            module.training = mode
    wanted = (2, image.channels, image.resolution, image.resolution)
    if tuple(images.shape) != wanted:
        raise BackboneError(f"the generator makes {tuple(images.shape)}, the data needs {wanted}")
    if tuple(logits.shape) != (2,):
        raise BackboneError(f"the discriminator gives {tuple(logits.shape)} logits for 2 images, not (2,)")


def _check_batches(recipe: Recipe, world: int) -> None:
    training = recipe.training
    for key, batch in (
        ("batch_size", training.batch_size),
        ("generator_batch_size", training.generator_batch_size or training.batch_size),
    ):
        parts = world * training.accumulate
        if batch % parts:
            named = {"processes": world, "micro-batches": training.accumulate}
            over = " times ".join(f"{count} {what}" for what, count in named.items() if count > 1)
            raise RecipeError(
                f"training.{key}: {batch} images cannot be shared out evenly over {over}: "
                f"--set training.{key}={max(1, round(batch / parts)) * parts}"
            )


def _check_batch_norm(recipe: Recipe, networks: Networks) -> None:
    """Refuse batches of one image where batch norm would normalise that image by itself.

    Statistics are shared by all ranks, but not by micro-batches.
    """
    normed = [
        role
        for role in ROLES
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in networks.of(role).modules())
    ]
    training = recipe.training
    for key, batch in (
        ("batch_size", training.batch_size),
        ("generator_batch_size", training.generator_batch_size or training.batch_size),
    ):
        if normed and batch // training.accumulate < 2:
            seen = f"{batch} in {training.accumulate} micro-batches" if training.accumulate > 1 else f"{batch}"
            raise RecipeError(
                f"training.{key}: {seen} leaves batch norm of the {' and the '.join(normed)} one image at a time; "
                f"it needs at least 2: --set training.{key}={2 * training.accumulate}"
            )


def build_trainer(recipe: Recipe, dataset: Dataset[DatasetConfig], group: Group | None = None) -> Trainer:
    """Build everything that trains, at initialisation: masks are not drawn yet (see ``Engine.init``)."""
    group = group if group is not None else Group()
    _check_batches(recipe, group.world)
    loss = build_loss(recipe)
    check_accelerations(recipe, loss, group.world)
    device = numbered(device_of(recipe))
    backbone = build_backbone(recipe, dataset.spec)
    networks = build_networks(backbone, recipe.seed)
    check_shapes(networks, dataset.spec)
    _check_batch_norm(recipe, networks)
    for network in (networks.generator, networks.discriminator):
        if group.world > 1:
            synchronise_batch_norm(network)
        network.to(device)
        if recipe.training.channels_last:
            network.to(memory_format=torch.channels_last)
        network.train()
    weights = {role: connected_weights(networks.of(role), recipe.sparsity) for role in ROLES}
    budgets = build_budgets(recipe, weights)
    optimizers = {
        role: build_optimizer(networks.of(role), getattr(recipe.training.optimizers, role), fused=recipe.training.fused)
        for role in ROLES
    }
    method = build_method(recipe)
    if method.needs_dense_moments and recipe.sparsity.moments != "dense":
        raise RecipeError(
            f"method {recipe.sparsity.method.name!r} reads the moments of masked weights here: "
            "keep them with --set sparsity.moments=dense, or grow by gradient"
        )
    training = recipe.training
    ema = SparseEMA(networks.generator, training.ema)
    ledger = TrainingLedger(
        batch_size=training.batch_size,
        generator_batch_size=training.generator_batch_size or training.batch_size,
        discriminator_steps=training.discriminator_steps,
    )
    execution = build_execution(recipe, group.world)
    engine = Engine(
        method,
        {
            role: RoleParts(
                network=networks.of(role), optimizer=optimizers[role], budget=budgets[role], weights=weights[role]
            )
            for role in ROLES
        },
        seed=recipe.seed,
        moments=recipe.sparsity.moments,
        check_every=recipe.sparsity.check_every,
        group=group,
        ema=ema,
        ledger=ledger,
        execution=execution,
    )
    objective = Objective(
        loss=loss,
        seed=recipe.seed,
        diffaugment=recipe.objective.diffaugment,
        r1_weight=recipe.objective.r1.weight,
        r1_every=recipe.objective.r1.every,
        orthogonal_weight=recipe.objective.orthogonal.weight,
        orthogonal_networks=recipe.objective.orthogonal.networks,
        joint_batch=training.joint_batch,
        bf16=training.precision == "bf16",
        rank=group.rank,
    )
    feed = choose_feed(training.feed, dataset, device)
    source = BatchSource(
        dataset=DeviceDataset(dataset, device) if feed == "device" else dataset,
        latent_dim=networks.generator.latent_dim,
        num_classes=networks.generator.num_classes,
        seed=recipe.seed,
        flip=training.flip,
        device=device,
        rank=group.rank,
        world=group.world,
        channels_last=training.channels_last,
    )
    return Trainer(
        generator=networks.generator,
        discriminator=networks.discriminator,
        optimizers=optimizers,
        engine=engine,
        ema=ema,
        ledger=ledger,
        objective=objective,
        source=Prefetcher(source, device) if feed == "prefetch" else source,
        config=training,
        measure=method.measure,
        group=group,
        device=device,
        folding=build_folding(recipe, execution),
    )


def declared_rounds(recipe: Recipe, trainer: Trainer) -> Sequence[Round]:
    """Return the rounds that the method declares for this recipe.

    Raises:
        RunError: there are none, one has no steps, or one rewinds to where the first never was.
    """
    asked = {role: trainer.engine.budget(role).density for role in ROLES}
    rounds = trainer.engine.method.rounds(recipe.training.steps, asked)
    name = recipe.sparsity.method.name
    if not rounds:
        raise RunError(f"method {name!r} declares no round")
    for index, current in enumerate(rounds):
        if current.steps < 1:
            raise RunError(f"method {name!r} declares round {index} ({current.name}) of {current.steps} steps")
        if index and "rewind" in (current.generator, current.discriminator):
            last = rounds[0].steps - 1
            if not 0 <= current.rewind_step <= last:
                raise RunError(
                    f"method {name!r} rewinds to step {current.rewind_step}; the first round has steps 0 to {last}"
                )
    return rounds
