"""The files that are damaged, made once by real runs of a tiny recipe, and the public ways that read each of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

import gancompress
from gancompress import api
from gancompress.api.outcomes import RunOutcome
from gancompress.cli.catalogue import _run_row
from gancompress.comparison.folder import ComparisonFolder
from gancompress.comparison.results import collect
from gancompress.components.registry import BACKBONES
from gancompress.errors import EvaluationError
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.compress import open_source
from gancompress.experiment.finished import open_run
from gancompress.experiment.history import History
from gancompress.experiment.initial import read_initial
from gancompress.experiment.networks import last_architecture
from gancompress.experiment.provenance import note_plugins
from gancompress.experiment.ready import get_ready, open_images
from gancompress.experiment.run import Experiment
from gancompress.export.container import read_container, write_container
from gancompress.export.packed import FORMAT, KIND, export_packed, export_run
from gancompress.kernels.measured import Figures
from gancompress.progress import Silent
from gancompress.recipe.load import load_recipe, parse_recipe
from gancompress.report.comparison import build_comparison
from gancompress.report.html import render
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import list_runs, read_run
from gancompress.storage.cache import load_tensors, store_tensors
from gancompress.storage.checkpoint import _hash, _manifest
from gancompress.storage.encoding import decode_tensors, encode_tensors
from gancompress.storage.locks import _named
from tests.soak.mutations import mutate_bytes, mutate_json, mutate_lines, mutate_tensors, mutate_value, written

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Kind", "kinds"]

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 16, "latent_dim": 8, "conditional": True},
    "sparsity": {"method": {"name": "dst", "every": 3}, "generator": {"density": 0.25}, "weights": "all"},
    "training": {"steps": 8, "batch_size": 4, "log_every": 2, "checkpoint_every": 4, "sample_every": 4},
    "evaluation": {"samples": 20, "batch_size": 20, "every": 4, "metrics": ["fd", "pr"]},
}


@dataclasses.dataclass
class Kind:
    """One file that is damaged.

    Attributes:
        name: what it is.
        damage: write the damaged file.
        entries: ways that read it, by name.
        names: any of them in an error says which file is meant.
        whole: files that are as they were after each input.
    """

    name: str
    damage: Callable[[random.Random], object]
    entries: Mapping[str, Callable[[], object]]
    names: tuple[str, ...]
    whole: Mapping[Path, bytes]

    @contextlib.contextmanager
    def damaged(self, rng: random.Random) -> Iterator[None]:
        """Hold the damaged file in place."""
        self.damage(rng)
        try:
            yield
        finally:
            for path, content in self.whole.items():
                path.write_bytes(content)


def kinds(root: Path) -> list[Kind]:
    """Make the files under ``root``, and return every kind."""
    torch.set_num_threads(1)
    run = gancompress.run(RECIPE, out=root / "runs", progress=False).directory
    shutil.copytree(run, root / "runs" / "beside-0123456789")
    return [
        *_of_run(root, run),
        *_of_checkpoint(root, run),
        *_of_export(root, run),
        *_of_data(root),
        *_others(root, run),
    ]


def _kind(
    path: Path,
    mutate: Callable[[bytes, random.Random], bytes],
    entries: Mapping[str, Callable[[], object]],
    **more: Any,
) -> Kind:
    content = path.read_bytes()

    def damage(rng: random.Random) -> None:
        path.write_bytes(mutate(content, rng))

    whole = {path: content, **more.pop("whole", {})}
    return Kind(more.pop("name", path.name), damage, entries, (path.name, *more.pop("names", ())), whole)


# --------------------------------------------------------------------------- a run


def _readers(root: Path, run: Path) -> dict[str, Callable[[], object]]:
    good = next(_run_row(one) for one in list_runs(run.parent) if one.path.name.startswith("beside"))

    def ls() -> None:
        rows = [_run_row(one) for one in list_runs(run.parent)]
        if good not in rows or len(rows) != 2:
            raise AssertionError(f"the run beside it is listed as {rows}")
        "\n".join(map(str, rows)).encode()

    def outcome() -> None:
        found = RunOutcome.read(run)
        (str(found) + repr(found) + found._repr_html_()).encode()

    return {"ls": ls, "report": lambda: render(read_run(run)).encode(), "outcome": outcome}


def _of_run(root: Path, run: Path) -> Iterator[Kind]:
    readers = _readers(root, run)
    resume = _resume(run)
    best = {"best": lambda: open_run(run).step("best")}
    whole = {path: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "report.html"}
    also = {
        "status.json": {"compress": lambda: open_source(run), "resume": resume},
        "recipe.yaml": {"load": lambda: load_recipe(run), "resume": resume},
        "metrics.json": best,
        "cost.json": {},
        "environment.json": {},
        "log.jsonl": {**best, "resume": resume},
    }
    for name, entries in also.items():
        mutate = {".jsonl": mutate_lines, ".yaml": _mutate_yaml}.get(f".{name.rpartition('.')[2]}", mutate_json)
        yield _kind(run / name, mutate, {**readers, **entries}, whole=whole, names=(run.name,))
    compared = api.compare(RECIPE, "static", seeds=1, narrow=False, jobs=0, out=root / "compare", progress=False)
    cell = next(one for one in compared.results.cells if one.method == "static")
    folder, grid = ComparisonFolder(compared.directory), compared.results.grid

    def table() -> None:
        results = collect(grid, folder)
        if not next(one for one in results.cells if one.method == "dense").done:
            raise AssertionError("the other run is not done any more")
        build_comparison(results)
        str(compared)

    assert cell.path is not None
    for name in ("status.json", "metrics.json", "cost.json", "environment.json", "log.jsonl"):
        mutate = mutate_lines if name.endswith("l") else mutate_json
        yield _kind(cell.path / name, mutate, {"compare": table}, name=f"compared {name}")
    recipe = folder.recipe_path(next(one for one in grid.cells if one.name == cell.name))
    yield _kind(recipe, _mutate_yaml, {"load": lambda: load_recipe(recipe)}, name="recipe of a cell")


def _mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    from gancompress.recipe.document import parse_yaml

    if rng.random() < 0.5:
        return mutate_bytes(content, rng)
    return written(mutate_value(parse_yaml(content.decode(), "x").data, rng))  # JSON is YAML


def _resume(run: Path) -> Callable[[], object]:
    recipe = load_recipe(run).recipe
    ready = get_ready(recipe, open_images(recipe))

    def resume() -> None:
        experiment = Experiment(recipe, run.parent)
        experiment._directory = RunDirectory.open(run.parent, recipe)
        with experiment.directory.lock():
            last_architecture(experiment.directory.checkpoints)
            history = History(experiment.directory, Silent())
            experiment._resume(ready, history, None)
            json.dumps(history.metrics())

    return resume


def _of_checkpoint(root: Path, run: Path) -> Iterator[Kind]:
    directory = max((run / "checkpoints").iterdir())
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    whole = {path: path.read_bytes() for path in (*directory.iterdir(), *run.iterdir()) if path.is_file()}
    out = root / "out.safetensors"
    entries = {
        "resume": _resume(run),
        "export": lambda: export_run(open_run(run), out),
        "sample": lambda: open_run(run).sample(root / "out.png", count=1),
        "compress": lambda: open_source(run),
    }
    step = int(directory.name)

    def forged(change: Callable[[dict[str, bytes], random.Random], None]) -> Callable[[random.Random], None]:
        def damage(rng: random.Random) -> None:
            found = dict(files)
            change(found, rng)
            table = {
                name: {"size": len(content), "blake2b": _hash(content)}
                for name, content in found.items()
                if name != "manifest.json"
            }
            for name, content in found.items():
                (directory / name).write_bytes(content)
            (directory / "manifest.json").write_bytes(_manifest(step, table))

        return damage

    def sizes(rng: random.Random) -> None:
        table = json.loads(files["manifest.json"])["files"]
        (directory / "manifest.json").write_bytes(_manifest(step, mutate_value(table, rng)))

    def state(found: dict[str, bytes], rng: random.Random) -> None:
        found["state.json"] = mutate_json(files["state.json"], rng)

    def header(found: dict[str, bytes], rng: random.Random) -> None:
        name = rng.choice([name for name in files if name.endswith("s")])
        found[name] = mutate_tensors(files[name], rng)

    def tensors(found: dict[str, bytes], rng: random.Random) -> None:
        name = rng.choice([name for name in files if name.endswith("s")])
        found[name] = encode_tensors(_other_tensors(decode_tensors(files[name], where=name), rng))

    names = (directory.name,)
    yield _kind(directory / "manifest.json", mutate_json, entries, whole=whole, names=names)
    yield Kind("forged manifest", sizes, entries, names, whole)
    yield _kind(directory / "ema.safetensors", mutate_bytes, entries, whole=whole, names=names)
    for name, change in (("forged state.json", state), ("forged header", header), ("forged tensors", tensors)):
        yield Kind(name, forged(change), entries, names, whole)


def _other_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """Return tensors of which one is missing, too many, of another type or shape, or full of NaN."""
    found = dict(tensors)
    name = rng.choice([*found, "x"])
    tensor = found.pop(name, torch.zeros(3))
    match rng.randrange(6):
        case 0:
            found[name] = tensor.to(rng.choice((torch.int64, torch.float64, torch.bool, torch.uint8, torch.float16)))
        case 1:
            found[name] = torch.zeros(rng.choice(((0,), (1,), (2, 3), (7, 0, 3), (*tensor.shape, 1))))
        case 2:
            found[name] = torch.full_like(tensor, float("nan") if tensor.is_floating_point() else 1)
        case 3:
            found[rng.choice(("", "x.y", "é"))] = tensor
        case 4:
            found[name] = tensor.flatten()
        case _:
            pass
    return found


# --------------------------------------------------------------------------- what leaves the house


def _of_export(root: Path, run: Path) -> Iterator[Kind]:
    packed = root / "generator.safetensors"
    export_run(open_run(run), packed)
    yield from _of_packed(packed, "packed")
    graph = root / "graph.safetensors"
    export_graph(run, graph)
    yield from _of_packed(graph, "graph")
    weights = root / "weights.safetensors"
    weights.write_bytes(encode_tensors(dict(open_run(run).generator().state_dict())))
    yield _kind(weights, mutate_tensors, {"read": lambda: read_initial(weights)})


def export_graph(run: Path, path: Path) -> None:
    """Write a generator as if its class were a plugin's, with its graph."""
    opened = open_run(run)
    generator, built = opened.rebuild(opened.snapshot("last", ("ema", "sparsity")))
    with BACKBONES.registered("elsewhere", type("Elsewhere", (BACKBONES.get("dcgan"),), {})):
        export_packed(generator, path, model={**built.model, "name": "elsewhere"}, masks={}, origin="elsewhere 1.0")
    assert gancompress.load(path).packed.captured is not None


