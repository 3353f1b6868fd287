"""Networks from elsewhere in bytes: the file, how near it stays, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import gancompress
from gancompress.errors import GancompressError
from gancompress.export.coding import encode_values, in_units
from gancompress.export.container import read_container, write_container
from gancompress.export.network import FORMAT, KIND, LoadedNetwork, load_network, save_network
from gancompress.kernels import native_library

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANCOMPRESS_SPARSE", raising=False)


class Upscaler(nn.Module):
    """As upscalers are: PReLU, a residual, a concatenation, a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16))
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16), nn.Conv2d(16, 16, 3, padding=1))
        self.last = nn.Conv2d(32, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        h = torch.cat([h, h + self.body(h)], 1)
        return self.shuffle(self.last(h)) + nn.functional.interpolate(x, scale_factor=2.0)


class Vocoder(nn.Module):
    """As vocoders are: transposed and dilated convolutions over time, leaky activations, averaged branches, tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv1d(8, 16, 7, padding=3), nn.ConvTranspose1d(16, 8, 8, 4, 2)
        self.branches = nn.ModuleList([nn.Conv1d(8, 8, 3, padding=size, dilation=size) for size in (1, 3)])
        self.last = nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(nn.functional.leaky_relu(self.first(x), 0.1))
        h = sum(h + one(nn.functional.leaky_relu(h, 0.1)) for one in self.branches) / 2
        return self.last(nn.functional.leaky_relu(h, 0.1)).tanh()


def photographs(count: int = 5) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [nn.functional.interpolate(torch.rand(1, 3, 8, 10), scale_factor=4.0, mode="bicubic").clamp(0, 1)
            for _ in range(count)]  # fmt: skip


def upscaler(calibration: Any = None, **more: Any) -> Any:
    torch.manual_seed(0)
    given = photographs() if calibration is None else calibration
    return gancompress.compress(
        Upscaler(), density=0.5, method="magnitude", example=(torch.rand(1, 3, 16, 16),),
        dynamic={0: "n", 2: "h", 3: "w"}, calibration=given, progress=False, **more,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network.safetensors"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("int8") / "network.safetensors"
    upscaler().save(path, values="int8")
    return path.read_bytes()


def opened(path: Path) -> LoadedNetwork:
    loaded = gancompress.load(path)
    assert isinstance(loaded, LoadedNetwork)
    return loaded


def test_an_upscaler_in_bytes_takes_every_size(path: Path) -> None:
    small = upscaler()
    small.save(path, values="int8")
    loaded = opened(path)
    assert loaded.ranges.keys() >= {"body.0.weight", "body.2.weight"}
    assert loaded.source["values"] == "int8"
    quality = loaded.source["quality"]
    assert quality["convolutions"] == 4
    (near,) = quality["agreement"]
    assert near["name"] == "PSNR to float32"
    assert near["mean"] > 38
    for shape in ((1, 3, 12, 20), (3, 3, 40, 28)):
        x = photographs()[0][:, :, : shape[2], : shape[3]].expand(shape[0], -1, -1, -1)
        x = nn.functional.interpolate(x, shape[2:])
        exact, coded = small.network(x), loaded(x)
        assert coded.shape == exact.shape
        assert 0 < float((exact - coded).square().mean()) < 1e-3
    assert loaded.profile(photographs()[0]).programs == 1


def test_a_vocoder_in_bytes(path: Path) -> None:
    torch.manual_seed(0)
    small = gancompress.compress(
        Vocoder(), density=0.6, method="magnitude", example=(torch.randn(1, 8, 20),), dynamic={0: "n", 2: "t"},
        calibration=[torch.randn(1, 8, 60) for _ in range(3)], progress=False,
    )  # fmt: skip
    small.save(path, values="int8", range="percentile")
    loaded = opened(path)
    assert len(loaded.ranges) >= 3
    names = [one["name"] for one in loaded.source["quality"]["agreement"]]
    assert names == ["SNR to float32", "log-spectral distance to float32"]
    assert loaded.source["quality"]["agreement"][0]["mean"] > 20


def test_the_same_bytes_come_of_the_file_twice(path: Path, tmp_path: Path) -> None:
    upscaler().save(path, values="int8")
    upscaler().save(tmp_path / "again.safetensors", values="int8")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    x = photographs()[0]
    first = opened(path)(x)
    assert torch.equal(first, opened(path)(x))
    assert torch.equal(first, gancompress.load(path, sparse="always")(x))
    never = gancompress.load(path, sparse="never")(x)
    assert not torch.equal(first, never)  # weights on the grid, sums in float
    torch.testing.assert_close(first, never, rtol=0, atol=0.1)


def test_a_written_network_is_exported_once_more(path: Path) -> None:
    small = upscaler()
    small.save(path)
    made = gancompress.api.export(path, values="int8", calibration=photographs())
    assert made.file == path.with_name("network-int8.safetensors")
    assert made.size < path.stat().st_size
    assert made.quality["agreement"][0]["mean"] > 38
    assert opened(made.file).ranges
    with pytest.raises(GancompressError, match="in int8 already"):
        gancompress.api.export(made.file, values="int8", calibration=photographs())


def test_what_sets_no_range_is_refused_in_a_line(path: Path) -> None:
    small = upscaler()
    small.save(path)
    with pytest.raises(GancompressError, match="never calibrated"):
        gancompress.api.export(path, values="int8")
    constant = [torch.full((1, 3, 32, 40), 0.5)]
    with pytest.raises(GancompressError, match="one and the same all over"):
        gancompress.api.export(path, values="int8", calibration=constant)
    broken = photographs()
    broken[0][0, 0, 3, 3] = math.nan
    with pytest.raises(GancompressError, match="NaN or infinite"):
        gancompress.api.export(path, values="int8", calibration=broken)
    with pytest.raises(GancompressError, match="int8 needs calibration inputs"):
        upscaler(
            [],
        ).save(path, values="int8")


def test_inputs_that_are_no_calibration_are_refused_before_anything_is_pruned(tmp_path: Path) -> None:
    def refused(given: Any, reason: str) -> None:
        with pytest.raises(GancompressError, match=reason) as error:
            upscaler(given, values="int8")
        assert "\n" not in str(error.value)

    (tmp_path / "photos").mkdir()
    refused([], "int8 needs calibration inputs")
    refused(tmp_path / "photos", "holds no images")
    colour = torch.tensor([0.2, 0.5, 0.7])[None, :, None, None].expand(1, 3, 32, 40)
    refused([colour], "one and the same all over, which says nothing of ranges")
    refused([colour, colour[:, :, :20]], "says nothing of ranges")
    for number in (math.nan, math.inf, -math.inf):
        broken = photographs()
        broken[0][0, 0, 3, 3] = number
        refused(broken, "input 0 has NaN or infinite values")
    refused([x[:, :1] for x in photographs()], "input 0 is 1 x 1 x 32 x 40, the network takes")
    refused([x[0] for x in photographs()], "input 0 is 3 x 32 x 40")
    refused([(x * 255).to(torch.uint8) for x in photographs()], "is uint8, the network takes float32")


def test_what_cannot_be_calibrated_by_one_colour_can_be_by_two() -> None:
    colours = [torch.full((1, 3, 16, 16), value) for value in (0.2, 0.7)]
    assert upscaler(colours, values="int8").held_out == 1


def test_numbers_that_only_the_inside_of_a_network_makes_infinite(path: Path) -> None:
    class Overflows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(x) * 1e38)).tanh()

    torch.manual_seed(0)
    net = Overflows()
    nn.init.constant_(net.first.weight, 1.0)
    small = gancompress.compress(
        net, density=0.5, method="magnitude", example=(torch.rand(1, 4, 8, 8),),
        calibration=[torch.rand(1, 4, 8, 8)], progress=False,
    )  # fmt: skip
    path.write_bytes(b"what was there before")
    loud = dataclasses.replace(small, calibration=((torch.rand(1, 4, 8, 8) * 100,),))
    with pytest.raises(GancompressError, match="NaN or infinite"):
        loud.save(path, values="int8")
    assert path.read_bytes() == b"what was there before"


def test_int8_without_ranges_is_refused(path: Path) -> None:
    small = upscaler()
    with pytest.raises(GancompressError, match="int8 needs ranges, and this network was never calibrated"):
        save_network(small.network, small.masks, path, values="int8")
    assert not path.exists()


def test_a_pattern_that_no_layer_can_hold_is_refused() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 3))
    for pattern in ("2x4", "16x1"):
        with pytest.raises(GancompressError, match=f"no layer of this network can hold pattern {pattern}; its"):
            gancompress.compress(
                net, density=0.5, method="magnitude", pattern=pattern, example=(torch.rand(1, 3, 8, 8),),
                calibration=[torch.rand(1, 3, 8, 8)], progress=False,
            )  # fmt: skip


def test_a_machine_without_the_instructions_says_so_once_and_gives_the_same_numbers(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upscaler().save(path, values="int8")
    x = photographs()[0]
    wanted = opened(path)(x)
    native_library._warn.cache_clear()
    for instructions in ("baseline", "off"):
        monkeypatch.setenv("GANCOMPRESS_KERNELS", instructions)
        caplog.clear()
        for _ in range(2):
            assert torch.equal(opened(path)(x), wanted)
        (said,) = caplog.messages
        assert said.startswith("int8 runs without the instructions for it (kernels: ")
        assert said.endswith("the same numbers, slowly")


def test_a_network_without_a_layer_that_fits_is_refused(path: Path) -> None:
    torch.manual_seed(0)
    small = gancompress.compress(
        nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)), density=0.5, method="magnitude",
        example=(torch.rand(2, 8),), calibration=[torch.rand(3, 8) for _ in range(3)], progress=False,
    )  # fmt: skip
    with pytest.raises(GancompressError, match="no layer of this network fits int8: none is in a place"):
        small.save(path, values="int8")
    assert not path.exists()
    by_channel = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    with pytest.raises(GancompressError, match="fits int8: 0: its groups have 1 channels each"):
        gancompress.compress(
            by_channel, density=0.5, example=(torch.rand(1, 8, 9, 9),), values="int8", progress=False,
            calibration=[torch.rand(1, 8, 9, 9)],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.update(scale=-1.0), "positive"),
        (lambda one: one.update(zero=300), "byte of zero"),
        (lambda one: one.update(exponents=[1, 2]), "exponents"),
        (lambda one: one.pop("scale"), "scale"),
        (lambda one: one.update(scale=1), "scale"),
        (lambda one: one.update(scale=1e-45), "positive"),
        (lambda one: one.update(scale=1e300), "positive"),
        (lambda one: one.update(zero=True), "zero"),
        (lambda one: one.update(zero=-1), "byte of zero"),
        (lambda one: one.update(exponents=[99] * 16), "exponents are whole numbers up to 32"),
        (lambda one: one.update(exponents=7), "not a gancompress network"),
    ],
)
def test_forged_files_are_refused_in_a_line(path: Path, change: Any, reason: str, content: bytes) -> None:
    path.write_bytes(content)
    tensors, document = read_container(path, kind=KIND, format=FORMAT)
    change(document["int8"]["body.0.weight"])
    write_container(path, tensors, document, kind=KIND, format=FORMAT)
    with pytest.raises(GancompressError, match=reason) as error:
        load_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", ["float32", "int8"])
def test_networks_have_masks_in_units_too(path: Path, values: Any) -> None:
    small = upscaler(pattern="2x4")
    small.save(path, values=values)
    tensors, document = read_container(path, kind=KIND, format=FORMAT)
    assert document["format"] == 3
    masks = {name: code for name, code in tensors.items() if name.endswith(":mask")}
    assert sum(in_units(code) for code in masks.values()) >= 2
    loaded = load_network(path)
    assert loaded.masks.keys() == small.masks.keys()
    assert all(torch.equal(loaded.masks[name], mask) for name, mask in small.masks.items())
    for version in (1, 2):
        with pytest.raises(GancompressError, match=rf"format 3, this gancompress reads up to {version}; upgrade"):
            read_container(path, kind=KIND, format=version)


def test_networks_of_single_weights_stay_what_older_versions_read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_container(path, kind=KIND, format=2)[1]["format"] == 2
    upscaler().save(path)
    assert read_container(path, kind=KIND, format=1)[1]["format"] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors, table: tensors.pop("body.0.weight:scales"), "no scales"),
        (lambda tensors, table: tensors.update({"body.0.weight:scales": torch.zeros(16)}), "no scales"),
        (lambda tensors, table: tensors.update({"body.0.weight:scales": encode_values(torch.full((16,), math.nan))}),
         "scales are to be positive and finite"),
        (lambda tensors, table: tensors.update({"body.0.weight:scales": encode_values(torch.full((16,), -1.0))}),
         "scales are to be positive and finite"),
        (lambda tensors, table: tensors.update({"body.0.weight:scales": encode_values(torch.ones(15))}), "body.0"),
        (lambda tensors, table: table.update(groups=0), "no convolution's of 0 groups"),
        (lambda tensors, table: table.update(groups=3), "no convolution's of 3 groups"),
        (lambda tensors, table: table.update(groups="two"), "not a gancompress network"),
        (lambda tensors, table: table.update(shape=[16, 16, 3, 3000000]), "shape|run|large"),
        (lambda tensors, table: table.update(shape=[16, 16, 9]), "body.0|run"),
        (lambda tensors, table: table.update(kept=7), "mask keeps"),
        (lambda tensors, table: tensors.update({"body.0.weight:mask": torch.tensor([*b"U\5"], dtype=torch.uint8)}),
         r"body\.0\.weight: a mask has units of \[5, 0, 0, 0\], which do not fill \[16, 16, 3, 3\]"),
    ],
)  # fmt: skip
def test_forged_weights_are_refused_in_a_line(path: Path, change: Any, reason: str, content: bytes) -> None:
    path.write_bytes(content)
    tensors, document = read_container(path, kind=KIND, format=FORMAT)
    tensors = dict(tensors)
    change(tensors, document["tensors"]["body.0.weight"])
    write_container(path, tensors, document, kind=KIND, format=FORMAT)
    with pytest.raises(GancompressError, match=reason) as error:
        load_network(path)
    assert "\n" not in str(error.value)
