"""Networks from elsewhere on the command line: what is written, and what is said of everything that is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import gancompress
from gancompress.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Sequence

#: functions that make modules, good ones and bad ones
MAKERS = """
import torch
from torch import nn


class Upscaler(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width), nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2)
        )


def make():
    torch.manual_seed(0)
    return Upscaler()


ready = make()


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(4, 6), nn.Linear(6, 5)

    def forward(self, z, labels):
        return self.out(z * self.embed(labels))


def broken():
    module = make()
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = float("nan")
    return module


def huge():
    module = make()
    with torch.no_grad():
        module[0].weight.mul_(1e30)
        module[2].weight.mul_(1e30)
    return module


class Moody(Upscaler):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


class Jumpy(Upscaler):
    def forward(self, x):
        return super().forward(x) + torch.rand(())


def needs(argument):
    return argument


def nothing():
    return None


def fails():
    raise ValueError("no such file: config.yaml")


number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(MAKERS)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    folder, rng = here / "photos", np.random.default_rng(0)
    folder.mkdir()
    for index in range(4):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        coarse.resize((40 + index, 32), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def refused(arguments: Sequence[str], *words: str) -> str:
    """The command ends with 2, one line on standard error behind notes of what it did, and nothing written."""
    before = sorted(Path().rglob("*"))
    found = call(*arguments)
    assert found.exit_code == 2, found.output
    *notes, line = found.stderr.splitlines()
    assert all(re.match(r"opening |capturing |warning: |net.py:\w+ has the weights", note) for note in notes), notes
    for word in words:
        assert word in line, line
    after = [one for one in sorted(Path().rglob("*")) if "__pycache__" not in one.parts]
    assert after == before
    return line


COMPRESS = ("compress", "net.py:make", "--density", "0.4", "--example", "1x3x16x16", "--dynamic", "0=n,2=h,3=w")


def test_a_function_of_a_file_is_compressed_with_its_weights(photos: Path) -> None:
    torch.manual_seed(7)
    trained = {name: torch.randn_like(one) * 0.1 for name, one in plain().state_dict().items()}
    save_file(trained, "netG.safetensors")
    done = call(*COMPRESS, "--weights", "netG.safetensors", "--calibration", str(photos), "--values", "bf16")
    assert done.exit_code == 0, done.output
    file = Path("runs/net-d0.4/generator.safetensors")
    loaded = gancompress.load(file)
    assert loaded(torch.rand(2, 3, 9, 11)).shape == (2, 3, 18, 22)
    assert loaded.source["values"] == "bf16"
    for again in (file, file.parent):
        refused(["export", str(again)], f"{file}: is small already", "gancompress.load()")
    whole = loaded.network.state_dict()
    assert torch.equal(whole["1.weight"], trained["1.weight"])  # slopes are nobody's to prune: the file's, not make()'s
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("0 ", "2 "))] == ["0", "2"]  # a line per layer


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 12, 3, padding=1))


