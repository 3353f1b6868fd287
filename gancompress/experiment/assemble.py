"""Recipe to objects: the dataset, the loss, the optimizers, the trainer.

One half of the composition root; :mod:`gancompress.experiment.run` is the other. Nothing here trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from gancompress.backbones.base import Generator
from gancompress.components.registry import DATASETS, LOSSES, Registry
from gancompress.data.classes import check_class_number, counted
from gancompress.data.zipped import Zip
from gancompress.errors import DataError, RecipeError, RunError
from gancompress.experiment.acceleration import build_execution, build_folding, check_accelerations, device_of, numbered
from gancompress.experiment.budgets import ROLES, build_budgets, build_method, connected_weights, masked_weights
from gancompress.experiment.groups import channel_groups
from gancompress.experiment.networks import Networks, build_architecture, build_networks, build_task
from gancompress.experiment.teacher import build_distillation
from gancompress.recipe.components import component_config
from gancompress.sparsity.state import role_of
from gancompress.sparsity.weights import to_channels_last
from gancompress.tasks.base import Setup
from gancompress.training.batch_norm import synchronise_batch_norm
from gancompress.training.ema import SparseEMA
from gancompress.training.engine import Engine, RoleParts
from gancompress.training.groups import Group
from gancompress.training.loop import Trainer
from gancompress.training.optimizers import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from gancompress.architecture.description import Architecture
    from gancompress.channels.groups import ChannelGroup
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.methods.base import Round
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.recipe.schema import Component, Recipe, TrainingConfig
    from gancompress.sparsity.state import Name

__all__ = ["build_dataset", "build_loss", "build_trainer", "check_served", "declared_rounds"]


def _make(registry: Registry[Any], node: Component, *arguments: Any) -> Any:
    return registry.get(node.name)(component_config(node), *arguments)


def build_dataset(recipe: Recipe) -> Dataset[DatasetConfig]:
    """Open the images of a recipe.

    Raises:
        DataError: they are missing, unreadable or too few.
    """
    dataset = cast("Dataset[DatasetConfig]", _make(DATASETS, recipe.data))
    if len(dataset) < 2:
        raise DataError(
            f"dataset {recipe.data.name!r} holds {len(dataset)} images; training needs at least 2",
            where=getattr(recipe.data, "path", None),
        )
    if isinstance(dataset, Zip) and dataset.folders and getattr(component_config(recipe.model), "conditional", False):
        raise DataError(f"the model is conditional, and {dataset.folders_hint}", where=dataset.where)
    check_class_number(dataset.spec.num_classes, len(dataset), f"dataset {recipe.data.name!r}")
    return dataset


def build_loss(recipe: Recipe) -> Loss[LossConfig]:
    """Return the adversarial loss of a recipe."""
    return cast("Loss[LossConfig]", _make(LOSSES, recipe.objective.loss))


def _batches(training: TrainingConfig) -> dict[str, int]:
    return {
        "batch_size": training.batch_size,
        "generator_batch_size": training.generator_batch_size or training.batch_size,
    }


def _check_batches(recipe: Recipe, world: int) -> None:
    training = recipe.training
    for key, batch in _batches(training).items():
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
        name
        for name, network in networks.named.items()
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    ]
    training = recipe.training
    for key, batch in _batches(training).items():
        if normed and batch // training.accumulate < 2:
            seen = f"{batch} in {training.accumulate} micro-batches" if training.accumulate > 1 else f"{batch}"
            raise RecipeError(
                f"training.{key}: {seen} leaves batch norm of the {' and the '.join(normed)} one image at a time; "
                f"it needs at least 2: --set training.{key}={2 * training.accumulate}"
            )


def check_served(recipe: Recipe) -> None:
    """Refuse what the task of a recipe has no use for, before anything is opened.

    Raises:
        RecipeError: naming the first setting, and how to set it.
    """
    for line in build_task(recipe).unserved(recipe, build_method(recipe)):
        raise RecipeError(line)


def build_trainer(
    recipe: Recipe,
    dataset: Dataset[DatasetConfig],
    group: Group | None = None,
    architecture: Architecture | None = None,
) -> Trainer:
    """Build everything that trains, at initialisation: masks are not drawn yet (see ``Engine.init``).

    The networks are of the ``architecture``, by default what the recipe says.
    """
    group = group if group is not None else Group()
    _check_batches(recipe, group.world)
    task, loss = build_task(recipe), build_loss(recipe)
    check_served(recipe)
    check_accelerations(recipe, loss, group.world)
    device = numbered(device_of(recipe))
    architecture = architecture or build_architecture(recipe, counted(dataset))
    networks = build_networks(architecture, recipe.seed)
    task.check(networks.named, dataset)
    if not task.takes_single_images:
        _check_batch_norm(recipe, networks)
    method = build_method(recipe)
    groups: dict[Name, tuple[ChannelGroup, ...]] = dict.fromkeys(architecture.names, ())
    if method.sees_channels:  # before anything is wrapped for training
        for name, network in networks.named.items():
            masked = masked_weights(network, recipe.sparsity)
            groups[name] = channel_groups(architecture, name, network, masked)
    for network in networks.named.values():
        if group.world > 1:
            synchronise_batch_norm(network)
        network.to(device)
        if recipe.training.channels_last:
            to_channels_last(network)
        network.train()
    weights = {name: connected_weights(network, recipe.sparsity) for name, network in networks.named.items()}
    budgets = build_budgets(recipe, weights)
    optimizers: dict[Name, Optimizer] = {
        name: build_optimizer(network, getattr(recipe.training.optimizers, role_of(name)), fused=recipe.training.fused)
        for name, network in networks.named.items()
    }
    if method.needs_dense_moments and recipe.sparsity.moments != "dense":
        raise RecipeError(
            f"method {recipe.sparsity.method.name!r} reads the moments of masked weights here: "
            "keep them with --set sparsity.moments=dense, or grow by gradient"
        )
    training = recipe.training
    images = training.batch_size * training.discriminator_steps
    ema = SparseEMA(networks.generator, training.ema, images)
    averages = {
        name: SparseEMA(network, training.ema, images)
        for name, network in networks.beside.items()
        if isinstance(network, Generator)
    }
    counter = task.counter(training)
    execution = build_execution(recipe, group.world)
    engine = Engine(
        method,
        {
            name: RoleParts(network, optimizers[name], budgets[name], weights[name], groups[name])
            for name, network in networks.named.items()
        },
        seed=recipe.seed,
        moments=recipe.sparsity.moments,
        check_every=recipe.sparsity.check_every,
        group=group,
        ema={"generator": ema, **averages},
        counter=counter,
        execution=execution,
    )
    setup = Setup(recipe, loss, networks.named, dataset, device, group, build_distillation(recipe, networks, device))
    return Trainer(
        generator=networks.generator,
        discriminator=networks.discriminator,
        optimizers=optimizers,
        engine=engine,
        ema=ema,
        counter=counter,
        play=task.play(setup),
        config=training,
        measure=method.measure,
        group=group,
        device=device,
        folding=build_folding(recipe, execution),
        beside=dict(networks.beside),
        averages=averages,
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
        if current.distillation and not trainer.play.teaches:
            raise RecipeError(
                f"sparsity.method: {name} lets a discriminator learn from another one, which the task "
                f"{recipe.task.name!r} cannot serve"
            )
        if current.steps < 1:
            raise RunError(f"method {name!r} declares round {index} ({current.name}) of {current.steps} steps")
        if index and "rewind" in (current.generator, current.discriminator):
            last = rounds[0].steps - 1
            if not 0 <= current.rewind_step <= last:
                raise RunError(
                    f"method {name!r} rewinds to step {current.rewind_step}; the first round has steps 0 to {last}"
                )
    return rounds
