"""How the numbers that a convolution reads are held in bytes: what was seen of them, and what is chosen by it."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.kernels import Quantized

__all__ = ["PERCENTILE", "RULES", "LayerBytes", "RangeRule", "Seen", "choose"]

#: how ends are chosen: the largest numbers that were seen; those that the share :data:`PERCENTILE` lies between; or
#: those with the least squared error, each channel counted as much as the weights make of it
RangeRule: TypeAlias = Literal["max", "percentile", "mse"]
RULES: tuple[str, ...] = get_args(RangeRule)

#: in percent; of the numbers that are not 0, which every range holds exactly
PERCENTILE = 99.99

_BINS = 256
#: shares of the largest number that are tried for the least squared error
_TRIED = 48
_BYTES = 255


@dataclasses.dataclass(frozen=True)
class LayerBytes:
    """How a convolution computes in bytes.

    Attributes:
        stored: what it reads.
        exponents: for every channel of that, the power of two that it is divided by before, and its weights multiplied
            by; empty where all are 0. Powers of two, so that no number is rounded by it.
    """

    stored: Quantized
    exponents: tuple[int, ...] = ()

    @property
    def factors(self) -> Tensor | None:
        """What weights are multiplied by, ``(C,)`` float32."""
        return torch.tensor(self.exponents, dtype=torch.float32).exp2() if self.exponents else None


class Seen:
    """What was seen of the numbers that a convolution reads: first their ends, then how they lie between these.

    Args:
        channels: how many there are.
    """

    def __init__(self, channels: int) -> None:
        self.low, self.high = torch.zeros(channels), torch.zeros(channels)
        #: numbers per channel, and the sum of their squares
        self.count, self.squares = 0, torch.zeros(channels, dtype=torch.float64)
        self._bins: Tensor | None = None

    def widen(self, x: Tensor) -> None:
        """Take the ends of ``[N, C, H, W]`` in.

        Raises:
            ExportError: a number is not finite.
        """
        rows = x.transpose(0, 1).flatten(1)
        low, high = torch.aminmax(rows, dim=1)
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise ExportError("a calibration input gives NaN or infinite numbers inside of the network")
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count += rows.shape[1]
        self.squares += rows.double().square().sum(1)

    def fill(self, x: Tensor) -> None:
        """Count numbers between the ends, which are known by now."""
        rows = x.transpose(0, 1).flatten(1)
        width = (self.high - self.low).clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        places = ((rows - self.low[:, None]) / width * _BINS).long().clamp(0, _BINS - 1)
        places += torch.arange(len(rows))[:, None] * _BINS
        found = torch.bincount(places[rows != 0], minlength=len(rows) * _BINS).reshape(-1, _BINS)
        self._bins = found if self._bins is None else self._bins + found

    @property
    def empty(self) -> bool:
        """Whether nothing but zeros was seen."""
        return not bool((self.high - self.low).any())

    @property
    def power(self) -> Tensor:
        """The mean square of every channel, ``(C,)`` float64."""
        return self.squares / max(self.count, 1)

    def numbers(self, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return numbers and how often each was seen, ``(C, bins)`` float64, divided by ``factors`` per channel."""
        assert self._bins is not None
        places = (torch.arange(_BINS, dtype=torch.float64) + 0.5) / _BINS
        centres = self.low.double()[:, None] + (self.high - self.low).double()[:, None] * places
        return centres if factors is None else centres / factors.double()[:, None], self._bins.double()


def choose(seen: Seen, rule: RangeRule, importance: Tensor, factors: Tensor | None = None) -> tuple[Quantized, float]:
    """Choose the bytes for what was seen; return the error too, as a convolution's result has it.

    Args:
        seen: not empty.
        rule: how ends are chosen.
        importance: what a squared error of each channel counts, ``(C,)``.
        factors: what each channel is divided by, ``(C,)``.
    """
    ends = torch.stack((seen.low, seen.high)).double()
    low, high = (ends if factors is None else ends / factors.double()).unbind()
    least, most = float(low.min()), float(high.max())
    numbers, counts = seen.numbers(factors)
    weights = (counts / max(seen.count, 1) * importance.double()[:, None]).flatten()
    kept = (counts > 0).flatten()
    numbers, counts, weights = numbers.flatten()[kept], counts.flatten()[kept], weights[kept]
    if rule == "percentile":
        # of all that is not 0, as many may lie below the one end as above the other
        order = numbers.argsort()
        below = counts[order].cumsum(0) / counts.sum()
        share = (1 - PERCENTILE / 100) / (2 if least < 0 < most else 1)
        found = numbers[order]
        if least < 0:
            least = max(least, float(found[(below > share).nonzero()[0, 0]]))
        if most > 0:
            most = min(most, float(found[(below < 1 - share).sum().clamp_max(len(found) - 1)]))
    tried = torch.linspace(1, 0.25, _TRIED if rule == "mse" else 1, dtype=torch.float64)
    lows, highs = tried * min(least, 0.0), tried * max(most, 0.0)
    past = [
        (weights * (sign * (numbers - ends[:, None])).clamp_min(0).square()).sum(1)
        for sign, ends in ((-1, lows), (1, highs))
    ]
    steps = (highs - lows[:, None]) / _BYTES
    errors = past[0][:, None] + past[1] + weights.sum() * steps.square() / 12
    at, place = divmod(int(errors.argmin()), len(tried))
    scale = float(steps[at, place].float())  # what the kernels multiply by is a float32
    return Quantized(scale, min(round(-float(lows[at]) / scale), _BYTES)), float(errors[at, place])
