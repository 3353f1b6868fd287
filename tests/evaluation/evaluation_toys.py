"""Small deterministic images, generators and extractors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.evaluation.extractors import Extractor, Progress


class Blobs(Dataset[DatasetConfig]):
    """Noise around one bright quarter per class; learnt in a few steps."""

    def __init__(
        self, count: int = 240, channels: int = 1, resolution: int = 8, classes: int = 4, seed: int = 0
    ) -> None:
        super().__init__(DatasetConfig())
        rng = torch.Generator().manual_seed(seed)
        self.stored = torch.arange(count) % max(classes, 1)
        self.images = torch.randint(0, 120, (count, channels, resolution, resolution), generator=rng).to(torch.uint8)
        half = resolution // 2
        for index, label in enumerate(self.stored.tolist()):
            row, column = label // 2 % 2 * half, label % 2 * half
            self.images[index, :, row : row + half, column : column + half] += 120
        self.classes = tuple(f"quarter {i}" for i in range(classes))
        self.reads = 0
        self.seed = seed

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(self.images.shape[1], self.images.shape[2], self.classes)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Tensor) -> Batch:
        self.reads += 1
        return Batch(self.images[indices], self.stored[indices])

    def labels(self) -> Tensor:
        return self.stored

    def fingerprint(self) -> str:
        return f"blobs-{tuple(self.images.shape)}-{len(self.classes)}-{self.seed}"


class Generator(nn.Module):
    """A linear map of latent and class, with batch norm and dropout to be disturbed."""

    def __init__(self, channels: int = 1, resolution: int = 8, classes: int = 4, latent_dim: int = 6) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.linear = nn.Linear(latent_dim + classes, channels * resolution**2)
        self.norm = nn.BatchNorm2d(channels)
        self.norm.running_mean.fill_(0.3)
        self.dropout = nn.Dropout(0.5)
        self.shape = (channels, resolution, resolution)
        self.latent_dim, self.num_classes = latent_dim, classes

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.num_classes:
            z = torch.cat([z, nn.functional.one_hot(labels, self.num_classes).float()], 1)
        return torch.tanh(self.norm(self.dropout(self.linear(z)).view(-1, *self.shape)))


class Pixels(Extractor):
    """Fixed random projections of the pixels."""

    resize = "none"

    def __init__(self, inputs: int = 64, features: int = 5, logits: int = 4, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.matrix = torch.randn(inputs, features, generator=rng) / 8
        self.head = torch.randn(features, logits, generator=rng)
        self.seed = seed
        self.calls = 0

    @property
    def label(self) -> str:
        return f"pixels-{self.seed}"

    @property
    def weights_hash(self) -> str:
        return f"hash-{self.seed}"

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        values = (images.flatten(1).float() / 255) @ self.matrix
        return values, values @ self.head

    @classmethod
    def prepare(
        cls, dataset: Any, *, option: str = "", device: Any = "cpu", progress: Progress | None = None
    ) -> Extractor:
        return cls()
