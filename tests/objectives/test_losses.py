from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from gancompress.objectives.losses import (
    WGANGP,
    Hinge,
    LeastSquares,
    NonSaturating,
    NoSettings,
    Relativistic,
    WGANGPConfig,
)
from gancompress.objectives.regularisers import gradient_penalty
from gancompress.seeds import generator
from gancompress.training.objective import Objective

if TYPE_CHECKING:
    from gancompress.objectives.base import Loss

REAL = torch.tensor([[2.0], [0.5], [-1.0]])
FAKE = torch.tensor([[-3.0], [0.0], [0.5]])
ALL = [Hinge, NonSaturating, LeastSquares, WGANGP]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# by hand from REAL and FAKE
KNOWN = [
    (Hinge, (0 + 0.5 + 2) / 3 + (0 + 1 + 1.5) / 3, (3 - 0 - 0.5) / 3),
    (
        NonSaturating,
        (softplus(-2) + softplus(-0.5) + softplus(1)) / 3 + (softplus(-3) + softplus(0) + softplus(0.5)) / 3,
        (softplus(3) + softplus(0) + softplus(-0.5)) / 3,
    ),
    (LeastSquares, ((1 + 0.25 + 4) / 3 + (9 + 0 + 0.25) / 3) / 2, (16 + 1 + 0.25) / 3 / 2),
    (WGANGP, (-3 + 0 + 0.5) / 3 - (2 + 0.5 - 1) / 3, (3 - 0 - 0.5) / 3),
]


@pytest.mark.parametrize(("kind", "discriminator", "generator_"), KNOWN)
def test_values_by_hand(kind: type[Loss], discriminator: float, generator_: float):
    loss = kind(kind.Config())
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(FAKE).item() == pytest.approx(generator_, rel=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_batches_may_differ_in_size_and_shape(kind: type[Loss]):
    loss = kind(kind.Config())
    longer = torch.cat([REAL, REAL])
    torch.testing.assert_close(loss.discriminator(longer, FAKE), loss.discriminator(REAL[:, 0], FAKE[:, 0]))


@pytest.mark.parametrize("kind", ALL)
def test_half_precision_logits_give_float32_losses(kind: type[Loss]):
    loss = kind(kind.Config())
    value = loss.discriminator(REAL.bfloat16(), FAKE.bfloat16())
    assert value.dtype == loss.generator(FAKE.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(value, loss.discriminator(REAL, FAKE))  # these logits are exact in bf16


@pytest.mark.parametrize("kind", ALL)
def test_descending_separates_real_from_fake_and_the_generator_climbs(kind: type[Loss]):
    loss = kind(kind.Config())
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all()
    if kind is not LeastSquares:  # there a fake logit of 0 is already where it should be
        assert (fake.grad > 0).all()
    fake.grad = None
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_relativistic_by_hand():
    # differences real - fake of REAL and FAKE: 5, 0.5, -1.5
    loss = Relativistic(NoSettings())
    assert loss.compares
    told = loss.discriminator(REAL, FAKE[:, 0])  # (B, 1) and (B,) are pairs, not a table
    assert told.item() == pytest.approx((softplus(-5) + softplus(-0.5) + softplus(1.5)) / 3, rel=1e-6)
    taken = loss.generator(FAKE.bfloat16(), REAL.bfloat16())
    assert taken.dtype == torch.float32
    assert taken.item() == pytest.approx((softplus(5) + softplus(0.5) + softplus(-1.5)) / 3, rel=1e-6)
    with pytest.raises(ValueError, match="relativistic pairs images one by one: got 3 and 2 logits"):
        loss.discriminator(REAL, FAKE[:2])


def test_what_a_generator_loss_asks_for_is_what_it_takes():
    def one(self, fake_logits, scale=1.0): ...
    def two(self, fake, real): ...
    def named(self, fake, *, real): ...

    asks = [type("L", (Hinge,), {"generator": method})(NoSettings()).compares for method in (one, two, named)]
    assert asks == [False, True, False]
    assert not any(kind(kind.Config()).compares for kind in ALL)


def test_hinge_does_not_pull_beyond_the_margin():
    real, fake = torch.tensor([1.5, 0.5], requires_grad=True), torch.tensor([-1.5, -0.5], requires_grad=True)
    Hinge(NoSettings()).discriminator(real, fake).backward()
    assert real.grad.tolist() == [0.0, -0.5]
    assert fake.grad.tolist() == [0.0, 0.5]


def test_non_saturating_survives_extreme_logits():
    loss = NonSaturating(NoSettings())
    assert loss.discriminator(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)
    assert loss.generator(torch.tensor([1e4])).item() == 0


@pytest.mark.parametrize("kind", [Hinge, NonSaturating, LeastSquares])
def test_no_penalty_by_default(kind: type[Loss]):
    images = torch.zeros(2, 1, 2, 2)
    loss = kind(kind.Config())
    assert not loss.penalises
    assert loss.penalty(lambda x: x.sum((1, 2, 3)), images, images, generator(0, "penalty")) is None


def test_a_penalty_of_weight_0_is_not_computed_and_not_counted():
    images = torch.zeros(2, 1, 2, 2)
    loss = WGANGP(WGANGPConfig(weight=0))
    assert loss.penalty(lambda x: x.sum((1, 2, 3)), images, images, generator(0, "penalty")) is None
    for each, count in ((loss, 0), (WGANGP(WGANGPConfig()), 1)):
        assert each.penalises == bool(count)
        assert Objective(each, seed=0).penalties(draw=0) == count


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        NoSettings(weight=1)
    with pytest.raises(ValidationError):
        WGANGPConfig(weight=-1)


# --- gradient penalties --------------------------------------------------------------------------------------------


def linear(weight: torch.Tensor):
    return lambda images: images.flatten(1) @ weight


def test_r1_of_a_linear_discriminator_is_its_squared_norm():
    weight = torch.tensor([3.0, 4.0, 0.0, 0.0], requires_grad=True)
    penalty = gradient_penalty(linear(weight), torch.randn(5, 1, 2, 2))
    assert penalty.item() == pytest.approx(25)
    penalty.backward()
    assert weight.grad.tolist() == [6.0, 8.0, 0.0, 0.0]


def test_r1_of_a_quadratic_discriminator():
    # D(x) = a/2 |x|²: grad = a x, penalty = a² E|x|², and its derivative in a is 2 a E|x|²
    scale = torch.tensor(3.0, requires_grad=True)
    images = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]).reshape(2, 1, 2, 2)  # |x|² = 5 and 1
    penalty = gradient_penalty(lambda x: scale / 2 * x.square().sum((1, 2, 3)), images)
    assert penalty.item() == pytest.approx(9 * 3)
    penalty.backward()
    assert scale.grad.item() == pytest.approx(2 * 3 * 3)


