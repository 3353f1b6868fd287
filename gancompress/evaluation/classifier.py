"""Features of a small network trained on the run's own real images, for where Inception is absent or meaningless.

With labels it learns to classify; without (or when asked by ``classifier:rotation``) it learns which of four quarter
turns an image was given (Gidaris et al., 2018). It is trained once, from a fixed seed (``classifier:seed=1`` is
another), in one thread of the CPU whatever the machine, and kept in the cache under the hash of data and settings. That
hash is in the name of every number it gives: ``FD[classifier-1f3a9c2d]`` is never FID, and compares only runs on the
same data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError
from gancompress.evaluation.extractors import Extractor, Progress
from gancompress.seeds import derive, generator
from gancompress.storage.cache import cache_directory, hash_tensors, load_tensors, store_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gancompress.data.base import Dataset

__all__ = ["Classifier", "ClassifierSettings"]

#: raised whenever the network or its training changes, so that old caches are not mistaken for new ones
REVISION = 1
MAX_IMAGES = 50_000
MAX_RESOLUTION = 64


@dataclasses.dataclass(frozen=True)
class ClassifierSettings:
    """Everything that fixes the classifier beyond the data; all but the seed derived from the data, never set by hand.

    Attributes:
        task: ``classes`` or ``rotation``.
        channels: channels of the images.
        resolution: size that images are brought to; only ever smaller.
        width: channels of the first stage.
        outputs: number of logits.
        images: images used, held-out ones included.
        held_out: images kept for measuring its accuracy.
        steps: optimizer steps.
        batch_size: images per step.
        learning_rate: peak of the one-cycle schedule.
        flip: images are mirrored at random.
        seed: what it is initialised and trained from.
    """

    task: str
    channels: int
    resolution: int
    width: int
    outputs: int
    images: int
    held_out: int
    steps: int
    batch_size: int
    learning_rate: float
    flip: bool
    revision: int = REVISION
    seed: int = 0

    def described(self, fingerprint: str) -> str:
        """Return what the classifier of these data is known by; the first seed goes without saying, as ever."""
        settings = dataclasses.asdict(self)
        if not self.seed:
            del settings["seed"]
        return json.dumps({"data": fingerprint, **settings}, sort_keys=True)

    @classmethod
    def for_dataset(cls, dataset: Dataset[Any], task: str, seed: int = 0) -> ClassifierSettings:
        """Choose sizes for one CPU core: 3 s and 99 % right on digits, 4 min and 76 % on 50,000 images of CIFAR-10."""
        spec = dataset.spec
        images = min(len(dataset), MAX_IMAGES)
        held_out = max(1, min(images // 10, 5000))
        large = images >= 10_000
        batch_size = 128 if large else min(64, images - held_out)
        return cls(
            task=task,
            channels=spec.channels,
            resolution=min(spec.resolution, MAX_RESOLUTION),
            width=24 if large else 16,
            outputs=4 if task == "rotation" else spec.num_classes,
            images=images,
            held_out=held_out,
            steps=max(250, min(10 * (images - held_out) // batch_size, 2000 if large else 400)),
            batch_size=batch_size,
            learning_rate=8e-3 if large else 4e-3,
            flip=spec.channels == 3 and task == "classes",
            seed=seed,
        )


class _Net(nn.Module):
    """Convolutions at 1, 1/2 and 1/4 of at most 32 pixels; features are averages over the last map."""

    def __init__(self, settings: ClassifierSettings) -> None:
        super().__init__()
        w = settings.width
        first_stride = 2 if settings.resolution > 32 else 1
        plan = [
            (settings.channels, w, first_stride),
            (w, 2 * w, 2),
            (2 * w, 2 * w, 1),
            (2 * w, 4 * w, 2),
            (4 * w, 4 * w, 1),
        ]
        layers: list[nn.Module] = []
        for inside, outside, stride in plan:
            layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(4 * w, settings.outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(images).mean(dim=(2, 3))
        return features, self.head(features)


@EXTRACTORS.register("classifier")
class Classifier(Extractor):
    """A small classifier trained on the real images of the run. Built by :meth:`prepare`."""

    label = weights_hash = ""
    notes: tuple[str, ...] = ()

    def __init__(self, net: nn.Module, settings: ClassifierSettings, key: str, accuracy: float) -> None:
        self.net = net.eval().requires_grad_(False)
        self.settings = settings
        self.accuracy = accuracy
        self.resize = f"area to {settings.resolution} px if larger"
        self.classes = settings.outputs if settings.task == "classes" else 0
        self.device = next(net.parameters()).device
        self.label = f"{'rotation' if settings.task == 'rotation' else 'classifier'}-{key[:8]}"
        #: other machines may round otherwise and get others under the same label
        self.weights_hash = hash_tensors(net.state_dict())[:16]
        self.notes = (f"{100 * accuracy:.1f} % right on held-out images",)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d) and logits (B, k), see the base class."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            features, logits = self.net(_to_input(_shrink(images.to(self.device), self.settings.resolution)))
        return features, logits

    @classmethod
    def knows_classes(cls, option: str = "") -> bool:
        """Unless it is trained to tell rotations apart."""
        return "rotation" not in option.split(",")

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return what is wrong: an unknown option, no classes to learn, or too few images."""
        parsed = _parse(option)
        if parsed is None:
            return f"unknown option {option!r} of the classifier; known: classes, rotation, seed=NUMBER"
        if parsed[0] == "classes" and dataset.spec.num_classes < 2:
            return "the images have no classes to learn; use 'classifier:rotation' or 'inception'"
        if len(dataset) < 20:
            return f"{len(dataset)} real images are too few to train a classifier on; give at least 20"
        return None

    @classmethod
    def prepare(
        cls,
        dataset: Dataset[Any],
        *,
        option: str = "",
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Classifier:
        """Load the classifier of ``dataset`` from the cache, or train it and put it there.

        The option ``rotation`` ignores the labels; ``seed=1``, or ``rotation,seed=1``, trains another one.

        Raises:
            EvaluationError: too few images, or an unknown option.
        """
        if reason := cls.refuses(dataset, option):
            raise EvaluationError(reason)
        asked, seed = _parse(option) or ("", 0)
        task = asked or ("classes" if dataset.spec.num_classes >= 2 else "rotation")
        settings = ClassifierSettings.for_dataset(dataset, task, seed)
        described = settings.described(dataset.fingerprint())
        key = hashlib.sha256(described.encode()).hexdigest()
        path = cache_directory() / "classifiers" / f"{key[:32]}.safetensors"
        with torch.inference_mode(False):
            net = _new_net(settings)
            cached = load_tensors(path)
            if cached is None:
                accuracy = _train(net, settings, dataset, progress)
                store_tensors(path, net.state_dict(), {"accuracy": repr(accuracy), "settings": described})
            else:
                net.load_state_dict(cached[0])
                accuracy = float(cached[1]["accuracy"])
        return cls(net.to(device), settings, key, accuracy)


def _parse(option: str) -> tuple[str, int] | None:
    """Return the task that an option asks for, empty where it asks for none, and the seed; ``None``: neither."""
    task, seed = "", 0
    for part in option.split(",") if option else ():
        key, equals, value = part.partition("=")
        if part in ("rotation", "classes") and not task:
            task = part
        elif key == "seed" and equals and value.isascii() and value.isdigit():
            seed = int(value)
        else:
            return None
    return task, seed


def _shrink(images: Tensor, resolution: int) -> Tensor:
    """Bring uint8 images down to ``resolution`` by area averaging; smaller ones stay as they are."""
    if images.shape[-1] <= resolution:
        return images
    return F.interpolate(images.float(), size=resolution, mode="area").round().to(torch.uint8)


def _to_input(images: Tensor) -> Tensor:
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _new_net(settings: ClassifierSettings) -> _Net:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(settings.seed, "evaluation", "classifier", "init"))
        # this memory format is a third faster on CPU
        return _Net(settings).to(memory_format=torch.channels_last)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One thread, gradients on, no autocast: the same sums in the same order wherever and whenever it is trained."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)


