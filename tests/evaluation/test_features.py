from __future__ import annotations

import pytest
import torch
from evaluation_toys import Blobs, Generator, Pixels

from gancompress.errors import EvaluationError
from gancompress.evaluation import features as module
from gancompress.evaluation.features import Features, extract, generated_features, reference_features
from gancompress.evaluation.sampler import open_sampler


def test_reference_features_are_computed_once(blobs):
    first, second = Pixels(), Pixels()
    found = reference_features(first, blobs, batch_size=50)
    assert first.calls == 5  # 240 images in fifties
    assert len(found) == 240
    assert reference_features(second, Blobs()) is found  # remembered by this process
    module._RECENT.clear()
    again = reference_features(second, Blobs())  # remembered on disk
    assert second.calls == 0
    assert torch.equal(again.values, found.values)
    assert torch.equal(again.logits, found.logits)
    torch.testing.assert_close(found.values, first.features(blobs.images)[0])


def test_other_weights_other_data_or_another_count_are_never_mixed_up(blobs):
    cases = [
        (Pixels(), blobs, None),
        (Pixels(seed=1), blobs, None),
        (Pixels(), Blobs(seed=1), None),
        (Pixels(), blobs, 100),
    ]
    for _ in range(2):
        found = [reference_features(e, d, count=c).values for e, d, c in cases]
        for (extractor, data, count), values in zip(cases, found, strict=True):
            assert len(values) == (count or 240)
            if count is None:
                torch.testing.assert_close(values, extractor.features(data.images)[0])


def test_a_part_of_the_reference_is_drawn_from_all_of_it(blobs):
    part = reference_features(Pixels(), blobs, count=60).values
    whole = Pixels().features(blobs.images)[0]
    position = torch.cdist(part, whole).argmin(1)
    assert position.unique().numel() == 60
    assert position.max() > 200


@pytest.mark.parametrize("count", [0, 1, 241])
def test_a_count_that_the_dataset_cannot_give_is_refused(blobs, count):
    with pytest.raises(EvaluationError, match="the dataset has 240"):
        reference_features(Pixels(), blobs, count=count)


def test_statistics_are_float64_even_where_float32_cancels():
    # a mean of 1e4 with a spread of 1e-2 is lost in float32 sums
    rng = torch.Generator().manual_seed(0)
    values = 1e4 + torch.randn(5000, 2, generator=rng)
    found = Features(values, values, "x").statistics
    assert found.mean.dtype == found.covariance.dtype == "float64"
    expected = values.double()
    assert found.mean == pytest.approx(expected.mean(0).numpy(), rel=1e-13)
    assert found.covariance == pytest.approx(torch.cov(expected.T).numpy(), rel=1e-9)


def test_the_root_of_a_covariance_squares_to_it():
    values = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    statistics = Features(values, values, "x").statistics
    assert statistics.root @ statistics.root == pytest.approx(statistics.covariance, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 200])
def test_generated_features_do_not_depend_on_the_batch_size(blobs, batch_size):
    with open_sampler(Generator(), seed=0, batch_size=batch_size) as sampler:
        found = [
            generated_features(Pixels(), sampler, count=101, batch_size=size, spec=blobs.spec)
            for size in (batch_size, 101)
        ]
    assert len(found[0]) == 101
    # one pixel may round to the other side
    torch.testing.assert_close(found[0].values, found[1].values, rtol=0, atol=5e-3)


def test_images_of_another_shape_than_the_data_are_refused(blobs):
    opened = open_sampler(Generator(3), seed=0, batch_size=10)
    with opened as sampler, pytest.raises(EvaluationError, match=r"\(3, 8, 8\), the data has \(1, 8, 8\)"):
        generated_features(Pixels(), sampler, count=10, batch_size=10, spec=blobs.spec)


def test_features_that_are_not_finite_name_the_images(blobs):
    extractor = Pixels()
    batches = iter([blobs.images[:10], blobs.images[10:20]])
    calls = []

    def bad(images):
        calls.append(len(images))
        value = torch.full((len(images), 2), float("nan") if len(calls) == 2 else 0.0)
        return value, value

    extractor.features = bad
    with pytest.raises(EvaluationError, match="pixels-0 gave NaN or infinite features for real images 10 to 19"):
        extract(extractor, batches, "real images")
