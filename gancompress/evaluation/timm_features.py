"""Features of any network that timm has, DINOv2 and CLIP among them.

Weights are never fetched unasked: ``timm:NAME:download`` takes timm's own from where it publishes them (kept in its
cache), ``timm:NAME:<path>`` a file of safetensors with the names that timm gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError
from gancompress.evaluation.extractors import Extractor, Progress
from gancompress.pretrained import DOWNLOAD, pretrained, refusal, settings_of, weights_hash

if TYPE_CHECKING:
    from gancompress.data.base import Dataset

__all__ = ["CLIP", "DINOV2", "Clip", "DinoV2", "TimmFeatures"]

#: timm's name of the network that CMMD is computed on, with the activation that OpenAI trained it with
CLIP = "vit_large_patch14_clip_quickgelu_336.openai"

#: timm's name of the network that FD-DINOv2 is computed on
DINOV2 = "vit_large_patch14_dinov2.lvd142m"
#: pixels that FD-DINOv2 sees
_DINOV2_SIZE = 224
#: added to the side of a grid of positions, in patches, where DINOv2's own code scales one
_DINOV2_OFFSET = 0.1
#: the widest that a projection is taken to be; those that timm has are up to 1,280 wide
_WIDEST = 4096


@EXTRACTORS.register("timm")
class TimmFeatures(Extractor):
    """What a network of timm computes in front of its last layer, and its classes where it has any: ``timm:NAME:…``.

    The last layer of a network that was trained to match texts, such as CLIP, is a projection and predicts no classes:
    the extractor ``clip`` gives what comes out of it. Images are resized to the size that the network was trained with
    (bicubic, antialiased, rounded to whole numbers) and normalised as it was; grey ones are repeated.
    """

    label = ""
    weights_hash = ""
    resize = ""
    _registered = "timm"

    def __init__(self, net: nn.Module, label: str, weights_hash: str, size: int) -> None:
        config: Any = getattr(net, "pretrained_cfg", {})
        self.net, self.label, self.weights_hash, self._size = net.eval(), label, weights_hash, size
        self.resize = f"bicubic with antialiasing to {size} px"
        device = next(net.parameters()).device
        self._mean, self._std = (
            torch.tensor(config[key], dtype=torch.float32, device=device).view(1, 3, 1, 1) for key in ("mean", "std")
        )
        self._predicts = _predicts(config.get("num_classes", 0))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d) and logits (B, k); without classes k is 0."""
        device = self._mean.device
        x = images.to(device).expand(-1, 3, -1, -1).float()
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            size = (self._size, self._size)
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
            x = (x.clamp(0, 255).round() / 255 - self._mean) / self._std
            return self._read(self.net, x)

    def _read(self, net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits of images that are as the network wants them."""
        found: Tensor = net.forward_head(net.forward_features(x), pre_logits=True)
        return found, net.get_classifier()(found) if self._predicts else found[:, :0]

    @classmethod
    def knows_classes(cls, option: str = "") -> bool:
        """Not those of the data."""
        return False

    @classmethod
    def classifies(cls, option: str = "") -> bool:
        """Whether the network predicts classes of its own; asked before its weights are there."""
        config = settings_of(_split(option)[0])
        return config is not None and _predicts(config.num_classes)

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why ``option`` is no network of timm, or names no file; None when it is and does."""
        name, where = _split(option)
        return refusal(name, where, ways=f"timm:{name}:{DOWNLOAD}, or timm:{name}:weights.safetensors")

    @classmethod
    def prepare(
        cls,
        dataset: Dataset[Any],
        *,
        option: str = "",
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Self:
        """Build the network and load its weights.

        Raises:
            EvaluationError: there is no such network, or its weights are missing, do not fit or cannot be fetched.
        """
        reason = cls.refuses(dataset, option)
        if reason is not None:
            raise EvaluationError(f"extractor {cls._registered}: {reason}")
        return cls._load(option, device)

    @classmethod
    def _load(cls, option: str, device: torch.device | str) -> Self:
        """Return the extractor of an option that is not refused."""
        name, where = _split(option)
        size = int(settings_of(name).input_size[-1])
        return cls(*_built(name, where, device), size)


@EXTRACTORS.register("dinov2")
class DinoV2(TimmFeatures):
    """The features of FD-DINOv2 (Stein et al., Exposing flaws of generative model evaluation metrics, 2023).

    ViT-L/14 (Oquab et al., 2023), its class token, images at 224 pixels. ``dinov2:download`` fetches the weights
    through timm (1.2 GB), ``dinov2:<path>`` names a file with the names of timm or of the authors. Positions are fitted
    from 518 to 224 pixels as in the authors' code, and not as timm would.
    """

    _registered = "dinov2"

    @classmethod
    def classifies(cls, option: str = "") -> bool:
        """Not at all."""
        return False

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why ``option`` names no weights; None when it does."""
        return _no_weights(cls._registered, option)

    @classmethod
    def _load(cls, option: str, device: torch.device | str) -> Self:
        net: Any = pretrained(DINOV2, option, EvaluationError)
        published = net.pos_embed.detach()
        net.set_input_size((_DINOV2_SIZE, _DINOV2_SIZE))
        net.pos_embed = nn.Parameter(_positions(published, net.patch_embed.grid_size[0]), requires_grad=False)
        digest = weights_hash(net)
        return cls(net.to(device), f"dinov2-{digest[:8]}", digest[:16], _DINOV2_SIZE)


def _positions(published: Tensor, side: int) -> Tensor:
    """Return positions (1, 1 + side², d) of published ones, as the authors' code scales them.

    Source: ``interpolate_pos_encoding`` of facebookresearch/dinov2, with the offset of its published networks and
    without antialiasing.
    """
    old = round((published.shape[1] - 1) ** 0.5)
    if side == old:
        return published
    grid = published[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    # the offset is why this is no resizing to a size: it moves where the grid is read
    scaled = F.interpolate(grid, scale_factor=(side + _DINOV2_OFFSET) / old, mode="bicubic")
    return torch.cat([published[:, :1], scaled.flatten(2).transpose(1, 2)], dim=1)


@EXTRACTORS.register("clip")
class Clip(TimmFeatures):
    """CLIP's embeddings of images (Radford et al., 2021), as its projection gives them: those of CMMD by default.

    ``clip:download`` and ``clip:<path>`` are OpenAI's ViT-L/14 at 336 pixels, 768 numbers, which CMMD (Jayasumana et
    al., 2024) is defined on: 1.2 GB through timm, or a file with the names of timm or of OpenAI. ``clip:NAME:…`` takes
    another network of timm that ends in a projection. Embeddings are not brought to length 1: the metric ``cmmd`` does
    that, as CMMD's code does, and Fréchet distances on CLIP are taken without.
    """

    _registered = "clip"

    @classmethod
    def classifies(cls, option: str = "") -> bool:
        """Not at all."""
        return False

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why ``option`` names no weights, or no network with a projection; None when it does."""
        name, where = _split(option)
        if not where:
            return _no_weights(cls._registered, option)
        if settings_of(name) is not None and not _projects(settings_of(name).num_classes):
            return f"{name} ends in no projection: it is timm:{name}:{where}"
        return refusal(name, where, ways=f"clip:{name}:{DOWNLOAD}")

    @classmethod
    def _load(cls, option: str, device: torch.device | str) -> Self:
        name, where = _split(option)
        known, where = (name, where) if where else (CLIP, option)
        size = int(settings_of(known).input_size[-1])
        net, label, digest = _built(known, where, device)
        # never the label of timm:NAME, whose features of the same weights are others
        return cls(net, label.replace(CLIP, "clip") if known == CLIP else f"clip-{label}", digest, size)

    def _read(self, net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        found: Tensor = net.forward_head(net.forward_features(x))
        return found, found[:, :0]


def _predicts(outputs: int) -> bool:
    """Whether the outputs of a network of timm stand for classes, by their number: timm tells them apart by nothing."""
    return outputs > 0 and not _projects(outputs)


def _projects(outputs: int) -> bool:
    """Whether they are a projection, which is never as wide as ImageNet, or a larger set of images, has classes."""
    from timm.data import infer_imagenet_subset

    return 0 < outputs <= _WIDEST and infer_imagenet_subset({"num_classes": outputs}) is None


def _no_weights(extractor: str, where: str) -> str | None:
    if not where:
        return f"say where its weights come from: {extractor}:{DOWNLOAD}, or {extractor}:weights.safetensors"
    return None if where == DOWNLOAD or Path(where).expanduser().is_file() else f"there is no file {where}"


def _split(option: str) -> tuple[str, str]:
    name, _, where = option.partition(":")
    return name, where


def _built(name: str, where: str, device: torch.device | str) -> tuple[nn.Module, str, str]:
    """Return the network with its weights, what metrics call it, and the hash of the weights."""
    net = pretrained(name, where, EvaluationError)
    found = weights_hash(net)
    return net.to(device), f"{name}-{found[:8]}", found[:16]
