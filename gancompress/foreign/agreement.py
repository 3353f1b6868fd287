"""How near a compressed network stays to the whole one, in the measure of what it makes."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gancompress.foreign.calibration import Inputs

__all__ = [
    "Agreement",
    "agreement",
    "first_output",
    "is_image",
    "is_sound",
    "log_spectral_distance",
    "measured",
    "psnr",
    "snr",
]

#: of the short-time Fourier transform, in samples
_WINDOW, _HOP = 1024, 256
_LEAST = 1e-5


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One measure, over some inputs.

    Attributes:
        name: of the measure.
        unit: of its values, may be empty.
        values: one per input.
        higher_is_better: whether more is nearer.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    higher_is_better: bool

    @property
    def mean(self) -> float:
        """Over the inputs."""
        return math.fsum(self.values) / len(self.values)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        lowest, highest = min(self.values), max(self.values)
        spread = f" ({lowest:.4g} to {highest:.4g})" if len(self.values) > 1 else ""
        return f"{self.name} {self.mean:.4g}{unit}{spread}"


def agreement(
    whole: Callable[..., Any], compressed: Callable[..., Any], inputs: Sequence[Inputs], pixels: tuple[float, float]
) -> list[Agreement]:
    """Compare the outputs of two networks.

    Images, (N, 1 or 3, H, W), by their PSNR, cut to what pixels can be; sound, (N, 1, T), by its signal-to-noise ratio
    and log-spectral distance; anything else by the relative error.

    Args:
        whole: what is held to be right.
        compressed: takes the same inputs.
        inputs: one call each.
        pixels: black and white, of images.
    """
    measures: dict[str, tuple[str, bool, list[float]]] = {}

    def add(name: str, unit: str, better: bool, value: float) -> None:
        measures.setdefault(name, (unit, better, []))[2].append(value)

    for given in inputs:
        with torch.no_grad():
            pair = [first_output(network(*given)) for network in (whole, compressed)]
        wanted, found = pair
        if is_image(wanted):
            add("PSNR to dense", "dB", True, psnr(wanted, found, pixels))
        elif is_sound(wanted):
            add("SNR to dense", "dB", True, snr(wanted, found))
            add("log-spectral distance to dense", "dB", False, log_spectral_distance(wanted, found))
        else:
            add("relative error to dense", "", False, float((wanted - found).norm() / wanted.norm().clamp_min(1e-30)))
    return [Agreement(name, unit, tuple(values), better) for name, (unit, better, values) in measures.items()]


def is_image(x: Tensor) -> bool:
    """Whether it is images, (N, 1 or 3, H, W)."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def is_sound(x: Tensor) -> bool:
    """Whether it is waves, (N, 1, T)."""
    return x.dim() == 3 and x.shape[1] == 1


def psnr(wanted: Tensor, found: Tensor, pixels: tuple[float, float] = (0.0, 1.0)) -> float:
    """Return the peak signal-to-noise ratio in dB of images, cut to the range of ``pixels``."""
    low, high = pixels
    mean = float((wanted.clamp(low, high).double() - found.clamp(low, high).double()).square().mean())
    return 10 * math.log10((high - low) ** 2 / mean) if mean else math.inf


def snr(wanted: Tensor, found: Tensor) -> float:
    """Return the signal-to-noise ratio in dB."""
    noise = float((wanted.double() - found.double()).square().sum())
    signal = float(wanted.double().square().sum())
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def log_spectral_distance(wanted: Tensor, found: Tensor) -> float:
    """Return the mean over time of the root mean square difference of log magnitudes, in dB; waves (N, 1, T)."""
    window = torch.hann_window(_WINDOW, dtype=torch.float64)
    spectra = []
    for wave in (wanted, found):
        flat = wave.double().reshape(-1, wave.shape[-1])
        if flat.shape[-1] < _WINDOW:
            flat = torch.nn.functional.pad(flat, (0, _WINDOW - flat.shape[-1]))
        magnitude = torch.stft(flat, _WINDOW, _HOP, window=window, center=False, return_complex=True).abs()
        spectra.append(20 * magnitude.clamp_min(_LEAST).log10())
    return float((spectra[0] - spectra[1]).square().mean(1).sqrt().mean())


def measured(output: Tensor) -> Tensor:
    """Return what of an output is to change little, in the sum of squares, for others to hear or see no difference.

    Of sound, the short-time spectrum over the root of its magnitude: quiet sounds are heard beside loud ones. Else
    itself.
    """
    if not is_sound(output) or output.shape[-1] < _WINDOW:
        return output
    window = torch.hann_window(_WINDOW, dtype=output.dtype)
    spectrum = torch.stft(output.flatten(0, 1), _WINDOW, _HOP, window=window, center=False, return_complex=True)
    return torch.view_as_real(spectrum) / spectrum.detach().abs().clamp_min(_LEAST).sqrt()[..., None]


def first_output(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the first of what a network gives, which agreement is measured on."""
    return outputs[0] if isinstance(outputs, tuple) else outputs
