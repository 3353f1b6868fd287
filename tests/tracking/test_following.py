"""Trackers: told everything once and in order, whatever becomes of the run or of them, and no number changes."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import gancompress
from gancompress import TRACKERS, TrackedRun, Tracker
from gancompress.errors import ComponentError
from gancompress.progress import Silent
from gancompress.tracking.follow import scalars_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8},
    "sparsity": {"method": {"name": "dst", "every": 2}, "density": 0.5, "weights": "all"},
    "training": {"steps": 8, "batch_size": 4, "log_every": 2, "checkpoint_every": 4, "sample_every": 4},
}


class Noted(Tracker):
    """Keeps what it is told, by the run's id."""

    told: ClassVar[dict[str, list[tuple[Any, ...]]]] = {}
    opened: ClassVar[list[TrackedRun]] = []

    def open(self, run: TrackedRun) -> None:
        self.opened.append(run)
        self.mine = self.told.setdefault(run.id, [])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.mine.append((step, *sorted(values)))

    def image(self, step: int, name: str, path: Path) -> None:
        assert path.read_bytes().startswith(b"\x89PNG")
        self.mine.append((step, name))

    def close(self) -> None:
        self.mine.append(("closed",))


class Heard(Silent):
    """An observer that keeps what people are told, and may stop the run."""

    def __init__(self, stop_at: int = 0) -> None:
        self.said: list[str] = []
        self.stop_at = stop_at

    def message(self, text: str) -> None:
        self.said.append(text)

    def step(self, done: int, rate: float) -> None:
        if done == self.stop_at:
            raise RuntimeError("the power is gone")


@pytest.fixture
def noted() -> Iterator[type[Noted]]:
    Noted.told, Noted.opened = {}, []
    with TRACKERS.registered("noted", Noted):
        yield Noted


def kinds(told: list[tuple[Any, ...]]) -> list[tuple[int, str]]:
    return [(step, names[0].rpartition("/")[0]) for step, *names in told if names]


def test_what_is_followed_of_a_record() -> None:
    update = {"kind": "update", "step": 4, "role": "generator", "round": 0, "churn": 0.25, "grown": 3, "how": "rigl"}
    assert scalars_of(update) == {"masks/generator/churn": 0.25, "masks/generator/grown": 3.0}
    train = {"kind": "train", "step": 4, "round": 0, "loss_generator": float("nan"), "rate": 2.0, "fused": True}
    assert scalars_of(train) == {"train/rate": 2.0}
    metrics = [{"key": "fd", "label": "FID", "value": 3.5, "std": None}]
    assert scalars_of({"kind": "evaluation", "step": 4, "metrics": metrics, "density_generator": 0.5}) == {
        "evaluation/fd": 3.5,
        "evaluation/density_generator": 0.5,
    }
    assert scalars_of({"kind": "round", "step": 4, "round": 0}) == {}


def test_everything_is_told_once_and_nothing_changes(noted: type[Noted], tmp_path: Path) -> None:
    alone = gancompress.train(TINY, out=tmp_path / "alone", progress=False)
    followed = gancompress.train(TINY, out=tmp_path / "followed", track=["noted"], progress=False)
    for left in ("generator", "discriminator", "ema", "sparsity"):
        one, other = (run.directory / "checkpoints" / "00000008" / f"{left}.safetensors" for run in (alone, followed))
        assert one.read_bytes() == other.read_bytes()
    assert not (alone.directory / "tracking").exists()
    (run,) = noted.opened
    assert (run.name, run.id) == ("tiny", followed.directory.name)
    assert run.folder == followed.directory / "tracking" / "noted"
    assert run.recipe["training"]["steps"] == 8
    told = noted.told[run.id]
    assert told[-1] == ("closed",)
    assert kinds(told)[:4] == [(2, "masks/generator"), (2, "train"), (4, "masks/generator"), (4, "train")]
    assert (4, "samples") in told
    assert any("masks/generator/churn" in names for _, *names in told)


def test_an_interrupted_run_is_one_run_to_a_tracker(noted: type[Noted], tmp_path: Path) -> None:
    whole = gancompress.train(TINY, out=tmp_path / "whole", track="noted", progress=False)
    with pytest.raises(RuntimeError, match="power"):
        gancompress.train(TINY, out=tmp_path / "cut", track=["noted"], progress=Heard(stop_at=7))
    # told up to step 6, while the checkpoint is of step 4
    cut = gancompress.train(TINY, out=tmp_path / "cut", track=["noted"], progress=False)
    assert whole.directory.name == cut.directory.name
    told = noted.told[whole.directory.name]
    first = told.index(("closed",))
    again = [one for one in told[first + 1 :] if one != ("closed",)]
    assert again == told[:first]
    assert told.count(("closed",)) == 3


def test_who_comes_late_is_told_what_was_missed(noted: type[Noted], tmp_path: Path) -> None:
    done = gancompress.train(TINY, out=tmp_path, progress=False)
    gancompress.train(TINY, out=tmp_path, track=["noted"], progress=False)
    told = noted.told[done.directory.name]
    assert [step for step, name in kinds(told) if name == "train"] == [2, 4, 6, 8]
    count = len(told)
    gancompress.train(TINY, out=tmp_path, track=["noted"], progress=False)
    assert told[count:] == [("closed",)]


