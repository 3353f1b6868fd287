"""Every way to go faster computes what the plain way computes, within its stated tolerance."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gancompress import kernels
from gancompress.backbones import folding as operators
from gancompress.errors import DataError, RecipeError, RunError
from gancompress.experiment.acceleration import build_folding, numbered, why_not_recorded
from gancompress.experiment.assemble import build_dataset, build_loss, build_trainer
from gancompress.kernels import tuning
from gancompress.recipe.load import load_recipe
from gancompress.training import folding
from gancompress.training.feed import DeviceDataset, Prefetcher, choose_feed, image_bytes
from gancompress.training.forward_backward import _explained
from gancompress.training.graphs import why_no_graphs

TINY = """
name: tiny
data: {name: shapes, resolution: 32, images: 24, classes: 3}
model: {name: sngan, channels: 8, discriminator_channels: 8, latent_dim: 6, conditional: true}
sparsity:
  method: {name: dst, explore: both, every: 2}
  density: 0.4
training:
  steps: 6
  batch_size: 4
  generator_batch_size: 8
  discriminator_steps: 2
  flip: true
  kernels: dense
  fold: never
  optimizers: {generator: {lr: 1e-3, eps: 1e-2}, discriminator: {lr: 1e-3, eps: 1e-2}}
  ema: {decay: 0.5}
