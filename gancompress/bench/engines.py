"""Other people's ways to run a network, and ours beside them: what is missing or fails costs itself alone."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import io
import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

__all__ = ["Engine", "installed", "onnx_bytes", "onnxruntime_session", "openvino_model", "ready", "reason"]

#: kinds of layer, by the name that OpenVINO gives them, that hold nearly all of the work
_OPENVINO_LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_REASON = 200  # characters of it


@dataclasses.dataclass
class Engine:
    """A network on an engine with its inputs: a call that can be timed.

    Attributes:
        run: runs it once and returns its first output.
        ran: in which precision its convolutions and products really run, where the engine tells: ``u8 13 of 14``.
    """

    run: Callable[[], Any]
    ran: str = ""

    def __call__(self) -> Any:
        """Run it once."""
        return self.run()


def ready(
    makers: Mapping[str, Callable[[], Callable[[], object]]],
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Make engines and run each once.

    Args:
        makers: by name, what imports an engine and gives it a network.

    Returns:
        The calls of those that work, and why each other one was left out, in one line.
    """
    steps: dict[str, Callable[[], object]] = {}
    left_out: dict[str, str] = {}
    for name, make in makers.items():
        try:
            step = make()
            step()
        except Exception as error:  # exporters and engines of others: a network may be beyond any of them
            left_out[name] = reason(error)
        else:
            steps[name] = step
    return steps, left_out


def reason(error: Exception) -> str:
    """Say in one line why an engine was left out."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: pip install 'gancompress[bench]'"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_REASON]}"


def installed(package: str) -> bool:
    """Return whether a package can be found; importing it may fail all the same."""
    return importlib.util.find_spec(package) is not None


def onnx_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """Return ``network`` in evaluation mode as an ONNX file, for exactly these shapes."""
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is marked as the old one
        torch.onnx.export(network, inputs, buffer, dynamo=False, opset_version=17)
    content: bytes = buffer.getvalue()
    return content


def onnxruntime_session(model: bytes | str, inputs: tuple[Tensor, ...], threads: int) -> Engine:
    """Give an ONNX model, or the path of one, to onnxruntime with its default optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=False)}
    return Engine(lambda: session.run(None, feed)[0])


def openvino_model(model: Any, inputs: tuple[Tensor, ...], threads: int, precision: str) -> Engine:
    """Give a model to OpenVINO.

    Args:
        model: the bytes of an ONNX file, or a model of OpenVINO's.
        inputs: in the order of the model's.
        threads: CPU threads.
        precision: ``f32`` or ``bf16``, what it may compute in; a CPU without bf16 computes in float32 all the same.
    """
    import openvino

    core: Any = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": precision,
    }
    read = core.read_model(io.BytesIO(model)) if isinstance(model, bytes) else model
    compiled = core.compile_model(read, "CPU", settings)
    request = compiled.create_infer_request()
    feed = {index: value.numpy() for index, value in enumerate(inputs[: len(compiled.inputs)])}
    return Engine(lambda: request.infer(feed)[0], _executed(compiled))


def _executed(compiled: Any) -> str:
    """Read precisions from the execution graph: what was asked for is not always what runs."""

    def told(node: Any, key: str) -> str:
        found = node.get_rt_info()
        value = found[key] if key in found else ""  # noqa: SIM401 (a map of OpenVINO's, which has no get)
        return str(getattr(value, "value", value))

    nodes = compiled.get_runtime_model().get_ordered_ops()
    return counted(told(node, "runtimePrecision") for node in nodes if told(node, "layerType") in _OPENVINO_LAYERS)


def counted(precisions: Iterable[str]) -> str:
    """Return ``u8 13 of 14, f32 1 of 14`` of the precision of every layer; a precision alone where all share it."""
    found = collections.Counter(precisions)
    if len(found) < 2:
        return next(iter(found), "")
    return ", ".join(f"{name} {count} of {found.total()}" for name, count in found.most_common())
