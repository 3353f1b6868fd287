"""The graph itself: inputs, operations of a closed list, outputs. It goes into JSON and comes back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from gancompress.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["DTYPES", "OPERATIONS", "SIZES", "Graph", "Input", "Node", "Stored", "Value"]

_NAMES = """
conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding conv_transpose1d conv_transpose2d.input
conv_transpose3d.input linear addmm baddbmm bmm mm matmul embedding one_hot scaled_dot_product_attention
batch_norm layer_norm native_layer_norm group_norm native_group_norm instance_norm
relu leaky_relu elu gelu silu softplus sigmoid hardsigmoid hardswish hardtanh tanh prelu _prelu_kernel _softmax
softmax.int log_softmax.int clamp clamp.Tensor clamp_min clamp_max
add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar addcmul neg abs
pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar sqrt rsqrt reciprocal exp log sin cos square sign round floor ceil
maximum minimum lerp.Scalar lerp.Tensor where.self where.ScalarOther where.ScalarSelf masked_fill.Scalar
eq.Scalar eq.Tensor ne.Scalar lt.Scalar lt.Tensor le.Scalar gt.Scalar gt.Tensor ge.Scalar logical_not
sum sum.dim_IntList mean mean.dim amax amin var.correction var_mean.correction std.correction
linalg_vector_norm prod.dim_int cumsum
view _unsafe_view reshape flatten.using_ints unflatten.int permute transpose.int t squeeze squeeze.dim squeeze.dims
unsqueeze expand repeat repeat_interleave.self_int cat stack split.Tensor split_with_sizes chunk unbind.int
select.int slice.Tensor index.Tensor index_select gather flip roll clone _to_copy to.dtype
constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d pad
upsample_nearest1d.vec upsample_nearest2d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_linear1d.vec
avg_pool1d avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d pixel_shuffle pixel_unshuffle
grid_sampler_2d affine_grid_generator full zeros ones arange arange.start arange.start_step scalar_tensor
full_like zeros_like ones_like sym_size.int
"""
#: operations of ``torch.ops.aten`` that a graph may hold: functions of their arguments, without side effects
OPERATIONS = frozenset(f"aten.{name}" if "." in name else f"aten.{name}.default" for name in _NAMES.split())
#: arithmetic on sizes that are not known before the inputs are, and choosing one of several results
SIZES = frozenset(f"operator.{name}" for name in ("add", "sub", "mul", "floordiv", "neg", "getitem"))

#: keywords that no operation of a graph has: where results lie is decided where it runs, and it writes to nothing
_NEVER = frozenset({"device", "layout", "pin_memory", "memory_format", "out", "generator"})
_LARGEST = 50_000  # nodes
_DEEPEST = 4  # lists in lists
#: what tensors of a graph may hold, by name
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8,
                  torch.bool)
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Value:
    """What an input or an earlier node gives, by name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor that is kept beside the graph, by name."""

    name: str


#: None, booleans, numbers, text, dtypes, values, stored tensors, and tuples of these
Argument: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a graph.

    Attributes:
        shape: sizes; a name stands for a size that may change, the same in every input.
        dtype: such as ``float32``.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {' x '.join(map(str, self.shape))}"

    def takes(self, shape: Sequence[int], sizes: dict[str, int]) -> bool:
        """Return whether a tensor of ``shape`` fits; sizes that may change are remembered in ``sizes`` by name."""
        return len(shape) == len(self.shape) and all(
            size == (sizes.setdefault(want, size) if isinstance(want, str) else want)
            for want, size in zip(self.shape, shape, strict=True)
        )

    def example(self, sizes: Mapping[str, int], device: str = "cpu") -> torch.Tensor:
        """Return zeros of this shape, with ``sizes`` for the names in it."""
        shape = [sizes[size] if isinstance(size, str) else size for size in self.shape]
        return torch.zeros(shape, dtype=DTYPES[self.dtype], device=device)


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: of its result.
        op: one of :data:`OPERATIONS` or :data:`SIZES`.
        args: by position.
        kwargs: by name.
    """

    name: str
    op: str
    args: tuple[Argument, ...] = ()
    kwargs: Mapping[str, Argument] = dataclasses.field(default_factory=dict)

    def references(self) -> Iterator[Value | Stored]:
        """Yield every value and stored tensor among the arguments."""
        yield from _references((self.args, tuple(self.kwargs.values())))


