"""The run directory: whose it is, one process at a time, and a log that goes on where the checkpoint was."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from gancompress.errors import RunError
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import RunRecord, list_runs
from gancompress.storage.locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECIPE = {
    "name": "digits",
    "description": "words",
    "seed": 0,
    "sparsity": {"method": {"name": "dst", "every": 100}, "density": 0.2},
    "training": {"steps": 100, "betas": (0.0, 0.9)},
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.claim(tmp_path / "digits-ab12", RECIPE, "ab12")


def changed(**sparsity: object) -> dict:
    return {**RECIPE, "sparsity": {**RECIPE["sparsity"], **sparsity}}  # type: ignore[dict-item]


def test_a_new_directory_holds_the_recipe_and_is_pending(run: RunDirectory) -> None:
    assert sorted(os.listdir(run.path)) == ["recipe.yaml", "status.json"]
    assert run.recipe() == json.loads(json.dumps(RECIPE))
    assert "  density: 0.2\n" in (run.path / "recipe.yaml").read_text()
    status = run.read_status()
    assert (status.state, status.id, status.started) == ("pending", "ab12", None)


def test_a_real_recipe_finds_its_directory_and_the_directory_its_recipe(tmp_path: Path) -> None:
    from gancompress.recipe.identity import run_id
    from gancompress.recipe.load import load_recipe, parse_recipe

    settings = {"name": "tiny", "data": "digits", "model": "dcgan", "training": {"steps": 10}}
    recipe = parse_recipe(settings).recipe
    run = RunDirectory.open(tmp_path / "runs", recipe)
    assert run.path == tmp_path / "runs" / f"tiny-{run_id(recipe)}"
    assert run.recipe() == recipe.model_dump(mode="json")
    assert RunDirectory.open(tmp_path / "runs", recipe).path == run.path
    written = load_recipe(run.path / "recipe.yaml").recipe
    assert RunDirectory.open(tmp_path / "runs", written).path == run.path
    other = parse_recipe({**settings, "seed": 1}).recipe
    assert RunDirectory.open(tmp_path / "runs", other).path != run.path


def test_the_same_recipe_opens_it_again_and_changes_nothing(run: RunDirectory) -> None:
    run.status("failed", "because")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    again = RunDirectory.claim(run.path, {**RECIPE, "description": "other words"}, "ab12")
    assert again.read_status().reason == "because"
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_another_recipe_is_refused_with_both_ids_and_the_differing_keys(run: RunDirectory) -> None:
    other = changed(density=0.3, moments="dense")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(RunError) as caught:
        RunDirectory.claim(run.path, other, "cd34")
    message = str(caught.value)
    assert message.startswith(str(run.path))
    for words in (
        "belongs to another recipe (ab12, not cd34)",
        "sparsity.density: 0.2 there, 0.3 here",
        'sparsity.moments: nothing there, "dense" here',
    ):
        assert words in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_changed_default_under_the_same_id_is_refused_too(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"sparsity\.method\.every: 100 there, 200 here"):
        RunDirectory.claim(run.path, changed(method={"name": "dst", "every": 200}), "ab12")


def test_a_setting_of_another_version_does_not_stop_a_resume(run: RunDirectory) -> None:
    newer = {**changed(), "training": {**RECIPE["training"], "ema": 0.999}}  # type: ignore[dict-item]
    assert RunDirectory.claim(run.path, newer, "ab12").path == run.path
    with pytest.raises(RunError, match=r"training\.ema: nothing there, 0\.999 here"):
        RunDirectory.claim(run.path, newer, "cd34")


def test_places_that_cannot_be_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such directory"):
        RunDirectory(tmp_path / "missing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not a run directory"):
        RunDirectory(tmp_path / "full")
    with pytest.raises(RunError, match="not empty"):
        RunDirectory.claim(tmp_path / "full", RECIPE, "x")
    assert os.listdir(tmp_path / "full") == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the run directory"):
        RunDirectory.claim(tmp_path / "file" / "run", RECIPE, "x")


def test_a_wrong_directory_is_answered_with_the_run_that_was_meant(tmp_path: Path) -> None:
    for number, name in enumerate(("digits-0001", "digits-0002", "faces-0003")):
        run = RunDirectory.claim(tmp_path / name, RECIPE, name)
        os.utime(run.path / "status.json", (10.0**9 + number,) * 2)
    # an id copied from a page: the newest run of that name
    with pytest.raises(RunError, match=r"no such directory.*did you mean .*digits-0002\?"):
        RunDirectory(tmp_path / "digits-0a1b2c3d4e")
    with pytest.raises(RunError, match=r"did you mean .*faces-0003\?"):
        RunDirectory(tmp_path / "face-0003")
    with pytest.raises(RunError, match=r"no recipe\.yaml in it.*the last run here is .*faces-0003"):
        RunDirectory(tmp_path)


def test_a_crash_while_making_the_directory_is_made_good(tmp_path: Path) -> None:
    path = tmp_path / "digits-ab12"
    path.mkdir()
    (path / ".tmp-recipe.yaml-1").write_text("name: di")
    assert RunDirectory.claim(path, RECIPE, "ab12").recipe()["name"] == "digits"


@pytest.mark.parametrize("status", ["ours", b"", b"{", b"\0" * 64, b"[]"])
def test_a_death_between_status_and_recipe_is_made_good(tmp_path: Path, status: str | bytes) -> None:
    whole = RunDirectory.claim(tmp_path / "whole-ab12", RECIPE, "ab12")
    path = tmp_path / "digits-ab12"
    path.mkdir()
    (path / "status.json").write_bytes((whole.path / "status.json").read_bytes() if status == "ours" else status)
    run = RunDirectory.claim(path, RECIPE, "ab12")
    assert (run.read_status().id, run.read_status().state) == ("ab12", "pending")
    assert (path / "recipe.yaml").read_bytes() == (whole.path / "recipe.yaml").read_bytes()


def test_a_recipe_that_is_gone_is_written_again_for_its_own_run_only(run: RunDirectory) -> None:
    (run.path / "checkpoints").mkdir()
    recipe = (run.path / "recipe.yaml").read_bytes()
    run.status("interrupted", "stopped")
    (run.path / "recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"belongs to another recipe \(ab12, not cd34\)"):
        RunDirectory.claim(run.path, changed(density=0.3), "cd34")
    again = RunDirectory.claim(run.path, RECIPE, "ab12")
    assert (again.path / "recipe.yaml").read_bytes() == recipe
    assert again.read_status().reason == "stopped"
    (run.path / "recipe.yaml").unlink()
    (run.path / "status.json").unlink()
    with pytest.raises(RunError, match="not empty"):
        RunDirectory.claim(run.path, RECIPE, "ab12")


# ------------------------------------------------------------------------------------------- status and lock


def test_status_keeps_the_first_start_and_the_id(run: RunDirectory) -> None:
    run.status("running")
    with run.lock():
        first = run.read_status()
    assert (first.state, first.pid, first.host) == ("running", os.getpid(), socket.gethostname())
    assert first.started is not None
    run.status("failed", "loss is nan")
    run.status("running")
    run.status("done")
    last = run.read_status()
    assert (last.state, last.reason, last.id, last.started) == ("done", None, "ab12", first.started)


@pytest.mark.parametrize("change", [{}, {"pid": 1}, {"pid": 10**20}, {"host": "another-machine"}, {"pid": None}])
def test_running_is_what_holds_the_lock_whatever_process_the_status_names(run: RunDirectory, change: dict) -> None:
    run.status("running")
    run.write_json("status.json", {**run.read_json("status.json"), **change, "unknown": 1})
    assert (run.read_status().state, run.read_status().reason) == ("interrupted", "its process is gone")
    with run.lock():
        assert run.read_status().state == "running"
        assert run.read_status().state == "running"  # asking took nothing away
    assert run.read_status().state == "interrupted"


def test_a_run_starts_while_somebody_asks_for_its_lock(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run.path / ".lock"
    with run.lock():
        pass
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.05, asking.close).start()
        with run.lock():
            assert run.path.is_dir()


def test_two_cannot_hold_the_lock_and_the_message_names_the_first(run: RunDirectory) -> None:
    with run.lock():
        with pytest.raises(RunError, match=rf"run by process {os.getpid()} on ") as caught, run.lock():
            raise AssertionError("locked twice")
        assert str(run.path) in str(caught.value)
    with run.lock():
        pass


HOLDER = """
import sys
from pathlib import Path
from gancompress.runs.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder


