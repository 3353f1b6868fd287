"""Every built-in backbone on the sparse kernels, maps lying batch last, gives what it gives dense; bf16 included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.backbones.base import Discriminator, Generator, prunable_weights
from gancompress.evaluation.sandbox import forked_rng
from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.kernels.native_library import library
from gancompress.recipe.load import load_recipe
from tests.small_backbones import SMALL, overrides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from gancompress.training.loop import Trainer

pytestmark = pytest.mark.skipif(library() is None or library().pairs is None, reason="no kernels for pairs here")

BATCH = 16
ANSWERS = ("output", "input gradient", "gradient", "penalty's gradient")


def trainer_of(name: str) -> Trainer:
    """A trainer whose masked layers all run on the kernels, as they do in a run in bf16."""
    half = ("sparsity.generator.density=0.5", "sparsity.discriminator.density=0.5", "sparsity.pattern=2x2")
    run = ("training.kernels=sparse", "training.precision=bf16", "training.device=cpu", "training.batch_size=2")
    recipe = load_recipe("quickstart", overrides=(*overrides(name), *half, *run)).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    for role, network in trainer.networks.items():  # some layers begin at 0, which hides what others give
        masks, weights = trainer.engine.state(role).masks, prunable_weights(network)
        with torch.no_grad():
            for weight, mask in masks.items():
                parameter = weights[weight].parameter
                parameter.add_(torch.where(mask, 0.02 * torch.randn(parameter.shape), 0.0))
    return trainer


def batch_for(network: Any) -> tuple[Tensor, Tensor]:
    labels = torch.arange(BATCH) % 3
    shape = (BATCH, *network.input_shape)
    if isinstance(network, Generator) and not network.translates:
        return torch.randn(shape), labels
    return torch.rand(shape) * 2 - 1, labels


def found(network: nn.Module, x: Tensor, labels: Tensor, *, bf16: bool) -> tuple[Tensor, ...]:
    """What it gives, the gradients of a sum with signs towards the input and all that is kept, and of a penalty."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = network(x, labels)
    signs = torch.ones(out.shape)
    signs.view(-1)[::3] = -1
    live = [p for p in network.parameters() if p.requires_grad]
    loss = (out * signs).sum()
    for_x, *for_weights = torch.autograd.grad(loss, [x, *live], allow_unused=True, retain_graph=True)
    answers = [out.detach(), for_x, kept(live, for_weights)]
    if isinstance(network, Discriminator):
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        answers.append(kept(live, torch.autograd.grad(slope.square().sum(), live, allow_unused=True)))
    return tuple(answers)


def kept(parameters: list[nn.Parameter], gradients: Iterable[Tensor | None]) -> Tensor:
    """All gradients side by side, 0 where a weight is masked."""
    pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    return torch.cat([(g if p.dim() < 2 else g * (p != 0)).flatten() for p, g in pairs])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_networks_on_kernels_are_dense_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANCOMPRESS_BF16", "shifts")
    with forked_rng(0):
        trainer = trainer_of(name)
        for role, network in trainer.networks.items():
            x, labels = batch_for(network)
            network.eval()
            ours, in_bf16 = (found(network, x, labels, bf16=bf16) for bf16 in (False, True))
            with trainer.engine.dense():
                exact, torchs = (found(network, x, labels, bf16=bf16) for bf16 in (False, True))
            for what, *each in zip(ANSWERS, ours, in_bf16, torchs, exact, strict=False):
                *given, want = each
                same, near, allowed = (float((one - want).norm() / want.norm()) for one in given)
                assert same < 1e-5, f"{what} of the {role}, float32"
                # torch rounds what layers give, too
                assert near < 2 * allowed + 0.01, (
                    f"{what} of the {role}, bf16: {near:.2g} beside {allowed:.2g} of torch"
                )
