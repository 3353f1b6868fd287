"""LPIPS: how far apart two images are to a network.

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018. The network is
torch-fidelity's port of version 0.1 on VGG-16. Its weights are looked for, never fetched: ``vgg16-397923af.pth``,
torchvision's (528 MB), and ``weights-vgg16-lpips.pth``, torch-fidelity's, in the folder ``$GANCOMPRESS_LPIPS``, or
else in ``$TORCH_HOME/hub/checkpoints``. In place of the second the installed package ``lpips`` will do, which brings
the same numbers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gancompress.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = ["Lpips", "open_lpips", "why_no_lpips"]

VGG, LINEAR = "vgg16-397923af.pth", "weights-vgg16-lpips.pth"
VGG_URL = f"https://download.pytorch.org/models/{VGG}"
#: first digits of the SHA-256 of torchvision's file, which its name carries
VGG_SHA256_PREFIX = "397923af"
#: SHA-256 of what LPIPS multiplies squared differences by, its five tensors one after the other
LINEAR_SHA256 = "9153a2043dccf3b525d4f13db916e93ef040548ea923b6f2100de5ebac141a78"


class Lpips:
    """Distances of pairs of images.

    Attributes:
        weights_hash: of both files.
    """

    label = "lpips-vgg"

    def __init__(self, net: nn.Module, weights_hash: str) -> None:
        self._net, self.weights_hash = net, weights_hash

    def to(self, device: torch.device) -> Lpips:
        """Move it to a device."""
        self._net.to(device)
        return self

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return distances (B,) of images, 0 between equal ones.

        Args:
            a: float in [-1, 1], (B, 1 or 3, H, W), 32 pixels at least; grey ones are repeated.
            b: as many more.
        """
        pair = [(images.expand(-1, 3, -1, -1) + 1) * (255 / 2) for images in (a, b)]
        with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
            found: Tensor = self._net(*pair)
        return found.flatten()


def _folder() -> Path:
    own = os.environ.get("GANCOMPRESS_LPIPS")
    return Path(own).expanduser() if own else Path(torch.hub.get_dir()) / "checkpoints"


def _linear_file() -> Path | None:
    """Return the file of the linear weights; None where there is none."""
    if (path := _folder() / LINEAR).is_file():
        return path
    found = importlib.util.find_spec("lpips")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        if (path := Path(place) / "weights" / "v0.1" / "vgg.pth").is_file():
            return path
    return None


def why_no_lpips() -> str | None:
    """Return why LPIPS cannot be used here, and what would mend it; None when it can."""
    folder = _folder()
    if not (folder / VGG).is_file():
        return f"the weights of VGG-16 are not at {folder / VGG}: put them there from {VGG_URL}"
    if _linear_file() is None:
        return f"{LINEAR} is not in {folder}: put torch-fidelity's there, or pip install lpips"
    return None


def open_lpips() -> Lpips:
    """Read the weights.

    Raises:
        EvaluationError: a file is missing, or does not hold what it should.
    """
    linear = _linear_file()
    if (reason := why_no_lpips()) is not None or linear is None:
        raise EvaluationError(f"LPIPS: {reason}")
    vgg = _folder() / VGG
    with vgg.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(VGG_SHA256_PREFIX):
        raise EvaluationError(
            f"not the weights of VGG-16: SHA-256 must start with {VGG_SHA256_PREFIX}, is {digest[:8]}", where=str(vgg)
        )
    scales = _read(linear)
    if (found := _digest(scales)) != LINEAR_SHA256:
        raise EvaluationError(
            f"not the linear weights of LPIPS 0.1 on VGG: their hash is {found[:8]}", where=str(linear)
        )
    both = hashlib.sha256((digest + found).encode()).hexdigest()[:16]
    return Lpips(_build(_read(vgg), scales, str(vgg)), both)


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise EvaluationError(f"cannot be read as weights: {' '.join(str(error).split())}", where=str(path)) from error
    return state if isinstance(state, dict) else {}


def _digest(scales: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(scales.items()):
        digest.update(tensor.float().numpy().tobytes())
    return digest.hexdigest()


def _build(state: Mapping[str, Any], scales: Mapping[str, Any], where: str) -> nn.Module:
    """Build torch-fidelity's network. It would fetch and unpickle: hand it tensors read safely instead."""
    from torch_fidelity import sample_similarity_lpips as upstream
    from torchvision.models import vgg16

    try:
        with torch.device("meta"):
            features = vgg16().features
        mine = {name.removeprefix("features."): one for name, one in state.items() if name.startswith("features.")}
        features.load_state_dict(mine, assign=True)
        with (
            torch.random.fork_rng(devices=[]),
            mock.patch.object(upstream, "load_state_dict_from_url", return_value=dict(scales)),
            mock.patch.object(
                upstream, "torchvision_load_pretrained_vgg16", return_value=SimpleNamespace(features=features)
            ),
        ):
            net: nn.Module = upstream.SampleSimilarityLPIPS("lpips", None, None)
    except Exception as error:
        raise EvaluationError(f"cannot be read as weights of VGG-16: {error}", where=where) from error
    return net.eval()
