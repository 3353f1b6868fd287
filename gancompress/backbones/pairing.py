"""The generator of one backbone against the discriminator of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.backbones.base import Backbone, BackboneConfig
from gancompress.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Discriminator, Generator, Width
    from gancompress.sparsity.state import Role

__all__ = ["Pairing"]


class Pairing(Backbone[BackboneConfig]):
    """Networks that were not made for each other; which images there are is the generator's to say.

    Args:
        made: its generator plays.
        judge: its discriminator plays.

    Raises:
        BackboneError: one of them takes classes and the other does not.
    """

    def __init__(self, made: Backbone[Any], judge: Backbone[Any]) -> None:
        super().__init__(made.config, made.image)
        self.made, self.judge = made, judge
        if made.conditional is not judge.conditional:
            takes, other = ("generator", "discriminator") if made.conditional else ("discriminator", "generator")
            keys = "model.conditional and discriminator.conditional"
            raise BackboneError(f"the {takes} takes classes, and the {other} does not: set both of {keys}, or neither")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Image sizes that the generator can make."""
        return self.made.resolutions

    @property
    def conditional(self) -> bool:
        """Whether the networks take class labels."""
        return self.made.conditional

    @property
    def widths(self) -> Mapping[Role, Width]:
        """What sets the width of each network, in its own backbone; empty when one of them cannot be built narrower."""
        if not (self.made.widths and self.judge.widths):
            return {}
        return {"generator": self.made.widths["generator"], "discriminator": self.judge.widths["discriminator"]}

    def resized(self, channels: Mapping[Role, int]) -> Pairing:
        """Return the same pair with other widths, each in its own backbone."""
        roles: tuple[Role, Role] = ("generator", "discriminator")
        one, other = ({role: channels[role]} if role in channels else {} for role in roles)
        return Pairing(self.made.resized(one), self.judge.resized(other))

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return self.made.generator()

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return self.judge.discriminator()
