"""The code that new plugins start from, one working component of each kind. ``@NAME@`` and its kin are filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from gancompress.cli.scaffold_more import DATASET, DATASET_TESTS, HEAD, LOSS, LOSS_TESTS, METRIC, METRIC_TESTS

__all__ = ["PARTS", "Part"]


@dataclasses.dataclass(frozen=True)
class Part:
    """What differs between plugins of one kind and another.

    Attributes:
        plural: of the kind, as entry-point groups end in it.
        what: one component in words.
        use: command that uses it.
        check: settings that ``plugins check`` needs to judge it quickly.
        source: the module.
        tests: its tests.
        recipes: recipes by file name.
    """

    plural: str
    what: str
    use: str
    check: str
    source: str
    tests: str
    recipes: Mapping[str, str] = dataclasses.field(default_factory=dict)


_METHOD = '''"""@NAME@, a sparsity method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.methods import Method, MethodConfig, Plan, SparseState
from gancompress.sparsity.masks import random_mask, topk_mask
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from gancompress.methods import Budget, NetView, Role

__all__ = ["@CLASS@", "@CLASS@Config"]


class @CLASS@Config(MethodConfig):
    """Settings of @NAME@."""

    every: int = Field(default=100, ge=1, description="training steps between two updates")
    fraction: float = Field(default=0.3, ge=0, le=1, description="share of the kept weights that an update replaces")


class @CLASS@(Method[@CLASS@Config]):
    """Drops the smallest weights and grows as many at random. Say here what yours does, and who published it."""

    Config = @CLASS@Config

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Start from random masks."""
        masks = {
            name: random_mask(weight.shape, budget.counts[name], rng, device=weight.device)
            for name, weight in net.weights.items()
        }
        return SparseState(masks, dict(budget.counts))

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Update every few steps; add ``Plan.DENSE_GRADIENT`` to see the gradients of masked weights too."""
        return Plan.UPDATE if step % self.config.every == 0 else Plan.NOTHING

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Replace the same number of weights in every layer, so that every count stays exact."""
        masks = {}
        for name, mask in state.masks.items():
            kept = state.budgets[name]
            replaced = min(int(self.config.fraction * kept), mask.numel() - kept)
            survivors = topk_mask(net.weights[name].abs(), kept - replaced, candidates=mask)
            grown = random_mask(mask.shape, replaced, rng, candidates=~mask, device=mask.device)
            masks[name] = survivors | grown
        return state.replace(masks=masks)
'''

_METHOD_TESTS = (
    HEAD
    + """import pytest
import torch
from gancompress.methods import Budget, NetView, SparseState
from gancompress.testing import Check, method_checks

from @MODULE@ import @CLASS@, @CLASS@Config


