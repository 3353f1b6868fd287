"""What is done with a run from image to image that ended: sampled, exported, loaded, compressed, reported."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from task_toys import CYCLE, PAIRS

import gancompress
from gancompress.api.finished import export, sample
from gancompress.errors import ExportError, RunError
from gancompress.experiment.finished import open_run
from gancompress.runs.record import read_run
from gancompress.web.container import header_of

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("training.steps=4", "training.checkpoint_every=0", "evaluation.samples=24")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run of each task, its classifier trained for a few steps."""
    from gancompress.evaluation.classifier import ClassifierSettings

    root = tmp_path_factory.mktemp("image-runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANCOMPRESS_CACHE", str(root / "cache"))
        whole = ClassifierSettings.for_dataset

        def few(dataset: Any, task: str, seed: int = 0) -> ClassifierSettings:
            return dataclasses.replace(whole(dataset, task, seed), steps=2)

        patch.setattr(ClassifierSettings, "for_dataset", few)
        return {
            recipe["name"]: gancompress.run(copy.deepcopy(recipe), SHORT, out=root / "runs", progress=False).directory
            for recipe in (PAIRS, CYCLE)
        }


BOTH = pytest.mark.parametrize("name", ["pairs", "cycle"])


@BOTH
def test_a_file_gives_the_images_of_the_run_with_masks_from_scratch(
    runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    exported = export(runs[name], tmp_path / "g.safetensors")
    kept = sum(one.kept for one in exported.tensors.values() if one.kind == "convolution")
    every = sum(one.elements for one in exported.tensors.values() if one.kind == "convolution")
    assert kept / every == pytest.approx(0.4, abs=0.01)
    network = open_run(runs[name]).generator()
    x = 2 * torch.rand(3, 3, 32, 32) - 1
    with torch.no_grad():
        wanted = network(x)
    for mode in ("always", "never"):
        g: Any = gancompress.load(exported.file, sparse=mode)  # type: ignore[arg-type]
        torch.testing.assert_close(g(x), wanted, rtol=1e-3, atol=1e-4)
    assert "takes and makes 3x32x32, density 0.4" in repr(g)
    pixels = (127.5 * (x + 1)).round().to(torch.uint8)
    made = g(pixels[0], uint8=True)
    assert (made.shape, made.dtype) == ((3, 32, 32), torch.uint8)


def test_the_kernels_compute_reflected_borders_and_instance_norms(runs: dict[str, Path], tmp_path: Path) -> None:
    exported = export(runs["cycle"], tmp_path / "g.safetensors")
    g: Any = gancompress.load(exported.file, sparse="always")
    if "no native kernels" not in str(g.network.dense):
        assert g.network.dense == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (torch.zeros(2, 3, 16, 16), r"images are \(n, 3, 32, 32\), got \(2, 3, 16, 16\)"),
        (torch.zeros(0, 3, 32, 32), r"got \(0, 3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), r"images are float in \[-1, 1\] or uint8, got torch.int64"),
    ],
)
def test_other_images_are_one_line(runs: dict[str, Path], given: torch.Tensor, told: str, tmp_path: Path) -> None:
    g: Any = gancompress.load(export(runs["pairs"], tmp_path / "g.safetensors").file)
    with pytest.raises(ExportError, match=told):
        g(given)


