"""From a float program to one in bytes: :func:`calibrate` looks at inputs, :func:`quantized` builds it.

A convolution runs in bytes when :func:`unfit` has nothing against it, something else than zeros was seen of what it
reads, and nobody asked to keep it in float. What it reads is written as bytes by a step of its own, with the scale,
shift and activation that stood before the convolution; sums, norms and results stay in float32. Convolutions that read
the same share one such step. Beside a doubling of pixels, taps are merged before weights are brought to eight bits.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.kernels import Addend, Program
from gancompress.kernels.native_program import merged
from gancompress.kernels.steps import ConvStep, NormStep, SumStep
from gancompress.quantization.ranges import LayerBytes, RangeRule, Seen, choose
from gancompress.quantization.weights import LARGEST, rows_of, times_channels, to_int8

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gancompress.kernels import Affine, Value

__all__ = [
    "Calibrated",
    "Ranges",
    "calibrate",
    "calibrate_all",
    "convolutions",
    "merges",
    "named",
    "quantized",
    "unfit",
]

#: how convolutions compute in bytes, by their place among the convolutions of a program
Ranges: TypeAlias = "Mapping[int, LayerBytes]"

#: channels that share a word
_WORD = 4
#: how far towards equal shares between channels equalisation goes, and the largest power of two
_STRENGTHS = (0.0, 0.5, 1.0)
_FARTHEST = 6
#: what equalisation has to gain, of the error, to be worth a multiplication per number
_WORTH = 0.9


def convolutions(program: Program) -> list[ConvStep]:
    """Return the convolutions of a program, in their order."""
    return [step for step in program.steps if isinstance(step, ConvStep)]


def unfit(step: ConvStep) -> str:
    """Say why a convolution cannot run in bytes, nothing when it can."""
    parts = [value.shape[0] for value in step.sources]
    if len(parts) > 1 and any(part % _WORD for part in parts):
        return f"it joins {', '.join(map(str, parts))} channels, and bytes are joined by fours"
    if len(parts) > 1 and step.affine is not None:
        return "what it joins is scaled image by image"
    if step.groups > 1 and sum(parts) // step.groups % _WORD:
        return f"its groups have {sum(parts) // step.groups} channels each, and bytes are grouped by fours"
    if isinstance(step.pre, str):
        return f"{step.pre} stands before it, which is computed in float"
    return ""


def calibrate(
    program: Program, batches: Sequence[Sequence[Tensor]], rule: RangeRule = "mse", *, equalise: bool = True
) -> dict[int, LayerBytes]:
    """Choose how the convolutions of a program compute in bytes.

    Args:
        program: in float.
        batches: what it is called with, maps and then gains and biases.
        rule: how the ends of ranges are chosen.
        equalise: whether channels may be divided by powers of two, and their weights multiplied, where that is expected
            to lower the error of the result by a tenth.

    Returns:
        One entry per convolution that can run in bytes, by its place among the convolutions. Those that read the same
        have the same.

    Raises:
        ExportError: there is no input, or one gives NaN or infinite numbers.
    """
    if not batches:
        raise ExportError("ranges need calibration inputs, and there are none")
    groups: dict[Any, list[int]] = {}
    steps = convolutions(program)
    for number, step in enumerate(steps):
        if not unfit(step):
            groups.setdefault(_read_of(step), []).append(number)
    seen = {numbers[0]: Seen(_channels(steps[numbers[0]])) for numbers in groups.values()}
    for look in (Seen.widen, Seen.fill):
        for given in batches:
            values, affines = dict(enumerate(given[: len(program.inputs)])), given[len(program.inputs) :]
            places = iter(range(len(steps)))
            for one in program.steps:
                if isinstance(one, ConvStep) and (number := next(places)) in seen:
                    look(seen[number], one.read(values, affines))
                values[one.dst.index] = one.dense(values, affines)
    found = {}
    for numbers in groups.values():
        if not seen[numbers[0]].empty:
            own = _chosen([merged(steps[number]) for number in numbers], seen[numbers[0]], rule, equalise)
            found.update(dict.fromkeys(numbers, own))
    return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """What calibration chose for the convolutions of some programs, by the names of their weights.

    Attributes:
        ranges: of those that can run in bytes.
        work: multiply-adds of all of them.
        why: what is against bytes, of all others.
    """

    ranges: dict[str, LayerBytes]
    work: dict[str, float]
    why: dict[str, str]

    @property
    def reason(self) -> str:
        """Why no layer at all can run in bytes, in words."""
        return next((f"{name.removesuffix('.weight')}: {why}" for name, why in self.why.items() if name), "")


def calibrate_all(
    calls: Sequence[tuple[Sequence[str], Program, Sequence[Sequence[Tensor]]]], rule: RangeRule = "mse"
) -> Calibrated:
    """Calibrate every program of a network.

    Args:
        calls: of each program the names of its convolutions' weights, itself, and what it is called with. A weight that
            is used in several places stays in float.
        rule: how the ends of ranges are chosen.

    Raises:
        ExportError: as for :func:`calibrate`.
    """
    found = Calibrated({}, {}, {})
    names = [name for layers, _, _ in calls for name in layers]
    for layers, program, given in calls:
        own = calibrate(program, given, rule)
        for number, (name, step) in enumerate(zip(layers, convolutions(program), strict=True)):
            work = step.pattern.kept * math.prod(step.dst.shape[1:])
            found.work[name] = found.work.get(name, 0) + work
            if names.count(name) > 1:
                found.why[name] = "its weight is used in several places"
            elif number in own:
                found.ranges[name] = own[number]
            else:
                found.why[name] = unfit(step) or "it reads nothing but zeros"
    return found


def _channels(step: ConvStep) -> int:
    return sum(value.shape[0] for value in step.sources)


def _chosen(steps: Sequence[ConvStep], seen: Seen, rule: RangeRule, equalise: bool) -> LayerBytes:
    """Choose ranges and powers of two for the convolutions that read the same."""
    squares, largest = torch.zeros(len(seen.low), dtype=torch.float64), torch.zeros(len(seen.low), dtype=torch.float64)
    for step in steps:
        rows = _by_input(step)
        squares += rows.square().sum(1)
        largest = torch.maximum(largest, rows.abs().amax(1))
    ends = torch.maximum(seen.low.abs(), seen.high.abs()).double()
    scalable = steps[0].affine is None and equalise
    best: tuple[float, LayerBytes] | None = None
    for strength in _STRENGTHS if scalable else _STRENGTHS[:1]:
        exponents = _exponents(ends, largest, strength)
        factors = exponents.exp2()
        stored, error = choose(seen, rule, squares * factors.square(), factors)
        error += sum(_weight_error(step, seen, factors) for step in steps)
        if best is None or error < _WORTH * best[0]:
            powers = tuple(exponents.int().tolist())
            best = error, LayerBytes(stored, powers if any(powers) else ())
    assert best is not None
    return best[1]


def _exponents(ends: Tensor, largest: Tensor, strength: float) -> Tensor:
    """Return powers of two that bring the channels' ends nearer to each other, as far as their weights bear it."""
    if not strength:
        return torch.zeros_like(ends)
    known = (ends > 0) & (largest > 0)
    if not bool(known.any()):  # of weights that are all 0, as blocks that start as the identity have
        return torch.zeros_like(ends)
    wanted = strength * ends[known].log2() - (1 - strength) * largest[known].log2()
    exponents = torch.zeros_like(ends)
    exponents[known] = (wanted - wanted.max()).round().clamp(-_FARTHEST, 0)
    return exponents