@dataclasses.dataclass(frozen=True)
class Graph:
    """What a network computes. Nodes stand in an order in which they can run.

    Attributes:
        inputs: in the order of the call.
        nodes: operations.
        outputs: names of what is returned.
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @property
    def tensors(self) -> list[str]:
        """Names of the stored tensors that the nodes read, each once."""
        found = (one.name for node in self.nodes for one in node.references() if isinstance(one, Stored))
        return list(dict.fromkeys(found))

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """Return the same graph with other names for some values; what else is called so gets an underscore."""
        new, taken = dict(names), {*names.values()}
        for old in (*(one.name for one in self.inputs), *(node.name for node in self.nodes)):
            name = new.get(old, old)
            while old not in names and name in taken:
                name += "_"
            new[old] = name
            taken.add(name)
        nodes = tuple(
            Node(new[node.name], node.op, _renamed(node.args, new), _renamed(dict(node.kwargs), new))
            for node in self.nodes
        )
        inputs = tuple(dataclasses.replace(one, name=new[one.name]) for one in self.inputs)
        return Graph(inputs, nodes, tuple(new[name] for name in self.outputs))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "inputs": [[one.name, list(one.shape), one.dtype] for one in self.inputs],
            "nodes": [[node.name, node.op, _plain(node.args), _plain(node.kwargs)] for node in self.nodes],
            "outputs": list(self.outputs),
        }

    @classmethod
    def from_json(cls, content: Any) -> Graph:
        """Undo :meth:`to_json`, believing nothing: every name must be known before it is used.

        Raises:
            ExportError: it is no graph, or holds an operation that is not on the list.
        """
        try:
            inputs = tuple(
                Input(_name(name), tuple(_size(size) for size in shape), str(DTYPES[dtype]).removeprefix("torch."))
                for name, shape, dtype in content["inputs"]
            )
            known: set[str] = set()
            for one in inputs:
                _add(known, one.name)
            nodes = []
            if len(content["nodes"]) > _LARGEST:
                raise ExportError(f"the graph has more than {_LARGEST:,} operations")
            for name, op, args, kwargs in content["nodes"]:
                if op not in OPERATIONS and op not in SIZES:
                    raise ExportError(f"the graph asks for {str(op)[:80]!r}, which is not one of its operations")
                node = Node(
                    _name(name), op, tuple(map(_parsed, args)), {str(k): _parsed(v) for k, v in dict(kwargs).items()}
                )
                if _NEVER & node.kwargs.keys():
                    raise ExportError(f"operation {node.name} sets {', '.join(sorted(_NEVER & node.kwargs.keys()))}")
                for reference in node.references():
                    if isinstance(reference, Value) and reference.name not in known:
                        raise ExportError(f"operation {node.name} reads {reference.name[:80]!r} before it is there")
                _add(known, node.name)
                nodes.append(node)
            outputs = tuple(map(_name, content["outputs"]))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ExportError(f"not a graph ({' '.join(repr(error).split())[:120]})") from None
        missing = [name for name in outputs if name not in known]
        if missing or not outputs:
            raise ExportError(f"the graph does not compute its result {(missing or ['at all'])[0][:80]!r}")
        return cls(inputs, tuple(nodes), outputs)


def _references(argument: Argument) -> Iterator[Value | Stored]:
    if isinstance(argument, Value | Stored):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from _references(item)


def _renamed(argument: Argument, names: Mapping[str, str]) -> Argument:
    if isinstance(argument, Value):
        return Value(names[argument.name])
    if isinstance(argument, tuple):
        return tuple(_renamed(item, names) for item in argument)
    return {key: _renamed(item, names) for key, item in argument.items()} if isinstance(argument, dict) else argument


def _plain(argument: Argument) -> Any:
    if isinstance(argument, Value):
        return {"value": argument.name}
    if isinstance(argument, Stored):
        return {"tensor": argument.name}
    if isinstance(argument, torch.dtype):
        return {"dtype": str(argument).removeprefix("torch.")}
    if isinstance(argument, tuple):
        return [_plain(item) for item in argument]
    if isinstance(argument, dict):
        return {key: _plain(item) for key, item in argument.items()}
    return argument


def _parsed(content: Any, depth: int = 0) -> Argument:
    if content is None or isinstance(content, bool | int | float | str):
        return content
    if isinstance(content, list) and depth < _DEEPEST:
        return tuple(_parsed(item, depth + 1) for item in content)
    ((kind, name),) = content.items()
    return {"value": Value, "tensor": Stored, "dtype": DTYPES.__getitem__}[kind](_name(name))


def _name(content: Any) -> str:
    if not isinstance(content, str) or not content:
        raise ValueError(f"{content!r} is no name")
    return content


def _size(content: Any) -> int | str:
    if isinstance(content, str):
        return _name(content)
    if isinstance(content, bool) or not 0 <= int(content) < 2**31:
        raise ValueError(f"{content!r} is no size")
    return int(content)


def _add(known: set[str], name: str) -> None:
    if name in known:
        raise ExportError(f"two operations of the graph are called {name[:80]!r}")
    known.add(name)
