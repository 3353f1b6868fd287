"""Other people's ways to run a dense generator, where they are installed (``pip install 'gancompress[bench]'``)."""

from __future__ import annotations

import importlib.util
import io
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["installed", "onnx_bytes", "onnxruntime_session", "openvino_model"]


def installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def onnx_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """Return ``network`` in evaluation mode as an ONNX file, for exactly these shapes."""
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is marked as the old one
        torch.onnx.export(network, inputs, buffer, dynamo=False, opset_version=17)
    content: bytes = buffer.getvalue()
    return content


def onnxruntime_session(model: bytes, inputs: tuple[Tensor, ...], threads: int) -> Callable[[], object]:
    """Return a call that runs an ONNX model on onnxruntime, with its default optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=False)}
    return lambda: session.run(None, feed)


def openvino_model(model: bytes, inputs: tuple[Tensor, ...], threads: int, precision: str) -> Callable[[], object]:
    """Return a call that runs an ONNX model on OpenVINO.

    Args:
        model: the ONNX file.
        inputs: in the order of the model's.
        threads: CPU threads.
        precision: ``f32`` or ``bf16``, OpenVINO's inference precision.
    """
    import openvino

    core: Any = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
    request = compiled.create_infer_request()
    feed = {index: value.numpy() for index, value in enumerate(inputs[: len(compiled.inputs)])}
    return lambda: request.infer(feed)
