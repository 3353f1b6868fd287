"""What a run will take is known before it takes it, and nothing that fits is refused."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gancompress.errors import RunError
from gancompress.experiment import memory
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.experiment.memory import (
    available_memory,
    check_images,
    check_memory,
    check_networks,
    estimate_memory,
    peak_bytes,
)
from gancompress.experiment.networks import build_architecture
from gancompress.experiment.run import Experiment
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.recipe.schema import Recipe
    from gancompress.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("played_anew")

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 64},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8},
    "sparsity": {"method": "static", "density": 0.5},
    "training": {"steps": 2, "batch_size": 32, "threads": 1, "kernels": "dense"},
}


def build(*overrides: str) -> tuple[Recipe, Trainer]:
    recipe = parse_recipe(TINY, overrides).recipe
    return recipe, build_trainer(recipe, build_dataset(recipe))


def test_what_is_alive_at_once_is_counted_and_what_is_gone_is_not() -> None:
    held = torch.zeros(1000, device="meta")

    def step() -> None:
        first = torch.zeros(100, device="meta")  # 400 bytes
        second = first + 1  # 800 bytes
        view = second.view(10, 10)  # of the same bytes
        del first, second  # the view keeps 400 alive
        third = view.double()  # 400 + 800
        held.add_(1)  # in place, in what was there before
        del third
        view.half()  # 400 + 200

    assert peak_bytes(step, [held]) == 1200


def test_a_backward_pass_keeps_what_it_needs() -> None:
    layer = nn.Linear(10, 20, bias=False, device="meta")
    x = torch.zeros(5, 10, device="meta")

    def step() -> None:
        layer(x).relu().sum().backward()

    # the most is there at the end: the gradients of the product and of the weight, the loss and its gradient
    assert peak_bytes(step, [layer.weight, x]) == 5 * 20 * 4 + 10 * 20 * 4 + 4 + 4


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.conditional=true", "training.joint_batch=false"),
        ("objective.r1.weight=1", "objective.r1.every=1"),
        ("objective.loss=wgan-gp",),
        ("objective.loss=relativistic", "objective.diffaugment=[color, translation, cutout]"),
        ("training.precision=bf16",),
        ("training.fold=always",),
        ("training.accumulate=4",),
        ("model={name: biggan, channels: 4, conditional: true}", "data.resolution=32"),
    ],
    ids=str,
)
def test_the_estimate_is_a_little_below_what_a_step_really_holds(overrides: tuple[str, ...]) -> None:
    recipe, trainer = build(*overrides)
    estimate = estimate_memory(recipe, trainer)
    assert estimate.step is not None
    current = declared_rounds(recipe, trainer)[0]
    trainer.engine.init(trainer.probe)
    networks = (trainer.generator, trainer.discriminator, trainer.ema.module)
    trainer.step(current)  # its first step makes the moments
    moments = [v for o in trainer.optimizers.values() for s in o.state.values() for v in s.values()]
    assert estimate.moments == pytest.approx(sum(v.nbytes for v in moments if v.numel() > 1), abs=64)
    held = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    real = peak_bytes(
        lambda: trainer.step(current), [*held, *moments, *trainer.engine.state("generator").masks.values()]
    )
    # above it where convolutions are folded, which the estimate does not know; MARGIN is for that
    assert 0.7 * real < estimate.step < 1.15 * real < memory.MARGIN * real


def test_weights_and_average_are_counted_exactly() -> None:
    recipe, trainer = build()
    estimate = estimate_memory(recipe, trainer, images=7)
    size = {
        network: sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
        for network in (trainer.generator, trainer.discriminator)
    }
    assert estimate.weights == sum(size.values())
    assert estimate.average == size[trainer.generator]
    assert estimate.total == estimate.weights + estimate.average + estimate.to_come + 7
    assert "images 7 B" in estimate.describe()


def test_the_cost_of_a_run_holds_the_peak_of_its_training(tmp_path: Path) -> None:
    recipe, trainer = build()
    dataset = build_dataset(recipe)
    images = dataset.bytes_to_prepare()
    found = Experiment(recipe, tmp_path, evaluates=False).run().cost["bytes"]["training"]
    assert found == estimate_memory(recipe, trainer, images=images).to_dict()
    assert found["peak"] == sum(size for part, size in found.items() if part != "peak")
    unknown = dataclasses.replace(estimate_memory(recipe, trainer), step=None)
    assert unknown.to_dict()["peak"] is None


def test_a_network_that_needs_values_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, trainer = build()
    forward = type(trainer.generator).forward

    def peeking(self: nn.Module, z: torch.Tensor, *rest: Any) -> torch.Tensor:
        assert z.sum().item() is not None
        return forward(self, z, *rest)  # type: ignore[no-any-return, operator]

    monkeypatch.setattr(type(trainer.generator), "forward", peeking)
    estimate = check_memory(recipe, trainer)
    assert estimate.step is None
    assert "activations not counted" in estimate.describe()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_process_forked_after_an_estimate_can_train() -> None:
    script = """
