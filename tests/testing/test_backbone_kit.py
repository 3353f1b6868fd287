"""Every check of the backbone kit passes for a good pair of networks and fails for one broken in just that way."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import nn

from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import conditional_classes, require_resolution
from gancompress.errors import BackboneError
from gancompress.testing import backbone_checks, check_backbone


class Config(BackboneConfig):
    """Settings of the networks of this file."""

    channels: int = Field(4, ge=1, description="channels of the generator")
    discriminator_channels: int = Field(4, ge=1, description="channels of the discriminator")
    conditional: bool = Field(False, description="condition on classes")
    spectral_norm: bool = Field(False, description="spectral normalisation of the discriminator")


class Make(Generator):
    def __init__(self, backbone: Good) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = 5, backbone.image, backbone.classes
        self.channels = backbone.config.channels
        self.input = nn.Linear(5, self.channels * backbone.image.resolution**2)
        self.norm = nn.BatchNorm2d(self.channels)
        self.output = nn.Conv2d(self.channels, backbone.image.channels, 3, padding=1)
        self.classes = nn.Embedding(self.num_classes, self.channels) if self.num_classes else None

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        h = self.input(z).view(z.shape[0], self.channels, self.image.resolution, -1)
        h = self.norm(h)
        if self.classes is not None:
            if labels is None:
                raise ValueError("give it labels")
            h = h + self.classes(labels)[:, :, None, None]
        return torch.tanh(self.output(torch.relu(h)).float())


class Judge(Discriminator):
    def __init__(self, backbone: Good) -> None:
        super().__init__()
        self.image, self.num_classes = backbone.image, backbone.classes
        width = backbone.config.discriminator_channels
        self.conv = nn.Conv2d(backbone.image.channels, width, 3, padding=1)
        if backbone.config.spectral_norm:
            nn.utils.parametrizations.spectral_norm(self.conv)
        self.output = nn.Linear(width, 1)
        self.classes = nn.Embedding(self.num_classes, width) if self.num_classes else None

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        h = torch.tanh(self.conv(x)).float().mean((2, 3))
        logits = self.output(h).float().squeeze(1)
        if self.classes is not None:
            if labels is None:
                raise ValueError("give it labels")
            logits = logits + (self.classes(labels) * h).sum(1)
        return logits


class Good(Backbone[Config]):
    """The smallest networks that do what the contract asks."""

    Config = Config
    make: type[Make] = Make
    judge: type[Judge] = Judge

    def __init__(self, config: Config, image: Any) -> None:
        super().__init__(config, image)
        require_resolution("good", image, (8, 16))
        self.classes = conditional_classes("good", image, config.conditional)

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (8, 16)

    @property
    def conditional(self) -> bool:
        return self.classes > 0

    @property
    def widths(self) -> Any:
        c = self.config
        return {
            "generator": Width("channels", c.channels),
            "discriminator": Width("discriminator_channels", c.discriminator_channels),
        }

    def generator(self) -> Generator:
        return self.make(self)

    def discriminator(self) -> Discriminator:
        return self.judge(self)


def broken(make: Any = Make, judge: Any = Judge, **more: Any) -> type[Good]:
    return type("Broken", (Good,), {"make": make, "judge": judge, "__doc__": "Broken.", "__module__": __name__, **more})


class Undocumented(Good):
    pass


class Unlimited(Make):
    def forward(self, z: Any, labels: Any = None) -> Any:
        return super().forward(z, labels) * 2


class Detached(Judge):
    def forward(self, x: Any, labels: Any = None) -> Any:
        with torch.no_grad():
            weight = self.conv.weight.clone()
        h = torch.tanh(nn.functional.conv2d(x, weight, padding=1)).mean((2, 3))
        logits = self.output(h).squeeze(1)
        return logits if self.classes is None else logits + (self.classes(labels) * h).sum(1)


class NoOutput(Make):
    def output_layer(self) -> nn.Module:
        return self.norm


class FixedSeed(Make):
    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))


class Constant(Make):
    def forward(self, z: Any, labels: Any = None) -> Any:
        return super().forward(torch.ones_like(z), labels) + 0 * z.sum()


class Deaf(Judge):
    def forward(self, x: Any, labels: Any = None) -> Any:
        return super().forward(x, None if labels is None else labels * 0)


class Careless(Judge):
    """Does not say what is missing when it gets no labels."""

    def forward(self, x: Any, labels: Any = None) -> Any:
        if self.num_classes and labels is None:
            raise TypeError("embedding(): argument 'indices' must be Tensor, not NoneType")
        return super().forward(x, labels)


class Renamed(Judge):
    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        if backbone.config.spectral_norm:
            self.other = self.conv
            del self.conv

    def forward(self, x: Any, labels: Any = None) -> Any:
        return super().forward(x, labels)


class Forgetful(Make):
    """Its statistics are no buffer, so no state has them."""

    seen = 0.0

    def forward(self, z: Any, labels: Any = None) -> Any:
        if self.training:
            self.seen += 0.25
        return super().forward(z + self.seen, labels)


class Shared(Make):
    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Strided(Make):
    def forward(self, z: Any, labels: Any = None) -> Any:
        images = super().forward(z, labels)
        if self.output.weight.is_contiguous(memory_format=torch.channels_last):
            return images.flip(2)
        return images


class Half(Judge):
    def forward(self, x: Any, labels: Any = None) -> Any:
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x, labels).bfloat16()
        return super().forward(x, labels)


class Noisy(Make):
    def forward(self, z: Any, labels: Any = None) -> Any:
        noise = 0 if self.training else torch.rand(1)
        return super().forward(z + noise, labels)


class Batchy(Judge):
    """Sees the other samples of its batch, in eval mode too."""

    def forward(self, x: Any, labels: Any = None) -> Any:
        return super().forward(x, labels) + super().forward(x, labels).mean()


class Vague(Good):
    """Fails somewhere inside when it cannot be built."""

    def __init__(self, config: Any, image: Any) -> None:
        Backbone.__init__(self, config, image)
        if image.resolution not in (8, 16):
            raise KeyError(image.resolution)
        self.classes = image.num_classes if config.conditional else 0


class Counted(Make):
    """Asks a symbol for a number."""

    def forward(self, z: Any, labels: Any = None) -> Any:
        return super().forward(z.view(len(z), -1), labels)


class Uncompiled(Make):
    def forward(self, z: Any, labels: Any = None) -> Any:
        images = super().forward(z, labels)
        return images.flip(2) if torch.compiler.is_compiling() else images


def test_a_good_backbone_passes() -> None:
    report = check_backbone(Good, every_size=True)
    assert {o.state for o in report.outcomes} == {"passed"}


CASES: list[tuple[Any, str, str]] = [
    (Undocumented, "documented", "Undocumented has no docstring"),
    (
        broken(Config=type("Open", (Config,), {"__doc__": "Open.", "model_config": {"frozen": False}})),
        "strict-settings",
        "Config can be changed after validation",
    ),
    (broken(resolutions=property(lambda self: ())), "builds", "no image of 8, 16, .* pixels can be made"),
    (broken(conditional=property(lambda self: False)), "builds", "8 pixels, conditional: conditional is False"),
    (broken(Unlimited), "shapes", r"8 pixels, unconditional: images leave \[-1, 1\]"),
    (broken(judge=Detached), "gradients", "no gradient reaches conv.weight of the discriminator"),
    (broken(NoOutput), "prunable-weights", "the generator has 0 output layers"),
    (broken(FixedSeed), "seed", "the generator is the same with another seed"),
    (broken(Constant), "samples-differ", "the generator gives two inputs the same output"),
    (broken(judge=Deaf), "conditioning", "8 pixels, conditional: the class changes nothing in the discriminator"),
    (broken(judge=Careless), "conditioning", "without labels it raises TypeError: .*; raise a ValueError that says"),
    (broken(widths={"generator": Width("discriminator_channels", 4)}), "widths", "makes the generator no bigger"),
    (broken(judge=Renamed), "stable-names", "are there with or without spectral norm only"),
    (broken(Forgetful), "state-round-trip", "the generator gives other outputs after its state was loaded"),
    (broken(Shared), "deep-copy", "a copy of the generator shares weights with it"),
    (broken(Strided), "channels-last", "the generator gives other outputs in channels-last memory"),
    (broken(judge=Half), "bf16", "the discriminator gives torch.bfloat16 under bf16"),
    (broken(Noisy), "evaluation", "the generator draws at random in eval mode"),
    (broken(judge=Batchy), "evaluation", "the discriminator gives a sample alone another output than in a batch"),
    (Vague, "refusals", "images of 9 pixels raise KeyError|images of 17 pixels raise KeyError"),
    (broken(Counted), "traceable", r"would run dense .*: decide by settings, .* as z.shape\[0\], not len\(z\)"),
]


@pytest.mark.parametrize(("backbone", "check", "reason"), CASES, ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_it_catches(backbone: Any, check: str, reason: str) -> None:
    found = next(c for c in backbone_checks(backbone) if c.name == check).outcome()
    assert found.state == "failed", found
    assert re.search(reason, found.reason), found.reason


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_compiling_changes_is_caught() -> None:
    reasons = {c.name: c.outcome().reason for c in backbone_checks(broken(Uncompiled), slow=True)}
    assert "torch.compile changes the outputs of the generator" in reasons["compiles"]
    assert "the ONNX network's images differ" in reasons["onnx"]


def test_every_check_is_seen_to_fail() -> None:
    seen = {check for _, check, _ in CASES} | {"compiles", "onnx"}
    assert seen == {check.name for check in backbone_checks(Good, slow=True)}


class Plain(Good):
    """Unconditional, of one size and one width, without spectral norm."""

    class Config(BackboneConfig):
        """Nothing to set."""

        channels: int = 4
        discriminator_channels: int = 4
        spectral_norm: bool = False

    widths = {}  # noqa: RUF012

    def __init__(self, config: Any, image: Any) -> None:
        Backbone.__init__(self, config, image)
        require_resolution("plain", image, (8,))
        self.classes = 0

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (8,)


def test_a_backbone_may_do_without_much() -> None:
    found = {c.name: c.outcome() for c in backbone_checks(Plain, skip=("documented",))}
    assert [name for name, o in found.items() if o.state == "failed"] == []
    assert [name for name, o in found.items() if o.state == "skipped"] == ["widths"]


class Colour(Plain):
    """Makes no grey images."""

    def __init__(self, config: Any, image: Any) -> None:
        super().__init__(config, image)
        if image.channels != 3:
            raise BackboneError("colour only")


def test_a_backbone_may_make_colour_only() -> None:
    assert [one.reason for one in check_backbone(Colour, skip=("documented", "widths")).outcomes if one.reason] == []


def test_what_cannot_be_built_is_told_once() -> None:
    never = broken(resolutions=property(lambda self: ()))
    found = [c.outcome() for c in backbone_checks(never)]
    assert [o.name for o in found if o.state == "failed"] == ["builds"]
    assert {o.reason for o in found if o.state == "skipped"} == {"'builds' fails, see there"}
