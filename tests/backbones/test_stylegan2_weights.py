from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from typer.testing import CliRunner

import gancompress
from gancompress.backbones.stylegan2 import StyleGAN2, StyleGAN2Config
from gancompress.backbones.stylegan2_weights import from_published
from gancompress.cli.main import app
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError, RecipeError
from gancompress.experiment.finished import open_run

STYLE, WIDTH, LAYERS = 6, 8, 3


def published(resolution=16, classes=0):
    """A state with the names and shapes of stylegan2-ada-pytorch."""
    torch.manual_seed(4)
    state = {"mapping.w_avg": torch.randn(STYLE)}
    inputs = 5 + (STYLE if classes else 0)
    if classes:
        state |= {"mapping.embed.weight": torch.randn(STYLE, classes), "mapping.embed.bias": torch.randn(STYLE)}
    for layer in range(LAYERS):
        state[f"mapping.fc{layer}.weight"] = torch.randn(STYLE, STYLE if layer else inputs) * 100
        state[f"mapping.fc{layer}.bias"] = torch.randn(STYLE)
    size = 4
    while size <= resolution:
        block = f"synthesis.b{size}"
        state[f"{block}.resample_filter"] = torch.ones(4, 4)
        if size == 4:
            state[f"{block}.const"] = torch.randn(WIDTH, 4, 4)
        for name in ("conv1",) if size == 4 else ("conv0", "conv1"):
            state |= {
                f"{block}.{name}.weight": torch.randn(WIDTH, WIDTH, 3, 3),
                f"{block}.{name}.bias": torch.randn(WIDTH),
                f"{block}.{name}.noise_strength": torch.randn(()),
                f"{block}.{name}.noise_const": torch.randn(size, size),
                f"{block}.{name}.resample_filter": torch.ones(4, 4),
                f"{block}.{name}.affine.weight": torch.randn(WIDTH, STYLE),
                f"{block}.{name}.affine.bias": torch.randn(WIDTH),
            }
        state |= {
            f"{block}.torgb.weight": torch.randn(3, WIDTH, 1, 1),
            f"{block}.torgb.bias": torch.randn(3),
            f"{block}.torgb.affine.weight": torch.randn(WIDTH, STYLE),
            f"{block}.torgb.affine.bias": torch.randn(WIDTH),
        }
        size *= 2
    return state


def smoothed(x, up, pad):
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h * up, w * up)
    spread[:, :, ::up, ::up] = x
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    return F.conv2d(F.pad(spread, (*pad, *pad)), (line[:, None] * line).expand(c, 1, 4, 4), groups=c)


def by_the_paper(state, z, onehot=None):
    """The images, computed from the published tensors image by image."""

    def unit(x):
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    def affine(x, name, rate=1.0):
        weight = state[f"{name}.weight"]
        return x @ weight.t() * (rate / math.sqrt(weight.shape[1])) + state[f"{name}.bias"] * rate

    x = unit(z)
    if onehot is not None:
        x = torch.cat([x, unit(affine(onehot, "mapping.embed"))], 1)
    for layer in range(LAYERS):
        x = F.leaky_relu(affine(x, f"mapping.fc{layer}", 0.01), 0.2) * math.sqrt(2)

    def conv(h, w, name, up=False):
        style, weight = affine(w, f"{name}.affine"), state[f"{name}.weight"][None]
        own = weight * style[:, None, :, None, None]
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        parts = []
        for image, kernel in zip(h, own, strict=True):
            if up:
                part = smoothed(F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2), 1, (1, 1))
            else:
                part = F.conv2d(image[None], kernel, padding=1)
            parts.append(part)
        out = torch.cat(parts) + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
        return F.leaky_relu(out + state[f"{name}.bias"][:, None, None], 0.2) * math.sqrt(2)

    def colour(h, w, name):
        style, weight = affine(w, f"{name}.affine") / math.sqrt(WIDTH), state[f"{name}.weight"]
        return F.conv2d(h * style[:, :, None, None], weight, state[f"{name}.bias"])

    h = conv(state["synthesis.b4.const"].expand(len(z), -1, -1, -1), x, "synthesis.b4.conv1")
    image = colour(h, x, "synthesis.b4.torgb")
    for block in ("synthesis.b8", "synthesis.b16"):
        h = conv(conv(h, x, f"{block}.conv0", up=True), x, f"{block}.conv1")
        image = smoothed(image, 2, (2, 1)) + colour(h, x, f"{block}.torgb")
    return image.clamp(-1, 1)


