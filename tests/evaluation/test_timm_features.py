from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import timm
import torch
from evaluation_toys import Blobs
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError
from gancompress.evaluation import timm_features
from gancompress.evaluation.extractors import build_extractor
from gancompress.evaluation.features import Features
from gancompress.evaluation.kernel_means import MeanDiscrepancy
from gancompress.experiment.measure import check_measurable
from gancompress.recipe.schema import EvaluationConfig

NAME = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


def test_features_are_what_the_network_has_in_front_of_its_classes(weights):
    images = torch.randint(0, 256, (3, 3, 160, 160)).to(torch.uint8)
    extractor = build_extractor(f"timm:{NAME}:{weights}", Blobs())
    found, logits = extractor.features(images)
    torch.manual_seed(0)
    net = timm.create_model(NAME).eval()  # its mean and deviation are 0.5; 160 pixels are its own size
    want = net((images.float() / 255 - 0.5) / 0.5)
    assert tuple(found.shape) == (3, 64)
    torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.get_classifier()(found), want, rtol=1e-4, atol=1e-5)
    assert extractor.label.startswith(f"{NAME}-")
    assert not extractor.official
    one = torch.cat([extractor.features(image[None])[0] for image in images])
    torch.testing.assert_close(one, found, rtol=1e-4, atol=1e-5)


def test_images_are_resized_as_pillow_does_and_grey_ones_repeated(weights):
    grey = torch.randint(0, 256, (1, 1, 32, 32)).to(torch.uint8)
    extractor = build_extractor(f"timm:{NAME}:{weights}", Blobs())
    large = Image.fromarray(grey[0, 0].numpy()).resize((160, 160), Image.Resampling.BICUBIC)
    colour = torch.tensor([list(large.tobytes())], dtype=torch.uint8).reshape(1, 1, 160, 160).expand(1, 3, 160, 160)
    torch.testing.assert_close(extractor.features(grey)[0], extractor.features(colour)[0], rtol=0.02, atol=0.02)
    assert extractor.resize == "bicubic with antialiasing to 160 px"


def test_other_weights_have_another_name(weights, tmp_path):
    torch.manual_seed(1)
    save_file(timm.create_model(NAME).state_dict(), tmp_path / "other.safetensors")
    one, other = (build_extractor(f"timm:{NAME}:{path}", Blobs()) for path in (weights, tmp_path / "other.safetensors"))
    assert one.label != other.label
    assert one.weights_hash != other.weights_hash
    assert build_extractor(f"timm:{NAME}:{weights}", Blobs()).weights_hash == one.weights_hash


def small(monkeypatch, **smaller):
    """Let every network be built as large as a test can pay for; the path from file to features is the same."""
    monkeypatch.setattr(timm_features, "pretrained", functools.partial(timm_features.pretrained, **smaller))


# ------------------------------------------------------------------------------------------------ DINOv2


def dinov2_weights(depth=2, dim=64, patch=14, grid=37):
    """Random weights of DINOv2 under the names of facebookresearch/dinov2, its mask token among them."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + grid**2, dim), "mask_token": (1, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for block in (f"blocks.{index}." for index in range(depth)):
        for name, shape in layers.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": (dim,), f"{block}{name}.bias": (dim,)}
        shapes |= {f"{block}ls1.gamma": (dim,), f"{block}ls2.gamma": (dim,)}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=rng) * 0.2 for name, shape in shapes.items()}


def dinov2_by_hand(w, x, heads=2, depth=2, patch=14):
    """DINOv2's class token as its authors compute it, after Oquab et al., 2023, and their code of the positions."""

    def norm(tokens, name):
        return F.layer_norm(tokens, tokens.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def linear(tokens, name):
        return F.linear(tokens, w[f"{name}.weight"], w[f"{name}.bias"])

    patches = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    side, old = x.shape[-1] // patch, round((w["pos_embed"].shape[1] - 1) ** 0.5)
    grid = w["pos_embed"][0, 1:].unflatten(0, (old, old)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, scale_factor=((side + 0.1) / old, (side + 0.1) / old), mode="bicubic")
    tokens = patches.flatten(2).mT + grid.flatten(2).mT
    first = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(x), -1, -1)
    tokens = torch.cat([first, tokens], dim=1)
    for block in (f"blocks.{index}." for index in range(depth)):
        q, k, v = linear(norm(tokens, f"{block}norm1"), f"{block}attn.qkv").chunk(3, dim=-1)
        q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
        weighed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        tokens = tokens + w[f"{block}ls1.gamma"] * linear(weighed.transpose(1, 2).flatten(2), f"{block}attn.proj")
        inner = F.gelu(linear(norm(tokens, f"{block}norm2"), f"{block}mlp.fc1"))
        tokens = tokens + w[f"{block}ls2.gamma"] * linear(inner, f"{block}mlp.fc2")
    return norm(tokens, "norm")[:, 0]


