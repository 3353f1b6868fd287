"""The description of the networks of a run: backbone, config as built, images, and the shape of every tensor."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import torch
from pydantic import ValidationError

from gancompress.architecture.resize import resize
from gancompress.backbones.pairing import Pairing
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError, ComponentError
from gancompress.recipe.components import config_type
from gancompress.sparsity.state import PAIR, role_of
from gancompress.sparsity.weights import steady

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator
    from gancompress.sparsity.state import Name, Role

__all__ = ["Architecture", "Shapes", "shapes_of"]

N = TypeVar("N", bound=torch.nn.Module)

Shapes: TypeAlias = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the networks of a run are.

    Attributes:
        backbone: registered name.
        origin: distribution and version, or plugin file, that it came from; empty when unknown.
        config: of the backbone, as built: widths that a method chose included.
        image: shape and classes of the images.
        shapes: of every tensor of a network's state, by role and name. Where they differ from what the config gives,
            layers were made narrower. A role that is missing is as the config has it.
        widths: what a search for widths came to, by role; empty without one.
        beside: what networks are called that play beside the pair.
        judge: the same of another backbone whose discriminators play, None where they are of this one.
        made: the backbone, where it is at hand.
    """

    backbone: str
    origin: str
    config: Mapping[str, Any]
    image: ImageSpec
    shapes: Mapping[Name, Shapes] = dataclasses.field(default_factory=dict)
    widths: Mapping[Role, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    beside: tuple[Name, ...] = ()
    judge: Architecture | None = None
    made: Backbone[BackboneConfig] | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, name: str, backbone: Backbone[BackboneConfig], widths: Mapping[Role, Mapping[str, Any]] | None = None
    ) -> Architecture:
        """Describe a backbone that is about to build its networks."""
        config = backbone.config.model_dump(mode="json")
        origin = BACKBONES.entry(name).origin
        if origin.endswith(".py"):  # where it lies here says nothing elsewhere
            origin = PurePath(origin).name
        return cls(name, origin, config, backbone.image, {}, widths or {}, made=backbone)

    @property
    def names(self) -> tuple[Name, ...]:
        """What the networks are called: the pair first, by their roles."""
        return (*PAIR, *self.beside)

    @property
    def builtin(self) -> bool:
        """Whether the backbone is one of gancompress itself."""
        return self.backbone in BACKBONES.builtin_names()

    @property
    def model(self) -> dict[str, Any]:
        """Name and config of the generator's backbone in one, the way recipes have them, without places of files."""
        # a config that takes weights from elsewhere has their place and their hash
        places = ("weights",) if {"weights", "hash"} <= self.config.keys() else ()
        return {"name": self.backbone, **{key: value for key, value in self.config.items() if key not in places}}

    @property
    def built_from(self) -> tuple[object, ...]:
        """What decides what the networks are, wherever their files lie; equal for the same."""
        judge = None if self.judge is None else self.judge.built_from
        return self.model, judge

    def located_at(self, weights: str | None, judged: str | None) -> Architecture:
        """Return the same with weights from elsewhere at other places; None where nothing is taken.

        Args:
            weights: of this backbone.
            judged: of the one whose discriminators play.
        """
        if weights is None and judged is None:
            return self
        judge = None if self.judge is None else self.judge.located_at(judged, None)
        config = self.config if weights is None else {**self.config, "weights": weights}
        return dataclasses.replace(self, config=config, judge=judge, made=None)

    @property
    def narrowed(self) -> bool:
        """Whether a layer of the generator is narrower than the config has it."""
        with torch.random.fork_rng(devices=[]):
            return self.shapes.get("generator", {}) not in ({}, shapes_of(self.make().generator()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "backbone": self.backbone,
            "origin": self.origin,
            "config": dict(self.config),
            "image": self.image.to_json(),
            "shapes": {role: {name: list(shape) for name, shape in own.items()} for role, own in self.shapes.items()},
            "widths": {role: dict(width) for role, width in self.widths.items()},
            **({"beside": list(self.beside)} if self.beside else {}),
            **({} if self.judge is None else {"judge": self.judge.to_json()}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Architecture:
        """Undo :meth:`to_json`.

        Raises:
            BackboneError: it is no description.
        """
        try:
            shapes = {
                role: {str(name): tuple(map(int, shape)) for name, shape in own.items()}
                for role, own in content.get("shapes", {}).items()
            }
            return cls(
                str(content["backbone"]), str(content.get("origin", "")), dict(content["config"]),
                ImageSpec.from_json(content["image"]), shapes, dict(content.get("widths", {})),
                tuple(map(str, content.get("beside", ()))),
                cls.from_json(content["judge"]) if "judge" in content else None,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackboneError(f"not the description of an architecture ({error!r})") from error

    def built(self, networks: Mapping[Name, torch.nn.Module]) -> Architecture:
        """Return the description with the shapes that ``networks`` have."""
        return dataclasses.replace(self, shapes={role: shapes_of(network) for role, network in networks.items()})

    def make(self) -> Backbone[BackboneConfig]:
        """Return the backbone, or the pairing of two, which builds networks as wide as the config has them.

        Raises:
            ComponentError: it is not installed here.
            BackboneError: it does not take this config or these images.
        """
        if self.made is not None:
            return self.made
        try:
            settings = config_type(BACKBONES, self.backbone).model_validate(dict(self.config))
        except ComponentError as error:
            raise ComponentError(f"{error.message}{self.advice}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise BackboneError(f"the config does not fit backbone {self.backbone!r}: {key}: {first['msg']}") from error
        backbone: Any = BACKBONES.get(self.backbone)
        made = cast("Backbone[BackboneConfig]", backbone(settings, self.image))
        return made if self.judge is None else Pairing(made, self.judge.make())

    def network(self, name: Name) -> Generator | Discriminator:
        """Build one network, as :meth:`generator` does."""
        make = self.make()
        return self._cut(make.generator() if role_of(name) == "generator" else make.discriminator(), name)

    def generator(self) -> Generator:
        """Build the generator; its weights are drawn from torch's global generator, then cut where it is narrower.

        Raises:
            ComponentError: the backbone is not installed here.
            BackboneError: it cannot be built, or a layer cannot have the shape that is described.
        """
        return self._cut(self.make().generator(), "generator")

    def discriminator(self) -> Discriminator:
        """Build the discriminator, as :meth:`generator` does."""
        return self._cut(self.make().discriminator(), "discriminator")

    def _cut(self, network: N, role: Name) -> N:
        if role in self.shapes:
            resize(network, self.shapes[role])
        return steady(network)

    @property
    def advice(self) -> str:
        """What to install or register, as the end of a message; empty for a built-in backbone."""
        if not self.origin or self.origin.partition(" ")[0] == "gancompress":
            return ""
        mend = "register it first (--plugin FILE, or import the file)" if self.from_file else "install that package"
        return f"; it came from {self.origin}: {mend}"

    @property
    def from_file(self) -> bool:
        """Whether the backbone was registered by a plugin file or by a program."""
        return self.origin.endswith(".py") or self.origin.startswith("(")


def shapes_of(network: torch.nn.Module) -> Shapes:
    """Return the shape of every tensor of a network's state."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
