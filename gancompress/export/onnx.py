"""ONNX files for other runtimes: dense, masks and spectral norm written into the weights, checked before they exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import math
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch

from gancompress.errors import ExportError
from gancompress.evaluation.sandbox import draws
from gancompress.export.container import write_whole
from gancompress.export.plain import example_inputs, plain_copy
from gancompress.seeds import generator as random_generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from gancompress.backbones.base import Generator
    from gancompress.graphs.build import CapturedModule
    from gancompress.graphs.graph import Graph

__all__ = ["NEEDED", "export_network_onnx", "export_onnx"]

#: packages of the extra ``[onnx]``
NEEDED = ("onnx", "onnxscript", "onnxruntime")
#: of images, whose values go from -1 to 1; of other outputs, as a share of the largest
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

    One that eats images has the input ``input`` (N, C, H, W). The model's metadata hold ``latents`` (their law and
    size; null without any), ``range`` of the images, ``channels`` and the names of the ``classes``, each as JSON.

    Args:
        generator: left as it is.
        path: the file; it appears whole, and only when onnxruntime gives the same images.

    Returns:
        The largest difference of a pixel between onnxruntime and the network.

    Raises:
        ExportError: the extra ``[onnx]`` is not installed, the network cannot be exported, or its images differ.
    """
    _check_packages()
    plain = plain_copy(generator)
    if draws(plain, *example_inputs(plain, 2, "onnx", 2).values()):
        raise ExportError(
            "this network draws random numbers of its own, which an ONNX file cannot repeat: give it its noise as a "
            "part of z, or as a buffer",
            where=str(path),
        )
    inputs = example_inputs(plain, 2, "onnx", 2)
    batch = torch.export.Dim("N")
    dynamic: Any = {name: {0: batch} for name in inputs}
    if plain.translates:  # what it gives is called images already, and what it takes z
        inputs, dynamic = {"input": inputs["images"]}, ({0: batch},)
    content = _export(plain, inputs, dynamic, ["images"], _told(plain))
    trials = [tuple(example_inputs(plain, count, "onnx", count).values()) for count in (1, 3)]
    difference, _ = _difference(plain, content, list(inputs), trials)
    if not difference <= _TOLERANCE:
        raise ExportError(f"the ONNX network's images differ by {difference:.1e}; nothing was written", where=str(path))
    write_whole(path, content)
    return difference


def export_network_onnx(network: CapturedModule, path: Path) -> float:
    """Write a network from elsewhere as ONNX: its inputs keep their names, sizes that may change stay open.

    Args:
        network: left as it is.
        path: the file; it appears whole, and only when onnxruntime gives the same outputs.

    Returns:
        The largest difference between onnxruntime and the network, as a share of the largest output.

    Raises:
        ExportError: the extra ``[onnx]`` is not installed, ONNX lacks one of its operations, or its outputs differ.
    """
    _check_packages()
    graph = network.captured
    names = list(dict.fromkeys(size for one in graph.inputs for size in one.shape if isinstance(size, str)))
    dims = {name: torch.export.Dim(name) for name in names}
    inputs = _random_inputs(graph, names, 0)
    shapes = tuple(
        {axis: dims[size] for axis, size in enumerate(one.shape) if isinstance(size, str)} for one in graph.inputs
    )
    titles = [one.name for one in graph.inputs]
    content = _export(network, dict(zip(titles, inputs, strict=True)), (shapes,), list(graph.outputs))
    difference, largest = _difference(network, content, titles, [inputs, _random_inputs(graph, names, 1)])
    relative = difference / max(largest, 1e-30)
    if not relative <= _TOLERANCE:
        raise ExportError(
            f"the ONNX network's outputs differ by {relative:.1e} of the largest; nothing was written", where=str(path)
        )
    write_whole(path, content)
    return relative


