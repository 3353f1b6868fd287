"""A training step on a GPU that is not there: every tensor is where it belongs, and nothing is read from it.

Torch's fake tensors have a device and a shape and no numbers. Mixing devices, or reading a number, is an error as on a
real GPU. They have no backward pass without one: gradients are made up, everything else is the real code. They are not
let go of cleanly without a GPU either, so all of it happens in a process of its own.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch
from torch import nn

if TYPE_CHECKING:
    from gancompress.training.loop import Trainer

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 32, "images": 24, "classes": 3},
    "model": {"name": "sngan", "channels": 8, "discriminator_channels": 8, "latent_dim": 6, "conditional": True},
    "sparsity": {"method": {"name": "dst", "explore": "both", "every": 2}, "density": 0.4},
    "training": {"steps": 6, "batch_size": 4, "generator_batch_size": 8, "discriminator_steps": 2, "flip": True},
}
SETTINGS = {
    "plain": ("training.fold=never", "training.feed=direct"),
    "fast": ("training.channels_last=true", "training.fold=always", "training.accumulate=2", "training.feed=device"),
    "penalised": ("objective.diffaugment=[color, translation, cutout]", "objective.orthogonal.weight=1"),
    "dense moments": ("sparsity.moments=dense", "training.joint_batch=false", "training.fused=false"),
    "adapt": ("sparsity.method={name: adapt, mode: relaxed, measure_every: 1}",),
    "biggan": (
        "model={name: biggan, channels: 8, latent_dim: 60, shared_embedding: 12, hierarchical: true}",
        "data.resolution=64",
    ),
    "biggan-deep": ("model={name: biggan-deep, channels: 4, latent_dim: 3, attention: 16}", "data.resolution=128"),
    "dcgan": ("model={name: dcgan, channels: 4, conditional: true}",),
}


def moved(self: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """What ``nn.Module.to`` does, by new parameters: those of fake tensors cannot be changed in place."""
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(change(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = change(buffer)
    return self


def step(trainer: Trainer) -> None:
    """Take the first step of a round, with masks that nobody drew and gradients that nobody computed."""
    from gancompress.sparsity.state import SparseState

    def backward(loss: torch.Tensor) -> None:
        assert loss.device.type == "cuda"
        for network in (trainer.generator, trainer.discriminator):
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.empty_like(parameter)

    for net in trainer.engine._nets.values():
        masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in net.parameters.items()}
        net.load(SparseState(masks, dict(net.parts.budget.counts)))
        net.age = 2  # the first steps inspect the optimizer, which reads numbers
    (current,) = trainer.engine.method.rounds(6, {"generator": 0.4, "discriminator": 0.4})
    with mock.patch.object(torch.Tensor, "backward", backward):
        trainer.step(current)
    for tensors in (trainer.snapshot()[0][group] for group in ("generator", "discriminator", "ema", "meters")):
        assert {tensor.device for tensor in tensors.values()} == {torch.device("cuda", 0)}


def imitate(name: str) -> None:
    """Build everything on a GPU that is not there, and take a step."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from gancompress.experiment.assemble import build_dataset, build_trainer
    from gancompress.recipe.load import parse_recipe

    recipe = parse_recipe(TINY, SETTINGS[name]).recipe
    dataset = build_dataset(recipe)
    with ExitStack() as stack:
        for where in ("assemble", "acceleration"):
            stack.enter_context(mock.patch(f"gancompress.{where}.device_of", return_value=torch.device("cuda")))
        stack.enter_context(mock.patch.object(torch.cuda, "current_device", return_value=0))
        stack.enter_context(mock.patch.object(torch.cuda, "get_device_name", return_value="an imitated GPU"))
        stack.enter_context(mock.patch.object(torch.cuda, "mem_get_info", return_value=(1 << 40, 1 << 40)))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", moved))
        stack.enter_context(mock.patch("gancompress.training.folding.folded_above", return_value=0.0))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        step(build_trainer(recipe, dataset))
    print(f"{name}: fine", flush=True)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
def test_a_step_keeps_to_its_device_and_reads_nothing() -> None:
    ended = subprocess.run([sys.executable, __file__, *SETTINGS], capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines() == [f"{name}: fine" for name in SETTINGS], ended.stderr[-3000:]


if __name__ == "__main__":
    gc.disable()
    try:
        for one in sys.argv[1:]:
            imitate(one)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    os._exit(0)
