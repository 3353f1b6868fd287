"""What int8 costs: a generator in bytes beside the same one in float32, under the run's own protocol."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from gancompress.errors import GancompressError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.experiment.finished import OpenedRun
    from gancompress.export.compiled import CompiledGenerator
    from gancompress.progress import Observer

__all__ = ["SEEDS", "Judge", "quality_lines"]

#: seeds of latents that a metric is measured with, beginning with the protocol's own
SEEDS = 3
#: images whose pixels are compared, so many at a time
_COMPARED, _TOGETHER = 64, 16


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares the generator of a run in float32 with the one in bytes.

    Attributes:
        run: whose evaluation section says how.
        measures: whether the run's metrics are measured of both, not their pixels alone.
        observer: is told what takes long.
    """

    run: OpenedRun
    measures: bool
    observer: Observer

    def __call__(self, exact: CompiledGenerator, coded: CompiledGenerator) -> dict[str, Any]:
        """Return the PSNR of images, which layers are in bytes, and each metric before and after, with its spread."""
        import torch

        from gancompress.evaluation.sampler import Sampler
        from gancompress.foreign.agreement import psnr

        pairs = []
        for network in (exact, coded):
            sampler = Sampler(network, seed=0, stream="int8")
            parts = [sampler.images(at, at + _TOGETHER) for at in range(0, _COMPARED, _TOGETHER)]
            pairs.append(torch.cat(parts))
        convolutions = [one for one in coded.layers if one.kind == "convolution"]
        found: dict[str, Any] = {
            "psnr": psnr(pairs[0], pairs[1], (-1.0, 1.0)),
            "images": _COMPARED,
            "convolutions": len(convolutions),
            "float": [one.name for one in convolutions if one.values != "int8"],
            "metrics": [],
        }
        if self.measures:
            try:
                found["metrics"] = self._measured(exact, coded)
            except GancompressError as error:  # the file stands, whatever becomes of this
                found["note"] = f"metrics were not measured: {error.message}"
        return found

    def _measured(self, exact: CompiledGenerator, coded: CompiledGenerator) -> list[dict[str, Any]]:
        import torch

        from gancompress.experiment.assemble import build_dataset
        from gancompress.experiment.measure import Evaluator, check_evaluation, check_measurable, metric_record
        from gancompress.experiment.networks import build_task

        # norms are merged into the weights with their running averages
        config = self.run.recipe.evaluation.model_copy(update={"batch_norm": "running", "weights": "ema"})
        check_evaluation(config)
        dataset = build_dataset(self.run.recipe)
        check_measurable(config, dataset)
        self.observer.message("measuring the generator in float32 and in int8")
        evaluator = Evaluator(config, dataset, torch.device("cpu"), self.observer, build_task(self.run.recipe))
        seeds = range(config.seed, config.seed + SEEDS)
        found = []
        for network in (exact, coded):
            by_seed = []
            for seed in seeds:
                evaluator.config = config.model_copy(update={"seed": seed})
                by_seed.append([metric_record(one) for one in evaluator(network).results])
            found.append([(own[0], _spread([one["value"] for one in own])) for own in zip(*by_seed, strict=True)])
        return [
            {**new, "spread": wide, "before": old["value"], "before_spread": spread, "seeds": SEEDS}
            for (old, spread), (new, wide) in zip(*found, strict=True)
        ]


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation; of what is not finite it is no number, which says so."""
    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def quality_lines(quality: Mapping[str, Any]) -> list[str]:
    """Return what a terminal says of it."""
    from gancompress.report.network import int8_lines
    from gancompress.report.words import metric_value

    if "psnr" not in quality:
        return int8_lines(quality)
    total, floats = quality["convolutions"], quality["float"]
    kept = f" ({', '.join(floats)} in float32)" if floats else ""
    lines = [
        f"int8: {total - len(floats)} of {total} convolutions{kept}; "
        f"PSNR {quality['psnr']:.1f} dB to the same weights in float32, of {quality['images']} images"
    ]
    for one in quality["metrics"]:
        before, after = metric_value(one["before"], one["before_spread"]), metric_value(one["value"], one["spread"])
        lines.append(f"{one['label']:24} {before} float32 {after} int8")
    if quality["metrics"]:
        lines.append(f"±: standard deviation over {quality['metrics'][0]['seeds']} seeds of latents, the same for both")
        lines.append(f"protocol: {quality['metrics'][0]['protocol']}")
    return lines + ([f"note: {quality['note']}"] if "note" in quality else [])
