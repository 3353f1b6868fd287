"""ONNX files for other runtimes: dense, masks and spectral norm written into the weights, checked before they exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch

from gancompress.errors import ExportError
from gancompress.evaluation.sandbox import draws
from gancompress.export.container import write_whole
from gancompress.export.plain import example_inputs, plain_copy

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.backbones.base import Generator

__all__ = ["NEEDED", "export_onnx"]

#: packages of the extra ``[onnx]``
NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4
_RULES = (
    "collapse_slice",
    "collapse_slice2",
    "fuse_batchnorm_into_conv",
    "fuse_batchnorm_into_conv_transpose",
    "fuse_batchnorm_into_gemm",
    "materialize_reshape_shape",
    "no_op_cast",
    "no_op_expand",
    "unsqueeze_unsqueeze",
)


def export_onnx(generator: Generator, path: Path) -> float:
    """Write a generator as ONNX, with inputs ``z`` (N, latent_dim) and, when conditional, ``labels`` (N,).

    Args:
        generator: left as it is.
        path: the file; it appears whole, and only when onnxruntime gives the same images.

    Returns:
        The largest difference of a pixel between onnxruntime and the network.

    Raises:
        ExportError: the extra ``[onnx]`` is not installed, the network cannot be exported, or its images differ.
    """
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise ExportError(f"ONNX needs the package {name}: pip install 'gancompress[onnx]'") from None
    plain = plain_copy(generator)
    if draws(plain, *example_inputs(plain, 2, "onnx", 2).values()):
        raise ExportError(
            "this network draws random numbers of its own, which an ONNX file cannot repeat: give it its noise as a "
            "part of z, or as a buffer",
            where=str(path),
        )
    content = _export(plain)
    difference = _difference(plain, content)
    if not difference <= _TOLERANCE:
        raise ExportError(f"the ONNX network's images differ by {difference:.1e}; nothing was written", where=str(path))
    write_whole(path, content)
    return difference


def _export(network: Generator) -> bytes:
    inputs = example_inputs(network, 2, "onnx", 2)
    batch = torch.export.Dim("N")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        # the exporter warns about itself and prints its progress
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                tuple(inputs.values()),
                dynamo=True,
                verbose=False,
                optimize=False,
                input_names=list(inputs),
                output_names=["images"],
                dynamic_shapes={name: {0: batch} for name in inputs},
            )
            _optimise(program.model)
        content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # the exporter raises whatever its passes raise
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"this network cannot be exported to ONNX ({type(error).__name__}: {reason})") from error
    finally:
        quiet.setLevel(level)
    return content


def _optimise(model: Any) -> None:
    """Merge constants and batch norms into what surrounds them.

    The exporter's own optimisation takes a constant within 1e-8 of 0 for 0 (onnxscript 0.7): the 1e-8 of a pixel
    normalisation or a demodulation is gone then, and a map of zeros becomes NaN. The rules below change no number.
    """
    optimizer: Any = importlib.import_module("onnxscript.optimizer")
    rewriter: Any = importlib.import_module("onnxscript.rewriter")
    rules: Any = importlib.import_module("onnxscript.rewriter.rules.common")
    optimizer.inline(model)
    for _ in range(2):  # what the first pass merges makes room for more
        optimizer.fold_constants(model, onnx_shape_inference=True)
        rewriter.rewrite(model, pattern_rewrite_rules=[getattr(rules, f"{name}_rule") for name in _RULES])
    optimizer.remove_unused_nodes(model)


@torch.no_grad()
def _difference(network: Generator, content: bytes) -> float:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (1, 3):
        inputs = example_inputs(network, count, "onnx", count)
        (made,) = session.run(["images"], {name: tensor.numpy() for name, tensor in inputs.items()})
        worst = max(worst, float((torch.from_numpy(made) - network(*inputs.values())).abs().max()))
    return worst