def _of_packed(path: Path, name: str) -> Iterator[Kind]:
    content = path.read_bytes()
    tensors, document = read_container(path, kind=KIND, format=FORMAT)
    document = {key: value for key, value in document.items() if key not in ("hash", "kind", "format")}

    def load() -> None:
        made = gancompress.load(path)
        with contextlib.suppress(EvaluationError):  # weights of a stranger may give NaN
            made(2)
        repr(made)

    def forge(rng: random.Random) -> None:
        if rng.random() < 0.3:
            write_container(path, _other_tensors(tensors, rng), document, kind=KIND, format=FORMAT)
            return
        changed = mutate_value(document, rng)
        changed = changed if isinstance(changed, dict) else {}
        # what stands in for text that JSON cannot hold is text here; numbers are forged all the same
        write_container(path, tensors, changed, kind=KIND, format=FORMAT)

    yield _kind(path, mutate_tensors, {"load": load}, name=name)
    yield Kind(f"forged {name}", forge, {"load": load}, (path.name,), {path: content})


# --------------------------------------------------------------------------- images


def _of_data(root: Path) -> Iterator[Kind]:
    folder = root / "images"
    folder.mkdir()
    for index in range(6):
        _image(index).save(folder / f"{index}.png")
    labels = {"labels": [[f"{index}.png", index % 2] for index in range(6)], "classes": ["ant", "bee"]}
    (folder / "dataset.json").write_text(json.dumps(labels))

    def opened(name: str, path: Path) -> Callable[[], object]:
        recipe = parse_recipe({**RECIPE, "data": {"name": name, "path": str(path), "resolution": 16}}).recipe

        def read() -> None:
            dataset = build_dataset(recipe)
            dataset.prepare()
            dataset.read(torch.arange(2))
            dataset.fingerprint()

        return read

    def prepared(path: Path) -> Callable[[], object]:
        out = root / "prepared.zip"

        def prepare() -> None:
            out.unlink(missing_ok=True)
            api.prepare_data(path, out, resolution=16)

        return prepare

    ways = {"train": opened("folder", folder), "prepare": prepared(folder)}
    yield _kind(folder / "dataset.json", mutate_json, ways)
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff", "ppm"):
        at = root / f"images-{suffix}"
        at.mkdir()
        for index in range(3):
            _image(index).save(at / f"{index}.{suffix}")
        ways = {"train": opened("folder", at), "prepare": prepared(at)}
        yield _kind(at / f"1.{suffix}", mutate_bytes, ways, name=f"image {suffix}")
    archive = root / "images.zip"
    archive.write_bytes(_zipped({path.name: path.read_bytes() for path in sorted(folder.iterdir())}))
    ways = {"train": opened("zip", archive), "prepare": prepared(archive)}
    yield _kind(archive, _mutate_zip, ways, name="zip")


