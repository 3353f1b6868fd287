"""Networks from elsewhere: opened, compressed, kept in a file, and used where nothing knows them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune
from typer.testing import CliRunner

import gancompress
from gancompress import GancompressError
from gancompress.api.network_player import network_player
from gancompress.cli.main import app
from gancompress.errors import DataError, ExportError, RecipeError
from gancompress.export.network import LoadedNetwork
from gancompress.foreign.agreement import log_spectral_distance, measured, psnr, snr
from gancompress.foreign.network import capture_module
from gancompress.web.container import header_of

if TYPE_CHECKING:
    from pathlib import Path


class Upscaler(nn.Module):
    """What many are: convolutions with slopes, pixel shuffle, the picture added."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.PReLU(12), nn.Conv2d(12, 12, 3, padding=1), nn.LeakyReLU(0.1, True),
            nn.Conv2d(12, 12, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.body(x), 2) + nn.functional.interpolate(x, scale_factor=2)


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    torch.manual_seed(0)
    return Upscaler().eval()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of different sizes, smooth as photographs are."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for index in range(6):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        coarse.resize((60 + index, 52), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def onnx_file(upscaler: Upscaler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    file = tmp_path_factory.mktemp("onnx") / "upscaler.onnx"
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    example = (torch.rand(2, 3, 8, 10),)
    torch.onnx.export(upscaler, example, str(file), dynamic_shapes=(sizes,), dynamo=True, verbose=False)
    return file


@pytest.fixture(scope="module")
def made(upscaler: Upscaler, photographs: Path) -> Any:
    return small(upscaler, photographs)


def small(upscaler: Upscaler, photographs: Path, density: float = 0.4, **more: Any) -> Any:
    return gancompress.compress(
        upscaler, density, example=torch.rand(1, 3, 8, 10), dynamic={0: "n", 2: "h", 3: "w"}, calibration=photographs,
        progress=False, **more,
    )  # fmt: skip


def test_a_module_is_pruned_from_photographs_and_loaded_where_nothing_knows_it(
    upscaler: Upscaler, made: Any, photographs: Path, tmp_path: Path
) -> None:
    total = 3 * 12 * 9 + 2 * 12 * 12 * 9
    assert sum(layer.kept for layer in made.layers) == round(0.4 * total)
    assert made.density == pytest.approx(0.4, abs=1e-3)
    (agreement,) = made.agreement
    assert (agreement.name, agreement.unit, len(agreement.values), made.held_out) == ("PSNR to dense", "dB", 1, 1)
    before = {name: tensor.clone() for name, tensor in upscaler.state_dict().items()}
    worse = small(upscaler, photographs, method="magnitude")
    assert all(torch.equal(tensor, before[name]) for name, tensor in upscaler.state_dict().items())
    assert agreement.mean > worse.agreement[0].mean + 3
    assert "PSNR to dense" in repr(made)
    file = made.save(tmp_path / "small.safetensors")
    for shape in ((1, 3, 20, 30), (2, 3, 33, 17)):  # sizes that it has never seen
        x = torch.rand(shape)
        found = gancompress.load(file)(x)
        assert torch.equal(found, made(x))
        with torch.no_grad():
            assert float((found - upscaler(x)).abs().max()) < 1.0
    x = torch.rand(1, 3, 9, 11)
    save_file({"x": x, "y": made(x)}, tmp_path / "pair.safetensors")
    code = (
        "import sys, torch, gancompress; from safetensors.torch import load_file; pair = load_file(sys.argv[2]); "
        "assert torch.equal(gancompress.load(sys.argv[1])(pair['x']), pair['y'])"
    )
    subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "pair.safetensors")], check=True)


def test_rounded_weights_halve_the_file(made: Any, tmp_path: Path) -> None:
    exact = made.save(tmp_path / "exact.safetensors")
    rounded = made.save(tmp_path / "rounded.safetensors", values="bf16")
    assert rounded.stat().st_size < exact.stat().st_size < made.dense_bytes
    x = torch.rand(1, 3, 9, 11)
    difference = (gancompress.load(rounded)(x) - gancompress.load(exact)(x)).abs().max()
    assert 0 < float(difference) < 0.05
    with pytest.raises(ExportError, match="use float32, bf16, e8m4"):
        made.save(tmp_path / "other.safetensors", values="int3")


def test_an_onnx_file_is_compressed_by_a_command(onnx_file: Path, photographs: Path, tmp_path: Path) -> None:
    given = ["--density", "0.4", "--calibration", str(photographs), "--out", str(tmp_path), "--distill", "2 steps"]
    done = CliRunner().invoke(app, ["compress", str(onnx_file), *given])
    assert done.exit_code == 0, done.output
    assert "distilled in 2 steps" in done.output
    assert "PSNR to dense" in done.output
    (file,) = tmp_path.rglob("*.safetensors")
    assert f"written: {file}" in done.output
    record = json.loads((file.parent / "compress.json").read_text())
    assert record["kept"] == round(0.4 * record["weights"])
    assert record["bytes"]["packed"] == file.stat().st_size
    assert {"torch, dense", "sparse"} <= set(record["times"])
    assert all(one["error"] is not None for one in record["layers"])
    page = file.parent / "report.html"
    text = page.read_text()
    assert text.count("data:image/png") == 4  # one of six is held out: input, dense, compressed, difference
    assert [part.split('"')[0] for part in text.split('data-name="')[1:]] == ["dense", "compressed"]
    assert "'wasm-unsafe-eval'" in text.replace("&#39;", "'")
    assert f"report: {page}" in done.output
    assert gancompress.load(file)(torch.rand(1, 3, 9, 11)).shape == (1, 3, 18, 22)


