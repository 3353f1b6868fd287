"""Generators in bytes: calibrated, written, read, and the same images whatever computes them."""

from __future__ import annotations

import copy
import functools
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from export_toys import CLASSES, images, inputs, make, mask, settle
from torch import nn

import gancompress
from gancompress.api.int8 import quality_lines
from gancompress.backbones.base import prunable_weights
from gancompress.data.base import ImageSpec
from gancompress.errors import ExportError, GancompressError
from gancompress.export.coding import in_units
from gancompress.export.compiled import compile_generator
from gancompress.export.container import read_container, write_container
from gancompress.export.in_bytes import calibrate_generator
from gancompress.export.packed import FORMAT, KIND, export_packed, load_packed
from gancompress.kernels import status
from gancompress.quantization.weights import on_grid
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from pathlib import Path

MODELS: list[tuple[ImageSpec, dict[str, Any]]] = [
    (ImageSpec(1, 16, CLASSES), {"name": "dcgan", "channels": 8, "conditional": True}),
    (ImageSpec(3, 32), {"name": "sngan", "channels": 16}),
    (ImageSpec(3, 32, CLASSES), {"name": "biggan", "channels": 8}),
]


def made(index: int) -> tuple[Any, dict[str, torch.Tensor], dict[str, Any]]:
    image, model = MODELS[index]
    generator = make(**{**model, "image": image})
    masks = mask(generator, 0.4)
    return generator, masks, model


@functools.cache
def calibrated(index: int) -> tuple[Any, dict[str, torch.Tensor], dict[str, Any], Any]:
    """A generator that no test changes, and the ranges of its layers."""
    generator, masks, model = made(index)
    return generator, masks, model, calibrate_generator(generator, masks)


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANCOMPRESS_SPARSE", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "generator.safetensors"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("int8") / "generator.safetensors"
    generator, masks, model, ranges = calibrated(1)
    export_packed(generator, path, model=model, masks=masks, values="int8", ranges=ranges)
    return path.read_bytes()


@pytest.fixture
def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    difference = float((one - other).double().square().mean())
    return 10 * math.log10(4 / difference) if difference else math.inf


@pytest.mark.parametrize("index", range(3), ids=[model["name"] for _, model in MODELS])
def test_a_file_in_bytes_makes_nearly_the_same_images(path: Path, index: int) -> None:
    generator, masks, model, ranges = calibrated(index)
    sizes = export_packed(generator, path, model=model, masks=masks, values="int8", ranges=ranges)
    loaded = gancompress.load(path)
    assert isinstance(loaded, gancompress.export.loading.LoadedGenerator)
    in_bytes = {f"{one.name}.weight" for one in loaded.network.layers if one.values == "int8"}
    assert in_bytes == ranges.keys()
    assert len(in_bytes) >= 2
    assert psnr(images(loaded.network, 12), images(generator, 12)) > 32
    assert loaded.packed.ranges == ranges
    assert loaded.packed.masks.keys() == masks.keys()
    for name in ranges:
        assert sizes[name].packed < 1.5 * sizes[name].kept + sizes[name].elements / 8 + 400


def test_the_program_of_the_file_is_that_of_its_weights_brought_to_bytes_once_more(path: Path, tmp_path: Path) -> None:
    generator, masks, model, ranges = calibrated(1)
    export_packed(generator, path, model=model, masks=masks, values="int8", ranges=ranges)
    again = tmp_path / "again.safetensors"
    once = load_packed(path)
    export_packed(once.generator(), again, model=model, masks=once.masks, values="int8", ranges=once.ranges)
    assert again.read_bytes() == path.read_bytes()
    twice = load_packed(again)
    networks = [compile_generator(one.generator(), one.masks, ranges=one.ranges) for one in (once, twice)]
    assert torch.equal(images(networks[0], 5), images(networks[1], 5))


