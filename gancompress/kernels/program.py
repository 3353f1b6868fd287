"""A planned network of sparse convolutions that runs in one native call.

Build it once, run it often::

    net = Program((256, 4, 4))
    h = net.conv(net.input, weight, mask, bias, padding=1, upsample=True, relu=True)
    net.output(h)
    images = net(x)  # x: [N, 256, 4, 4]

Sixteen images at a time go through all layers before the next sixteen start; a small batch goes image by image through
a kernel with pixels in the vector lanes instead. Memory between layers is planned when the program is built: a tensor's
place is used again once nothing reads it any more.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from gancompress.errors import KernelError
from gancompress.kernels.layer import Layer
from gancompress.kernels.native_library import DIRECT, PHASED, Library, RunArgs, StepArgs, library
from gancompress.kernels.pattern import Pattern, Plan, as_pattern
from gancompress.kernels.upsampling import fold_upsampling

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Affine", "Program", "Value"]

#: Batches up to this size go image by image: the other kernel works on whole vectors, which hold 16, 8 or 4 images.
_FLAT_UP_TO = {"avx512": 8, "avx2": 4}
_FLAT_ELSEWHERE = 2


@dataclass(frozen=True)
class Value:
    """A tensor inside a program.

    Attributes:
        index: which one.
        shape: channels, rows and columns.
    """

    index: int
    shape: tuple[int, int, int]

    @property
    def floats(self) -> int:
        """Elements of one image."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class Affine:
    """A scale and a shift per image and channel, given to a program with its input (conditional batch norm).

    Attributes:
        index: which of the affines.
        channels: of the maps that it applies to.
    """

    index: int
    channels: int


@dataclass
class _Step:
    src: Value
    weight: Tensor
    pattern: Pattern
    bias: Tensor | None = None
    stride: int = 1
    padding: int = 0
    scale: Tensor | None = None
    shift: Tensor | None = None
    affine: Affine | None = None
    pre_relu: bool = False
    upsample: bool = False
    add: Value | None = None
    add_upsample: bool = False
    relu: bool = False
    transpose: bool = False
    output_padding: int = 0
    dst: Value = Value(-1, (0, 0, 0))  # given when it is added


@dataclass
class _Native:
    address: int
    plans: list[Plan]  # kept alive as long as the program that points to them
    arenas: list[int]


