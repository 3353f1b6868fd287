"""What the native kernels do in one pass: a step, with the bytes that others make of its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gancompress.kernels.steps import ConvStep, QuantizeStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.kernels.steps import Step, Value

__all__ = ["Pass", "arenas", "passes"]

_MOST_VIEWS = 3


@dataclass(frozen=True)
class Pass:
    """One step for the kernels.

    Attributes:
        step: what is computed.
        views: quantize steps of its result that are fused behind it.
        written: whether its own result is wanted, too.
    """

    step: Step
    views: tuple[QuantizeStep, ...] = ()
    written: bool = True

    @property
    def writes(self) -> tuple[Value, ...]:
        """All that it writes."""
        return (*([self.step.dst] if self.written else []), *(view.dst for view in self.views))


def passes(steps: Sequence[Step], outputs: Sequence[Value]) -> list[Pass]:
    """Fuse what makes bytes with the convolutions of bytes whose results it takes.

    Args:
        steps: of a program.
        outputs: what it returns.
    """
    made: list[Pass] = []
    fused: set[int] = set()
    for step in steps:
        if step.dst.index in fused:
            continue
        if not isinstance(step, ConvStep) or step.stored is None:
            made.append(Pass(step))
            continue
        readers = [other for other in steps if step.dst in other.reads]
        views = tuple(other for other in readers if isinstance(other, QuantizeStep))[:_MOST_VIEWS]
        fused |= {view.dst.index for view in views}
        made.append(Pass(step, views, len(views) < len(readers) or not views or step.dst in outputs))
    return made


def arenas(inputs: Sequence[Value], todo: Sequence[Pass], outputs: Sequence[Value]) -> tuple[dict[int, int], list[int]]:
    """Plan the memory of a program.

    Args:
        inputs: of the program.
        todo: all of its passes.
        outputs: what it returns.

    Returns:
        Which arena every value lives in that is written, and the 32-bit words per image of every arena.
    """
    last = {value.index: -1 for value in inputs}
    for i, one in enumerate(todo):
        for value in (*one.step.reads, *one.writes):
            last[value.index] = i
    for value in outputs:
        last[value.index] = len(todo)
    sizes, free = [value.words for value in inputs], list[int]()
    place = {value.index: i for i, value in enumerate(inputs)}
    for i, one in enumerate(todo):
        for value in one.writes:
            need = value.words
            # The smallest free arena that is large enough, else the largest one, grown.
            fits = sorted(free, key=lambda a: (sizes[a] < need, sizes[a] if sizes[a] >= need else -sizes[a]))
            if fits:
                free.remove(fits[0])
                sizes[fits[0]] = max(sizes[fits[0]], need)
            else:
                sizes.append(need)
            place[value.index] = fits[0] if fits else len(sizes) - 1
        done = {value.index for value in (*one.step.reads, *one.writes) if last[value.index] == i}
        free.extend(place[index] for index in sorted(done))
    return place, sizes
