"""Programs as the lists of numbers that ``native/page.cpp`` reads, with the places of their tensors."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from gancompress.kernels.fusing import passes
from gancompress.kernels.native_program import BORDERS, fastest, layouts, slopes_of
from gancompress.kernels.steps import ConvStep, NormStep, QuantizeStep, SumStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gancompress.kernels import Program, Value
    from gancompress.kernels.fusing import Pass
    from gancompress.kernels.native_program import Layout
    from gancompress.web.blob import Tensors

__all__ = ["program_entry"]

#: floats in a vector of a page
_LANES = 4
_ROWS, _COLUMNS = 2, 3


def program_entry(
    program: Program,
    tensors: Tensors,
    rounded: Sequence[Tensor | None] = (),
    place: dict[int, int] | None = None,
) -> dict[str, Any]:
    """Return a program as the header of a file has it.

    Args:
        program: with an output.
        tensors: takes its tensors.
        rounded: of every convolution, in their order, the weight before norms were merged in, in numbers that are
            bfloat16; or None.
        place: the arena of every value, as planned for other sizes; planned for these without.
    """
    todo = passes(program.steps, program.outputs)
    place = program.arenas()[0] if place is None else place
    values = [*program.inputs, *(step.dst for step in program.steps)]
    possible = layouts(program.inputs, program.steps, _LANES)
    single = fastest(possible, "", 1)
    weights = iter(rounded)
    own = {id(step): next(weights, None) for step in program.steps if isinstance(step, ConvStep)}
    return {
        "batch": _values(values, place, possible[0]),
        "single": _values(values, place, single),
        "inputs": [value.index for value in program.inputs],
        "outputs": [value.index for value in program.outputs],
        "steps": [_step(one, tensors, own.get(id(one.step))) for one in todo],
    }


def _bits(value: float) -> int:
    """Return the bits of a float32 as a whole number."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _values(values: Sequence[Value], place: dict[int, int], layout: Layout) -> list[int]:
    """Return mode, number of values and of each what GcValue in native/api.h holds."""
    numbers = [layout.mode, len(values)]
    for value in values:
        channels, rows, columns = value.shape
        strips, stored = layout.strips.get(value.index, 0), value.stored
        unit = 0.0 if stored is None else stored.scale
        numbers += [
            place.get(value.index, -1), channels, rows, columns,
            strips if layout.mode == _ROWS else rows, strips if layout.mode == _COLUMNS else columns,
            int(stored is not None), 0 if stored is None else stored.zero, _bits(unit),
        ]  # fmt: skip
    return numbers


def _step(one: Pass, tensors: Tensors, rounded: Tensor | None) -> dict[str, Any]:
    """Return the numbers of a step, in the order of page.cpp's ``Numbers``, and its tensors."""
    s = one.step
    views = [s] if isinstance(s, QuantizeStep) else list(one.views)
    add = s.add if isinstance(s, ConvStep | SumStep) else ()
    sources = s.sources if isinstance(s, ConvStep) else s.reads[:1]
    n: dict[str, int] = dict.fromkeys(
        ("dst", "written", "source_count", "add_count", "view_count", "up", "border", "pre", "activation", "affine",
         "groups", "shuffle", "eps", "conv", "bytes", "transpose"), 0,
    )  # fmt: skip
    n |= {"dst": s.dst.index, "written": int(one.written), "affine": -1, "shuffle": 1, "source_count": len(sources)}
    n |= {"add_count": len(add), "view_count": len(views)}
    weight = bias = scale = shift = pre_slopes = slopes = None
    mask: Tensor | None = None
    geometry = [0] * 10
    if isinstance(s, ConvStep):
        n |= {"conv": 1, "transpose": int(s.transpose), "up": int(s.upsample), "border": BORDERS[s.border]}
        n |= {"groups": s.groups, "shuffle": s.shuffle, "affine": -1 if s.affine is None else s.affine.index}
        geometry = [*s.weight.shape, *s.stride, s.padding[0], s.padding[2], *s.dilation]
        weight, mask = s.weight, s.pattern.mask
        if s.stored is None:
            bias, scale, shift = s.bias, s.scale, s.shift
            n["pre"], pre_slopes = slopes_of(s.pre, sum(value.shape[0] for value in s.sources))
        else:
            n["bytes"] = 1
            scale, shift = s.factors()
    elif isinstance(s, NormStep):
        n |= {"groups": s.groups, "eps": _bits(s.eps)}
        scale, bias = s.weight, s.bias
    elif isinstance(s, SumStep):
        n["source_count"] = 0
        sources = ()
    if isinstance(s, ConvStep | SumStep):
        n["activation"], slopes = slopes_of(s.activation, s.dst.shape[0])
    numbers = [*n.values(), *geometry, *(value.index for value in sources)]
    for addend in add:
        numbers += [addend.value.index, _bits(addend.factor), addend.upsample]
    kept = tensors.add(weight, mask, rounded=rounded)
    given = [kept, *(tensors.add(one) for one in (bias, scale, shift, pre_slopes, slopes))]
    for view in views:
        kind, of_view = slopes_of(view.activation, view.dst.shape[0])
        affine = -1 if view.affine is None else view.affine.index
        numbers += [view.dst.index, affine, kind, _bits(1 / view.stored.scale)]
        given += [tensors.add(view.scale), tensors.add(view.shift), tensors.add(of_view)]
    return {"n": numbers, "t": given}