@pytest.mark.parametrize("fails", ["open", "scalars", "image", "close"])
def test_a_tracker_that_fails_is_said_once_and_stops_nothing(fails: str, tmp_path: Path) -> None:
    def broken(self: Any, *_: Any) -> None:
        raise OSError("the server\nis gone")

    Noted.told, heard = {}, Heard()
    with TRACKERS.registered("broken", type("Broken", (Noted,), {fails: broken})):
        done = gancompress.train(TINY, out=tmp_path, track=["broken"], progress=heard)
    assert done.state == "done"
    said = [line for line in heard.said if "broken" in line]
    reason = "OSError: the server is gone"
    assert said == [f"warning: broken does not follow this run: {reason}; it goes on, and log.jsonl has everything"]
    if fails == "scalars":
        assert Noted.told[done.directory.name] == [("closed",)]


class Refusing(BaseHTTPRequestHandler):
    """A server that has nothing of what wandb asks for."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()


@pytest.fixture(params=["nobody", "another"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server of wandb's where nobody listens, or something that is none."""
    if request.param == "nobody":
        yield "http://127.0.0.1:9"
        return
    other = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=other.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{other.server_port}"
    other.shutdown()
    thread.join()
    other.server_close()


def test_a_real_wandb_without_its_server_stops_nothing(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"BASE_URL": server, "API_KEY": "0" * 40, "CONFIG_DIR": tmp_path, "CACHE_DIR": tmp_path}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    wandb.teardown()  # so that the environment is read
    heard = Heard()
    try:
        done = gancompress.train(TINY, out=tmp_path / "runs", track=["wandb:online"], progress=heard)
    finally:
        wandb.teardown()
    assert done.state == "done"
    assert done.step == 8
    (said,) = [line for line in heard.said if "wandb" in line]
    reason = f"OSError: nobody answers at {server} (" if server.endswith(":9") else "Error: "
    assert said.startswith("warning: wandb does not follow this run: ")
    assert reason in said
    assert said.endswith("; it goes on, and log.jsonl has everything")
    assert len(log_of(done.directory, "train")) == 4


def test_one_that_is_not_installed_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    gone = ("tensorboard", "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in gone else found(name, *a))
    heard = Heard()
    done = gancompress.train(TINY, out=tmp_path, track=["tensorboard", "wandb"], progress=heard)
    assert done.state == "done"
    for name in gone:
        said = [line for line in heard.said if name in line]
        assert len(said) == 1
        assert f"pip install 'gancompress[{name}]'" in said[0]


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("tensorbord", "unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        ("tensorboard:x", "tracker tensorboard takes no option, got 'x'"),
        ("wandb:on", "tracker wandb is wandb:offline or wandb:online, not wandb:on"),
        (["wandb", "wandb:online"], "tracker wandb is named twice"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_written(track: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError) as refused:
        gancompress.train(TINY, out=tmp_path / "runs", track=track, progress=False)
    assert str(refused.value) == said
    assert not (tmp_path / "runs").exists()


def log_of(directory: Path, kind: str) -> list[dict[str, Any]]:
    records = map(json.loads, (directory / "log.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def test_tensorboard_has_what_the_log_has(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(RuntimeError, match="power"):
        gancompress.train(TINY, out=tmp_path, track=["tensorboard"], progress=Heard(stop_at=7))
    done = gancompress.train(TINY, out=tmp_path, track=["tensorboard"], progress=False)
    shown = EventAccumulator(str(done.directory / "tracking" / "tensorboard")).Reload()
    losses = [(one.step, one.value) for one in shown.Scalars("train/loss_generator")]
    logged = [
        (record["step"], pytest.approx(record["loss_generator"], rel=1e-6))
        for record in log_of(done.directory, "train")
    ]
    assert losses == logged
    churn = [(one.step, one.value) for one in shown.Scalars("masks/generator/churn")]
    updates = [record for record in log_of(done.directory, "update") if record["role"] == "generator"]
    assert churn == [(record["step"], pytest.approx(record["churn"], rel=1e-6)) for record in updates]
    assert [one.step for one in shown.Images("samples")] == [4, 8]
    assert "steps: 8" in shown.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()


def written(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file of wandb's: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_wandb_offline_has_what_the_log_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    done = gancompress.train(TINY, out=tmp_path, track=["wandb"], progress=False)
    (file,) = (done.directory / "tracking" / "wandb").glob("wandb/offline-run-*/*.wandb")
    rows, names = [], set()
    for data in written(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        names |= {record.run.run_id} - {""}
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        rows += [items] if items else []
    assert names == {done.directory.name}
    losses = [(row["step"], row["train/loss_generator"]) for row in rows if "train/loss_generator" in row]
    assert losses == [(record["step"], record["loss_generator"]) for record in log_of(done.directory, "train")]
    assert [row["step"] for row in rows if any(name.startswith("samples") for name in row)] == [4, 8]
