"""Which CPU this is, and what was measured on it, kept in small JSON files under the user's cache directory.

A file maps machines to layers to figures. Deleting it is safe, and one that cannot be read or written costs a new
measurement per process, no more.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gancompress.storage.atomic import canonical_json, write_file
from gancompress.storage.cache import cache_directory
from gancompress.storage.reading import parse_json, read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["DENSITIES", "Figures", "crossing", "drawn", "fastest", "processor_key", "processor_name", "rounded_batch"]

#: of the sparse layers that are timed: the time of any other lies on the line through these
DENSITIES = (0.1, 0.4)
_REPEATS = 4
_LARGEST_BATCH = 32

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_NUMBERS = {"cpu family": "family", "model": "model", "stepping": "stepping"}


def processor_name() -> str:
    """Return what the maker calls the CPU; virtual machines often say less (``AMD EPYC``)."""
    return _fields(_CPUINFO).get("model name") or platform.processor() or platform.machine()


@functools.cache
def processor_key() -> str:
    """Return what tells this CPU from others: its name, family, model, stepping and cache sizes, as far as known.

    Generations that share a name differ in it, so one never uses the timings of another.
    """
    return _key(_CPUINFO, _CACHES)


def _key(cpuinfo: Path, caches: Path) -> str:
    fields = _fields(cpuinfo)
    parts = [fields.get("model name") or platform.processor() or platform.machine()]
    parts += [f"{name} {fields[field]}" for field, name in _NUMBERS.items() if field in fields]
    for cache in sorted(caches.glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((cache / file).read_text().strip() for file in ("level", "type", "size"))
            if kind != "Instruction":
                parts.append(f"L{level} {size}")
    return ", ".join(parts)


def _fields(cpuinfo: Path) -> dict[str, str]:
    """Return what the system says about the first core; nothing where there is no such file."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


class Figures:
    """Figures that are measured once per machine and layer, and known from then on.

    Args:
        name: of the file in the user's cache directory.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[str, float] = {}
        self._lock = threading.RLock()

    @property
    def file(self) -> Path:
        """JSON, machine to layer to figure. Deleting it is safe."""
        return cache_directory() / self._name

    def known(self, machine: str, layer: str) -> float | None:
        """Return what was measured before, by this process or another on this machine; None when nothing was."""
        with self._lock:
            if layer not in self._known:
                stored = self._read().get(machine, {}).get(layer)
                if isinstance(stored, (int, float)):
                    self._known[layer] = float(stored)
            return self._known.get(layer)

    def get(self, machine: str, layer: str, measure: Callable[[], float]) -> float:
        """Return what is known, or measure it and remember it."""
        with self._lock:
            known = self.known(machine, layer)
            if known is None:
                known = self._known[layer] = round(measure(), 4)
                content = self._read()
                content.setdefault(machine, {})[layer] = known
                with contextlib.suppress(OSError):
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                    write_file(self.file, canonical_json(content))
        return known

    def _read(self) -> dict[str, dict[str, object]]:
        try:
            content = parse_json(read_whole(self.file))
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in content.items() if isinstance(v, dict)}


def crossing(level: float, low: float, high: float, most: float = 1.0) -> float:
    """Return the density, in [0, ``most``], at which the line through two times reaches ``level``.

    Args:
        level: seconds of what does not depend on density.
        low: seconds at the lower of :data:`DENSITIES`.
        high: seconds at the higher.
        most: the answer where ``level`` is never reached.
    """
    slope = (high - low) / (DENSITIES[1] - DENSITIES[0])
    if slope <= 0:  # noise: sparse costs the same at any density, so compare the levels
        return most if low < level else 0.0
    return min(most, max(0.0, DENSITIES[0] + (level - low) / slope))


def drawn(shape: tuple[int, ...], density: float, random: torch.Generator, *, in_blocks: bool) -> Tensor:
    """Return a random mask to be timed.

    Args:
        shape: of the weight; both numbers of channels are even where it is drawn in blocks.
        density: share of weights kept.
        random: what it is drawn from.
        in_blocks: draw blocks of 2x2 channels, for products of pairs: of single weights most pairs would keep one.
    """
    side = 2 if in_blocks else 1
    blocks = torch.rand((shape[0] // side, shape[1] // side, *shape[2:]), generator=random) < density
    return blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)


def fastest(turns: Sequence[Callable[[], float]]) -> list[float]:
    """Return the best of a few turns each, in seconds; the first, which fills caches and builds plans, is left out."""
    taken = [[turn() for turn in turns] for _ in range(_REPEATS)]
    return [min(own) for own in zip(*taken[1:], strict=True)]


def rounded_batch(batch: int) -> int:
    """Return the batch to measure in place of this one: the times per image hardly change beyond 32."""
    return min(_LARGEST_BATCH, -(-batch // 16) * 16)
