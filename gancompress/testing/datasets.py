"""What every dataset must do: the same images for the same indices, in every order, process and instance."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

import numpy as np
import torch

from gancompress.components.registry import DATASETS
from gancompress.data.base import Dataset, ImageSpec
from gancompress.evaluation.sandbox import forked_rng
from gancompress.testing.conformance import ConfiguredSuite, Once, promise, require, skip_check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from gancompress.data.base import Batch

__all__ = ["DatasetSuite", "from_two_random_states"]

T = TypeVar("T")

#: images that are looked at; of a larger dataset these many, spread over all of it
_LOOKED_AT = 16


def _random_states() -> str:
    """Return a hash of the global random states of torch, NumPy and Python."""
    found = hashlib.blake2b(bytes(torch.default_generator.get_state().tolist()), digest_size=8)
    found.update(repr(np.random.get_state()).encode())
    found.update(repr(random.getstate()).encode())
    return found.hexdigest()


def from_two_random_states(compute: Callable[[], T], instead: str) -> tuple[T, T]:
    """Return what ``compute`` gives under each of two global random states; it must move neither.

    Args:
        compute: what is checked.
        instead: advice to one that draws from a global random state.
    """

    def under(seed: int) -> T:
        with forked_rng(seed):
            before = _random_states()
            value = compute()
            moved = _random_states() != before
        require(not moved, f"it draws from a global random state: {instead}")
        return value

    return under(1), under(2)


class DatasetSuite(ConfiguredSuite):
    """All checks of one dataset."""

    registry = DATASETS

    def __init__(self, component: str | type, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(component, settings)
        self.dataset = Once(self._open)

    def _new(self) -> Dataset[Any]:
        made: Dataset[Any] = self.target(self.config())
        return made

    def _open(self) -> Dataset[Any]:
        dataset = self._new()
        require(isinstance(dataset, Dataset), f"{type(dataset).__name__} is no Dataset: subclass it")
        require(len(dataset) >= 2, f"it holds {len(dataset)} images")
        dataset.prepare()
        return dataset

    def _some(self, dataset: Dataset[Any]) -> Tensor:
        """Return the indices that are looked at: the first, the last and some between."""
        last, most = len(dataset) - 1, min(len(dataset), _LOOKED_AT)
        return torch.tensor(sorted({round(place * last / (most - 1)) for place in range(most)}))

    @promise
    def opens(self) -> None:
        """It can be opened, and holds at least two images."""
        self.dataset.get()

    @promise
    def spec(self) -> None:
        """It says which channels, resolution and classes its images have."""
        spec = self.dataset.need("opens").spec
        require(isinstance(spec, ImageSpec), f"spec is a {type(spec).__name__}, no ImageSpec")
        require(spec.channels in (1, 3), f"images have {spec.channels} channels, expected 1 or 3")
        require(spec.resolution >= 1, f"images have {spec.resolution} pixels")
        names = list(spec.classes)
        require(len(set(names)) == len(names), f"two classes have one name: {names}")
        require(all(isinstance(name, str) for name in names), f"names of classes must be text: {names}")

    @promise
    def images(self) -> None:
        """Images are uint8 of the shape that it says."""
        dataset = self.dataset.need("opens")
        indices, spec = self._some(dataset), dataset.spec
        images = dataset.read(indices).images
        require(images.dtype is torch.uint8, f"images are {images.dtype}, expected uint8")
        wanted = (len(indices), spec.channels, spec.resolution, spec.resolution)
        require(tuple(images.shape) == wanted, f"images have the shape {tuple(images.shape)}, expected {wanted}")
        require(int(images.max()) > int(images.min()), "every pixel of every image is the same")
        require(int(images.max()) > 1, "no pixel is above 1: images go from 0 to 255")

    @promise
    def labels(self) -> None:
        """Labels are int64, within the classes, and the same however they are asked for."""
        dataset = self.dataset.need("opens")
        indices, classes = self._some(dataset), dataset.spec.num_classes
        labels = dataset.read(indices).labels
        require(labels.dtype is torch.int64, f"labels are {labels.dtype}, expected int64")
        require(tuple(labels.shape) == (len(indices),), f"labels have the shape {tuple(labels.shape)}")
        everything = dataset.labels()
        require(everything.dtype is torch.int64, f"labels() gives {everything.dtype}, expected int64")
        require(
            tuple(everything.shape) == (len(dataset),),
            f"labels() gives {tuple(everything.shape)}, expected ({len(dataset)},)",
        )
        require(torch.equal(everything[indices], labels), "labels() and read() disagree")
        low, high = int(everything.min()), int(everything.max())
        most = max(classes - 1, 0)
        allowed = f"0 to {most}" if classes else "0 alone, for it has no classes"
        require(low >= 0 and high <= most, f"labels go from {low} to {high}, allowed are {allowed}")

    @promise
    def stable_indices(self) -> None:
        """An index gives the same image in every batch, order and repetition."""
        dataset = self.dataset.need("opens")
        indices = self._some(dataset)
        before = _digests(dataset.read(indices))
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
        shuffled = _digests(dataset.read(indices[order]))
        for place, index in enumerate(order.tolist()):
            require(shuffled[place] == before[index], f"image {int(indices[index])} is another one in another order")
        twice = _digests(dataset.read(indices[:1].repeat(2)))
        require(twice == [before[0]] * 2, f"image {int(indices[0])} read twice in one batch is not the same")
        for place, index in enumerate(indices.tolist()):
            alone = _digests(dataset.read(torch.tensor([index])))
            require(alone == [before[place]], f"image {index} is another one when it is read alone")

    @promise
    def deterministic(self) -> None:
        """Another instance with the same settings holds the same images."""
        dataset, other = self.dataset.need("opens"), self._new()
        require(len(dataset) == len(other), f"{len(dataset)} images, then {len(other)}")
        require(dataset.spec == other.spec, f"{dataset.spec}, then {other.spec}")
        mine, theirs = dataset.fingerprint(), other.fingerprint()
        require(isinstance(mine, str) and mine, f"fingerprint() gives {mine!r}, expected text")
        require(mine == theirs, f"the fingerprint is {mine}, then {theirs}")
        indices = self._some(dataset)
        same = _digests(dataset.read(indices)) == _digests(other.read(indices))
        require(same, "another instance with the same settings holds other images, and the fingerprint does not say so")

    @promise
    def random_state(self) -> None:
        """Nothing depends on a global random state, and none is moved."""
        self.dataset.need("opens")

        def found() -> tuple[list[str], Dataset[Any]]:
            dataset = self._open()
            return _digests(dataset.read(self._some(dataset))), dataset

        one, other = from_two_random_states(found, "use a generator of its own")
        same = (one[0], one[1].fingerprint()) == (other[0], other[1].fingerprint())
        require(same, "its images depend on a global random state")

    @promise
    def fork(self) -> None:
        """A forked process reads the same images."""
        dataset = self.dataset.need("opens")
        if not hasattr(os, "fork"):
            skip_check("this system cannot fork processes")
        # imported here: what trains is no matter of datasets
        from gancompress.testing.ranks import forked

        indices = self._some(dataset)
        there = forked(lambda: _digests(dataset.read(indices)))
        require(there == _digests(dataset.read(indices)), "a forked process reads other images")

    @promise
    def pickle_free(self) -> None:
        """Reading images unpickles nothing."""
        self.dataset.need("opens")

        def refuse(*_: Any, **__: Any) -> Any:
            raise AssertionError("it unpickles: whoever made the file could run code here; read another format")

        with (
            mock.patch.object(pickle, "load", refuse),
            mock.patch.object(pickle, "loads", refuse),
            mock.patch.object(pickle, "Unpickler", refuse),
        ):
            dataset = self._open()
            dataset.read(self._some(dataset))


def _digests(batch: Batch) -> list[str]:
    """Return a hash of every image and its label."""
    return [
        hashlib.blake2b(image.contiguous().numpy().tobytes() + bytes([label % 256]), digest_size=8).hexdigest()
        for image, label in zip(batch.images.cpu(), batch.labels.tolist(), strict=True)
    ]