def test_the_lock_of_a_killed_process_is_taken_over(run: RunDirectory) -> None:
    with held_by_another(run) as holder:
        with pytest.raises(RunError, match=f"process {holder.pid} "), run.lock():
            raise AssertionError("locked twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run.lock():
            assert str(os.getpid()) in (run.path / ".lock.holder").read_text()


def test_a_held_lock_is_waited_for_and_the_holder_named(run: RunDirectory) -> None:
    with held_by_another(run) as holder:
        told: list[str] = []

        def waiting(name: str) -> None:
            told.append(name)
            holder.kill()

        with run.lock(waiting):
            assert told == [f"process {holder.pid} on {socket.gethostname()}"]


def test_the_next_owner_removes_what_dead_processes_left_and_nothing_that_a_living_one_writes(
    run: RunDirectory,
) -> None:
    from gancompress.storage.atomic import whole_file

    for name in (".", "samples", "evaluations", "export", "checkpoints/.tmp-00000012"):
        (run.path / name).mkdir(parents=True, exist_ok=True)
        (run.path / name / ".tmp-half-1-2").write_text("ha")
    (run.path / "notes.txt").write_text("a person's")
    (run.path / "checkpoints" / "00000008").mkdir()
    with whole_file(run.path / "export" / "generator.safetensors") as aside:
        aside.write_bytes(b"half")
        with run.lock():
            pass
        left = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())
        assert [name for name in left if not name.startswith(".lock")] == [
            f"export/{aside.name}",
            "notes.txt",
            "recipe.yaml",
            "status.json",
        ]
        aside.write_bytes(b"whole")
    assert (run.path / "export" / "generator.safetensors").read_bytes() == b"whole"
    assert sorted(os.listdir(run.path / "checkpoints")) == ["00000008"]


