"""A compiled generator as the list of operations that ``generator.js`` goes through: programs, and what stands between.

Every operation reads slots and writes one; slot 0 holds the latents, slot 1 the classes. Shapes are those of one image.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gancompress.errors import ExportError
from gancompress.export.compiled import AffineModule, ProgramModule
from gancompress.export.exact import ExactLinear, exact_tanh
from gancompress.export.in_place import ADDED, SCALED, SCALED_IMAGES
from gancompress.export.tracing import ENTRY, value_of
from gancompress.kernels import Program
from gancompress.kernels.layout import scale_and_shift
from gancompress.kernels.resample import bilinear_up2, upsample2
from gancompress.web.steps import program_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.export.compiled import CompiledGenerator
    from gancompress.web.blob import Tensors

__all__ = ["Tape", "record"]

_BINARY = {operator.add: "add", torch.add: "add", operator.mul: "mul", torch.mul: "mul", operator.sub: "sub",
           torch.sub: "sub", operator.truediv: "div", torch.div: "div", ADDED: "add"}  # fmt: skip
_UNARY: dict[Any, str] = {torch.tanh: "tanh", exact_tanh: "tanh", "tanh": "tanh", torch.relu: "relu", F.relu: "relu",
                          "relu": "relu", torch.sigmoid: "sigmoid", "sigmoid": "sigmoid", F.silu: "silu"}  # fmt: skip
_UNARY_MODULES = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.SiLU: "silu"}
_SAME = ("float", "contiguous", "to", "clone")
_VIEWS = ("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze")


class Tape:
    """What is being recorded.

    Attributes:
        programs: as the file's header has them.
        operations: in their order.
        output: the slot of the images.
    """

    def __init__(self, tensors: Tensors, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        self.programs: list[dict[str, Any]] = []
        self.operations: list[dict[str, Any]] = []
        self.output = 0
        self._tensors, self._weights, self._masks = tensors, weights, masks
        self._slots: dict[fx.Node, int] = {}
        self._free = 2

    def _write(self, op: str, node: fx.Node | None, shape: list[int], **more: Any) -> int:
        slot, self._free = self._free, self._free + 1
        self.operations.append({"op": op, "out": slot, "shape": shape, **more})
        if node is not None:
            self._slots[node] = slot
        return slot

    def _operand(self, x: Any) -> Any:
        """Return a slot, or a number or tensor of the generator's own."""
        if isinstance(x, fx.Node):
            return {"slot": self._slots[x]} if x in self._slots else self._constant(value_of(x))
        return {"number": float(x)}

    def _constant(self, value: Tensor) -> dict[str, Any]:
        shape = list(value.shape)
        return {"tensor": self._tensors.add(value.float()), "shape": shape}

    # ---- operations

    def add(self, node: fx.Node, module: nn.Module | None) -> None:
        """Record one node of the graph.

        Raises:
            ExportError: pages lack its operation.
        """
        if node.op == "get_attr":
            return
        shape = list(value.shape[1:]) if isinstance(value := value_of(node), Tensor) else []
        args: list[Any] = list(node.args)
        target: Any = node.target
        if isinstance(module, ProgramModule):
            self._program(node, module, shape)
        elif isinstance(module, AffineModule):
            self._affine(node, module)
        elif isinstance(module, nn.Linear) and len(shape) == 1:
            self._linear(node, module, shape)
        elif isinstance(module, ExactLinear) and len(shape) == 1:
            self._exact_linear(node, module, shape)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            self._convolution(node, module, shape)
        elif isinstance(module, nn.Embedding) and self._slots.get(args[0]) == 1:
            self._write("embed", node, shape, table=self._tensors.add(module.weight.float()))
        elif isinstance(module, nn.BatchNorm2d) and not module.training and module.running_var is not None:
            self._batch_norm(node, module, shape)
        elif type(module) in _UNARY_MODULES:
            self._write("unary", node, shape, of=self._slots[args[0]], kind=_UNARY_MODULES[type(module)])
        elif isinstance(module, nn.LeakyReLU):
            self._write("unary", node, shape, of=self._slots[args[0]], kind="leaky", slope=module.negative_slope)
        elif isinstance(module, nn.Identity | nn.Dropout) or (module is None and target in _SAME and _is_float(node)):
            self._slots[node] = self._slots[args[0]]
        elif module is None and not self._function(node, target, args, shape):
            raise ExportError(f"pages have nothing for the operation {_title(node)}")
        elif module is not None and node not in self._slots:
            raise ExportError(f"pages have nothing for the layer {_title(node)} ({type(module).__name__})")

    def _function(self, node: fx.Node, target: Any, args: list[Any], shape: list[int]) -> bool:
        """Record an operation that is no module; return whether pages have it."""
        if node.kwargs.get("inplace"):  # others may read what it writes
            return False
        if target in _UNARY:
            self._write("unary", node, shape, of=self._slots[args[0]], kind=_UNARY[target])
        elif target is F.leaky_relu:
            slope = args[1] if len(args) > 1 else node.kwargs.get("negative_slope", 0.01)
            self._write("unary", node, shape, of=self._slots[args[0]], kind="leaky", slope=slope)
        elif target in _BINARY and len(args) == 2 and set(node.kwargs) <= {"inplace"}:
            self._write("binary", node, shape, kind=_BINARY[target], a=self._operand(args[0]), b=self._operand(args[1]))
        elif target in (scale_and_shift, SCALED_IMAGES, SCALED):
            self._scaled(node, args[0], args[1], args[2], shape)
        elif target is torch.addcmul and len(args) == 3:
            self._scaled(node, args[1], args[2], args[0], shape)
        elif target in _VIEWS and _keeps_images(node):
            self._write("view", node, shape, of=self._slots[args[0]])
        elif target is operator.getitem:
            return self._item(node, args, shape)
        elif target in (torch.split, "split", torch.chunk, "chunk") and _dimension(node) == 1:
            return True  # its parts are read by getitem
        elif target is torch.cat and _dimension(node) == 1:
            self._write("cat", node, shape, of=[self._slots[one] for one in args[0]])
        elif target is torch.softmax and _dimension(node) in (-1, len(shape)):
            self._write("softmax", node, shape, of=self._slots[args[0]])
        elif target in (torch.bmm, torch.matmul, operator.matmul) and len(shape) == 2:
            self._write("bmm", node, shape, a=self._slots[args[0]], b=self._slots[args[1]])
        elif target == "transpose" and sorted(axis % 3 for axis in args[1:]) == [1, 2] and len(shape) == 2:
            self._write("transpose", node, shape, of=self._slots[args[0]])
        elif target is upsample2:
            self._write("up2", node, shape, of=self._slots[args[0]])
        elif target is bilinear_up2:
            self._write("bilinear2", node, shape, of=self._slots[args[0]])
        elif getattr(target, "__name__", "") == "max_pool2d" and args[1:] in ([2], [(2, 2)]):
            self._write("maxpool2", node, shape, of=self._slots[args[0]])
        else:
            return False
        return True

    def _item(self, node: fx.Node, args: list[Any], shape: list[int]) -> bool:
        source, index = args
        if source not in self._slots:  # a part of a split
            whole = source.args[0]
            if source.op == "placeholder" or whole not in self._slots or not isinstance(index, int):
                return False
            parts = value_of(source)
            start = sum(part.shape[1] for part in parts[:index])
            self._write("slice", node, shape, of=self._slots[whole], start=start)
            return True
        if isinstance(index, tuple) and all(one is None or one == slice(None) for one in index):
            self._write("view", node, shape, of=self._slots[source])
            return True
        along = index[1] if isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None) else None
        if isinstance(along, slice) and along.step in (None, 1) and not isinstance(along.start, fx.Node):
            start = slice(along.start, None).indices(value_of(source).shape[1])[0]  # its end is known by the shape
            self._write("slice", node, shape, of=self._slots[source], start=start)
            return True
        return False

    def _scaled(self, node: fx.Node, x: fx.Node, gain: Any, bias: Any, shape: list[int]) -> None:
        def wide(factor: Any) -> Any:
            found = self._operand(factor)
            if "slot" in found and value_of(factor).dim() == 2:
                slot = self._write("view", None, [shape[0], 1, 1], of=found["slot"])
                return {"slot": slot}
            return found

        times = self._write("binary", None, shape, kind="mul", a=self._operand(x), b=wide(gain))
        self._write("binary", node, shape, kind="add", a={"slot": times}, b=wide(bias))

    def _batch_norm(self, node: fx.Node, module: nn.BatchNorm2d, shape: list[int]) -> None:
        assert module.running_var is not None
        assert module.running_mean is not None
        scale = (module.running_var.double() + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight.double()
        shift = -module.running_mean.double() * scale
        shift = shift if module.bias is None else shift + module.bias.double()
        of = self._operand(node.args[0])
        factors = [self._constant(one.float()[:, None, None]) for one in (scale, shift)]
        times = self._write("binary", None, shape, kind="mul", a=of, b=factors[0])
        self._write("binary", node, shape, kind="add", a={"slot": times}, b=factors[1])

    def _affine(self, node: fx.Node, module: AffineModule) -> None:
        factors = module.factors(node.args)
        channels = max(_width(one) for one in factors)
        self._write("affine", node, [2, channels], factors=[self._factor(one) for one in factors])

    def _factor(self, factor: Any) -> Any:
        if factor is None:
            return None
        return self._operand(factor) if isinstance(factor, fx.Node) else self._constant(factor)

    # ---- programs

    def _program(self, node: fx.Node, module: ProgramModule, shape: list[int]) -> None:
        rounded = [self._weights.get(name) for name in module.layers]
        self._run(
            node, module.program, rounded, [self._slots[one] for one in node.args if isinstance(one, fx.Node)], shape
        )

    def _linear(self, node: fx.Node, module: nn.Linear, shape: list[int]) -> None:
        name = str(node.target).removeprefix(ENTRY)
        weight = module.weight.detach().float()[:, :, None, None]
        program = Program((module.in_features, 1, 1))
        made = program.conv(program.input, weight, self._mask(name, weight), module.bias)
        program.output(made)
        stored = self._weights.get(f"{name}.weight")
        rounded = None if stored is None else stored[:, :, None, None]
        self._run(node, program, [rounded], [self._slots[one] for one in node.all_input_nodes], shape)

    def _exact_linear(self, node: fx.Node, module: ExactLinear, shape: list[int]) -> None:
        name = str(node.target).removeprefix(ENTRY)
        weight, bias = module.weight.float(), None if module.bias is None else module.bias.float()
        kept = self._tensors.add(weight, self._mask(name, weight), rounded=self._weights.get(f"{name}.weight"))
        of = self._slots[node.all_input_nodes[0]]
        self._write("linear", node, shape, of=of, weight=kept, bias=self._tensors.add(bias))

    def _convolution(self, node: fx.Node, module: nn.Conv2d | nn.ConvTranspose2d, shape: list[int]) -> None:
        name = str(node.target).removeprefix(ENTRY)
        channels, rows, columns = value_of(node.all_input_nodes[0]).shape[1:]
        if isinstance(module.padding, str) or module.padding_mode not in ("zeros", "reflect", "replicate"):
            raise ExportError(f"pages have nothing for the padding of the layer {name}")
        program = Program((channels, rows, columns))
        how: dict[str, Any] = {"stride": _two(module.stride), "padding": _two(module.padding)}
        how |= {"dilation": _two(module.dilation), "groups": module.groups}
        weight = module.weight.detach().float()
        if isinstance(module, nn.ConvTranspose2d):
            how["output_padding"] = _two(module.output_padding)
            made = program.conv_transpose(program.input, weight, self._mask(name, weight), module.bias, **how)
        else:
            how["border"] = module.padding_mode
            made = program.conv(program.input, weight, self._mask(name, weight), module.bias, **how)
        program.output(made)
        stored = self._weights.get(f"{name}.weight")
        self._run(node, program, [stored], [self._slots[one] for one in node.all_input_nodes], shape)

    def _mask(self, name: str, weight: Tensor) -> Tensor:
        mask = self._masks.get(f"{name}.weight")
        return torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.reshape(weight.shape)

    def _run(
        self, node: fx.Node, program: Program, rounded: list[Tensor | None], given: list[int], shape: list[int]
    ) -> None:
        if not program.native:
            raise ExportError(f"pages have nothing for a stride in {_title(node)}")
        self.programs.append(program_entry(program, self._tensors, rounded))
        count = len(program.inputs)
        self._write("program", node, shape, program=len(self.programs) - 1, of=given[:count], affines=given[count:])


def record(compiled: CompiledGenerator, tape: Tape) -> None:
    """Go through a compiled generator's graph.

    Raises:
        ExportError: it could not be traced, or has an operation that pages lack; the message names it.
    """
    run = compiled.run
    if not isinstance(run, fx.GraphModule):
        raise ExportError(f"pages run traced generators only: {next(iter(compiled.dense.values()), 'it has no graph')}")
    modules = dict(run.named_modules())
    wanted: set[fx.Node] = set()
    ahead = list(run.graph.output_node().all_input_nodes)
    while ahead:
        if (node := ahead.pop()) not in wanted:
            wanted.add(node)
            ahead += _reads(node)
    for node in run.graph.nodes:
        if node.op == "placeholder":
            tape._slots[node] = 1 if node.target == "labels" else 0
        elif node in wanted:
            try:
                tape.add(node, modules.get(str(node.target)) if node.op == "call_module" else None)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # of other things than maps
                raise ExportError(f"pages have nothing for the operation {_title(node)} as it is used here") from error
    (last,) = run.graph.output_node().all_input_nodes
    tape.output = tape._slots[last]


def _reads(node: fx.Node) -> list[fx.Node]:
    """Return what an operation reads but for sizes, which are known."""
    return [one for one in node.all_input_nodes if not _is_size(value_of(one))]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, tuple) and all(isinstance(one, int) for one in value))


def _keeps_images(node: fx.Node) -> bool:
    """Whether a view leaves images apart: as many numbers for each before and after."""
    source = node.args[0]
    if not isinstance(source, fx.Node):
        return False
    before, after = value_of(source), value_of(node)
    alike = isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape[0] == after.shape[0]
    return alike and before.dtype is torch.float32 and math.prod(before.shape) == math.prod(after.shape)


def _is_float(node: fx.Node) -> bool:
    value = value_of(node)
    return isinstance(value, Tensor) and value.dtype is torch.float32


def _dimension(node: fx.Node) -> Any:
    return node.kwargs.get("dim", node.args[-1] if len(node.args) > 1 else 0)


def _two(both: Any) -> tuple[int, int]:
    return (both, both) if isinstance(both, int) else (int(both[0]), int(both[1]))


def _width(factor: Any) -> int:
    if factor is None:
        return 1
    value = value_of(factor) if isinstance(factor, fx.Node) else factor
    return int(value.numel() // value.shape[0]) if isinstance(factor, fx.Node) else int(value.numel())


def _title(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target)).removeprefix(ENTRY)
    return str(name).lstrip("_")
