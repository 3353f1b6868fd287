"""Training on the sparse kernels means the same as masked dense training, and a resumed run makes the same choices."""

from __future__ import annotations

import pytest
import torch
from engine_toys import ROLES, Toy, ToyConfig, make, off_mask
from torch import nn

from gancompress import kernels
from gancompress.errors import InvariantError, RecipeError
from gancompress.experiment.acceleration import build_execution
from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.kernels import calls, native_library, tuning
from gancompress.methods.base import Plan
from gancompress.recipe.load import load_recipe
from gancompress.training import folding
from gancompress.training.execution import Execution, why_dense

native = pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")

TINY = """
name: tiny
data: {name: shapes, resolution: 16, images: 32}
model: {name: dcgan, channels: 4, latent_dim: 8}
sparsity:
  method: {name: dst, explore: both, every: 3}
  density: 0.3
training: {steps: 12, batch_size: 8, ema: {decay: 0.5}, log_every: 100}
"""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning.FIGURES, "_known", {})


def slow(p):
    """Steps so small that rounding does not grow: the two ways then stay within rounding of each other."""
    return torch.optim.SGD(p, 1e-3, momentum=0.9)


def train(toys, steps, first=1):
    for step in range(first, first + steps):
        toys.step(step)
    return toys


def modules(toys, role):
    return [m for m in toys.networks[role].modules() if isinstance(m, nn.Conv2d)]


@native
@pytest.mark.parametrize("moments", ["masked", "dense"])
def test_sparse_training_is_masked_dense_training(moments):
    plain = train(make(optimizer=slow, n_d=2, moments=moments), 30)
    execution = Execution("sparse", every_gradient=moments == "dense")
    sparse = train(make(optimizer=slow, n_d=2, moments=moments, execution=execution), 30)
    for role in ROLES:
        assert plain.engine.state(role).updates == 10
        assert plain.engine.state(role).hash() == sparse.engine.state(role).hash()
        want = plain.networks[role].state_dict()
        for name, tensor in sparse.networks[role].state_dict().items():
            torch.testing.assert_close(tensor, want[name], rtol=1e-4, atol=1e-6, msg=f"{role} {name}")
        for parameter, off in off_mask(sparse, role).values():
            assert not parameter[off].any()
    sparse.engine.check()


@native
def test_the_kernels_really_run_and_follow_every_mask(monkeypatch):
    toys = make(execution=Execution("sparse"))
    calls = []
    ours = kernels.masked.calls.conv
    monkeypatch.setattr(kernels.masked.calls, "conv", lambda *a, **k: calls.append(a[1]) or ours(*a, **k))
    toys.step(1)
    assert calls
    for step in range(2, 7):
        toys.step(step)
        for role in ROLES:
            masks = list(toys.engine.state(role).masks.values())
            for module, mask in zip(modules(toys, role), masks, strict=True):
                assert torch.equal(kernels.attached(module).pattern.mask, mask)


@native
def test_layers_kept_whole_and_the_average_are_left_alone():
    toys = make(density=1.0, execution=Execution("sparse"))
    assert all(kernels.attached(m) is None for role in ROLES for m in modules(toys, role))
    toys = train(make(execution=Execution("sparse")), 3)
    assert all(kernels.attached(m) is not None for role in ROLES for m in modules(toys, role))
    assert all(kernels.attached(m) is None for m in toys.ema.module.modules())


@native
def test_dense_inside_dense():
    toys = make(execution=Execution("sparse"))
    z = torch.randn(3, 6)
    toys.generator.eval()
    with torch.no_grad(), toys.engine.dense():
        inside = toys.generator(z)
    assert all(kernels.attached(m).sparse == "always" for m in modules(toys, "generator"))
    for module in modules(toys, "generator"):
        kernels.detach(module)
    with torch.no_grad():
        assert torch.equal(inside, toys.generator(z))


@native
def test_a_dense_gradient_that_was_not_announced_is_refused():
    toys = make(execution=Execution("sparse"))
    toys.backward("generator", 1)
    with pytest.raises(InvariantError, match=r"Engine\.expect"):
        toys.engine.step("generator", Plan.DENSE_GRADIENT | Plan.UPDATE)


@native
def test_the_dense_gradient_is_whole_on_the_step_that_asks():
    plain, sparse = make(), make(execution=Execution("sparse"))
    plan = Plan.DENSE_GRADIENT | Plan.UPDATE
    for toys in (plain, sparse):
        toys.engine.expect("generator", plan)
        toys.backward("generator", 1)
    for (parameter, off), (want, _) in zip(
        off_mask(sparse, "generator").values(), off_mask(plain, "generator").values(), strict=True
    ):
        assert parameter.grad[off].any()
        torch.testing.assert_close(parameter.grad, want.grad, rtol=1e-4, atol=1e-6)
    sparse.engine.expect("generator")
    sparse.backward("generator", 1)
    assert not any(parameter.grad[off].any() for parameter, off in off_mask(sparse, "generator").values())


def trainer_of(tmp_path, *overrides):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    recipe = load_recipe(str(path), overrides=overrides).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    (current,) = trainer.engine.method.rounds(recipe.training.steps, {"generator": 0.3, "discriminator": 0.3})
    return trainer, current


def everything(trainer):
    groups, scalars = trainer.snapshot()
    tensors = [t for group in groups.values() for t in group.values()]
    return b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors), str(scalars)


