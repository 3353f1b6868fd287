"""Entries of the suite about generators that are used: engines, accuracy, files, narrow networks, evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from entries import DENSITIES, Row, entry, generators, over, recipe_of

from gancompress.bench.engines import installed, onnx_bytes, onnxruntime_session, openvino_model
from gancompress.bench.infer import REFERENCE, _masked
from gancompress.bench.styles import fold
from gancompress.bench.timing import alternate
from gancompress.evaluation.features import Statistics
from gancompress.evaluation.metrics import frechet_distance
from gancompress.export.compiled import compile_generator
from gancompress.export.plain import plain_copy

if TYPE_CHECKING:
    from collections.abc import Iterator


def rows(
    channels: int, batch: int, rounds: int, engine: str, targets: tuple[float, ...], stretch: tuple[float, ...] | None,
    *overrides: str,
) -> Iterator[Row]:  # fmt: skip
    """One row per density against one dense engine."""
    result = generators(channels, batch, rounds, *overrides)
    case = f"{channels} channels, batch {batch}: {engine}"
    for density, target, more in zip(DENSITIES, targets, stretch or (None,) * len(targets), strict=True):
        at = f"density {density}"
        if engine in result.times[batch]:
            value, quartiles = over(result.times[batch], engine, f"sparse {density:g}")
            yield Row(case, at, value, target, more, quartiles)
        else:
            yield Row(case, at, None, target, more, note="not installed")


@entry("I0", "every engine, and ours by density, over masked-dense torch: how many times faster")
def i0(rounds: int) -> Iterator[Row]:
    for channels, batch, turns in ((256, 1, 2 * rounds), (256, 16, rounds), (64, 64, rounds)):
        for name, found in generators(channels, batch, turns).batches[batch].items():
            if name != REFERENCE:
                yield Row(name, f"{channels} channels, batch {batch}", found.faster, None, None, found.quartiles)


@entry("I1", "as people run it, the graph as exported")
def i1(rounds: int) -> Iterator[Row]:
    for engine in ("onnxruntime", "openvino"):
        yield from rows(256, 16, rounds, engine, (8, 5.5, 3.3), (12, 7.5, 4.5))


@entry("I1b", "the best dense float32, given our exact rewrites")
def i1b(rounds: int) -> Iterator[Row]:
    for channels, batch, targets in ((256, 16, (5.5, 4.0, 2.4)), (64, 64, (3.8, 2.8, 1.9))):
        yield from rows(channels, batch, rounds, best(channels, batch, rounds, ""), targets, (8, 5.5, 3))


@entry("I2", "as I1, narrower")
def i2(rounds: int) -> Iterator[Row]:
    yield from rows(64, 64, rounds, "onnxruntime", (5.5, 4, 2.4), (9, 6, 3.5))


@entry("I3", "as I1, one image")
def i3(rounds: int) -> Iterator[Row]:
    yield from rows(256, 1, 2 * rounds, "onnxruntime", (4, 2.8, 1.6), (7, 4.5, 2.7))


@entry("I4", "the best dense bf16, given our rewrites, over our sparse float32")
def i4(rounds: int) -> Iterator[Row]:
    for channels, batch, targets in ((256, 16, (3.3, 2.2, 1.3)), (64, 64, (1.9, 1.4, 1.0))):
        yield from rows(channels, batch, rounds, best(channels, batch, rounds, "bf16"), targets, None)


def best(channels: int, batch: int, rounds: int, precision: str) -> str:
    """The fastest dense variant of a precision."""
    found = generators(channels, batch, rounds).batches[batch]
    dense = [n for n in found if not n.startswith("sparse") and ("bf16" in n) == (precision == "bf16")]
    return min(dense, key=lambda name: found[name].seconds)


@entry("I5", "DeepSparse 1.8, the yardstick of its day, given the same masks: its ratio to onnxruntime over ours")
def i5(rounds: int) -> Iterator[Row]:
    """It needs an environment of its own: ``DEEPSPARSE_PYTHON`` names its interpreter (``deepsparse_turns.py``)."""
    python = os.environ.get("DEEPSPARSE_PYTHON")
    for channels, batch, turns in ((256, 1, 2 * rounds), (256, 16, rounds), (64, 64, rounds)):
        for density in DENSITIES:
            case, at = f"{channels} channels, batch {batch}: DeepSparse", f"density {density}"
            # the yardstick is to be passed at density 0.1 and below
            target, stretch = (1.0, 1.2) if density <= 0.1 else (None, None)
            if not python or not installed("onnxruntime"):
                yield Row(case, at, None, target, stretch, note="DEEPSPARSE_PYTHON is not set")
                continue
            theirs, _ = over(_deepsparse(python, channels, batch, density, turns), "onnxruntime", "deepsparse")
            ours, _ = over(generators(channels, batch, turns).times[batch], "onnxruntime", f"sparse {density:g}")
            yield Row(case, at, ours / theirs, target, stretch)


def _deepsparse(python: str, channels: int, batch: int, density: float, rounds: int) -> Any:
    network, _ = _masked(recipe_of(channels), density)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "generator.onnx"
        model.write_bytes(onnx_bytes(network, (torch.randn(batch, 128),)))
        script = Path(__file__).with_name("deepsparse_turns.py")
        command = [python, str(script), str(model), str(rounds)]
        alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout
    found = json.loads(said.splitlines()[-1])
    assert found["apart"] < 1e-3, f"DeepSparse and onnxruntime differ by {found['apart']}"
    return found["times"]


@entry("I6", "largest difference of a pixel to the eager generator")
def i6(rounds: int) -> Iterator[Row]:
    found = generators(256, 16, rounds).error
    for density in DENSITIES:
        case = "256 channels, batch 16: largest difference of a pixel"
        yield Row(case, f"density {density}", found[f"sparse {density:g}"], 1e-5, None, lower=True)


@entry("I7", "as I1, conditional: a gain and a bias per class in every norm")
def i7(rounds: int) -> Iterator[Row]:
    yield from rows(256, 16, rounds, "onnxruntime", (8, 5.5, 3.3), (12, 7.5, 4.5), "model.conditional=true")


@entry("N1", "56, 80 and 112 channels for densities 0.05, 0.1 and 0.2 of 256; below 1 the narrow one is faster")
def n1(rounds: int) -> Iterator[Row]:
    """What the two are worth as generators is another question: ``gancompress compare`` trains both."""
    z = (torch.randn(16, 128),)
    for density, width in zip(DENSITIES, (56, 80, 112), strict=True):
        wide, masks = _masked(recipe_of(256), density)
        slim, _ = _masked(recipe_of(width), 1.0)
        other = plain_copy(slim)
        fold(other, frozen=True)
        ours = compile_generator(wide, masks, sparse="always")
        steps: dict[str, Any] = {"ours": lambda net=ours: net(*z)}
        if installed("openvino"):
            steps["openvino, folded"] = openvino_model(onnx_bytes(other, z), z, 1, "f32")
        if installed("onnxruntime"):
            steps["onnxruntime, as exported"] = onnxruntime_session(onnx_bytes(slim, z), z, 1)
        with torch.no_grad():
            times = alternate(steps, 2 * rounds, warm=2)
        for name in list(steps)[1:]:
            value, quartiles = over(times, name, "ours")
            yield Row(f"batch 16: {name}", f"density {density}", value, None, None, quartiles)


@entry("F1", "bytes of torch.save over our file, convolutions of SNGAN with 256 channels")
def f1(rounds: int) -> Iterator[Row]:
    from bench_export import measure

    for values, targets in (("float32", (17, 9.5, 5)), ("bf16", (35, 20, 11))):
        for density, target in zip(DENSITIES, targets, strict=True):
            ratio, *_ = measure(256, density, values, False)  # type: ignore[arg-type]
            yield Row(f"values in {values}", f"density {density}", ratio, target)


@entry("E1", "the Fréchet part of FID with scipy's matrix root over ours, reference cached")
def e1(rounds: int) -> Iterator[Row]:
    try:
        from scipy import linalg
    except ImportError:
        yield Row("2048 features", "", None, 5, note="scipy is not installed")
        return
    random = np.random.default_rng(0)

    def drawn() -> Statistics:
        values = random.standard_normal((4096, 2048)) @ np.diag(np.linspace(0.1, 1, 2048))
        return Statistics(values.mean(0), np.cov(values, rowvar=False))

    a, b = drawn(), drawn()
    assert a.root is not None  # kept with the reference

    def scipys() -> float:
        root: Any = linalg.sqrtm(a.covariance @ b.covariance)
        difference = a.mean - b.mean
        return float(difference @ difference + np.trace(a.covariance + b.covariance - 2 * root.real))

    times = alternate({"ours": lambda: frechet_distance(a, b), "scipy": scipys}, 2)
    assert abs(scipys() / frechet_distance(a, b) - 1) < 1e-3
    value, quartiles = over(times, "scipy", "ours")
    yield Row("2048 features", "", value, 5, None, quartiles)


@entry("E2", "Inception v3 in eager torch over other engines, whose last digits differ: evaluation uses torch")
def e2(rounds: int) -> Iterator[Row]:
    import torchvision

    network = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True).eval()
    images = (torch.rand(8, 3, 299, 299),)
    steps: dict[str, Any] = {"torch": lambda: network(*images)}
    model = onnx_bytes(network, images) if installed("onnxruntime") or installed("openvino") else b""
    if installed("onnxruntime"):
        steps["onnxruntime"] = onnxruntime_session(model, images, 1)
    if installed("openvino"):
        steps["openvino"] = openvino_model(model, images, 1, "f32")
        steps["openvino bf16"] = openvino_model(model, images, 1, "bf16")
    with torch.no_grad():
        times = alternate(steps, max(2, rounds // 2))
    for name, target, stretch in (("onnxruntime", 1.8, None), ("openvino", 1.8, None), ("openvino bf16", None, 4)):
        if name in times:
            value, quartiles = over(times, "torch", name)
            yield Row(f"batch 8: {name}", "", value, target, stretch, quartiles)
