"""What a user of a dense generator has without us, given the same latents: quantised, bf16 and float32 engines.

Every engine is held against the eager generator's images before it is timed. Latents calibrate, as they would at home.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from elsewhere import Elsewhere, python_of
from entries import LEFT_OUT, Row, over, recipe_of, wanted

from gancompress.bench.engines import Engine, counted, onnx_bytes, onnxruntime_session, openvino_model, ready, reason
from gancompress.bench.infer import masked_generator
from gancompress.bench.styles import fold
from gancompress.bench.timing import alternate
from gancompress.export.compiled import CompiledGenerator, compile_generator
from gancompress.export.in_bytes import calibrate_generator
from gancompress.export.plain import plain_copy
from gancompress.seeds import generator as seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

    from gancompress.recipe.schema import Recipe

    Maker = Callable[[], Callable[[], Any]]

MNN = ("MNN==3.6.1", "numpy==2.4.6")
CALIBRATION = 128  # latents
#: decibels to the eager generator's images below which an engine computes something else; float32 has 100 and more
LEAST, LEAST_FLOAT32 = 20.0, 80.0


class Dense:
    """A dense generator as engines take it.

    Args:
        recipe: gives the generator, with random weights.
        density: of random masks whose zeros stand in its weights; 1 for none.
        batch: images per call.
    """

    def __init__(self, recipe: Recipe, density: float, batch: int) -> None:
        self.network, _ = masked_generator(recipe, density)
        self.batch = batch
        self.z = latents(batch, self.network.latent_dim)

    @functools.cached_property
    def exported(self) -> bytes:
        """As torch writes it."""
        return onnx_bytes(self.network, (self.z,))

    @functools.cached_property
    def folded(self) -> bytes:
        """With our exact rewrites."""
        ours = plain_copy(self.network)
        fold(ours, frozen=True)
        return onnx_bytes(ours, (self.z,))

    @functools.cached_property
    def calibration(self) -> list[np.ndarray]:
        """Other latents than those that are timed, in batches."""
        rng, size = seeded(1, "bench", "calibration"), (self.batch, self.network.latent_dim)
        return [torch.randn(*size, generator=rng).numpy() for _ in range(max(1, CALIBRATION // self.batch))]

    def checked(self, engine: Any, least: float = LEAST) -> Engine:
        """Return an engine that gives the eager generator's images, up to so many decibels; refuse another."""
        with torch.no_grad():
            error = torch.as_tensor(engine()).reshape(-1) - self.network(self.z).reshape(-1)
        decibels = float(10 * torch.log10(4 / error.square().mean().clamp_min(1e-20)))
        if not decibels >= least:
            raise RuntimeError(f"its images are {decibels:.0f} dB from the eager generator's")
        if least < LEAST_FLOAT32:
            engine.ran = ", ".join(filter(None, (engine.ran, f"{decibels:.0f} dB")))
        return engine


def latents(batch: int, dim: int) -> torch.Tensor:
    """The latents that every engine is timed on."""
    return torch.randn(batch, dim, generator=seeded(0, "bench", batch))


def openvino(dense: Dense, graph: str, precision: str) -> Engine:
    """OpenVINO in float32 or bf16."""
    engine = openvino_model(getattr(dense, graph), (dense.z,), 1, precision)
    return dense.checked(engine, LEAST_FLOAT32 if precision == "f32" else LEAST)


def openvino_int8(dense: Dense, graph: str) -> Engine:
    """OpenVINO in int8 by NNCF's post-training quantisation, as its documentation shows it."""
    return dense.checked(quantised(getattr(dense, graph), dense.z, dense.calibration))


def quantised(model: bytes, x: torch.Tensor, calibration: list[np.ndarray]) -> Engine:
    """An ONNX model on OpenVINO, in int8 by NNCF."""
    os.environ.setdefault("NNCF_CI", "1")  # it reports its use otherwise
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    core: Any = openvino.Core()
    read = core.read_model(io.BytesIO(model))
    made = nncf.quantize(read, nncf.Dataset(calibration), subset_size=len(calibration))
    return openvino_model(made, (x,), 1, "f32")