def test_a_module_a_class_and_several_inputs_are_taken_too() -> None:
    for name in ("ready", "Upscaler"):
        done = call("compress", f"net.py:{name}", "--density", "0.4", "--example", "1x3x16x16", "--out", name)
        assert done.exit_code == 0, done.output
    given = ("--example", "2x6", "--example", "2:int64", "--density", "0.5")
    done = call("compress", "net.py:Mixer", *given)
    assert done.exit_code == 0, done.output
    mixed = gancompress.load("runs/net-d0.5/generator.safetensors")(torch.rand(3, 6), torch.tensor([0, 3, 1]))
    assert mixed.shape == (3, 5)


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        ("net.py", ["name the function", "net.py:make"]),
        ("net.py:mak", ["net.py: defines no mak; did you mean 'make'"]),
        ("nowhere.py:make", ["nowhere.py: there is no such file"]),
        ("net.py:nothing", ["nothing() must give a torch.nn.Module, not a NoneType"]),
        ("net.py:number", ["number() raises TypeError", "called without arguments"]),
        ("net.py:needs", ["needs() raises TypeError"]),
        ("net.py:fails", ["fails() raises ValueError: no such file: config.yaml"]),
        ("net.py:broken", ["0.weight holds NaN or infinite values"]),
        ("net.py:huge", ["NaN or infinite outputs on its example"]),
        ("net.py:Moody", ["values of its inputs decide what it computes"]),
        ("net.py:Jumpy", ["two runs give two answers"]),
    ],
)
def test_what_makes_no_network_is_said(maker: str, words: list[str], photos: Path) -> None:
    refused(["compress", maker, *COMPRESS[2:], "--calibration", str(photos)], *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--example", "1x4x16x16", "--dynamic", "0=n"], ["does not run on an example of 1x4x16x16"]),
        (["--example", "1xcat"], ["--example '1xcat'", "such as 1x3x256x256"]),
        (["--example", "1x3x99999x99999"], ["larger than memory"]),
        ([], ["give --example"]),
        (["--example", "1x3x16x16", "--dynamic", "h,w"], ["--dynamic 'h,w'", "0=n,2=h,3=w"]),
        (["--example", "1x3x16x16", "--dynamic", "7=h"], ["1x3x16x16", "has no axis 7"]),
        (["--example", "1x3x16x16", "--dynamic", "0=n", "--dynamic", "0=n"], ["2 inputs", "the example has 1"]),
        (["--example", "1x3x16x16", "--example", "1"], ["does not run on an example of 1x3x16x16, 1"]),
        (["--example", "1x3x16x16", "--density", "1e-5"], ["density"]),
        (["--example", "1x3x16x16", "--density", "7"], ["density must be more than 0 and at most 1"]),
        (["--example", "1x3x16x16", "--method", "dst"], ["reconstruct or magnitude"]),
        (["--example", "1x3x16x16", "--steps", "5"], ["is pruned without recipe"]),
        (["--example", "1x3x16x16", "--rate", "16000"], ["--rate is for networks that make sound"]),
    ],
)
def test_what_is_asked_wrong_is_said(changes: list[str], words: list[str]) -> None:
    refused(["compress", "net.py:make", *changes], *words)


def test_weights_that_do_not_fit_are_named_on_both_sides() -> None:
    state = dict(plain().state_dict())
    save_file({**state, "0.weight": torch.zeros(4, 3, 3, 3)}, "narrow.safetensors")
    words = "does not fit the module: 0.weight is 4 x 3 x 3 x 3 in the file and 8 x 3 x 3 x 3 in the module"
    refused([*COMPRESS, "--weights", "narrow.safetensors"], "narrow.safetensors: " + words)
    save_file({f"module.{name}": one for name, one in state.items()}, "prefixed.safetensors")
    refused([*COMPRESS, "--weights", "prefixed.safetensors"], "the file lacks 0.weight, 0.bias, 1.weight, and 2 more; "
            "the module has no module.0.bias, module.0.weight, module.1.weight, and 2 more")  # fmt: skip
    refused([*COMPRESS, "--weights", "none.safetensors"], "none.safetensors: there is no such file")
    Path("text.safetensors").write_text("nothing of the kind")
    refused([*COMPRESS, "--weights", "text.safetensors"], "cannot be read as safetensors")
    Path("net.bin").write_bytes(b"\x80\x04")
    refused([*COMPRESS, "--weights", "net.bin"], "is never opened", "torch.load('net.bin'")


@pytest.mark.parametrize("name", ["netG.pth", "netG.pt", "netG.ckpt"])
@pytest.mark.parametrize("command", [("compress",), ("export",), ("bench", "infer")])
def test_pickles_are_never_opened_and_the_way_out_is_said(command: tuple[str, ...], name: str) -> None:
    Path(name).write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    line = refused([*command, name], f"{name}: is never opened", "save_file", "'netG.safetensors'")
    torch.save({"a": torch.ones(2)}, name)
    namespace: dict[str, Any] = {}
    exec(line.partition('python -c "')[2].removesuffix('"'), namespace)
    assert Path("netG.safetensors").is_file()


def test_other_files_are_no_networks() -> None:
    save_file({"a": torch.ones(2)}, "netG.safetensors")
    words = "gancompress compress my_net.py:make` with these weights"
    refused(["compress", "netG.safetensors"], "needs a recipe", words)
    refused(["export", "netG.safetensors"], "my_net.py:make")
    Path("readme.txt").write_text("hello")
    refused(["compress", "readme.txt"], "readme.txt", ".onnx")
    Path("text.onnx").write_text("hello")
    refused(["compress", "text.onnx"], "text.onnx: is not an ONNX file")
    refused(["compress", "none.onnx"], "none.onnx", "No such file")
    for option, *given in (("--example", "1x3x8x8"), ("--pixels", "-1", "1"), ("--values", "bf16"), ("--rate", "8000")):
        refused(["compress", "runs/none", option, *given], f"{option} is for a network from elsewhere")


