"""The networks of a run: what the recipe and its method make of them, and what a checkpoint says they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from gancompress.architecture.description import Architecture
from gancompress.backbones.pairing import Pairing
from gancompress.components.registry import BACKBONES, TASKS
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.experiment.budgets import ROLES, build_budgets, build_method, masked_weights
from gancompress.experiment.initial import initial_architecture
from gancompress.experiment.widths import choose_widths
from gancompress.recipe.components import component_config
from gancompress.seeds import derive
from gancompress.sparsity.weights import steady
from gancompress.storage.checkpoint import checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator
    from gancompress.recipe.schema import Component, Recipe
    from gancompress.sparsity.state import Budget, Name, Role
    from gancompress.tasks.base import Task, TaskConfig

__all__ = [
    "Networks",
    "build_architecture",
    "build_backbone",
    "build_networks",
    "build_task",
    "last_architecture",
    "stored_architecture",
]


@dataclasses.dataclass(frozen=True)
class Networks:
    """Freshly initialised networks.

    Attributes:
        generator: the one that is measured and shipped.
        discriminator: plays against it.
        beside: others, by name.
    """

    generator: Generator
    discriminator: Discriminator
    beside: Mapping[Name, Generator | Discriminator] = dataclasses.field(default_factory=dict)

    @property
    def named(self) -> dict[Name, Generator | Discriminator]:
        """All of them by name, the pair first."""
        return {"generator": self.generator, "discriminator": self.discriminator, **self.beside}

    def of(self, name: Name) -> Generator | Discriminator:
        """Return one network."""
        return self.named[name]


def build_architecture(recipe: Recipe, image: ImageSpec) -> Architecture:
    """Return what the networks of a recipe are: its backbone, fitted to the images, as wide as its method wants it.

    Raises:
        BackboneError: it cannot make such images, or it is conditional on data with fewer than two classes.
    """
    name = recipe.model.name
    backbone = _backbone(recipe.model, image)
    if recipe.discriminator is not None:
        try:
            judge = _backbone(recipe.discriminator, image)
        except BackboneError as error:  # it speaks of what is the model's elsewhere
            raise BackboneError(error.message.replace("model.", "discriminator.")) from error
        backbone = Pairing(backbone, judge)

    def budgets_of(networks: Mapping[Role, Generator | Discriminator]) -> dict[Name, Budget]:
        return build_budgets(recipe, {role: masked_weights(networks[role], recipe.sparsity) for role in ROLES})

    widths = choose_widths(build_method(recipe), backbone, budgets_of)
    if widths:
        backbone = backbone.resized({role: width.chosen for role, width in widths.items()})
    if image.resolution not in backbone.resolutions:
        known = ", ".join(str(size) for size in backbone.resolutions)
        raise BackboneError(
            f"backbone {name!r} makes images of {known} pixels, the data has {image.resolution}; "
            f"resize it with --set data.resolution={backbone.resolutions[0]}"
        )
    if backbone.conditional and image.num_classes < 2:
        raise BackboneError(
            f"the model is conditional, but the data has {image.num_classes or 'no'} "
            f"class{'' if image.num_classes == 1 else 'es'}; use labelled data or --set model.conditional=false"
        )
    found = Architecture.of(name, backbone, {role: width.to_dict() for role, width in widths.items()})
    if isinstance(backbone, Pairing) and recipe.discriminator is not None:
        found = dataclasses.replace(found, judge=Architecture.of(recipe.discriminator.name, backbone.judge))
    found = dataclasses.replace(found, beside=build_task(recipe).beside)
    start = recipe.training.init_from
    first = None if start is None else initial_architecture(Path(start.path))
    if first is not None and first.built_from == found.built_from:
        found = dataclasses.replace(found, shapes=first.shapes)
    return found


def _backbone(node: Component, image: ImageSpec) -> Backbone[BackboneConfig]:
    return cast("Backbone[BackboneConfig]", BACKBONES.get(node.name)(component_config(node), image))


def build_task(recipe: Recipe) -> Task[TaskConfig]:
    """Return what the generator of a recipe is trained for."""
    return cast("Task[TaskConfig]", TASKS.get(recipe.task.name)(component_config(recipe.task)))


def build_backbone(recipe: Recipe, image: ImageSpec) -> Backbone[BackboneConfig]:
    """Return the backbone of :func:`build_architecture`."""
    return build_architecture(recipe, image).make()


def stored_architecture(scalars: Mapping[str, Any], recipe: Recipe) -> Architecture:
    """Return what the networks of a checkpoint with these scalars are; old ones say it through their recipe only."""
    if "architecture" in scalars:
        return Architecture.from_json(scalars["architecture"])
    return build_architecture(recipe, ImageSpec.from_json(scalars["image"]))


def last_architecture(directory: Path) -> Architecture | None:
    """Return what the newest readable checkpoint under ``directory`` says the networks are, if any says it."""
    found = (initial_architecture(path) for path in reversed(checkpoints(directory)))
    return next((one for one in found if one is not None), None)


def build_networks(backbone: Backbone[BackboneConfig] | Architecture, seed: int, round_index: int = 0) -> Networks:
    """Initialise all networks; a pure function of the seed and the round."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", round_index))
        pair = steady(backbone.generator()), steady(backbone.discriminator())
        others = backbone.beside if isinstance(backbone, Architecture) else ()
        return Networks(*pair, {name: steady(backbone.network(name)) for name in others})  # type: ignore[union-attr]
