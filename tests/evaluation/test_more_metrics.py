from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gancompress.errors import EvaluationError
from gancompress.evaluation.extrapolation import (
    ExtrapolatedFrechetDistance,
    UnbiasedKernelDistance,
    _at_infinity,
    sizes,
)
from gancompress.evaluation.features import Features
from gancompress.evaluation.kernel_means import MeanDiscrepancy
from gancompress.evaluation.metrics import FrechetDistance, InceptionScore, KernelDistance
from gancompress.evaluation.neighbourhoods import DensityCoverage
from gancompress.seeds import generator


def features(values, label="classifier-00000000", official=False):
    values = torch.as_tensor(values, dtype=torch.float32)
    return Features(values, torch.zeros(len(values), 2), label, official)


def drawn(count, dim=8, shift=0.0, seed=0):
    return features(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift)


def test_density_and_coverage_by_hand():
    # twelve real images on a line, one apart: five neighbours reach 5 from the ends, 4 from their neighbours and so on,
    # and 3 in the middle
    real = features([[float(i)] for i in range(12)])
    radii = [5, 4, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5]
    at = [0.5] * 11 + [100.0]
    inside = [sum(abs(i - x) < radius for x in at) for i, radius in enumerate(radii)]
    density, coverage = DensityCoverage().compute(real, features([[x] for x in at]))
    assert (density.key, coverage.key, density.better) == ("density", "coverage", "higher")
    assert density.value == sum(inside) / (5 * 12)
    assert coverage.value == sum(count > 0 for count in inside) / 12 == 4 / 12
    assert density.settings == "5 neighbours, 12 images each"


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_density_and_coverage_as_their_authors_compute_them(shift):
    from prdc import compute_prdc

    real, fake = drawn(300), drawn(300, shift=shift, seed=1)
    theirs = compute_prdc(real.values.numpy(), fake.values.numpy(), nearest_k=5)
    density, coverage = DensityCoverage().compute(real, fake)
    assert density.value == pytest.approx(theirs["density"], abs=1e-12)
    assert coverage.value == pytest.approx(theirs["coverage"], abs=1e-12)


def test_density_and_coverage_of_a_set_to_itself(monkeypatch):
    real = drawn(64)
    density, coverage = DensityCoverage().compute(real, real)
    # every image is reached by itself, and holds its five nearest but for the one at its very radius
    assert (density.value, coverage.value) == (1.0, 1.0)
    monkeypatch.setattr("gancompress.evaluation.neighbourhoods._ROWS", 7)
    assert [result.value for result in DensityCoverage().compute(real, real)] == [1.0, 1.0]
    with pytest.raises(EvaluationError, match="density and coverage needs at least 6"):
        DensityCoverage().compute(real, drawn(5))


def test_mean_discrepancy_by_hand():
    # unit vectors at right angles: kernels 1 and exp(-2 / 200)
    real, fake = features([[2.0, 0.0], [0.0, 3.0]]), features([[5.0, 0.0], [7.0, 0.0]])
    across = math.exp(-0.01)
    by_hand = (2 + 2 * across) / 4 + 1 - 2 * (2 + 2 * across) / 4
    (found,) = MeanDiscrepancy().compute(real, fake)
    assert found.value == pytest.approx(1000 * by_hand, rel=1e-9)
    assert found.name == "CMMD[classifier-00000000]"


def test_mean_discrepancy_as_published():
    real, fake = drawn(120), drawn(90, shift=0.3, seed=1)
    x, y = (f.values.double().numpy() for f in (real, fake))
    x, y = (values / np.linalg.norm(values, axis=1)[:, None] for values in (x, y))

    def mean(a, b):
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        return np.exp(-squared / (2 * 10**2)).mean()

    (found,) = MeanDiscrepancy().compute(real, fake)
    assert found.value == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-6)
    assert found.value > 0


def test_mean_discrepancy_of_a_set_to_itself_is_zero():
    real = drawn(100)
    assert MeanDiscrepancy().compute(real, features(real.values.clone()))[0].value == 0.0


def test_a_line_over_one_over_n_is_followed_to_zero():
    counts = [100, 200, 400, 800]
    value, error = _at_infinity(counts, [3 + 50 / n for n in counts])
    assert value == pytest.approx(3, rel=1e-9)
    assert error == pytest.approx(0, abs=1e-9)
    # three points at 1, 2 and 3, a line of slope 1 through (0, 0.5), its middle point off by what is left
    value, error = _at_infinity([1, 0.5, 1 / 3], [1.5, 2.5 + 0.3, 3.5])
    left = np.array([-0.1, 0.2, -0.1])
    assert value == pytest.approx(0.6)
    assert error == pytest.approx(math.sqrt((left @ left) / 1 * (1 / 3 + 4 / 2)))


def test_sizes_go_from_five_thousand_or_half_to_all():
    assert sizes(50_000, 15, 5000)[::7] == [5000, 27_500, 50_000]
    assert sizes(600, 3, 5000) == [300, 450, 600]


def test_the_extrapolated_distance_loses_the_bias_of_few_images():
    # the same distribution: the distance is 0 but for how few there are
    real = drawn(4000, dim=32)
    few, many = drawn(400, dim=32, seed=1), drawn(4000, dim=32, seed=2)
    plain = [FrechetDistance().compute(real, fake)[0].value for fake in (few, many)]
    (found,) = ExtrapolatedFrechetDistance().compute(real, few)
    assert plain[0] > 5 * plain[1]
    assert abs(found.value - plain[1]) < 0.3 * plain[0]
    assert found.settings == "15 sizes from 200 to 400"
    assert found.std > 0
    assert ExtrapolatedFrechetDistance().compute(real, few) == [found]
    assert features([[0.0]], official=True).name("FID∞", "FD∞") == "FID∞"


