from __future__ import annotations

import math

import pytest
import torch

from gancompress.objectives.ada import SYM6, ada, blitted, colour_matrices, cut_out, resampled
from gancompress.seeds import generator


def eye(count=2, size=3):
    return torch.eye(size).repeat(count, 1, 1)


def smooth_images(size=24):
    torch.manual_seed(0)
    low = torch.rand(2, 3, 6, 6) * 2 - 1
    return torch.nn.functional.interpolate(low, size=size, mode="bicubic")


def test_the_filter_is_orthonormal_with_six_vanishing_moments():
    taps = torch.tensor(SYM6, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2))
    for shift in range(1, 6):
        assert abs(float((taps[2 * shift :] * taps[: 12 - 2 * shift]).sum())) < 1e-10
    signs = torch.tensor([(-1.0) ** k for k in range(12)], dtype=torch.float64)
    place = torch.arange(12, dtype=torch.float64)
    assert all(abs(float((signs * taps * place**power).sum())) < 1e-4 for power in range(6))


def test_probability_0_changes_nothing_and_1_everything():
    images = smooth_images()
    same = ada(images, torch.tensor(0.0), generator(0, "augment", 1))
    assert torch.equal(same, images)
    other = ada(images, torch.tensor(1.0), generator(0, "augment", 1))
    assert ((other - images).flatten(1).abs().max(1).values > 0.05).all()
    again = ada(images, torch.tensor(1.0), generator(0, "augment", 1))
    assert torch.equal(other, again)


def test_whole_pixels_by_hand():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    flip, turn, shift = eye(1), eye(1), eye(1)
    flip[:, 0, 0] = -1
    turn[:, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    shift[:, 0, 2] = 1
    assert blitted(image, flip).flatten().tolist() == [2, 1, 0, 5, 4, 3, 8, 7, 6]
    assert blitted(image, turn).flatten().tolist() == [6, 3, 0, 7, 4, 1, 8, 5, 2]
    assert blitted(image, shift).flatten().tolist() == [0, 0, 1, 3, 3, 4, 6, 6, 7]  # mirrored at the border


def test_resampling_moves_what_it_is_told_to():
    images = smooth_images()
    inner = (..., slice(5, -5), slice(5, -5))
    torch.testing.assert_close(resampled(images, eye())[inner], images[inner], rtol=0, atol=1e-5)
    shift = eye()
    shift[:, 1, 2] = 2
    torch.testing.assert_close(resampled(images, shift)[inner], images.roll(2, 2)[inner], rtol=0, atol=1e-5)
    turn = eye()
    turn[:, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(resampled(images, turn)[inner], blitted(images, turn)[inner], rtol=0, atol=0.05)
    twice = eye()
    twice[:, :2, :2] *= 2
    want = torch.nn.functional.interpolate(images[:, :, 6:18, 6:18], size=24, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resampled(images, twice)[inner], want[inner], rtol=0, atol=0.06)


def test_colours_by_hand():
    one, no = torch.tensor(1.0), torch.tensor(0.0)
    fixed = lambda make, *size: torch.full((1, *size), 0.25)  # noqa: E731
    matrices = colour_matrices(no, fixed, lambda p: fixed(None) < p)
    torch.testing.assert_close(matrices, eye(1, 4))
    always = colour_matrices(one, fixed, lambda p: fixed(None) < p)[0]
    # grey: brightness first, then contrast, then its sign turns; hue and saturation leave it alone
    contrast = math.exp(0.25 * 0.5 * math.log(2))
    grey = always @ torch.tensor([0.3, 0.3, 0.3, 1.0])
    value = -(0.3 + 0.25 * 0.2) * contrast
    torch.testing.assert_close(grey, torch.tensor([value, value, value, 1.0]))
    # a colour without grey is turned by -90 degrees around it, and its length grows with contrast and saturation
    colour = torch.tensor([1.0, -1.0, 0.0, 0.0])
    turned = always @ colour
    assert float(turned @ colour) == pytest.approx(0, abs=1e-5)
    assert float(turned[:3].norm()) == pytest.approx(math.sqrt(2) * contrast * 2**0.25, rel=1e-5)


def test_as_many_images_change_as_the_probability_says():
    images = smooth_images()[:1].repeat(4000, 1, 1, 1)[..., :8, :8]
    changed = ada(images, torch.tensor(0.3), generator(3, "augment"), ("colour",))
    share = ((changed - images).flatten(1).abs().max(1).values > 0).float().mean().item()
    # of five, one of which does nothing half of the time
    assert share == pytest.approx(1 - 0.7**4 * 0.85, abs=0.02)
    moved = ada(images, torch.tensor(0.3), generator(4, "augment"), ("geometry",))
    share = ((moved - images).flatten(1).abs().max(1).values > 0).float().mean().item()
    assert share == pytest.approx(1 - 0.7**4, abs=0.02)


def test_holes_by_hand():
    images = torch.ones(3, 2, 4, 4)
    centres = torch.tensor([[0.5, 0.5], [0.0, 0.75], [0.5, 0.5]])
    cut = cut_out(images, centres, torch.tensor([True, True, False]))
    # of four pixels, in the middle of each: two of them are nearer than a quarter of the size
    assert cut[0, 1].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    # x is at the left border, so that half of the hole lies outside; y at three quarters
    assert cut[1, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]
    assert torch.equal(cut[2], images[2])


def test_colours_change_at_their_share_of_the_probability():
    images = smooth_images()[:1].repeat(4000, 1, 1, 1)[..., :8, :8]
    changed = ada(images, torch.tensor(0.6), generator(3, "augment"), ("colour",), 0.5)
    # the draws are those of a probability of 0.3
    assert torch.equal(changed, ada(images, torch.tensor(0.3), generator(3, "augment"), ("colour",)))
    holes = ada(images + 3, torch.tensor(0.4), generator(5, "augment"), ("cutout",), 0.5)
    share = (holes == 0).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_the_images(channels):
    images = smooth_images()[:, :channels].clone().requires_grad_()
    ada(images, torch.tensor(0.8), generator(1, "augment", 2)).square().sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()
