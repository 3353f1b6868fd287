"""Whole runs on two processes: the same numbers as on one, and one end for all."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gancompress.errors import DataError, GroupError, RunError
from gancompress.experiment.run import Experiment
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import checkpoints
from gancompress.training.batch_norm import global_statistics, synchronise_batch_norm
from gancompress.training.groups import Group
from gancompress.training.loop import Trainer

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from gancompress.training.engine import UpdateReport

#: batch norm in both networks, conditional, grown by gradient: whatever could depend on the number of processes
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 64},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 8, "conditional": True},
    "sparsity": {
        "method": {"name": "dst", "explore": "both", "every": 4},
        "generator": {"density": 0.2},
        "discriminator": {"density": 0.5},
    },
    "training": {
        "steps": 12,
        "batch_size": 8,
        "log_every": 1,
        "checkpoint_every": 5,
        "keep_checkpoints": 9,
        "threads": 1,
        "flip": True,
    },
}
#: relative difference of losses between one process and two, from the order of summation in float32
TOLERANCE = 1e-4


def train(root: Path, group: Group | None = None) -> Path:
    return Experiment(parse_recipe(TINY).recipe, root, evaluates=False, group=group).run().path


def forget(run: Path, after: int) -> None:
    """Remove the checkpoints after one step, as if the run had been killed before them."""
    for folder in checkpoints(run / "checkpoints"):
        if int(folder.name) > after:
            shutil.rmtree(folder)


def last(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in checkpoints(run / "checkpoints")[-1].iterdir()}


def log(run: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


# ---------------------------------------------------------------- what the two processes do, in one go


def batch_norm_apart(group: Group, kind: type[nn.Module], *shape: int) -> dict[str, Any]:
    """Compare batch norm on two halves of a batch with plain batch norm on all of it: the worst differences."""
    torch.manual_seed(0)
    whole = 3 + 2 * torch.randn(8, 3, *shape)
    weights = torch.randn(8, 3, *shape)
    ours, plain = kind(3), kind(3)
    synchronise_batch_norm(ours)
    part = slice(4 * group.rank, 4 * group.rank + 4)
    x = whole[part].clone().requires_grad_()
    with global_statistics(group):
        out = ours(x)
        # a penalty on the gradient too: its own gradient passes the norm twice
        (inner,) = torch.autograd.grad((out * weights[part]).mean(), x, create_graph=True)
        loss = (out.square() * weights[part]).mean() + 10 * inner.square().sum()
        loss.backward()
        group.mean_gradients(ours.parameters())
    alone = ours(x.detach())  # outside, a rank has its own statistics
    y = whole.clone().requires_grad_()
    expected = plain(y)
    (inner,) = torch.autograd.grad((expected * weights).mean(), y, create_graph=True)
    # the ranks' gradient of their mean is twice that of the whole, their penalties' mean is half the sum
    ((expected.square() * weights).mean() + 10 * (2 * inner).square().sum() / 2).backward()
    names = ("weight", "bias")
    return {
        "output": (out - expected[part]).abs().max().item(),
        "gradients": [(getattr(ours, n).grad - getattr(plain, n).grad).abs().max().item() for n in names],
        "alone": (alone.mean((0, *range(2, alone.dim()))) - ours.bias).abs().max().item(),
        "names": list(ours.state_dict()) == list(plain.state_dict()),
    }


def running_averages(group: Group) -> list[list[float]]:
    whole = torch.arange(8.0).view(4, 2, 1, 1)
    norms = [nn.BatchNorm2d(2), nn.BatchNorm2d(2)]
    synchronise_batch_norm(norms[0])
    with global_statistics(group):
        norms[0](whole[2 * group.rank : 2 * group.rank + 2])
    norms[1](whole)
    return [[*norm.running_mean.tolist(), *norm.running_var.tolist()] for norm in norms]


def trained(group: Group, folder: Path, hashes: list[str]) -> dict[str, Any]:
    run = train(folder / "two", group)
    before = len(hashes)
    if group.is_main:
        first = last(run)
        forget(run, 5)
        shutil.copytree(folder / "two", folder / "for one")
        shutil.copytree(folder / "two", folder / "astray")
    group.barrier()
    train(folder / "two", group)
    return {"hashes": hashes[:before], "again": hashes[before:], "same": not group.is_main or last(run) == first}


def member(rank: int, folder: str) -> None:
    """One process of the pair. What it finds goes into files; the last thing that rank 1 does is to be killed."""
    torch.set_num_threads(1)
    root = Path(folder)
    hashes: list[str] = []
    step = Trainer.step

    def watched(self: Trainer, *args: Any) -> list[UpdateReport]:
        reports = step(self, *args)
        hashes.extend(self.engine.state(report.role).hash() for report in reports)
        return reports

    Trainer.step = watched  # type: ignore[method-assign]

    def meet(name: str) -> Group:
        return Group.join("cpu", rank=rank, world=2, init_method=f"file://{folder}/meet-{name}")

    def note(name: str, found: Any) -> None:
        (root / f"{name}-{rank}.json").write_text(json.dumps(found))

    def failing(name: str, at: int, fail: Any) -> None:
        """Train until rank 1 fails in its own way in one step; say how this process ended."""

        def trouble(self: Trainer, *args: Any) -> list[UpdateReport]:
            if rank == 1 and self.position.total + 1 == at:
                fail()
            return step(self, *args)

        Trainer.step = trouble  # type: ignore[method-assign]
        try:
            with meet(name) as group:
                train(root / name, group)
            note(name, "no error")
        except Exception as error:
            note(name, f"{type(error).__name__}: {error}")

    def damaged() -> None:
        raise DataError("image 7 is damaged")

    new_group = torch.distributed.new_group

    def late(**kinds: Any) -> Any:
        control = new_group(**kinds)
        time.sleep(0.5)
        (root / "connected").touch()
        return control

    try:
        if rank == 0:
            torch.distributed.new_group = late
        with meet("late") as group:
            note("late", (root / "connected").exists())
        torch.distributed.new_group = new_group
        with meet("work") as group:
            note("norm2", batch_norm_apart(group, nn.BatchNorm2d, 2, 2))
            note("norm1", batch_norm_apart(group, nn.BatchNorm1d))
            note("running", running_averages(group))
            note("train", trained(group, root, hashes))
        try:
            with meet("astray") as group:
                # rank 1 sees another disk
                train(root / ("astray" if rank == 0 else "nothing"), group)
        except Exception as error:
            note("astray", f"{type(error).__name__}: {error}")
        failing("raise", 3, damaged)
        with contextlib.suppress(GroupError), meet("nccl") as group:
            if rank == 1:  # with NCCL the connections between GPUs stay until the process ends
                dataclasses.replace(group, device=torch.device("cuda", 0)).fail(DataError("image 7 is damaged"))
                group._links.store.wait(["heard"], datetime.timedelta(seconds=60))
                torch.distributed.destroy_process_group()
                raise GroupError("left")
            try:
                note("nccl", group.any(False))
            except GroupError as error:
                note("nccl", str(error))
                group._links.store.set("heard", "")
                raise
        failing("kill", 7, lambda: os.kill(os.getpid(), signal.SIGKILL))
    except BaseException:
        note("traceback", traceback.format_exc())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found; starting them is what costs."""
    folder = tmp_path_factory.mktemp("pair")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gancompress.experiment.run"])  # imported once, not by every process
    members: list[BaseProcess] = [context.Process(target=member, args=(rank, str(folder))) for rank in range(2)]
    for process in members:
        process.start()
    for process in members:
        process.join(300)
        if process.is_alive():
            for other in members:
                other.kill()
            pytest.fail("a process hangs")
    assert not list(folder.glob("traceback-*")), next(folder.glob("traceback-*")).read_text()
    assert [process.exitcode for process in members] == [0, -signal.SIGKILL]
    return folder


