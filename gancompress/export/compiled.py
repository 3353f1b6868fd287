"""A generator compiled for the CPU: its convolutions run at their kept weights only, in few native calls.

Batch norm and spectral norm are merged into the weights, ReLUs, upsampling and residual additions fused, and the memory
between layers is planned once. What cannot be compiled runs as it was, dense, and :attr:`CompiledGenerator.layers` says
what and why.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx, nn

from gancompress.backbones.base import Generator, prunable_weights
from gancompress.errors import ExportError
from gancompress.evaluation.sandbox import draws
from gancompress.export.captured_run import run_captured
from gancompress.export.constants import fold_constants
from gancompress.export.exact import compute_exactly
from gancompress.export.functional import without_writes
from gancompress.export.in_place import reuse_memory
from gancompress.export.lowering import Convolution, Read, Region, find_regions, refusal
from gancompress.export.plain import example_inputs, plain_copy
from gancompress.export.tracing import ENTRY, VALUE, trace, value_of
from gancompress.kernels import Addend, Layer, Mode, Pattern, Program, Value, choose, status
from gancompress.kernels.tuning import chosen_mode
from gancompress.quantization.programs import named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.quantization.ranges import LayerBytes

__all__ = ["AffineModule", "CompiledGenerator", "LayerReport", "ProgramModule", "compile_generator"]

#: Up to this share of multiply-adds nothing is measured before compiling: at it, ten generators of 1.6 to 290 ms were
#: all compiled to be 2.2 to 4 times as fast (docs/export.md). Above, the break-evens of their layers decide.
_SURELY_PAYS = 0.25
#: Batch that break-evens are asked for.
_BATCH = 16
#: Largest difference between a pixel of the compiled and of the eager generator that compiling accepts. Rounding alone
#: gives about 1e-6, up to 1e-4 in untrained generators that amplify it; a wrong fusion gives 0.1 and more.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """How one layer is computed.

    Attributes:
        name: of the module.
        kind: ``convolution`` or ``linear``.
        density: share of weights kept.
        runs: ``sparse`` in a native program, or ``dense`` in torch.
        why: for dense layers, the reason; else empty.
        values: ``int8`` for layers in bytes.
    """

    name: str
    kind: str
    density: float
    runs: Literal["sparse", "dense"]
    why: str = ""
    values: Literal["float32", "int8"] = "float32"


class CompiledGenerator(Generator):
    """What :func:`compile_generator` returns; called like the generator it was made of, on the CPU, without gradients.

    Attributes:
        layers: how every convolution and linear layer is computed.
    """

    def __init__(self, generator: Generator, run: nn.Module, layers: tuple[LayerReport, ...]) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image = generator.latent_dim, generator.num_classes, generator.image
        self.translates = getattr(generator, "translates", False)  # a module may only look like a generator
        self._shape = getattr(generator, "input_shape", (generator.latent_dim,))
        self.layers = layers
        self._takes_labels = not isinstance(run, Generator)
        self.run = run
        self.eval()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self._shape

    @torch.no_grad()
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim) and labels (B,) or None to images (B, C, H, W) in [-1, 1], float32.

        Of a generator that eats images ``z`` is these, (B, C, H, W).
        """
        if self.num_classes and labels is None:
            raise ExportError(f"this generator is conditional: give it labels from 0 to {self.num_classes - 1}")
        arguments = (z.float(), labels)[: 2 if self.num_classes or not self._takes_labels else 1]
        images: Tensor = self.run(*arguments)
        return images

    @property
    def dense(self) -> dict[str, str]:
        """Why each layer that runs dense does, by name."""
        return {layer.name: layer.why for layer in self.layers if layer.runs == "dense"}

    def extra_repr(self) -> str:
        """Say how many layers run how."""
        sparse = sum(layer.runs == "sparse" for layer in self.layers)
        return f"{sparse} layers sparse, {len(self.layers) - sparse} dense"


class ProgramModule(nn.Module):
    """A program as a module of a graph; ``layers`` are the names of the weights of its convolutions."""

    def __init__(self, program: Program, layers: tuple[str, ...]) -> None:
        super().__init__()
        self.program, self.layers = program, layers

    def given(self, x: Tensor, *affines: Tensor) -> tuple[Tensor, ...]:
        """Return what the program is called with when the module is called with this."""
        return (x, *(affine.expand(x.shape[0], -1, -1) for affine in affines))

    def forward(self, *given: Tensor) -> Tensor:
        """Map what comes in, and gains and biases, to what goes out."""
        images: Tensor = self.program(*self.given(*given))
        return images


