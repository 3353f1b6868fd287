"""Every term of both losses against a number worked out by hand, on networks of one weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.objectives.losses import Hinge, NonSaturating, NoSettings, Relativistic
from gancompress.recipe.load import parse_recipe
from gancompress.training.batches import Latents, RealBatch
from gancompress.training.objective import Objective, ZeroCentred, frozen

if TYPE_CHECKING:
    from gancompress.training.loop import Trainer

#: one real image of one pixel, 1, and one generated one, -1
REAL, FAKE = RealBatch(torch.full((1, 1, 1, 1), 1.0), None), torch.full((1, 1, 1, 1), -1.0)


class Times(nn.Module):
    """Multiplies by one weight; notes what it is given."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen.append((x.detach(), labels))
        return self.weight * x.flatten(1).sum(1)


class Pixels(Times):
    """A generator: its images have as many pixels as a latent has numbers."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weight * z[:, :, None, None]


def discriminator_loss(network: nn.Module, draw: int = 1, **settings: Any) -> Tensor:
    return Objective(loss=Hinge(NoSettings()), seed=0, **settings).discriminator(network, REAL, FAKE, None, draw).loss


class Square(Times):
    """Its gradient depends on where it is taken."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weight * x.flatten(1).square().sum(1)


def test_r1_is_taken_at_real_images() -> None:
    # D(x) = x²: the gradient at the real image, 1, is 2. 3/2 · 4 · 4; at the generated one, 5, it would be 10
    losses = [
        Objective(loss=Hinge(NoSettings()), seed=0, r1=ZeroCentred(weight, 4))
        .discriminator(Square(1.0), REAL, torch.full((1, 1, 1, 1), 5.0), None, 0)
        .loss.item()
        for weight in (3.0, 0.0)
    ]
    assert losses[0] - losses[1] == 24.0


def test_r2_is_taken_at_generated_images_with_their_labels() -> None:
    # D(x) = x² · (1 + label): at the generated image, 5, of class 2 the gradient is 30; 3/2 · 4 · 900
    class Labelled(Square):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
            assert labels is not None
            return super().forward(x) * (1 + labels)

    real = RealBatch(REAL.images, torch.tensor([0]))
    fake = torch.full((1, 1, 1, 1), 5.0)
    losses = [
        Objective(loss=Hinge(NoSettings()), seed=0, r2=ZeroCentred(weight, 4))
        .discriminator(Labelled(1.0), real, fake, torch.tensor([2]), 0)
        .loss.item()
        for weight in (3.0, 0.0)
    ]
    assert losses[0] - losses[1] == 5400.0


def test_penalties_follow_a_cosine_to_where_they_end() -> None:
    penalty = ZeroCentred(0.05, 2, final=0.005)
    assert [penalty.factor(at) for at in (0.0, 0.5, 1.0, 3.0)] == pytest.approx([0.05, 0.0275, 0.005, 0.005])
    assert ZeroCentred(2.0, 1).factor(0.7) == 1.0
    objective = Objective(loss=Hinge(NoSettings()), seed=0, r1=penalty, r2=ZeroCentred(1.0, 3))
    assert [objective.penalties(draw) for draw in range(7)] == [2, 0, 1, 1, 1, 0, 2]
    losses = []
    for progress in (0.0, 1.0):
        objective.progress = progress
        losses.append(objective.discriminator(Times(2.0), REAL, FAKE, None, 2).loss.item())
    assert losses == pytest.approx([0.05 * 4, 0.005 * 4])


def test_r1_weighs_half_its_gamma_and_is_scaled_up_for_the_steps_without_it() -> None:
    # D(x) = 2x: hinge is 0 on both sides, and the squared gradient is 4. gamma/2 · every · 4 = 3/2 · 4 · 4
    found = []
    for draw in range(9):
        network = Times(2.0)
        loss = discriminator_loss(network, draw, r1=ZeroCentred(3.0, 4))
        loss.backward()
        assert network.weight.grad is not None
        found.append((loss.item(), network.weight.grad.item()))
    # the derivative in the weight w of 3/2 · 4 · w² at 2
    assert found == [(24.0, 24.0) if draw in (0, 4, 8) else (0.0, 0.0) for draw in range(9)]


def test_distillation_is_the_divergence_from_the_teacher_to_the_student() -> None:
    # the teacher says 3 to 1 for real (and against fake), the student 1 to 1:
    # KL(T || S) = 3/4 ln(3/4 : 1/2) + 1/4 ln(1/4 : 1/2); the other way round it would be 0.1438
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence == pytest.approx(0.1308, abs=1e-4)
    student = Times(0.0)
    alone = discriminator_loss(student).item()
    taught = discriminator_loss(student, teacher=Times(math.log(3)), distillation=2.0)
    assert taught.item() - alone == pytest.approx(2 * divergence, abs=1e-6)
    assert discriminator_loss(Times(math.log(3)), teacher=Times(math.log(3)), distillation=2.0).item() == pytest.approx(
        discriminator_loss(Times(math.log(3))).item()
    )
    # towards the teacher: d KL/d logit is q - p = 1/2 - 3/4 for the real image, times x = 1, and alike for the fake one
    (student.weight.grad,) = torch.autograd.grad(taught - discriminator_loss(student), student.weight)
    assert student.weight.grad.item() == pytest.approx(2 * -0.25, abs=1e-6)


