"""Entries of the suite about generators that are used: engines, accuracy, files, narrow networks, evaluation."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from elsewhere import Elsewhere, python_of
from entries import DENSITIES, Row, at_density, entry, generators, narrowed, of_setup, over, recipe_of, wanted
from rivals import RIVALS, SPARSE_RIVALS, Dense, compared, ours

from gancompress.bench.engines import onnx_bytes, onnxruntime_session, openvino_model, ready
from gancompress.bench.infer import REFERENCE
from gancompress.bench.timing import alternate
from gancompress.evaluation.features import Statistics
from gancompress.evaluation.metrics import frechet_distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def rows(
    channels: int, batch: int, rounds: int, engine: str, targets: tuple[float, ...], stretch: tuple[float, ...] | None,
    *overrides: str,
) -> Iterator[Row]:  # fmt: skip
    """One row per density against one dense engine."""
    result = generators(channels, batch, rounds, *overrides)
    case = f"{channels} channels, batch {batch}: {engine}"
    for density, target, more in zip(DENSITIES, targets, stretch or (None,) * len(targets), strict=True):
        at = at_density(density)
        if not wanted(case, at):
            continue
        if engine in result.times[batch]:
            value, quartiles = over(result.times[batch], engine, f"sparse {density:g}")
            yield Row(case, at, value, target, more, quartiles)
        else:
            yield Row(case, at, None, target, more, note=result.missing.get(engine, ""))


@entry("I0", "every engine, and ours by density, over masked-dense torch: how many times faster")
def i0(rounds: int) -> Iterator[Row]:
    for channels, batch in narrowed(((256, 1), (256, 16), (64, 64)), of_setup):
        turns = rounds if batch > 1 else 2 * rounds
        for name, found in generators(channels, batch, turns).batches[batch].items():
            if name != REFERENCE:
                yield Row(name, f"{channels} channels, batch {batch}", found.faster, None, None, found.quartiles)


@entry("I1", "as people run it, the graph as exported")
def i1(rounds: int) -> Iterator[Row]:
    for engine in ("onnxruntime", "openvino"):
        yield from rows(256, 16, rounds, engine, (8, 5.5, 3.3), (12, 7.5, 4.5))


@entry("I1b", "the best dense float32, given our exact rewrites")
def i1b(rounds: int) -> Iterator[Row]:
    aims = {(256, 16): (5.5, 4.0, 2.4), (64, 64): (3.8, 2.8, 1.9)}
    for channels, batch in narrowed(tuple(aims), of_setup):
        engine = best(channels, batch, rounds, "")
        yield from rows(channels, batch, rounds, engine, aims[channels, batch], (8, 5.5, 3))


@entry("I2", "as I1, narrower")
def i2(rounds: int) -> Iterator[Row]:
    yield from rows(64, 64, rounds, "onnxruntime", (5.5, 4, 2.4), (9, 6, 3.5))


@entry("I3", "as I1, one image")
def i3(rounds: int) -> Iterator[Row]:
    yield from rows(256, 1, 2 * rounds, "onnxruntime", (4, 2.8, 1.6), (7, 4.5, 2.7))


@entry("I4", "the best dense bf16, given our rewrites, over our sparse float32")
def i4(rounds: int) -> Iterator[Row]:
    aims = {(256, 16): (3.3, 2.2, 1.3), (64, 64): (1.9, 1.4, 1.0)}
    for channels, batch in narrowed(tuple(aims), of_setup):
        yield from rows(channels, batch, rounds, best(channels, batch, rounds, "bf16"), aims[channels, batch], None)


def best(channels: int, batch: int, rounds: int, precision: str) -> str:
    """The fastest dense variant of a precision."""
    found = generators(channels, batch, rounds).batches[batch]
    dense = [n for n in found if not n.startswith("sparse") and ("bf16" in n) == (precision == "bf16")]
    return min(dense, key=lambda name: found[name].seconds)


@entry("I5", "DeepSparse 1.8, the yardstick of its day, given the same masks, over ours")
def i5(rounds: int) -> Iterator[Row]:
    """It needs an environment of its own: ``DEEPSPARSE_PYTHON`` names its interpreter."""

    def engine(dense: Dense) -> Any:
        python = python_of("DEEPSPARSE_PYTHON")
        return dense.checked(Elsewhere(python, "deepsparse", dense.exported, dense.z.numpy()), 80)

    for setup in narrowed(((256, 1), (256, 16), (64, 64)), of_setup):
        # the yardstick is to be passed at density 0.1 and below
        for row in against(*setup, rounds, {}, {"DeepSparse": engine}):
            aims = (1.0, 1.2) if row.at in ("density 0.05", "density 0.1") else (None, None)
            yield dataclasses.replace(row, target=aims[0], stretch=aims[1])


@entry("I6", "largest difference of a pixel to the eager generator")
def i6(rounds: int) -> Iterator[Row]:
    found = generators(256, 16, rounds).error
    for density in narrowed(DENSITIES, at_density):
        case = "256 channels, batch 16: largest difference of a pixel"
        yield Row(case, at_density(density), found[f"sparse {density:g}"], 1e-5, None, lower=True)


@entry("I7", "as I1, conditional: a gain and a bias per class in every norm")
def i7(rounds: int) -> Iterator[Row]:
    yield from rows(256, 16, rounds, "onnxruntime", (8, 5.5, 3.3), (12, 7.5, 4.5), "model.conditional=true")


#: of the figures about int8 and about narrow networks, by case: targets and stretch targets for the densities. They
#: were set on a processor with dot-product instructions.
AIMS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "256 channels, batch 16: openvino int8, folded over our int8 1x4": ((5.5, 4.5, 2.7), (6.5, 5, 3.2)),
    "64 channels, batch 16: openvino int8, folded over our int8 1x4": ((3.2, 2.5, 2.2), (4, 3, 2.7)),
    "256 channels, batch 1: openvino int8, folded over our int8 1x4": ((3, 2.5, 1.8), (5, 4, 2.5)),
    "256 channels, batch 16: our float32 over our int8 1x4": ((3.2, 3.4, 3.7), (4, 4, 4)),
    "256 channels, batch 1: our float32 over our float32 16x1": ((1.5, 1.5, 1.5), (2, 2, 2)),
    "256 channels, batch 16: narrow, openvino, folded over our float32 kernels": ((0.7, 0.85, 0.9), (1, 1, 1)),
    "256 channels, batch 16: narrow, openvino int8, folded over our int8 2x4": ((0.55, 0.7, 0.75), (1, 1, 1)),
}
INT8 = ("int8 1x4", "int8 2x4", "int8 16x4")


def aimed(found: Iterator[Row]) -> Iterator[Row]:
    """Add the targets that figures have."""
    for row in found:
        if row.case in AIMS and row.at in ATS:
            target, stretch = (aims[ATS.index(row.at)] for aims in AIMS[row.case])
            row = dataclasses.replace(row, target=target, stretch=stretch)
        yield row


ATS = [at_density(density) for density in DENSITIES]


@entry("Q1", "engines of today, quantised, in bf16 and in float32, over ours; MNN sparse has the same masks")
def q1(rounds: int) -> Iterator[Row]:
    """Below 1 they are faster: a user who quantises an ordinary generator does not need us for speed."""
    for setup in narrowed(((256, 16), (256, 1), (64, 16)), of_setup):
        yield from aimed(against(*setup, rounds, RIVALS, SPARSE_RIVALS))


@entry("Q2", "engines in int8, and our own float32 with single weights, over ours in int8 blocks")
def q2(rounds: int) -> Iterator[Row]:
    for setup in narrowed(((256, 16), (256, 1), (64, 16)), of_setup):
        blocks = (*INT8, *(("float32 16x1",) if setup[1] == 1 else ()))
        rivals = {name: make for name, make in RIVALS.items() if "int8" in name}
        yield from aimed(against(*setup, rounds, rivals, {}, blocks, beside_float32=True))


def against(
    channels: int,
    batch: int,
    rounds: int,
    dense: Mapping[str, Any],
    sparse: Mapping[str, Any],
    variants: tuple[str, ...] = ("float32",),
    *,
    beside_float32: bool = False,
) -> Iterator[Row]:
    """Time rivals against ours: one dense generator, and one per density with the masks that ours has.

    Args:
        channels: of the generators.
        batch: images per call.
        rounds: turns.
        dense: rivals that run a dense generator.
        sparse: and those that run one with zeros.
        variants: of ours.
        beside_float32: let ours in float32 with single weights be a rival too.
    """
    recipe = recipe_of(channels)
    held = functools.cache(lambda density: Dense(recipe, density, batch))
    makers: dict[tuple[str, float | None], Any] = {}
    for name, make in dense.items():
        makers[name, None] = lambda make=make: make(held(1.0))
    for name, make in sparse.items():
        for density in DENSITIES:
            makers[name, density] = lambda make=make, density=density: make(held(density))
    if beside_float32:
        makers |= {(f"our {name}", density): make for (name, density), make in ours(channels, batch, DENSITIES).items()}
    own = ours(channels, batch, DENSITIES, variants)
    yield from compared(of_setup((channels, batch)), own, makers, *turns_of(channels, batch, rounds))


def turns_of(channels: int, batch: int, rounds: int) -> tuple[int, int]:
    """Turns, and calls in one: a short call says more about what ran before it than about itself."""
    return (2 * rounds, 8) if batch == 1 else (rounds, 1 if channels > 64 else 4)


#: by density of 256 channels, the channels of a dense generator with as many weights
NARROW = {0.05: 56, 0.1: 80, 0.2: 112}
NARROW_RIVALS = {
    "openvino, folded": RIVALS["openvino, folded"],
    "openvino int8, folded": RIVALS["openvino int8, folded"],
    "onnxruntime": lambda dense: onnxruntime_session(dense.exported, (dense.z,), 1),
}


@entry("N1", "56, 80 and 112 channels for densities 0.05, 0.1 and 0.2 of 256; below 1 the narrow one is faster")
def n1(rounds: int) -> Iterator[Row]:
    """What the two are worth as generators is another question: ``gancompress compare`` trains both."""
    for channels, batch in narrowed(((256, 16), (256, 1)), of_setup):
        slim = functools.cache(lambda density, batch=batch: Dense(recipe_of(NARROW[density]), 1.0, batch))
        makers = {
            (f"narrow, {name}", density): lambda make=make, density=density, slim=slim: make(slim(density))
            for name, make in NARROW_RIVALS.items()
            for density in NARROW
        }
        pattern = "float32 16x1" if batch == 1 else "float32 kernels"
        own = ours(channels, batch, tuple(NARROW), ("float32", pattern, *INT8))
        yield from aimed(compared(of_setup((channels, batch)), own, makers, *turns_of(channels, batch, rounds)))


@entry("F1", "bytes of torch.save over our file, convolutions of SNGAN with 256 channels")
def f1(rounds: int) -> Iterator[Row]:
    from bench_export import measure

    aims: dict[tuple[str, str], tuple[float | None, ...]] = {
        ("float32", "single weights"): (17, 9.5, 5),
        ("bf16", "single weights"): (35, 20, 11),
        **{("int8", pattern): (None, 38, None) for pattern in ("single weights", "1x4", "2x4")},
    }
    for (values, pattern), targets in aims.items():
        case = f"values in {values}" + (f", {pattern}" if values == "int8" else "")
        for density, target in zip(DENSITIES, targets, strict=True):
            if wanted(case, at_density(density)):
                ratio, *_ = measure(256, density, values, False, pattern)  # type: ignore[arg-type]
                stretch = 45 if values == "int8" and target else None
                yield Row(case, at_density(density), ratio, target, stretch)


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
    model = functools.cache(lambda: onnx_bytes(network, images))
    others, left_out = ready(
        {
            "onnxruntime": lambda: onnxruntime_session(model(), images, 1),
            "openvino": lambda: openvino_model(model(), images, 1, "f32"),
            "openvino bf16": lambda: openvino_model(model(), images, 1, "bf16"),
        }
    )
    steps |= others
    with torch.no_grad():
        times = alternate(steps, max(2, rounds // 2))
    for name, target, stretch in (("onnxruntime", 1.8, None), ("openvino", 1.8, None), ("openvino bf16", None, 4)):
        if name in times:
            value, quartiles = over(times, "torch", name)
            yield Row(f"batch 8: {name}", "", value, target, stretch, quartiles, ran=getattr(steps[name], "ran", ""))
        else:
            yield Row(f"batch 8: {name}", "", None, target, stretch, note=left_out[name])
