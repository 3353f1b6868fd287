from __future__ import annotations

import numpy as np
import pytest
import torch

from gancompress.errors import EvaluationError
from gancompress.evaluation.features import Features, Statistics
from gancompress.evaluation.metrics import (
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    ModeCoverage,
    PrecisionRecall,
    frechet_distance,
)


def gaussian(count, dim=3, shift=0.0, seed=0, label="classifier-00000000", official=False, logits=None, classes=0):
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(count, dim, generator=rng) + shift
    return Features(
        values, torch.randn(count, 4, generator=rng) if logits is None else logits, label, official, classes
    )


def test_frechet_distance_of_two_gaussians_by_hand():
    # |m1 - m2|^2 = 4 + 9; diagonal covariances: sum of (sqrt(a) - sqrt(b))^2 = (1 - 2)^2 + (3 - 1)^2 = 5
    first = Statistics(np.array([0.0, 0.0]), np.diag([1.0, 9.0]))
    second = Statistics(np.array([2.0, 3.0]), np.diag([4.0, 1.0]))
    assert frechet_distance(first, second) == pytest.approx(18.0, rel=1e-12)
    assert frechet_distance(second, first) == pytest.approx(18.0, rel=1e-12)


def test_frechet_distance_where_covariances_do_not_commute():
    # trace of the root of a 2x2 matrix M: sqrt(trace M + 2 sqrt(det M))
    a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    product = a @ b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    zero = np.zeros(2)
    assert frechet_distance(Statistics(zero, a), Statistics(zero, b)) == pytest.approx(4 + 4 - 2 * root, rel=1e-12)


@pytest.mark.parametrize("count", [500, 40])
def test_frechet_distance_agrees_with_torch_fidelity(count):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = gaussian(600, 64), gaussian(count, 64, shift=0.2, seed=1)  # 40 < 64: a singular covariance
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(real.values.double()), fid_features_to_statistics(fake.values.double()), False
    )
    (ours,) = FrechetDistance().compute(real, fake)
    assert ours.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    real = gaussian(200, 16)
    assert FrechetDistance().compute(real, real)[0].value == pytest.approx(0, abs=1e-10)


def test_frechet_distance_of_one_feature():
    (found,) = FrechetDistance().compute(gaussian(200, 1), gaussian(200, 1, shift=3))
    assert found.value == pytest.approx(9, abs=0.5)


def test_inception_score_of_certain_even_predictions_is_the_number_of_classes():
    logits = torch.nn.functional.one_hot(torch.arange(400) % 4, 4) * 100.0
    (found,) = InceptionScore().compute(gaussian(10), gaussian(400, logits=logits))
    assert found.value == pytest.approx(4.0, rel=1e-9)


def test_inception_score_of_uncertain_or_collapsed_predictions_is_one():
    for logits in (torch.zeros(100, 4), torch.tensor([[100.0, 0, 0, 0]]).repeat(100, 1)):
        assert InceptionScore().compute(gaussian(10), gaussian(100, logits=logits))[0].value == pytest.approx(1.0)


def test_inception_score_takes_ten_splits_of_five_hundred_or_fewer():
    settings = [InceptionScore().compute(gaussian(10), gaussian(n))[0].settings for n in (400, 1500, 5000, 9000)]
    assert settings == ["1 split", "3 splits", "10 splits", "10 splits"]


def test_kernel_distance_is_near_zero_for_one_distribution_and_grows_with_a_shift():
    real = gaussian(600)
    values = [KernelDistance().compute(real, gaussian(600, shift=s, seed=1))[0].value for s in (0.0, 0.5, 1.0)]
    assert abs(values[0]) < 0.05
    assert values[0] < values[1] < values[2]


def test_kernel_distance_by_hand():
    # Constant features in one dimension: every kernel value is (x * y + 1)^3, so 8 + 27^... : 2^3 + 5^3 - 2 * 3^3
    real = Features(torch.full((8, 1), 1.0), torch.zeros(8, 2), "x")
    fake = Features(torch.full((8, 1), 2.0), torch.zeros(8, 2), "x")
    (found,) = KernelDistance().compute(real, fake)
    assert found.value == pytest.approx(2**3 + 5**3 - 2 * 3**3)
    assert found.settings == "100 subsets of 4"


def test_kernel_distance_agrees_with_torch_fidelity():
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = gaussian(300, 8), gaussian(280, 8, shift=0.3, seed=1)
    theirs = kid_features_to_metric(
        fake.values.double(), real.values.double(), kid_subset_size=140, kid_subsets=100, verbose=False
    )
    (ours,) = KernelDistance().compute(real, fake)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-10)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-8)