def onnxruntime_int8(dense: Dense, graph: str) -> Engine:
    """Onnxruntime in int8: static quantisation, QDQ, scales per channel, as its documentation shows it."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = iter(dense.calibration)
            self.name = name

        def get_next(self) -> dict[str, np.ndarray] | None:
            values = next(self.left, None)
            return None if values is None else {self.name: values}

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, made, ran = (str(Path(folder) / name) for name in ("a.onnx", "b.onnx", "c.onnx", "d.onnx"))
        Path(plain).write_bytes(getattr(dense, graph))
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        reader = Reader(onnx.load(plain).graph.input[0].name)
        quantize_static(prepared, made, reader, quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = ran
        options.log_severity_level = 3  # it warns that this file is for this machine alone
        onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
        found = Counter(node.op_type for node in onnx.load(ran).graph.node)
        engine = onnxruntime_session(made, (dense.z,), 1)
    of = {"QLinearConv": "u8", "QGemm": "u8", "QLinearMatMul": "u8", "MatMulIntegerToFloat": "u8"}
    of |= dict.fromkeys(("Conv", "FusedConv", "Gemm", "MatMul", "ConvTranspose", "FusedGemm", "FusedMatMul"), "f32")
    layers = counted(name for kind, name in of.items() for _ in range(found[kind]))
    return dense.checked(Engine(engine.run, layers))


def mnn(dense: Dense, graph: str, *options: str) -> Engine:
    """MNN in float32, in an environment of its own: its tools run pip."""
    python = python_of("MNN_PYTHON", MNN)
    return dense.checked(
        Elsewhere(python, "mnn", getattr(dense, graph), dense.z.numpy(), *options, ran="f32"), LEAST_FLOAT32
    )


#: by name, what runs a dense generator; more are functions from :class:`Dense` to what is called
RIVALS: dict[str, Callable[[Dense], Any]] = {
    "openvino, folded": lambda dense: openvino(dense, "folded", "f32"),
    "openvino bf16, folded": lambda dense: openvino(dense, "folded", "bf16"),
    "openvino int8": lambda dense: openvino_int8(dense, "exported"),
    "openvino int8, folded": lambda dense: openvino_int8(dense, "folded"),
    "onnxruntime int8": lambda dense: onnxruntime_int8(dense, "exported"),
    "mnn": lambda dense: mnn(dense, "exported"),
    "mnn, folded": lambda dense: mnn(dense, "folded"),
}
#: and what runs a generator with zeros, faster for them
SPARSE_RIVALS: dict[str, Callable[[Dense], Any]] = {
    "mnn sparse": lambda dense: mnn(dense, "exported", "--detectSparseSpeedUp"),
}


#: by name, what we ship: the pattern of its masks
OURS = {
    "float32": "unstructured",
    "float32 16x1": "16x1",
    "float32 kernels": "kernels",
    "int8 1x4": "1x4",
    "int8 2x4": "2x4",
    "int8 16x4": "16x4",
}


@functools.cache
def compiled(channels: int, variant: str, density: float) -> CompiledGenerator:
    """One of :data:`OURS`; calibrating takes half a minute, whatever the batch."""
    network, masks = masked_generator(recipe_of(channels, f"sparsity.pattern={OURS[variant]}"), density)
    ranges = calibrate_generator(network, masks) if variant.startswith("int8") else None
    return compile_generator(network, masks, sparse="always", ranges=ranges)


def our_engine(channels: int, variant: str, density: float, batch: int) -> Engine:
    """One of :data:`OURS` with latents."""
    network = compiled(channels, variant, density)
    z = latents(batch, network.latent_dim)
    return Engine(lambda: network(z), counted(layer.values for layer in network.layers if layer.kind != "linear"))


def ours(
    channels: int, batch: int, densities: tuple[float, ...], variants: tuple[str, ...] = ("float32",)
) -> dict[tuple[str, float], Maker]:
    """What makes ours, by variant and density."""
    return {(own, d): functools.partial(our_engine, channels, own, d, batch) for own in variants for d in densities}


def compared(
    head: str,
    own: Mapping[tuple[str, float], Maker],
    rivals: Mapping[tuple[str, float | None], Maker],
    rounds: int,
    calls: int,
) -> Iterator[Row]:
    """Time everything in turns; one row per rival, variant of ours and density, the rival's time over ours.

    Args:
        head: what it is measured on, the first words of the case.
        own: by variant and density.
        rivals: by name and density; without density a rival stands against every one of ours.
        rounds: turns.
        calls: in a turn.
    """
    asked = [
        (case, at, rival, mine)
        for rival in rivals
        for mine in own
        if rival[1] in (None, mine[1])
        and wanted(case := f"{head}: {rival[0]} over our {mine[0]}", at := f"density {mine[1]}")
    ]
    steps, left_out = ready({_key(mine): own[mine] for *_, mine in asked} | {r: rivals[r] for _, _, r, _ in asked})
    failed: dict[Any, Exception] = {}
    with torch.no_grad():
        times = alternate(steps, rounds, warm=1, calls=calls, failed=failed) if steps else {}
    left_out |= {name: reason(error) for name, error in failed.items()}
    for (name, at), why in left_out.items():
        if LEFT_OUT.get(name) != why:
            print(f"  left out: {name}{'' if at is None else f' {at:g}'}: {why}", flush=True)
            LEFT_OUT[name] = why
    for case, at, rival, mine in asked:
        if rival in times and _key(mine) in times:
            value, quartiles = over(times, rival, _key(mine))
            yield Row(case, at, value, quartiles=quartiles, ran=getattr(steps[rival], "ran", ""))
        else:
            yield Row(case, at, None)


def _key(variant: tuple[str, float]) -> tuple[str, float]:
    return f"our {variant[0]}", variant[1]
