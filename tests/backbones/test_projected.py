"""Projected GAN: shapes and counts by hand, what is frozen and what is not, and files that are not there."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.frozen import Frozen
from gancompress.backbones.pairing import Pairing
from gancompress.backbones.projected import CrossMixing, Projected, ProjectedConfig
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.cost.profile import profile
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.sparsity.weights import duplicate

TINY: dict[str, Any] = {
    "features": "test_efficientnet", "weights": "random", "discriminator_channels": 4, "mixed_channels": 2,
}  # fmt: skip


def judge(channels: int = 3, resolution: int = 32, **settings: Any) -> Any:
    torch.manual_seed(0)
    return Projected(ProjectedConfig(**{**TINY, **settings}), ImageSpec(channels, resolution)).discriminator()


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "efficientnet.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    return path


# --------------------------------------------------------------------------- by hand


def test_as_published_for_256_pixels() -> None:
    with torch.device("meta"):
        backbone = Projected(ProjectedConfig(), ImageSpec(3, 256))
        made, heads = backbone.generator(), backbone.discriminator()
    # 4x4 convolutions of stride 2: 64 to 64, 128, 256 and 512 channels, fewer the smaller the map
    steps = [64 * 64 * 16, 64 * 128 * 16, 128 * 256 * 16, 256 * 512 * 16]
    convolutions = sum(sum(steps[index:]) for index in range(4)) + 4 * 512 * 16
    assert sum(weight.parameter.numel() for weight in prunable_weights(heads).values()) == convolutions == 10_321_920
    norms = sum(2 * sum((64, 128, 256, 512)[index:]) for index in range(4))
    assert sum(p.numel() for p in heads.parameters()) == convolutions + norms == 10_328_192
    # EfficientNet-Lite0's maps of 24, 40, 112 and 320 channels
    wide = [conv.weight.shape for conv in heads.mixing.network.across_channels]
    assert wide == [(64, 24, 1, 1), (128, 40, 1, 1), (256, 112, 1, 1), (512, 320, 1, 1)]
    scales = [conv.weight.shape for conv in heads.mixing.network.across_scales]
    assert scales == [(64, 64, 3, 3), (64, 128, 3, 3), (128, 256, 3, 3), (256, 512, 3, 3)]
    assert made.output.bias is not None
    assert [stage.conv.out_channels for stage in made.stages] == [2 * 1024, 2 * 512, 2 * 256, 2 * 256, 2 * 128, 2 * 64]


def test_every_head_gives_as_many_logits() -> None:
    # 160 pixels: maps of 40, 20, 10 and 5, mixed to twice that; 5 left of each, so that a 4x4 convolution fits 4 times
    assert judge()(torch.zeros(2, 3, 32, 32)).shape == (2, 4 * 4)
    # 256 pixels are seen as they are: 128, 64, 32 and 16, 8 left
    assert judge(resolution=256)(torch.zeros(2, 3, 256, 256)).shape == (2, 4 * 25)


def test_mixing_by_hand() -> None:
    mixing = CrossMixing([1, 1, 1, 1], 1)
    with torch.no_grad():
        for conv in mixing.across_channels:
            conv.weight.fill_(1.0)
        for conv in mixing.across_scales:
            conv.weight.zero_()
            conv.weight[:, 0, 1, 1] = 1.0  # the first of the channels, at its own place
    maps = [torch.full((1, 1, size, size), value) for size, value in ((9, 1.0), (5, 10.0), (3, 100.0), (2, 1000.0))]
    found = mixing(maps)
    # up to the size of the next larger map; the largest to twice its own
    assert [tuple(h.shape) for h in found] == [(1, 1, 18, 18), (1, 1, 9, 9), (1, 2, 5, 5), (1, 4, 3, 3)]
    for h, value in zip(found, (1111.0, 1110.0, 1100.0, 1000.0), strict=True):
        torch.testing.assert_close(h, torch.full_like(h, value))


def test_a_random_map_keeps_its_variance_across_channels() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 320, 16, 16)
    with torch.no_grad():
        mixed = CrossMixing([8, 8, 8, 320], 64).across_channels[3](x)
    assert float(mixed.var()) == pytest.approx(1, rel=0.1)


def test_images_are_enlarged_and_normalised_as_the_network_wants() -> None:
    network = judge()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    seen: list[torch.Tensor] = []
    network.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(x)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    large = F.interpolate(x, size=(160, 160), mode="bilinear")
    torch.testing.assert_close(seen[0], ((large + 1) / 2 - mean) / std)


def test_grey_images_are_repeated_and_others_refused() -> None:
    grey, colour = judge(channels=1), judge()
    grey.load_state_dict(colour.state_dict())
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(grey.eval()(x), colour.eval()(x.expand(-1, 3, -1, -1)))
    with pytest.raises(BackboneError, match="colour or grey, and these images have 4 channels"):
        judge(channels=4)


# --------------------------------------------------------------------------- what is frozen


def test_no_gradient_reaches_what_is_frozen_and_one_reaches_the_image() -> None:
    network = judge().train()
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    before = weights_of(network.features)
    network(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not [*network.features.parameters(), *network.mixing.parameters()]
    assert not any(buffer.requires_grad or buffer.grad is not None for buffer in network.buffers())
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.features.named_buffers())
    assert {name.partition(".")[0] for name, _ in network.named_parameters()} == {"heads"}
    assert {name.partition(".")[0] for name in prunable_weights(network)} == {"heads"}


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    network = judge().train()
    assert not any(module.training for module in network.features.modules())
    norms = [module for module in network.features.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    network(torch.rand(4, 3, 32, 32))
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)
    frozen = Frozen(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), stored=True)
    assert not any(module.training for module in frozen.train().modules())


def test_the_state_has_the_mixing_and_not_the_network() -> None:
    network = judge()
    assert {name.partition(".")[0] for name in network.state_dict()} == {"mixing", "heads"}
    torch.manual_seed(1)
    other = Projected(ProjectedConfig(**TINY), ImageSpec(3, 32)).discriminator()
    x = torch.rand(2, 3, 32, 32)
    assert not torch.equal(network.eval()(x), other.eval()(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(x), other(x))
    assert torch.equal(duplicate(network)(x), network(x))


def test_what_frozen_layers_compute_is_counted_and_said() -> None:
    found = profile(judge(resolution=256))
    frozen = [layer for layer in found.layers if layer.frozen]
    assert {layer.name.partition(".")[0] for layer in frozen} == {"features", "mixing"}
    assert not any(layer.prunable for layer in frozen)
    last = next(layer for layer in frozen if layer.name == "mixing.network.across_scales.0.weight")
    assert last.macs() == 2 * 2 * 9 * 128**2
    first = next(layer for layer in frozen if layer.name == "features.network.conv_stem.weight")
    assert first.macs() == 3 * first.shape[0] * 9 * 128**2
    assert found.frozen_macs() == sum(layer.macs() + layer.bias for layer in frozen)
    assert found.products == 0


# --------------------------------------------------------------------------- weights


def test_weights_of_a_file_are_those_of_timm(file) -> None:
    network = judge(weights=str(file))
    torch.manual_seed(3)
    net = timm.create_model("test_efficientnet", features_only=True, out_indices=[1, 2, 3, 4]).eval()
    held = load_file(file)
    net.load_state_dict({name: held[name] for name in net.state_dict()})
    x = torch.rand(1, 3, 160, 160)
    for mine, theirs in zip(network.features(x), net(x), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_drawn_weights_are_the_same_whatever_the_seed_and_leave_it_alone() -> None:
    one = judge()
    torch.manual_seed(7)
    other = Projected(ProjectedConfig(**TINY), ImageSpec(3, 32)).discriminator()
    assert all(torch.equal(a, b) for a, b in zip(one.features.buffers(), other.features.buffers(), strict=True))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    ProjectedConfig(**TINY).weights_hash()
    assert torch.equal(torch.get_rng_state(), state)


def test_another_file_has_another_hash_which_is_told(file, tmp_path) -> None:
    own = ProjectedConfig(**{**TINY, "weights": str(file)}).weights_hash()
    assert own != ProjectedConfig(**TINY).weights_hash()
    judge(weights=str(file), hash=own)
    with pytest.raises(BackboneError, match=rf"random holds other weights .* than the recipe means \({own}\)"):
        judge(hash=own)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": ""}, "say where its weights come from: weights: download, or weights: FILE.safetensors"),
        ({"weights": "nowhere.safetensors"}, "there is no file nowhere.safetensors"),
        ({"features": "test_efficientnett"}, "no network 'test_efficientnett' with weights; did you mean"),
        ({"features": "vgg"}, "no network 'vgg' with weights; did you mean 'vgg"),
        (
            {"features": "nothing of the kind"},
            r"with weights; it has 1,\d\d\d, see timm\.list_models\(pretrained=True\)$",
        ),
        ({"features": "test_vit"}, "test_vit gives no maps of strides 4, 8, 16 and 32"),
        ({"features": "swin_tiny_patch4_window7_224"}, "gives no maps of strides 4, 8, 16 and 32"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BackboneError, match=says) as caught:
        judge(**settings)
    assert "\n" not in str(caught.value)


def test_a_file_of_something_else_is_refused(file, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(BackboneError, match=r"cannot be read: .*with the names that timm gives"):
        judge(weights=str(path))
    state = load_file(file)
    lacking = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.2.0.")}
    save_file(lacking, path)
    with pytest.raises(BackboneError, match=r"tensors are not there, or have another shape, as blocks\.2\.0\."):
        judge(weights=str(path))
    save_file({**state, "conv_stem.weight": torch.zeros(1, 3, 3, 3)}, path)
    with pytest.raises(BackboneError, match="cannot be read: "):
        judge(weights=str(path))
    path.write_bytes(b"no tensors")
    with pytest.raises(BackboneError, match="cannot be read: "):
        judge(weights=str(path))


def test_weights_that_cannot_be_fetched_are_told_in_one_line(monkeypatch) -> None:
    create = timm.create_model

    def offline(*given: Any, pretrained: bool, **more: Any) -> Any:
        if pretrained:
            raise OSError("no network\nat all")
        return create(*given, pretrained=False, **more)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("gancompress.pretrained.nobody_answers", lambda *_: None)
    with pytest.raises(BackboneError, match=r"cannot be fetched: no network at all; give them as a file"):
        ProjectedConfig(**{**TINY, "weights": "download"}).weights_hash()


# --------------------------------------------------------------------------- against other generators


def test_pairing_takes_each_network_and_width_from_its_own_backbone() -> None:
    image = ImageSpec(3, 32)
    made = SNGAN(SNGANConfig(channels=32, latent_dim=8, conditional=False), image)
    pair = Pairing(made, Projected(ProjectedConfig(**TINY), image))
    generator, discriminator = pair.generator(), pair.discriminator()
    assert type(generator).__name__ == type(made.generator()).__name__
    assert discriminator(generator(torch.zeros(2, 8))).shape == (2, 16)
    assert {role: width.channels for role, width in pair.widths.items()} == {"generator": 32, "discriminator": 4}
    wide = pair.resized({"discriminator": 8})
    assert {role: width.channels for role, width in wide.widths.items()} == {"generator": 32, "discriminator": 8}
    assert pair.resolutions == made.resolutions
    classes = ImageSpec(3, 32, ("a", "b"))
    told = SNGAN(SNGANConfig(channels=32, conditional=True), classes)
    with pytest.raises(BackboneError, match="generator takes classes, and the discriminator does not"):
        Pairing(told, Projected(ProjectedConfig(**TINY), classes))


def test_classes_are_held_against_every_place() -> None:
    torch.manual_seed(0)
    image = ImageSpec(3, 32, ("a", "b"))
    network = Projected(ProjectedConfig(**TINY, conditional=True), image).discriminator().eval()
    x = torch.rand(2, 3, 32, 32)
    one, other = (network(x, torch.full((2,), label)) for label in (0, 1))
    change = (one - other).view(2, 4, 4)
    assert change.abs().min() > 0
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change))