def test_kernel_distance_takes_the_standard_subsets_when_there_are_enough_images():
    metric = KernelDistance()
    metric.subsets = 2
    assert metric.compute(gaussian(3000), gaussian(2000))[0].settings == "2 subsets of 1000"


def test_negative_kernel_distance_prints_nothing(capfd):
    real = gaussian(300)
    found = [KernelDistance().compute(real, gaussian(300, seed=s))[0].value for s in range(1, 5)]
    assert min(found) < 0
    assert capfd.readouterr() == ("", "")


def test_a_collapsed_generator_has_precision_but_no_recall():
    real = gaussian(500)
    collapsed = Features(real.values[:1] + 1e-4 * torch.randn(500, 3, generator=torch.Generator()), real.logits, "x")
    precision, recall = PrecisionRecall().compute(real, collapsed)
    assert (precision.key, recall.key) == ("precision", "recall")
    assert precision.value == 1.0
    assert recall.value < 0.02


def test_images_far_from_the_data_have_neither_precision_nor_recall():
    precision, recall = PrecisionRecall().compute(gaussian(100), gaussian(100, shift=50))
    assert precision.value == recall.value == 0


def test_precision_and_recall_use_as_many_real_as_generated_images():
    found = PrecisionRecall().compute(gaussian(900), gaussian(300, seed=1))
    assert {result.settings for result in found} == {"3 neighbours, 300 images each"}


@pytest.mark.parametrize("metric", [FrechetDistance(), KernelDistance(), InceptionScore(), PrecisionRecall()])
def test_only_inception_gets_the_established_names(metric):
    proxy = metric.compute(gaussian(50), gaussian(50, seed=1))
    official = metric.compute(gaussian(50), gaussian(50, seed=1, label="inception", official=True))
    for result in proxy:
        assert "FID" not in result.name
        assert "KID" not in result.name
        assert result.name.endswith("[classifier-00000000]")
    assert {result.name for result in official} <= {"FID", "KID", "IS", "precision", "recall"}


def test_results_know_which_way_is_better():
    (distance,) = FrechetDistance().compute(gaussian(50), gaussian(50, seed=1))
    (score,) = InceptionScore().compute(gaussian(50), gaussian(50, seed=1))
    assert distance.is_better_than(distance.value + 1)
    assert not distance.is_better_than(distance.value)
    assert score.is_better_than(score.value - 0.01)


@pytest.mark.parametrize("metric", [KernelDistance(), PrecisionRecall()])
def test_too_few_images_say_how_many_are_needed(metric):
    with pytest.raises(EvaluationError, match="needs at least 4"):
        metric.compute(gaussian(50), gaussian(3))


def predicted(*counts):
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    return gaussian(len(labels), logits=torch.nn.functional.one_hot(labels, 4).float(), classes=4)


def test_mode_coverage_of_uneven_data_asks_for_a_tenth_of_each_class_s_own_share():
    real = predicted(300, 90, 10, 0)
    modes, kl = ModeCoverage().compute(real, real)
    assert (modes.value, kl.value) == (3, pytest.approx(0.0, abs=0.02))  # a copy of the data covers all they have
    assert modes.settings.startswith("of 3 classes")
    (modes, _) = ModeCoverage().compute(real, predicted(380, 8, 1, 11))  # 8 is below 9; the fourth is in no data
    assert modes.value == 2


def test_mode_coverage_counts_classes_with_a_tenth_of_their_share():
    real = predicted(100, 100, 100, 100)
    modes, kl = ModeCoverage().compute(real, predicted(100, 100, 100, 100))
    assert modes.value == 4
    assert kl.value == pytest.approx(0, abs=1e-12)
    modes, kl = ModeCoverage().compute(real, predicted(200, 196, 4, 0))  # 4 of 400 is below 1/40
    assert modes.value == 2
    modes, kl = ModeCoverage().compute(real, predicted(400, 0, 0, 0))
    assert modes.value == 1
    assert kl.value == pytest.approx(np.log(4), rel=1e-6)


def test_mode_coverage_needs_the_classes_of_the_data():
    with pytest.raises(EvaluationError, match="use the extractor 'classifier'"):
        ModeCoverage().compute(gaussian(20), gaussian(20))


@pytest.mark.parametrize("seed", range(8))
def test_the_distance_of_a_set_to_itself_is_never_negative(seed):
    own = gaussian(40, dim=64, seed=seed).statistics
    assert 0 <= frechet_distance(own, own) < 1e-9
