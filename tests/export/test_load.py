"""A file becomes a function that makes images, and the command line writes such files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from export_toys import CLASSES, images, make, mask
from torch import nn
from typer.testing import CliRunner

import gancompress
from gancompress.backbones.base import Generator
from gancompress.cli.main import app
from gancompress.data.base import ImageSpec
from gancompress.data.transform import to_uint8
from gancompress.errors import ExportError
from gancompress.experiment.finished import open_run
from gancompress.export.packed import export_packed, export_run, load_packed
from gancompress.export.plain import plain_copy
from gancompress.storage import checkpoint
from gancompress.units import size

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {"name": "dcgan", "channels": 8, "latent_dim": 6}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    found = {}
    for conditional in (False, True):
        model = {**MODEL, "conditional": conditional}
        generator = make(**{**model, "image": ImageSpec(3, 16, CLASSES)})
        found[conditional] = tmp_path_factory.mktemp("packed") / "generator.safetensors"
        export_packed(generator, found[conditional], model=model, masks=mask(generator))
    return found


@pytest.fixture(params=[False, True], ids=["unconditional", "conditional"])
def file(request: pytest.FixtureRequest, files: dict[bool, Path]) -> Path:
    return files[request.param]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-5)


def test_images_are_a_function_of_the_seed_and_their_index(file: Path) -> None:
    g = gancompress.load(file)
    made = g(n=70, seed=3)
    assert made.shape == (70, 3, 16, 16)
    assert made.dtype is torch.float32
    assert float(made.abs().max()) <= 1
    assert torch.equal(made, g(n=70, seed=3))
    assert torch.equal(made, gancompress.load(file)(n=70, seed=3))
    for n in (1, 2, 16, 17, 65):
        assert close(g(n, seed=3), made[:n])
    assert not close(made[:5], g(5, seed=4))
    assert g().shape[0] == 16


def test_the_global_random_state_is_left_alone(file: Path) -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    gancompress.load(file)(n=2)
    assert torch.equal(torch.rand(3), want)


def test_uint8(file: Path) -> None:
    g = gancompress.load(file)
    assert torch.equal(g(5, uint8=True), to_uint8(g(5)))


def test_the_compiled_network_is_the_packed_one(file: Path) -> None:
    g = gancompress.load(str(file), sparse="always")
    assert close(images(g.network, 20), images(g.packed.generator(), 20))


def test_classes(files: dict[bool, Path]) -> None:
    g = gancompress.load(files[True])
    turns = g(7, seed=1)
    assert close(g(7, seed=1, classes=[0, 1, 2, 0, 1, 2, 0]), turns)
    assert close(g(seed=1, classes=["ant", "bee", 2]), turns[:3])
    bees = g(7, seed=1, classes=1)
    assert close(bees[[1, 4]], turns[[1, 4]])
    assert not close(bees[:1], turns[:1])
    assert close(bees, g(7, seed=1, classes="bee"))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"classes": 3}, "no class 3; there are 0 to 2"),
        ({"classes": -1}, "no class -1"),
        ({"classes": "bea"}, "did you mean 'bee'"),
        ({"classes": [1.5]}, "a class is a number or a name, got 1.5"),
        ({"classes": [None]}, "a class is a number or a name, got None"),
        ({"n": 3, "classes": [1, 2]}, "2 classes for 3 images"),
        ({"n": 0}, "at least 1"),
        ({"n": 1.5}, "at least 1"),
        ({"classes": []}, "at least 1"),
    ],
)
def test_wrong_arguments(files: dict[bool, Path], arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ExportError, match=match):
        gancompress.load(files[True])(**arguments)


def test_an_unconditional_generator_takes_no_classes(files: dict[bool, Path]) -> None:
    with pytest.raises(ExportError, match="unconditional"):
        gancompress.load(files[False])(classes=0)


def test_it_prints_what_it_is(files: dict[bool, Path]) -> None:
    text = repr(gancompress.load(files[True], sparse="never"))
    assert text.startswith("<dcgan generator from generator.safetensors: 3x16x16, 3 classes, density 0.2")
    assert "0 of 3 layers sparse" in text
    assert "images = g(n=64, seed=0, classes=None)" in text


def test_it_shows_its_layers_as_a_table_and_in_a_notebook(files: dict[bool, Path]) -> None:
    from rich.console import Console

    generator = gancompress.load(files[True], sparse="never")
    out = io.StringIO()
    Console(width=200, file=out).print(generator)
    drawn, page = out.getvalue(), generator._repr_html_()
    for shown in (drawn, page):
        assert "dcgan generator from generator.safetensors: 3x16x16" in shown
        for layer in generator.network.layers:
            assert layer.name in shown
            assert f"{layer.density:.4g}" in shown
    assert page.count("<tr>") == 1 + len(generator.network.layers) == 4
    assert "<dcgan" not in page  # read as text, not as an element


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(ExportError, match=r"x\.safetensors: "):
        gancompress.load(tmp_path / "x.safetensors")


def test_what_is_no_file_is_answered_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"outcome\.export\(\)` returns, not a int"):
        gancompress.load(5)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="is a directory: write the file first: gancompress export "):
        gancompress.load(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "generator.safetensors").write_bytes(b"no")
    with pytest.raises(ExportError, match=r"is a directory: give .*export/generator\.safetensors"):
        gancompress.load(tmp_path)


def test_naming_it_imports_no_torch() -> None:
    code = "import sys, gancompress; assert 'load' in dir(gancompress); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------ runs

RECIPE = """\
name: tiny
data: {name: shapes, images: 64, resolution: 16, classes: 3}
model: {name: dcgan, channels: 8, latent_dim: 8, conditional: true}
sparsity: {method: static, density: 0.25}
training: {steps: 3, batch_size: 8}
"""


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    (root / "tiny.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        result = call("run", "tiny.yaml")
    assert result.exit_code == 0, result.output
    (found,) = (path.parent for path in root.glob("runs/*/recipe.yaml"))
    return found


def test_a_run_becomes_a_file(run: Path, tmp_path: Path) -> None:
    result = call("export", str(run))
    assert result.exit_code == 0, result.output
    path = run / "export" / "generator.safetensors"
    assert f"{size(path.stat().st_size)} packed" in result.output
    packed = load_packed(path)
    opened = open_run(run)
    want = plain_copy(opened.generator()).state_dict()
    assert all(torch.equal(packed.state[name], tensor) for name, tensor in want.items())
    assert packed.density == pytest.approx(0.25, abs=0.001)
    assert packed.source == {**packed.source, "run": run.name, "step": 3, "weights": "ema", "values": "float32"}
    half = tmp_path / "half.safetensors"
    assert call("export", str(run), "--values", "bf16", "--out", str(half), "--step", "3").exit_code == 0
    assert half.stat().st_size < path.stat().st_size


def test_an_export_reads_each_file_of_the_checkpoint_that_it_needs_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = checkpoint._read_bytes
    monkeypatch.setattr(checkpoint, "_read_bytes", lambda file: (read.append(file.name), real(file))[1])
    export_run(open_run(run), tmp_path / "generator.safetensors")
    assert sorted(name for name in read if name.endswith(".safetensors")) == ["ema.safetensors", "sparsity.safetensors"]


def test_loading_makes_the_images_that_the_run_samples(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    call("export", str(run), "--out", str(path))
    call("sample", str(run), "--out", str(tmp_path / "images"), "--count", "3", "--seed", "7")
    from PIL import Image

    made = gancompress.load(path)(3, seed=7, uint8=True)
    for index, picture in enumerate(sorted((tmp_path / "images").glob("*.png"))):
        wanted = torch.tensor(list(Image.open(picture).tobytes()), dtype=torch.int16).reshape(16, 16, 3)
        assert int((made[index].permute(1, 2, 0).short() - wanted).abs().max()) <= 1
    assert index == 2


def test_mistakes_on_the_command_line(run: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["--step", "99"], "no checkpoint of step 99"),
        (["--format", "onnx", "--values", "bf16"], "values bf16 are for the format packed"),
        (["--format", "tar"], "tar"),
    ):
        result = call("export", str(run), *arguments)
        assert result.exit_code != 0
        assert words in result.output
        assert "Traceback" not in result.output
    assert call("export", str(tmp_path)).exit_code == 2


def test_onnx_needs_its_packages(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = call("export", str(run), "--format", "onnx")
    assert result.exit_code == 2
    assert "pip install 'gancompress[onnx]'" in result.output


def test_onnx_gives_the_same_images(run: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    path = tmp_path / "g.onnx"
    result = call("export", str(run), "--format", "onnx", "--out", str(path))
    assert result.exit_code == 0, result.output
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    z, labels = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
    (made,) = session.run(None, {"z": z.numpy(), "labels": labels.numpy()})
    with torch.no_grad():
        want = open_run(run).generator()(z, labels)
    torch.testing.assert_close(torch.from_numpy(made), want, rtol=0, atol=1e-4)
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told["latents"] == {"law": "normal", "mean": 0, "deviation": 1, "size": 8}
    assert (told["range"], told["channels"]) == ([-1, 1], "RGB")
    assert told["classes"] == list(open_run(run).generator().image.classes)


class PixelNormed(Generator):
    """A linear map to pixels, each divided by its length, as in progressive growing and StyleGAN."""

    latent_dim, num_classes, image = 4, 0, ImageSpec(4, 2)

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Linear(4, 16, bias=False)

    def output_layer(self) -> nn.Module:
        return self.input

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        h = self.input(z).reshape(-1, 4, 2, 2)
        return h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-8)


def test_onnx_keeps_the_small_number_that_divides_zeros(tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    import onnxruntime

    from gancompress.export.onnx import export_onnx

    export_onnx(PixelNormed().eval(), tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession((tmp_path / "g.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"z": torch.zeros(1, 4).numpy()})
    assert made.tolist() == torch.zeros(1, 4, 2, 2).tolist()
