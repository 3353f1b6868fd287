"""Which evaluation of a run is its best, and which evaluations may be compared at all. Imports no torch.

The best is picked by the first metric among the evaluations that can be compared with the last one: measured under the
same protocol, of a generator as dense as the last. An earlier, denser one of a pruning method is not what the run is
about.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["best_evaluation", "comparable", "of_other_protocol", "same_density", "same_protocol"]


def same_density(evaluations: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return of every evaluation's record whether the generator was as dense as at the last one."""
    return [one.get("density_generator") == evaluations[-1].get("density_generator") for one in evaluations]


def same_protocol(evaluations: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return of every evaluation's record whether it was measured under the protocol of the last one."""
    return [_protocol(one) == _protocol(evaluations[-1]) for one in evaluations]


def of_other_protocol(evaluations: Sequence[Mapping[str, Any]]) -> int:
    """Return how many evaluations are of another protocol than the last, so that they are compared with nothing."""
    return same_protocol(evaluations).count(False)


def comparable(evaluations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records among which the best is picked, in their order."""
    alike = zip(evaluations, same_density(evaluations), same_protocol(evaluations), strict=True)
    return [one for one, density, protocol in alike if density and protocol]


def best_evaluation(evaluations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the record of the best evaluation, the earliest of equals; None when no first metric is finite.

    Args:
        evaluations: records of a run's evaluations by step, as ``log.jsonl`` and ``metrics.json`` hold them.
    """
    finite = [(badness, one) for one in comparable(evaluations) if (badness := _badness(one)) is not None]
    return min(finite, key=lambda pair: pair[0])[1] if finite else None


def _badness(evaluation: Mapping[str, Any]) -> float | None:
    """Return a number that is lower the better the first metric is; None when that is not a finite number."""
    metrics = evaluation.get("metrics")
    first = metrics[0] if isinstance(metrics, list) and metrics and isinstance(metrics[0], dict) else {}
    value = first.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return -value if first.get("higher_is_better", first.get("better") == "higher") else value


def _protocol(evaluation: Mapping[str, Any]) -> Any:
    protocol = evaluation.get("protocol")
    return protocol.get("hash") if isinstance(protocol, dict) else protocol
