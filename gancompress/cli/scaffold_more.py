"""The code that datasets, metrics and losses start from. ``@NAME@`` and its kin are filled in."""

from __future__ import annotations

__all__ = ["DATASET", "DATASET_TESTS", "HEAD", "LOSS", "LOSS_TESTS", "METRIC", "METRIC_TESTS"]

#: what every module of tests begins with
HEAD = """from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

"""

DATASET = '''"""@NAME@, a dataset."""

from __future__ import annotations

from typing import Any

import torch
from gancompress.data.base import DatasetConfig
from gancompress.data.memory import InMemoryDataset, Stored
from gancompress.seeds import generator
from pydantic import Field

__all__ = ["@CLASS@", "@CLASS@Config"]

_VERSION = 1  # part of the fingerprint: raise it when the images change


class @CLASS@Config(DatasetConfig):
    """Settings of @NAME@."""

    images: int = Field(1000, ge=2, description="number of images")
    resolution: int = Field(16, ge=4, le=256, description="height and width in pixels")
    seed: int = Field(0, ge=0, description="seed of the images")


class @CLASS@(InMemoryDataset[@CLASS@Config]):
    """Grey waves, lying and standing. Say here what yours are, and where they come from.

    For images in files, subclass :class:`gancompress.data.base.Dataset` and read them in ``read``.
    """

    Config = @CLASS@Config

    def load(self) -> Stored:
        """Draw every image; called once."""
        config = self.config
        # never the global random state: the same settings must give the same images
        phases = torch.rand(config.images, generator=generator(config.seed, "@NAME@"))
        wave = torch.linspace(0, 12, config.resolution)[None] + 6 * phases[:, None]
        labels = torch.arange(config.images) % 2
        lying = wave[:, :, None].expand(-1, -1, config.resolution)
        images = torch.where(labels[:, None, None] == 0, lying, lying.transpose(1, 2)).sin()
        pixels = ((images + 1) * 127.5).round().to(torch.uint8)
        return Stored(pixels[:, None], labels, ("lying", "standing"))

    def identity(self) -> tuple[Any, ...]:
        """Return what fixes the images."""
        return _VERSION, self.config.model_dump()
'''

DATASET_TESTS = (
    HEAD
    + """import pytest
from gancompress.testing import Check, dataset_checks

from @MODULE@ import @CLASS@, @CLASS@Config


@pytest.mark.parametrize("check", dataset_checks(@CLASS@, {"images": 20}), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_other_settings_have_another_fingerprint() -> None:
    assert @CLASS@(@CLASS@Config(seed=1)).fingerprint() != @CLASS@(@CLASS@Config(seed=2)).fingerprint()
"""
)

METRIC = '''"""@NAME@, a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.errors import EvaluationError
from gancompress.evaluation.metrics import Metric, MetricResult

if TYPE_CHECKING:
    from gancompress.evaluation.features import Features

__all__ = ["@CLASS@"]


class @CLASS@(Metric):
    """Euclidean distance of the mean features. Say here what yours measures, and who published it."""

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``@NAME@``."""
        if min(len(real), len(fake)) < 2:
            raise EvaluationError("@NAME@ needs at least two real and generated images")
        value = float((real.values.double().mean(0) - fake.values.double().mean(0)).norm())
        # `name` says whose features these are: no proxy is passed off as the real thing
        return [MetricResult("@NAME@", fake.name("@NAME@", "@NAME@"), value, "lower")]
'''

METRIC_TESTS = (
    HEAD
    + """import pytest
import torch
from gancompress.evaluation.features import Features
from gancompress.testing import Check, metric_checks

from @MODULE@ import @CLASS@


@pytest.mark.parametrize("check", metric_checks(@CLASS@, identical={"@NAME@": 0.0}), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_a_known_answer() -> None:
    real, fake = (Features(torch.full((4, 2), float(x)), torch.zeros(4, 3), "toy") for x in (0, 3))
    assert @CLASS@().compute(real, fake)[0].value == pytest.approx(18**0.5)
"""
)

LOSS = '''"""@NAME@, a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.objectives.base import Loss, LossConfig
from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["@CLASS@", "@CLASS@Config"]


class @CLASS@Config(LossConfig):
    """Settings of @NAME@."""

    margin: float = Field(1.0, gt=0, description="logit beyond which the discriminator gains nothing more")


class @CLASS@(Loss[@CLASS@Config]):
    """Hinge loss with a margin of one's choice. Say here what yours is, and who published it."""

    Config = @CLASS@Config

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return what the discriminator minimises, the mean over the batch."""
        # logits may be of half precision, losses are float32
        real, fake = real_logits.float(), fake_logits.float()
        loss: Tensor = (self.config.margin - real).relu().mean() + (self.config.margin + fake).relu().mean()
        return loss

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Return what the generator minimises, the mean over the batch."""
        return -fake_logits.float().mean()
'''

LOSS_TESTS = (
    HEAD
    + """import pytest
import torch
from gancompress.testing import Check, loss_checks

from @MODULE@ import @CLASS@, @CLASS@Config


@pytest.mark.parametrize("check", loss_checks(@CLASS@), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_a_known_answer() -> None:
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([-3.0, 1.0])
    loss = @CLASS@(@CLASS@Config(margin=2.0))
    # (0 + 1) / 2 for the real logits, (0 + 3) / 2 for the fake ones
    assert loss.discriminator(real, fake).item() == 2.0
    assert loss.generator(fake).item() == 1.0
"""
)
