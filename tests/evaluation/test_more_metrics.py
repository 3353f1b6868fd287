from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gancompress.errors import EvaluationError
from gancompress.evaluation.extrapolation import ExtrapolatedFrechetDistance, _at_infinity, sizes
from gancompress.evaluation.features import Features
from gancompress.evaluation.kernel_means import MeanDiscrepancy
from gancompress.evaluation.metrics import FrechetDistance, InceptionScore
from gancompress.evaluation.neighbourhoods import DensityCoverage


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


def test_the_inception_score_of_features_without_classes_is_refused():
    values = torch.randn(10, 4)
    bare = Features(values, values[:, :0], "dinov2-00000000")
    with pytest.raises(EvaluationError, match="dinov2-00000000 predicts no classes: leave the metric 'is' out"):
        InceptionScore().compute(bare, bare)
