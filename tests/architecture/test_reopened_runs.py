"""What a network is stands in the checkpoint: narrow, compressed and plugin runs are exported and compressed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from architecture_toys import Plug

import gancompress
from gancompress import api
from gancompress.architecture.description import Architecture, shapes_of
from gancompress.components.registry import BACKBONES
from gancompress.errors import ComponentError, ExportError, RecipeError
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.compress import compress, open_source, plan_compression
from gancompress.experiment.finished import open_run
from gancompress.experiment.networks import build_architecture, build_networks
from gancompress.experiment.run import Experiment
from gancompress.export.container import read_container, write_container
from gancompress.export.packed import FORMAT, KIND, export_run, load_packed
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import Snapshot, checkpoints, load, save

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8},
    "training": {"steps": 4, "batch_size": 4, "log_every": 2},
    "evaluation": {"samples": 20, "batch_size": 20, "metrics": ["fd"]},
}
NARROW = {**TINY, "sparsity": {"method": "narrow", "density": 0.2}}
PLUGIN = {**TINY, "model": {"name": "plug", "width": 4}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "comparison-cache"))


def run(content: dict[str, Any], root: Path) -> Path:
    return Experiment(parse_recipe(content).recipe, root, evaluates=False).run().path


def images(generator: Any) -> torch.Tensor:
    z = torch.randn(3, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3) if generator.num_classes else None
    with torch.no_grad():
        made: torch.Tensor = generator(z, labels)
    return made


def export_and_load(directory: Path, tmp_path: Path) -> tuple[torch.Tensor, Any]:
    """Export a run; return the images of its generator, and the loaded file."""
    opened = open_run(directory)
    export_run(opened, tmp_path / "g.safetensors")
    return images(opened.generator()), gancompress.load(tmp_path / "g.safetensors", sparse="always")


def compressed(directory: Path, tmp_path: Path) -> Path:
    source = open_source(directory)
    recipe = plan_compression(source, "magnitude", 0.3, 2, ("sparsity.weights=all", "smoke=true"))
    found = compress(recipe, source, tmp_path / "compressed")
    assert found.after["density"] == pytest.approx(0.3, abs=0.02)
    return found.directory


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(NARROW, tmp_path_factory.mktemp("runs"))


def test_a_narrow_run_is_exported_loaded_and_compressed(narrow: Path, tmp_path: Path) -> None:
    want, loaded = export_and_load(narrow, tmp_path)
    torch.testing.assert_close(images(loaded.network), want, rtol=0, atol=1e-5)
    channels = loaded.packed.model["channels"]
    assert 1 < channels < 8
    directory = compressed(narrow, tmp_path)
    assert open_run(directory).recipe.model.model_dump()["channels"] == channels
    want, loaded = export_and_load(directory, tmp_path)
    torch.testing.assert_close(images(loaded.network), want, rtol=0, atol=1e-5)
    again = plan_compression(open_source(directory), "magnitude", 0.2, 2, ("sparsity.weights=all",))
    assert again.training.init_from is not None


def test_a_plugins_file_loads_where_nobody_knows_the_plugin(tmp_path: Path) -> None:
    with BACKBONES.registered("plug", Plug):
        directory = compressed(run(PLUGIN, tmp_path / "runs"), tmp_path)
        opened = open_run(directory)
        export_run(opened, tmp_path / "g.safetensors")
        want = images(opened.generator())
    with pytest.raises(RecipeError, match=r"unknown backbone 'plug'"):
        open_run(directory)
    loaded = gancompress.load(tmp_path / "g.safetensors", sparse="always")
    torch.testing.assert_close(images(loaded.network), want, rtol=0, atol=1e-5)
    torch.testing.assert_close(images(loaded.packed.generator()), want, rtol=0, atol=1e-5)
    runs = {layer.name: layer.runs for layer in loaded.network.layers}
    assert runs == {"first": "dense", "body.3": "sparse", "up": "sparse"}
    assert loaded.packed.density == pytest.approx(0.3, abs=0.02)
    assert loaded(2, classes=[0, 1]).shape == (2, 3, 16, 16)


def test_a_file_without_a_graph_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: Any) -> Any:
        raise ExportError("its forward draws noise")

    monkeypatch.setattr("gancompress.export.packed.capture_generator", fails)
    with BACKBONES.registered("plug", Plug):
        made = api.export(run(PLUGIN, tmp_path / "runs"), tmp_path / "g.safetensors")
        assert made.needs == "(this program) (no graph could be stored: its forward draws noise)"
        assert gancompress.load(made.file)(2, classes=[0, 1]).shape == (2, 3, 16, 16)
    with pytest.raises(ComponentError) as caught:
        gancompress.load(made.file)
    assert str(caught.value).startswith(f"{made.file}: unknown backbone 'plug'")
    assert str(caught.value).endswith(
        "; it came from (this program): register it first (--plugin FILE, or import the file)"
        " (the file has no graph of it: its forward draws noise)"
    )


def test_a_forged_graph_in_a_file_is_one_line(tmp_path: Path) -> None:
    with BACKBONES.registered("plug", Plug):
        export_run(open_run(run(PLUGIN, tmp_path / "runs")), tmp_path / "g.safetensors")
    stored, document = read_container(tmp_path / "g.safetensors", kind=KIND, format=FORMAT)
    sound = json.dumps(document)

    def forged(change: Any) -> str:
        changed = json.loads(sound)
        change(changed["captured"]["graph"]["nodes"])
        write_container(tmp_path / "forged.safetensors", stored, changed, kind=KIND, format=FORMAT)
        with pytest.raises(ExportError) as caught:
            load_packed(tmp_path / "forged.safetensors")
        return str(caught.value)

    def ask_for_another_operation(nodes: Any) -> None:
        nodes[0][1] = "aten.from_file.default"

    def ask_before_it_is_there(nodes: Any) -> None:
        nodes.insert(0, nodes.pop())

    assert "asks for 'aten.from_file.default', which is not one of its operations" in forged(ask_for_another_operation)
    assert "before it is there" in forged(ask_before_it_is_there)
    assert "does not compute its result" in forged(lambda nodes: nodes.pop())


def test_every_checkpoint_describes_both_networks(narrow: Path) -> None:
    snapshot = load(checkpoints(narrow / "checkpoints")[-1])
    found = Architecture.from_json(snapshot.scalars["architecture"])
    assert (found.backbone, found.builtin, found.narrowed) == ("dcgan", True, False)
    assert found.origin == f"gancompress {gancompress.__version__}"
    for role in ("generator", "discriminator"):
        assert found.shapes[role] == {name: tuple(t.shape) for name, t in snapshot.groups[role].items()}
    cost = json.loads((narrow / "cost.json").read_text())
    assert cost["widths"] == found.widths
    assert found.config["channels"] == found.widths["generator"]["chosen"]


def test_a_run_from_before_opens_through_its_recipe(narrow: Path) -> None:
    path = checkpoints(narrow / "checkpoints")[-1]
    snapshot, want = load(path), images(open_run(narrow).generator())
    old = {key: value for key, value in snapshot.scalars.items() if key != "architecture"}
    save(path.parent, Snapshot(snapshot.step, snapshot.groups, old))
    try:
        assert torch.equal(images(open_run(narrow).generator()), want)
    finally:
        save(path.parent, snapshot)


def test_a_finished_run_is_not_asked_for_its_widths_again(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the width was searched again")

    monkeypatch.setattr("gancompress.experiment.networks.choose_widths", never)
    open_run(narrow).generator()
    Experiment(parse_recipe(NARROW).recipe, narrow.parent, evaluates=False).run()


def test_layers_narrower_than_the_config_live_on(tmp_path: Path) -> None:
    """What pruning of channels will leave: one map of the generator has 5 channels where the config gives 16."""
    recipe = parse_recipe(TINY).recipe
    architecture = build_architecture(recipe, build_dataset(recipe).spec)
    whole = shapes_of(build_networks(architecture, 0).generator)
    cut = {"input.linear.weight": (5 * 16, 8), "convs.0.weight": (5, 8, 4, 4)}
    cut |= {f"norms.0.{name}": (5,) for name in ("weight", "bias", "running_mean", "running_var")}
    assert cut.keys() < whole.keys()
    directory = run(TINY, tmp_path / "runs")
    path = checkpoints(directory / "checkpoints")[-1]
    snapshot = load(path)
    groups = {name: dict(group) for name, group in snapshot.groups.items()}
    for group, prefix in (("generator", ""), ("ema", "module.")):
        for name, shape in cut.items():
            tensor = groups[group][prefix + name]
            groups[group][prefix + name] = tensor[tuple(map(slice, shape))].clone()
    described = json.loads(json.dumps(snapshot.scalars["architecture"]))
    described["shapes"]["generator"] |= {name: list(shape) for name, shape in cut.items()}
    save(
        path.parent,
        Snapshot(snapshot.step, {**groups, "sparsity": {}}, {**snapshot.scalars, "architecture": described}),
    )
    want, loaded = export_and_load(directory, tmp_path)
    assert loaded.packed.narrowed
    torch.testing.assert_close(images(loaded.network), want, rtol=0, atol=1e-5)
    after = compressed(directory, tmp_path)
    found = shapes_of(open_run(after).generator())
    assert {name: found[name] for name in cut} == cut
    assert load_packed(tmp_path / "g.safetensors").generator().convs[0].in_channels == 5
