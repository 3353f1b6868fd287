"""LPIPS against the package of its authors, path lengths against torch-fidelity's, and what holds of any generator."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import lpips as reference
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import gancompress
from gancompress.backbones.base import Generator
from gancompress.backbones.stylegan2 import StyleGAN2, StyleGAN2Config
from gancompress.data.base import ImageSpec
from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.errors import EvaluationError
from gancompress.evaluation import perceptual
from gancompress.evaluation.evaluate import evaluate
from gancompress.evaluation.extractors import Extractor
from gancompress.evaluation.generator_metrics import (
    PathLength,
    PerceptualDiversity,
    StylePathLength,
    _trimmed,
    shown_to_lpips,
)
from gancompress.evaluation.sampler import Sampler, open_sampler
from gancompress.testing import checks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as LPIPS wants it; its VGG has random weights, since the trained ones are 528 MB."""
    from torchvision.models import vgg16

    folder = tmp_path_factory.mktemp("lpips")
    with torch.device("meta"):
        features = vgg16().features
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in features.state_dict().items():
        gain = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1
        state[f"features.{name}"] = gain * torch.randn(tensor.shape, generator=rng)
    torch.save(state, folder / perceptual.VGG)
    return folder


@pytest.fixture
def at_hand(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    digest = hashlib.sha256((weights / perceptual.VGG).read_bytes()).hexdigest()
    monkeypatch.setattr(perceptual, "VGG_SHA256_PREFIX", digest[:8])
    monkeypatch.setenv("GANCOMPRESS_LPIPS", str(weights))
    return weights


def images(seed: int, size: int, count: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.filterwarnings("ignore")  # of its authors' package
def test_lpips_as_its_authors_compute_it(at_hand: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        theirs = reference.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    state = torch.load(at_hand / perceptual.VGG, weights_only=True)
    layers = {name: one for part in theirs.net.children() for name, one in part.named_children()}
    for name, layer in layers.items():
        if hasattr(layer, "weight"):
            layer.load_state_dict({leaf: state[f"features.{name}.{leaf}"] for leaf in ("weight", "bias")})
    ours = perceptual.open_lpips()
    for size in (32, 64):
        a, b = images(0, size), images(1, size)
        with torch.no_grad():
            expected = theirs(a, b).flatten()
        assert expected.min() > 0.05
        assert torch.allclose(ours(a, b), expected, rtol=1e-4)
    grey, other = images(2, 32, channels=1), images(3, 32, channels=1)
    with torch.no_grad():
        expected = theirs(grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)).flatten()
    assert torch.allclose(ours(grey, other), expected, rtol=1e-4)
    assert ours(a, a).tolist() == [0.0, 0.0]


def test_missing_and_altered_weights_are_said(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANCOMPRESS_LPIPS", str(tmp_path))
    said = f"the weights of VGG-16 are not at {tmp_path / perceptual.VGG}: put them there from {perceptual.VGG_URL}"
    assert perceptual.why_no_lpips() == said
    with pytest.raises(EvaluationError) as refused:
        gancompress.validate("quickstart", {"evaluation.metrics": ["fd", "ppl"]})
    assert str(refused.value) == f"evaluation.metrics: ppl: {said}"
    (tmp_path / perceptual.VGG).write_bytes(b"x")
    with pytest.raises(
        EvaluationError, match="not the weights of VGG-16: SHA-256 must start with 397923af, is 2d711642"
    ):
        perceptual.open_lpips()
    monkeypatch.setattr(perceptual, "VGG_SHA256_PREFIX", "")
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / perceptual.LINEAR)
    with pytest.raises(EvaluationError, match=r"not the linear weights of LPIPS 0\.1 on VGG"):
        perceptual.open_lpips()
    (tmp_path / perceptual.LINEAR).unlink()
    with pytest.raises(EvaluationError, match="cannot be read as weights"):
        perceptual.open_lpips()
    torch.save({"features.0.weight": torch.ones(1)}, tmp_path / perceptual.VGG)
    with pytest.raises(EvaluationError, match="cannot be read as weights of VGG-16"):
        perceptual.open_lpips()
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    assert perceptual.why_no_lpips() == (
        f"{perceptual.LINEAR} is not in {tmp_path}: put torch-fidelity's there, or pip install lpips"
    )


def test_images_come_to_a_size_that_lpips_sees() -> None:
    assert shown_to_lpips(torch.zeros(1, 3, 16, 16)).shape[-1] == 64
    assert shown_to_lpips(torch.zeros(1, 3, 128, 128)).shape[-1] == 128
    large = images(0, 512)
    assert torch.allclose(shown_to_lpips(large), F.avg_pool2d(large, 2), atol=1e-6)


def test_what_is_left_out_at_both_ends() -> None:
    values = torch.arange(200.0, dtype=torch.float64)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    # one percent of 199 intervals lies between the second and the third value: both ends are taken outwards
    mean, spread = _trimmed(values, 0.01)
    kept = np.arange(1, 199)
    assert (mean, spread) == (kept.mean(), pytest.approx(kept.std()))
    assert _trimmed(values, 0.0)[0] == 99.5


class Waves(Generator):
    """Smooth pictures of a latent, with classes or without."""

    latent_dim = 4

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.num_classes, self.image = classes, ImageSpec(3, 32, tuple(map(str, range(classes))))
        self.place = torch.nn.Parameter(torch.randn(4, 3 * 32 * 32, generator=torch.Generator().manual_seed(5)))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        pictures = torch.sin(z @ self.place).view(-1, 3, 32, 32)
        return pictures if labels is None else pictures * (0.2 + labels.view(-1, 1, 1, 1))


def test_path_lengths_as_torch_fidelity_computes_them(at_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import GenerativeModelModuleWrapper, calculate_metrics, metric_ppl

    network, count = Waves(), 12
    with open_sampler(network, seed=3, batch_size=5) as sampler:
        metric = PathLength()
        metric.outside = 0.0
        (found,) = metric.measure(sampler, count, 5)
        latents = [sampler.latents(0, count), Sampler(network, seed=3, stream="path").latents(0, count)]
    ours = perceptual.open_lpips()
    monkeypatch.setattr(metric_ppl, "sample_random", lambda *_: latents.pop(0))
    monkeypatch.setattr(
        metric_ppl, "create_sample_similarity", lambda *_, **__: lambda a, b: ours(shown_to_lpips(a), shown_to_lpips(b))
    )
    model = GenerativeModelModuleWrapper(network, 4, "normal", 0, make_eval=False)
    theirs = calculate_metrics(
        input1=model, input1_model_num_samples=count, ppl=True, cuda=False, verbose=False, batch_size=4,
        ppl_epsilon=1e-4, ppl_z_interp_mode="lerp", ppl_discard_percentile_lower=None,
        ppl_discard_percentile_higher=None, ppl_sample_similarity_dtype="float32",
    )  # fmt: skip
    assert found.value == pytest.approx(theirs["perceptual_path_length_mean"], rel=1e-4)
    assert found.std == pytest.approx(theirs["perceptual_path_length_std"], rel=1e-4)
    assert (found.key, found.name, found.better) == ("ppl", "PPL", "lower")


def test_a_way_twice_as_steep_is_four_times_as_long(at_hand: Path) -> None:
    def length(scale: float) -> float:
        network = Waves()
        with torch.no_grad():
            network.place.mul_(0.01)  # nearly linear

        class Scaled(Waves):
            def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
                return network(z * scale)

        with open_sampler(Scaled(), seed=0, batch_size=4) as sampler:
            return PathLength().measure(sampler, 8, 4)[0].value

    assert length(0.2) == pytest.approx(4 * length(0.1), rel=0.2)
    assert length(0.0) == 0.0


def test_diversity_is_of_pairs_of_one_class(at_hand: Path) -> None:
    network = Waves(classes=3)
    with open_sampler(network, seed=0, batch_size=4) as sampler:
        (found,) = PerceptualDiversity().measure(sampler, 6, 4)
        one = sampler.images(0, 6)
        other = Sampler(network, seed=0, stream="path").images(0, 6, labels=sampler.labels(0, 6))
    ours = perceptual.open_lpips()(shown_to_lpips(one), shown_to_lpips(other))
    assert found.value == pytest.approx(float(ours.double().mean()), rel=1e-5)
    assert found.settings == "6 pairs of one class each"

    class Same(Waves):
        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(torch.ones_like(z), labels)

    with open_sampler(Same(), seed=0, batch_size=4) as sampler:
        assert PerceptualDiversity().measure(sampler, 6, 4)[0].value == 0.0


def test_styles_are_moved_from_their_ends(at_hand: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = StyleGAN2Config(channels=8, latent_dim=8, style_dim=8, mapping_layers=2)
        network = StyleGAN2(config, ImageSpec(3, 16)).generator()
    metric = StylePathLength()
    metric.outside = 0.0
    with open_sampler(network, seed=1, batch_size=4) as sampler:
        (found,) = metric.measure(sampler, 4, 4)
        far = Sampler(network, seed=1, stream="path").latents(0, 4)
        ends = [network.styles(z) for z in (sampler.latents(0, 4), far)]
        pair = [network.synthesise(w) for w in (ends[0], ends[0] + 1e-4 * (ends[1] - ends[0]))]
    expected = perceptual.open_lpips()(*map(shown_to_lpips, pair)).double() / 1e-8
    assert found.value == pytest.approx(float(expected.mean()), rel=1e-3)
    assert found.name == "PPL (W, ends)"
    assert StylePathLength.refuses(Waves()) == "needs a generator with styles, such as stylegan2"


class Means(Extractor):
    """Means of rows and columns."""

    label = "means"
    weights_hash = "none"
    notes = ("a note",)

    @classmethod
    def prepare(cls, dataset: Any, *, option: str = "", device: Any = "cpu", progress: Any = None) -> Extractor:
        return cls()

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.float() / 255
        return pixels.mean((1, 2)), pixels.mean((1, 3))


def test_a_protocol_names_the_network_that_looks(at_hand: Path) -> None:
    dataset = Shapes(ShapesConfig(resolution=32, images=24))
    both = [
        evaluate(
            Waves(), dataset=dataset, extractor=Means(), metrics=["lpips", "fd", "ppl"], samples=8, batch_size=size
        )
        for size in (8, 3)
    ]
    for one, other in zip(both[0].results, both[1].results, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4)
        assert str(one.protocol) == str(other.protocol)
    diversity, fd, ppl = both[0].results
    assert [one.key for one in both[0].results] == ["lpips", "fd", "ppl"]
    said = str(diversity.protocol)
    assert said.startswith("lpips-vgg, 8 generated, no classes, EMA weights")
    assert ppl.protocol is not None
    assert fd.protocol is not None
    assert ppl.protocol.weights_hash == perceptual.open_lpips().weights_hash
    assert fd.protocol.extractor == "means"
    assert fd.protocol.hash != ppl.protocol.hash
    with pytest.raises(EvaluationError, match="StylePathLength needs a generator with styles"):
        evaluate(Waves(), dataset=dataset, extractor=Means(), metrics=["ppl-w"], samples=8)


def test_a_run_with_a_metric_that_its_generator_has_not_is_refused(at_hand: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as refused:
        gancompress.run("quickstart", {"evaluation.metrics": ["fd", "ppl-w"]}, out=tmp_path / "runs", progress=False)
    assert str(refused.value) == "evaluation.metrics: ppl-w needs a generator with styles, such as stylegan2"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["ppl", "ppl-w", "lpips"])
def test_conformance(name: str, at_hand: Path) -> None:
    states = {check.name: check.outcome() for check in checks(name, kind="metric")}
    assert states["of-a-generator"].state == "passed", states["of-a-generator"].reason
    assert states["documented"].state == "passed"
