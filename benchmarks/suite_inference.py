"""Entries of the suite about generators that are used: engines, accuracy, files, narrow networks, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from entries import DENSITIES, Row, entry, generators, paired, recipe_of

from gancompress.bench.engines import installed, onnx_bytes, onnxruntime_session, openvino_model
from gancompress.bench.infer import _masked
from gancompress.bench.styles import fold
from gancompress.bench.timing import alternate, ratios
from gancompress.evaluation.features import Statistics
from gancompress.evaluation.metrics import frechet_distance
from gancompress.export.compiled import compile_generator
from gancompress.export.folding import folded

if TYPE_CHECKING:
    from collections.abc import Iterator


def rows(
    channels: int, batch: int, rounds: int, engine: str, targets: tuple[float, ...], stretch: tuple[float, ...] | None,
    *overrides: str,
) -> Iterator[Row]:  # fmt: skip
    """One row per density against one dense engine."""
    result = generators(channels, batch, rounds, *overrides)
    for density, target, more in zip(DENSITIES, targets, stretch or (None,) * len(targets), strict=True):
        case = f"{channels} channels, batch {batch}, {engine}, density {density}"
        found = paired(result, batch, engine, f"sparse {density:g}")
        if found is None:
            yield Row(case, None, target, more, note="not installed")
        else:
            yield Row(case, found[1], target, more, (found[0], found[2]))


@entry("I1", "a dense generator as people run it over our sparse one")
def i1(rounds: int) -> Iterator[Row]:
    for engine in ("onnxruntime", "openvino"):
        yield from rows(256, 16, rounds, engine, (8, 5.5, 3.3), (12, 7.5, 4.5))


@entry("I1b", "the best dense float32 generator, given our rewrites, over our sparse one")
def i1b(rounds: int) -> Iterator[Row]:
    for channels, batch, targets in ((256, 16, (5.5, 4.0, 2.4)), (64, 64, (3.8, 2.8, 1.9))):
        yield from rows(channels, batch, rounds, best(channels, batch, rounds, ""), targets, (8, 5.5, 3))


@entry("I2", "as I1, 64 channels, batch 64")
def i2(rounds: int) -> Iterator[Row]:
    yield from rows(64, 64, rounds, "onnxruntime", (5.5, 4, 2.4), (9, 6, 3.5))


@entry("I3", "as I1, one image")
def i3(rounds: int) -> Iterator[Row]:
    yield from rows(256, 1, 2 * rounds, "onnxruntime", (4, 2.8, 1.6), (7, 4.5, 2.7))


@entry("I4", "the best dense bf16 generator over our sparse float32 one")
def i4(rounds: int) -> Iterator[Row]:
    for channels, batch, targets in ((256, 16, (3.3, 2.2, 1.3)), (64, 64, (1.9, 1.4, 1.0))):
        yield from rows(channels, batch, rounds, best(channels, batch, rounds, "bf16"), targets, None)


def best(channels: int, batch: int, rounds: int, precision: str) -> str:
    """The fastest dense variant of a precision."""
    found = generators(channels, batch, rounds).batches[batch]
    dense = [n for n in found if not n.startswith("sparse") and ("bf16" in n) == (precision == "bf16")]
    return min(dense, key=lambda name: found[name].seconds)


@entry("I5", "DeepSparse 1.8 over ours, through onnxruntime")
def i5(rounds: int) -> Iterator[Row]:
    for density in DENSITIES:
        yield Row(f"density {density}", None, 1.0, 1.2, note="needs an environment of its own; not measured")


@entry("I6", "largest difference of a pixel to the eager generator")
def i6(rounds: int) -> Iterator[Row]:
    found = generators(256, 16, rounds).error
    yield Row("256 channels, all densities", max(found.values()), 1e-5, None, lower=True)


@entry("I7", "as I1, conditional: a gain and a bias per class in every norm")
def i7(rounds: int) -> Iterator[Row]:
    yield from rows(256, 16, rounds, "onnxruntime", (8, 5.5, 3.3), (12, 7.5, 4.5), "model.conditional=true")


@entry("N1", "a narrow dense generator of equal size over our sparse one (below 1: the narrow one is faster)")
def n1(rounds: int) -> Iterator[Row]:
    """What the two are worth as generators is another question: ``gancompress compare`` trains both."""
    z = (torch.randn(16, 128),)
    engine = "openvino" if installed("openvino") else "onnxruntime"
    if not installed(engine):
        yield Row("density 0.05", None, note="no engine installed")
        return
    for density, width in zip(DENSITIES, (56, 80, 112), strict=True):
        wide, masks = _masked(recipe_of(256), density)
        slim, _ = _masked(recipe_of(width), 1.0)
        other = folded(slim)
        fold(other, frozen=True)
        model = onnx_bytes(other, z)
        dense = openvino_model(model, z, 1, "f32") if engine == "openvino" else onnxruntime_session(model, z, 1)
        ours = compile_generator(wide, masks, sparse="always")
        with torch.no_grad():
            row = ratios(alternate({"dense": dense, "ours": lambda net=ours: net(*z)}, 2 * rounds, warm=2), "dense")
        case = f"256 channels at density {density}, {width} dense on {engine}, folded"
        yield Row(case, row["ours"].faster, None, None, row["ours"].quartiles)


@entry("F1", "bytes of torch.save over our file, convolutions of SNGAN with 256 channels")
def f1(rounds: int) -> Iterator[Row]:
    from bench_export import measure

    for values, targets in (("float32", (17, 9.5, 5)), ("bf16", (35, 20, 11))):
        for density, target in zip(DENSITIES, targets, strict=True):
            ratio, *_ = measure(256, density, values, False)  # type: ignore[arg-type]
            yield Row(f"{values}, density {density}", ratio, target)


@entry("E1", "the Fréchet part of FID with scipy's matrix root over ours, reference cached")
def e1(rounds: int) -> Iterator[Row]:
    try:
        from scipy import linalg
    except ImportError:
        yield Row("2048 features", None, 5, note="scipy is not installed")
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

    row = ratios(alternate({"ours": lambda: frechet_distance(a, b), "scipy": scipys}, 2), "ours")["scipy"]
    assert abs(scipys() / frechet_distance(a, b) - 1) < 1e-3
    yield Row("2048 features", 1 / row.faster, 5, None, (1 / row.quartiles[1], 1 / row.quartiles[0]))


@entry("E2", "Inception v3 in eager torch over the fastest other engine")
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
        found = ratios(alternate(steps, max(2, rounds // 2)), "torch")
    for name, target, stretch in (("onnxruntime", 1.8, None), ("openvino", 1.8, None), ("openvino bf16", None, 4)):
        if name in found:
            note = "evaluation uses torch: results of engines differ in the last digits"
            yield Row(f"{name}, batch 8", found[name].faster, target, stretch, found[name].quartiles, note=note)
