"""A planned network of sparse convolutions that runs in one native call.

Build it once, run it often::

    net = Program((256, 4, 4))
    h = net.conv(net.input, weight, mask, bias, padding=1, upsample=True, activation=0.0)
    net.output(h)
    images = net(x)  # x: [N, 256, 4, 4]

Sixteen images at a time go through all layers before the next sixteen start; a small batch goes image by image (see
:mod:`gancompress.kernels.native_program`). Memory between layers is planned when the program is built: a tensor's
place is used again once nothing reads it any more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from gancompress.errors import KernelError
from gancompress.kernels.fusing import arenas, passes
from gancompress.kernels.native_library import library, warn_of_slow_bytes
from gancompress.kernels.native_program import Layout, NativeProgram, fastest, is_native, layouts
from gancompress.kernels.pattern import Pattern, as_pattern
from gancompress.kernels.steps import (
    Activation,
    Addend,
    Affine,
    Border,
    ConvStep,
    NormStep,
    QuantizeStep,
    Step,
    SumStep,
    Value,
    sides_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gancompress.kernels.native_library import Library
    from gancompress.kernels.quantized import Quantized

__all__ = ["Program"]


class Program:
    """A network of sparse convolutions. See the module for how it is used.

    Args:
        *shapes: of the inputs: channels, rows, columns. A signal has one row.

    Attributes:
        inputs: their values.
        input: the first of them.
    """

    def __init__(self, *shapes: tuple[int, int, int]) -> None:
        if not shapes or any(len(shape) != 3 or min(shape) < 1 for shape in shapes):
            raise KernelError(f"a program's inputs are channels, rows, columns each; got {shapes}")
        self.inputs = tuple(Value(i, (shape[0], shape[1], shape[2])) for i, shape in enumerate(shapes))
        self.input = self.inputs[0]
        self._values = list(self.inputs)
        self._affines: list[Affine] = []
        self._steps: list[Step] = []
        self._outputs: tuple[Value, ...] = ()
        self._built: dict[tuple[str, int], NativeProgram] = {}
        self._possible: dict[int, list[Layout]] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """What it computes, in order."""
        return tuple(self._steps)

    @property
    def affines(self) -> tuple[Affine, ...]:
        """What calls give after the images, in order."""
        return tuple(self._affines)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What it returns, nothing while it is built."""
        return self._outputs

    def affine(self, channels: int) -> Affine:
        """Declare one more tensor ``[N, 2, channels]`` (scales, then shifts) that every call gives after the images."""
        if self._outputs:
            raise KernelError("a program with an output takes no more inputs")
        self._affines.append(Affine(len(self._affines), channels))
        return self._affines[-1]

    def conv(
        self,
        x: Value | Sequence[Value],
        weight: Tensor,
        mask: Tensor | Pattern,
        bias: Tensor | None = None,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        border: Border = "zeros",
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        affine: Affine | None = None,
        pre: Activation | None = None,
        upsample: bool = False,
        add: Addend | Sequence[Addend] = (),
        activation: Activation | None = None,
        shuffle: int = 1,
        weight_scale: Tensor | None = None,
    ) -> Value:
        """Add a convolution with all that is fused around it.

        It computes, in this order: scale and shift, ``pre``, upsampling, border, convolution and bias, shuffle,
        addends, ``activation``.

        Of values in bytes (see :meth:`quantize`) it computes ``float32(sum) * factor + shift`` with the exact sum of
        the products of bytes and int8 weights, where ``factor`` is the scale of the bytes times that of the weights,
        and ``shift`` is the bias less what the byte of zero adds. Then ``scale``, ``affine`` and ``pre`` stand in the
        quantize step. The result is float32 in either case.

        Args:
            x: what it reads; several values of one size are read as if concatenated along channels.
            weight: ``[R, C/groups, kh, kw]``; copied. A signal's is ``[R, C/groups, 1, k]``. It is int8, -127 to
                127, where ``x`` is held in bytes.
            mask: its kept positions.
            bias: ``[R]`` or None.
            stride: of both axes, or of rows and columns.
            padding: on every side, or of rows and columns, or top, bottom, left and right; it goes around what was
                scaled, activated and upsampled.
            dilation: of both axes, or of rows and columns.
            groups: as in torch.
            border: what the padding holds: ``zeros``, ``reflect`` or ``replicate``.
            scale: ``[C]`` or None: the input is first ``x * scale + shift`` (a batch norm in evaluation mode).
            shift: ``[C]``, together with ``scale``.
            affine: in place of both, when they differ from image to image.
            pre: the activation of what is read, a slope or slopes ``[C]``, ``tanh`` or ``silu`` (see ``Activation``).
            upsample: then nearest x2, rows and columns.
            add: up to three addends, shaped like the result.
            activation: at the very end, a slope or slopes, one per channel of the result, ``tanh``, ``sigmoid`` or
                ``silu``.
            shuffle: pixel shuffle by this factor: ``R / shuffle**2`` channels of so many times the rows and columns.
            weight_scale: ``[R]``, what int8 weights are multiplied by; only for values in bytes.

        Raises:
            KernelError: shapes do not fit; values in bytes of unequal scales, joined or grouped by other than fours of
                channels, or with sums that 32 bits do not hold.
        """
        return self._convolution(
            x, weight, mask, bias, stride, padding, dilation, add, groups=groups, border=border, scale=scale,
            shift=shift, affine=affine, pre=pre, upsample=upsample, activation=activation, shuffle=shuffle,
            weight_scale=weight_scale,
        )  # fmt: skip

    def conv_transpose(
        self,
        x: Value | Sequence[Value],
        weight: Tensor,
        mask: Tensor | Pattern,
        bias: Tensor | None = None,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        output_padding: int | tuple[int, int] = 0,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        affine: Affine | None = None,
        pre: Activation | None = None,
        add: Addend | Sequence[Addend] = (),
        activation: Activation | None = None,
        weight_scale: Tensor | None = None,
    ) -> Value:
        """Add a transposed convolution, ``[C, R/groups, kh, kw]``.

        Arguments are as for :meth:`conv`; ``padding`` is what the result loses on its sides, and ``output_padding``
        adds rows and columns, less than ``stride``.
        """
        return self._convolution(
            x, weight, mask, bias, stride, padding, dilation, add, transpose=True, groups=groups,
            output_padding=_pair(output_padding), scale=scale, shift=shift, affine=affine, pre=pre,
            activation=activation, weight_scale=weight_scale,
        )  # fmt: skip

    def _convolution(
        self, x: Value | Sequence[Value], weight: Tensor, mask: Tensor | Pattern, bias: Tensor | None,
        stride: int | tuple[int, int], padding: int | tuple[int, ...], dilation: int | tuple[int, int],
        add: Addend | Sequence[Addend], **more: Any,
    ) -> Value:  # fmt: skip
        return self.add(
            ConvStep(
                (x,) if isinstance(x, Value) else tuple(x), weight, as_pattern(mask), bias, stride=_pair(stride),
                padding=sides_of(padding), dilation=_pair(dilation),
                add=(add,) if isinstance(add, Addend) else tuple(add), **more,
            )
        )  # fmt: skip

    def quantize(
        self,
        x: Value,
        stored: Quantized,
        *,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        affine: Affine | None = None,
        activation: Activation | None = None,
    ) -> Value:
        """Add the bytes ``stored`` of ``activation(x * scale + shift)``, for convolutions of bytes to read.

        Args:
            x: in float32.
            stored: the scale and the zero of the bytes. What lies past their ends becomes 0 or 255, what is not a
                number becomes the byte of zero.
            scale: as for :meth:`conv`, like the others.
            shift: together with ``scale``.
            affine: in place of both.
            activation: a slope or slopes ``[C]``.

        Raises:
            KernelError: shapes do not fit, or ``x`` is held in bytes already.
        """
        warn_of_slow_bytes()
        return self.add(QuantizeStep(x, stored, scale, shift, affine, activation))

    def norm(
        self, x: Value, weight: Tensor | None, bias: Tensor | None, eps: float, groups: int | None = None
    ) -> Value:
        """Add a group norm of a value, ``[C]`` gains and biases or None; without ``groups`` an instance norm."""
        return self.add(NormStep(x, weight, bias, eps, x.shape[0] if groups is None else groups))

    def sum(self, addends: Sequence[Addend], activation: Activation | None = None) -> Value:
        """Add a sum of values: for where an addition stands behind no convolution."""
        return self.add(SumStep(tuple(addends), activation))

    def add(self, step: Step) -> Value:
        """Add a step that reads values of this program; return its result, which the step's ``dst`` is from now on.

        Raises:
            KernelError: it reads something else, or the program has an output already.
        """
        if self._outputs:
            raise KernelError("a program with an output takes no more layers")
        for value in step.reads:
            self._mine(value)
        affine = getattr(step, "affine", None)
        if affine is not None and affine not in self._affines:
            raise KernelError(f"{affine} is not of this program")
        step.dst = replace(step.dst, index=len(self._values))
        self._values.append(step.dst)
        self._steps.append(step)
        return step.dst

    def output(self, *values: Value) -> None:
        """Say which values the program returns, and end its building."""
        for value in values:
            self._mine(value)
            if value in self.inputs:
                raise KernelError("a program returns the results of its layers")
            if value.stored is not None:
                raise KernelError("a program returns float32: add a sum of what is held in bytes")
        if not values:
            raise KernelError("a program returns at least one value")
        self._outputs = values

    def _mine(self, value: Value) -> None:
        if value.index >= len(self._values) or self._values[value.index] is not value:
            raise KernelError(f"{value} is not of this program")

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles build their own native program: an address has one owner.
        return {**self.__dict__, "_built": {}}

    def arenas(self) -> tuple[dict[int, int], list[int]]:
        """Plan the memory: the arena of every value that is written, and the 32-bit words per image of every arena."""
        return arenas(self.inputs, passes(self._steps, self._outputs), self._outputs)

    @property
    def native(self) -> bool:
        """Whether the native kernels take all of it; else a call computes it in torch, dense."""
        return all(map(is_native, self._steps))

    def _native(self, lib: Library, layout: Layout) -> NativeProgram:
        key = (lib.isa, layout.mode)
        if key not in self._built:
            place, _ = self.arenas()
            todo = passes(self._steps, self._outputs)
            self._built[key] = NativeProgram(lib, self._values, todo, place, layout)
        return self._built[key]

    def _layouts(self, lanes: int) -> list[Layout]:
        if lanes not in self._possible:
            self._possible[lanes] = layouts(self.inputs, self._steps, lanes)
        return self._possible[lanes]

    def __call__(self, *inputs: Tensor) -> Any:
        """Run on images; any dtype and device, the result is float32 on the CPU.

        Args:
            *inputs: ``[N, C, H, W]`` for every input, then ``[N, 2, channels]`` for every :meth:`affine`, in order.

        Returns:
            The output, or a tuple of the outputs where there are several.

        Raises:
            KernelError: the program has no output yet, or something has another shape.
        """
        if not self._outputs:
            raise KernelError("the program has no output: call output() first")
        batch = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
        sizes = [(batch, *value.shape) for value in self.inputs]
        if [tuple(given.shape) for given in inputs[: len(sizes)]] != sizes:
            takes = ", ".join(f"[N, {', '.join(map(str, value.shape))}]" for value in self.inputs)
            raise KernelError(f"the program takes {takes}, got {[tuple(given.shape) for given in inputs]}")
        wanted = [(batch, 2, affine.channels) for affine in self._affines]
        if [tuple(given.shape) for given in inputs[len(sizes) :]] != wanted:
            got = [tuple(given.shape) for given in inputs[len(sizes) :]]
            raise KernelError(f"the program takes affines {wanted}, got {got}")
        given = [t.detach().to("cpu", torch.float32).contiguous() for t in inputs]
        lib = library()
        if lib is None or not self.native:
            return self.dense(*given)
        images, affines = given[: len(self.inputs)], given[len(self.inputs) :]
        layout = fastest(self._layouts(lib.lanes), lib.isa, batch)
        results = self._native(lib, layout)(images, affines, self._outputs)
        return results[0] if len(results) == 1 else results

    def dense(self, *inputs: Tensor) -> Any:
        """The same network in torch: what runs where the native kernels are missing, and what tests compare with.

        Args:
            *inputs: as for a call, of any floating dtype, which the result has too; what is computed from bytes is
                float32.
        """
        if not self._outputs:
            raise KernelError("the program has no output: call output() first")
        values = dict(enumerate(inputs[: len(self.inputs)]))
        for step in self._steps:
            values[step.dst.index] = step.dense(values, inputs[len(self.inputs) :])
        results = tuple(values[value.index] for value in self._outputs)
        return results[0] if len(results) == 1 else results


def _pair(both: int | tuple[int, int]) -> tuple[int, int]:
    return (both, both) if isinstance(both, int) else (both[0], both[1])
