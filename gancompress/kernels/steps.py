"""What a :class:`~gancompress.kernels.Program` is made of: values, and steps that say what they compute, in torch too.

Every step checks that its parts fit when it is made, and knows the shape of its result. ``dense`` is the meaning of a
step: the native kernels compute the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gancompress.kernels.pattern import Pattern
    from gancompress.kernels.quantized import Quantized

__all__ = [
    "Activation",
    "Addend",
    "Affine",
    "Border",
    "ConvStep",
    "NormStep",
    "QuantizeStep",
    "Smooth",
    "Step",
    "SumStep",
    "Value",
    "sides_of",
]

#: Of one number each; ``silu`` is ``x * sigmoid(x)``.
Smooth: TypeAlias = Literal["tanh", "sigmoid", "silu"]

#: What negative numbers are multiplied by: 0.0 is ReLU, another number LeakyReLU, a tensor ``[C]`` PReLU. Or by name.
Activation: TypeAlias = float | Tensor | Smooth

_SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu}

#: What stands around a map where a convolution reads past its edge; names as in torch.
Border: TypeAlias = Literal["zeros", "reflect", "replicate"]

#: addends that a convolution takes
_MOST_ADDENDS = 3
#: consecutive channels whose bytes share a 32-bit word
_IN_A_WORD = 4
_LARGEST_SUM = 2**31 - 1


@dataclass(frozen=True)
class Value:
    """A tensor inside a program.

    Attributes:
        index: which one.
        shape: channels, rows and columns; a signal has one row.
        stored: how it is held in bytes, None in float32.
    """

    index: int
    shape: tuple[int, int, int]
    stored: Quantized | None = None

    @property
    def planes(self) -> int:
        """Maps of 32-bit words of one image: its channels, or a quarter of them in bytes."""
        return self.shape[0] if self.stored is None else -(-self.shape[0] // _IN_A_WORD)

    @property
    def words(self) -> int:
        """32-bit words of one image."""
        return self.planes * self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class Affine:
    """A scale and a shift per image and channel, given to a program with its input (conditional batch norm).

    Attributes:
        index: which of the affines.
        channels: of the maps that it applies to.
    """

    index: int
    channels: int


@dataclass(frozen=True)
class Addend:
    """Something added: ``factor * value``.

    Attributes:
        value: what is added.
        factor: what it is multiplied by.
        upsample: every pixel counts as so many by so many (nearest).
    """

    value: Value
    factor: float = 1.0
    upsample: int = 1


def sides_of(padding: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of a padding that is a number, rows and columns, or all four."""
    given = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(given) not in (1, 2, 4) or min(given) < 0:
        raise KernelError(f"program: a padding is one, two or four numbers from 0, got {padding}")
    if len(given) == 4:
        return given
    return given[0], given[0], given[-1], given[-1]


def _own(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _own_slope(slope: Activation | None) -> Activation | None:
    if slope is None or isinstance(slope, str):
        return slope
    return _own(slope) if isinstance(slope, Tensor) else float(slope)


def _check_vector(name: str, vector: Activation | None, channels: int) -> None:
    if isinstance(vector, str) and (vector not in _SMOOTH or (name, vector) == ("pre", "sigmoid")):
        known = [one for one in _SMOOTH if (name, one) != ("pre", "sigmoid")]  # of 0 it makes no 0, as borders need
        raise KernelError(f"program: {name} is a slope, slopes or {', '.join(known)}, got {vector!r}")
    if isinstance(vector, Tensor) and tuple(vector.shape) != (channels,):
        raise KernelError(f"program: {name} has shape {tuple(vector.shape)}, needs ({channels},)")


def _activated(x: Tensor, slope: Activation | None) -> Tensor:
    if slope is None:
        return x
    if isinstance(slope, str):
        return _SMOOTH[slope](x)
    if isinstance(slope, Tensor):
        return F.prelu(x, slope.to(x.dtype))
    return F.leaky_relu(x, slope) if slope else torch.relu(x)


def _scaled(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, affine: Affine | None, affines: Sequence[Tensor]
) -> Tensor:
    if affine is not None:
        of_images = affines[affine.index].to(x.dtype)[..., None, None]
        return x * of_images[:, 0] + of_images[:, 1]
    if scale is not None and shift is not None:
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]
    return x