class AffineModule(nn.Module):
    """Composes the gains and biases of a :class:`Read`, some given image by image, to what a program takes.

    Called with what the read's nodes give; returns ``[N, 2, C]`` (N is 1 when no factor knows better).
    """

    def __init__(self, read: Read) -> None:
        super().__init__()
        self._fixed = {
            place: factor.float()
            for place, factor in enumerate(factor for pair in read.affine for factor in pair)
            if isinstance(factor, Tensor)
        }
        self._given = [isinstance(factor, fx.Node) for pair in read.affine for factor in pair]

    def factors(self, given: Sequence[Any]) -> list[Any]:
        """Return gain and bias of each pair, one behind the other: one of ``given``, a tensor, or None."""
        ahead = iter(given)
        return [next(ahead) if is_given else self._fixed.get(place) for place, is_given in enumerate(self._given)]

    def forward(self, *given: Tensor) -> Tensor:
        """Return scales and shifts, (N, 2, C); see the class."""
        ahead = iter(given)

        def number(place: int) -> Tensor | None:
            return next(ahead).float().flatten(1) if self._given[place] else self._fixed.get(place)

        scale, shift = torch.ones(()), torch.zeros(())
        for place in range(0, len(self._given), 2):
            gain, bias = number(place), number(place + 1)
            if gain is not None:
                scale, shift = scale * gain, shift * gain
            if bias is not None:
                shift = shift + bias
        return torch.stack((scale * torch.ones_like(shift), shift * torch.ones_like(scale)), 1)


def compile_generator(
    generator: Generator,
    masks: Mapping[str, Tensor] | None = None,
    *,
    sparse: Mode | None = None,
    ranges: Mapping[str, LayerBytes] | None = None,
) -> CompiledGenerator:
    """Compile a generator for inference on the CPU.

    Args:
        generator: any; it is copied and left as it is. Backbones need no code of their own: its ``forward`` is traced.
        masks: by the name that ``prunable_weights`` gives. A weight without mask counts as kept whole.
        sparse: ``always`` uses the kernels wherever they fit, ``never`` leaves all in torch, ``auto`` takes what is
            measured to be faster; None takes ``GANCOMPRESS_SPARSE``, then ``auto``.
        ranges: how convolutions compute in bytes, by the names of their weights. Programs are then used whatever is
            faster, with native kernels or without, unless ``sparse`` is ``never``.

    Raises:
        ExportError: a mask does not fit its weight, or it is a module of another kind.
    """
    if not hasattr(generator, "latent_dim"):
        raise ExportError(
            f"{type(generator).__name__} is no generator of gancompress, with latent_dim, num_classes and image: "
            "other modules are pruned, and then run sparse, by gancompress.compress(module, density=…, example=(x,))"
        )
    plain = plain_copy(generator)
    kept = _masked(plain, masks or {})
    why = dict.fromkeys(kept, "it is not in a place where a sparse program can be")
    example = example_inputs(plain, 2, "compile")
    run: nn.Module = plain
    programs: dict[str, str] = {}
    in_bytes: set[str] = set()
    if getattr(plain, "translates", False):
        return _compiled_translator(plain, kept, example, sparse, ranges)
    try:
        if draws(plain, *example.values()):
            raise ExportError("it draws random numbers of its own, which a trace would keep as they came")
        graph = trace(plain, example)
    except Exception as error:  # symbols went through the code of a backbone: anything may be raised
        reason = f"the backbone cannot be traced ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        why = dict.fromkeys(kept, reason)
    else:
        want = value_of(graph.graph.output_node().all_input_nodes[0])
        without_writes(graph)
        fold_constants(graph)
        programs = _install(graph, kept, why, sparse, ranges is not None)
        got = graph(*example.values())
        if torch.allclose(got, want, rtol=0, atol=_TOLERANCE, equal_nan=True):
            run = graph
            in_bytes = _bring_into_bytes(graph, ranges or {})
            if in_bytes:
                compute_exactly(graph)
        else:
            difference = float((got - want).abs().max())
            why = dict.fromkeys(kept, f"the compiled images differ from the eager ones by {difference:.1e}")
            programs = {}
    kinds = {name.removesuffix(".weight"): weight.kind for name, weight in prunable_weights(plain).items()}
    layers = tuple(
        LayerReport(
            name, kinds[name], int(mask.sum()) / mask.numel(), "sparse" if name in programs else "dense",
            "" if name in programs else why[name], "int8" if f"{name}.weight" in in_bytes else "float32",
        )
        for name, mask in kept.items()
    )  # fmt: skip
    return CompiledGenerator(plain, run, layers)


