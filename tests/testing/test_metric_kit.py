"""Every check of the metric kit passes for the built-in metrics and fails for one that is broken in just that way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.components.registry import METRICS
from gancompress.evaluation.generator_metrics import GeneratorMetric
from gancompress.evaluation.metrics import Metric, MetricResult
from gancompress.testing import check_metric, metric_checks

if TYPE_CHECKING:
    from gancompress.evaluation.features import Features
    from gancompress.evaluation.sampler import Sampler

#: what two sets with the same images give; of the kernel distance only two *samples* of one distribution give 0
IDENTICAL = {"fd": {"fd": 0.0}, "pr": {"precision": 1.0, "recall": 1.0}, "coverage": {"modes": 4.0}}


def gap(real: Features, fake: Features) -> float:
    return float((real.values.mean(0) - fake.values.mean(0)).norm())


class Good(Metric):
    """Distance of the means."""

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        return [MetricResult("gap", fake.name("gap", "gap"), gap(real, fake), "lower")]


def broken(compute: Any, doc: str | None = "Broken.") -> type[Metric]:
    return type("Broken", (Metric,), {"compute": lambda self, real, fake: compute(real, fake), "__doc__": doc})


def one(value: Any, key: str = "gap", name: str = "gap[kit-0000]", better: Any = "lower") -> list[MetricResult]:
    return [MetricResult(key, name, value, better)]


calls: list[int] = []


def drifting(real: Features, fake: Features) -> list[MetricResult]:
    calls.append(1)
    return one(gap(real, fake) + len(calls))


def seeding(real: Features, fake: Features) -> list[MetricResult]:
    torch.manual_seed(0)
    return one(gap(real, fake))


def editing(real: Features, fake: Features) -> list[MetricResult]:
    fake.values.clamp_(-1, 1)
    return one(gap(real, fake))


def needy(real: Features, fake: Features) -> list[MetricResult]:
    return one(gap(real, fake) / float(fake.values.reshape(-1, 16, 8).std() > 0))


CASES: list[tuple[Any, str, str]] = [
    (broken(lambda r, f: one(gap(r, f)), doc=None), "documented", "Broken has no docstring"),
    (broken(lambda r, f: gap(r, f)), "results", r"compute\(\) gives .*, expected a list of results"),
    (broken(lambda r, f: one(float("nan"))), "results", "gap is nan"),
    (broken(lambda r, f: one(1)), "results", "gap is a int, expected a float"),
    (broken(lambda r, f: one(gap(r, f)) * 2), "results", "two results have one key"),
    (broken(lambda r, f: one(gap(r, f), name="FID")), "honest-names", "'FID' does not say that its features are those"),
    (broken(drifting), "deterministic", "gap .*, then gap "),
    (
        broken(lambda r, f: one(float(torch.rand(())))),
        "random-state",
        "it draws from a global random state",
    ),
    (broken(seeding), "random-state", "it draws from a global random state"),
    (broken(lambda r, f: one(float(f.values[0, 0].abs()))), "order", "in another order"),
    (broken(lambda r, f: one(gap(r, f), better="higher")), "identical", "and higher is better"),
    (broken(editing), "untouched", "it changes the features of the generated images"),
    (broken(needy), "too-few", "from 1 image it raises RuntimeError"),
    (broken(lambda r, f: one(float(f.values.var(0).sum()))), "too-few", "gap of 1 images is not finite"),
]


@pytest.mark.parametrize("name", METRICS.builtin_names())
def test_the_built_in_ones_are_held_to_it(name: str) -> None:
    check_metric(name, identical=IDENTICAL.get(name))


def test_a_good_metric_passes() -> None:
    report = check_metric(Good, identical={"gap": 0.0})
    assert {o.name for o in report.outcomes if o.state != "passed"} == {"of-a-generator"}


class Size(GeneratorMetric):
    """Mean square of the pixels."""

    label, weights_hash = "pixels", "none"

    def measure(self, sampler: Sampler, count: int, batch_size: int) -> list[MetricResult]:
        starts = range(0, count, batch_size)
        made = torch.cat([sampler.images(start, min(start + batch_size, count)) for start in starts])
        return [MetricResult("size", "size", self.of(made, batch_size), "higher")]

    def of(self, made: Any, batch_size: int) -> float:
        return float(made.square().mean())


OF_GENERATORS: list[tuple[dict[str, Any], str]] = [
    ({"label": ""}, "label and weights_hash do not say which network looks"),
    ({"of": lambda self, made, batch_size: float("nan")}, "size is nan"),
    ({"of": lambda self, made, batch_size: batch_size / 2}, "size is 1.5 in batches of 3, 4 of 8"),
    ({"measure": lambda self, *_: []}, r"measure\(\) gives no results"),
]


def test_a_good_metric_of_generators_passes() -> None:
    passed = {o.name for o in check_metric(Size).outcomes if o.state == "passed"}
    assert passed == {"documented", "of-a-generator"}


@pytest.mark.parametrize(("changed", "reason"), OF_GENERATORS)
def test_it_catches_what_is_wrong_with_one_of_generators(changed: dict[str, Any], reason: str) -> None:
    checks = metric_checks(type("Broken", (Size,), {"__doc__": "Broken.", **changed}))
    found = next(c for c in checks if c.name == "of-a-generator").outcome()
    assert found.state == "failed", found
    assert re.search(reason, found.reason), found.reason


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize(("metric", "check", "reason"), CASES, ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_it_catches(metric: Any, check: str, reason: str) -> None:
    checks = metric_checks(metric)
    if check == "untouched":  # what an earlier check left is what this one finds
        next(c for c in checks if c.name == "results")()
    found = next(c for c in checks if c.name == check).outcome()
    assert found.state == "failed", found
    assert re.search(reason, found.reason), found.reason


def test_the_value_for_identical_images_may_be_said() -> None:
    found = {c.name: c.outcome() for c in metric_checks(Good, identical={"gap": 1.0})}
    assert found["identical"].reason == "gap of the same images is 0, expected 1"
    found = {c.name: c.outcome() for c in metric_checks(Good, identical={"gasp": 1.0})}
    assert found["identical"].reason == "there is no result 'gasp'; there are: gap"


def test_every_check_is_seen_to_fail() -> None:
    seen = {check for _, check, _ in CASES} | {"of-a-generator"}
    assert seen == {check.name for check in metric_checks(Good)}
