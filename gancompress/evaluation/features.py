"""Features of real images, kept in the cache, and of generated ones."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gancompress.errors import EvaluationError
from gancompress.seeds import generator
from gancompress.storage.cache import cache_directory, load_tensors, store_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gancompress.data.base import Dataset, ImageSpec
    from gancompress.evaluation.extractors import Extractor
    from gancompress.evaluation.sampler import Sampler

__all__ = ["Features", "Statistics", "extract", "generated_features", "reference_features"]

FloatArray = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of features, in float64."""

    mean: FloatArray
    covariance: FloatArray

    @functools.cached_property
    def root(self) -> FloatArray:
        """Symmetric square root of the covariance; negative eigenvalues, which are rounding, count as 0."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: FloatArray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return root


@dataclasses.dataclass(frozen=True)
class Features:
    """Features and logits of a set of images.

    Attributes:
        values: float32, (N, d), on the CPU.
        logits: float32, (N, k), on the CPU.
        label: label of the extractor.
        official: the extractor is Inception, so that names like FID may be used.
        classes: the logits are of the dataset's own classes, this many; 0 = of something else.
    """

    values: Tensor
    logits: Tensor
    label: str
    official: bool = False
    classes: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def name(self, official: str, other: str) -> str:
        """Return the name of a metric on these features: ``official`` for Inception, else ``other[label]``."""
        return official if self.official else f"{other}[{self.label}]"

    @functools.cached_property
    def statistics(self) -> Statistics:
        """Mean and covariance in float64 (torch-fidelity would keep a float32 mean)."""
        from torch_fidelity.metric_fid import fid_features_to_statistics

        found = fid_features_to_statistics(self.values.double())
        return Statistics(found["mu"], np.atleast_2d(found["sigma"]))


def extract(
    extractor: Extractor,
    batches: Iterator[Tensor],
    what: str,
) -> Features:
    """Return the features of batches of uint8 images.

    Args:
        extractor: the extractor.
        batches: uint8 images (B, C, H, W).
        what: the images in words, for messages.

    Raises:
        EvaluationError: a feature is not finite.
    """
    values, logits, done = [], [], 0
    for images in batches:
        value, logit = extractor.features(images)
        if not bool(torch.isfinite(value).all()) or not bool(torch.isfinite(logit).all()):
            raise EvaluationError(
                f"{extractor.label} gave NaN or infinite features for {what} {done} to {done + len(images) - 1}"
            )
        values.append(value.float().cpu())
        logits.append(logit.float().cpu())
        done += len(images)
    return Features(torch.cat(values), torch.cat(logits), extractor.label, extractor.official, extractor.classes)


def generated_features(
    extractor: Extractor,
    sampler: Sampler,
    *,
    count: int,
    batch_size: int,
    spec: ImageSpec,
    full: bool = False,
) -> Features:
    """Return the features of exactly ``count`` generated images, in order.

    Args:
        extractor: the extractor.
        sampler: makes the images; bring its network into the right mode first.
        count: number of images.
        batch_size: images per forward pass; changes nothing in eval mode.
        spec: what the images must look like.
        full: see :meth:`Sampler.batches`.

    Raises:
        EvaluationError: wrong shape, NaN or infinite pixels or features.
    """
    wanted = (spec.channels, spec.resolution, spec.resolution)

    def checked() -> Iterator[Tensor]:
        for images in sampler.batches(count, batch_size, full=full):
            if tuple(images.shape[1:]) != wanted:
                raise EvaluationError(
                    f"the generator makes images of shape {tuple(images.shape[1:])}, the data has {wanted}"
                )
            yield images

    return extract(extractor, checked(), "generated images")


#: the last reference features of this process: a run evaluates against the same ones again and again
_RECENT: OrderedDict[str, Features] = OrderedDict()


def reference_features(
    extractor: Extractor,
    dataset: Dataset[Any],
    *,
    count: int | None = None,
    batch_size: int = 250,
) -> Features:
    """Return the features of real images, from the cache when they were ever computed.

    Args:
        extractor: the extractor.
        dataset: the real images.
        count: how many, drawn at random with a fixed seed; None = all, in order.
        batch_size: images per forward pass.

    Raises:
        EvaluationError: more images asked for than there are, or a feature that is not finite.
        DataError: an image cannot be read.
    """
    number = len(dataset) if count is None else count
    if not 2 <= number <= len(dataset):
        raise EvaluationError(
            f"{number} reference images asked for, the dataset has {len(dataset)}; take 2 or more of them"
        )
    identity = f"{extractor.label}|{extractor.weights_hash}|{dataset.fingerprint()}|{number}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    if key not in _RECENT:
        path = cache_directory() / "features" / f"{key}.safetensors"
        cached = load_tensors(path)
        if cached is None or cached[1].get("identity") != identity:
            order = torch.arange(number)
            if number < len(dataset):
                order = torch.randperm(len(dataset), generator=generator(0, "evaluation", "reference"))[:number]
            batches = (dataset.read(chunk).images for chunk in torch.split(order, batch_size))
            found = extract(extractor, batches, "real images")
            store_tensors(path, {"values": found.values, "logits": found.logits}, {"identity": identity})
        else:
            found = Features(**cached[0], label=extractor.label, official=extractor.official, classes=extractor.classes)
        _RECENT[key] = found
        while len(_RECENT) > 2:
            _RECENT.popitem(last=False)
    _RECENT.move_to_end(key)
    return _RECENT[key]