def as_chong_and_forsyth(real, fake, orders, points=15, smallest=5000):
    """Their procedure, section 4 and score_infinity.py: FID at evenly many images, a line over 1/N, its value at 0."""
    from scipy.linalg import sqrtm

    counts = np.linspace(smallest, len(fake), points).astype("int32")
    mean, covariance = real.mean(0), np.cov(real, rowvar=False)
    found = []
    for count, order in zip(counts, orders, strict=True):
        some = fake[order[:count]]
        difference, other = some.mean(0) - mean, np.cov(some, rowvar=False)
        root = sqrtm(other @ covariance).real
        found.append(difference @ difference + np.trace(other + covariance - 2 * root))
    line = np.linalg.lstsq(np.stack([np.ones(points), 1 / counts], axis=1), np.array(found), rcond=None)[0]
    return line[0]


def test_the_extrapolated_distance_is_that_of_its_authors():
    real, fake = drawn(6000, dim=12), drawn(12_000, dim=12, shift=0.2, seed=1)
    x, y = (features.values.double().numpy() for features in (real, fake))
    (found,) = ExtrapolatedFrechetDistance().compute(real, fake)
    ours = [
        torch.randperm(len(y), generator=generator(0, "evaluation", "fd-infinity", index)).numpy()
        for index in range(15)
    ]
    # of the same draws the same number; of draws of their own, a number within what the line leaves open
    assert found.value == pytest.approx(as_chong_and_forsyth(x, y, ours), rel=1e-6)
    theirs = [np.random.default_rng(index).permutation(len(y)) for index in range(15)]
    assert abs(found.value - as_chong_and_forsyth(x, y, theirs)) < 4 * found.std
    # and with 12 x 0.2^2 between the means, what infinitely many generated images would have of these real ones
    assert found.value == pytest.approx(12 * 0.2**2, abs=0.05)


def test_few_images_bias_the_frechet_distance_and_not_the_kernel_distance():
    # both of many independent sets, of 40 images and of 160: the mean of the one moves with their number
    def means(count, sets=50):
        pairs = [(drawn(count, seed=2 * i), drawn(count, shift=0.3, seed=2 * i + 1)) for i in range(sets)]
        found = [
            [kind().compute(real, fake)[0].value for real, fake in pairs] for kind in (FrechetDistance, KernelDistance)
        ]
        return [(np.mean(values), np.std(values) / math.sqrt(sets)) for values in found]

    (few_fd, few_kd), (many_fd, many_kd) = means(40), means(160)
    assert few_fd[0] - many_fd[0] > 6 * math.hypot(few_fd[1], many_fd[1])
    assert abs(few_kd[0] - many_kd[0]) < 3 * math.hypot(few_kd[1], many_kd[1])
    assert few_kd[0] > 5 * few_kd[1]  # the error is small enough to see a bias in


def test_a_line_over_one_over_n_only_adds_noise_to_the_kernel_distance():
    plain, followed, counts = [], [], [60, 120, 240]
    for seed in range(40):
        real, fake = drawn(240, seed=2 * seed), drawn(240, shift=0.3, seed=2 * seed + 1)
        some = [features(fake.values[:count]) for count in counts]
        found = [UnbiasedKernelDistance().compute(features(real.values[: len(one)]), one)[0].value for one in some]
        plain.append(found[-1])
        followed.append(_at_infinity(counts, found)[0])
    assert np.std(followed) > 1.5 * np.std(plain)
    assert abs(np.mean(followed) - np.mean(plain)) < 3 * np.std(followed) / math.sqrt(40)


def test_the_kernel_distance_at_infinity_by_hand():
    # twelve subsets of 2, and every one the same: real ones are 1 and fake ones 2, so kernels are 8, 27 and 125
    real, fake = features(torch.ones(24, 1)), features(torch.full((30, 1), 2.0), official=True)
    (found,) = UnbiasedKernelDistance().compute(real, fake)
    assert found.value == pytest.approx(2**3 + 5**3 - 2 * 3**3)
    assert (found.key, found.name, found.better, found.std) == ("kd-infinity", "KID∞", "lower", 0.0)
    assert found.settings == "12 disjoint subsets of 2"
    with pytest.raises(EvaluationError, match="needs at least 20"):
        UnbiasedKernelDistance().compute(real, drawn(19))


def test_the_kernel_distance_at_infinity_has_an_honest_error_and_uses_each_image_once():
    values, errors = [], []
    for seed in range(60):
        real, fake = drawn(200, seed=2 * seed), drawn(230, shift=0.3, seed=2 * seed + 1)
        (found,) = UnbiasedKernelDistance().compute(real, fake)
        assert found.settings == "10 disjoint subsets of 20"
        values.append(found.value)
        errors.append(found.std)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)
    parts = np.concatenate(UnbiasedKernelDistance()._parts(fake, "fake", 20, 10))
    assert len({tuple(row) for row in parts}) == 200
    # images that come in the order of their classes are shuffled before they are split
    ordered = features(torch.arange(200.0)[:, None])
    assert all(abs(part.mean() - 99.5) < 50 for part in UnbiasedKernelDistance()._parts(ordered, "real", 20, 10))


def test_the_inception_score_of_features_without_classes_is_refused():
    values = torch.randn(10, 4)
    bare = Features(values, values[:, :0], "dinov2-00000000")
    with pytest.raises(EvaluationError, match="dinov2-00000000 predicts no classes: leave the metric 'is' out"):
        InceptionScore().compute(bare, bare)
