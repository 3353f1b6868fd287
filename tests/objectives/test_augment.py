from __future__ import annotations

import itertools

import pytest
import torch

from gancompress.objectives.augment import adjust_color, cut_out, diffaugment, translate
from gancompress.seeds import generator

POLICIES = ("color", "translation", "cutout")
SUBSETS = [subset for size in range(4) for subset in itertools.combinations(POLICIES, size)]


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def floats(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_translation_by_hand():
    image = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    assert translate(image, ints(0), ints(0)).equal(image)
    assert translate(image, ints(1), ints(0))[0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert translate(image, ints(0), ints(-1))[0, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    assert translate(image, ints(-2), ints(1))[0, 0].tolist() == [[0, 7, 8], [0, 0, 0], [0, 0, 0]]
    assert translate(image, ints(3), ints(0)).count_nonzero() == 0


def test_translation_moves_each_image_by_itself_and_keeps_channels():
    images = torch.randn(2, 3, 4, 6)
    moved = translate(images, ints(1, 0), ints(0, 2))
    assert moved[0, :, 1:].equal(images[0, :, :-1])
    assert moved[1, :, :, 2:].equal(images[1, :, :, :-2])
    assert moved.is_contiguous()


def test_cutout_by_hand():
    image = torch.ones(1, 2, 4, 4)
    out = cut_out(image, ints(1), ints(2), 2, 2)
    assert out[0, 0].tolist() == out[0, 1].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    corner = cut_out(image, ints(-1), ints(-1), 2, 2)
    assert corner[0, 0].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert cut_out(image, ints(0), ints(0), 0, 0).equal(image)


def test_color_by_hand():
    image = torch.tensor([[0.0, 0.2], [0.4, 0.6]]).reshape(1, 2, 1, 2)  # pixels (0, .4) and (.2, .6), mean .3
    one, zero = floats(1), floats(0)
    torch.testing.assert_close(adjust_color(image, zero, one, one), image)
    torch.testing.assert_close(adjust_color(image, floats(0.25), one, one), image + 0.25)
    grey = torch.tensor([[0.2, 0.4], [0.2, 0.4]]).reshape(1, 2, 1, 2)
    torch.testing.assert_close(adjust_color(image, zero, zero, one), grey)
    torch.testing.assert_close(adjust_color(image, zero, one, zero), torch.full_like(image, 0.3))
    torch.testing.assert_close(adjust_color(image, zero, floats(2), one), 2 * image - grey)
    torch.testing.assert_close(adjust_color(image, zero, one, floats(1.5)), 1.5 * image - 0.15)


def test_grey_images_have_no_saturation():
    image = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(adjust_color(image, floats(0, 0), floats(0, 2), floats(1, 1)), image)


@pytest.mark.parametrize("policies", SUBSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shape_and_type_are_kept_and_gradients_flow(policies, dtype):
    images = torch.randn(3, 3, 16, 12, dtype=dtype, requires_grad=True)
    out = diffaugment(images, policies, generator(0, "augment", 1))
    assert out.shape == images.shape
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert images.grad.isfinite().all()
    assert all(gradient.abs().sum() > 0 for gradient in images.grad)


def test_no_policy_changes_nothing():
    images = torch.randn(2, 3, 8, 8)
    assert diffaugment(images, (), generator(0, "augment", 1)) is images


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_come_from_the_generator_alone_and_differ_between_images(policy):
    images = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16).repeat(32, 1, 1, 1)
    before = torch.get_rng_state()
    out = diffaugment(images, (policy,), generator(0, "augment", 1))
    assert torch.get_rng_state().equal(before)
    assert diffaugment(images, (policy,), generator(0, "augment", 1)).equal(out)
    assert not diffaugment(images, (policy,), generator(0, "augment", 2)).equal(out)
    assert len({image.numpy().tobytes() for image in out}) > 16


def test_one_generator_draws_anew_for_the_second_batch():
    images = torch.randn(16, 3, 16, 16)
    rng = generator(0, "augment", 1)
    assert not diffaugment(images, POLICIES, rng).equal(diffaugment(images, POLICIES, rng))


def test_translation_reaches_an_eighth_each_way_and_no_further():
    images = torch.zeros(2000, 1, 32, 32)
    images[:, 0, 16, 16] = 1
    out = diffaugment(images, ("translation",), generator(0, "augment", 1))
    _, _, rows, columns = out.nonzero(as_tuple=True)
    assert (rows - 16).unique().tolist() == list(range(-4, 5))
    assert (columns - 16).unique().tolist() == list(range(-4, 5))
    assert len(rows) == 2000


def test_cutout_holes_are_half_the_size_and_may_leave_the_image():
    out = diffaugment(torch.ones(500, 1, 32, 32), ("cutout",), generator(0, "augment", 1))
    areas = (out == 0).sum((1, 2, 3))
    assert areas.max() == 16 * 16
    assert areas.min() < 16 * 16 / 2
    assert areas.min() >= 8 * 8


def test_color_stays_in_the_published_ranges():
    flat = torch.zeros(1000, 3, 2, 2)
    brightness = diffaugment(flat, ("color",), generator(0, "augment", 1))[:, 0, 0, 0]
    assert brightness.min() >= -0.5
    assert brightness.max() <= 0.5
    assert brightness.max() - brightness.min() > 0.95


def test_gradient_is_that_of_the_translation():
    images = torch.zeros(1, 1, 3, 3, requires_grad=True)
    translate(images, ints(1), ints(1)).sum().backward()
    assert images.grad[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]  # what left the image has no gradient


def test_unknown_policy():
    with pytest.raises(ValueError, match="unknown DiffAugment policy 'colour'; known: color, translation, cutout"):
        diffaugment(torch.zeros(1, 3, 8, 8), ("colour",), generator(0, "augment", 1))
