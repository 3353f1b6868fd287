"""The Inception network of FID, as torch-fidelity ports it from the TensorFlow graph of 2015-12-05.

Its weights (96 MB) are looked for, never fetched unasked: ``$GANCOMPRESS_INCEPTION``, then
``$TORCH_HOME/hub/checkpoints``. ``inception:download`` fetches them, ``inception:<path>`` names the file. On a CPU
core it takes about 0.2 s an image.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError
from gancompress.evaluation.extractors import Extractor, Progress
from gancompress.storage.atomic import whole_file

if TYPE_CHECKING:
    from gancompress.data.base import Dataset

__all__ = ["Inception", "weights_path"]

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
#: first digits of the file's SHA-256, which its name carries
SHA256_PREFIX = "6726825d"


def weights_path() -> Path:
    """Return where the weights are expected: ``$GANCOMPRESS_INCEPTION`` or torch's hub directory."""
    own = os.environ.get("GANCOMPRESS_INCEPTION")
    return Path(own).expanduser() if own else Path(torch.hub.get_dir()) / "checkpoints" / FILE


@EXTRACTORS.register("inception")
class Inception(Extractor):
    """Inception v3 features (2048, average pool) and unbiased logits (1008). Grey images are repeated to RGB."""

    official = True
    resize = "bilinear to 299 px as in TensorFlow 1"
    label = "inception"
    weights_hash = ""

    def __init__(self, net: nn.Module, weights_hash: str) -> None:
        self.net = net
        self.weights_hash = weights_hash

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 2048) and unbiased logits (B, 1008)."""
        device = next(self.net.parameters()).device
        colour = images.to(device).expand(-1, 3, -1, -1)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            features, logits = self.net(colour)
        return features, logits

    @classmethod
    def available(cls) -> str | None:
        """Return why Inception cannot be used here: no weights file."""
        path = weights_path()
        return None if path.is_file() else f"Inception's weights are not at {path}"

    @classmethod
    def knows_classes(cls, option: str = "") -> bool:
        """Not at all: its classes are ImageNet's."""
        return False

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why the file that ``option`` names holds no weights of Inception; None when it does."""
        if option in ("", "download"):
            return None
        path = Path(option).expanduser()
        if not path.is_file():
            return f"there is no file {path}"
        return None if _digest(path).startswith(SHA256_PREFIX) else f"{path} does not hold Inception's weights"

    @classmethod
    def prepare(
        cls,
        dataset: Dataset[Any],
        *,
        option: str = "",
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Inception:
        """Load the weights.

        The option ``download`` fetches them if they are missing; any other is the path of the file.

        Raises:
            EvaluationError: the file is missing, altered or no weights of Inception, or cannot be fetched.
        """
        path = Path(option).expanduser() if option not in ("", "download") else weights_path()
        if not path.is_file():
            if option != "download":
                raise EvaluationError(
                    f"Inception's weights are not at {path}: put {FILE} there, ask for 'inception:download', "
                    "or use the extractor 'classifier'"
                )
            _download(path)
        digest = _digest(path)
        if not digest.startswith(SHA256_PREFIX):
            raise EvaluationError(
                f"not Inception's weights: SHA-256 must start with {SHA256_PREFIX}, is {digest[:8]}", where=str(path)
            )
        return cls(_build(path).to(device), digest[:16])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(path: Path) -> nn.Module:
    """Build torch-fidelity's network. It would unpickle anything in the file: hand it tensors read safely instead."""
    from torch_fidelity import feature_extractor_inceptionv3 as upstream

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with (
            torch.random.fork_rng(devices=[]),
            mock.patch.object(upstream, "load_state_dict_from_url", return_value=state),
        ):
            net: nn.Module = upstream.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    except Exception as error:
        raise EvaluationError(f"cannot be read as Inception's weights: {error}", where=str(path)) from error
    return net


def _download(path: Path) -> None:
    """Fetch the weights to ``path``; the file appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            torch.hub.download_url_to_file(URL, str(aside), hash_prefix=SHA256_PREFIX, progress=False)
    except (OSError, RuntimeError) as error:
        raise EvaluationError(
            f"Inception's weights cannot be fetched ({error}): put {FILE} at {path}, or use the extractor 'classifier'"
        ) from error