def read(pair: Path, name: str, rank: int) -> Any:
    return json.loads((pair / f"{name}-{rank}.json").read_text())


def test_nobody_goes_on_before_all_are_connected(pair: Path) -> None:
    # or one could fail while others still connect, who would see a broken connection and no reason
    assert read(pair, "late", 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_batch_norm_sees_all_ranks_within_a_step_and_its_own_outside(pair: Path, rank: int) -> None:
    for name in ("norm2", "norm1"):
        found = read(pair, name, rank)
        assert found["output"] < 1e-5
        assert max(found["gradients"]) < 1e-5
        assert found["alone"] < 1e-5
        assert found["names"]
    ours, plain = read(pair, "running", rank)
    assert ours == pytest.approx(plain, rel=1e-6)
    assert plain[0] == pytest.approx(0.1 * 3)  # the mean of 0, 2, 4, 6


def test_losses_are_those_of_one_process(pair: Path, tmp_path: Path) -> None:
    one, two = train(tmp_path), next((pair / "two").iterdir())
    assert len(log(one, "train")) == len(log(two, "train")) == 12
    for alone, together in zip(log(one, "train"), log(two, "train"), strict=True):
        for key in ("loss_generator", "loss_discriminator", "d_real", "d_fake"):
            assert together[key] == pytest.approx(alone[key], rel=TOLERANCE, abs=TOLERANCE), (alone["step"], key)


def test_masks_are_equal_on_both_at_every_update(pair: Path) -> None:
    first, second = read(pair, "train", 0), read(pair, "train", 1)
    assert len(first["hashes"]) == 6  # two roles, steps 4, 8 and 12
    assert len(set(first["hashes"])) == 6
    assert first["hashes"] == second["hashes"]


def test_a_resumed_pair_goes_the_same_way_again(pair: Path) -> None:
    for rank in (0, 1):
        found = read(pair, "train", rank)
        assert found["again"] == found["hashes"][2:]
    assert read(pair, "train", 0)["same"]
    assert len(log(next((pair / "two").iterdir()), "train")) == 12


def test_one_process_goes_on_where_two_stopped(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "for one", tmp_path / "one")
    run = train(tmp_path / "one")
    two = next((pair / "two").iterdir())
    for alone, together in zip(log(run, "train"), log(two, "train"), strict=True):
        assert alone["loss_generator"] == pytest.approx(together["loss_generator"], rel=TOLERANCE, abs=TOLERANCE)


def test_ranks_that_see_different_checkpoints_do_not_start(pair: Path) -> None:
    # rank 1 finds no run directory; or, had it one, another step
    assert "not a run directory" in read(pair, "astray", 1)
    assert read(pair, "astray", 0) == "GroupError: rank 1 failed: " + read(pair, "astray", 1)


def test_a_rank_that_fails_ends_the_others_with_its_reason(pair: Path) -> None:
    assert read(pair, "raise", 1) == "DataError: image 7 is damaged"
    assert read(pair, "raise", 0) == "GroupError: rank 1 failed: DataError: image 7 is damaged"
    status = json.loads((next((pair / "raise").iterdir()) / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("failed", read(pair, "raise", 0))


def test_a_rank_that_fails_on_a_gpu_ends_the_others_at_once(pair: Path) -> None:
    assert read(pair, "nccl", 0) == "rank 1 failed: DataError: image 7 is damaged"


def test_a_rank_that_is_killed_ends_the_others_and_a_checkpoint_is_left(pair: Path, tmp_path: Path) -> None:
    message = read(pair, "kill", 0)
    assert message.startswith("GroupError: rank 0 lost another process of this run: killed")
    run = next((pair / "kill").iterdir())
    assert [int(folder.name) for folder in checkpoints(run / "checkpoints")] == [5]
    shutil.copytree(pair / "kill", tmp_path / "kill")
    assert len(log(train(tmp_path / "kill"), "train")) == 12


def test_processes_that_nobody_started_together_are_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    message = (
        "2 processes cannot meet: environment variable MASTER_PORT expected, but not set; start them with torchrun"
    )
    with pytest.raises(RunError, match=message):
        Group.from_environment()


def test_a_group_of_one_ends_as_it_likes() -> None:
    with pytest.raises(GroupError, match="mine"), Group():
        raise GroupError("mine")
    assert Group().any(True)
    assert not Group().any(False)


# ---------------------------------------------------------------- as a person starts it


def torchrun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "gancompress", *arguments]
    environment = {**os.environ, "GANCOMPRESS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def worker(launcher: subprocess.Popen[str], rank: int) -> int:
    """Return the process that torchrun started for one rank."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1] if entry.name.isdigit() else ""
            if parent == str(launcher.pid) and f"\0RANK={rank}\0" in "\0" + (entry / "environ").read_text():
                return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


def wait_for_lines(launcher: subprocess.Popen[str], start: str) -> None:
    assert launcher.stderr is not None
    for line in launcher.stderr:
        if line.startswith(start):
            return
    raise AssertionError(f"it ended without {start!r}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_torchrun_trains_evaluates_reports_survives_a_kill_and_stops_when_told(tmp_path: Path) -> None:
    recipe = {**TINY, "training": {**TINY["training"], "steps": 400, "log_every": 5}, "evaluation": {"samples": 40}}
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe))
    killed = torchrun(tmp_path, "run", "tiny.yaml")
    wait_for_lines(killed, "step ")
    os.kill(worker(killed, 1), signal.SIGKILL)
    out, errors = killed.communicate(timeout=30)
    assert killed.returncode != 0
    assert "rank 0 lost another process of this run: killed" in errors
    assert "report:" not in out

    stopped = torchrun(tmp_path, "run", "tiny.yaml")
    wait_for_lines(stopped, "step ")
    stopped.send_signal(signal.SIGTERM)
    _, errors = stopped.communicate(timeout=60)
    assert "stopping after this step" in errors
    assert "is kept, the same command goes on from there" in errors
    run = next((tmp_path / "runs").iterdir())
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"

    whole = torchrun(tmp_path, "run", "tiny.yaml")
    out, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    assert errors.count("resuming tiny at step ") == 1
    assert out.count("report: ") == 1
    assert (run / "report.html").is_file()
    assert [record["step"] for record in log(run, "train")] == list(range(5, 401, 5))
    assert len(log(run, "evaluation")) == 1