"""
STEPS = 3
# The epsilon of 1e-2 above: Adam's first step is the sign of the gradient otherwise, and rounding decides that of a 0.


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "auto")
    monkeypatch.setattr(tuning.FIGURES, "_known", {})
    monkeypatch.setattr(folding.FIGURES, "_known", {})


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)

    def load(*overrides):
        full = [o if "." in o.split("=")[0] or o.startswith("model=") else f"training.{o}" for o in overrides]
        return load_recipe(str(path), overrides=full).recipe

    return load


def start(recipe, record=None):
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.record = record
    if record is not None:
        trainer.__post_init__()
    trainer.engine.init(trainer.probe)
    return trainer


def train(trainer, steps=STEPS):
    (current,) = trainer.engine.method.rounds(6, {"generator": 0.4, "discriminator": 0.4})
    for _ in range(steps):
        trainer.step(current)
    return trainer


def tensors(trainer):
    groups, _ = trainer.snapshot()
    return {
        f"{group} {name}": tensor.detach().clone()
        for group, found in groups.items()
        for name, tensor in found.items()
        if group in ("generator", "discriminator", "ema", "meters")
    }


def assert_same(one, other):
    mine, theirs = tensors(one), tensors(other)
    assert list(mine) == list(theirs)
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_close(one, other, rtol, atol):
    mine, theirs = tensors(one), tensors(other)
    assert list(mine) == list(theirs)
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")
    for role in one.engine.roles:
        assert one.engine.state(role).hash() == other.engine.state(role).hash()


@pytest.fixture
def plain(recipe):
    return train(start(recipe()))


# ------------------------------------------------------------------ settings, each against the plain way


@pytest.mark.parametrize(
    ("setting", "rtol", "atol"),
    [
        ("fold=always", 1e-3, 1e-5),
        ("fold=auto", 1e-3, 1e-5),
        ("fused=false", 1e-3, 1e-5),
        ("channels_last=true", 1e-3, 1e-5),
        ("accumulate=2", None, None),
    ],
)
def test_a_setting_changes_rounding_only(setting, rtol, atol, recipe, plain):
    other = train(start(recipe(setting)))
    if rtol is None:  # micro-batches see other batch statistics: the setting is real, the results are not the same
        assert not torch.equal(next(iter(tensors(other).values())), next(iter(tensors(plain).values())))
    else:
        assert_close(other, plain, rtol, atol)


@pytest.mark.parametrize("setting", ["feed=prefetch", "feed=device"])
def test_how_batches_are_made_changes_no_bit(setting, recipe, plain):
    assert_same(train(start(recipe(setting))), plain)


def test_bf16_stays_within_one_percent_of_a_logit(recipe):
    exact, rounded = start(recipe()), start(recipe("precision=bf16"))
    for trainer in (exact, rounded):
        train(trainer, 1)
    mine, theirs = (trainer.meters.read() for trainer in (exact, rounded))
    assert mine != theirs
    for name, value in mine.items():
        assert theirs[name] == pytest.approx(value, abs=0.01 * max(1.0, abs(value))), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_compute_the_same_and_follow_masks(recipe):
    small = ("data.resolution=16", "model={name: dcgan, channels: 4, latent_dim: 4}", "generator_batch_size=4")
    expected = train(start(recipe(*small)))
    compiled = start(recipe(*small, "compile=true"))
    assert list(compiled.generator.state_dict()) == list(expected.generator.state_dict())
    train(compiled)
    assert all(compiled.engine.state(role).updates == 1 for role in compiled.engine.roles)
    compiled.engine.check()
    assert_close(compiled, expected, 1e-3, 1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_switches_together_compute_what_each_computes(recipe):
    bf16 = ("model.channels=4", "model.discriminator_channels=4", "model.latent_dim=4", "precision=bf16")
    rounded = train(start(recipe(*bf16)))
    fast = ("channels_last=true", "fold=always", "fused=true", "feed=prefetch", "compile=true")
    all_of_it = train(start(recipe(*bf16, *fast)))
    assert all(all_of_it.engine.state(role).updates == 1 for role in all_of_it.engine.roles)
    all_of_it.engine.check()
    mine, theirs = all_of_it.meters.read(), rounded.meters.read()
    for name, value in theirs.items():
        assert mine[name] == pytest.approx(value, abs=0.01 * max(1.0, abs(value))), name


@pytest.mark.parametrize("fold", ["fold=always", "fold=auto"])
def test_all_switches_without_compilation_change_rounding_only(fold, recipe, plain):
    fast = train(start(recipe(fold, "channels_last=true", "fused=true", "feed=prefetch")))
    assert_close(fast, plain, 1e-3, 1e-5)


def test_a_failed_compilation_says_how_to_go_on():
    from torch._dynamo.exc import TorchDynamoException

    with pytest.raises(RunError, match=r"no compiler.*--set training\.compile=false"), _explained(True):
        raise TorchDynamoException("no compiler\nand a long story")
    with pytest.raises(TorchDynamoException), _explained(False):
        raise TorchDynamoException("not ours")


# ------------------------------------------------------------------ folding is chosen, and the choice stays


def test_the_choice_is_measured_once_and_belongs_to_the_run(recipe, monkeypatch):
    asked = []

    def times(layer):
        asked.append(layer.key)
        return (2.0, 1.0, None) if layer.kind == "up" else (1.0, 2.0, None)

    monkeypatch.setattr(folding, "_times", times)
    whole = train(start(recipe("fold=auto")), 2)
    assert len(asked) == len(set(asked)) == 5  # three blocks up, two down, of different sizes
    above = {
        kind: {operators.attached(conv).above for net in (whole.generator, whole.discriminator)
               for _, conv, found in operators.resampling(net) if found == kind}
        for kind in ("up", "down")
    }  # fmt: skip
    assert above == {"up": {0.0}, "down": {1.0}}
    assert all(operators.attached(m) is None for m in whole.ema.module.modules())
    groups, scalars = whole.snapshot()
    saved = {name: {key: t.clone() for key, t in group.items()} for name, group in groups.items()}
    assert scalars["folding"] == whole.folding.table
    train(whole, 2)

    # another day, the other way would win: a resumed run does not ask
    monkeypatch.setattr(folding.FIGURES, "_known", {})
    folding.FIGURES.file.unlink()
    monkeypatch.setattr(folding, "_times", lambda layer: (1.0, 2.0, None))
    resumed = build_trainer(recipe("fold=auto"), build_dataset(recipe()))
    resumed.restore(saved, scalars)
    assert_same(train(resumed, 2), whole)
    # and a checkpoint from before there was folding goes on without
    del scalars["folding"]
    older = build_trainer(recipe("fold=auto"), build_dataset(recipe()))
    older.restore(saved, scalars)
    train(older, 1)
    assert {operators.attached(conv).above for _, conv, _ in operators.resampling(older.generator)} == {1.0}


def test_choices_of_4x4_kernels_are_kept(recipe, monkeypatch):
    monkeypatch.setattr(folding, "_times", lambda layer: (2.0, 1.0, None) if layer.kind == "up" else (1.0, 2.0, None))
    whole = train(start(recipe("fold=auto")), 1)
    groups, scalars = whole.snapshot()
    now = dict(scalars["folding"])
    scalars["folding"] = {key.replace(" in 9 products,", ""): value for key, value in now.items()}
    assert scalars["folding"] != now
    monkeypatch.setattr(folding, "_times", lambda layer: pytest.fail("measured again"))
    resumed = build_trainer(recipe("fold=auto"), build_dataset(recipe()))
    resumed.restore({name: {key: t.clone() for key, t in group.items()} for name, group in groups.items()}, scalars)
    assert train(resumed, 1).folding.table == now


def test_a_new_run_takes_its_choices_from_the_cache(recipe, monkeypatch):
    monkeypatch.setattr(folding, "_times", lambda layer: (2.0, 1.0, None))
    first = train(start(recipe("fold=auto")), 1)
    monkeypatch.setattr(folding.FIGURES, "_known", {})
    monkeypatch.setattr(folding, "_times", lambda layer: pytest.fail("measured again"))
    assert train(start(recipe("fold=auto")), 1).folding.table == first.folding.table


def test_what_takes_seconds_is_said_before_and_only_where_it_happens(recipe, monkeypatch):
    said = []

    def times(layer):
        assert said == ["timing 5 layers to choose their kernels, once on this machine"]
        return 2.0, 1.0, None

    monkeypatch.setattr(folding.FIGURES, "_known", {})
    monkeypatch.setattr(folding, "_times", times)
    folding.FIGURES.file.unlink(missing_ok=True)
    start(recipe("fold=auto")).choose(said.append)
    assert len(said) == 1
    again = start(recipe("fold=auto"))
    again.choose(said.append)  # remembered
    again.choose(said.append)  # nothing left to choose
    assert len(said) == 1


def test_several_processes_use_the_choices_of_the_first(recipe, monkeypatch):
    class Second:
        """Rank 1 of 2, to whom rank 0 says that nothing is folded."""

        world, rank, is_main = 2, 1, False

        def share(self, scalars, tensors):
            assert scalars == {"table": {}}
            return {"table": dict.fromkeys(keys, 1.0)}, {}

    monkeypatch.setattr(folding, "_times", lambda layer: (2.0, 1.0, None))
    keys = train(start(recipe("fold=auto", "batch_size=8")), 1).folding.table
    monkeypatch.setattr(folding, "_times", lambda layer: pytest.fail("rank 1 measures nothing"))
    trainer = start(recipe("fold=auto", "batch_size=8"))
    trainer.play.passes.show(trainer.device)
    trainer.folding.decide({trainer.generator: 8, trainer.discriminator: 16}, Second())
    assert {operators.attached(conv).above for _, conv, _ in operators.resampling(trainer.discriminator)} == {1.0}


def test_choosing_moves_nothing(recipe):
    trainer = start(recipe("fold=auto"))
    before = tensors(trainer)
    assert trainer.folding.undecided
    trainer.choose()
    assert not trainer.folding.undecided
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(trainer).items())


@pytest.mark.parametrize(
    ("plain", "fold", "sparse", "above"),
    [
        (2.0, 1.0, None, 0.0),
        (1.0, 1.0, None, 1.0),  # a gain within noise is none
        (1.0, 3.0, (0.1, 0.2), 1.0),
        (9.0, 3.0, (1.0, 4.0), 0.3),  # 0.1 s + 1 s per 0.1 of density: 3 s at 0.3
        (9.0, 3.0, (3.5, 5.0), 0.0),  # 3 s at a density of 0
        (9.0, 3.0, (0.1, 0.2), 0.9999),  # sparse wins at any density below 1
        (9.0, 3.0, (2.0, 2.0), 0.9999),
        (9.0, 3.0, (5.0, 4.0), 0.0),
    ],
)
def test_where_folded_dense_starts_to_win(plain, fold, sparse, above):
    assert folding._crossing(plain, fold, sparse) == pytest.approx(above, abs=2e-2 if above == 0.3 else 0)


def test_real_measurements_are_positive():
    for kind in ("up", "down"):
        layer = folding.FoldedLayer(kind, (4, 4), 2, (4, 4), sparse=kernels.status().available)
        plain, fold, sparse = folding._times(layer)
        assert plain > 0
        assert fold > 0
        assert sparse is None or min(sparse) > 0
        assert 0 <= folding.folded_above(layer) <= 1
    bf16 = folding.FoldedLayer("down", (4, 4), 2, (4, 4), bf16=True, channels_last=True)
    assert folding._times(bf16)[2] is None
    assert "bf16, channels last" in bf16.key
    assert "bf16, contiguous" in folding.FoldedLayer("down", (4, 4), 2, (4, 4), "cuda", bf16=True).key  # torch's boxes


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
@pytest.mark.parametrize(("channels", "pairs"), [((4, 4), True), ((5, 5), False), ((4, 5), False)])
def test_odd_widths_in_bf16_are_timed_without_pairs(channels, pairs):
    for kind in ("up", "down"):
        layer = folding.FoldedLayer(kind, channels, 2, (4, 4), bf16=True, sparse=True)
        assert layer.in_pairs == pairs
        assert ("in pairs" in layer.key) == pairs
        assert min(folding._times(layer)[2]) > 0


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
def test_sparse_kernels_win_where_they_are_faster(recipe, monkeypatch):
    # folded dense wins above a density of 0.2, the kernels beat plain dense everywhere
    monkeypatch.setattr(folding, "_times", lambda layer: (9.0, 2.0, (1.0, 4.0)))
    monkeypatch.setattr(tuning, "_times", lambda layer, training: (9.0, 1.0, 1.1))
    trainer = train(start(recipe("fold=auto", "kernels=auto", "sparsity.density=0.3")))
    assert set(trainer.folding.table.values()) == {0.2}
    assert all("or sparse" in key for key in trainer.folding.table)
    close = train(start(recipe("sparsity.density=0.3")))
    assert_close(trainer, close, 1e-3, 1e-5)


def test_what_a_recipe_asks_for(recipe):
    assert build_folding(recipe("fold=never"), None) is None
    assert build_folding(recipe("fold=always"), None).mode == "always"
    auto = build_folding(recipe("fold=auto", "precision=bf16", "channels_last=true"), None)
    assert (auto.mode, auto.bf16, auto.channels_last, auto.sparse) == ("auto", True, True, False)


# ------------------------------------------------------------------ feeds


def test_a_thread_makes_the_next_batch(recipe):
    asked = []

    class Source:
        def real(self, batch, draw):
            asked.append((threading.current_thread().name.startswith("batches"), draw))
            if draw == 4:
                raise DataError("image 4 is broken")
            return draw

        def latents(self, batch, *keys):
            return keys

    prefetcher = Prefetcher(Source())
    assert [prefetcher.real(2, draw) for draw in (0, 1, 2)] == [0, 1, 2]
    assert prefetcher.real(2, 0) == 0  # a jump: the guess was wrong, the answer is not
    assert prefetcher.latents(2, "probe") == ("probe",)
    assert prefetcher.latents(2, "generator", 7) == ("generator", 7)
    assert prefetcher.latents(2, "generator", 8) == ("generator", 8)
    assert [prefetcher.real(2, draw) for draw in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(DataError, match="image 4"):
        prefetcher.real(2, 4)
    on_thread = {draw for threaded, draw in asked if threaded}
    assert {1, 2, 3} <= on_thread
    assert 0 not in on_thread


def test_the_thread_stands_on_the_gpu_of_its_process(monkeypatch):
    stood = []
    name = threading.current_thread
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: stood.append((name().name, device)))

    class Source:
        def real(self, batch, draw):
            return name().name

    here, gpu = Source().real(2, 0), torch.device("cuda", 1)
    prefetcher = Prefetcher(Source(), gpu)
    assert [prefetcher.real(2, 0), prefetcher.real(2, 1)] == [here, "batches_0"]
    assert stood == [("batches_0", gpu)]
    Prefetcher(Source(), torch.device("cpu")).real(2, 0)
    assert len(stood) == 1


def test_the_gpu_of_a_process_has_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert numbered(torch.device("cuda")) == torch.device("cuda", 3)
    assert numbered(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert numbered(torch.device("cpu")) == torch.device("cpu")


def test_a_held_dataset_is_the_dataset(recipe):
    dataset = build_dataset(recipe())
    held = DeviceDataset(dataset, torch.device("cpu"))
    indices = torch.tensor([5, 0, 5])
    for mine, theirs in zip(held.read(indices), dataset.read(indices), strict=True):
        assert torch.equal(mine, theirs)
    assert (len(held), held.spec, held.fingerprint()) == (len(dataset), dataset.spec, dataset.fingerprint())


def test_which_feed_is_chosen(recipe, monkeypatch):
    dataset = build_dataset(recipe())
    assert image_bytes(dataset) == 24 * 3 * 32 * 32
    assert choose_feed("auto", dataset, torch.device("cpu")) == "direct"
    assert choose_feed("prefetch", dataset, torch.device("cpu")) == "prefetch"
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 2 << 30))
    assert choose_feed("auto", dataset, gpu) == "device"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100_000, 2 << 30))
    assert choose_feed("auto", dataset, gpu) == "prefetch"


# ------------------------------------------------------------------ waiting for the device


class _Operations(TorchDispatchMode):
    """Notes operations that make the host wait for a device: reading a number, or a size that depends on data."""

    NAMES = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique")

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(func.__name__.startswith(name) for name in self.NAMES):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    """Run something and return what made the host wait; on the CPU some of it can only be seen in Python."""

    def watch(run):
        found = []
        with monkeypatch.context() as patched:
            for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"):
                original = getattr(torch.Tensor, name)
                patched.setattr(torch.Tensor, name, lambda *a, n=name, o=original, **k: found.append(n) or o(*a, **k))
            with _Operations(found):
                run()
        return found

    return watch


@pytest.mark.parametrize(
    "setting",
    [
        "fold=always",
        "sparsity.moments=dense",
        "objective.r1.weight=1.0",
        "objective.loss=wgan-gp",
        "objective.loss=relativistic",
        "objective.diffaugment=[color, translation, cutout]",
        "feed=device",
    ],
)
def test_a_step_reads_nothing_from_the_device(setting, recipe, waits):
    trainer = train(start(recipe(setting)), 2)  # the first two steps inspect the optimizer; step 2 changed masks
    assert waits(lambda: train(trainer, 1)) == []
    assert waits(lambda: train(trainer, 1)), "step 4 changes masks, and counts them"
    assert waits(trainer.meters.read) == ["tolist"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch calls it a prototype
@pytest.mark.parametrize("setting", ["feed=device", "feed=prefetch", "cuda_graphs=true", "precision=bf16"])
def test_a_step_on_a_gpu_does_not_synchronise(setting, recipe):
    trainer = train(start(recipe("device=cuda", setting)), 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(trainer, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ------------------------------------------------------------------ CUDA graphs


def imitate(parameters):
    """Record like a GPU does: results and gradients stay where they were first put, and are computed anew."""

    def record(work):
        results = work()
        held = [(p, p.grad) for p in parameters() if p.grad is not None]

        def replay():
            for old, new in zip(results, work(), strict=True):
                old.copy_(new)
            for parameter, gradient in held:
                if parameter.grad is not gradient and parameter.grad is not None:
                    gradient.copy_(parameter.grad)

        return replay, results

    return record


@pytest.mark.parametrize(
    "setting",
    [
        "accumulate=1",
        "accumulate=2",
        "objective.r1={weight: 1.0, every: 3}",
        "objective.loss=relativistic",
    ],
)
def test_recorded_passes_train_the_same(setting, recipe, monkeypatch):
    monkeypatch.setattr("gancompress.experiment.acceleration.why_no_graphs", lambda **how: "")
    expected = train(start(recipe(setting)), 4)
    held = []
    recorded = start(recipe(setting, "cuda_graphs=true"), imitate(lambda: held))
    held += [*recorded.generator.parameters(), *recorded.discriminator.parameters()]
    train(recorded, 4)
    assert all(recorded.engine.state(role).updates == 2 for role in recorded.engine.roles)
    assert_same(recorded, expected)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"device": "cpu"}, "need a GPU"),
        ({"augments": True}, "augmentation"),
        ({"penalises": True}, "gradient penalty"),
        ({"world": 2}, "several processes"),
        ({}, ""),
    ],
)
def test_why_passes_are_not_recorded(how, says):
    why = why_no_graphs(**{"device": "cuda", "augments": False, "penalises": False, "world": 1, **how})
    assert (says in why) if says else why == ""


def test_what_cannot_be_had_is_refused_before_the_first_step(recipe):
    with pytest.raises(RecipeError, match=r"need a GPU.*--set training\.cuda_graphs=false"):
        start(recipe("cuda_graphs=true", "device=cpu"))


def test_a_gpu_without_bf16_is_told_before_the_first_step(recipe, monkeypatch):
    monkeypatch.setattr("gancompress.experiment.acceleration.device_of", lambda recipe: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU 9000")
    with pytest.raises(RecipeError, match=r"GPU 9000 cannot compute in bf16; use --set training\.precision=float32"):
        start(recipe("precision=bf16"))


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("fused=true", ""),
        ("objective.diffaugment=[color]", "augmentation"),
        ("objective.ada={}", "augmentation"),
        ("objective.loss=wgan-gp", "penalty"),
    ],
)
def test_a_recipe_whose_passes_cannot_be_recorded_says_why(setting, why, recipe):
    found = recipe(setting)
    said = why_not_recorded(found, build_loss(found), device="cuda")
    assert (why in said) if why else said == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_train_the_same_on_a_gpu(recipe):
    expected = train(start(recipe("device=cuda")), 4)
    assert_close(train(start(recipe("device=cuda", "cuda_graphs=true")), 4), expected, 1e-3, 1e-4)


# ------------------------------------------------------------------ one call for all tensors


def test_the_average_of_all_tensors_at_once_is_the_average_of_each(recipe):
    trainer = train(start(recipe()), 1)
    average = trainer.ema
    before = {name: p.detach().clone() for name, p in average.module.named_parameters()}
    with torch.no_grad():
        for parameter in trainer.generator.parameters():
            parameter.add_(torch.randn_like(parameter))
    average.update(trainer.generator, 10)
    live = dict(trainer.generator.named_parameters())
    for name, parameter in average.module.named_parameters():
        assert torch.equal(parameter, before[name].lerp(live[name].detach(), 0.5)), name


def test_masking_all_tensors_at_once_is_masking_each(recipe):
    trainer = start(recipe())
    for role in trainer.engine.roles:
        net = trainer.network(role)
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
        weights = trainer.engine._nets[role].parts.weights
        trainer.engine.step(role)
        for name, mask in trainer.engine.state(role).masks.items():
            weight = weights[name].parameter
            assert not weight[~mask].any()
            assert torch.equal(weight.grad, gradients[weights[name].key] * mask)