def _by_input(step: ConvStep) -> Tensor:
    """Return the kept weights of every input channel, ``[C, outputs * taps]`` float64."""
    kept = torch.where(step.pattern.mask.cpu(), step.weight, 0.0).double()
    rows = rows_of(kept, step.transpose, step.groups)
    grouped = rows.reshape(step.groups, len(rows) // step.groups, rows.shape[1], -1)
    return grouped.transpose(1, 2).reshape(step.groups * rows.shape[1], -1)


def _weight_error(step: ConvStep, seen: Seen, factors: Tensor) -> float:
    """Return what the rounding of weights is expected to add to the squared error of the results."""
    kept = torch.where(step.pattern.mask.cpu(), step.weight, 0.0).double()
    rows = rows_of(times_channels(kept, factors, step.transpose, step.groups), step.transpose, step.groups)
    steps = rows.abs().amax((1, 2)) / LARGEST
    power = (seen.power / factors.square()).reshape(step.groups, 1, -1).expand(-1, len(rows) // step.groups, -1)
    return float(((rows != 0).sum(2) * power.reshape(len(rows), -1) * steps.square()[:, None]).sum()) / 12


def quantized(program: Program, ranges: Ranges, keep: Collection[int] = ()) -> Program:
    """Return the program in bytes.

    Args:
        program: in float; left as it is.
        ranges: from :func:`calibrate`. A convolution without one stays in float.
        keep: places of convolutions that stay in float whatever ``ranges`` has of them.

    Raises:
        ExportError: no convolution is left to run in bytes.
        KernelError: ranges do not fit the program.
    """
    made = Program(*(value.shape for value in program.inputs))
    affines = {one: made.affine(one.channels) for one in program.affines}
    built = _Built(made, dict(zip(program.inputs, made.inputs, strict=True)), affines)
    number = -1
    for step in program.steps:
        number += isinstance(step, ConvStep)
        own = ranges.get(number) if number not in keep else None
        if isinstance(step, ConvStep) and own is not None:
            built.values[step.dst] = built.in_bytes(merged(step), own)
        else:
            built.values[step.dst] = built.add(step)
    if not built.bytes:
        raise ExportError("no layer is left to compute in bytes")
    made.output(*(built.values[value] for value in program.outputs))
    return made


def merges(program: Program, layers: Sequence[str]) -> set[str]:
    """Return which convolutions, by the names of their weights, have their taps merged beside a doubling of pixels."""
    return {name for name, step in zip(layers, convolutions(program), strict=True) if merged(step) is not step}


def named(program: Program, layers: Sequence[str], ranges: Mapping[str, LayerBytes]) -> Program:
    """Return a program in bytes as far as there are ranges; both are by the names of its convolutions' weights."""
    own = {number: ranges[name] for number, name in enumerate(layers) if name in ranges}
    return quantized(program, own) if own else program


def _read_of(step: ConvStep) -> tuple[Any, ...]:
    """Return what tells apart whether two convolutions read the same."""
    vectors = (step.scale, step.shift, step.pre)
    known = (one.numpy().tobytes() if isinstance(one, Tensor) else one for one in vectors)
    return tuple(value.index for value in step.sources), step.affine, *known


@dataclasses.dataclass
class _Built:
    """A program while it is built, with what became of the values of the one that it is built from."""

    program: Program
    values: dict[Value, Value]
    affines: Mapping[Affine, Affine]
    bytes: dict[Any, list[Value]] = dataclasses.field(default_factory=dict)

    def add(self, step: Any) -> Value:
        """Add a step as it is."""
        changes: dict[str, Any] = {}
        if isinstance(step, ConvStep | SumStep):
            changes["add"] = tuple(dataclasses.replace(one, value=self.values[one.value]) for one in step.add)
        if isinstance(step, ConvStep):
            changes["sources"] = tuple(self.values[value] for value in step.sources)
            changes["affine"] = None if step.affine is None else self.affines[step.affine]
        if isinstance(step, NormStep):
            changes["source"] = self.values[step.source]
        return self.program.add(dataclasses.replace(step, **changes))

    def in_bytes(self, step: ConvStep, own: LayerBytes) -> Value:
        """Add a convolution of bytes, and what writes these."""
        key = (_read_of(step), own)
        if key not in self.bytes:
            self.bytes[key] = self._written(step, own)
        factors = own.factors
        kept = torch.where(step.pattern.mask.cpu(), step.weight, 0.0).double()
        if factors is not None:
            kept = times_channels(kept, factors, step.transpose, step.groups)
        weight, scales = to_int8(kept, step.transpose, step.groups)
        add = tuple(dataclasses.replace(one, value=self.values[one.value]) for one in step.add)
        smooth = step.activation if isinstance(step.activation, str) else None
        value = self.program.add(
            dataclasses.replace(
                step, sources=tuple(self.bytes[key]), weight=weight, weight_scale=scales, scale=None, shift=None,
                affine=None, pre=None, add=add, activation=None if smooth else step.activation,
            )
        )  # fmt: skip
        return value if smooth is None else self.program.sum([Addend(value)], smooth)

    def _written(self, step: ConvStep, own: LayerBytes) -> list[Value]:
        channels, scale, shift, factors = _channels(step), step.scale, step.shift, own.factors
        if factors is not None:
            scale = (torch.ones(channels) if scale is None else scale) / factors
            shift = (torch.zeros(channels) if shift is None else shift) / factors
        affine = None if step.affine is None else self.affines[step.affine]
        written, start = [], 0
        for value in step.sources:
            part = slice(start, start + value.shape[0])
            start = part.stop
            slope = step.pre[part] if isinstance(step.pre, Tensor) else step.pre
            written.append(
                self.program.quantize(
                    self.values[value], own.stored, scale=None if scale is None else scale[part],
                    shift=None if shift is None else shift[part], affine=affine, activation=slope,
                )
            )  # fmt: skip
        return written
