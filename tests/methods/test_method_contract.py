"""What every method must do, on real runs. A new one joins by itself; ``SETTINGS`` makes it act within a few steps."""

from __future__ import annotations

import dataclasses
import signal
from typing import TYPE_CHECKING

import pytest

from gancompress.assemble import ROLES, build_dataset, build_trainer
from gancompress.experiment import Experiment
from gancompress.observer import Silent
from gancompress.recipe.load import load_recipe
from gancompress.registry import METHODS
from gancompress.training.checkpoint import latest

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.training.loop import Trainer

MODELS = {"dcgan": "{name: dcgan, channels: 4, latent_dim: 8}", "sngan": "{name: sngan, channels: 4, latent_dim: 8}"}

DYNAMIC = "explore: both, every: 2"
SETTINGS = {
    "dst": DYNAMIC,
    "set": DYNAMIC,
    "rigl": DYNAMIC,
    "stu-gan": "every: 2",
    "magnitude": "scope: global",
    "gmp": "every: 2, regrow: 0.2",
    "imp": "rate: 0.5, rewind_step: 2, discriminator: reinitialise, distillation: 0.5, control: random",
    "adapt": "every: 2, every_discriminator: 2, measure_every: 1, window: 2",
}
#: methods whose masks keep everything, whatever the recipe asks for
WHOLE = {"dense", "narrow"}

RECIPE = """
name: contract
data: {{name: shapes, resolution: {resolution}, images: 16}}
model: {model}
sparsity:
  method: {{{method}}}
  generator: {{density: 0.3}}
  discriminator: {{density: 0.4}}
training: {{steps: 4, batch_size: 2, log_every: 3, keep_checkpoints: 99, device: cpu}}
"""


class StopAt(Silent):
    """Send the signal of Ctrl-C after a given step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: int, rate: float) -> None:
        if done == self.at:
            signal.raise_signal(signal.SIGINT)


@dataclasses.dataclass
class Run:
    """One finished run: its trainer restored, and the bytes of its last checkpoint."""

    trainer: Trainer
    rounds: list[int]
    files: dict[str, bytes]

    @property
    def masks(self) -> list[str]:
        return [self.trainer.engine.state(role).hash() for role in ROLES]


def train(root: Path, method: str, model: str, seed: int = 0, stops: list[int] | None = None) -> Run:
    root.mkdir()
    path = root / "contract.yaml"
    named = f"name: {method}" + (f", {SETTINGS[method]}" if method in SETTINGS else "")
    path.write_text(RECIPE.format(resolution=32 if model == "sngan" else 16, model=MODELS[model], method=named))
    recipe = load_recipe(path, overrides=(f"seed={seed}",)).recipe
    for stop in stops or []:
        with pytest.raises(KeyboardInterrupt):
            Experiment(recipe, root / "runs", StopAt(stop), evaluates=False).run()
    finished = Experiment(recipe, root / "runs", evaluates=False).run()
    snapshot = latest(finished.directory / "checkpoints").snapshot
    assert snapshot is not None
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.restore({name: dict(group) for name, group in snapshot.groups.items()}, dict(snapshot.scalars))
    asked = {role: trainer.engine.budget(role).density for role in ROLES}
    rounds = [current.steps for current in trainer.engine.method.rounds(recipe.training.steps, asked)]
    assert snapshot.step == sum(rounds)
    last = finished.directory / "checkpoints" / f"{snapshot.step:08d}"
    return Run(trainer, rounds, {file.name: file.read_bytes() for file in last.iterdir()})


def stops_of(rounds: list[int]) -> list[int]:
    """The middle and the end of every round but the last, whose end is the end of the run."""
    found, before = [], 0
    for steps in rounds:
        found += [before + steps // 2, before + steps]
        before += steps
    return found[:-1]


@pytest.mark.parametrize("method", METHODS.builtin_names())
@pytest.mark.parametrize("model", MODELS)
def test_contract(method: str, model: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", method, model)

    # exact counts; zero off the mask in weights, moments and average
    whole.trainer.engine.check()
    for role in ROLES:
        state, budget = whole.trainer.engine.state(role), whole.trainer.engine.budget(role)
        assert all(count > 0 for count in state.budgets.values())
        if method in WHOLE:
            assert state.density == 1
        elif method == "adapt" and role == "discriminator":
            # one decision, after step 2, the first with a full window
            assert abs(state.nonzeros - budget.total) == round(0.05 * sum(budget.sizes.values()))
        else:
            assert state.nonzeros == budget.total

    # stopped in the middle and at the end of every round, it ends with the same bytes
    parts = train(tmp_path / "parts", method, model, stops=stops_of(whole.rounds))
    assert parts.masks == whole.masks
    assert {name for name in whole.files if parts.files[name] != whole.files[name]} == set()

    # another seed draws other masks and other weights
    other = train(tmp_path / "other", method, model, seed=1)
    assert other.files["generator.safetensors"] != whole.files["generator.safetensors"]
    if method not in WHOLE:
        assert all(a != b for a, b in zip(other.masks, whole.masks, strict=True))


def test_every_method_is_held_to_it() -> None:
    """The settings above name methods that exist, and the tests stop runs where they mean to."""
    assert SETTINGS.keys() | WHOLE <= set(METHODS.builtin_names())
    assert stops_of([6]) == [3]
    assert stops_of([3, 3]) == [1, 3, 4]
    assert stops_of([6, 6, 6]) == [3, 6, 9, 12, 15]