def test_r1_sees_through_spectral_norm():
    # one output: the normalised weight has norm 1 whatever the raw one is, so the penalty is 1 and pulls at nothing
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 1, bias=False))
    penalty = gradient_penalty(lambda x: layer(x.flatten(1)), torch.randn(3, 1, 2, 2))
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    penalty.backward()
    assert layer.parametrizations.weight.original.grad.abs().max() < 1e-5


def test_r1_agrees_with_finite_differences_through_normalised_convolutions():
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(norm(nn.Conv2d(1, 3, 3, padding=1)), nn.Tanh(), nn.Flatten(), norm(nn.Linear(48, 1)))
    images = torch.randn(2, 1, 4, 4)
    net.train()(images)
    net.eval()  # no power iteration: the same function every time
    penalty = gradient_penalty(net, images)

    exact, step = net.double(), 1e-5
    total = 0.0
    for image in images.double():
        for position in range(16):
            shift = torch.zeros(16, dtype=torch.float64)
            shift[position] = step
            shift = shift.reshape(1, 4, 4)
            with torch.no_grad():
                slope = (exact((image + shift)[None]) - exact((image - shift)[None])).item() / (2 * step)
            total += slope**2
    assert penalty.item() == pytest.approx(total / 2, rel=1e-4)


def test_r1_trains_a_spectrally_normalised_discriminator():
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(norm(nn.Conv2d(1, 3, 3)), nn.LeakyReLU(0.2), nn.Flatten(), norm(nn.Linear(12, 1))).train()
    real, fake = torch.randn(4, 1, 4, 4), torch.randn(4, 1, 4, 4)
    # three passes in one graph, as a discriminator step makes them: power iteration must not spoil the saved tensors
    loss = Hinge(NoSettings()).discriminator(net(real), net(fake)) + 5 * gradient_penalty(net, real)
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_penalties_are_float32_under_autocast():
    weight = torch.full((4,), 1 + 2**-12, requires_grad=True)  # bf16 would round this to 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = gradient_penalty(linear(weight), torch.randn(2, 1, 2, 2, dtype=torch.bfloat16))
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(4 * (1 + 2**-12) ** 2, rel=1e-6)
    assert penalty.item() > 4