@native
@pytest.mark.parametrize("mode", ["sparse", "auto"])
def test_resumed_is_the_same_bytes_whatever_is_measured_later(mode, tmp_path, monkeypatch):
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "auto")
    # dense 6 ms; sparse 2 ms at 0.1 and 8 ms at 0.4: they cross at 0.3, between the densities of ERK's layers
    monkeypatch.setattr(tuning, "_times", lambda layer, training: (6.0, 2.0, 8.0))
    whole, current = trainer_of(tmp_path, f"training.kernels={mode}")
    whole.engine.init(whole.probe)
    for _ in range(5):
        whole.step(current)
    groups, scalars = whole.snapshot()
    saved = {name: {key: t.clone() for key, t in group.items()} for name, group in groups.items()}
    for _ in range(5):
        whole.step(current)

    monkeypatch.setattr(tuning, "_times", lambda layer, training: (1.0, 2.0, 8.0))  # now dense would win everywhere
    monkeypatch.setattr(tuning.FIGURES, "_known", {})
    tuning.FIGURES.file.unlink(missing_ok=True)
    resumed, _ = trainer_of(tmp_path, f"training.kernels={mode}")
    resumed.restore(saved, scalars)
    for _ in range(5):
        resumed.step(current)
    assert everything(resumed) == everything(whole)
    if mode == "auto":
        table = whole.engine.execution.table
        assert table
        assert set(table.values()) == {0.3}


@native
@pytest.mark.parametrize(
    ("model", "fold"),
    [
        ("{name: sngan, channels: 8, discriminator_channels: 8, latent_dim: 8}", "never"),
        ("{name: sngan, channels: 8, discriminator_channels: 8, latent_dim: 8, conditional: true}", "always"),
        ("{name: dcgan, channels: 4, latent_dim: 8, discriminator_norm: batch}", "never"),
        ("{name: biggan, channels: 4, discriminator_channels: 4, attention: 16}", "never"),
        pytest.param("{name: biggan-deep, channels: 8, discriminator_channels: 8}", "always", marks=pytest.mark.slow),
    ],
    ids=["sngan", "sngan folded", "dcgan", "biggan", "biggan-deep folded"],
)
def test_networks_train_alike_with_batches_that_fill_the_lanes(model, fold, tmp_path, monkeypatch):
    """Then maps lie batch last from layer to layer: every backbone must take them, forward and backward."""
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "auto")
    monkeypatch.setattr(folding, "_times", lambda layer: (1.0, 1.0, None))
    overrides = (
        f"model={model}", f"data.resolution={128 if 'deep' in model else 32}",
        "training.batch_size=16", f"training.fold={fold}",
        "training.optimizers.generator={name: sgd, lr: 0.001, betas: null, eps: null}",
        "training.optimizers.discriminator={name: sgd, lr: 0.001, betas: null, eps: null}",
    )  # fmt: skip
    seen = []
    is_last = calls.is_batch_last
    monkeypatch.setattr(calls, "is_batch_last", lambda x: (seen.append(is_last(x)), seen[-1])[1])
    found = []
    for mode in ("dense", "sparse"):
        trainer, current = trainer_of(tmp_path, *overrides, f"training.kernels={mode}")
        trainer.engine.init(trainer.probe)
        for _ in range(2):
            trainer.step(current)
        found.append({**trainer.generator.state_dict(), **trainer.discriminator.state_dict()})
    assert sum(seen) > 20
    for name, tensor in found[1].items():
        torch.testing.assert_close(tensor, found[0][name], rtol=2e-3, atol=1e-4, msg=name)


@native
def test_an_older_checkpoint_has_no_choices_to_restore():
    toys = make(execution=Execution("auto"))
    tensors, scalars = toys.engine.state_dict()
    del scalars["break_even"]
    toys.engine.load_state_dict(tensors, scalars)
    assert toys.engine.execution.table == {}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"device": "cuda"}, "CPU"),
        ({"precision": "bf16"}, "no instruction"),
        ({"channels_last": True}, "channels_last"),
        ({"world": 2}, "processes"),
        ({"compiled": True}, "torch.compile"),
        ({}, ""),
    ],
)
def test_why_a_run_is_dense(how, says, monkeypatch):
    monkeypatch.setattr(kernels, "status", lambda: native_library.Status(True, "avx2", "x", "built"))
    why = why_dense(**{"device": "cpu", "precision": "float32", "channels_last": False, "world": 1, **how})
    assert (says in why) if says else why == ""
    status = native_library.Status(True, "avx512vnni", "x", "built", bf16="vdpbf16ps")
    monkeypatch.setattr(kernels, "status", lambda: status)
    assert why_dense(device="cpu", precision="bf16", channels_last=False, world=1) == ""


def test_what_a_recipe_asks_for(tmp_path, monkeypatch):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)

    def recipe(*overrides):
        return load_recipe(str(path), overrides=overrides).recipe

    assert build_execution(recipe("training.kernels=dense")) is None
    monkeypatch.setattr(kernels, "status", lambda: native_library.Status(True, "avx2", "x", "built"))
    assert build_execution(recipe("training.precision=bf16")) is None
    monkeypatch.setattr(kernels, "status", lambda: native_library.Status(False, None, None, "no compiler"))
    assert build_execution(recipe()) is None
    with pytest.raises(RecipeError, match="no compiler"):
        build_execution(recipe("training.kernels=sparse"))


def test_the_toy_method_updates_every_third_step():
    assert Plan.UPDATE in Toy(ToyConfig()).plan("generator", 3, 10)  # what the counts above rely on