import os, torch
from gancompress.experiment import memory
from torch import nn
mode = memory._Shapes(allow_non_fake_inputs=True)
with mode:
    memory._without_values(nn.Linear(2, 2), mode)(torch.ones(1, 2)).sum().backward()
nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()
child = os.fork()
if child == 0:
    try:
        nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()
    except RuntimeError:
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, trainer = build()
    needed = estimate_memory(recipe, trainer).to_come
    monkeypatch.setattr(memory, "available_memory", lambda *_: needed)
    check_memory(recipe, trainer)  # just fits
    monkeypatch.setattr(memory, "available_memory", lambda *_: needed // 2)
    message = r"not enough memory: .* are free, and this run takes at least .*; lower training\.batch_size or model\."
    with pytest.raises(RunError, match=message):
        Experiment(recipe, tmp_path / "runs", evaluates=False).run()
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(memory, "available_memory", lambda *_: None)
    check_memory(recipe, trainer)  # nobody knows: nobody refuses


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, trainer = build()
    needed = estimate_memory(recipe, trainer).to_come
    monkeypatch.setattr(memory, "available_memory", lambda *_: 2 * needed)  # and a quarter, for the margin
    assert "on each of 2 processes" in check_memory(recipe, trainer, processes=2).describe()
    with pytest.raises(RunError, match="start fewer processes"):
        check_memory(recipe, trainer, processes=3)


def test_images_that_do_not_fit_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_dataset(parse_recipe(TINY).recipe)
    monkeypatch.setattr(type(dataset), "bytes_to_prepare", lambda self: 1000)
    monkeypatch.setattr(memory, "available_memory", lambda *_: 1000)
    assert check_images(dataset) == 1000
    with pytest.raises(RunError, match=r"the images take 1 kB decoded on each of 2 processes; .*data\.memory_limit=0"):
        check_images(dataset, 2)


def test_what_is_free_is_what_the_machine_and_its_container_leave(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:   3000 kB\nSwapFree: 1000 kB\nHugePages: 0\n")
    assert memory._free_in_machine(tmp_path / "meminfo") == 4000 * 1024

    def group(path: Path, limit: str, used: int, files: int, swap: str | None = None) -> None:
        path.mkdir(exist_ok=True)
        (path / "memory.max").write_text(f"{limit}\n")
        (path / "memory.current").write_text(f"{used}\n")
        (path / "memory.stat").write_text(f"anon 5\ninactive_file {files}\nactive_file 1\n")
        if swap is not None:
            (path / "memory.swap.max").write_text(swap)
            (path / "memory.swap.current").write_text("10")

    root, own = tmp_path / "cgroup", tmp_path / "own"
    group(root, "max", 0, 0)
    group(root / "jobs", "1000", 600, 99)
    group(root / "jobs" / "one", "max", 0, 0)
    own.write_text("3:cpu:/x\n0::/jobs/one\n")
    assert memory._free_in_container(root, own) == 1000 - 600 + 100
    group(root / "jobs" / "one", "300", 200, 9, swap="60")
    assert memory._free_in_container(root, own) == 300 - 200 + 10 + 50
    assert memory._free_in_container(tmp_path / "nothing", tmp_path / "none") is None


def test_this_machine_has_some() -> None:
    free = available_memory()
    assert free is None or free > 2**20


def test_networks_that_cannot_fit_are_never_built(tmp_path: Path) -> None:
    recipe = parse_recipe(TINY, ("model.channels=1000000",)).recipe  # terabytes, which nobody draws
    with pytest.raises(RunError, match=r"the networks alone take .* TB: weights .* TB.*; lower model\.channels"):
        Experiment(recipe, tmp_path / "runs").run()
    assert not (tmp_path / "runs").exists()


def test_where_networks_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(TINY).recipe
    architecture = build_architecture(recipe, build_dataset(recipe).spec)
    generator, discriminator = (sum(p.numel() * 4 for p in net.parameters())
                                for net in (architecture.generator(), architecture.discriminator()))  # fmt: skip
    buffers = sum(b.numel() * b.element_size() for net in (architecture.generator(), architecture.discriminator())
                  for b in net.buffers())  # fmt: skip
    weights = generator + discriminator + buffers
    free = {"cpu": weights, "cuda": weights}
    monkeypatch.setattr(memory, "MARGIN", 1)
    monkeypatch.setattr(memory, "available_memory", lambda device: free[device.type])
    with pytest.raises(RunError, match=r"^not enough memory"):
        check_networks(recipe, architecture, torch.device("cpu"))
    with pytest.raises(RunError, match=r"^not enough GPU memory"):  # on the way there weights are all
        check_networks(recipe, architecture, torch.device("cuda"))
    free["cuda"] = 6 * weights
    check_networks(recipe, architecture, torch.device("cuda"))
    with pytest.raises(RunError, match=r"^not enough memory.* on each of 2 processes"):
        check_networks(recipe, architecture, torch.device("cuda"), processes=2)
