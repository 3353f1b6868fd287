"""Training steps that are compared must train the same, and each switch must do what its name says."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from gancompress.backbones import folding
from gancompress.bench import timing
from gancompress.bench.styles import PlainStep, Style, fold
from gancompress.bench.timing import alternate
from gancompress.bench.train import (
    ALONE,
    PLAIN,
    TOGETHER,
    UNMASKED,
    _step,
    _trainer,
    bench_train,
    optimizer_operations,
)
from gancompress.cli.main import app
from gancompress.errors import RecipeError
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.budgets import ROLES, masked_weights
from gancompress.recipe.identity import resolved_yaml
from gancompress.recipe.load import load_recipe, parse_recipe
from tests.small_backbones import SMALL, overrides

TINY = """
name: tiny
data: {name: shapes, resolution: 32, images: 16, classes: 2}
model: {name: sngan, channels: 4, discriminator_channels: 4, latent_dim: 3, conditional: true}
sparsity: {method: {name: dst, every: 2}, density: 0.5}
training: {steps: 3, batch_size: 2, discriminator_steps: 2}
"""


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="module")
def recipe(path):
    return load_recipe(str(path)).recipe


def trained(recipe, style=None, steps=2, **settings):
    trainer = _trainer(recipe, build_dataset(recipe), (0.5, 0.5), device="cpu", kernels="dense", **settings)
    step = PlainStep(trainer, {r: masked_weights(trainer.network(r), recipe.sparsity) for r in ROLES}, style)
    for optimizer in step._optimizers.values():
        for group in optimizer.param_groups:
            group["eps"] = 1e-2  # else rounding decides the sign of the first steps
    for _ in range(steps):
        step()
    return trainer, step


@pytest.mark.parametrize("name", [n for n in ALONE if n not in ("bf16", "compiled", "real and fake in one call")])
def test_each_switch_trains_as_the_plain_style(name, recipe):
    expected, plain = trained(recipe, fold="never")
    style, settings = ALONE[name]
    other, step = trained(recipe, style, **{"fold": "never", **settings})
    for role in ROLES:
        theirs = expected.network(role).state_dict()
        for key, value in other.network(role).state_dict().items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5, msg=lambda m, key=key: f"{key} {m}")
        for key, mask in other.engine.state(role).masks.items():
            assert not masked_weights(other.network(role), recipe.sparsity)[key].parameter[~mask].any()
    for mine, theirs in zip(step._average, plain._average, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_one_call_on_both_takes_one_power_iteration(recipe):
    calls = []
    for style in (Style(), Style(joint=True)):
        trainer, step = trained(recipe, style, steps=1, fold="never")
        trainer.discriminator.register_forward_hook(lambda *a: calls.append(len(a[1][0])))
        step()
    # two discriminator steps and the generator's
    assert calls == [2, 2, 2, 2, 2, 4, 4, 2]


def test_the_plain_style_computes_what_nobody_needs(recipe):
    trainer, step = trained(recipe, steps=1, fold="never")
    assert all(p.grad is not None for p in trainer.discriminator.parameters())
    grads = {name: p.grad.clone() for name, p in trainer.discriminator.named_parameters()}
    saved = []
    trainer.generator.register_forward_hook(lambda *a: saved.append(a[2].requires_grad))
    step()
    assert saved == [True, True, True]
    _, better = trained(recipe, Style(no_graph=True, no_gradients=True), steps=1, fold="never")
    better._trainer.generator.register_forward_hook(lambda *a: saved.append(a[2].requires_grad))
    better()
    assert saved[3:] == [False, False, True]
    assert grads


def test_training_is_timed_in_every_way(recipe, monkeypatch):
    monkeypatch.setenv("GANCOMPRESS_BF16", "shifts")
    result = bench_train(recipe, [(0.5, 0.5), (0.25, 0.75)], rounds=2, bf16=True)
    names = list(result.against_plain)
    assert names[0] == PLAIN
    alone = [name for name in ALONE if name != "compiled"]
    assert names[1 : 1 + len(alone)] == alone
    assert {TOGETHER, UNMASKED, "all together, bf16", "sparse 0.5/0.5", "sparse 0.25/0.75, bf16"} <= set(names)
    assert result.against_plain[PLAIN].faster == 1.0
    assert result.against_best[result.best_dense].faster == 1.0
    assert result.against(result.best_dense) == result.against_best
    assert all(row.seconds > 0 for row in result.against_plain.values())
    assert result.settings["images"] == 4
    row = result.to_dict()["against_plain"][PLAIN]
    assert row["images_per_second"] == pytest.approx(4 / row["seconds"])
    assert len(result.folded) == 5
    # M5 of the performance note
    assert result.operations["together"] == sum(v for k, v in result.operations.items() if k != "together")
    assert result.operations["together"] <= 20
    json.dumps(result.to_dict())


#: dispatched operations per D+G pair that optimizers, masks and averages may take
MOST = 20


@pytest.mark.parametrize("name", SMALL)
def test_masks_optimizers_and_averages_of_every_backbone_are_a_few_operations(name):
    document = {"name": "few", "sparsity": {"method": "static", "density": 0.5}, "training": {"steps": 3}}
    recipe = parse_recipe(document, (*overrides(name), "training.batch_size=2")).recipe
    trainer = _trainer(recipe, build_dataset(recipe), (0.5, 0.5), device="cpu", kernels="dense")
    for _ in range(2):  # the first two steps also make and inspect what the optimizers keep
        optimizer_operations(trainer)
    found = optimizer_operations(trainer)
    pairs = 2 if name == "resnet" else 1
    assert found["together"] <= MOST * pairs, found
    # every network took its steps, and every average followed
    trainer.engine.count_steps()
    assert {name: count.amount for name, count in trainer.counter.steps.items()} == dict.fromkeys(trainer.networks, 3)
    assert len(trainer.networks) == 2 * pairs
    assert found["average"] >= pairs


def test_steps_of_another_task_are_timed_against_the_best_dense_one(tmp_path):
    document = {"name": "cycle", "sparsity": {"method": {"name": "dst", "every": 9}, "density": 0.5}}
    document["training"] = {"steps": 40, "batch_size": 1}
    recipe = parse_recipe(document, overrides("resnet")).recipe
    file, out = tmp_path / "cycle.yaml", tmp_path / "cycle.json"
    file.write_text(resolved_yaml(recipe))
    arguments = ["bench", "train", str(file), "--density", "0.25/0.5", "--rounds", "2", "--json", str(out)]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert f"than {TOGETHER}" in said.output
    assert PLAIN not in said.output
    found = json.loads(out.read_text())
    assert found["against_plain"] == {}
    assert list(found["against_best"]) == [TOGETHER, UNMASKED, "sparse 0.25/0.5"]
    assert found["against_best"][TOGETHER]["faster"] == 1.0
    row = found["against_best"][UNMASKED]
    assert row["images_per_second"] == pytest.approx(1 / row["seconds"])
    with pytest.raises(RecipeError, match="steps of the task 'cyclegan' cannot be compiled"):
        bench_train(recipe, rounds=2, compile=True)


def test_everything_together_is_the_training_loop_itself(recipe):
    trainer = _trainer(recipe, build_dataset(recipe), (0.5, 0.5), device="cpu", kernels="dense", fold="always")
    before = trainer.generator.state_dict()["output.weight"].clone()
    _step(trainer)()
    assert not torch.equal(trainer.generator.state_dict()["output.weight"], before)
    assert all(folding.attached(conv).above == 0 for _, conv, _ in folding.resampling(trainer.generator))


def test_folding_for_good_needs_no_training_mode(recipe):
    trainer = _trainer(recipe, build_dataset(recipe), (0.5, 0.5), device="cpu", kernels="dense", fold="never")
    generator = trainer.generator.eval()
    z, labels = torch.randn(2, 3), torch.tensor([0, 1])
    expected = generator(z, labels)
    assert fold(generator, frozen=True) == 3
    called = []
    generator.blocks[0].conv1.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(generator(z, labels), expected, rtol=1e-4, atol=1e-5)
    assert not called


def test_a_turn_of_several_calls_is_given_per_call(monkeypatch):
    clock = iter(range(1000))
    seen = []
    monkeypatch.setattr(timing.time, "process_time", lambda: float(next(clock)))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 0.0)
    times = alternate({"a": lambda: seen.append(1)}, 2, warm=1, calls=4)
    assert len(seen) == 1 + 2 * 4
    assert times["a"] == [(0.25, 0.0), (0.25, 0.0)]


def test_the_command_prints_a_table_and_writes_a_file(path, tmp_path):
    out = tmp_path / "a.json"
    arguments = ["bench", "train", str(path), "--rounds", "2", "--brief", "--json", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert TOGETHER in result.output
    assert "channels last" not in result.output
    assert "shapes" in result.output
    assert set(json.loads(out.read_text())["against_plain"]) == {PLAIN, TOGETHER, UNMASKED, "sparse 0.5/0.5"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(path):
    result = CliRunner().invoke(app, ["bench", "train", str(path), "--device", "cuda"])
    assert result.exit_code != 0
    assert "no GPU" in result.output
