"""Features of any network that timm has, DINOv2 among them.

Weights are never fetched unasked: ``timm:NAME:download`` takes timm's own from where it publishes them (kept in its
cache), ``timm:NAME:<path>`` a file of safetensors with the names that timm gives.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError, did_you_mean
from gancompress.evaluation.extractors import Extractor, Progress

if TYPE_CHECKING:
    from gancompress.data.base import Dataset

__all__ = ["DINOV2", "DinoV2", "TimmFeatures"]

#: timm's name of the network that FD-DINOv2 is computed on
DINOV2 = "vit_large_patch14_dinov2.lvd142m"
#: pixels that FD-DINOv2 sees
_DINOV2_SIZE = 224
_DOWNLOAD = "download"


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
        config = _config(_split(option)[0])
        return bool(config is not None and config.num_classes)

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why ``option`` is no network of timm, or names no file; None when it is and does."""
        import timm

        name, where = _split(option)
        if _config(name) is None:
            known = timm.list_models(pretrained=True)
            return f"timm has no network {name!r} with weights{did_you_mean(name, known)}"
        if where == _DOWNLOAD:
            return None
        if not where:
            return f"say where its weights come from: timm:{name}:download, or timm:{name}:weights.safetensors"
        return None if Path(where).expanduser().is_file() else f"there is no file {where}"

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
        size = int(_config(name).input_size[-1])
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
        return None if option == _DOWNLOAD or Path(option).expanduser().is_file() else f"there is no file {option}"

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


def _config(name: str) -> Any:
    """Return what timm knows of a network that has weights, None for any other."""
    import timm

    return timm.get_pretrained_cfg(name) if name and timm.is_model_pretrained(name) else None


def _built(name: str, where: str, size: int, device: torch.device | str, **more: Any) -> tuple[nn.Module, str, str]:
    """Return the network with its weights, what metrics call it, and the hash of the weights."""
    import timm

    path = None if where == _DOWNLOAD else Path(where).expanduser()
    try:
        # read by us: timm would unpickle a file of another kind
        overlay = {} if path is None else {"state_dict": load_file(path)}
        with torch.random.fork_rng(devices=[]):
            net: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **more)
    except Exception as error:
        said = " ".join(str(error).split())
        raise EvaluationError(
            f"the weights of {name} cannot be {'fetched' if path is None else 'read'}: {said}; "
            f"give them as a file of safetensors{'' if path is None else ' with the names that timm gives'}",
            where="" if path is None else str(path),
        ) from error
    digest = hashlib.sha256()
    for key, tensor in sorted(net.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return net.to(device), f"{name}-{digest.hexdigest()[:8]}", digest.hexdigest()[:16]
