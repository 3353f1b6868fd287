"""Moments at kept weights only give the same bits as masked ones, take less memory, and refuse what they cannot do."""

from __future__ import annotations

import pytest
import torch
from engine_toys import ROLES, Toy, ToyConfig, make
from torch import nn

from gancompress.cost.summary import optimizer_bytes
from gancompress.errors import CheckpointError, UnsupportedOptimizerError
from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.methods.base import Round
from gancompress.recipe.load import load_recipe
from gancompress.recipe.schema import OptimizerConfig
from gancompress.sparsity.state import SparseState
from gancompress.training.compact import CompactMoments
from gancompress.training.optimizers import build_optimizer

SETTINGS = [
    ("adam", {"betas": (0.5, 0.9)}),
    ("adam", {"weight_decay": 0.01}),
    ("adamw", {"weight_decay": 0.1}),
    ("momentum", {"momentum": 0.9, "weight_decay": 0.01}),
    ("sgd", {}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsproptf", {}),
    ("nadam", {}),
    ("nadamw", {"weight_decay": 0.1}),
    ("radam", {}),
    ("adagrad", {}),
    ("adadelta", {}),
    ("lion", {"weight_decay": 0.1}),
    ("sgdw", {"weight_decay": 0.1}),
]


def named(name, **changes):
    """An optimizer made as recipes make it."""
    settings = {"name": name, "lr": 1e-2, "betas": None, "eps": None, "momentum": None, **changes}

    def build(parameters):
        network = nn.Module()
        network.held = nn.ParameterList(list(parameters))
        return build_optimizer(network, OptimizerConfig(**settings))

    return build


def weights(toys):
    parts = [*toys.generator.state_dict().values(), *toys.discriminator.state_dict().values()]
    parts += toys.ema.state_dict()[0].values()
    return b"".join(p.detach().contiguous().numpy().tobytes() for p in parts)


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_same_bits_as_masked_moments_over_topology_updates(name, settings):
    masked = make(optimizer=named(name, **settings), n_d=2)
    compact = make(optimizer=named(name, **settings), n_d=2, moments="compact")
    for step in range(1, 11):
        masked.step(step)
        compact.step(step)
        assert weights(masked) == weights(compact), step
    for role in ROLES:
        assert masked.engine.state(role).updates == 3
        assert masked.engine.state(role).hash() == compact.engine.state(role).hash()
        want, got = masked.engine._nets[role].momentum(), compact.engine._nets[role].momentum()
        assert want.keys() == got.keys()
        assert all(torch.equal(want[key], got[key]) for key in want)
    compact.engine.check()


@pytest.mark.parametrize("shape", [(5, 7, 3, 3), (8, 8, 3, 3), (1, 1, 1, 1), (3, 40)])
@pytest.mark.parametrize("last", [False, True])
def test_places_by_hand(shape, last):
    """Every kept element comes back to its place, none else is touched; the last numel % 64 stay last."""
    weight = nn.Parameter(torch.randn(shape))
    if last and len(shape) == 4:
        weight = nn.Parameter(weight.detach().to(memory_format=torch.channels_last))
    mask = torch.rand(shape) < 0.3
    optimizer = torch.optim.SGD([weight], 1.0)
    compact = CompactMoments(optimizer, {"w": weight})
    compact.follow({"w": mask})
    holder = compact.holder("w")
    assert optimizer.param_groups[0]["params"] == [holder]
    assert holder.numel() % 64 == weight.numel() % 64
    before = weight.detach().clone()
    weight.grad = torch.where(mask, 1.0, torch.nan)
    compact.load()
    assert weight.grad is None
    optimizer.step()
    compact.store()
    assert torch.equal(weight.detach(), torch.where(mask, before - 1, before))
    compact.follow({})
    assert optimizer.param_groups[0]["params"] == [weight]


def test_a_tensor_without_gradient_is_not_stepped():
    weight = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], 1.0, weight_decay=0.5)
    compact = CompactMoments(optimizer, {"w": weight})
    compact.follow({"w": torch.tensor([True, False, False, False])})
    compact.load()
    optimizer.step()
    compact.store()
    assert weight.tolist() == [1, 1, 1, 1]


