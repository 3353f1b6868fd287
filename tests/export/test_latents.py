"""Latents of a loaded generator: drawn, truncated, and on the way between two."""

from __future__ import annotations

import pytest
import torch
from export_toys import CLASSES, make, mask

import gancompress
from gancompress.data.base import ImageSpec
from gancompress.errors import ExportError
from gancompress.evaluation.sampler import Sampler
from gancompress.export.latents import draw_latents, interpolated, within
from gancompress.export.loading import LoadedGenerator
from gancompress.export.packed import export_packed

MODEL = {"name": "dcgan", "channels": 8, "latent_dim": 7, "conditional": True}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> LoadedGenerator:
    network = make(**{**MODEL, "image": ImageSpec(3, 16, CLASSES)})
    file = tmp_path_factory.mktemp("packed") / "generator.safetensors"
    export_packed(network, file, model=MODEL, masks=mask(network))
    loaded = gancompress.load(file)
    assert isinstance(loaded, LoadedGenerator)
    return loaded


def test_they_are_those_that_samples_are_made_of(generator: LoadedGenerator) -> None:
    sampler = Sampler(generator.network, seed=3)  # 7,000 numbers a block: sixteen do not divide them
    for start, stop in ((0, 5), (990, 1010), (2000, 2001)):
        made = draw_latents(7, 3, start, stop)
        assert torch.allclose(made, sampler.latents(start, stop), rtol=0, atol=5e-6)
    assert torch.equal(draw_latents(7, 3, 0, 5), draw_latents(7, 3, 0, 1500)[:5])
    assert not torch.equal(draw_latents(7, 4, 0, 5), draw_latents(7, 3, 0, 5))


def test_a_seed_and_its_latents_give_the_same_images(generator: LoadedGenerator) -> None:
    wanted = generator(5, seed=2, classes=[0, 1, 2, 0, 1])
    assert torch.equal(generator(z=generator.latents(5, 2), classes=[0, 1, 2, 0, 1]), wanted)
    assert generator(z=generator.latents(3, 2), classes="ant").shape == (3, 3, 16, 16)


def test_latents_of_another_size_are_refused(generator: LoadedGenerator) -> None:
    for z, n in ((torch.zeros(2, 8), None), (torch.zeros(7), None), (torch.zeros(0, 7), None), (torch.zeros(2, 7), 3)):
        with pytest.raises(ExportError, match=r"latents are \(n, 7\)"):
            generator(n, z=z)
    with pytest.raises(ExportError, match=r"a latent is \(7,\)"):
        generator.interpolate(torch.zeros(2, 7), 1)
    for n in (0, True, 1.5):
        with pytest.raises(ExportError, match="at least 1"):
            generator.latents(n)


def test_a_threshold_by_hand() -> None:
    # of the numbers between -1 and 1, a normal number below 0 becomes one below 0, and the median stays
    z = torch.tensor([0.0, 10.0, -10.0, 1.0, -1.0])
    cut = within(z, 1.0)
    assert cut[0] == 0
    assert cut[1:3].tolist() == [1, -1]
    # 0.8413 of all lie below 1; of those between -1 and 1, 0.8413 below share 0.1587 + 0.6827 * 0.8413 = 0.7330
    assert float(cut[3]) == pytest.approx(0.622, abs=1e-3)
    assert cut[3] == -cut[4]
    assert torch.equal(within(z, 8.0), z)
    for most in (0.0, -1.0, float("nan")):
        with pytest.raises(ExportError, match="above 0"):
            within(z, most)


def test_truncated_numbers_have_the_law_of_normal_ones_in_there() -> None:
    cut = within(draw_latents(100, 0, 0, 1000), 0.7)
    drawn = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    assert float(cut.abs().max()) <= 0.7
    assert float(cut.std()) == pytest.approx(float(drawn[drawn.abs() < 0.7].std()), rel=0.01)


def test_the_way_is_an_arc() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    way = interpolated(a, b, 3)
    assert torch.allclose(way, torch.tensor([[2.0, 0.0], [2**0.5, 2**0.5], [0.0, 2.0]]), atol=1e-6)
    assert torch.allclose(interpolated(a, a, 2), torch.stack((a, a)))  # no angle
    assert torch.allclose(interpolated(a, -a, 3)[1], torch.zeros(2), atol=1e-6)  # no arc is nearer than another


def test_seeds_stand_for_their_first_latent(generator: LoadedGenerator) -> None:
    way = generator.interpolate(1, 2, 4)
    assert torch.allclose(way[0], generator.latents(1, 1)[0], atol=1e-6)
    assert torch.allclose(way[3], generator.latents(1, 2)[0], atol=1e-6)
    assert torch.equal(generator.interpolate(generator.latents(1, 1)[0], 2, 4), way)
