"""A run survives: killed at any step and run again, it ends with the same bytes as one that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# one process trains the reference run that all tests here compare with
pytestmark = pytest.mark.xdist_group("resume")

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

# Runs the recipe in its own process and, if asked, kills that process dead right after a step.
RUNNER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from gancompress.experiment.run import Experiment
from gancompress.progress import Silent
from gancompress.recipe.load import load_recipe

class Killer(Silent):
    def step(self, done, rate):
        if done == int(sys.argv[3]):
            os.kill(os.getpid(), int(sys.argv[4]))

recipe = load_recipe(sys.argv[1], overrides=tuple(sys.argv[5:])).recipe
try:
    Experiment(recipe, Path(sys.argv[2]), Killer(), evaluates=False).run()
except KeyboardInterrupt:
    sys.exit(130)
"""


def run(
    recipe: Path, root: Path, *overrides: str, kill_at: int = -1, with_signal: int = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUNNER, str(recipe), str(root), str(kill_at), str(int(with_signal)), *overrides]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


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
    root = tmp_path_factory.mktemp("whole")
    done = run(recipe, root)
    assert done.returncode == 0, done.stderr
    return root


def test_killed_and_resumed_equals_never_stopped(recipe: Path, whole: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    assert run(recipe, parts, kill_at=17).returncode == -signal.SIGKILL
    (directory,) = parts.iterdir()
    assert sorted(p.name for p in (directory / "checkpoints").iterdir())[-1] == "00000015"
    resumed = run(recipe, parts)
    assert resumed.returncode == 0, resumed.stderr
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
    assert run(recipe, other, "seed=1").returncode == 0
    weights = "generator.safetensors"
    assert checkpoint_bytes(other, 40)[weights] != checkpoint_bytes(whole, 40)[weights]


def test_a_signal_checkpoints_the_very_step_and_exits_130(recipe: Path, whole: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    stopped = run(recipe, parts, kill_at=17, with_signal=signal.SIGINT)
    assert stopped.returncode == 130, stopped.stderr
    (directory,) = parts.iterdir()
    assert (directory / "checkpoints" / "00000018").is_dir() or (directory / "checkpoints" / "00000017").is_dir()
    assert json.loads((directory / "status.json").read_text())["state"] == "interrupted"
    assert run(recipe, parts).returncode == 0
    assert checkpoint_bytes(parts, 40) == checkpoint_bytes(whole, 40)