class Gradual(Toy):
    """Whole networks first, then sparser and sparser ones: tensors go from dense to compact with their moments."""

    def update(self, state, net, rng):
        share = 1 - 0.2 * (state.updates + 1)
        masks = {name: torch.rand(w.shape, generator=rng) < share for name, w in net.weights.items()}
        return SparseState(masks, {name: int(m.sum()) for name, m in masks.items()}, state.updates, state.memory)


def test_moments_of_a_network_that_becomes_sparse_come_along():
    masked = make(Gradual(ToyConfig()), density=1.0)
    compact = make(Gradual(ToyConfig()), density=1.0, moments="compact")
    for step in range(1, 14):
        masked.step(step)
        compact.step(step)
        assert weights(masked) == weights(compact), step


def test_resuming_gives_the_same_bits():
    recipe = load_recipe("sngan_cifar10", overrides=OVERRIDES).recipe
    whole, first, second = (build_trainer(recipe, build_dataset(recipe)) for _ in range(3))
    current = Round("train", 12)
    for trainer in (whole, first, second):
        trainer.engine.init(trainer.probe)
    for _ in range(8):
        whole.step(current)
    for _ in range(5):
        first.step(current)
    second.restore(*first.snapshot())
    for _ in range(3):
        second.step(current)
    groups, scalars = whole.snapshot()
    again, same = second.snapshot()
    assert scalars == same
    for group, tensors in groups.items():
        assert tensors.keys() == again[group].keys()
        assert all(torch.equal(tensor, again[group][name]) for name, tensor in tensors.items()), group


OVERRIDES = (
    "data={name: shapes, resolution: 32, images: 16}",
    "model.channels=4",
    "model.discriminator_channels=4",
    "training={steps: 12, batch_size: 4, kernels: dense, discriminator_steps: 2}",
    "sparsity={method: {name: dst, explore: both, every: 3}, moments: compact}",
)


def trainer_with(moments):
    recipe = load_recipe("sngan_cifar10", overrides=(*OVERRIDES, f"sparsity.moments={moments}")).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    trainer.step(Round("train", 12))
    return trainer


def test_a_checkpoint_of_other_moments_is_refused_and_state_is_smaller():
    masked, compact = trainer_with("masked"), trainer_with("compact")
    with pytest.raises(CheckpointError, match=r"saved with sparsity\.moments: masked, not compact"):
        compact.restore(*masked.snapshot())
    with pytest.raises(CheckpointError, match=r"saved with sparsity\.moments: compact, not masked"):
        masked.restore(*compact.snapshot())
    for role in ROLES:
        state = compact.engine.state(role)
        less = sum(p.numel() for p in state.masks.values()) - state.nonzeros
        slack = 2 * 64 * len(state.masks)
        saved = optimizer_bytes(masked.optimizers[role]) - optimizer_bytes(compact.optimizers[role])
        assert 8 * (less - slack) <= saved <= 8 * less


@pytest.mark.parametrize("name", ["lamb", "adafactor", "muon", "clion"])
def test_optimizers_that_look_at_whole_tensors_are_refused(name):
    weight = nn.Parameter(torch.randn(8, 8, 3, 3))
    network = nn.Module()
    network.held = weight
    settings = {"name": name, "lr": 1e-2, "betas": None, "eps": None, "momentum": None}
    optimizer = build_optimizer(network, OptimizerConfig(**settings))
    with pytest.raises(UnsupportedOptimizerError, match=r"--set sparsity\.moments=masked"):
        CompactMoments(optimizer, {"w": weight})


def test_a_skipped_step_leaves_everything():
    toys = make(Toy(ToyConfig(every=1, skip=True)), moments="compact")
    plain = make(Toy(ToyConfig(every=1, skip=True)))
    for step in (1, 2):
        toys.step(step)
        plain.step(step)
    assert weights(toys) == weights(plain)
    assert toys.engine.state_dict()[1]["generator"]["steps"] == 0
