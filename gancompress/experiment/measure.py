"""A generator measured as a recipe's evaluation section says, while it trains or long after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.components.registry import EXTRACTORS, METRICS
from gancompress.errors import EvaluationError
from gancompress.evaluation.evaluate import Evaluation, evaluate
from gancompress.evaluation.extractors import parse_extractor

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from gancompress.backbones.base import Generator
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.evaluation.extractors import Extractor
    from gancompress.evaluation.metrics import MetricResult
    from gancompress.progress import Observer
    from gancompress.recipe.schema import EvaluationConfig

__all__ = ["check_evaluation", "measure", "metric_record", "say_once"]


def measure(
    network: Generator,
    dataset: Dataset[DatasetConfig],
    config: EvaluationConfig,
    extractor: Extractor,
    device: torch.device,
) -> Evaluation:
    """Measure ``network`` as ``config`` says; it and the random state are as before on return."""
    return evaluate(
        network,
        latent_dim=network.latent_dim,
        num_classes=network.num_classes,
        dataset=dataset,
        extractor=extractor,
        metrics=config.metrics,
        samples=config.samples,
        batch_size=config.batch_size,
        batch_norm=config.batch_norm,
        seed=config.seed,
        weights_label=config.weights,
        device=device,
    )


def check_evaluation(config: EvaluationConfig) -> None:
    """Refuse metrics and an extractor that cannot be used here, before any time is spent on training.

    Raises:
        ComponentError: nothing is registered under a name, or what is does not load.
        EvaluationError: the extractor is not available; the message says what to do.
    """
    for metric in config.metrics:
        METRICS.get(metric)
    name, option = parse_extractor(config.extractor)
    if name == "auto":
        return
    reason = EXTRACTORS.get(name).available()
    if reason is not None and not option:
        raise EvaluationError(f"evaluation.extractor: {name}: {reason}")


def metric_record(result: MetricResult) -> dict[str, Any]:
    """Return one metric as logs, reports and ``metrics.json`` hold it."""
    return {
        "name": result.key,
        "label": result.name,
        "value": result.value,
        "std": result.std,
        "higher_is_better": result.better == "higher",
        "protocol": str(result.protocol),
    }


def say_once(observer: Observer) -> Callable[[str, int, int], None]:
    """Return a progress callback that tells the observer the name of each long computation, once."""
    said: set[str] = set()

    def say(what: str, done: int, total: int) -> None:
        if what not in said:
            said.add(what)
            observer.message(what)

    return say