@BOTH
def test_report_and_page_take_images(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    export(runs[name], tmp_path / "g.html", format="web")
    header = header_of((tmp_path / "g.gcw").read_bytes())
    assert (header["takes"], header["gives"], header["pixels"]) == ("image", "image", [-1.0, 1.0])
    assert len(header["examples"]) == 2
    for page in (tmp_path / "g.html", runs[name] / "report.html"):
        text = page.read_text(encoding="utf-8")
        assert 'type="file" accept="image/*"' in text
        assert "NetworkPlayer(root).start()" in text
        assert "is not in this page" not in text


def test_a_page_needs_no_data(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise RunError("no such folder")

    monkeypatch.setattr("gancompress.experiment.finished.build_dataset", gone)
    export(runs["pairs"], tmp_path / "g.html", format="web")
    assert header_of((tmp_path / "g.gcw").read_bytes())["examples"] == []


def test_calibration_is_for_networks_from_elsewhere(runs: dict[str, Path], tmp_path: Path) -> None:
    file = export(runs["pairs"], tmp_path / "g.safetensors").file
    with pytest.raises(ExportError, match="calibration is for networks from elsewhere"):
        export(file, tmp_path / "g.html", format="web", calibration=[torch.zeros(1, 3, 32, 32)])


def test_what_eats_images_fits_no_bytes(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"int8 is calibrated on latents, and this generator eats images"):
        export(runs["pairs"], tmp_path / "g.safetensors", values="int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@BOTH
def test_an_onnx_file_takes_images(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = export(runs[name], tmp_path / "g.onnx", format="onnx").file
    session = onnxruntime.InferenceSession(str(file))
    assert [one.name for one in session.get_inputs()] == ["input"]
    made = session.run(None, {"input": torch.zeros(3, 3, 32, 32).numpy()})[0]
    assert made.shape == (3, 3, 32, 32)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_samples_are_of_what_is_held_out_or_of_a_folder(runs: dict[str, Path], tmp_path: Path) -> None:
    grid = sample(runs["pairs"], tmp_path / "grid.png", count=3)
    # input, output and target of three pairs in a row, doubled: 2 pixels between
    assert size_of(grid) == (9 * (64 + 2) + 2, 64 + 4)
    folder = sample(runs["pairs"], tmp_path / "single", count=1000)
    assert len(list(folder.iterdir())) == 24  # no input twice
    own = sample(runs["cycle"], tmp_path / "own.png", count=2, inputs=folder)
    assert size_of(own) == (4 * (64 + 2) + 2, 64 + 4)


def test_every_network_is_in_cost_and_report(runs: dict[str, Path]) -> None:
    run = read_run(runs["cycle"])
    names = ("generator", "discriminator", "generator_back", "discriminator_back")
    assert run.networks == names
    assert set(run.cost["theory"]["inference"]) == set(names)
    assert set(run.cost["theory"]["training"]["parts_flops"]) >= set(names)
    assert [run.asked_density(name) for name in names] == [0.4, 0.6, 0.4, 0.6]
    page = (runs["cycle"] / "report.html").read_text()
    assert "From left to right: input, output, and the way back" in page
    assert "generator_back density" in page
    assert "Difference after the way back" in page
    assert "From left to right: input, output, target" in (runs["pairs"] / "report.html").read_text()


@BOTH
def test_a_run_is_compressed_with_all_its_networks(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    from gancompress.experiment.compress import open_source, plan_compression
    from gancompress.experiment.ready import get_ready, open_images

    source = open_source(runs[name])
    assert set(source.weights.known) == {"generator", "discriminator", *source.weights.beside}
    recipe = plan_compression(source, "magnitude", 0.1, 2, ("sparsity.method=magnitude",))
    ready = get_ready(recipe, open_images(recipe, evaluates=False))
    for network in ready.trainer.networks:
        state = source.weights.known[network]
        kept = ready.trainer.engine.state(network).masks
        for key, tensor in ready.trainer.network(network).state_dict().items():
            mask = kept.get(key)
            assert torch.equal(tensor, state[key] if mask is None else state[key] * mask), f"{network}.{key}"
        assert ready.trainer.engine.state(network).density == pytest.approx(0.1 if "gen" in network else 1, abs=0.01)


@pytest.mark.slow
def test_inputs_are_for_generators_that_eat_images(tmp_path: Path) -> None:
    outcome = gancompress.run("quickstart", out=tmp_path, smoke=True, progress=False, evaluate=False)
    with pytest.raises(RunError, match="makes images of latents: leave inputs out"):
        sample(outcome, tmp_path / "a.png", inputs=tmp_path)
