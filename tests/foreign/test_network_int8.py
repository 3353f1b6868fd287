"""Networks from elsewhere in bytes: the file, how near it stays, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import gancompress
from gancompress.errors import GancompressError
from gancompress.export.container import read_container, write_container
from gancompress.export.network import FORMAT, KIND, LoadedNetwork, load_network

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
    with pytest.raises(GancompressError, match="one and the same number"):
        gancompress.api.export(path, values="int8", calibration=constant)
    broken = photographs()
    broken[0][0, 0, 3, 3] = math.nan
    with pytest.raises(GancompressError, match="NaN or infinite"):
        gancompress.api.export(path, values="int8", calibration=broken)
    with pytest.raises(GancompressError, match="int8 needs calibration inputs"):
        upscaler(
            [],
        ).save(path, values="int8")


def test_a_network_without_a_layer_that_fits_is_refused(path: Path) -> None:
    torch.manual_seed(0)
    small = gancompress.compress(
        nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)), density=0.5, method="magnitude",
        example=(torch.rand(2, 8),), calibration=[torch.rand(3, 8) for _ in range(3)], progress=False,
    )  # fmt: skip
    with pytest.raises(GancompressError, match="no layer of this network fits int8"):
        small.save(path, values="int8")
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.update(scale=-1.0), "positive"),
        (lambda one: one.update(zero=300), "byte of zero"),
        (lambda one: one.update(exponents=[1, 2]), "exponents"),
        (lambda one: one.pop("scale"), "scale"),
    ],
)
def test_forged_files_are_refused_in_a_line(path: Path, change: Any, reason: str) -> None:
    upscaler().save(path, values="int8")
    tensors, document = read_container(path, kind=KIND, format=FORMAT)
    change(document["int8"]["body.0.weight"])
    write_container(path, tensors, document, kind=KIND, format=FORMAT)
    with pytest.raises(GancompressError, match=reason) as error:
        load_network(path)
    assert "\n" not in str(error.value)