def test_a_network_becomes_a_page_that_holds_it(onnx_file: Path, photographs: Path, tmp_path: Path) -> None:
    given = ["--density", "0.4", "--method", "magnitude", "--out", str(tmp_path), "--no-player", "--pixels", "0", "255"]
    done = CliRunner().invoke(app, ["compress", str(onnx_file), *given])
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.rglob("*.safetensors")
    assert "<script" not in (file.parent / "report.html").read_text()
    for more, examples in (["--calibration", str(photographs)], 2), (["--values", "float32", "--pixels", "-1", "1"], 0):
        done = CliRunner().invoke(app, ["export", str(file.parent), "--format", "web", *more])
        assert done.exit_code == 0, done.output
        header = header_of(file.with_suffix(".gcw").read_bytes())
        assert header["pixels"] == ([-1, 1] if "--pixels" in more else [0, 255])
        assert len(header["examples"]) == examples
        assert ("bf16" in {one["as"] for one in header["tensors"]}) == ("float32" not in more)
    assert "largest side" in file.with_suffix(".html").read_text()
    done = CliRunner().invoke(app, ["export", str(file), "--format", "web", "--values", "int8"])
    assert done.exit_code == 2
    assert "a page holds what the file holds" in done.output


def test_why_a_network_is_not_in_its_report_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = capture_module(nn.Sequential(nn.Conv2d(3, 7, 3)), (torch.rand(1, 3, 16, 16),))
    part = network_player(network, LoadedNetwork(network, {}, {}, 0), [], (0.0, 1.0), None)
    assert part.content == ""
    assert part.missing.startswith("The network is not in this page: pages show images and play sound of one channel")


def test_a_dense_network_that_is_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gancompress.api.network_player.MOST_BEFORE", 1000)
    torch.manual_seed(0)
    network = capture_module(nn.Sequential(nn.Conv2d(3, 3, 3)), (torch.rand(1, 3, 16, 16),))
    part = network_player(network, LoadedNetwork(network, {}, {}, 0), [], (0.0, 1.0), None)
    assert part.content.count("data-name=") == 1
    assert part.missing.startswith("The dense network is not beside it: it has ")


def test_units_are_kept_whole(upscaler: Upscaler, photographs: Path) -> None:
    made = small(upscaler, photographs, pattern="4x1")
    mask = made.masks["body.2.weight"].reshape(3, 4, 12, 3, 3)
    assert torch.equal(mask.any(1), mask.all(1))
    with pytest.raises(RecipeError, match="pattern"):
        small(upscaler, photographs, pattern="4 by 1")