def _check_scaling(scale: Tensor | None, shift: Tensor | None, affine: Affine | None, channels: int) -> None:
    _check_vector("scale", scale, channels)
    _check_vector("shift", shift, channels)
    if (scale is None) != (shift is None):
        raise KernelError("program: scale and shift come together")
    if affine is not None:
        if scale is not None:
            raise KernelError("program: an affine per image cannot stand beside a scale")
        if affine.channels != channels:
            raise KernelError(f"program: {affine} does not fit an input of {channels} channels")


def _with_addends(x: Tensor | None, addends: Sequence[Addend], values: dict[int, Tensor]) -> Tensor:
    for addend in addends:
        more, stored = values[addend.value.index], addend.value.stored
        more = more if stored is None else stored.floats_of(more)
        if addend.upsample > 1:
            more = F.interpolate(more, scale_factor=float(addend.upsample))
        more = more if addend.factor == 1 else more * addend.factor
        x = more if x is None else x + more
    assert x is not None
    return x


def _check_exact(slope: Activation | None) -> None:
    """Refuse, beside bytes, what is not rounded alike on all machines."""
    if isinstance(slope, str):
        raise KernelError(f"program: {slope} is computed from float32, by a sum of its own, not beside bytes")


def _check_float(value: Value) -> None:
    if value.stored is not None:
        raise KernelError(f"program: {value} is held in bytes already")


def _check_addends(addends: Sequence[Addend], shape: tuple[int, ...]) -> None:
    for addend in addends:
        channels, rows, columns = addend.value.shape
        if addend.upsample < 1 or (channels, rows * addend.upsample, columns * addend.upsample) != shape:
            raise KernelError(f"program: cannot add {addend.value.shape} to {shape}, upsampled {addend.upsample} times")