def test_orthogonal_regularisation_adds_beta_times_the_squared_products_of_rows() -> None:
    generator = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        generator.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # 1·3 + 2·4 = 11, seen twice
    losses = []
    for beta in (0.0, 0.5):
        objective = Objective(loss=Hinge(NoSettings()), seed=0, orthogonal_weight=beta)
        as_images = nn.Sequential(generator, nn.Unflatten(1, (2, 1, 1)))
        as_images.forward = lambda z, labels, net=as_images: nn.Sequential.forward(net, z)  # type: ignore[method-assign, misc, assignment]
        losses.append(objective.generator(as_images, Times(1.0), Latents(torch.ones(1, 2), None), 1).item())
    assert losses[1] - losses[0] == 0.5 * 2 * 11**2


def test_a_loss_that_compares_sees_real_images_without_a_gradient_of_the_discriminator() -> None:
    # G(z) = 2z, D(x) = 3x: fake logits 6 and -6, real ones 3 and 9; differences real - fake: -3 and 15
    generator, discriminator = Pixels(2.0), Times(3.0)
    latents = Latents(torch.tensor([[1.0], [-1.0]]), torch.tensor([4, 5]))
    real = RealBatch(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([6, 7]))
    with frozen(discriminator):
        loss = Objective(loss=Relativistic(NoSettings()), seed=0).generator(
            generator, discriminator, latents, 1, real=real
        )
        loss.backward()
    assert loss.item() == pytest.approx((math.log1p(math.exp(-3)) + math.log1p(math.exp(15))) / 2)
    # d/dg: -s(difference) · 3z, s the logistic function; through the generated images alone
    slope = (-3 / (1 + math.exp(3)) + 3 / (1 + math.exp(-15))) / 2
    assert generator.weight.grad is not None
    assert generator.weight.grad.item() == pytest.approx(slope, rel=1e-5)
    assert discriminator.weight.grad is None
    assert [labels.tolist() for _, labels in discriminator.seen if labels is not None] == [[6, 7], [4, 5]]


def test_real_images_of_the_generator_step_are_augmented_with_draws_of_their_own() -> None:
    discriminator = Times(1.0)
    objective = Objective(loss=Relativistic(NoSettings()), seed=0, diffaugment=("color",))
    image = torch.rand(1, 3, generator=torch.Generator().manual_seed(0))
    real = RealBatch(image[:, :, None, None], None)
    objective.generator(Pixels(1.0), discriminator, Latents(image, None), 1, real=real)
    (shown, _), (made, _) = discriminator.seen
    assert not torch.equal(shown, real.images)
    assert not torch.equal(shown, made)


def test_real_and_generated_images_of_the_discriminator_step_are_augmented_with_draws_of_their_own() -> None:
    network = Times(1.0)
    objective = Objective(loss=Hinge(NoSettings()), seed=0, diffaugment=("color",), joint_batch=False)
    image = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    objective.discriminator(network, RealBatch(image, None), image, None, 1)
    (real, _), (fake, _) = network.seen
    assert not torch.equal(real, image)
    assert not torch.equal(real, fake)


@pytest.mark.parametrize("joint", [True, False])
def test_every_image_is_judged_as_its_own_class(joint: bool) -> None:
    network = Times(1.0)
    objective = Objective(loss=Hinge(NoSettings()), seed=0, joint_batch=joint)
    objective.discriminator(network, RealBatch(REAL.images, torch.tensor([3])), FAKE, torch.tensor([7]), 1)
    seen = [(x.flatten().tolist(), labels.tolist()) for x, labels in network.seen if labels is not None]
    assert seen == ([([1.0, -1.0], [3, 7])] if joint else [([1.0], [3]), ([-1.0], [7])])


def test_a_one_sided_loss_takes_no_look_at_real_images() -> None:
    discriminator = Times(1.0)
    objective = Objective(loss=NonSaturating(NoSettings()), seed=0)
    objective.generator(Pixels(1.0), discriminator, Latents(torch.ones(1, 1), None), 1, real=REAL)
    assert len(discriminator.seen) == 1


# ------------------------------------------------------------------ in a run


def trainer_of(*overrides: str) -> Trainer:
    tiny: dict[str, Any] = {
        "name": "tiny",
        "data": {"name": "shapes", "images": 16, "resolution": 16},
        "model": {"name": "dcgan", "channels": 4, "latent_dim": 4},
        "sparsity": {"method": "static", "density": 0.5},
        "training": {"steps": 2, "batch_size": 4, "discriminator_steps": 2, "threads": 1, "kernels": "dense"},
        "objective": {"loss": "relativistic"},
    }
    recipe = parse_recipe(tiny, overrides).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    (current,) = declared_rounds(recipe, trainer)
    for _ in range(2):
        trainer.step(current)
    return trainer


@pytest.mark.parametrize(("batch", "extra"), [("null", 4), ("8", 8)])
def test_a_run_compares_as_many_real_images_as_it_makes_and_counts_them(batch: str, extra: int) -> None:
    trainer = trainer_of(f"training.generator_batch_size={batch}")
    counted = trainer.counter.extra["real_logits"]
    kept = trainer.engine.state("discriminator").budgets
    assert counted["discriminator"].amount == 2 * extra  # one forward pass a step
    assert counted["discriminator"].weights == {name: 2 * extra * budget for name, budget in kept.items()}
    assert counted["generator"].amount == 0
    probed = trainer_of("sparsity.method=snip", f"training.generator_batch_size={batch}").counter.extra["real_logits"]
    assert probed["discriminator"].amount == 3 * extra  # and one for the batch that scores the weights
    assert "real_logits" not in trainer_of("objective.loss=non-saturating").counter.extra


def test_micro_batches_pair_what_the_whole_batch_pairs() -> None:
    whole, halves = trainer_of(), trainer_of("training.accumulate=2")
    # spectral norm takes more power iterations in micro-batches, batch norm other statistics: close, no more
    assert halves.meters.read()["loss_generator"] == pytest.approx(whole.meters.read()["loss_generator"], rel=0.05)
