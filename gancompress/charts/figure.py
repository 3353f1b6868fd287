"""A chart as a page shows it: with a heading, a line about its numbers, and a legend."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Figure", "spans_decades"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        title: heading.
        note: one line under it: what the numbers are, in which units.
        svg: the drawing.
        legend: (label, swatch as SVG) of what needs a name.
        narrow: the same drawing for a narrow window, when ``svg`` takes the whole width of a wide one; else empty.
    """

    title: str
    note: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()
    narrow: str = ""

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of a page that is wide enough."""
        return bool(self.narrow)


def spans_decades(values: Iterable[float]) -> bool:
    """Return whether positive values differ so much that a logarithmic axis shows more of them."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 10
