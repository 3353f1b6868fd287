"""Generators pushed into a folder and to a hub, and loaded from there; the hub is a small server of this test."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
import torch
import yaml
from typer.testing import CliRunner

import gancompress
from gancompress.cli.main import app
from gancompress.errors import ExportError, exit_code
from gancompress.export.hub import HubAddress
from gancompress.hub_client import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gancompress.api.outcomes import RunOutcome

FILES = ("README.md", "config.json", "generator.safetensors", "metrics.json", "recipe.yaml", "samples.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    recipe = {
        "name": "tiny",
        "description": "A | [tiny] one",
        "data": {"name": "shapes", "resolution": 16, "images": 48},
        "model": {"name": "dcgan", "channels": 8, "latent_dim": 8},
        "sparsity": {"method": {"name": "dst", "every": 2}, "density": 0.5, "weights": "all"},
        "training": {"steps": 4, "batch_size": 4, "log_every": 2, "checkpoint_every": 2},
        "evaluation": {"samples": 16, "metrics": ["fd"]},
    }
    return gancompress.run(recipe, out=tmp_path_factory.mktemp("runs"), player=False, progress=False)


def metadata(folder: Path) -> dict[str, Any]:
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert body.startswith("\n# tiny\n")
    read = yaml.safe_load(head)
    assert isinstance(read, dict)
    return read


def test_a_folder_has_what_the_hub_shows_and_loads(run: RunOutcome, tmp_path: Path) -> None:
    made = gancompress.push(run, tmp_path / "pushed", license="mit", progress=False)
    assert (made.files, made.step, made.url, made.evaluated) == (FILES, 4, "", True)
    assert sorted(path.name for path in made.folder.iterdir()) == list(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["pushed"]
    head = metadata(made.folder)
    assert head["library_name"] == "gancompress"
    assert head["license"] == "mit"
    (result,) = head["model-index"][0]["results"]
    fd = run.metrics["fd"]
    assert result["metrics"] == [{"type": "fd", "name": fd.label, "value": fd.value, "args": fd.protocol}]
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert f"Protocol: {fd.protocol.replace('[', chr(92) + '[')}" in card
    assert "A \\| \\[tiny] one" in card
    assert "](samples.png)" in card
    written = gancompress.api.export(run, tmp_path / "alone.safetensors", progress=False)
    assert (made.folder / "generator.safetensors").read_bytes() == written.file.read_bytes()
    loaded, alone = gancompress.load(made.folder), gancompress.load(written.file)
    assert torch.equal(loaded(3, seed=1), alone(3, seed=1))


SHORT = {"training": {"steps": 1, "batch_size": 4}, "evaluation": {"samples": 10, "metrics": ["fd"]}}
#: what a generator is, and what its card has to show beside
CARDS: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {
            "data": {"name": "outlines", "resolution": 32, "images": 8, "held_out": 24},
            "model": {"name": "unet", "channels": 2, "discriminator_channels": 2},
            "task": {"name": "pix2pix", "jitter": 2},
            "objective": {"loss": "non-saturating"},
        },
        "image-to-image",
        "images = g(given)",
        "A `unet` generator of images from images, both 3x32x32,",
    ),
    (
        {
            "data": {"name": "shapes", "resolution": 16, "images": 24, "classes": 3},
            "model": {"name": "dcgan", "channels": 4, "latent_dim": 4, "conditional": True},
        },
        "unconditional-image-generation",
        "of_one = g(n=16, seed=0, classes=",
        "A `dcgan` generator of 3x16x16 images, 3 classes,",
    ),
    (
        {
            "data": {"name": "shapes", "resolution": 16, "images": 24, "classes": 3},
            "model": {"name": "stylegan2", "channels": 4, "latent_dim": 4, "style_dim": 4, "mapping_layers": 2},
            "objective": {"loss": "non-saturating"},
        },
        "unconditional-image-generation",
        "plainer = g(n=16, seed=0, truncation=0.7)",
        "A `stylegan2` generator of 3x16x16 images,",
    ),
]


@pytest.mark.parametrize(("recipe", "kind", "shown", "said"), CARDS, ids=[card[0]["model"]["name"] for card in CARDS])
@pytest.mark.usefixtures("quick_classifier")
def test_the_code_of_a_card_runs(recipe: dict[str, Any], kind: str, shown: str, said: str, tmp_path: Path) -> None:
    done = gancompress.run({"name": "tiny", **recipe, **SHORT}, out=tmp_path / "runs", player=False, progress=False)
    made = gancompress.push(done, tmp_path / "pushed", progress=False)
    head = metadata(made.folder)
    assert head["pipeline_tag"] == kind
    assert head["model-index"][0]["results"][0]["task"]["type"] == kind
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert said in card
    code = card.split("```python\n", 1)[1].split("```", 1)[0]
    assert shown in code
    names: dict[str, Any] = {}
    exec(code, names)
    image = names["g"].network.image
    for name, count in (("images", 4 if kind == "image-to-image" else 64), ("of_one", 16), ("plainer", 16)):
        if name in names:
            assert names[name].shape == (count, image.channels, image.resolution, image.resolution)
            assert names[name].isfinite().all()


def test_of_a_step_that_was_not_measured_no_metric_is_told(run: RunOutcome, tmp_path: Path) -> None:
    made = gancompress.push(run, tmp_path / "pushed", step=2, values="bf16", progress=False)
    assert not made.evaluated
    assert "metrics.json" not in made.files
    assert "generator-bf16.safetensors" in made.files
    assert "model-index" not in metadata(made.folder)
    assert "This step was not evaluated." in (made.folder / "README.md").read_text()
    again = gancompress.push(run, tmp_path / "pushed", progress=False)
    assert sorted(path.name for path in again.folder.iterdir()) == list(FILES)


def test_a_recipe_is_pushed_without_the_paths_of_the_machine() -> None:
    from gancompress.api.publish import _without_paths

    recipe = {
        "data": {"name": "zip", "path": "/home/me/images.zip"},
        "evaluation": {"extractor": "timm:resnet18:/w/resnet18.safetensors"},
        "deep": [{"path": "C:\\mine\\x.zip"}, {"path": "../x/y/"}, "~/z"],
        "description": "a/b: half / half",
        "number": 1,
    }
    assert _without_paths(recipe) == {
        "data": {"name": "zip", "path": "images.zip"},
        "evaluation": {"extractor": "timm:resnet18:resnet18.safetensors"},
        "deep": [{"path": "x.zip"}, {"path": "y"}, "z"],
        "description": "a/b: half / half",
        "number": 1,
    }


def test_what_is_there_already_is_left_alone(run: RunOutcome, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"library_name": "transformers"}')
    with pytest.raises(ExportError, match="is no folder that `gancompress push` wrote; choose another"):
        gancompress.push(run, tmp_path / "mine", progress=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["config.json"]


@pytest.mark.parametrize("address", ["hf:me", "hf:", "hf:me/x/y", "hf:me/../x", "hf:me/x@", "hf:-me/x"])
def test_what_is_no_repository_is_said(address: str, run: RunOutcome) -> None:
    for refused in (lambda: gancompress.load(address), lambda: gancompress.push(run, address, progress=False)):
        with pytest.raises(ExportError, match="is no model of the hub: it is hf:OWNER/NAME"):
            refused()


def test_a_license_is_one_of_the_hubs(run: RunOutcome, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="license 'MIT': the hub's names are such as mit"):
        gancompress.push(run, tmp_path / "x", license="MIT", progress=False)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "is no JSON"),
        ('{"library_name": "diffusers"}', "is not of a generator that `gancompress push` wrote"),
        ('{"library_name": "gancompress", "format": 2}', "has format 2; upgrade gancompress"),
        (
            '{"library_name": "gancompress", "format": 1, "generator": "../x.safetensors"}',
            "names no file beside it: '../x.safetensors'",
        ),
        ('{"library_name": "gancompress", "format": 1, "generator": "x.pkl"}', "names no file beside it: 'x.pkl'"),
    ],
)
def test_a_config_that_is_not_ours_is_said(config: str, said: str, tmp_path: Path) -> None:
    from gancompress.export.hub import pushed_generator

    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ExportError) as refused:
        pushed_generator(tmp_path / "config.json")
    assert refused.value.message == said


# ------------------------------------------------------------------------------------------------ a hub


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push and a load ask for."""

    files: dict[str, dict[str, bytes]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner, name, *rest = unquote(self.path.partition("?")[0]).strip("/").split("/")
        held = self.files.get(f"{owner}/{name}")
        if held is None or rest[:1] != ["resolve"]:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if rest[1] != "main":
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if rest[2] not in held:
            return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40})
        data = held[rest[2]]
        etag = hashlib.sha1(data).hexdigest()
        return self.answer(200, data, {"X-Repo-Commit": "0" * 40, "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_known":
            return self.answer(401, b'{"error": "who is this?"}')
        where = self.path.partition("?")[0]
        if where == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            self.files.setdefault(name, {})
            return self.reply({"url": f"https://huggingface.co/{name}"})
        if where == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        owner, name = where.split("/")[3:5]
        if "preupload" in where:
            files = json.loads(body)["files"]
            return self.reply({"files": [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in files]})
        if "commit" in where:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[f"{owner}/{name}"][line["value"]["path"]] = content
            return self.reply(
                {"commitOid": "0" * 40, "commitUrl": f"https://huggingface.co/{owner}/{name}/commit/{'0' * 40}"}
            )
        return self.answer(404, b"{}")

    def reply(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, dict[str, bytes]]]:
    from huggingface_hub import constants

    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_known")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield Hub.files
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_generator_goes_to_a_hub_and_comes_back(
    run: RunOutcome, hub: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = gancompress.push(run, "hf:me/tiny", progress=False)
    assert made.folder == run.directory / "export" / "hub"
    assert made.url.endswith("/me/tiny")
    assert sorted(hub["me/tiny"]) == list(FILES)
    for name in FILES:
        assert hub["me/tiny"][name] == (made.folder / name).read_bytes()
    loaded, local = gancompress.load("hf:me/tiny"), gancompress.load(made.folder)
    assert torch.equal(loaded(2, seed=3), local(2, seed=3))
    for address, said in {
        "hf:me/other": "there is no such model, or it is private and you are not logged in: hf auth login",
        "hf:me/tiny@v9": "there is no such revision",
        "hf:me/else": "has no config.json: it is no generator that `gancompress push` wrote",
    }.items():
        hub["me/else"] = {"model.bin": b"x"}
        with pytest.raises(ExportError) as refused:
            gancompress.load(address)
        assert str(refused.value) == f"{address}: {said}"
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    with pytest.raises(ExportError, match=r"not uploaded: the hub knows no login that may do this \(401\)") as refused:
        gancompress.push(run, "hf:me/tiny", progress=False)
    assert exit_code(refused.value) == 1
    assert (made.folder / "generator.safetensors").is_file()


def test_without_a_network_one_line_says_so_and_the_folder_stays(
    run: RunOutcome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_known")
    result = CliRunner().invoke(app, ["push", str(run.directory), "hf:me/tiny"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("hf:me/tiny: not uploaded: the hub cannot be reached")
    assert line.endswith(f"everything is in {run.directory / 'export' / 'hub'}, and the same command tries again")
    gancompress.load(run.directory / "export" / "hub")


ASKED = """
import sys, time
import gancompress
from gancompress.errors import EvaluationError, GancompressError
from gancompress.pretrained import pretrained
time.sleep = lambda seconds: print(f"waits for {{seconds}} s", file=sys.stderr)
try:
    {asked}
except GancompressError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("gancompress.load('hf:me/tiny')", "hf:me/tiny: the hub cannot be reached, and it was not loaded here before"),
        (
            "pretrained('test_vit.r160_in1k', 'download', EvaluationError)",
            "the weights of test_vit.r160_in1k cannot be fetched: the hub cannot be reached (",
        ),
    ],
    ids=["load", "timm"],
)
def test_a_hub_that_refuses_is_said_in_one_line_at_once(asked: str, said: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    code = ASKED.format(asked=asked)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert done.stdout == ""


def test_what_was_loaded_before_loads_without_a_network(
    run: RunOutcome, hub: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    gancompress.push(run, "hf:me/kept", progress=False)
    first = gancompress.load("hf:me/kept")(2, seed=3)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert torch.equal(gancompress.load("hf:me/kept")(2, seed=3), first)


def test_a_hub_that_is_overloaded_is_asked_again_without_a_word(
    hub: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "do_GET", lambda self: self.answer(503, b"{}"))
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    said: list[str] = []
    listening = logging.Handler()
    monkeypatch.setattr(listening, "emit", lambda record: said.append(record.getMessage()))
    logger = logging.getLogger("huggingface_hub")
    logger.addHandler(listening)
    try:
        with pytest.raises(ExportError):
            gancompress.load("hf:me/tiny")
    finally:
        logger.removeHandler(listening)
    assert len(waited) >= 2
    assert said == []


def test_the_client_speaks_again_afterwards() -> None:
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    before = [one.level for one in loggers]
    with quiet("timm"):
        assert not any(one.isEnabledFor(logging.ERROR) for one in loggers)
        assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)
    assert [one.level for one in loggers] == before


def test_addresses() -> None:
    assert HubAddress.of("runs/x") is None
    assert HubAddress.of("hf:me/x@v1.0") == HubAddress("me/x", "v1.0")
    assert str(HubAddress.of("hf:me/x@v1.0")) == "hf:me/x@v1.0"
