from __future__ import annotations

import pytest
import timm
import torch
from evaluation_toys import Blobs
from PIL import Image
from safetensors.torch import save_file

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError
from gancompress.evaluation import timm_features
from gancompress.evaluation.extractors import build_extractor

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


def test_dinov2_sees_224_pixels_and_has_no_classes(monkeypatch, tmp_path):
    small = "vit_small_patch14_dinov2.lvd142m"  # the large one takes a gigabyte
    monkeypatch.setattr(timm_features, "DINOV2", small)
    path = tmp_path / "dino.safetensors"
    save_file(timm.create_model(small, num_classes=0).state_dict(), path)  # positions of 518 pixels, as published
    extractor = build_extractor(f"dinov2:{path}", Blobs())
    found, logits = extractor.features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert tuple(found.shape) == (2, 384)
    assert tuple(logits.shape) == (2, 0)
    assert extractor.label.startswith("dinov2-")
    assert extractor.resize == "bicubic with antialiasing to 224 px"
    assert not EXTRACTORS.get("dinov2").classifies()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timm", "timm has no network ''"),
        ("timm:test_vitt.r160_in1k", "no network 'test_vitt.r160_in1k' with weights; did you mean"),
        (f"timm:{NAME}", f"say where its weights come from: timm:{NAME}:download"),
        (f"timm:{NAME}:nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("dinov2", "say where its weights come from: dinov2:download"),
        ("dinov2:nowhere.safetensors", "there is no file nowhere.safetensors"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(text, says):
    with pytest.raises(EvaluationError, match=says):
        build_extractor(text, Blobs())


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(EvaluationError, match=r"cannot be read: .*give them as a file of safetensors with the names"):
        build_extractor(f"timm:{NAME}:{path}", Blobs())
    path.write_bytes(b"no tensors")
    with pytest.raises(EvaluationError, match=f"weights of {NAME} cannot be read"):
        build_extractor(f"timm:{NAME}:{path}", Blobs())