def test_a_lock_whose_holder_is_not_named_still_locks(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with hold(path):
        (tmp_path / ".lock.holder").write_text("?")
        with pytest.raises(RunError, match="another process"), hold(path):
            raise AssertionError("locked twice")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot lock"), hold(tmp_path / "file" / ".lock"):
        raise AssertionError("locked nothing")


@pytest.mark.parametrize("content", [b"{", b"[]", b"", b'{"state": 7}', b'{"state": "done", "pid": "x"}', None])
def test_a_damaged_status_does_not_block_the_run(
    run: RunDirectory, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    path = run.path / "status.json"
    path.unlink() if content is None else path.write_bytes(content)
    again = RunDirectory.claim(run.path, RECIPE, "ab12")
    status = again.read_status()
    assert (status.state, status.id) == ("interrupted", "ab12")
    assert re.fullmatch(r"status\.json was (damaged|missing) and has been written anew", str(status.reason))
    assert "the run goes on from its checkpoints" in caplog.text
    caplog.clear()
    RunDirectory.claim(run.path, RECIPE, "ab12")
    assert caplog.text == ""


def test_a_status_damaged_while_it_runs_is_written_over(run: RunDirectory) -> None:
    run.status("running")
    (run.path / "status.json").write_bytes(b"\0\0")
    run.status("done")
    assert (run.read_status().state, run.read_status().id) == ("done", "ab12")


def test_without_its_status_a_run_still_refuses_other_recipes(run: RunDirectory, tmp_path: Path) -> None:
    for path in (run.path, tmp_path / "renamed"):
        if not path.exists():
            run.path.rename(path)
        (path / "status.json").write_bytes(b"{")
        with pytest.raises(RunError, match=r"sparsity\.density: 0\.2 there, 0\.3 here"):
            RunDirectory.claim(path, changed(density=0.3), "cd34")
        assert (path / "status.json").read_bytes() == b"{"
    assert RunDirectory.claim(tmp_path / "renamed", RECIPE, "ab12").read_status().id == "ab12"


# ------------------------------------------------------------------------------------------- log


def train(step: int) -> dict:
    return {"kind": "train", "step": step, "loss_generator": step / 3}


def test_the_log_is_one_line_per_record(run: RunDirectory) -> None:
    assert run.read_log() == []
    run.log(train(1))
    run.log({"kind": "evaluation", "step": 1, "metrics": [{"label": "FD[é]", "value": math.nan}]})
    run.log(train(2))
    assert (run.path / "log.jsonl").read_bytes().count(b"\n") == 3
    assert run.read_log("train") == [train(1), train(2)]
    assert run.read_log()[1]["metrics"] == [{"label": "FD[é]", "value": None}]
    json.loads((run.path / "log.jsonl").read_text().splitlines()[1], parse_constant=pytest.fail)


def test_resuming_cuts_the_log_to_the_checkpoint_and_rewrites_nothing(run: RunDirectory) -> None:
    for step in (10, 20, 30):
        run.log(train(step))
        run.log({"kind": "update", "step": step})
    whole = (run.path / "log.jsonl").read_bytes()
    inode = (run.path / "log.jsonl").stat().st_ino
    assert run.truncate_log(20) > 0
    assert [record["step"] for record in run.read_log()] == [10, 10, 20, 20]
    kept = (run.path / "log.jsonl").read_bytes()
    assert whole.startswith(kept)
    assert (run.path / "log.jsonl").stat().st_ino == inode
    assert run.truncate_log(20) == 0
    run.log(train(30))
    assert [record["step"] for record in run.read_log("train")] == [10, 20, 30]
    assert run.truncate_log(0) > 0
    assert run.read_log() == []


@pytest.mark.parametrize(
    "torn", [b'{"kind": "train", "st', b"\0\0\0\0", b'{"kind": "train", "step": 20}', b"\0\0\n\0\n", b"7\n"]
)
def test_a_torn_end_is_dropped(run: RunDirectory, torn: bytes) -> None:
    run.log(train(10))
    path = run.path / "log.jsonl"
    good = path.read_bytes()
    path.write_bytes(good + torn)
    assert run.read_log() == [train(10)]
    assert run.truncate_log(99) == len(torn)
    assert path.read_bytes() == good


def test_damage_in_the_middle_is_named_and_kept(run: RunDirectory) -> None:
    run.log(train(10))
    path = run.path / "log.jsonl"
    damaged = path.read_bytes() + b"{nonsense\n" + path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"log\.jsonl:2: damaged line"):
        run.read_log()
    with pytest.raises(RunError, match=r"log\.jsonl:2"):
        run.truncate_log(5)
    assert path.read_bytes() == damaged


def test_truncating_no_log_is_nothing(run: RunDirectory) -> None:
    assert run.truncate_log(5) == 0


# ------------------------------------------------------------------------------------------- files


def test_json_files_are_replaced_in_one_instant(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.read_json("cost.json") == {}
    run.write_json("cost.json", {"bytes": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cost\.json: cannot write: No space left"):
        run.write_json("cost.json", {"bytes": 2})
    monkeypatch.undo()
    assert run.read_json("cost.json") == {"bytes": 1}
    assert not [name for name in os.listdir(run.path) if name.startswith(".tmp")]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_json_file_is_named(run: RunDirectory, content: bytes) -> None:
    (run.path / "cost.json").write_bytes(content)
    with pytest.raises(RunError, match=r"cost\.json: cannot be read"):
        run.read_json("cost.json")


@pytest.mark.parametrize("content", [b"a: [", b"- list", b"\xff\xfe\xff"])
def test_a_damaged_recipe_is_named(run: RunDirectory, content: bytes) -> None:
    (run.path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"recipe\.yaml.*"):
        run.recipe()


def test_sample_paths_sort_by_step(run: RunDirectory) -> None:
    assert run.sample_path(500) == run.path / "samples" / "00000500.png"
    assert run.samples.is_dir()


def test_runs_are_listed_damaged_ones_too(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "missing") == []
    first = RunDirectory.claim(tmp_path / "a", RECIPE, "1")
    first.log(train(70))
    first.write_json("metrics.json", {"primary": "FD[x]"})
    second = RunDirectory.claim(tmp_path / "b", {**RECIPE, "name": "other"}, "2")
    second.status("done")
    broken = RunDirectory.claim(tmp_path / "c", RECIPE, "3")
    (broken.path / "recipe.yaml").write_text("a: [")
    for name, damaged in (("d", "status.json"), ("e", "metrics.json")):
        hurt = RunDirectory.claim(tmp_path / name, RECIPE, name)
        hurt.log(train(30))
        hurt.status("done")
        (hurt.path / damaged).write_text("{")
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    found = {run.path.name: run for run in list_runs(tmp_path)}
    assert set(found) == {"a", "b", "c", "d", "e"}
    assert (found["d"].status.state, found["d"].last_step) == ("unknown", 30)
    assert found["d"].status.reason == "status.json is damaged; run the recipe again to go on"
    assert (found["e"].status.state, found["e"].last_step, found["e"].metrics) == ("done", 30, {})
    assert "metrics.json: cannot be read as JSON" in found["e"].notices[0]
    assert (found["a"].name, found["a"].last_step, found["a"].metrics["primary"]) == ("digits", 70, "FD[x]")
    assert (found["b"].name, found["b"].status.state) == ("other", "done")
    assert (found["c"].status.state, found["c"].recipe, found["c"].name) == ("pending", {}, "c")
    assert "recipe.yaml" in found["c"].notices[0]


def test_the_last_step_is_read_from_the_end_of_the_log(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.last_step() == 0
    (run.path / "log.jsonl").write_text("".join(json.dumps(train(step)) + "\n" for step in range(100_000)))
    parsed: list[bytes] = []
    monkeypatch.setattr("gancompress.runs.log._record", lambda line: (parsed.append(line), json.loads(line))[1])
    assert run.last_step() == RunRecord(run.path).last_step == 99_999
    assert len(parsed) == 2  # one line each


def test_a_torn_end_does_not_hide_the_last_step(run: RunDirectory) -> None:
    run.log(train(7))
    run.log({"kind": "note"})
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 8')
    assert run.last_step() == 7


def test_listing_a_run_reads_neither_its_recipe_nor_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunDirectory.claim(tmp_path / "a", RECIPE, "1").log(train(70))
    monkeypatch.setattr(RunDirectory, "recipe", lambda run: pytest.fail("read the recipe"))
    monkeypatch.setattr("gancompress.runs.log.lines", lambda path: pytest.fail("read the log"))
    (found,) = list_runs(tmp_path)
    assert (found.status.state, found.last_step, found.noted_best, found.notices) == ("pending", 70, None, ())


def test_reading_runs_needs_no_torch() -> None:
    code = "import sys; import gancompress.runs.record; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", '{"state": "running", "pid": 100000000000000000000, "host": "elsewhere"}'),
        ("status.json", '{"state": ["done"]}'),
        ("status.json", DEEP),
        ("log.jsonl", '{"kind": "train", "step": null}\n'),
        ("log.jsonl", '{"kind": "train", "step": 1e999}\n'),
        ("log.jsonl", DEEP + "\n"),
        ("metrics.json", "{}"),
        ("metrics.json", '{"best": {"step": 1e999, "metrics": [{"label": 3, "value": 1' + "0" * 400 + "}]}}"),
        ("metrics.json", '{"best": {"metrics": {"value": 1}}, "evaluations": [[1], {"metrics": [[]]}]}'),
        ("metrics.json", '{"best": ' + DEEP + "}"),
        ("environment.json", "[1, 2]"),
        ("environment.json", '{"device": {"a": 1}, "threads": "many", "versions": 3, "smoke": [null]}'),
        ("cost.json", '{"theory": {"training": {"convention": {}, "parts_flops": 7}}, "layers": [{"role": ["x"]}]}'),
        ("recipe.yaml", "training: {steps: 1" + "0" * 400 + "}\nsparsity: [1]\ndata: 7\nname: {a: b}"),
        ("recipe.yaml", DEEP),
    ],
)
def test_one_odd_file_breaks_neither_the_list_nor_the_page(tmp_path: Path, name: str, content: str) -> None:
    from gancompress.cli.catalogue import _run_row
    from gancompress.report.html import render

    good, odd = (RunDirectory.claim(tmp_path / one, RECIPE, one) for one in ("good", "odd"))
    for run in (good, odd):
        run.log({"kind": "train", "step": 3, "loss_generator": 1.0})
        run.write_json("metrics.json", {"best": {"step": 3, "metrics": [{"label": "FD", "value": 2.0}]}})
        run.status("done")
    (odd.path / name).write_text(content)
    rows = {row[0]: row for row in map(_run_row, list_runs(tmp_path))}
    assert rows["good"] == ("good", "done", "3", "FD 2", "")
    assert rows["odd"][0] == "odd"
    assert render(RunRecord(odd.path)).endswith("</html>")


def test_a_pipe_in_place_of_a_file_is_never_waited_for(run: RunDirectory) -> None:
    (run.path / "status.json").unlink()
    for name in ("status.json", "metrics.json", "log.jsonl"):
        os.mkfifo(run.path / name)
    (found,) = list_runs(run.path.parent)
    assert (found.status.state, found.last_step, found.noted_best) == ("unknown", 0, None)
    assert all(name in " ".join(found.notices) for name in ("status.json", "metrics.json"))
