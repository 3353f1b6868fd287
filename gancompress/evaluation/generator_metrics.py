"""Metrics of the generator itself: of pairs of its images, and of short ways between them."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional as F

from gancompress.components.registry import METRICS
from gancompress.errors import EvaluationError
from gancompress.evaluation.metrics import Metric, MetricResult, need
from gancompress.evaluation.perceptual import Lpips, open_lpips, why_no_lpips
from gancompress.evaluation.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.backbones.base import Generator
    from gancompress.evaluation.features import Features

__all__ = ["GeneratorMetric", "PathLength", "PerceptualDiversity", "StylePathLength", "shown_to_lpips"]

#: sizes of images that LPIPS sees: larger ones are averaged, smaller ones enlarged
_LARGEST, _SMALLEST = 256, 64


class GeneratorMetric(Metric):
    """A number, or a few, of a generator, which no set of features tells. Subclass it and register it.

    Real images and the extractor of the evaluation have no part in it: its protocol names its own network.

    Attributes:
        label: of the network that looks at the images.
        weights_hash: of that network.
        resize: how images are brought to its size.
        of_styles: it needs a generator that makes styles of latents.
    """

    label: str = ""
    weights_hash: str = ""
    resize: str = ""
    of_styles: ClassVar[bool] = False

    @classmethod
    def refuses(cls, network: Generator) -> str | None:
        """Return why ``network`` cannot be measured so; None when it can."""
        if cls.of_styles and not (hasattr(network, "styles") and hasattr(network, "synthesise")):
            return "needs a generator with styles, such as stylegan2"
        return None

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Refuse: features alone do not tell.

        Raises:
            EvaluationError: always.
        """
        raise EvaluationError(f"{type(self).__name__} is of a generator, not of features")

    @abc.abstractmethod
    def measure(self, sampler: Sampler, count: int, batch_size: int) -> list[MetricResult]:
        """Return the results, the most important first.

        Args:
            sampler: makes the images; its network is in the mode of the protocol.
            count: images of the evaluation; at least :attr:`least`.
            batch_size: images per forward pass, which the results must not depend on.

        Raises:
            EvaluationError: it cannot be computed.
        """


def shown_to_lpips(images: Tensor) -> Tensor:
    """Bring images to a size for LPIPS: beyond 256 pixels by averaging (Karras et al., 2019), up to 64 bilinear."""
    size = images.shape[-1]
    if size > _LARGEST:
        return F.interpolate(images, size=(_LARGEST, _LARGEST), mode="area")
    if size < _SMALLEST:
        return F.interpolate(images, size=(_SMALLEST, _SMALLEST), mode="bilinear", align_corners=False)
    return images


class _Perceptual(GeneratorMetric):
    label = Lpips.label
    resize = f"averaged down to {_LARGEST} px, bilinear up to {_SMALLEST} px"

    @classmethod
    def available(cls) -> str | None:
        """Return which weights are missing."""
        return why_no_lpips()

    @abc.abstractmethod
    def _pair(self, sampler: Sampler, others: Sampler, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return images ``start`` to ``stop``, and those that they are held against; ``others`` has other latents."""

    def _distances(self, sampler: Sampler, count: int, batch_size: int) -> Tensor:
        """Return LPIPS (count,) between both images of every pair, float64 on the CPU."""
        lpips = open_lpips().to(sampler.device)
        self.weights_hash = lpips.weights_hash
        others = Sampler(sampler.network, seed=sampler.seed, stream="path")
        distances = []
        for start in range(0, count, batch_size):
            pair = self._pair(sampler, others, start, min(start + batch_size, count))
            distances.append(lpips(*map(shown_to_lpips, pair)).double().cpu())
        return torch.cat(distances)


@METRICS.register("ppl")
class PathLength(_Perceptual):
    """Perceptual path length (Karras et al., A Style-Based Generator Architecture, 2019, section 4.1), in Z.

    A latent is moved by a ten-thousandth of the way to another one, linearly: LPIPS between both images over the
    square of that share, its mean without the lowest and the highest hundredth. Lower is smoother. Published
    numbers mix spaces (Z or W, linear or spherical), places on the way and crops: compare within a protocol alone.
    Images are not cropped; an image's way leads to the same other one whatever the batch size.
    """

    key, name, space = "ppl", "PPL", "Z, linear"
    epsilon = 1e-4
    #: shares of the distances that are left out at both ends
    outside = 0.01

    def measure(self, sampler: Sampler, count: int, batch_size: int) -> list[MetricResult]:
        """Return one result."""
        need(count, self.least, "perceptual path length")
        lengths = self._distances(sampler, count, batch_size) / self.epsilon**2
        value, spread = _trimmed(lengths, self.outside)
        settings = f"{self.space}, from each image 1e-4 of the way, without 1 % at both ends"
        return [MetricResult(self.key, self.name, value, "lower", spread, settings)]

    def _pair(self, sampler: Sampler, others: Sampler, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return images ``start`` to ``stop`` and what they are a little way further."""
        z, far = sampler.latents(start, stop), others.latents(start, stop)
        moved = torch.lerp(z, far, self.epsilon)
        return sampler.images(start, stop), sampler.images(start, stop, latents=moved)


@METRICS.register("ppl-w")
class StylePathLength(PathLength):
    """Perceptual path length among styles, from their ends: what StyleGAN2 publishes (Karras et al., 2020, section 3).

    As ``ppl``, but styles are moved and not latents: W, linear, ``ppl2_wend`` without a crop. Noise is constant. For
    generators with styles.
    """

    key, name, space = "ppl-w", "PPL (W, ends)", "W, linear"
    of_styles = True

    def _pair(self, sampler: Sampler, others: Sampler, start: int, stop: int) -> tuple[Tensor, Tensor]:
        network: Any = sampler.network
        labels = sampler.labels(start, stop)
        here, far = (network.styles(one.latents(start, stop), labels) for one in (sampler, others))
        return network.synthesise(here).float(), network.synthesise(torch.lerp(here, far, self.epsilon)).float()


@METRICS.register("lpips")
class PerceptualDiversity(_Perceptual):
    """LPIPS diversity (cf. Zhu et al., Toward Multimodal Image-to-Image Translation, 2017, section 5.3).

    The mean LPIPS between two generated images, of one class where there are classes. Higher is more varied; 0 is a
    generator that makes one image. It knows nothing of real images, and noise is varied too: read it beside a distance.
    """

    def measure(self, sampler: Sampler, count: int, batch_size: int) -> list[MetricResult]:
        """Return one result, ``lpips``."""
        need(count, self.least, "LPIPS diversity")
        found = self._distances(sampler, count, batch_size)
        settings = f"{count:,} pairs" + (" of one class each" if len(sampler.cycle) else "")
        return [MetricResult("lpips", "LPIPS diversity", float(found.mean()), "higher", float(found.std()), settings)]

    def _pair(self, sampler: Sampler, others: Sampler, start: int, stop: int) -> tuple[Tensor, Tensor]:
        labels = sampler.labels(start, stop)
        return sampler.images(start, stop, labels), others.images(start, stop, labels)


def _trimmed(values: Tensor, outside: float) -> tuple[float, float]:
    """Return mean and standard deviation of the values from the ``outside`` quantile on to that at the other end."""
    low = torch.quantile(values, outside, interpolation="lower")
    high = torch.quantile(values, 1 - outside, interpolation="higher")
    kept = values[(values >= low) & (values <= high)]
    return float(kept.mean()), float(kept.std(correction=0))