def _compiled_translator(
    plain: Generator,
    kept: Mapping[str, Tensor],
    example: Mapping[str, Tensor],
    sparse: Mode | None,
    ranges: Mapping[str, LayerBytes] | None,
) -> CompiledGenerator:
    """Compile a generator that eats images: by its graph, in float32."""
    if ranges:
        raise ExportError("generators that eat images compute in float32: leave int8 out")
    run: nn.Module = plain
    try:
        if draws(plain, *example.values()):
            raise ExportError("it draws random numbers of its own, which a graph cannot do")
        run, why = run_captured(plain, {f"{name}.weight": mask for name, mask in kept.items()}, example, sparse)
    except ExportError as error:
        why = {f"{name}.weight": f"the backbone cannot be captured ({error.message})" for name in kept}
    kinds = {name.removesuffix(".weight"): weight.kind for name, weight in prunable_weights(plain).items()}
    layers = tuple(
        LayerReport(
            name, kinds[name], int(mask.sum()) / mask.numel(), "dense" if f"{name}.weight" in why else "sparse",
            why.get(f"{name}.weight", ""),
        )
        for name, mask in kept.items()
    )  # fmt: skip
    return CompiledGenerator(plain, run, layers)


def _masked(network: Generator, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zero what masks leave out, and return the mask of every prunable layer by the name of its module."""
    weights = prunable_weights(network)
    unknown = sorted(masks.keys() - weights.keys())
    if unknown:
        raise ExportError(f"there is a mask for {unknown[0]}, which this generator does not have")
    kept = {}
    for name, weight in weights.items():
        mask = masks.get(name)
        if mask is None:
            mask = torch.ones(weight.parameter.shape, dtype=torch.bool)
        if mask.shape != weight.parameter.shape or mask.dtype is not torch.bool:
            raise ExportError(
                f"the mask of {name} is {tuple(mask.shape)} {mask.dtype}, "
                f"its weight has {tuple(weight.parameter.shape)}"
            )
        weight.parameter.data.masked_fill_(~mask.cpu(), 0)
        kept[name.removesuffix(".weight")] = mask.cpu()
    return kept


def _bring_into_bytes(graph: fx.GraphModule, ranges: Mapping[str, LayerBytes]) -> set[str]:
    """Bring the convolutions that have ranges into bytes; return the names of their weights."""
    found: set[str] = set()
    for module in graph.modules():
        if isinstance(module, ProgramModule):
            module.program = named(module.program, module.layers, ranges)
            found |= {*module.layers} & ranges.keys()
    return found


def _install(
    graph: fx.GraphModule, kept: Mapping[str, Tensor], why: dict[str, str], mode: Mode | None, exact: bool
) -> dict[str, str]:
    """Replace regions of the graph by programs; return the program of every layer that runs in one, by name."""
    for name, module in graph.named_modules():
        own = name.removeprefix(ENTRY)
        if own in kept:
            reason = refusal(module)
            why[own] = "a linear layer" if isinstance(module, nn.Linear) else reason if reason else why[own]
    programs: dict[str, str] = {}
    titles: list[str] = []
    for region in find_regions(graph):
        names = {number: str(conv.node.target).removeprefix(ENTRY) for number, conv in region.convolutions.items()}
        patterns = {
            number: Pattern(kept[name] if name in kept else torch.ones_like(conv.weight, dtype=torch.bool))
            for (number, name), conv in zip(names.items(), region.convolutions.values(), strict=True)
        }
        dense_because = _better_dense(region, patterns, mode, exact)
        if dense_because:
            why.update({name: dense_because for name in names.values() if name in why})
            continue
        titles.append(title := f"program{len(titles)}")
        weights = tuple(f"{names[number]}.weight" for number in region.numbers)
        graph.add_module(title, ProgramModule(_program(region, patterns), weights))
        with graph.graph.inserting_before(region.exit):
            affines = []
            for number in region.numbers:
                read = region.convolutions[number].source
                if read.nodes:
                    graph.add_module(f"{title}_affine{number}", AffineModule(read))
                    affines.append(graph.graph.call_module(f"{title}_affine{number}", tuple(read.nodes)))
            node = graph.graph.call_module(title, (region.source, *affines))
        node.meta[VALUE] = value_of(region.exit)
        region.exit.replace_all_uses_with(node)
        programs.update(dict.fromkeys(names.values(), title))
    graph.graph.eliminate_dead_code()
    reuse_memory(graph, titles)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return programs


def _program(region: Region, patterns: Mapping[int, Pattern]) -> Program:
    channels, height, width = value_of(region.source).shape[1:]
    program = Program((channels, height, width))
    values: dict[int, Value] = {0: program.input}
    for number in region.numbers:
        conv = region.convolutions[number]
        values[number] = _add(program, conv, patterns[number], values)
    program.output(values[region.numbers[-1]])
    return program


def _add(program: Program, conv: Convolution, pattern: Pattern, values: Mapping[int, Value]) -> Value:
    read, module = conv.source, conv.module
    affine = program.affine(module.in_channels) if read.nodes else None
    scale, shift = (None, None) if affine is not None else _composed(read)
    bias = None if conv.bias is None else conv.bias.float()
    x, weight = values[read.value], conv.weight.float()
    stride, padding = int(module.stride[0]), int(module.padding[0])
    add = () if conv.add is None else Addend(values[conv.add.value], upsample=2 if conv.add.up else 1)
    how: dict[str, Any] = {"groups": module.groups, "pre": read.slope, "add": add, "activation": conv.slope}
    if isinstance(module, nn.ConvTranspose2d):
        return program.conv_transpose(
            x, weight, pattern, bias, stride=stride, padding=padding, output_padding=int(module.output_padding[0]),
            scale=scale, shift=shift, affine=affine, **how,
        )  # fmt: skip
    return program.conv(
        x, weight, pattern, bias, stride=stride, padding=padding, scale=scale, shift=shift, affine=affine,
        upsample=read.up, **how,
    )  # fmt: skip


def _composed(read: Read) -> tuple[Tensor | None, Tensor | None]:
    """Return one scale and one shift, (C,), for an affine map that is the same for every image."""
    scale: Tensor | None = None
    shift: Tensor | None = None
    for gain, bias in read.affine:
        assert isinstance(gain, Tensor)
        assert isinstance(bias, Tensor)
        if scale is not None and shift is not None:
            gain, bias = gain * scale, gain * shift + bias
        scale, shift = gain, bias
    return (None, None) if scale is None or shift is None else (scale.float(), shift.float())


def _better_dense(region: Region, patterns: Mapping[int, Pattern], mode: Mode | None, exact: bool) -> str:
    """Say why a region is better left to torch, nothing when a program is faster, or wanted for its exact numbers."""
    how = chosen_mode(mode)
    if exact:
        return "asked for" if how == "never" else ""
    kernels = status()
    if not kernels.available:
        return f"no native kernels: {kernels.reason}"
    if how == "never":
        return "asked for"
    if how == "always":
        return ""
    work: dict[int, float] = {}
    for number, conv in region.convolutions.items():
        out = value_of(conv.node).shape
        work[number] = conv.weight.numel() * out[2] * out[3] / (conv.module.stride[0] ** 2 if _transposed(conv) else 1)
    total = sum(work.values())
    share = sum(work[number] * patterns[number].density for number in work) / total
    if share <= _SURELY_PAYS:
        return ""
    slower = sum(
        work[number]
        for number, conv in region.convolutions.items()
        if choose(_layer(conv), patterns[number].density, training=False, mode=mode) == "dense"
    )
    return f"{share:.2f} of its products are left, more than the measured break-even" if 2 * slower > total else ""


def _transposed(conv: Convolution) -> bool:
    return isinstance(conv.module, nn.ConvTranspose2d)


def _layer(conv: Convolution) -> Layer:
    height, width = value_of(conv.node.all_input_nodes[0]).shape[2:]
    return Layer(
        "transpose" if _transposed(conv) else "conv", tuple(conv.weight.shape), _BATCH, height, width,
        int(conv.module.stride[0]), int(conv.module.padding[0]),
        int(conv.module.output_padding[0]) if _transposed(conv) else 0, conv.module.groups,
    )  # fmt: skip