@dataclass(eq=False)
class ConvStep:
    """A convolution, plain or transposed, with all that is fused around it; see :meth:`Program.conv`.

    Attributes:
        dst: the result; its index is given by the program.
    """

    sources: tuple[Value, ...]
    weight: Tensor
    pattern: Pattern
    bias: Tensor | None = None
    transpose: bool = False
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)
    border: Border = "zeros"
    scale: Tensor | None = None
    shift: Tensor | None = None
    affine: Affine | None = None
    pre: Activation | None = None
    upsample: bool = False
    add: tuple[Addend, ...] = ()
    activation: Activation | None = None
    shuffle: int = 1
    weight_scale: Tensor | None = None
    dst: Value = field(init=False)

    def __post_init__(self) -> None:
        shape = tuple(self.weight.shape)
        if len(shape) != 4 or shape != self.pattern.shape:
            raise KernelError(f"program: the mask has shape {self.pattern.shape}, the weight {shape}")
        if len({value.shape[1:] for value in self.sources}) != 1:
            raise KernelError(f"program: sources of unequal sizes, {[value.shape for value in self.sources]}")
        if min(*self.stride, *self.dilation, self.groups, self.shuffle) < 1 or min(self.output_padding) < 0:
            raise KernelError("program: stride, dilation, groups and shuffle begin at 1")
        if self.transpose:
            channels, gives = shape[0], shape[1] * self.groups
        else:
            channels, gives = shape[1] * self.groups, shape[0]
        rows, columns = self._out_size()
        phases = self.shuffle**2
        if (
            sum(value.shape[0] for value in self.sources) != channels
            or channels % self.groups
            or gives % self.groups
            or gives % phases
            or min(rows, columns) < 1
        ):
            have = [value.shape for value in self.sources]
            raise KernelError(f"program: a weight {shape} does not fit an input {have[0] if len(have) == 1 else have}")
        out = (gives // phases, rows * self.shuffle, columns * self.shuffle)
        self._check(channels, gives, out)
        self.weight = self._own_weight()
        for name in ("bias", "scale", "shift", "weight_scale"):
            setattr(self, name, _own(getattr(self, name)))
        self.pre, self.activation = _own_slope(self.pre), _own_slope(self.activation)
        self.dst = Value(-1, out)

    def _check(self, channels: int, gives: int, out: tuple[int, int, int]) -> None:
        for extra, stride in zip(self.output_padding, self.stride, strict=True):
            if extra and extra >= stride:
                raise KernelError(f"program: output padding {extra} must be below the stride, {stride}")
        if self.border not in ("zeros", "reflect", "replicate"):
            raise KernelError(f"program: a border is zeros, reflect or replicate, got {self.border!r}")
        if self.border == "reflect" and any(
            max(sides) >= size for sides, size in zip((self.padding[:2], self.padding[2:]), self.read_size, strict=True)
        ):
            raise KernelError(f"program: a reflected padding {self.padding} must be below the size, {self.read_size}")
        if len(self.add) > _MOST_ADDENDS:
            raise KernelError(f"program: at most {_MOST_ADDENDS} addends, got {len(self.add)}")
        _check_addends(self.add, out)
        vectors = {"bias": gives, "weight_scale": gives, "pre": channels, "activation": out[0]}
        for name, length in vectors.items():
            _check_vector(name, getattr(self, name), length)
        _check_scaling(self.scale, self.shift, self.affine, channels)
        self._check_bytes(channels)

    def _check_bytes(self, channels: int) -> None:
        in_bytes = [value.stored is not None for value in self.sources]
        if not any(in_bytes):
            if self.weight.dtype == torch.int8 or self.weight_scale is not None:
                raise KernelError("program: int8 weights are for values in bytes: quantize the input first")
            return
        _check_exact(self.activation)
        if self.weight.dtype != torch.int8 or self.weight_scale is None:
            raise KernelError("program: a convolution of bytes has int8 weights, and a weight_scale")
        if len({value.stored for value in self.sources}) != 1:
            raise KernelError("program: sources in bytes share their scale and zero")
        if any(given is not None for given in (self.scale, self.affine, self.pre)):
            raise KernelError("program: what goes before a convolution of bytes stands in the quantize step")
        parts = [value.shape[0] for value in self.sources] if len(self.sources) > 1 else []
        parts += [channels // self.groups] if self.groups > 1 else []
        if any(part % _IN_A_WORD for part in parts):
            raise KernelError(f"program: bytes are joined and grouped by fours of channels, got {parts}")
        if not bool(((self.weight_scale >= 0) & self.weight_scale.isfinite()).all()):
            raise KernelError("program: a weight_scale is finite and not negative")
        if bool((self.weight == -128).any()):
            raise KernelError("program: int8 weights are -127 to 127")
        if float(self._tap_sums(self.kept_weight().abs()).max()) * 255 > _LARGEST_SUM:
            raise KernelError("program: sums of so many products of bytes do not fit 32 bits")

    def _own_weight(self) -> Tensor:
        dtype = torch.int8 if self.stored else torch.float32
        return self.weight.detach().to("cpu", dtype, copy=True).contiguous()

    @property
    def stored(self) -> Quantized | None:
        """How what it reads is held in bytes, None in float32."""
        return self.sources[0].stored

    @property
    def reads(self) -> tuple[Value, ...]:
        """Every value that it reads."""
        return (*self.sources, *(addend.value for addend in self.add))

    @property
    def read_size(self) -> tuple[int, int]:
        """Rows and columns that the convolution sees, without padding."""
        _, rows, columns = self.sources[0].shape
        return (2 * rows, 2 * columns) if self.upsample else (rows, columns)

    def _out_size(self) -> tuple[int, int]:
        """Rows and columns before the pixel shuffle."""
        sizes = []
        for axis, size in enumerate(self.read_size):
            span = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            padded = sum(self.padding[2 * axis : 2 * axis + 2])
            if self.transpose:
                sizes.append((size - 1) * self.stride[axis] + span - padded + self.output_padding[axis])
            else:
                sizes.append((size + padded - span) // self.stride[axis] + 1)
        return sizes[0], sizes[1]

    def dense(self, values: dict[int, Tensor], affines: Sequence[Tensor]) -> Tensor:
        """Compute it in torch.

        Args:
            values: ``[N, C, H, W]`` by index, all that it reads.
            affines: ``[N, 2, C]``, those of the call.
        """
        x = self.read(values, affines)
        x = x.double() - self.stored.zero if self.stored else x
        x = F.interpolate(x, scale_factor=2.0) if self.upsample else x
        x = self._convolved(x)
        x = self._rescaled(x) if self.stored else x
        x = F.pixel_shuffle(x, self.shuffle) if self.shuffle > 1 else x
        return _activated(_with_addends(x, self.add, values), self.activation)

    def read(self, values: dict[int, Tensor], affines: Sequence[Tensor]) -> Tensor:
        """Return what is convolved, before upsampling and border; arguments as for :meth:`dense`."""
        maps = [values[value.index] for value in self.sources]
        x = maps[0] if len(maps) == 1 else torch.cat(maps, 1)
        return _activated(_scaled(x, self.scale, self.shift, self.affine, affines), self.pre)

    def kept_weight(self) -> Tensor:
        """Return the weight with zeros where the mask keeps none."""
        return torch.where(self.pattern.mask.cpu(), self.weight.cpu(), 0)

    def _tap_sums(self, kept: Tensor) -> Tensor:
        """Return the sums of what meets in one result, int64: ``[R, 1, 1]``, transposed for each phase of strides."""
        kept = kept.long()
        if not self.transpose:
            return kept.sum((1, 2, 3))[:, None, None]
        per_group = kept.reshape(self.groups, -1, *kept.shape[1:]).sum(1).flatten(0, 1)  # [R, kh, kw]
        meets = []
        for taps, dilation, stride, before in zip(
            kept.shape[2:], self.dilation, self.stride, self.padding[::2], strict=True
        ):
            phase, tap = torch.arange(stride)[:, None], torch.arange(taps)
            meets.append(((phase + before - tap * dilation) % stride == 0).long())
        return torch.einsum("rkl,ik,jl->rij", per_group, *meets)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return what makes a float32 of the sums of a convolution of bytes: ``sum * factor + shift``.

        Returns:
            The factors ``[R]``, and the shifts ``[R, 1, 1]``, transposed one for each phase of the strides
            ``[R, stride, stride]``: bias, less what the bytes of zero add to a sum.
        """
        assert self.stored is not None
        assert self.weight_scale is not None
        factor = self.weight_scale.double() * self.stored.scale
        zeros = (self.stored.zero * self._tap_sums(self.kept_weight())).double() * factor[:, None, None]
        bias = zeros.new_zeros(len(factor)) if self.bias is None else self.bias.double()
        return factor.float(), (bias[:, None, None] - zeros).float()

    def _rescaled(self, x: Tensor) -> Tensor:
        """Make float32 of the sums of weights times bytes less their zero, float64 ``[N, R, H, W]``."""
        assert self.stored is not None
        factor, shift = self.factors()
        zeros = self.stored.zero * self._tap_sums(self.kept_weight())
        rows, columns = (torch.arange(x.shape[2 + i]) % shift.shape[1 + i] for i in (0, 1))
        sums = x + zeros[:, rows][:, :, columns]  # padding holds the byte of zero
        return sums.float() * factor[:, None, None] + shift[:, rows][:, :, columns]

    def _convolved(self, x: Tensor) -> Tensor:
        kept = self.kept_weight().to(x.dtype)
        bias = None if self.bias is None or self.stored else self.bias.to(x.dtype)
        top, bottom, left, right = self.padding
        if self.transpose:
            whole = F.conv_transpose2d(x, kept, bias, self.stride, 0, self.output_padding, self.groups, self.dilation)
            return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]
        if self.border != "zeros" or top != bottom or left != right:
            mode = "constant" if self.border == "zeros" else self.border
            x, top, left = F.pad(x, (left, right, top, bottom), mode), 0, 0
        return F.conv2d(x, kept, bias, self.stride, (top, left), self.dilation, self.groups)


@dataclass(eq=False)
class SumStep:
    """A sum of values, for where an addition stands behind no convolution."""

    add: tuple[Addend, ...]
    activation: Activation | None = None
    dst: Value = field(init=False)

    def __post_init__(self) -> None:
        if not self.add:
            raise KernelError("program: a sum of nothing")
        first = self.add[0]
        channels, rows, columns = first.value.shape
        out = (channels, rows * first.upsample, columns * first.upsample)
        _check_addends(self.add, out)
        _check_vector("activation", self.activation, channels)
        if any(addend.value.stored is not None for addend in self.add):
            _check_exact(self.activation)
        self.activation = _own_slope(self.activation)
        self.dst = Value(-1, out)

    @property
    def reads(self) -> tuple[Value, ...]:
        """Every value that it reads."""
        return tuple(addend.value for addend in self.add)

    def dense(self, values: dict[int, Tensor], affines: Sequence[Tensor]) -> Tensor:
        """Compute it in torch; arguments as for :meth:`ConvStep.dense`."""
        return _activated(_with_addends(None, self.add, values), self.activation)


@dataclass(eq=False)
class NormStep:
    """Instance norm, or group norm, of a value."""

    source: Value
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    groups: int
    dst: Value = field(init=False)

    def __post_init__(self) -> None:
        channels = self.source.shape[0]
        _check_float(self.source)
        if self.groups < 1 or channels % self.groups:
            raise KernelError(f"program: {channels} channels are not {self.groups} groups")
        for name in ("weight", "bias"):
            _check_vector(name, getattr(self, name), channels)
            setattr(self, name, _own(getattr(self, name)))
        self.dst = Value(-1, self.source.shape)

    @property
    def reads(self) -> tuple[Value, ...]:
        """Every value that it reads."""
        return (self.source,)

    def dense(self, values: dict[int, Tensor], affines: Sequence[Tensor]) -> Tensor:
        """Compute it in torch; arguments as for :meth:`ConvStep.dense`."""
        x = values[self.source.index]
        weight, bias = (None if t is None else t.to(x.dtype) for t in (self.weight, self.bias))
        return torch.group_norm(x, self.groups, weight, bias, self.eps)


@dataclass(eq=False)
class QuantizeStep:
    """A value brought into bytes, with what stands before a convolution fused; see :meth:`Program.quantize`."""

    source: Value
    stored: Quantized
    scale: Tensor | None = None
    shift: Tensor | None = None
    affine: Affine | None = None
    activation: Activation | None = None
    dst: Value = field(init=False)

    def __post_init__(self) -> None:
        channels = self.source.shape[0]
        _check_float(self.source)
        _check_scaling(self.scale, self.shift, self.affine, channels)
        _check_vector("activation", self.activation, channels)
        _check_exact(self.activation)
        self.scale, self.shift, self.activation = _own(self.scale), _own(self.shift), _own_slope(self.activation)
        self.dst = Value(-1, self.source.shape, self.stored)

    @property
    def reads(self) -> tuple[Value, ...]:
        """Every value that it reads."""
        return (self.source,)

    def dense(self, values: dict[int, Tensor], affines: Sequence[Tensor]) -> Tensor:
        """Compute it in torch, uint8; arguments as for :meth:`ConvStep.dense`."""
        x = _scaled(values[self.source.index].float(), self.scale, self.shift, self.affine, affines)
        return self.stored.bytes_of(_activated(x, self.activation))


Step: TypeAlias = ConvStep | SumStep | NormStep | QuantizeStep