class Program:
    """A network of sparse convolutions. See the module for how it is used.

    Args:
        shape: of the input: channels, rows, columns.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise KernelError(f"a program's input is channels, rows, columns; got {shape}")
        self.input = Value(0, (shape[0], shape[1], shape[2]))
        self._values = [self.input]
        self._affines: list[Affine] = []
        self._steps: list[_Step] = []
        self._output: Value | None = None
        self._built: dict[tuple[str, bool], _Native] = {}

    def affine(self, channels: int) -> Affine:
        """Declare one more tensor ``[N, 2, channels]`` (scales, then shifts) that every call gives after the images."""
        if self._output is not None:
            raise KernelError("a program with an output takes no more inputs")
        self._affines.append(Affine(len(self._affines), channels))
        return self._affines[-1]

    def conv(
        self,
        x: Value,
        weight: Tensor,
        mask: Tensor | Pattern,
        bias: Tensor | None = None,
        *,
        stride: int = 1,
        padding: int = 0,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        affine: Affine | None = None,
        pre_relu: bool = False,
        upsample: bool = False,
        add: Value | None = None,
        add_upsample: bool = False,
        relu: bool = False,
    ) -> Value:
        """Add a convolution with all that is fused around it, in the order of the arguments.

        Args:
            x: what it reads.
            weight: ``[R, C, kh, kw]``; copied.
            mask: its kept positions.
            bias: ``[R]`` or None.
            stride: of both dimensions.
            padding: zeros on every side, after the affine and the upsampling.
            scale: ``[C]`` or None: the input is first ``x * scale + shift`` (a batch norm in evaluation mode).
            shift: ``[C]``, together with ``scale``.
            affine: in place of both, when they differ from image to image.
            pre_relu: then a ReLU.
            upsample: then nearest x2.
            add: a value added to the result (a residual).
            add_upsample: ``add`` is nearest x2 upsampled first.
            relu: a ReLU at the very end.

        Raises:
            KernelError: shapes do not fit.
        """
        return self._add(
            _Step(
                x, weight, as_pattern(mask), bias, stride, padding, scale, shift, affine, pre_relu, upsample, add,
                add_upsample, relu,
            )
        )  # fmt: skip

    def conv_transpose(
        self, x: Value, weight: Tensor, mask: Tensor | Pattern, bias: Tensor | None = None, **around: Any
    ) -> Value:
        """Add a transposed convolution, ``[C, R, kh, kw]``.

        Arguments are as for :meth:`conv`, but no upsampling; ``output_padding`` adds rows and columns, less than
        ``stride``.
        """
        if around.keys() & {"upsample", "add_upsample"}:
            raise KernelError("program: a transposed convolution does not upsample")
        return self._add(_Step(x, weight, as_pattern(mask), bias, transpose=True, **around))

    def _add(self, s: _Step) -> Value:
        if self._output is not None:
            raise KernelError("a program with an output takes no more layers")
        for value in (s.src, s.add):
            if value is not None:
                self._mine(value)
        weight = s.weight
        if weight.dim() != 4 or tuple(weight.shape) != s.pattern.shape:
            raise KernelError(f"program: the mask has shape {s.pattern.shape}, the weight {tuple(weight.shape)}")
        channels, gives = weight.shape[int(not s.transpose)], weight.shape[int(s.transpose)]
        height, width = ((2 if s.upsample else 1) * side for side in s.src.shape[1:])
        op: Literal["conv", "transpose"] = "transpose" if s.transpose else "conv"
        layer = Layer(op, tuple(weight.shape), 1, height, width, s.stride, s.padding, s.output_padding)
        out = Value(len(self._values), (gives, *layer.out_size))
        if s.output_padding and s.output_padding >= s.stride:
            raise KernelError(f"program: output padding {s.output_padding} must be below the stride, {s.stride}")
        if s.src.shape[0] != channels or min(out.shape) < 1:
            raise KernelError(f"program: a weight {tuple(weight.shape)} does not fit an input {s.src.shape}")
        if s.add is not None:
            rows, columns = (out.shape[1] / 2, out.shape[2] / 2) if s.add_upsample else out.shape[1:]
            if s.add.shape != (gives, rows, columns):
                raise KernelError(f"program: cannot add {s.add.shape} to {out.shape}")
        for name, length in (("bias", gives), ("scale", channels), ("shift", channels)):
            vector = getattr(s, name)
            if vector is not None and tuple(vector.shape) != (length,):
                raise KernelError(f"program: {name} has shape {tuple(vector.shape)}, needs ({length},)")
        if (s.scale is None) != (s.shift is None):
            raise KernelError("program: scale and shift come together")
        if s.affine is not None:
            if s.affine not in self._affines:
                raise KernelError(f"{s.affine} is not of this program")
            if s.scale is not None:
                raise KernelError("program: an affine per image cannot stand beside a scale")
            if s.affine.channels != channels:
                raise KernelError(f"program: {s.affine} does not fit an input {s.src.shape}")
        own = {
            name: t.detach().to("cpu", torch.float32, copy=True).contiguous()
            for name in ("weight", "bias", "scale", "shift")
            if (t := getattr(s, name)) is not None
        }
        self._values.append(out)
        self._steps.append(replace(s, dst=out, **own))
        return out

    def output(self, value: Value) -> None:
        """Say which value the program returns, and end its building."""
        self._mine(value)
        if value.index == 0:
            raise KernelError("a program returns the result of one of its layers")
        self._output = value

    def _mine(self, value: Value) -> None:
        if value.index >= len(self._values) or self._values[value.index] is not value:
            raise KernelError(f"{value} is not of this program")

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles build their own native program: an address has one owner.
        return {**self.__dict__, "_built": {}}

    def arenas(self) -> tuple[list[int], list[int]]:
        """Plan the memory: which arena every value lives in, and the floats per image of every arena."""
        last = {self.input.index: -1}
        for i, step in enumerate(self._steps):
            for value in (step.src, step.dst, *([step.add] if step.add else [])):
                last[value.index] = i
        if self._output is not None:
            last[self._output.index] = len(self._steps)
        place, sizes, free = [0] * len(self._values), [self.input.floats], list[int]()
        for i, step in enumerate(self._steps):
            need = step.dst.floats
            # The smallest free arena that is large enough, else the largest one, grown.
            fits = sorted(free, key=lambda a: (sizes[a] < need, sizes[a] if sizes[a] >= need else -sizes[a]))
            if fits:
                arena = fits[0]
                free.remove(arena)
                sizes[arena] = max(sizes[arena], need)
            else:
                arena = len(sizes)
                sizes.append(need)
            place[step.dst.index] = arena
            done = {v.index for v in (step.src, step.dst, *([step.add] if step.add else [])) if last[v.index] == i}
            free.extend(place[index] for index in sorted(done))
        return place, sizes

    def _native(self, lib: Library, flat: bool) -> _Native:
        key = (lib.isa, flat)
        if key not in self._built:
            place, sizes = self.arenas()
            address = lib.raw.gc_program_new(int(flat), (ctypes.c_int64 * len(sizes))(*sizes), len(sizes))
            if not address:
                raise KernelError("not enough memory for a program")
            weakref.finalize(self, lib.raw.gc_program_free, address)
            native = _Native(address, [], place)
            for step in self._steps if flat else map(_folded, self._steps):
                kind = PHASED if step.transpose else DIRECT
                plan = step.pattern.plan(lib, kind, step.stride, step.padding, step.dst.shape[1:], flat)
                native.plans.append(plan)
                lib.check(lib.raw.gc_program_add(address, ctypes.byref(_arguments(step, plan, place))))
            self._built[key] = native
        return self._built[key]

    def __call__(self, x: Tensor, *affines: Tensor) -> Tensor:
        """Run on images; any dtype and device, the result is float32 on the CPU.

        Args:
            x: ``[N, C, H, W]``.
            *affines: ``[N, 2, channels]`` for every :meth:`affine`, in their order.

        Raises:
            KernelError: the program has no output yet, or something has another shape.
        """
        if self._output is None:
            raise KernelError("the program has no output: call output() first")
        if tuple(x.shape[1:]) != self.input.shape:
            raise KernelError(f"the program takes [N, {', '.join(map(str, self.input.shape))}], got {tuple(x.shape)}")
        wanted = [(x.shape[0], 2, affine.channels) for affine in self._affines]
        if [tuple(given.shape) for given in affines] != wanted:
            raise KernelError(f"the program takes affines {wanted}, got {[tuple(given.shape) for given in affines]}")
        x, *given = (t.detach().to("cpu", torch.float32).contiguous() for t in (x, *affines))
        lib = library()
        if lib is None:
            return self.dense(x, *given)
        native = self._native(lib, flat=x.shape[0] <= _FLAT_UP_TO.get(lib.isa, _FLAT_ELSEWHERE))
        out = torch.empty(x.shape[0], *self._output.shape)
        pointers = (ctypes.c_void_p * len(given))(*(t.data_ptr() for t in given))
        args = RunArgs(
            x=x.data_ptr(), out=out.data_ptr(), affines=ctypes.cast(pointers, ctypes.c_void_p),
            in_count=self.input.floats, out_count=self._output.floats, batch=x.shape[0], input=native.arenas[0],
            output=native.arenas[self._output.index], affine_count=len(given), threads=torch.get_num_threads(),
        )  # fmt: skip
        lib.check(lib.raw.gc_program_run(native.address, ctypes.byref(args)))
        return out

    def dense(self, x: Tensor, *affines: Tensor) -> Tensor:
        """The same network in torch: what runs where the native kernels are missing, and what tests compare with.

        Args:
            x: ``[N, C, H, W]``, of any floating dtype, which the result has too.
            *affines: as for a call.
        """
        if self._output is None:
            raise KernelError("the program has no output: call output() first")
        values: dict[int, Tensor] = {0: x}
        for s in self._steps:
            add = None if s.add is None else values[s.add.index]
            values[s.dst.index] = _dense(s, values[s.src.index], add, affines)
        return values[self._output.index]


def _dense(s: _Step, x: Tensor, add: Tensor | None, affines: tuple[Tensor, ...]) -> Tensor:
    if s.affine is not None:
        scale, shift = affines[s.affine.index].to(x.dtype)[..., None, None].unbind(1)
        x = x * scale + shift
    if s.scale is not None and s.shift is not None:
        x = x * s.scale.to(x.dtype)[:, None, None] + s.shift.to(x.dtype)[:, None, None]
    x = torch.relu(x) if s.pre_relu else x
    x = F.interpolate(x, scale_factor=2.0) if s.upsample else x
    kept = torch.where(s.pattern.mask.cpu(), s.weight, 0.0).to(x.dtype)
    more = (s.output_padding,) if s.transpose else ()
    conv = F.conv_transpose2d if s.transpose else F.conv2d
    x = conv(x, kept, None if s.bias is None else s.bias.to(x.dtype), s.stride, s.padding, *more)
    if add is not None:
        x = x + (F.interpolate(add, scale_factor=2.0) if s.add_upsample else add)
    return torch.relu(x) if s.relu else x


def _folded(s: _Step) -> _Step:
    """Return the step with fewer products where it upsamples. Not for single images: their loops would be too short."""
    if not s.upsample or (s.stride, s.padding, *s.weight.shape[2:]) != (1, 1, 3, 3):
        return s
    weight, pattern = fold_upsampling(s.weight, s.pattern)
    return replace(s, transpose=True, weight=weight, pattern=pattern, stride=2, padding=1, upsample=False)


def _arguments(s: _Step, plan: Plan, place: list[int]) -> StepArgs:
    def at(t: Tensor | None) -> int | None:
        return None if t is None else t.data_ptr()

    return StepArgs(
        plan=plan.address, weight=at(s.weight), bias=at(s.bias), scale=at(s.scale), shift=at(s.shift),
        src=place[s.src.index], dst=place[s.dst.index], add=-1 if s.add is None else place[s.add.index],
        hi=s.src.shape[1], wi=s.src.shape[2], ho=s.dst.shape[1], wo=s.dst.shape[2], up=int(s.upsample),
        pre_relu=int(s.pre_relu), relu=int(s.relu), add_up=int(s.add_upsample),
        affine=-1 if s.affine is None else s.affine.index,
    )  # fmt: skip
