"""A planned network handed to the native kernels: how its images lie in memory, and its steps as the kernels take them.

Sixteen images of a batch lie side by side, so that a vector holds one pixel of many images. Of a small batch, one
image at a time is cut into strips, along its rows or its columns, as many as a vector has lanes: a vector then holds
one pixel of every strip, and the same kernel runs. Where the sizes of a network do not let all its maps be cut alike,
or the maps are too small for it, pixels of one row fill the lanes instead, in a kernel of its own; or sixteen outputs
do, where a weight keeps and drops them as one.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import KernelError
from gancompress.kernels import native_library as native
from gancompress.kernels.native_library import BATCH, COLUMNS, DIRECT, FLAT, PHASED, ROWS, Library
from gancompress.kernels.pattern import OUTPUTS_IN_LANES, Pattern, blocks_of_outputs
from gancompress.kernels.steps import ConvStep, NormStep, QuantizeStep, SumStep
from gancompress.kernels.upsampling import fold_upsampling
from gancompress.kernels.words import words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.kernels.fusing import Pass
    from gancompress.kernels.pattern import Plan
    from gancompress.kernels.steps import Activation, Step, Value

__all__ = ["BORDERS", "Layout", "NativeProgram", "fastest", "is_native", "layouts", "merged", "slopes_of"]

#: The largest stride that the kernels take.
_LARGEST_STRIDE = 16
#: Batches up to this size go image by image: the kernel works on whole vectors, which hold 16, 8 or 4 images.
_SINGLE_UP_TO = {"amx": 8, "avx512vnni": 8, "avx512": 8, "avxvnni": 4, "avx2": 4}
_SINGLE_ELSEWHERE = 2
#: Largest share of work that strips may add, along rows and along columns. At no waste, rows take 0.6 to 0.8 of the
#: time of pixels in the lanes, on maps of 8x8 to 128x128; columns gain on signals only (0.6), and lose on small maps.
_MOST_WASTE = {ROWS: 0.1, COLUMNS: 0.35}
#: Share of products with zeros that outputs side by side may add. With AVX2 these take 0.75 of the time of pixels in
#: the lanes at density 0.2 and 0.65 on maps of 4x4, and gain nothing on large maps that keep less, where bringing
#: pixels together is what takes the time.
_MOST_ZEROS = 0.2
_SMALL_MAP = 64
_ENOUGH_KEPT = 0.15
#: Instruction sets with which outputs that share what they read are as fast as outputs side by side, or faster. With
#: 256 channels on a Zen 4 they take 0.90 of the time in float32 on maps that are not small, at density 0.2 (as much at
#: 0.05), and 0.86 to 0.88 in int8 on maps of any size.
_SHARING = ("avx512", "avx512vnni", "amx")
#: Activations and borders by name, as numbers of the interface.
_SMOOTH = {"tanh": 3, "sigmoid": 4, "silu": 5}
BORDERS = {"zeros": 0, "reflect": 1, "replicate": 2}


def is_native(step: Step) -> bool:
    """Whether the native kernels have the step."""
    if isinstance(step, ConvStep) and step.stored is None and any(add.value.stored is not None for add in step.add):
        return False
    return not isinstance(step, ConvStep) or max(step.stride) <= _LARGEST_STRIDE


@dataclass(frozen=True)
class Layout:
    """How the images of a program lie in memory.

    Attributes:
        mode: ``BATCH``, ``FLAT``, ``ROWS`` or ``COLUMNS``.
        strips: the rows or columns that a lane holds of every value, where one image is cut.
        waste: work that strips add, as a share of what there is.
    """

    mode: int
    strips: dict[int, int] = field(default_factory=dict)
    waste: float = 0.0


def layouts(inputs: Sequence[Value], steps: Sequence[Step], lanes: int) -> list[Layout]:
    """Return all layouts that a program can have, those with strips last.

    Args:
        inputs: of the program.
        steps: of the program.
        lanes: of a vector.
    """
    found = [Layout(BATCH), Layout(FLAT)]
    for mode, axis in ((ROWS, 0), (COLUMNS, 1)):
        strips = _strips(inputs, steps, axis, lanes)
        if strips is not None:
            found.append(Layout(mode, strips, _waste(steps, strips, axis, lanes)))
    return found


def fastest(possible: Sequence[Layout], isa: str, batch: int) -> Layout:
    """Choose the layout for a batch, by what was measured."""
    if batch > _SINGLE_UP_TO.get(isa, _SINGLE_ELSEWHERE):
        return possible[0]
    cuts = possible[2:]
    if any(cut.mode == ROWS and cut.waste < 1 for cut in cuts):  # not a signal
        cuts = [cut for cut in cuts if cut.mode == ROWS]
    return next((cut for cut in cuts if cut.waste <= _MOST_WASTE[cut.mode]), possible[1])


def _strips(inputs: Sequence[Value], steps: Sequence[Step], axis: int, lanes: int) -> dict[int, int] | None:
    """Return the rows (axis 0) or columns that a lane holds of every value, None where they cannot be cut alike."""
    scale = {value.index: Fraction(value.shape[1 + axis], inputs[0].shape[1 + axis]) for value in inputs}
    size = {value.index: value.shape[1 + axis] for value in (*inputs, *(step.dst for step in steps))}
    whole = 1  # what lanes hold has to be divisible by, in pixels of scale 1
    for step in steps:
        if isinstance(step, ConvStep):
            own = {scale[value.index] for value in step.sources}
            if len(own) != 1:
                return None
            (here,) = own
            here = here * 2 if step.upsample else here
            here = here * step.stride[axis] if step.transpose else here / step.stride[axis]
            whole = math.lcm(whole, here.denominator)
            here = here * step.shuffle
        else:
            here = scale[step.reads[0].index]
            here = here * step.add[0].upsample if isinstance(step, SumStep) else here
        for addend in step.add if isinstance(step, ConvStep | SumStep) else ():
            if scale[addend.value.index] * addend.upsample != here:
                return None
        scale[step.dst.index] = here
    whole = math.lcm(whole, *(own.denominator for own in scale.values()))
    base = max(-(-size[i] // math.ceil(lanes * own * whole)) for i, own in scale.items())
    while any(base * whole * own * lanes < size[i] for i, own in scale.items()):
        base += 1
    return {i: int(base * whole * own) for i, own in scale.items()}


def _waste(steps: Sequence[Step], strips: dict[int, int], axis: int, lanes: int) -> float:
    """Return the pixels that strips compute for nothing, as a share of those that there are, by work."""
    done = needed = 0.0
    for step in steps:
        channels, *size = step.dst.shape
        work = float(channels * size[1 - axis])
        if isinstance(step, ConvStep):
            work *= (1 + step.pattern.kept) / channels
        done += work * strips[step.dst.index] * lanes
        needed += work * size[axis]
    return done / needed - 1


class NativeProgram:
    """One planned network for one instruction set and one layout of its images.

    Args:
        lib: the loaded kernels.
        values: all of the program, by index.
        todo: its passes.
        place: the arena of every value that is written.
        layout: of its images.
    """

    def __init__(
        self,
        lib: Library,
        values: Sequence[Value],
        todo: Sequence[Pass],
        place: Mapping[int, int],
        layout: Layout,
    ) -> None:
        mode, strips = layout.mode, layout.strips
        self._lib, self._mode = lib, mode
        self._plans: list[Plan] = []  # kept alive as long as the program that points to them
        self._own = [
            (strips[i] if mode == ROWS else v.shape[1], strips[i] if mode == COLUMNS else v.shape[2])
            for i, v in enumerate(values)
        ]
        table = (native.ValueArgs * len(values))(
            *(
                native.ValueArgs(place.get(v.index, -1), *v.shape, *own, *_bytes(v))
                for v, own in zip(values, self._own, strict=True)
            )
        )
        shape = native.ProgramArgs(ctypes.addressof(table), mode, len(values))
        self.address: int = lib.raw.gc_program_new(ctypes.byref(shape), lib.isa_index)
        if not self.address:
            raise KernelError("not enough memory for a program")
        weakref.finalize(self, lib.raw.gc_program_free, self.address)
        for one in todo:
            self._add(one)

    def _add(self, one: Pass) -> None:
        s = one.step
        sources = (ctypes.c_int32 * len(s.reads))(*(value.index for value in s.reads))  # a convolution's first
        args = native.StepArgs(sources=ctypes.addressof(sources), dst=s.dst.index, affine=-1, written=int(one.written))
        views = [_view_args(view) for view in ((s,) if isinstance(s, QuantizeStep) else one.views)]
        table = (native.ViewArgs * len(views))(*(view for view, _ in views))
        args.views, args.view_count = ctypes.addressof(table), len(views)
        if isinstance(s, QuantizeStep):
            args.source_count = 1
        elif isinstance(s, NormStep):
            args.source_count, args.groups, args.eps = 1, s.groups, s.eps
            args.scale, args.bias = _at(s.weight), _at(s.bias)
        else:
            self._add_sum(args, s)
            return
        self._lib.check(self._lib.raw.gc_program_add(self.address, ctypes.byref(args)))

    def _add_sum(self, args: native.StepArgs, s: ConvStep | SumStep) -> None:
        addends = (native.AddendArgs * len(s.add))(
            *(native.AddendArgs(a.value.index, a.factor, a.upsample) for a in s.add)
        )
        args.add, args.add_count = ctypes.addressof(addends), len(s.add)
        args.activation, slopes = slopes_of(s.activation, s.dst.shape[0])
        args.slopes = _at(slopes)
        pre = words = factors = None
        if isinstance(s, ConvStep):
            out = self._own[s.dst.index]
            more: dict[str, Any] = {"dilation": s.dilation, "flat": self._mode == FLAT, "regions": True}
            if s.stored is None:
                together = merged(s)
                in_lanes = self._mode == FLAT and _in_blocks(together, sharing=self._lib.isa in _SHARING)
                if self._mode != FLAT or in_lanes:  # else loops over pixels would be too short
                    s = together
                pattern = Pattern(blocks_of_outputs(s.pattern.mask.cpu(), s.transpose)) if in_lanes else s.pattern
                args.weight, args.bias, args.scale, args.shift = map(_at, (s.weight, s.bias, s.scale, s.shift))
                args.pre, pre = slopes_of(s.pre, sum(value.shape[0] for value in s.sources))
                args.pre_slopes = _at(pre)
                args.affine = -1 if s.affine is None else s.affine.index
                more["shuffle"] = s.shuffle
            else:
                most = self._lib.flat_blocks if self._mode == FLAT else self._lib.blocks
                matrices, shared = self._lib.blocks == OUTPUTS_IN_LANES, self._lib.flat_blocks > 1
                side_by_side = matrices or not (shared and self._lib.isa in _SHARING)
                words = words_of(s, _together(s, self._mode, most, side_by_side=side_by_side))
                in_lanes = self._mode == FLAT and words.blocks == OUTPUTS_IN_LANES > self._lib.blocks
                pattern, factors = words.pattern, s.factors()
                args.weight, args.scale, args.shift = map(_at, (words.words, *factors))
                args.blocks, args.shuffle = words.blocks, s.shuffle
                more["blocks"] = 1 if in_lanes else words.blocks
                out = (out[0] // s.shuffle, out[1] // s.shuffle)
            if in_lanes:
                more |= {"flat": False, "in_lanes": True}
            kind = PHASED if s.transpose else DIRECT
            plan = pattern.plan(self._lib, kind, s.stride, s.padding[::2], out, groups=s.groups, **more)
            self._plans.append(plan)
            args.plan, args.source_count, args.up, args.border = (
                plan.address, len(s.sources), int(s.upsample), BORDERS[s.border],
            )  # fmt: skip
        self._lib.check(self._lib.raw.gc_program_add(self.address, ctypes.byref(args)))

    def __call__(
        self, inputs: Sequence[Tensor], affines: Sequence[Tensor], outputs: Sequence[Value]
    ) -> tuple[Tensor, ...]:
        """Run it; everything is contiguous float32 on the CPU."""
        batch = inputs[0].shape[0]
        results = tuple(torch.empty(batch, *value.shape, dtype=torch.float32) for value in outputs)
        given = [
            (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors)) for tensors in (inputs, results, affines)
        ]
        numbers = (ctypes.c_int32 * len(outputs))(*(value.index for value in outputs))
        args = native.RunArgs(
            *(ctypes.addressof(array) for array in given), ctypes.addressof(numbers), batch, len(inputs),
            len(outputs), len(affines), torch.get_num_threads(),
        )  # fmt: skip
        self._lib.check(self._lib.raw.gc_program_run(self.address, ctypes.byref(args)))
        return results


def _bytes(value: Value) -> tuple[int, int, float]:
    return (0, 0, 0.0) if value.stored is None else (1, value.stored.zero, value.stored.scale)


def _view_args(step: QuantizeStep) -> tuple[native.ViewArgs, Tensor | None]:
    """Return what the kernels write of a result, and its slopes, which the caller keeps alive."""
    kind, slopes = slopes_of(step.activation, step.dst.shape[0])
    affine = -1 if step.affine is None else step.affine.index
    inverse = 1 / step.stored.scale
    return native.ViewArgs(_at(step.scale), _at(step.shift), _at(slopes), step.dst.index, affine, kind, inverse), slopes


def _at(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def slopes_of(slope: Activation | None, channels: int) -> tuple[int, Tensor | None]:
    """Return the kind of an activation as the kernels know it, and its slopes; the caller keeps them alive."""
    if slope is None:
        return 0, None
    if isinstance(slope, str):
        return _SMOOTH[slope], None
    if isinstance(slope, Tensor):
        return 2, slope
    return (2, torch.full((channels,), slope)) if slope else (1, None)


def _in_blocks(s: ConvStep, *, sharing: bool = False) -> bool:
    """Whether a weight is kept in blocks of outputs, and it pays to compute these side by side.

    Args:
        s: the convolution.
        sharing: two outputs that share what they read are as fast.
    """
    outputs = s.weight.shape[1] if s.transpose else s.weight.shape[0] // s.groups
    phases = s.stride[0] * s.stride[1] if s.transpose else 1
    small = s.dst.shape[1] * s.dst.shape[2] <= _SMALL_MAP * phases
    if (
        s.shuffle > 1
        or outputs % OUTPUTS_IN_LANES
        or not (small or (s.pattern.density >= _ENOUGH_KEPT and not sharing))
    ):
        return False
    kept = int(blocks_of_outputs(s.pattern.mask.cpu(), s.transpose).sum()) * OUTPUTS_IN_LANES
    return kept <= (1 + _MOST_ZEROS) * s.pattern.kept


def _together(s: ConvStep, mode: int, most: int, *, side_by_side: bool = True) -> Sequence[int]:
    """Return how many outputs of a convolution of bytes may be computed together, preferred numbers first.

    Args:
        s: the convolution.
        mode: how images lie in memory.
        most: outputs that kernels with images or pixels in the lanes take together.
        side_by_side: sixteen may be, for single images; or be multiplied as a matrix.
    """
    in_lanes = (OUTPUTS_IN_LANES,) if mode == FLAT and s.shuffle == 1 and side_by_side else ()
    return [*in_lanes, *(blocks for blocks in (16, 4, 2) if blocks <= most)]


def merged(s: ConvStep) -> ConvStep:
    """Return the step with fewer products where it upsamples: taps that meet in one small pixel are added up.

    Not for single images in float, unless outputs are in the lanes.
    """
    plain = s.stride == s.dilation == (1, 1) and s.groups == s.shuffle == 1 and s.border == "zeros"
    if not (s.upsample and plain and s.padding == (1, 1, 1, 1) and tuple(s.weight.shape[2:]) == (3, 3)):
        return s
    weight, pattern = fold_upsampling(s.weight, s.pattern)
    folded = replace(s, transpose=True, weight=weight, pattern=pattern, stride=(2, 2), upsample=False)
    folded.dst = s.dst
    return folded