# the kit trains four steps: settings must make the method act within them
@pytest.mark.parametrize("check", method_checks(@CLASS@, {"every": 2}), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_it_drops_the_smallest() -> None:
    weights = torch.tensor([0.1, -0.9, 0.0, 0.0])
    state = SparseState({"w": weights != 0}, {"w": 2})
    net = NetView(role="generator", weights={"w": weights}, budget=Budget(0.5, {"w": 2}, {"w": 4}, "uniform"))
    mask = @CLASS@(@CLASS@Config(fraction=0.5)).update(state, net, torch.Generator().manual_seed(0)).masks["w"]
    assert mask[:2].tolist() == [False, True]
    assert mask.sum() == 2
"""
)

_BACKBONE = '''"""@NAME@, a pair of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import conditional_classes, require_resolution
from gancompress.backbones.layers import batch_norm, normalise
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.methods import Role

__all__ = ["@CLASS@", "@CLASS@Config"]

_RESOLUTIONS = (16, 32, 64)
_BOTTOM = 4


class @CLASS@Config(BackboneConfig):
    """Settings of @NAME@."""

    latent_dim: int = Field(64, ge=1, description="size of the latent vector")
    channels: int = Field(32, ge=1, description="channels of every map of the generator")
    discriminator_channels: int = Field(32, ge=1, description="channels of every map of the discriminator")
    conditional: bool = Field(False, description="condition on classes")


class _Generator(Generator):
    """Upsampling and a convolution until the image is large enough."""

    def __init__(self, config: @CLASS@Config, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        width, doublings = config.channels, (image.resolution // _BOTTOM).bit_length() - 1
        self.input = nn.Linear(config.latent_dim, width * _BOTTOM**2)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(doublings))
        self.norms = nn.ModuleList(batch_norm(width, num_classes) for _ in range(doublings))
        self.output = nn.Conv2d(width, image.channels, 3, padding=1)

    def output_layer(self) -> nn.Module:
        """Return the layer that makes the image."""
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Make images in [-1, 1]."""
        h = self.input(z).view(len(z), -1, _BOTTOM, _BOTTOM)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(normalise(norm, conv(F.interpolate(h, scale_factor=2)), labels))
        return torch.tanh(self.output(h).float())


class _Discriminator(Discriminator):
    """Strided convolutions, then a sum over what is left."""

    def __init__(self, config: @CLASS@Config, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        width, halvings = config.discriminator_channels, (image.resolution // _BOTTOM).bit_length() - 1
        self.convs = nn.ModuleList(
            nn.Conv2d(width if index else image.channels, width, 4, stride=2, padding=1) for index in range(halvings)
        )
        self.output = nn.Linear(width, 1)
        self.classes = nn.Embedding(num_classes, width) if num_classes else None

    def output_layer(self) -> nn.Module:
        """Return the layer that makes the logits."""
        return self.output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return one logit per image."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        h = x.float().mean((2, 3))
        logits = self.output(h).float().squeeze(1)
        if self.classes is None:
            return logits
        if labels is None:
            raise ValueError("this network is conditional: give it labels")
        return logits + (self.classes(labels) * h).sum(1)


class @CLASS@(Backbone[@CLASS@Config]):
    """Plain convolutions for 16, 32 or 64 pixels. Say here what yours are, and who published them."""

    Config = @CLASS@Config

    def __init__(self, config: @CLASS@Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        require_resolution("@NAME@", image, _RESOLUTIONS)
        self._classes = conditional_classes("@NAME@", image, config.conditional)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """16, 32 and 64 pixels."""
        return _RESOLUTIONS

    @property
    def conditional(self) -> bool:
        """Whether the networks take class labels."""
        return self._classes > 0

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The settings that make the networks narrower."""
        return {
            "generator": Width("channels", self.config.channels),
            "discriminator": Width("discriminator_channels", self.config.discriminator_channels),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _Generator(self.config, self.image, self._classes)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _Discriminator(self.config, self.image, self._classes)
'''

_BACKBONE_TESTS = (
    HEAD
    + """import pytest
from gancompress.recipe.load import load_recipe
from gancompress.components.registry import BACKBONES
from gancompress.testing import Check, backbone_checks

import @MODULE@
from @MODULE@ import @CLASS@

SMALL = {"channels": 8, "discriminator_channels": 8, "latent_dim": 8}


@pytest.mark.parametrize("check", backbone_checks(@CLASS@, SMALL, every_size=True), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_its_recipe_is_one() -> None:
    if "@NAME@" not in BACKBONES:  # not installed yet
        BACKBONES.register("@NAME@", @CLASS@)
    loaded = load_recipe(Path(@MODULE@.__file__).parent / "recipes" / "@NAME@_digits.yaml")
    assert loaded.recipe.model.name == "@NAME@"
"""
)

_BACKBONE_RECIPE = """# @NAME@ on scikit-learn's digits, in about a minute.
#   gancompress run @NAME@_digits
name: @NAME@_digits
description: @NAME@ with dynamic sparse training on scikit-learn's digits
data: {name: digits, resolution: 16}
model: {name: @NAME@, conditional: true}
sparsity:
  method: {name: dst, explore: both, every: 50}
  generator: {density: 0.3}
  discriminator: {density: 0.5}
training:
  steps: 1500
  optimizers:
    generator: {lr: 1e-3, betas: [0.0, 0.99], schedule: linear}
    discriminator: {lr: 2e-3, betas: [0.0, 0.99], schedule: linear}
  ema: {decay: 0.995, start: 100}
  threads: 1
evaluation: {samples: 1500}
"""

PARTS: Final[Mapping[str, Part]] = {
    "method": Part(
        "methods",
        "A sparsity method",
        "gancompress run quickstart --set sparsity.method=@NAME@",
        " --set every=2",
        _METHOD,
        _METHOD_TESTS,
    ),
    "backbone": Part(
        "backbones",
        "A pair of networks",
        "gancompress run @NAME@_digits",
        " --set channels=8",
        _BACKBONE,
        _BACKBONE_TESTS,
        {"@NAME@_digits.yaml": _BACKBONE_RECIPE},
    ),
    "dataset": Part(
        "datasets", "A dataset", "gancompress run quickstart --set data=@NAME@", "", DATASET, DATASET_TESTS
    ),
    "metric": Part(
        "metrics",
        "A metric",
        "gancompress run quickstart --set evaluation.metrics=[@NAME@]",
        "",
        METRIC,
        METRIC_TESTS,
    ),
    "loss": Part("losses", "A loss", "gancompress run quickstart --set objective.loss=@NAME@", "", LOSS, LOSS_TESTS),
}
