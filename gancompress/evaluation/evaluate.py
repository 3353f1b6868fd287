"""Measure a generator under a protocol, without changing anything about it or about the training around it."""

from __future__ import annotations

import dataclasses
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from gancompress.components.registry import METRICS
from gancompress.data.classes import class_counts
from gancompress.data.memory import digest
from gancompress.errors import EvaluationError
from gancompress.evaluation.features import generated_features, reference_features
from gancompress.evaluation.generator_metrics import GeneratorMetric
from gancompress.evaluation.metrics import Metric, MetricResult
from gancompress.evaluation.protocol import Protocol
from gancompress.evaluation.sampler import classes_of, device_of, open_sampler
from gancompress.evaluation.sandbox import STANDING_BATCHES, BatchNormMode, forked_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.backbones.base import Generator
    from gancompress.data.base import Dataset
    from gancompress.evaluation.extractors import Extractor
    from gancompress.evaluation.sampler import Inputs

__all__ = ["Evaluation", "build_metrics", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        results: in the order of the metrics asked for; each carries its own protocol.
        protocol: what all of them share.
        seconds: wall-clock time.
    """

    results: tuple[MetricResult, ...]
    protocol: Protocol
    seconds: float

    def __getitem__(self, key: str) -> MetricResult:
        """Return the result with this key (``fd``, ``precision``, …)."""
        for result in self.results:
            if result.key == key:
                return result
        raise KeyError(key)


def build_metrics(names: Sequence[str | Metric]) -> list[Metric]:
    """Return the metrics registered under ``names``; instances are taken as they are.

    Raises:
        ComponentError: nothing is registered under a name.
        EvaluationError: what is registered is no metric.
    """
    found = []
    for name in names:
        metric = name if isinstance(name, Metric) else METRICS.get(name)()
        if not isinstance(metric, Metric):
            raise EvaluationError(f"metric {name!r} is registered but is no Metric: subclass it")
        found.append(metric)
    return found


def evaluate(
    network: Generator,
    *,
    dataset: Dataset[Any],
    extractor: Extractor,
    metrics: Sequence[str | Metric] = ("fd", "kd", "is", "pr"),
    samples: int = 10_000,
    batch_size: int = 100,
    batch_norm: BatchNormMode = "running",
    seed: int = 0,
    weights_label: str = "ema",
    norms: str = "",
    reference_count: int | None = None,
    inputs: Inputs | None = None,
) -> Evaluation:
    """Measure a generator. Modes, buffers and random states are as before on return, even after an error.

    Args:
        network: the generator.
        dataset: the real images.
        extractor: from :func:`~gancompress.evaluation.extractors.build_extractor`.
        metrics: registered names, or instances.
        samples: generated images, exactly.
        batch_size: images per forward pass of the generator; fixes nothing unless ``batch_norm`` says so.
        batch_norm: ``running``, ``batch`` or ``standing``, see :func:`~gancompress.evaluation.sandbox.sampling`.
        seed: of the latents.
        weights_label: ``ema`` or ``live``: what ``network`` is.
        norms: see :class:`~gancompress.evaluation.protocol.Protocol`.
        reference_count: real images used; None = all.
        inputs: what the generator is fed instead of latents.

    Raises:
        EvaluationError: a pixel, feature or result is not finite, a metric cannot be computed, or the data has other
            classes.
    """
    begun = time.perf_counter()
    counts = _counts(network, dataset)
    measured, device = build_metrics(metrics), device_of(network)
    for one in measured:
        if isinstance(one, GeneratorMetric) and (reason := one.refuses(network)) is not None:
            raise EvaluationError(f"{type(one).__name__} {reason}")
    with forked_rng(seed, device):
        real = reference_features(extractor, dataset, count=reference_count)
    own: dict[int, list[MetricResult]] = {}
    with open_sampler(
        network, seed=seed, batch_size=batch_size, batch_norm=batch_norm, counts=counts, inputs=inputs
    ) as sampler:
        fake = generated_features(
            extractor,
            sampler,
            count=samples,
            batch_size=batch_size,
            spec=dataset.spec,
            full=batch_norm == "batch",
        )
        for index, one in enumerate(measured):
            if isinstance(one, GeneratorMetric):
                with forked_rng(seed, device):
                    own[index] = one.measure(sampler, samples, batch_size)
    described = {
        "running": "running averages",
        "batch": f"each batch of {batch_size}",
        "standing": f"standing over {STANDING_BATCHES} batches of {batch_size}",
    }
    protocol = Protocol(
        extractor=extractor.label,
        weights_hash=extractor.weights_hash,
        resize=extractor.resize,
        reference=dataset.fingerprint(),
        reference_count=len(real),
        samples=samples,
        weights=weights_label,
        batch_norm=described[batch_norm],
        labels=_described(counts),
        seed=seed,
        libraries=f"torch-fidelity {version('torch-fidelity')}",
        notes=extractor.notes,
        norms=norms,
    )
    results: list[MetricResult] = []
    for index, metric in enumerate(measured):
        if isinstance(metric, GeneratorMetric):
            alone = protocol.of_generator(metric.label, metric.weights_hash, metric.resize)
            results += [dataclasses.replace(one, protocol=alone.for_metric(one.settings)) for one in own[index]]
            continue
        with forked_rng(seed, device), torch.no_grad():
            found = metric.compute(real, fake)
        results += [dataclasses.replace(one, protocol=protocol.for_metric(one.settings)) for one in found]
    for result in results:
        if result.value != result.value or abs(result.value) == float("inf"):
            raise EvaluationError(f"{result.name} is {result.value}: the generated images are degenerate")
    return Evaluation(tuple(results), protocol, time.perf_counter() - begun)


def _counts(network: Generator, dataset: Dataset[Any]) -> tuple[int, ...]:
    """Return how often each class is asked for: as often as it is in the data, without labels in the training data."""
    known, there = network.num_classes, dataset.spec.num_classes
    if known and there not in (0, known):
        raise EvaluationError(
            f"the generator makes {known} classes, the data has {there}: give the data it was made for"
        )
    return class_counts(dataset) if known and there else classes_of(network)


def _described(counts: tuple[int, ...]) -> str:
    """Return how classes are chosen, as a protocol holds it: with a hash of the counts where they differ."""
    if len(set(counts)) == 1:
        return "balanced"
    return f"as in the data ({digest(counts)[:8]})" if counts else "none"