@pytest.mark.parametrize("classes", [0, 3])
def test_published_weights_make_the_images_of_the_paper(classes):
    state = published(classes=classes)
    for name in state:
        if "torgb" in name:
            state[name] = state[name] * 0.5
    config = StyleGAN2Config(
        channels=WIDTH, style_dim=STYLE, latent_dim=5, mapping_layers=LAYERS, conditional=bool(classes)
    )
    made = StyleGAN2(config, ImageSpec(3, 16, ("a", "b", "c")[:classes])).generator().eval()
    made.load_state_dict(dict(made.adopted(state, "weights.safetensors")))
    z = torch.randn(3, 5)
    labels = torch.tensor([2, 0, 1]) if classes else None
    want = by_the_paper(state, z, torch.eye(3)[labels] if classes else None)
    assert 0.1 < want.std() < 0.95
    torch.testing.assert_close(made(z, labels), want, rtol=1e-4, atol=1e-5)
    own = made.state_dict()
    assert made.adopted(own, "") is own


def test_a_run_starts_from_published_weights_and_is_sampled_truncated(quick_classifier, tmp_path, monkeypatch):
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "cache"))
    state = {name: tensor * 0.5 if "torgb" in name else tensor for name, tensor in published().items()}
    file = tmp_path / "published.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    recipe = {
        "name": "from-published",
        "data": {"name": "shapes", "resolution": 16, "images": 24},
        "model": {
            "name": "stylegan2",
            "channels": WIDTH,
            "style_dim": STYLE,
            "latent_dim": 5,
            "mapping_layers": LAYERS,
        },
        "objective": {"loss": "non-saturating"},
        "training": {
            "steps": 2,
            "batch_size": 4,
            # steps that are real and too small to be seen in images
            "optimizers": {"generator": {"lr": 1e-9}, "discriminator": {"lr": 1e-9}},
            "init_from": {"path": str(file), "hash": "0" * 16},
        },
        "evaluation": {"samples": 10, "metrics": ["fd"]},
    }
    with pytest.raises(RecipeError, match=r"set training\.init_from\.hash=[0-9a-f]{16}") as refused:
        gancompress.run(recipe, out=tmp_path / "runs", player=False, progress=False)
    recipe["training"]["init_from"]["hash"] = str(refused.value).split("training.init_from.hash=")[1][:16]
    done = gancompress.run(recipe, out=tmp_path / "runs", player=False, progress=False)
    assert done.state == "done"
    network = open_run(done.directory).generator()
    z = torch.randn(3, 5)
    torch.testing.assert_close(network(z), by_the_paper(state, z), rtol=0, atol=1e-3)
    drawn = {}
    for psi in ("1", "0.5", "0"):
        out = tmp_path / f"psi-{psi}"
        arguments = ["sample", str(done.directory), "--out", str(out), "--count", "3", "--truncation", psi]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        drawn[psi] = [path.read_bytes() for path in sorted(out.glob("*.png"))]
    assert all(len(images) == 3 for images in drawn.values())
    assert len(set(drawn["1"])) == len(set(drawn["0.5"])) == 3
    assert len(set(drawn["0"])) == 1, "at 0 all images are those of the average style"
    assert not set(drawn["1"]) & set(drawn["0.5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 32}, r"make images of 16 pixels, the recipe's have 32: --set data.resolution=16"),
        ({"layers": 8}, r"have 3 layers of mapping, the recipe's model 8: --set model.mapping_layers=3"),
        ({"conditional": True}, r"have no classes: --set model.conditional=false"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(change, message):
    settings = {"resolution": 16, "layers": LAYERS, "conditional": False, **change}
    with pytest.raises(BackboneError, match=message) as caught:
        from_published(published(), **settings, where="weights.safetensors")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named():
    state = published()
    del state["synthesis.b8.conv1.bias"]
    with pytest.raises(BackboneError, match=r"synthesis\.b8\.conv1\.bias is missing"):
        from_published(state, resolution=16, layers=LAYERS, conditional=False)
