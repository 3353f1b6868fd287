"""A run survives: killed at any step and run again, it ends with the same bytes as one that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch._dynamo  # noqa: F401 - the first step of an optimizer imports it, in every copy of this process anew

from gancompress.experiment.run import Experiment
from gancompress.progress import Silent
from gancompress.recipe.load import load_recipe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are killed in copies of this process")

TINY = """
name: tiny
data: {name: shapes, resolution: 16, images: 64}
model: {name: dcgan, channels: 4, latent_dim: 8, conditional: true}
sparsity:
  method: {name: dst, explore: both, every: 4}
  generator: {density: 0.2}
  discriminator: {density: 0.5}
training:
  steps: 40
  batch_size: 8
  discriminator_steps: 2
  flip: true
  log_every: 5
  checkpoint_every: 5
  keep_checkpoints: 20
  ema: {decay: 0.9, start: 3}
"""


class Killer(Silent):
    """Sends a signal to its own process right after a step."""

    def __init__(self, step: int, number: int) -> None:
        self.last, self.number = step, number

    def step(self, done: int, rate: float) -> None:
        if done == self.last:
            os.kill(os.getpid(), self.number)


def train(recipe: Path, root: Path, *overrides: str, kill_at: int = -1, with_signal: int = signal.SIGKILL) -> int:
    """Run a recipe in this process; return the exit code of a command."""
    loaded = load_recipe(str(recipe), overrides=overrides).recipe
    try:
        Experiment(loaded, root, Killer(kill_at, with_signal), evaluates=False).run()
    except KeyboardInterrupt:
        return 130
    return 0


def run(recipe: Path, root: Path, *overrides: str, **killed: int) -> int:
    """Run it in a copy of this process, which spares the imports; return its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = train(recipe, root, *overrides, **killed)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def checkpoint_bytes(root: Path, step: int) -> dict[str, bytes]:
    (directory,) = root.iterdir()
    files = (directory / "checkpoints" / f"{step:08d}").iterdir()
    return {file.name: file.read_bytes() for file in files}


def training_log(root: Path) -> list[dict[str, object]]:
    (directory,) = root.iterdir()
    records = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "rate")} for record in records]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained in a process that shares nothing with this one."""
    root = tmp_path_factory.mktemp("whole")
    code = "import sys; from pathlib import Path; import test_resume as t; sys.exit(t.train(*map(Path, sys.argv[1:])))"
    own = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": own}
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe), str(root)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return root


def test_killed_and_resumed_equals_never_stopped(recipe: Path, whole: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    assert run(recipe, parts, kill_at=17) == -signal.SIGKILL
    (directory,) = parts.iterdir()
    assert sorted(p.name for p in (directory / "checkpoints").iterdir())[-1] == "00000015"
    assert run(recipe, parts) == 0
    for step in (20, 40):
        assert checkpoint_bytes(parts, step) == checkpoint_bytes(whole, step)
    assert training_log(parts) == training_log(whole)


def test_two_different_steps_differ(whole: Path) -> None:
    """The control: without it, equality above could be the equality of nothing."""
    earlier, later = checkpoint_bytes(whole, 35), checkpoint_bytes(whole, 40)
    same = [name for name in earlier if earlier[name] == later[name]]
    # running means are reset by the log line that both of these steps write
    assert same == ["data.safetensors", "meters.safetensors"]  # and the images are the same


def test_another_seed_differs(recipe: Path, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run(recipe, other, "seed=1") == 0
    weights = "generator.safetensors"
    assert checkpoint_bytes(other, 40)[weights] != checkpoint_bytes(whole, 40)[weights]


def test_a_signal_checkpoints_the_very_step_and_exits_130(recipe: Path, whole: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    assert run(recipe, parts, kill_at=17, with_signal=signal.SIGINT) == 130
    (directory,) = parts.iterdir()
    assert (directory / "checkpoints" / "00000018").is_dir() or (directory / "checkpoints" / "00000017").is_dir()
    assert json.loads((directory / "status.json").read_text())["state"] == "interrupted"
    assert run(recipe, parts) == 0
    assert checkpoint_bytes(parts, 40) == checkpoint_bytes(whole, 40)
