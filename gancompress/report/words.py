"""Numbers as people read them. Every rounding of a report happens here; nothing is ever rounded up to look better."""

from __future__ import annotations

import math
from typing import Any

from gancompress import errors
from gancompress.units import size

__all__ = ["count", "density", "duration", "metric_value", "plain_reason", "quantity", "ratio", "scaled", "size"]


def scaled(value: float) -> str:
    """Return four significant digits with a unit prefix: ``950``, ``12.35 k``, ``1.681 G``, ``3.2 P``."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g} {unit}"
    return f"{value:.4g}"


def count(value: float) -> str:
    """Return an exact integer with thousands separated: ``1,052,416``."""
    return f"{round(value):,}"


def duration(seconds: float) -> str:
    """Return a time with the precision that suits it: ``1.24 ms``, ``38.2 s``, ``3 min 08 s``, ``2 h 05 min``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def density(value: float) -> str:
    """Return a density with five significant digits, so that asked and exact can be told apart: ``0.19998``."""
    return f"{value:.5g}"


def ratio(value: float) -> str:
    """Return a share of dense cost: ``0.2021×``."""
    return f"{value:.4g}×"


def metric_value(value: Any, std: Any = None) -> str:
    """Return a metric and its spread, ``12.41 ± 0.08``; what is not a finite number is said in words."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "not finite"
    spread = f" ± {std:.2g}" if isinstance(std, int | float) and math.isfinite(std) else ""
    return f"{value:.4g}{spread}"


def plain_reason(reason: str) -> str:
    """Return why a run stopped on one line, without the names that our own errors have in Python."""
    name, colon, text = reason.partition(": ")
    ours = name == "InvalidRecipeError" or name in errors.__all__
    return " ".join((text if colon and ours else reason).split())


def quantity(key: str, value: Any) -> str:
    """Return a value of ``cost.json`` with the unit that its key names.

    Args:
        key: the last part says what it is: ``bytes``, ``seconds``, ``ratio``, ``density``, ``speedup``.
        value: anything that JSON holds.
    """
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(quantity(key, item) for item in value)
    if not isinstance(value, int | float):
        return str(value)
    words = key.lower().replace(".", "_").split("_")
    for names, write in (
        (("ratio", "relative", "share"), ratio),
        (("bytes",), size),
        (("milliseconds", "ms"), lambda milliseconds: duration(milliseconds / 1e3)),
        (("seconds", "time", "latency"), duration),
        (("density",), density),
        (("speedup", "smaller", "faster"), ratio),
    ):
        if any(name in words for name in names) and value >= 0:
            return write(value)
    return count(value) if isinstance(value, int) and abs(value) < 1e9 else scaled(value)