def test_calibration_that_does_not_fit_is_said(photos: Path) -> None:
    def given(**tensors: torch.Tensor) -> list[str]:
        save_file(tensors, "inputs.safetensors")
        return [*COMPRESS, "--calibration", "inputs.safetensors"]

    refused(given(x=torch.rand(1, 4, 16, 16)), "is 1 x 4 x 16 x 16, the network takes n x 3 x h x w")
    refused(given(x=torch.rand(1, 3, 16, 16).double()), "is float64, the network takes float32")
    refused(given(x=torch.zeros(1, 3, 16, 16, dtype=torch.uint8)), "is uint8", "pixels of 0 to 255")
    refused(given(x=torch.rand(1, 3, 16, 16) * 255), "values up to 25", "black and white as 0 and 1", "--pixels 0 255")
    refused(given(x=torch.full((1, 3, 16, 16), torch.nan)), "NaN or infinite")
    refused([*COMPRESS, "--calibration", "nowhere"], "nowhere: give a photograph")
    Path("empty").mkdir()
    refused([*COMPRESS, "--calibration", "empty"], "empty: holds no images")
    (photos / "0.png").write_bytes(b"no picture")
    refused([*COMPRESS, "--calibration", str(photos)], "0.png")


def test_one_calibration_input_does_with_a_warning(photos: Path) -> None:
    done = call(*COMPRESS, "--calibration", str(photos / "1.png"))
    assert done.exit_code == 0, done.output
    assert "warning: net.py:make is fitted to one calibration input and measured on the same" in done.stderr


def test_onnx_with_an_unknown_operation_or_without_its_weights_is_refused() -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor_value_info
    sizes = ["n", 3, "h", "w"]
    node = onnx.helper.make_node("NonMaxSuppression", ["x", "x"], ["y"], name="node /boxes/nms")
    graph = onnx.helper.make_graph([node], "g", [tensor("x", 1, sizes)], [tensor("y", 7, [None, 3])])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), "nms.onnx")
    refused(["compress", "nms.onnx"], "nms.onnx", "NonMaxSuppression", "node /boxes/nms")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="/first", pads=[1, 1, 1, 1])
    weight = onnx.numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    graph = onnx.helper.make_graph([node], "g", [tensor("x", 1, sizes)], [tensor("y", 1, ["n", 8, "h", "w"])], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "split.onnx", save_as_external_data=True, size_threshold=0, location="split.data")
    Path("split.data").unlink()
    refused(["compress", "split.onnx"], "split.onnx", "split.data")


def test_figures_are_those_of_the_file_its_rounded_weights_included(photos: Path) -> None:
    done = call(*COMPRESS, "--calibration", str(photos), "--values", "bf16")
    assert done.exit_code == 0, done.output
    folder = Path("runs/net-d0.4")
    record = json.loads((folder / "compress.json").read_text())
    assert record["bytes"]["packed"] == (folder / "generator.safetensors").stat().st_size
    loaded, dense = gancompress.load(folder / "generator.safetensors"), plain_upscaler()
    held = torch.from_numpy(np.asarray(Image.open(photos / "3.png"), np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        error = (loaded(held).clamp(0, 1) - dense(held).clamp(0, 1)).double().square().mean()
    (agreement,) = record["agreement"]
    assert agreement["mean"] == pytest.approx(-10 * float(error.log10()), abs=1e-4)


def plain_upscaler() -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "net"}
    exec(MAKERS, namespace)
    made: nn.Module = namespace["make"]()
    return made


def test_networks_from_elsewhere_are_timed_by_a_command() -> None:
    done = call("bench", "infer", "net.py:make", "--input", "1x3x16x16", "--density", "0.3", "--rounds", "2")
    assert done.exit_code == 0, done.output
    assert "about speed, not quality" in done.stdout
    assert [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith(("torch", "sparse"))] == [
        "torch, dense", "sparse 0.3",
    ]  # fmt: skip
    refused(["bench", "infer", "net.py:make"], "example")
    refused(["bench", "infer", "net.py:make", "--input", "1x3x16"], "does not run")
    refused(["bench", "infer", "quickstart", "--input", "1x3x16x16"], "--input is for a network from elsewhere")
