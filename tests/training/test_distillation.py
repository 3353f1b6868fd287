"""What a generator learns from another one: every term against a number worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gancompress.backbones.base import Generator as BaseGenerator
from gancompress.backbones.layers import upsampled
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.objectives.losses import Hinge, NoSettings, Relativistic
from gancompress.training.batches import Latents, RealBatch
from gancompress.training.distillation import (
    FeatureMap,
    GeneratorDistillation,
    Lesson,
    kernel_alignment,
    last_maps,
    relative_difference,
)
from gancompress.training.objective import Objective, frozen

if TYPE_CHECKING:
    from gancompress.backbones.base import Discriminator, Generator

SPEC = ImageSpec(channels=3, resolution=32, classes=())


def pair(name: str = "dcgan", seed: int = 0, **settings: Any) -> tuple[Generator, Discriminator]:
    torch.manual_seed(seed)
    backbone: Any = BACKBONES.get(name)
    made = backbone(backbone.Config(latent_dim=6, **settings), SPEC)
    return made.generator(), made.discriminator()


def rows(*values: list[float]) -> Tensor:
    """A map whose images have one place each: (B, C, 1, 1)."""
    return torch.tensor(values)[:, :, None, None]


def distillation(student: Generator, teacher: Generator, judge: Discriminator | None = None) -> GeneratorDistillation:
    own, theirs = last_maps(student), last_maps(teacher)
    judged = last_maps(judge) if judge is not None else {}
    weights = {"images": 2.0, "features": 0.5, **({"discriminator": 3.0} if judged else {})}
    return GeneratorDistillation(
        teacher.eval().requires_grad_(False), weights, {size: (own[size], theirs[size]) for size in own}, judged
    )


# --------------------------------------------------------------------------- the three measures


def test_alignment_by_hand() -> None:
    assert kernel_alignment(rows([1, 0]), rows([1, 1])).item() == pytest.approx(1)  # one row: of rank one, as any other
    # X = (1, 0)', Y = (1, 1)': |X'Y|² = 1, |X'X| = 1, |Y'Y| = 2
    assert kernel_alignment(rows([1], [0]), rows([1], [1])).item() == pytest.approx(0.5)
    # X = I, Y = (1, 0)': |X'Y|² = 1, |X'X| = √2, |Y'Y| = 1
    assert kernel_alignment(rows([1, 0], [0, 1]), rows([1], [0])).item() == pytest.approx(2**-0.5)
    assert kernel_alignment(rows([1], [0]), rows([0], [1])).item() == 0


def test_alignment_does_not_see_a_rotation_or_a_factor_and_sees_an_order() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 3, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    assert kernel_alignment(x, x).item() == pytest.approx(1, abs=1e-6)
    assert kernel_alignment(x, 1e-3 * torch.einsum("bchw,cd->bdhw", x, turn)).item() == pytest.approx(1, abs=1e-6)
    assert kernel_alignment(x, x.flip(0)).item() < 0.9
    assert kernel_alignment(x, x.flip(3)).item() < 0.9


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_alignment_of_maps_of_any_magnitude_has_a_gradient(scale: float) -> None:
    torch.manual_seed(0)
    x = (scale * torch.randn(4, 5, 3, 3)).requires_grad_()
    y = torch.randn(4, 2, 3, 3)
    value = kernel_alignment(x, y)
    (gradient,) = torch.autograd.grad(value, x)
    one = (x.detach() / scale).requires_grad_()
    (expected,) = torch.autograd.grad(kernel_alignment(one, y), one)
    torch.testing.assert_close(gradient * scale, expected, rtol=1e-3, atol=1e-6)


def test_a_map_of_zeros_has_an_alignment_of_0_and_no_gradient_that_is_no_number() -> None:
    x = torch.zeros(2, 3, 2, 2, requires_grad=True)
    value = kernel_alignment(x, torch.randn(2, 3, 2, 2))
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_relative_difference_by_hand() -> None:
    # |1 - 3| = 2 and |−1 + 1| = 0: mean 1, over the mean magnitude (1 + 2) / 2
    assert relative_difference(rows([1], [-1]), rows([3], [-1])).item() == pytest.approx(1 / 1.5)
    assert relative_difference(rows([5]), rows([0])).item() == pytest.approx(2)
    assert relative_difference(rows([0]), rows([0])).item() == 0


# --------------------------------------------------------------------------- which maps


def test_the_last_map_of_every_resolution_before_the_output_layer() -> None:
    generator, discriminator = pair(channels=4)
    assert last_maps(generator) == {
        (4, 4): FeatureMap("norms.0", 16),
        (8, 8): FeatureMap("norms.1", 8),
        (16, 16): FeatureMap("norms.2", 4),
    }
    assert last_maps(discriminator) == {
        (16, 16): FeatureMap("convs.0", 4),
        (8, 8): FeatureMap("convs.1", 8),
        (4, 4): FeatureMap("convs.2", 16),
    }


def test_a_block_counts_as_one() -> None:
    generator, discriminator = pair("sngan", channels=4, discriminator_channels=4, generator_spectral_norm=True)
    assert last_maps(generator) == {
        (4, 4): FeatureMap("input", 4),
        (8, 8): FeatureMap("blocks.0", 4),
        (16, 16): FeatureMap("blocks.1", 4),
        (32, 32): FeatureMap("norm", 4),
    }
    assert last_maps(discriminator) == {(16, 16): FeatureMap("blocks.0", 4), (8, 8): FeatureMap("blocks.3", 4)}


class InSequence(BaseGenerator):
    """Written as many are: all of it, image included, in one sequence."""

    latent_dim, num_classes, image = 6, 0, SPEC

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Unflatten(1, (6, 1, 1)),
            nn.ConvTranspose2d(6, 5, 8),
            nn.ReLU(),
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(5, 4, 3, padding=1)),
            nn.Upsample(scale_factor=2),
            nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Tanh()),
        )

    def output_layer(self) -> nn.Module:
        last: Any = self.main[5]
        return last[0]  # type: ignore[no-any-return]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.main(z)
        return out


def test_sequences_do_not_count_nor_does_what_makes_the_image() -> None:
    found = last_maps(InSequence())
    assert found == {
        (8, 8): FeatureMap("main.2", 5),
        (16, 16): FeatureMap("main.3.1", 4),
        (32, 32): FeatureMap("main.4", 4),
    }


class Folding(InSequence):
    """Its one convolution after a change of resolution is no block's, and training may do both in one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.last = (
            nn.Conv2d(6, 5, 3, padding=1),
            nn.Conv2d(5, 4, 3, padding=1),
            nn.Conv2d(4, 3, 1),
        )

    def output_layer(self) -> nn.Module:
        return self.last

    def resampling(self) -> Any:
        return (("conv", "up"),)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(z[:, :, None, None].expand(-1, -1, 16, 16))
        return torch.tanh(self.last(upsampled(self.conv, h)))


