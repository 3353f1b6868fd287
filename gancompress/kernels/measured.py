"""Which CPU this is, and what was measured on it, kept in small JSON files under the user's cache directory.

A file maps machines to layers to figures. Deleting it is safe, and one that cannot be read or written costs a new
measurement per process, no more.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from pathlib import Path

from gancompress.storage.atomic import canonical_json, write_file
from gancompress.storage.reading import parse_json, read_whole

__all__ = ["processor_key", "processor_name", "recall", "remember"]

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


def recall(file: Path, machine: str, key: str) -> float | None:
    """Return what ``file`` holds about ``key`` on ``machine``, None when that is no number."""
    stored = _read(file).get(machine, {}).get(key)
    return float(stored) if isinstance(stored, (int, float)) else None


def remember(file: Path, machine: str, key: str, value: float) -> None:
    """Add one figure to ``file``; a directory that cannot be written is left alone."""
    content = _read(file)
    content.setdefault(machine, {})[key] = value
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, canonical_json(content))


def _read(file: Path) -> dict[str, dict[str, object]]:
    try:
        content = parse_json(read_whole(file))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, dict)}