def test_blocks_in_bytes_have_their_masks_in_units(path: Path) -> None:
    generator, masks, model, ranges = calibrated(1)
    export_packed(generator, path, model=model, masks=masks, values="int8", ranges=ranges)
    # the file of single weights is what versions read that know of no units
    assert read_container(path, kind=KIND, format=2)[1]["format"] == 2
    generator, masks = copy.deepcopy(generator), dict(masks)
    for name, weight in prunable_weights(generator).items():
        box = weight.layer.box(1, 4) if name in masks and weight.kind == "convolution" else None
        if box is not None:
            units = Units(weight.layer.shape, box)
            masks[name] = units.expand(torch.rand(units.grid, generator=torch.Generator().manual_seed(3)) < 0.4)
            with torch.no_grad():
                weight.parameter.normal_().masked_fill_(~masks[name], 0)
    sizes = export_packed(generator, path, model=model, masks=masks, values="int8", ranges=ranges)
    parts, document = read_container(path, kind=KIND, format=FORMAT)
    assert document["format"] == 3
    packed = load_packed(path)
    for name, own in packed.ranges.items():
        layer = prunable_weights(generator)[name]
        grid = (layer.layer.kind == "transposed convolution", layer.layer.groups)
        assert torch.equal(packed.masks[name], masks[name])
        assert torch.equal(packed.state[name], on_grid(layer.parameter.detach(), own.factors, *grid))
        assert in_units(parts[f"{name}:mask"])
        assert sizes[name].packed == sum(parts[f"{name}:{part}"].numel() for part in ("values", "mask", "scales"))


def test_one_image_is_the_same_among_many_and_alone(written: Path) -> None:
    network = gancompress.load(written).network
    z, _ = inputs(network, 20)
    together = network(z)
    alone = torch.cat([network(one[None]) for one in z])
    # what torch computes ahead of the program may round otherwise, and now and then a byte is the next one
    assert psnr(together, alone) > 60


def test_what_is_not_in_bytes_is_rounded_to_bf16(written: Path) -> None:
    packed = load_packed(written)
    generator, _, _ = made(1)
    for name, weight in prunable_weights(generator).items():
        if name not in packed.ranges:
            assert torch.equal(packed.state[name], packed.state[name].bfloat16().float())
            torch.testing.assert_close(packed.state[name], weight.parameter.detach(), rtol=2**-8, atol=0)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"])
def test_the_same_bytes_on_every_instruction_set(path: Path, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as chosen:
        chosen.setenv("GANCOMPRESS_KERNELS", isa)
        if status().isa != isa:
            pytest.skip(f"this machine has no {isa}")
    monkeypatch.setattr("gancompress.quantization.kept.SHARE", 0.0)  # no layer in float, which rounds as it likes
    generator, masks, model = made(1)
    ranges = calibrate_generator(generator, masks)
    assert len(ranges) == 10
    export_packed(generator, path, model=model, masks=masks, values="int8", ranges=ranges)
    network = gancompress.load(path).network
    z, _ = inputs(network, 20)
    programs = [module for module in network.run.modules() if hasattr(module, "program")]
    given: list[Any] = []
    programs[0].register_forward_pre_hook(lambda _, args: given.append(args))
    network(z)
    want = programs[0].program.dense(*given[0])
    monkeypatch.setenv("GANCOMPRESS_KERNELS", isa)
    assert torch.equal(programs[0].program(*given[0]), want)
    drawn = {}
    for chosen_isa in ("baseline", isa):
        monkeypatch.setenv("GANCOMPRESS_KERNELS", chosen_isa)
        drawn[chosen_isa] = gancompress.load(path).network(z)  # from the file to the image
    assert torch.equal(drawn[isa], drawn["baseline"])


def test_a_run_is_exported_and_says_what_it_cost(tmp_path: Path) -> None:
    outcome = gancompress.run("quickstart", out=tmp_path, smoke=True, progress=False)
    other = gancompress.api.export(
        outcome, tmp_path / "g.safetensors", values="int8", range="max", evaluate=False, progress=False
    )
    assert other.quality["metrics"] == []
    assert load_packed(other.file).source["range"] == "max"
    made = gancompress.api.export(outcome, values="int8", progress=False)
    assert made.file.name == "generator-int8.safetensors"
    assert made.quality["psnr"] > 25
    names = [one["label"] for one in made.quality["metrics"]]
    assert names == [one.label for one in outcome.metrics.values()]
    assert all(math.isfinite(one["before"]) and math.isfinite(one["value"]) for one in made.quality["metrics"])
    distance = made.quality["metrics"][0]  # other latents give other numbers
    assert min(distance["spread"], distance["before_spread"]) > 0
    lines = quality_lines(made.quality)
    assert any("±" in line and "float32" in line and "int8" in line for line in lines)
    assert "±: standard deviation over 3 seeds of latents, the same for both" in lines
    packed = load_packed(made.file)
    assert packed.source["quality"] == made.quality
    assert packed.source["range"] == "mse"
    page = outcome.report.read_text()
    assert "In int8" in page
    assert f"PSNR {made.quality['psnr']:.1f} dB" in page


def forge(path: Path, change: Any) -> None:
    tensors, document = read_container(path, kind=KIND, format=FORMAT)
    change(document, tensors)
    write_container(path, tensors, document, kind=KIND, format=FORMAT)


def first(document: dict[str, Any]) -> str:
    return min(document["int8"])


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("scale", -1.0, "positive"), ("scale", 0.0, "positive"), ("scale", math.nan, "positive"),
        ("scale", math.inf, "positive"), ("scale", 1e300, "positive"), ("scale", "1", "scale"),
        ("scale", None, "scale"),
        ("zero", 256, "byte of zero"), ("zero", -1, "byte of zero"), ("zero", 1.5, "zero"), ("zero", True, "zero"),
        ("exponents", [1], "exponents"), ("exponents", [99] * 16, "exponents"),
        ("exponents", ["a"] * 16, "exponents"),
    ],
)  # fmt: skip
def test_forged_ranges_are_refused(written: Path, entry: str, value: Any, reason: str) -> None:
    forge(written, lambda document, _: document["int8"][first(document)].update({entry: value}))
    with pytest.raises(GancompressError, match=reason) as error:
        gancompress.load(written)
    assert "\n" not in str(error.value)
    assert str(written) in str(error.value)