def test_what_training_may_not_call_is_left_out() -> None:
    assert last_maps(Folding()) == {(16, 16): FeatureMap("first", 5)}


def test_looking_for_maps_changes_nothing() -> None:
    generator, discriminator = pair("sngan", channels=4, discriminator_channels=4)
    for network in (generator, discriminator):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        last_maps(network.train())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert network.training
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# --------------------------------------------------------------------------- the generator's loss


class Plain(nn.Module):
    """One weight and no norm: as a teacher of itself it makes the very same."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 1)
        self.outer = nn.Conv2d(2, 1, 1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h: Tensor = self.inner(z[:, :2, None, None].expand(-1, -1, 2, 2) * torch.arange(1.0, 5.0).view(1, 1, 2, 2))
        return torch.tanh(self.outer(h))


class Judge(nn.Module):
    """A normed discriminator whose norm moves whenever it is called in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3, padding=1))
        self.output = nn.Linear(16, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.output(self.conv(x).flatten(1)).squeeze(1)
        return out


def learning(teacher: nn.Module, **weights: float) -> Any:
    inner = {(2, 2): (FeatureMap("inner", 2), FeatureMap("inner", 2))}
    return GeneratorDistillation(
        teacher,  # type: ignore[arg-type]
        weights,
        inner if "features" in weights else {},
        {(2, 2): FeatureMap("conv", 4)} if "discriminator" in weights else {},
    )


@pytest.mark.parametrize("loss", [Hinge, Relativistic])
@pytest.mark.parametrize("policies", [(), ("color", "translation")])
def test_a_generator_has_nothing_to_learn_from_itself(loss: Any, policies: Any) -> None:
    """All terms are 0, and the gradient is that of the adversarial loss; whatever the discriminator's norms do."""
    torch.manual_seed(0)
    student, judge = Plain(), Judge()
    for vector in judge.buffers():  # far from where power iterations lead
        vector.copy_(nn.functional.normalize(torch.randn_like(vector), dim=0))
    real = RealBatch(torch.randn(5, 1, 2, 2), None)
    latents = Latents(torch.randn(5, 2), None)
    state = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    found = []
    for taught in (learning(student, images=2.0, features=3.0, discriminator=4.0), None):
        judge.load_state_dict(state)
        objective = Objective(loss=loss(NoSettings()), seed=0, diffaugment=policies, taught=taught)
        with frozen(judge):
            value, *terms = objective.generator_terms(student, judge, latents, 1, real=real)
            gradients = torch.autograd.grad(value, [*student.parameters()])
        assert [term.item() for term in terms] == pytest.approx([0, 0, 0][: len(terms)], abs=1e-6)
        found.append((value.detach(), *gradients, *judge.state_dict().values()))
    assert len(terms) == 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_every_term_has_its_weight_and_is_what_its_definition_says() -> None:
    torch.manual_seed(0)
    student, teacher, judge = Plain(), Plain(), Judge().eval()
    latents = Latents(torch.randn(5, 2), None)
    weights = {"images": 2.0, "features": 3.0, "discriminator": 4.0}
    plain, lessons = Objective(loss=Hinge(NoSettings()), seed=0), learning(teacher, **weights)
    value, *terms = Objective(loss=Hinge(NoSettings()), seed=0, taught=lessons).generator_terms(
        student, judge, latents, 1
    )
    images, wanted = student(latents.z), teacher(latents.z)
    inside = [
        network.inner(latents.z[:, :, None, None].expand(-1, -1, 2, 2) * torch.arange(1.0, 5.0).view(1, 1, 2, 2))
        for network in (student, teacher)
    ]
    expected = [
        (images - wanted).abs().mean(),
        1 - kernel_alignment(*inside),
        relative_difference(judge.conv(images), judge.conv(wanted)),
    ]
    assert [term.item() for term in terms] == pytest.approx([one.item() for one in expected], rel=1e-5)
    assert min(term.item() for term in terms) > 0.01
    adversarial = plain.generator(student, judge, latents, 1)
    total = adversarial + sum(weight * term for weight, term in zip(weights.values(), expected, strict=True))
    assert value.item() == pytest.approx(total.item(), rel=1e-5)
    gradients = torch.autograd.grad(value, [*student.parameters()]), torch.autograd.grad(total, [*student.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert not any(parameter.grad is not None for parameter in teacher.parameters())


def test_the_discriminator_takes_the_teachers_images_with_their_classes_and_augmented_alike() -> None:
    class Noting(Judge):
        seen: list[Any]

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
            self.seen.append((x.detach(), labels))
            return super().forward(x)

    torch.manual_seed(0)
    student, judge = Plain(), Noting()
    judge.seen = []
    labels = torch.tensor([0, 1, 0])
    objective = Objective(
        loss=Hinge(NoSettings()), seed=0, diffaugment=("color",), taught=learning(student, discriminator=1.0)
    )
    objective.generator_terms(student, judge, Latents(torch.randn(3, 2), labels), 5)
    (one, its), (other, of) = judge.seen
    assert torch.equal(one, other)
    assert its is of is labels


# --------------------------------------------------------------------------- what it costs


def test_the_macs_are_those_that_torch_counts() -> None:
    """Of the teacher's forward pass, and of the alignment forward and backward; published as executed in a DCGAN."""
    student, teacher = pair(channels=3)[0], pair(channels=5, seed=1)[0]
    found = distillation(student, teacher)
    batch = 4
    z = torch.randn(batch, 6)
    maps = {
        size: (torch.randn(batch, s.channels, *size, requires_grad=True), torch.randn(batch, t.channels, *size))
        for size, (s, t) in found.maps.items()
    }
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            images = teacher(z)
        own, theirs = ({size: both[index] for size, both in maps.items()} for index in (0, 1))
        sum(found.compare(Lesson(images, own, {}), Lesson(images, theirs, {}))).backward()
    biases = 3 * 32 * 32  # torch's counter leaves them out
    assert found.macs()["executed"] == counter.get_total_flops() / 2 / batch + biases
    assert found.macs()["published"] == found.macs()["executed"]