def test_penalties_work_where_gradients_are_off():
    with torch.no_grad():
        penalty = gradient_penalty(linear(torch.ones(4)), torch.randn(2, 1, 2, 2))
    assert penalty.item() == 4


def test_gradient_penalty_of_a_linear_discriminator():
    weight = torch.tensor([3.0, 4.0, 0.0, 0.0], requires_grad=True)  # norm 5, whatever the images
    real, fake = torch.randn(2, 6, 1, 2, 2).unbind()
    penalty = WGANGP(WGANGPConfig()).penalty(linear(weight), real, fake, generator(0, "penalty", 1))
    assert penalty.item() == pytest.approx(10 * 16)
    penalty.backward()  # d/dw 10 (|w| - 1)² = 20 (|w| - 1) w / |w|
    torch.testing.assert_close(weight.grad, 20 * 4 * torch.tensor([0.6, 0.8, 0.0, 0.0]))


def test_gradient_penalty_is_taken_between_real_and_fake():
    # D(x) = |x|²/2 has gradient norm |x|; on the line from 0 to e that is the place t itself
    seen = []

    def quadratic(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach().clone())
        return images.square().sum((1, 2, 3)) / 2

    real, fake = torch.zeros(50, 1, 2, 2), torch.zeros(50, 1, 2, 2)
    real[:, 0, 0, 0] = 1
    penalty = WGANGP(WGANGPConfig(weight=1)).penalty(quadratic, real, fake, generator(0, "penalty", 1))
    places = seen[0][:, 0, 0, 0]
    assert ((places >= 0) & (places <= 1)).all()
    assert len(places.unique()) == 50
    assert places.min() < 0.2 < 0.8 < places.max()
    assert penalty.item() == pytest.approx((places - 1).square().mean().item())


def test_gradient_penalty_draws_from_its_generator_alone():
    real, fake = torch.randn(2, 6, 1, 2, 2).unbind()

    def draw(step: int) -> float:
        return (
            WGANGP(WGANGPConfig())
            .penalty(lambda x: x.pow(3).sum((1, 2, 3)), real, fake, generator(0, "penalty", step))
            .item()
        )

    first = draw(1)
    assert draw(1) == first
    assert draw(2) != first


def test_gradient_penalty_at_a_flat_discriminator_is_finite():
    weight = torch.zeros(4, requires_grad=True)
    images = torch.randn(3, 1, 2, 2)
    penalty = WGANGP(WGANGPConfig()).penalty(linear(weight), images, images, generator(0, "penalty", 1))
    penalty.backward()
    assert penalty.item() == 10
    assert weight.grad.isfinite().all()


def test_gradient_penalty_can_be_off_and_wants_pairs():
    images = torch.zeros(2, 1, 2, 2)
    rng = generator(0, "penalty", 1)
    assert WGANGP(WGANGPConfig(weight=0)).penalty(linear(torch.ones(4)), images, images, rng) is None
    with pytest.raises(ValueError, match="pairs real and fake"):
        WGANGP(WGANGPConfig()).penalty(linear(torch.ones(4)), images, images[:1], rng)


def test_no_gradient_reaches_the_generator_through_a_penalty():
    fake = torch.randn(3, 1, 2, 2, requires_grad=True)
    weight = torch.ones(4, requires_grad=True)
    WGANGP(WGANGPConfig()).penalty(linear(weight), torch.randn(3, 1, 2, 2), fake, generator(0, "penalty", 1)).backward()
    assert fake.grad is None