def _load(dataset: Dataset[Any], settings: ClassifierSettings, indices: Tensor) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for chunk in torch.split(indices, 1000):
        batch = dataset.read(chunk)
        images.append(_shrink(batch.images, settings.resolution))
        labels.append(batch.labels)
    return torch.cat(images), torch.cat(labels)


def _augment(images: Tensor, settings: ClassifierSettings, rng: torch.Generator) -> Tensor:
    """Shift the whole batch by up to 2 pixels (repeating the border) and mirror some images."""
    dy, dx = torch.randint(0, 5, (2,), generator=rng).tolist()
    size = images.shape[-1]
    shifted = F.pad(images, (2, 2, 2, 2), mode="replicate")[:, :, dy : dy + size, dx : dx + size]
    if settings.flip:
        flips = torch.rand(len(images), 1, 1, 1, generator=rng) < 0.5
        shifted = torch.where(flips, shifted.flip(3), shifted)
    return shifted


def _turn(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each image by its number of quarter turns."""
    turned = torch.stack([images.rot90(k, (2, 3)) for k in range(4)])
    return turned[turns, torch.arange(len(images))]


def _train(net: _Net, settings: ClassifierSettings, dataset: Dataset[Any], progress: Progress | None) -> float:
    """Train ``net`` in place and return its accuracy on the held-out images."""
    rng = generator(settings.seed, "evaluation", "classifier", "train")
    order = torch.randperm(len(dataset), generator=rng)[: settings.images]
    images, labels = _load(dataset, settings, order)
    held_images, images = images[: settings.held_out], images[settings.held_out :]
    held_labels, labels = labels[: settings.held_out], labels[settings.held_out :]
    rate = settings.learning_rate
    with _alone():
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=settings.steps, cycle_momentum=False
        )
        queue = torch.empty(0, dtype=torch.int64)
        net.train()
        for step in range(settings.steps):
            if len(queue) < settings.batch_size:
                queue = torch.cat([queue, torch.randperm(len(images), generator=rng)])
            chosen, queue = queue[: settings.batch_size], queue[settings.batch_size :]
            inputs, targets = images[chosen], labels[chosen]
            if settings.task == "rotation":
                targets = torch.randint(0, 4, (len(chosen),), generator=rng)
                inputs = _turn(inputs, targets)
            _, logits = net(_augment(_to_input(inputs), settings, rng))
            loss = F.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if progress is not None and (step + 1) % 50 == 0:
                progress("training the classifier that metrics use", step + 1, settings.steps)
        net.eval()
        return _accuracy(net, settings, held_images, held_labels)


def _accuracy(net: _Net, settings: ClassifierSettings, images: Tensor, labels: Tensor) -> float:
    if settings.task == "rotation":
        labels = torch.arange(len(images)) % 4
        images = _turn(images, labels)
    with torch.no_grad():
        chunks = zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
        right = sum(int((net(_to_input(x))[1].argmax(1) == y).sum().item()) for x, y in chunks)
    return right / len(images)
