"""Reads an ``.onnx`` file into a module and what it says about its inputs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.errors import ExportError, located
from gancompress.foreign.onnx_module import OnnxModule

if TYPE_CHECKING:
    from pathlib import Path


__all__ = ["Declared", "read_onnx"]


@dataclasses.dataclass(frozen=True)
class Declared:
    """An input as the file declares it.

    Attributes:
        name: of the input.
        shape: sizes; a name for each that may change, the same name where sizes are equal.
        dtype: of torch, without its prefix.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


def read_onnx(path: Path) -> tuple[OnnxModule, tuple[Declared, ...]]:
    """Read a network; weights that lie beside the file are read too.

    Raises:
        ExportError: it is no ONNX, lacks weights, or has operations that are not known here.
    """
    try:
        import onnx
        from onnx import external_data_helper, helper, numpy_helper
    except ImportError as error:
        raise ExportError("reading ONNX needs the package onnx: pip install 'gancompress[onnx]'") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    where = str(path)
    try:
        model = onnx.load(where, load_external_data=False)
        onnx.checker.check_model(where)  # by its path, to look for weights beside it and not in the working directory
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise ExportError("is not an ONNX file", where=where) from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ExportError(
            f"is no valid ONNX, or not whole ({' '.join(str(error).split())[:200]})", where=where
        ) from error
    except OSError as error:
        raise ExportError(f"cannot be read: {error.strerror or error}", where=where) from error
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        raise ExportError("has local functions or sparse tensors, which are not read; export it without", where=where)
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = []
    for node in graph.node:
        attributes = {one.name: _plain(helper.get_attribute_value(one), numpy_helper) for one in node.attribute}
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        nodes.append((op, tuple(node.input), tuple(node.output), attributes, node.name))
    inputs = tuple(_declared(one, helper) for one in graph.input if one.name not in constants)
    with located(where):
        module = OnnxModule(nodes, constants, [one.name for one in inputs], [one.name for one in graph.output])
    return module, inputs


def _plain(value: Any, numpy_helper: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return numpy_helper.to_array(value) if hasattr(value, "raw_data") else value


def _declared(info: Any, helper: Any) -> Declared:
    kind = info.type.tensor_type
    shape: list[int | str] = []
    for axis, size in enumerate(kind.shape.dim):
        known = size.HasField("dim_value") and size.dim_value > 0
        name = size.dim_param if size.dim_param.isidentifier() else f"{info.name}_{axis}"
        shape.append(int(size.dim_value) if known else name)
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return Declared(info.name, tuple(shape), {"bool": "bool"}.get(dtype, dtype))
