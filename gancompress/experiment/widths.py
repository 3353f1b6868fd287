"""How wide networks are built when a method chooses it: a dense network as big as a sparse one would be.

A method that overrides :meth:`Method.width` is asked once per network, before that is built. It is told the width of
the recipe, what the network would hold at its density, and the size at any other width; sizes are those of networks
built on torch's meta device, which hold no numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.cost.profile import profile, sample_cost
from gancompress.errors import BackboneError
from gancompress.methods.base import Method, MethodConfig, Size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator
    from gancompress.sparsity.state import Budget, Name, Role

__all__ = ["ChosenWidth", "choose_widths"]


@dataclasses.dataclass(frozen=True)
class ChosenWidth:
    """The width that a method chose for one network.

    Attributes:
        field: setting of the backbone.
        full: its value in the recipe.
        chosen: its value as built.
        full_size: size of the dense network of full width.
        target: what that network would hold at the recipe's density.
        size: what the network as built holds.
    """

    field: str
    full: int
    chosen: int
    full_size: Size
    target: Size
    size: Size

    def to_dict(self) -> dict[str, object]:
        """Return every figure, ready for JSON, and sizes as built over their targets: 1 is a perfect match."""
        sizes = {name: getattr(self, name)._asdict() for name in ("full_size", "target", "size")}
        ratios = {
            "parameter_ratio": self.size.parameters / self.target.parameters,
            "macs_ratio": self.size.macs / self.target.macs,
        }
        return {"field": self.field, "full": self.full, "chosen": self.chosen, **sizes, **ratios}


def choose_widths(
    method: Method[MethodConfig],
    backbone: Backbone[BackboneConfig],
    budgets_of: Callable[[Mapping[Role, Generator | Discriminator]], Mapping[Name, Budget]],
) -> dict[Role, ChosenWidth]:
    """Ask the method how wide each network is built; empty when it leaves that to the recipe.

    Raises:
        BackboneError: the method wants to choose, and the backbone does not say how.
    """
    if type(method).width is Method.width:
        return {}
    widths = backbone.widths
    if not widths:
        raise BackboneError(
            f"{type(backbone).__name__} does not say how its networks are made narrower (Backbone.widths), which "
            f"{type(method).__name__} needs; choose another method"
        )
    networks: dict[Role, Generator | Discriminator] = {role: _built(backbone, role) for role in widths}
    budgets = budgets_of(networks)
    chosen: dict[Role, ChosenWidth] = {}
    for role, width in widths.items():

        @functools.cache
        def size(channels: int, role: Role = role) -> Size:
            return _size(_built(backbone.resized({role: channels}), role))

        full, target = size(width.channels), _size(networks[role], budgets[role])
        picked = method.width(width.channels, width.multiple, target, size)
        chosen[role] = ChosenWidth(width.field, width.channels, picked, full, target, size(picked))
    return chosen


def _built(backbone: Backbone[BackboneConfig], role: Role) -> Generator | Discriminator:
    with torch.device("meta"):
        return backbone.generator() if role == "generator" else backbone.discriminator()


def _size(network: Generator | Discriminator, budget: Budget | None = None) -> Size:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    counts = {} if budget is None else budget.counts
    weights = prunable_weights(network)
    masked = sum(weights[name].parameter.numel() - count for name, count in counts.items())
    return Size(parameters - masked, sample_cost(profile(network), counts).macs)