def test_dinov2_is_what_torch_fidelity_makes_of_the_authors_network(monkeypatch, tmp_path):
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    weights = dinov2_weights()
    # torch-fidelity's own needs the authors' repository: their network, written by hand, takes its place
    authors = torch.nn.Module()
    authors.forward = functools.partial(dinov2_by_hand, weights)
    monkeypatch.setattr(torch.hub, "load", lambda *_: authors)
    monkeypatch.delenv("XFORMERS_DISABLED", raising=False)
    theirs = FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    save_file(weights, tmp_path / "dino.safetensors")
    small(monkeypatch, depth=2, embed_dim=64, num_heads=2)
    ours = build_extractor(f"dinov2:{tmp_path / 'dino.safetensors'}", Blobs())
    images = torch.randint(0, 256, (3, 3, 224, 224), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    (want,) = theirs(images)
    found, logits = ours.features(images)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert tuple(logits.shape) == (3, 0)
    one = torch.cat([ours.features(image[None])[0] for image in images])
    torch.testing.assert_close(one, found, rtol=1e-4, atol=1e-5)


def test_dinov2_sees_224_pixels_and_has_no_classes(monkeypatch, tmp_path):
    small(monkeypatch, depth=1, embed_dim=64, num_heads=2)
    path = tmp_path / "dino.safetensors"
    made = timm.create_model(timm_features.DINOV2, depth=1, embed_dim=64, num_heads=2)  # positions of 518 pixels
    save_file(made.state_dict(), path)
    extractor = build_extractor(f"dinov2:{path}", Blobs())
    found, logits = extractor.features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert tuple(found.shape) == (2, 64)
    assert tuple(logits.shape) == (2, 0)
    assert extractor.label.startswith("dinov2-")
    assert extractor.resize == "bicubic with antialiasing to 224 px"
    assert not EXTRACTORS.get("dinov2").classifies()


# ------------------------------------------------------------------------------------------------ CLIP

#: a network of timm whose file is small enough when it has two layers
SMALL_CLIP = "vit_base_patch32_clip_quickgelu_224.openai"


@pytest.fixture
def clip_weights():
    """Random weights of a CLIP of two layers, under OpenAI's names; halves, as OpenAI's file has them."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = CLIPVisual(512, 224, 2, 128, 32).state_dict()
    return {name: tensor.half().float() for name, tensor in state.items()}


def torch_fidelitys_clip(weights, monkeypatch):
    from torch_fidelity import feature_extractor_clip as upstream

    file = SimpleNamespace(state_dict=lambda: {**weights, "text_projection": torch.zeros(1, 512)})
    with monkeypatch.context() as patched:
        patched.setattr(upstream, "load_state_dict_from_url", lambda *_, **__: file)
        return upstream.FeatureExtractorCLIP("clip-vit-b-32", ["clip"], verbose=False)


def test_clip_is_torch_fidelitys_projection(clip_weights, monkeypatch, tmp_path):
    theirs = torch_fidelitys_clip(clip_weights, monkeypatch)
    save_file(clip_weights, tmp_path / "clip.safetensors")
    small(monkeypatch, depth=2, embed_dim=128, num_heads=2)
    ours = build_extractor(f"clip:{SMALL_CLIP}:{tmp_path / 'clip.safetensors'}", Blobs())
    images = torch.randint(0, 256, (4, 3, 224, 224), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    (want,) = theirs(images)
    found, logits = ours.features(images)
    assert want.std(0).mean() > 0.01  # images differ
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert (tuple(found.shape), tuple(logits.shape)) == ((4, 512), (4, 0))
    one = torch.cat([ours.features(image[None])[0] for image in images])
    torch.testing.assert_close(one, found, rtol=1e-4, atol=1e-5)
    front = build_extractor(f"timm:{SMALL_CLIP}:{tmp_path / 'clip.safetensors'}", Blobs())
    before, none = front.features(images)
    assert (tuple(before.shape), tuple(none.shape)) == ((4, 128), (4, 0))
    assert (front.weights_hash, ours.label) == (ours.weights_hash, f"clip-{front.label}")


def test_cmmd_is_that_of_the_normalised_projections_of_torch_fidelity(clip_weights, monkeypatch, tmp_path):
    theirs = torch_fidelitys_clip(clip_weights, monkeypatch)
    save_file(clip_weights, tmp_path / "clip.safetensors")
    small(monkeypatch, depth=2, embed_dim=128, num_heads=2)
    ours = build_extractor(f"clip:{SMALL_CLIP}:{tmp_path / 'clip.safetensors'}", Blobs())
    rng = torch.Generator().manual_seed(2)
    real, fake = (torch.randint(0, most, (6, 3, 224, 224), generator=rng).to(torch.uint8) for most in (256, 64))
    x, y = (F.normalize(theirs(images)[0].double(), dim=1) for images in (real, fake))
    kernel = [torch.exp(-(torch.cdist(a, b) ** 2) / (2 * 10**2)).mean() for a, b in ((x, x), (y, y), (x, y))]
    want = 1000 * float(kernel[0] + kernel[1] - 2 * kernel[2])
    sets = (Features(*ours.features(images), ours.label) for images in (real, fake))
    (found,) = MeanDiscrepancy().compute(*sets)
    assert found.value == pytest.approx(want, rel=1e-3)
    assert found.value > 0.01
    assert found.name == f"CMMD[{ours.label}]"


def test_the_network_of_cmmd_is_openais():
    # ViT-L/14 at 336 pixels with the activation that it was trained with, and the projection of CLIP's own space
    with torch.device("meta"):
        net = timm.create_model(timm_features.CLIP)
    (first, *_), head = net.blocks, net.get_classifier()
    assert (head.in_features, head.out_features, len(net.blocks), first.attn.num_heads) == (1024, 768, 24, 16)
    assert net.patch_embed.proj.kernel_size == (14, 14)
    assert net.norm.eps == 1e-5
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(first.mlp.act(x), x * torch.sigmoid(1.702 * x))
    config = timm_features.settings_of(timm_features.CLIP)
    assert (config.input_size[-1], config.interpolation, config.crop_pct) == (336, "bicubic", 1.0)
    assert config.mean == (0.48145466, 0.4578275, 0.40821073)
    assert config.std == (0.26862954, 0.26130258, 0.27577711)


def test_clip_alone_is_the_network_of_cmmd(clip_weights, monkeypatch, tmp_path):
    monkeypatch.setattr(timm_features, "CLIP", SMALL_CLIP)
    small(monkeypatch, depth=2, embed_dim=128, num_heads=2)
    save_file(clip_weights, tmp_path / "clip.safetensors")
    plain, named = (
        build_extractor(f"clip:{option}{tmp_path / 'clip.safetensors'}", Blobs()) for option in ("", f"{SMALL_CLIP}:")
    )
    assert plain.label == named.label == f"clip-{plain.weights_hash[:8]}"
    assert plain.resize == "bicubic with antialiasing to 224 px"


@pytest.mark.parametrize(
    ("name", "predicts", "projects"),
    [
        ("vit_large_patch14_clip_336.openai", False, True),
        ("resnet50_clip.openai", False, True),
        ("convnext_base.clip_laion2b", False, True),
        ("vit_pe_core_large_patch14_336.fb", False, True),
        ("vitamin_xlarge_384.datacomp1b_clip", False, True),
        ("vit_base_patch16_clip_224.openai_ft_in1k", True, False),
        ("vit_base_patch16_clip_224.openai_ft_in12k", True, False),
        ("mvitv2_base_cls.fb_inw21k", True, False),
        ("vit_base_patch16_224.bamboo", True, False),
        ("vit_large_patch14_dinov2.lvd142m", False, False),
        ("vit_large_patch16_siglip_384.webli", False, False),
    ],
)
def test_projections_are_no_classes(name, predicts, projects):
    assert EXTRACTORS.get("timm").classifies(f"{name}:download") == predicts
    assert not EXTRACTORS.get("clip").classifies(f"{name}:download")
    refused = EXTRACTORS.get("clip").refuses(Blobs(), f"{name}:download")
    assert refused == (None if projects else f"{name} ends in no projection: it is timm:{name}:download")


def test_the_inception_score_on_a_projection_is_refused_before_training():
    config = EvaluationConfig(extractor="timm:vit_large_patch14_clip_336.openai:download", metrics=("is",), samples=100)
    with pytest.raises(EvaluationError, match="is needs predictions of classes, which timm has none of"):
        check_measurable(config, Blobs())


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timm", "timm has no network ''"),
        ("timm:test_vitt.r160_in1k", "no network 'test_vitt.r160_in1k' with weights; did you mean"),
        (f"timm:{NAME}", f"say where its weights come from: timm:{NAME}:download"),
        (f"timm:{NAME}:nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("dinov2", "say where its weights come from: dinov2:download"),
        ("dinov2:nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("clip", "say where its weights come from: clip:download, or clip:weights.safetensors"),
        ("clip:nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("clip:resnet50_clip.openai:nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("clip:resnet50_clop.openai:download", "timm has no network 'resnet50_clop.openai'"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(text, says):
    with pytest.raises(EvaluationError, match=says):
        build_extractor(text, Blobs())


def test_what_was_fetched_before_is_there_without_a_network(weights, monkeypatch, tmp_path):
    from huggingface_hub import constants

    held = tmp_path / f"models--timm--{NAME}"
    (held / "refs").mkdir(parents=True)
    (held / "refs" / "main").write_text("0" * 40)
    snapshot = held / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(weights.read_bytes())
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, "http://127.0.0.1:9")
    changed = {"ENDPOINT": "http://127.0.0.1:9", "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(tmp_path)}
    for name, value in changed.items():
        monkeypatch.setattr(constants, name, value)
    fetched, read = (build_extractor(f"timm:{NAME}:{where}", Blobs()) for where in ("download", weights))
    assert fetched.weights_hash == read.weights_hash


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(EvaluationError, match=r"cannot be read: .*give them as a file of safetensors with the names"):
        build_extractor(f"timm:{NAME}:{path}", Blobs())
    path.write_bytes(b"no tensors")
    with pytest.raises(EvaluationError, match=f"weights of {NAME} cannot be read"):
        build_extractor(f"timm:{NAME}:{path}", Blobs())