def _image(index: int) -> Image.Image:
    return Image.radial_gradient("L").resize((16, 16)).point(lambda value: (value * (index + 1)) % 256).convert("RGB")


def _zipped(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in files.items():
            archive.writestr(name, one)
    return content.getvalue()


def _mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """Damage a zip's bytes, those of its table of contents, or a file in it."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    if rng.random() < 0.5:
        start = content.rindex(b"PK\5\6") - rng.randrange(600)
        return content[:start] + mutate_bytes(content[start:], rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([*files])
    files[name] = (mutate_json if name.endswith("json") else mutate_bytes)(files[name], rng)
    return _zipped(files)


# --------------------------------------------------------------------------- the rest


def _others(root: Path, run: Path) -> Iterator[Kind]:
    cache = root / "a-cache.safetensors"
    store_tensors(cache, {"a": torch.arange(6.0), "b": torch.ones(2, 2)}, {"key": "value"})
    yield _kind(cache, mutate_tensors, {"recall": lambda: load_tensors(cache)}, name="cache of features")
    measured = root / "break-even.json"
    measured.write_text(json.dumps({"a machine": {"a layer": 0.25}}))
    yield _kind(measured, mutate_json, {"known": lambda: Figures(str(measured)).known("a machine", "a layer")})
    holder = root / ".lock.holder"
    holder.write_text(json.dumps({"pid": 7, "host": "here"}))
    yield _kind(holder, mutate_json, {"name": lambda: _named(holder)})
    plugins = run / "plugins.json"
    plugins.write_text(
        json.dumps({"format": 1, "components": [{"kind": "method", "name": "x", "from": "y", "version": "1"}]})
    )
    recipe = load_recipe(run).recipe
    yield _kind(plugins, mutate_json, {"note": lambda: note_plugins(RunDirectory(run), recipe)})
    own = root / "own.yaml"
    own.write_text(json.dumps({**RECIPE, "extends": "quickstart", "variants": {"a": {"seed": 1}}}, indent=1))
    yield _kind(own, _mutate_yaml, {"load": lambda: load_recipe(f"{own}@a")}, name="recipe", names=("own has",))
