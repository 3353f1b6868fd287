"""A generator measured as a recipe's evaluation section says, while it trains or long after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.backbones.spectral import norm_vectors
from gancompress.components.registry import EXTRACTORS, METRICS
from gancompress.errors import EvaluationError
from gancompress.evaluation.evaluate import Evaluation, evaluate
from gancompress.evaluation.extractors import build_extractor, parse_extractor, resolve_extractor
from gancompress.evaluation.generator_metrics import GeneratorMetric

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from gancompress.backbones.base import Generator
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.evaluation.extractors import Extractor
    from gancompress.evaluation.metrics import MetricResult
    from gancompress.progress import Observer
    from gancompress.recipe.schema import EvaluationConfig
    from gancompress.tasks.base import Task, TaskConfig

__all__ = ["Evaluator", "check_evaluation", "check_generator", "check_measurable", "metric_record"]


#: of a protocol: every average that has spectral norms is measured under these
_OWN_NORMS = "divided by their own spectral norms"


class Evaluator:
    """Measures generators as an evaluation section says, with an extractor that is built when it is first needed."""

    def __init__(
        self,
        config: EvaluationConfig,
        dataset: Dataset[DatasetConfig],
        device: torch.device,
        observer: Observer,
        task: Task[TaskConfig],
    ) -> None:
        self.config = config
        self._dataset, self._inputs = task.references(dataset), task.inputs(dataset)
        self._device = device
        self._observer = observer
        self._extractor: Extractor | None = None

    def __call__(self, network: Generator, *, exported_from: Generator | None = None) -> Evaluation:
        """Measure ``network``; it and the random state are as before on return.

        An average comes here under its own spectral norms, and the protocol says so; in ``network`` they are written
        out already where it was exported from a generator that has them.
        """
        if self._extractor is None:
            progress = _say_once(self._observer)
            self._extractor = build_extractor(
                self.config.extractor, self._dataset, device=self._device, progress=progress
            )
        config = self.config
        return evaluate(
            network,
            dataset=self._dataset,
            extractor=self._extractor,
            metrics=config.metrics,
            samples=config.samples,
            batch_size=config.batch_size,
            batch_norm=config.batch_norm,
            seed=config.seed,
            weights_label=config.weights,
            inputs=self._inputs,
            norms=_OWN_NORMS if config.weights == "ema" and norm_vectors(exported_from or network) else "",
        )


def check_evaluation(config: EvaluationConfig) -> None:
    """Refuse metrics and an extractor that cannot be used here, before any time is spent on training.

    Raises:
        ComponentError: nothing is registered under a name, or what is does not load.
        EvaluationError: the extractor is not available; the message says what to do.
    """
    for metric in config.metrics:
        if (reason := METRICS.get(metric).available()) is not None:
            raise EvaluationError(f"evaluation.metrics: {metric}: {reason}")
    name, option = parse_extractor(config.extractor)
    if name == "auto":
        return
    reason = EXTRACTORS.get(name).available()
    if reason is not None and not option:
        raise EvaluationError(f"evaluation.extractor: {name}: {reason}")


def check_measurable(
    config: EvaluationConfig, dataset: Dataset[DatasetConfig], task: Task[TaskConfig] | None = None
) -> None:
    """Refuse images that the extractor or a metric cannot work with, before any time is spent on training.

    Args:
        config: how generators are measured.
        dataset: of the run.
        task: what its generator is trained for; None: images of latents.

    Raises:
        EvaluationError: there are too few, or they have no classes; the message says what to do.
    """
    if task is not None:
        inputs, dataset = task.inputs(dataset), task.references(dataset)
        if inputs is not None and config.samples > len(inputs):
            raise EvaluationError(
                f"evaluation.samples: {config.samples:,} images were asked for, and there are {len(inputs):,} inputs "
                f"to make them of: use --set evaluation.samples={len(inputs)}"
            )
    name, option = parse_extractor(resolve_extractor(config.extractor, dataset))
    extractor = EXTRACTORS.get(name)
    if reason := extractor.refuses(dataset, option):
        raise EvaluationError(f"evaluation.extractor: {name}: {reason}")
    nameless = dataset.spec.num_classes < 2 or not extractor.knows_classes(option)
    for metric in config.metrics:
        where, needed = f"evaluation.metrics: {metric}", METRICS.get(metric)
        for count, what in ((len(dataset), "the data has"), (config.samples, "evaluation.samples is")):
            if count < (least := getattr(needed, "least", 2)):
                raise EvaluationError(f"{where} needs at least {least} real and generated images, {what} {count}")
        if nameless and getattr(needed, "of_classes", False):
            raise EvaluationError(f"{where} needs labelled data, and 'classifier' as evaluation.extractor")
        if getattr(needed, "of_predictions", False) and not extractor.classifies(option):
            raise EvaluationError(f"{where} needs predictions of classes, which {name} has none of: leave it out")


def check_generator(config: EvaluationConfig, network: Generator) -> None:
    """Refuse a metric of generators that this one cannot be measured by, before any time is spent on training.

    Raises:
        EvaluationError: naming it.
    """
    for metric in config.metrics:
        kind = METRICS.get(metric)
        if issubclass(kind, GeneratorMetric) and (reason := kind.refuses(network)) is not None:
            raise EvaluationError(f"evaluation.metrics: {metric} {reason}")


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


def _say_once(observer: Observer) -> Callable[[str, int, int], None]:
    """Return a progress callback that tells the observer the name of each long computation, once."""
    said: set[str] = set()

    def say(what: str, done: int, total: int) -> None:
        if what not in said:
            said.add(what)
            observer.message(what)

    return say