def _random_inputs(graph: Graph, names: Sequence[str], turn: int) -> tuple[Tensor, ...]:
    """Return inputs of other sizes every turn, in the first none 1 or like another: that would be taken for fixed."""
    rng = random_generator(0, "onnx", turn)
    # many networks halve their maps a few times
    sizes = {name: 32 * (len(names) - index + 1 if turn else index + 1) for index, name in enumerate(names)}
    sizes |= {one.shape[0]: 2 - turn for one in graph.inputs if one.shape and isinstance(one.shape[0], str)}
    empty = [one.example(sizes) for one in graph.inputs]
    return tuple(torch.rand(x.shape, generator=rng).to(x.dtype) if x.is_floating_point() else x for x in empty)


def _check_packages() -> None:
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise ExportError(f"ONNX needs the package {name}: pip install 'gancompress[onnx]'") from None


def _told(generator: Generator) -> dict[str, str]:
    """Return what a file says of its inputs and outputs, as JSON: the metadata of the model."""
    image = generator.image
    told: dict[str, Any] = {
        "latents": None
        if generator.translates
        else {"law": "normal", "mean": 0, "deviation": 1, "size": generator.latent_dim},
        "range": [-1, 1],
        "channels": "RGB" if image.channels == 3 else "grey",
        "classes": list(image.classes[: generator.num_classes]),
    }
    return {name: json.dumps(value) for name, value in told.items()}


def _export(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: Any,
    outputs: Sequence[str],
    told: Mapping[str, str] | None = None,
) -> bytes:
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
                output_names=list(outputs),
                dynamic_shapes=dynamic,
            )
            _optimise(program.model)
            program.model.metadata_props.update(told or {})
        content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # the exporter raises whatever its passes raise
        raise ExportError(f"this network cannot be exported to ONNX ({_reason(error)})") from error
    finally:
        quiet.setLevel(level)
    return content


def _reason(error: Exception) -> str:
    """Return what went wrong in one line: the innermost error, without the advice that the exporter gives of itself."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split())
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text)
    return f"ONNX has nothing for the operation {missing[1]}" if missing else f"{type(error).__name__}: {text[:200]}"


def _optimise(model: Any) -> None:
    """Merge constants and batch norms into what surrounds them.

    The exporter's own optimisation takes a constant within 1e-8 of 0 for 0 (onnxscript 0.7): the 1e-8 of a pixel
    normalisation or a demodulation is gone then, and a map of zeros becomes NaN. The rules below change no number.
    """
    optimizer: Any = importlib.import_module("onnxscript.optimizer")
    rewriter: Any = importlib.import_module("onnxscript.rewriter")
    passes: Any = importlib.import_module("onnx_ir.passes.common")
    rules: Any = importlib.import_module("onnxscript.rewriter.rules.common")
    optimizer.inline(model)
    passes.NameFixPass()(model)  # folding stops at two values of one name, which the exporter makes (torch 2.14)
    for _ in range(2):  # what the first pass merges makes room for more
        optimizer.fold_constants(model, onnx_shape_inference=True)
        rewriter.rewrite(model, pattern_rewrite_rules=[getattr(rules, f"{name}_rule") for name in _RULES])
    optimizer.remove_unused_nodes(model)


@torch.no_grad()
def _difference(
    network: nn.Module, content: bytes, names: Sequence[str], trials: Sequence[tuple[Tensor, ...]]
) -> tuple[float, float]:
    """Return the largest difference between onnxruntime and the network, and the largest output."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differences, outputs = [], []
    for inputs in trials:
        wanted = network(*inputs)
        made = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
        for one, other in zip(wanted if isinstance(wanted, tuple) else (wanted,), made, strict=True):
            found = torch.from_numpy(other)
            differences.append(
                (found.double() - one).abs().max() if found.shape == one.shape else torch.tensor(math.inf)
            )
            outputs.append(one.double().abs().max())
    # of tensors, whose largest is NaN where one is
    return float(torch.stack(differences).max()), float(torch.stack(outputs).max())