def coded(numbers: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    from gancompress.export.coding import encode_values

    return encode_values(torch.tensor(numbers, dtype=dtype))


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        (":scales", lambda old: coded([-1.0] * 16), "positive"),
        (":scales", lambda old: coded([math.nan] * 16), "positive"),
        (":scales", lambda old: coded([math.inf] * 16), "positive"),
        (":scales", lambda old: coded([3e38] * 16), "positive"),
        (":scales", lambda old: coded([1.0] * 15), "values are coded"),
        (":scales", lambda old: torch.ones(16), "no scales"),
        (":scales", None, "no scales"),
        (":values", lambda old: old[:-3], "cut short|bytes|values are coded"),
        (":values", lambda old: coded([-128] * 100, torch.int8), "values are coded|whole numbers"),
    ],
)  # fmt: skip
def test_forged_scales_and_numbers_are_refused(written: Path, part: str, change: Any, reason: str) -> None:
    def altered(document: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = "blocks.0.conv2.weight" if "blocks.0.conv2.weight" in document["int8"] else first(document)
        if change is None:
            del tensors[name + part]
        else:
            tensors[name + part] = change(tensors[name + part])

    forge(written, altered)
    with pytest.raises(ExportError, match=reason) as error:
        gancompress.load(written)
    assert "\n" not in str(error.value)


def test_numbers_past_127_are_refused(written: Path) -> None:
    def altered(document: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = first(document)
        tensors[name + ":values"] = coded([-128] * document["tensors"][name]["kept"], torch.int8)

    forge(written, altered)
    with pytest.raises(ExportError, match="-127 to 127"):
        gancompress.load(written)


def test_ranges_without_a_weight_are_refused(written: Path) -> None:
    forge(written, lambda document, _: document["int8"].update(other=document["int8"][first(document)]))
    with pytest.raises(ExportError, match="ranges and no weight"):
        gancompress.load(written)


def test_int8_needs_calibration_and_a_layer(path: Path) -> None:
    generator, masks, model = made(1)
    with pytest.raises(ExportError, match="never calibrated"):
        export_packed(generator, path, model=model, masks=masks, values="int8")
    with pytest.raises(ExportError, match="range 'most'"):
        calibrate_generator(generator, masks, "most")

    class Linear(nn.Module):
        latent_dim, num_classes, image = 4, 0, ImageSpec(1, 4)

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 16)

        def output_layer(self) -> nn.Module:
            return self.last

        def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
            return self.last(z).reshape(-1, 1, 4, 4).tanh()

    with pytest.raises(ExportError, match="no layer of this generator fits int8: "):
        calibrate_generator(settle(Linear()), {})


def test_a_generator_with_nan_is_refused() -> None:
    generator, masks, _ = made(1)
    with torch.no_grad():
        next(iter(prunable_weights(generator).values())).parameter.fill_(math.nan)
    with pytest.raises(GancompressError, match="NaN or infinite"):
        calibrate_generator(generator, masks)
