"""Features of any network that timm has, DINOv2 among them.

Weights are never fetched unasked: ``timm:NAME:download`` takes timm's own from where it publishes them (kept in its
cache), ``timm:NAME:<path>`` a file of safetensors with the names that timm gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError
from gancompress.evaluation.extractors import Extractor, Progress
from gancompress.pretrained import DOWNLOAD, pretrained, refusal, settings_of, weights_hash

if TYPE_CHECKING:
    from gancompress.data.base import Dataset

__all__ = ["DINOV2", "DinoV2", "TimmFeatures"]

#: timm's name of the network that FD-DINOv2 is computed on
DINOV2 = "vit_large_patch14_dinov2.lvd142m"
#: pixels that FD-DINOv2 sees
_DINOV2_SIZE = 224


@EXTRACTORS.register("timm")
class TimmFeatures(Extractor):
    """What a network of timm computes in front of its classes, and its classes where it has any: ``timm:NAME:…``.

    Images are resized to the size that the network was trained with (bicubic, antialiased, rounded to whole numbers)
    and normalised as it was; grey ones are repeated.
    """

    label = ""
    weights_hash = ""
    resize = ""

    def __init__(self, net: nn.Module, label: str, weights_hash: str, size: int) -> None:
        config: Any = getattr(net, "pretrained_cfg", {})
        self.net, self.label, self.weights_hash, self._size = net.eval(), label, weights_hash, size
        self.resize = f"bicubic with antialiasing to {size} px"
        device = next(net.parameters()).device
        self._mean, self._std = (
            torch.tensor(config[key], dtype=torch.float32, device=device).view(1, 3, 1, 1) for key in ("mean", "std")
        )

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d) and logits (B, k); without classes k is 0."""
        device = self._mean.device
        x = images.to(device).expand(-1, 3, -1, -1).float()
        net: Any = self.net
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            size = (self._size, self._size)
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
            x = (x.clamp(0, 255).round() / 255 - self._mean) / self._std
            found: Tensor = net.forward_head(net.forward_features(x), pre_logits=True)
            head = net.get_classifier()
            logits = found[:, :0] if isinstance(head, nn.Identity) else head(found)
        return found, logits

    @classmethod
    def knows_classes(cls, option: str = "") -> bool:
        """Not those of the data."""
        return False

    @classmethod
    def classifies(cls, option: str = "") -> bool:
        """Whether the network predicts classes of its own; asked before its weights are there."""
        config = settings_of(_split(option)[0])
        return bool(config is not None and config.num_classes)

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
    ) -> TimmFeatures:
        """Build the network and load its weights.

        Raises:
            EvaluationError: there is no such network, or its weights are missing, do not fit or cannot be fetched.
        """
        reason = cls.refuses(dataset, option)
        if reason is not None:
            raise EvaluationError(f"extractor timm: {reason}")
        name, where = _split(option)
        size = int(settings_of(name).input_size[-1])
        return cls(*_built(name, where, size, device), size)


@EXTRACTORS.register("dinov2")
class DinoV2(TimmFeatures):
    """The features of FD-DINOv2 (Stein et al., Exposing flaws of generative model evaluation metrics, 2023).

    ViT-L/14 (Oquab et al., 2023), its class token, images at 224 pixels. ``dinov2:download`` fetches the weights
    through timm (1.2 GB), ``dinov2:<path>`` names a file. Timm fits the positions to 224 pixels by a filter of its own,
    so that distances may differ from the authors' in their last digits.
    """

    @classmethod
    def classifies(cls, option: str = "") -> bool:
        """Not at all."""
        return False

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why ``option`` names no weights; None when it does."""
        if not option:
            return "say where its weights come from: dinov2:download, or dinov2:weights.safetensors"
        return None if option == DOWNLOAD or Path(option).expanduser().is_file() else f"there is no file {option}"

    @classmethod
    def prepare(
        cls,
        dataset: Dataset[Any],
        *,
        option: str = "",
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> DinoV2:
        """Load the weights, see :meth:`TimmFeatures.prepare`."""
        reason = cls.refuses(dataset, option)
        if reason is not None:
            raise EvaluationError(f"extractor dinov2: {reason}")
        net, label, digest = _built(DINOV2, option, _DINOV2_SIZE, device, img_size=_DINOV2_SIZE)
        return cls(net, label.replace(DINOV2, "dinov2"), digest, _DINOV2_SIZE)


def _split(option: str) -> tuple[str, str]:
    name, _, where = option.partition(":")
    return name, where


def _built(name: str, where: str, size: int, device: torch.device | str, **more: Any) -> tuple[nn.Module, str, str]:
    """Return the network with its weights, what metrics call it, and the hash of the weights."""
    net = pretrained(name, where, EvaluationError, **more)
    found = weights_hash(net)
    return net.to(device), f"{name}-{found[:8]}", found[:16]