def test_sound_is_measured_as_sound() -> None:
    torch.manual_seed(0)
    vocoder = nn.Sequential(
        nn.Conv1d(8, 8, 3, padding=2, dilation=2), nn.LeakyReLU(0.1), nn.ConvTranspose1d(8, 4, 8, stride=4, padding=2),
        nn.Conv1d(4, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip
    inputs = [torch.randn(1, 8, 40 + index) for index in range(4)]
    made = gancompress.compress(
        vocoder, 0.5, example=(inputs[0],), dynamic={2: "t"}, calibration=inputs, progress=False
    )
    assert [one.name for one in made.agreement] == ["SNR to dense", "log-spectral distance to dense"]


def test_measures_have_known_answers() -> None:
    zeros, tenth = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)
    assert psnr(zeros, tenth) == pytest.approx(20)
    assert psnr(zeros, tenth * 10, (-1, 1)) == pytest.approx(20 * np.log10(2))
    assert psnr(torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 7.0)) == float("inf")  # both white
    wave = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    assert snr(wave, wave * 0.9) == pytest.approx(20)
    assert log_spectral_distance(wave, wave * 0.5) == pytest.approx(20 * np.log10(2), rel=1e-3)
    assert log_spectral_distance(wave, wave) == 0
    # what is to change little: of images all of it, of sound quiet parts beside loud ones
    assert measured(tenth) is tenth
    assert measured(wave[..., :500]).shape == (1, 1, 500)  # too short for a spectrum
    power = [float(measured(one).square().sum()) for one in (wave, wave / 100)]
    assert power[0] / power[1] == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"density": 0.0}, RecipeError, "density must be more than 0"),
        ({"method": "dst"}, RecipeError, "pruned by reconstruct or magnitude"),
        ({"calibration": None, "method": "reconstruct"}, RecipeError, "needs calibration inputs"),
        ({"calibration": []}, RecipeError, None),
        ({"calibration": [torch.rand(1, 4, 8, 8)]}, DataError, "is 1 x 4 x 8 x 8, the network takes n x 3 x h x w"),
        ({"calibration": [torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]}, DataError, "pixels of 0 to 255"),
        ({"calibration": [torch.full((1, 3, 8, 8), float("nan"))]}, DataError, "NaN or infinite"),
        ({"calibration": [(torch.rand(1, 3, 8, 8),) * 2]}, DataError, "is 2 tensors, the network takes 1"),
        ({"calibration": "nowhere"}, DataError, "a folder of photographs"),
        ({"example": None}, RecipeError, "needs example"),
        ({"example": torch.rand(1, 4, 8, 8)}, ExportError, "does not run on an example of 1x4x8x8"),
        ({"density": 1e-4}, GancompressError, None),
        ({"recipe": "quickstart"}, RecipeError, "recipe is for runs"),
    ],
)
def test_what_is_given_wrong_is_said_in_one_line(
    upscaler: Upscaler, made: Any, changes: dict[str, Any], error: type[Exception], words: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if "example" not in changes:  # what is wrong beside a network says so of one that was captured before
        monkeypatch.setattr("gancompress.foreign.network.capture_module", lambda *_: made.network)
    if words is None and "calibration" in changes:
        changes, words = {**changes, "method": "reconstruct"}, "needs calibration inputs"
    given = {
        "density": 0.4, "example": torch.rand(1, 3, 8, 8), "dynamic": {0: "n", 2: "h", 3: "w"},
        "calibration": [torch.rand(1, 3, 12, 12)], "progress": False, **changes,
    }  # fmt: skip
    with pytest.raises(error, match=words) as caught:
        gancompress.compress(upscaler, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"density": 1.5}, {"method": "dst"}, {"method": "reconstruct"}, {"pattern": "4 by 1"}], ids=str
)
def test_what_fits_no_network_is_said_before_one_is_captured(
    upscaler: Upscaler, onnx_file: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("capture_module", "open_onnx"):
        monkeypatch.setattr(f"gancompress.foreign.network.{place}", lambda *_: pytest.fail("captured"))
    with pytest.raises(RecipeError, match=r"Upscaler: "):
        gancompress.compress(upscaler, example=torch.rand(1, 3, 8, 8), progress=False, **changes)
    flags = [text for key, value in {"density": 0.5, **changes}.items() for text in (f"--{key}", str(value))]
    done = CliRunner().invoke(app, ["compress", str(onnx_file), *flags])
    assert done.exit_code == 2, done.output
    assert "upscaler.onnx: " in done.output


def test_networks_that_are_broken_are_refused(upscaler: Upscaler) -> None:
    x = torch.rand(1, 3, 8, 8)
    broken = Upscaler()
    broken.load_state_dict(upscaler.state_dict())
    with torch.no_grad():
        broken.body[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExportError, match="NaN"):
        gancompress.compress(broken, 0.5, example=x, calibration=[x], progress=False)
    with pytest.raises(ExportError, match="two runs give two answers"):
        gancompress.compress(Noisy(), 0.5, example=x, calibration=[x], progress=False)
    with pytest.raises(ExportError, match="nothing to prune"):
        gancompress.compress(nn.PReLU(3), 0.5, example=x, calibration=[x], progress=False)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_file_that_was_changed_is_refused(made: Any, tmp_path: Path) -> None:
    file = made.save(tmp_path / "small.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ExportError, match="altered"):
        gancompress.load(file)
    with pytest.raises(ExportError, match=r"it takes input_0 n x 3 x h x w, not 1 x 4 x 8 x 8"):
        gancompress.load(made.save(tmp_path / "again.safetensors"))(torch.rand(1, 4, 8, 8))


def test_a_graph_is_the_network_whatever_it_is(upscaler: Upscaler) -> None:
    """Two inputs and two outputs, a buffer, weights used twice."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(6, 6)
            self.register_buffer("noise", torch.randn(6))

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            once = self.shared(a) + self.noise
            return self.shared(once.relu()), once * b

    odd, inputs = Odd(), (torch.randn(3, 6), torch.randn(3, 6))
    network = capture_module(odd, inputs)
    for found, wanted in zip(network(*inputs), odd(*inputs), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)
    made = gancompress.compress(odd, 0.5, example=inputs, calibration=[inputs] * 5, progress=False)
    assert len(made.masks) == 1
    assert json.dumps([one.name for one in made.layers]) == '["shared.weight"]'


def test_weights_that_are_computed_are_written_out() -> None:
    layers = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(5)]
    nn.utils.spectral_norm(layers[0])
    nn.utils.parametrizations.spectral_norm(layers[1])
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layers[2])
    nn.utils.parametrizations.weight_norm(layers[3])
    prune.random_unstructured(layers[4], "weight", 0.5)
    module, x = nn.Sequential(*layers).eval(), torch.rand(2, 3, 6, 6)
    network = capture_module(module, (x,))
    with torch.no_grad():
        assert torch.allclose(network(x), module(x), atol=1e-6)
    assert sorted(network.state_dict()) == sorted(f"{i}.{leaf}" for i in range(5) for leaf in ("weight", "bias"))
