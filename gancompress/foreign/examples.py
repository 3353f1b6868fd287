"""What two networks make of the same inputs, to be looked at and listened to: pictures, spectrograms and sound."""

from __future__ import annotations

import dataclasses
import io
import math
import wave
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from gancompress.foreign.agreement import is_image, is_sound
from gancompress.foreign.calibration import windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.foreign.calibration import Inputs
    from gancompress.graphs.build import CapturedModule

__all__ = ["RATE", "Example", "examples", "pieces"]

#: samples per second that sound is played with, when nothing says it
RATE = 22050
#: inputs shown, pixels along a side of what is made of them, and samples of sound
_SHOWN, _SIDE, _SAMPLES = 3, 384, 5 * RATE
#: size of an input's piece along every open axis while it is not known what the network makes of it
_TRIED = 96
_WINDOW, _HOP = 1024, 256
#: decibels below the loudest that a spectrogram shows, and its size in pixels
_RANGE, _PIXELS = 80.0, (420, 200)
#: colors of a spectrogram from quiet to loud
_COLORS = ((0, 0, 24), (60, 20, 110), (160, 45, 120), (235, 105, 70), (254, 190, 90), (252, 253, 200))


@dataclasses.dataclass(frozen=True)
class Example:
    """One input, or a piece of it, and what is made of it.

    Attributes:
        pictures: a title and a PNG each.
        sounds: a title and a WAV each.
    """

    pictures: tuple[tuple[str, bytes], ...]
    sounds: tuple[tuple[str, bytes], ...] = ()


def pieces(whole: CapturedModule, inputs: Sequence[Inputs]) -> list[Inputs]:
    """Return pieces of the first few inputs of which a network makes pictures and sounds of a size to be shown."""
    chosen = [tuple(x[:1] if one.shape and isinstance(one.shape[0], str) else x
                    for one, x in zip(whole.captured.inputs, given, strict=True))
              for given in inputs[:_SHOWN]]  # fmt: skip
    tried = windows(chosen[:1], whole.captured, _TRIED, 1)[0]
    made = _first(whole, tried)
    if made.dim() < 3:
        return chosen
    scale = made.shape[-1] / max(1, max(x.shape[-1] for x in tried))
    most = _SIDE if made.dim() == 4 else _SAMPLES
    # of 32, because many networks halve their inputs several times
    size = max(32, int(most / scale) // 32 * 32) if scale else _TRIED
    return windows(chosen, whole.captured, size, len(chosen))


def examples(
    whole: CapturedModule, compressed: CapturedModule, inputs: Sequence[Inputs], pixels: tuple[float, float],
    rate: int = RATE,
) -> list[Example]:  # fmt: skip
    """Show what networks make of inputs, where that is an image or sound; see :func:`pieces`.

    Args:
        whole: what is held to be right.
        compressed: takes the same inputs.
        inputs: one call each.
        pixels: black and white of images.
        rate: samples per second of sound.
    """
    found = []
    for given in pieces(whole, inputs) if inputs else ():
        wanted, made = _first(whole, given), _first(compressed, given)
        if is_image(wanted):
            found.append(_images(given, wanted[0], made[0], pixels))
        elif is_sound(wanted):
            found.append(_sounds(wanted[0, 0], made[0, 0], rate))
    return found


def _first(network: CapturedModule, given: Inputs) -> Tensor:
    with torch.no_grad():
        first: Tensor = network.compute(given)[0]
    return first.float()


# --------------------------------------------------------------------------- images


def _images(given: Inputs, wanted: Tensor, made: Tensor, pixels: tuple[float, float]) -> Example:
    low, high = pixels
    shown = [("input", x[0]) for x in given if is_image(x)][:1]
    shown += [("dense", wanted), ("compressed", made)]
    pictures = [(title, _png((image.clamp(low, high) - low) / (high - low))) for title, image in shown]
    apart = (wanted.clamp(low, high) - made.clamp(low, high)).abs() / (high - low)
    times = _enlarged(apart)
    return Example((*pictures, (f"difference × {times}", _png((apart * times).clamp(0, 1)))))


def _enlarged(apart: Tensor) -> int:
    """Return the power of two that makes nearly all of a difference of 0 to 1 visible and cuts none of that off."""
    most = float(apart.flatten().kthvalue(max(1, math.ceil(0.999 * apart.numel()))).values)
    return 2 ** min(8, int(math.log2(1 / most))) if most else 1


def _png(image: Tensor) -> bytes:
    """Return an image of 0 to 1, (1 or 3, H, W)."""
    array = (image.nan_to_num(0) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0]).save(content, "PNG", optimize=True)
    return content.getvalue()


# --------------------------------------------------------------------------- sound


def _sounds(wanted: Tensor, made: Tensor, rate: int) -> Example:
    loudest = max(float(wanted.abs().max()), 1e-9)
    levels = [_decibels(one) for one in (wanted, made)]
    top = float(levels[0].max())
    shown = [("dense", (levels[0] - top) / _RANGE + 1), ("compressed", (levels[1] - top) / _RANGE + 1)]
    floor = top - _RANGE
    apart = (levels[0].clamp_min(floor) - levels[1].clamp_min(floor)).abs()
    shown.append((f"difference, 0 to {_RANGE / 2:g} dB", apart / (_RANGE / 2)))
    pictures = tuple((title, _spectrogram(level)) for title, level in shown)
    return Example(pictures, (("dense", _wav(wanted, loudest, rate)), ("compressed", _wav(made, loudest, rate))))


def _decibels(sound: Tensor) -> Tensor:
    """Return magnitudes over frequency and time, (F, T)."""
    whole = torch.nn.functional.pad(sound, (0, max(0, _WINDOW - len(sound))))
    spectrum = torch.stft(whole, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), center=False, return_complex=True)
    return 20 * spectrum.abs().clamp_min(1e-7).log10()


def _spectrogram(level: Tensor) -> bytes:
    """Return a picture of levels of 0 to 1, (F, T), low frequencies at the bottom."""
    colors = torch.tensor(_COLORS, dtype=torch.float32) / 255
    place = level.clamp(0, 1).flip(0) * (len(colors) - 1)
    below = place.long().clamp(max=len(colors) - 2)
    share = (place - below)[..., None]
    picture = (colors[below] * (1 - share) + colors[below + 1] * share).permute(2, 0, 1)
    width, height = _PIXELS
    return _png(torch.nn.functional.interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0])


def _wav(sound: Tensor, loudest: float, rate: int) -> bytes:
    """Return 16 bits a sample; both sounds of a pair are scaled alike, so that their loudness can be compared."""
    scale = 32767 * 0.9 / loudest if loudest > 1 else 32767
    samples = (sound.nan_to_num(0) * scale).clamp(-32768, 32767).to(torch.int16)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.numpy().astype("<i2").tobytes())
    return content.getvalue()
