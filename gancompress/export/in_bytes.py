"""Generators that compute in bytes: calibrated on their own latents, kept near to float, and described in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gancompress.errors import ExportError, KernelError
from gancompress.evaluation.sampler import Sampler
from gancompress.export.compiled import CompiledGenerator, ProgramModule, compile_generator
from gancompress.export.tensors import Grid
from gancompress.kernels import Quantized
from gancompress.quantization.kept import bearable, kept_in_float
from gancompress.quantization.programs import calibrate_all, merges, named
from gancompress.quantization.ranges import RULES, LayerBytes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

    from gancompress.backbones.base import Generator
    from gancompress.quantization.ranges import RangeRule
    from gancompress.sparsity.layers import Layer

__all__ = ["calibrate_generator", "doubled_layers", "grid_of", "ranges_from_json", "ranges_to_json"]

#: images that ranges are taken from, and that layers are kept by; so many at a time
_CALIBRATED, _COMPARED, _TOGETHER = 128, 32, 16
_FARTHEST = 32


def calibrate_generator(
    generator: Generator, masks: Mapping[str, Tensor], rule: RangeRule = "mse"
) -> dict[str, LayerBytes]:
    """Choose how the convolutions of a generator compute in bytes, on latents as it gets them.

    Args:
        generator: left as it is.
        masks: of its weights, by name.
        rule: how the ends of ranges are chosen.

    Returns:
        By the names of weights; what is missing stays in float.

    Raises:
        ExportError: no layer fits.
        EvaluationError: its images are not finite.
    """
    if rule not in RULES:
        raise ExportError(f"range {rule!r}: use {', '.join(RULES)}")
    if getattr(generator, "translates", False):
        raise ExportError("int8 is calibrated on latents, and this generator eats images: use float32 or bf16")
    compiled, modules = _in_float(generator, masks)
    sampler = Sampler(compiled, seed=0, stream="calibration")
    given: dict[ProgramModule, list[tuple[Tensor, ...]]] = {module: [] for module in modules}
    hooks = [module.register_forward_pre_hook(lambda own, args: given[own].append(args)) for module in modules]
    for start in range(0, _CALIBRATED, _TOGETHER):
        sampler.images(start, start + _TOGETHER)
    for hook in hooks:
        hook.remove()
    calls = [(module.layers, module.program, [module.given(*args) for args in given[module]]) for module in modules]
    calibrated = calibrate_all(calls, rule)
    found, work = calibrated.ranges, calibrated.work
    if not found:
        nowhere = next(iter(compiled.dense.values()), "none is in a place where bytes can be")
        raise ExportError(f"no layer of this generator fits int8: {calibrated.reason or nowhere}")
    floats = {module: module.program for module in modules}

    def images() -> Tensor:
        starts = range(_CALIBRATED, _CALIBRATED + _COMPARED, _TOGETHER)
        return torch.cat([sampler.images(start, start + _TOGETHER) for start in starts])

    def error(layers: Collection[str]) -> float:
        for module, program in floats.items():
            module.program = named(program, module.layers, {name: found[name] for name in layers})
        difference = (images() - wanted).double().square().mean()
        return float(difference)

    wanted = images()
    kept = kept_in_float(error, {name: work[name] for name in found}, sum(work.values()), bearable(peak=2.0))
    return {name: own for name, own in found.items() if name not in kept}


def doubled_layers(generator: Generator, masks: Mapping[str, Tensor]) -> set[str]:
    """Return which convolutions, by the names of weights, have their taps merged with a doubling of pixels."""
    _, modules = _in_float(generator, masks)
    return {name for module in modules for name in merges(module.program, module.layers)}


def _in_float(generator: Generator, masks: Mapping[str, Tensor]) -> tuple[CompiledGenerator, list[ProgramModule]]:
    """Return a generator with the programs that can be brought into bytes, and these."""
    compiled = compile_generator(generator, masks, sparse="always", ranges={})
    return compiled, [module for module in compiled.run.modules() if isinstance(module, ProgramModule)]


def grid_of(layer: Layer, own: LayerBytes) -> Grid:
    """Return how the weight of a layer is brought to eight bits."""
    return Grid(layer.kind == "transposed convolution", layer.groups, own.factors)


def ranges_to_json(ranges: Mapping[str, LayerBytes]) -> dict[str, Any]:
    """Return ranges as a file has them."""
    found: dict[str, Any] = {}
    for name, own in ranges.items():
        found[name] = {"scale": own.stored.scale, "zero": own.stored.zero}
        if own.exponents:
            found[name]["exponents"] = [*own.exponents]
    return found


def ranges_from_json(content: Any) -> dict[str, LayerBytes]:
    """Undo :func:`ranges_to_json`.

    Raises:
        ExportError: a forged file has something else there.
    """
    found = {}
    for name, one in dict(content).items():
        scale, zero, exponents = one["scale"], one["zero"], one.get("exponents", [])
        if not isinstance(scale, float) or type(zero) is not int:
            raise ExportError(f"layer {name}: its bytes have the scale {scale!r} and the zero {zero!r}")
        if not all(type(power) is int and abs(power) <= _FARTHEST for power in exponents):
            raise ExportError(f"layer {name}: exponents are whole numbers up to {_FARTHEST}")
        try:
            found[name] = LayerBytes(Quantized(scale, zero), tuple(exponents))
        except KernelError as error:
            raise ExportError(f"layer {name}: {error.message}") from error
    return found
