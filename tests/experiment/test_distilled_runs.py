"""Runs that learn from a trained generator: which one, what they record and cost, and that they survive."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typer.testing import CliRunner

import gancompress
from gancompress.api.commands import resolve
from gancompress.api.finished import export
from gancompress.cli.main import app
from gancompress.comparison.choices import MethodChoice
from gancompress.comparison.grid import build_grid
from gancompress.comparison.price import price
from gancompress.cost.profile import profile
from gancompress.errors import GancompressError, RecipeError
from gancompress.experiment import teacher as rooms
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.experiment.channels import plan_channels
from gancompress.experiment.compress import open_source, plan_compression
from gancompress.experiment.finished import open_run
from gancompress.experiment.networks import build_architecture, build_networks
from gancompress.experiment.pinning import pinned
from gancompress.experiment.run import Experiment
from gancompress.experiment.teacher import learning_from, read_teacher
from gancompress.recipe.identity import minimal, run_id
from gancompress.recipe.load import load_recipe, parse_recipe
from gancompress.storage.checkpoint import Snapshot, checkpoints, save
from gancompress.training.forward_backward import ForwardBackward

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.recipe.schema import Recipe
    from gancompress.training.loop import Trainer

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8, "conditional": True},
    # nothing to be timed before the first step
    "training": {"steps": 4, "batch_size": 4, "log_every": 1, "threads": 1, "kernels": "dense", "fold": "never"},
    "evaluation": {"samples": 20, "batch_size": 20, "metrics": ["fd"]},
}
ALL = {"images": 2.0, "features": 3.0, "discriminator": 0.5}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "distilled-cache"))


def trained_as(root: Path, *overrides: str) -> Path:
    return Experiment(parse_recipe(TINY, overrides).recipe, root, evaluates=False).run().path


def untrained(root: Path, *overrides: str) -> Path:
    """A checkpoint of a generator as it is initialised: as good a teacher as any, and made at once."""
    recipe = parse_recipe(TINY, overrides).recipe
    dataset = build_dataset(recipe)
    architecture = build_architecture(recipe, dataset.spec)
    average = build_networks(architecture, recipe.seed).generator.state_dict()
    groups = {"ema": {f"module.{name}": tensor for name, tensor in average.items()}}
    return save(root, Snapshot(0, groups, {"architecture": architecture.to_json()}))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_as(tmp_path_factory.mktemp("teacher"))


def student(teacher: Path, *overrides: str, **weights: float) -> Recipe:
    training = {**TINY["training"], "distillation": {"teacher": str(teacher), **(weights or ALL)}}
    smaller = {"method": {"name": "narrow"}, "generator": {"density": 0.4}}
    return parse_recipe({**TINY, "name": "student", "sparsity": smaller, "training": training}, overrides).recipe


def started(recipe: Recipe) -> Trainer:
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    return trainer


def lines(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    times = ("seconds", "rate")
    return [{k: v for k, v in record.items() if k not in times} for record in records if record["kind"] == "train"]


def last(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in checkpoints(run / "checkpoints")[-1].iterdir()}


# --------------------------------------------------------------------------- what is learned and recorded


def test_a_narrow_run_learns_from_a_wide_one_and_records_every_term(teacher: Path, tmp_path: Path) -> None:
    plain = Experiment(student(teacher, "training.distillation=null"), tmp_path, evaluates=False).run().path
    run = Experiment(student(teacher, images=30.0, features=0.0), tmp_path, evaluates=False).run().path
    for one, other in zip(lines(plain), lines(run), strict=True):
        assert other.keys() - one.keys() == {"distillation_images"}
        # the loss is the adversarial one and 30 times the term; both runs start alike
        if one["step"] == 1:
            added = 30 * other["distillation_images"]
            assert other["loss_generator"] - one["loss_generator"] == pytest.approx(added, rel=1e-4)
    everything = Experiment(student(teacher), tmp_path, evaluates=False).run().path
    kinds = ("images", "features", "discriminator")
    for line in lines(everything):
        assert all(0 < line[f"distillation_{kind}"] < 2 for kind in kinds)


def test_learning_brings_the_images_nearer(teacher: Path) -> None:
    """Thirty steps by images alone, nearly: the distance on latents of no step falls by a third."""
    recipe = student(teacher, "training.steps=30", "training.optimizers.generator.lr=0.01", images=1000.0, features=0.0)
    trainer = started(recipe)
    wanted = read_teacher(teacher).generator
    fresh = trainer.play.source.latents(64, "fresh")

    def distance() -> float:
        with torch.no_grad(), trainer.ema.measured():
            return float((trainer.generator(*fresh) - wanted(*fresh)).abs().mean())

    before = distance()
    (current,) = declared_rounds(recipe, trainer)
    for _ in range(30):
        trainer.step(current)
    assert distance() < before * 2 / 3


def test_the_teacher_is_the_average_and_stays_as_it_is(teacher: Path) -> None:
    recipe = student(teacher, "training.precision=bf16")
    trainer = started(recipe)
    assert trainer.play.objective.taught is not None
    network = trainer.play.objective.taught.teacher
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer.step(declared_rounds(recipe, trainer)[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    average = open_run(teacher).generator("last", "ema")
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


# --------------------------------------------------------------------------- ways to compute a step


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (("training.channels_last=true",), 1e-4),
        (("training.kernels=sparse",), 1e-4),
        (("training.fold=always",), 1e-4),
        pytest.param(("training.compile=true",), 1e-3, marks=pytest.mark.slow),  # compiling takes its time
        (("training.feed=prefetch",), 0),
        (("training.precision=bf16",), 0.2),
    ],
)
@pytest.mark.parametrize("model", ["dcgan", "sngan"])
def test_however_a_step_is_computed_its_terms_are_the_same(
    teacher: Path, tmp_path: Path, model: str, settings: tuple[str, ...], tolerance: float
) -> None:
    """A sparse student, so that kernels have something to do; an SNGAN has blocks that are folded and fused."""
    overrides = ("sparsity.method=static", "sparsity.generator.density=0.3", "sparsity.discriminator.density=0.5")
    if model == "sngan":
        size = ("data.resolution=32", "model={name: sngan, channels: 8, discriminator_channels: 8, latent_dim: 8}")
        teacher = untrained(tmp_path, *size)
        overrides = (*overrides, *size)
    if settings == ("training.compile=true",) and model == "sngan":
        pytest.skip("one compiled network is enough, it takes seconds")
    plain = ("training.kernels=dense", "training.fold=never", "training.feed=direct")
    terms = []
    for how in ((), settings):
        recipe = student(teacher, *overrides, *plain, *how)
        trainer = started(recipe)
        (current,) = declared_rounds(recipe, trainer)
        trainer.step(current)
        terms.append(trainer.meters.read())
    names = [name for name in terms[0] if name.startswith("distillation_")]
    assert len(names) == 3
    assert [terms[1][name] for name in names] == pytest.approx([terms[0][name] for name in names], rel=tolerance)


def test_recorded_passes_give_their_terms(teacher: Path) -> None:
    """Every replay of a recorded pass gives the terms of its own step, two micro-batches each."""
    recipe = student(teacher, "training.cuda_graphs=true", "training.accumulate=2", "training.device=cpu")

    def record(work: Any) -> Any:
        held = work()

        def replay() -> None:
            for old, new in zip(held, work(), strict=True):
                old.copy_(new)

        return replay, held

    plain, recorded = (started(student(teacher, "training.accumulate=2")) for _ in range(2))
    recorded.play.passes = ForwardBackward(
        recorded.generator, recorded.discriminator, recorded.play.objective, recipe.training, record
    )
    for step in (1, 2):
        latents = plain.play.source.latents(4, "generator", step)
        one, other = (trainer.play.passes.generator(latents, step) for trainer in (plain, recorded))
        assert len(one) == len(other) == 2
        for own, its in zip(one, other, strict=True):
            torch.testing.assert_close(own, its, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    "settings",
    [
        ("sparsity.method=dense", "training.distillation.discriminator=0"),
        ("sparsity.method={name: dst, every: 1, explore: both, growth: gradient}",),
        ("sparsity.method={name: snip, scope: layer}", "objective.loss=relativistic"),
        ("sparsity.method={name: imp, rate: 0.5, scope: layer, budget: total}", "training.generator_batch_size=6"),
    ],
)
def test_the_price_is_what_the_run_counts(teacher: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    recipe = student(teacher, *settings)
    found = price(recipe, build_dataset(recipe).spec)
    assert found.exact
    theory = Experiment(recipe, tmp_path, evaluates=False).run().cost["theory"]["training"]
    assert found.training_flops == theory["flops"]
    assert theory["parts_flops"]["teacher"] > 0


def test_the_cost_by_hand(teacher: Path, tmp_path: Path) -> None:
    """Four steps of four images: the teacher's forward pass, the alignment, and the discriminator on its images."""
    theory = Experiment(student(teacher), tmp_path, evaluates=False).run().cost["theory"]["training"]
    trainer = started(student(teacher))
    both = {"teacher": read_teacher(teacher).generator, "judge": trainer.discriminator}
    passes = {name: profile(one).weight_macs() + profile(one).other_macs() for name, one in both.items()}
    # maps of 4x4 and 8x8 with 16 and 8 channels of the teacher's, and the student's fewer
    assert trainer.play.objective.taught is not None
    narrow = [one.channels for one in trainer.play.objective.taught.students.values()]
    aligned = sum(
        places * (2 * own * wide + 3 * own**2 + wide**2)
        for places, own, wide in zip((16, 64), narrow, (16, 8), strict=True)
    )
    assert theory["parts_flops"]["teacher"] == 2 * 16 * (passes["teacher"] + aligned + passes["judge"])
    # and dense training with the same objective pays it too
    without = Experiment(student(teacher, "training.distillation=null"), tmp_path, evaluates=False).run()
    before = without.cost["theory"]["training"]
    for key in ("flops", "dense_flops"):
        assert theory[key] - before[key] == theory["parts_flops"]["teacher"]
    assert "teacher" not in before["parts_flops"]
    state = json.loads((checkpoints(without.path / "checkpoints")[-1] / "state.json").read_text())
    assert "beside" not in json.dumps(state)


# --------------------------------------------------------------------------- which run it is, and going on with it


def test_a_run_is_what_it_learns_from_and_not_where_that_lies(teacher: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(teacher, tmp_path / "moved")
    other = untrained(tmp_path / "other", "seed=1")
    here, there, elsewhere = (pinned(student(path)) for path in (teacher, moved, other))
    assert run_id(here) == run_id(there) != run_id(elsewhere)
    assert run_id(here) != run_id(pinned(student(teacher, images=2.0)))
    plain = student(teacher, "training.distillation=null")
    assert "distillation" not in minimal(plain)["training"]
    assert pinned(plain) is plain
    assert pinned(here) is here


def test_resumed_to_the_byte_and_without_a_copy_of_the_teacher(teacher: Path, tmp_path: Path) -> None:
    overrides = ("sparsity.method={name: dst, every: 2}", "training.checkpoint_every=1", "training.keep_checkpoints=9")
    whole = Experiment(student(teacher, *overrides), tmp_path / "whole", evaluates=False).run().path
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (cut,) = (tmp_path / "cut").iterdir()
    for folder in checkpoints(cut / "checkpoints")[1:]:
        shutil.rmtree(folder)
    (cut / "status.json").write_text((cut / "status.json").read_text().replace("done", "interrupted"))
    recipe = load_recipe(cut).recipe
    assert recipe.training.distillation is not None
    assert recipe.training.distillation.hash == read_teacher(teacher).hash
    assert Experiment(recipe, tmp_path / "cut", evaluates=False).run().path == cut
    assert last(cut) == last(whole)
    assert lines(cut) == lines(whole)
    plain = student(teacher, "training.distillation=null", *overrides)
    alone = Experiment(plain, tmp_path / "plain", evaluates=False).run().path
    assert last(alone).keys() == last(whole).keys()


def test_a_teacher_that_moved_or_changed_is_told_in_one_line(teacher: Path, tmp_path: Path) -> None:
    there = shutil.copytree(teacher, tmp_path / "teacher")
    overrides = ("training.checkpoint_every=2", "training.keep_checkpoints=9")
    run = Experiment(student(there, *overrides), tmp_path / "runs", evaluates=False).run().path
    shutil.rmtree(checkpoints(run / "checkpoints")[-1])
    recipe = load_recipe(run).recipe
    other = untrained(tmp_path / "other", "seed=1")
    shutil.rmtree(there)
    with pytest.raises(
        GancompressError, match=r"training\.distillation\.teacher: no such run, checkpoint or file"
    ) as gone:
        Experiment(recipe, tmp_path / "runs", evaluates=False).run()
    shutil.copytree(other, there)
    with pytest.raises(RecipeError, match=r"holds another generator \([0-9a-f]{16}\) than the recipe means") as changed:
        Experiment(recipe, tmp_path / "runs", evaluates=False).run()
    for error in (gone, changed):
        assert "\n" not in str(error.value)
        assert str(there) in str(error.value)
    # said where it is now, the run goes on
    found = load_recipe(run, (f"training.distillation.teacher={teacher}",)).recipe
    assert Experiment(found, tmp_path / "runs", evaluates=False).run().path == run
    assert len(lines(run)) == 4


# --------------------------------------------------------------------------- what a teacher may be


def test_a_run_a_checkpoint_and_a_file_are_the_same_teacher(teacher: Path, tmp_path: Path) -> None:
    checkpoint = checkpoints(teacher / "checkpoints")[-1]
    file = export(teacher, tmp_path / "generator.safetensors").file
    z, labels = torch.randn(3, 8), torch.tensor([0, 1, 0])
    run = read_teacher(teacher)
    assert read_teacher(checkpoint).hash == run.hash == read_teacher(file).hash
    for path in (checkpoint, file):
        torch.testing.assert_close(read_teacher(path).generator(z, labels), run.generator(z, labels))
    terms = []
    for path in (teacher, checkpoint, file):
        recipe = student(path)
        trainer = started(recipe)
        trainer.step(declared_rounds(recipe, trainer)[0])
        terms.append(trainer.meters.read())
    assert terms[1] == pytest.approx(terms[0], rel=1e-4)
    assert terms[2] == pytest.approx(terms[0], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            "model.latent_dim=6",
            "latents of 6 and 8 classes, the generator of this run 3x16x16 images of latents of 8",
        ),
        ("model.conditional=false", "latents of 8 and no classes, .* latents of 8 and 8 classes"),
        ("data.resolution=32", "makes 3x32x32 images .* this run 3x16x16"),
        ("data.channels=1", "makes 1x16x16 images .* this run 3x16x16"),
        ("data.classes=3", "and 3 classes, .* and 8 classes"),
    ],
)
def test_another_kind_of_images_is_refused_naming_both(teacher: Path, tmp_path: Path, settings: str, says: str) -> None:
    other = untrained(tmp_path / "other", settings)
    with pytest.raises(RecipeError, match=says) as refused:
        started(student(other))
    assert str(other) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_teacher_is_refused(teacher: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "empty").mkdir()
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "weights.safetensors"))
    stopped = shutil.copytree(teacher, tmp_path / "stopped")
    (stopped / "status.json").write_text((stopped / "status.json").read_text().replace("done", "interrupted"))
    for name, says in (
        ("nothing", "no such run"),
        ("empty", "training.distillation.teacher: "),
        ("net.onnx", "no generator with its architecture"),
        ("weights.safetensors", "no generator with its architecture"),
        ("stopped", "not finished"),
    ):
        with pytest.raises(GancompressError, match=says) as refused:
            pinned(student(tmp_path / name))
        assert name in str(refused.value)
    with pytest.raises(RecipeError, match="all three weights are 0"):
        student(teacher, images=0.0, features=0.0, discriminator=0.0)


def test_networks_without_a_map_in_common_can_learn_by_images_only(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rooms.last_maps
    monkeypatch.setattr(rooms, "last_maps", lambda network: plain(network) if network.training else {})
    with pytest.raises(RecipeError, match=r"distillation\.features: .* maps of 4x4, 8x8, its teacher of no size"):
        started(student(teacher))
    assert started(student(teacher, images=1.0, features=0.0)).play.objective.taught is not None


# --------------------------------------------------------------------------- from the commands


def test_the_setting_works_in_run_and_is_pinned_there(teacher: Path, tmp_path: Path) -> None:
    narrow = {**TINY, "sparsity": {"method": "narrow", "generator": {"density": 0.4}}}
    outcome = gancompress.run(
        narrow, {"training.distillation.teacher": teacher}, out=tmp_path, evaluate=False, progress=False
    )
    recipe = load_recipe(outcome.directory).recipe
    assert recipe.training.distillation is not None
    assert recipe.training.distillation.hash == read_teacher(teacher).hash
    assert {"distillation_images", "distillation_features"} <= lines(outcome.directory)[0].keys()
    smoke = gancompress.run(
        narrow, {"training.distillation.teacher": teacher}, out=tmp_path, evaluate=False, progress=False, smoke=True
    )
    assert load_recipe(smoke.directory).recipe.training.distillation is None


def test_the_dense_row_of_a_comparison_learns_from_nobody_and_that_is_said(teacher: Path) -> None:
    base = parse_recipe({**TINY, "sparsity": {"generator": {"density": 0.4}}})
    loaded = resolve(base, {"training.distillation.teacher": teacher})
    grid = build_grid(loaded, [MethodChoice("static")])
    taught = {
        row.choice.name: {cell.recipe.training.distillation is not None for cell in row.cells} for row in grid.rows
    }
    assert taught == {"dense": {False}, "narrow": {True}, "static": {True}}
    assert any("dense trains without training.distillation" in line for line in grid.messages)
    plain = build_grid(base, [MethodChoice("static")])
    assert plain.rows[0].cells[0].directory == grid.rows[0].cells[0].directory
    assert not any("distillation" in line for line in plain.messages)
    # the same FLOPs buy fewer steps where a teacher has to be paid
    assert grid.rows[1].price.training_flops > plain.rows[1].price.training_flops


def test_compress_learns_from_the_run_that_it_compresses(teacher: Path, tmp_path: Path) -> None:
    arguments = [str(teacher), "--density", "0.5", "--steps", "2", "--out", str(tmp_path / "runs")]
    ended = CliRunner().invoke(app, ["compress", *arguments, "--distill", "images,discriminator=0.5"])
    assert ended.exit_code == 0, ended.output
    (run,) = (tmp_path / "runs").iterdir()
    node = load_recipe(run).recipe.training.distillation
    assert node is not None
    assert (node.images, node.features, node.discriminator) == (3.0, 0.0, 0.5)
    assert node.hash == read_teacher(teacher).hash
    assert {"distillation_images", "distillation_discriminator"} <= lines(run)[0].keys()
    source = open_source(teacher)
    assert run_id(plan_compression(source, "magnitude", 0.5, 2)) not in run.name  # without is another run


def test_what_is_cut_from_a_run_learns_from_it(teacher: Path, tmp_path: Path) -> None:
    source = open_source(teacher)
    recipe = plan_channels(source, 0.5, 2, learning_from(source.path, "features=2"), tmp_path)
    assert recipe.training.distillation is not None
    assert recipe.training.distillation.features == 2
    run = Experiment(recipe, tmp_path, evaluates=False).run().path
    assert lines(run)[0].keys() >= {"distillation_features"}


@pytest.mark.parametrize("terms", ["60s", "500 steps", "images=", "images=-1", "images=nan", "sound", "", "images=0"])
def test_what_a_run_cannot_learn_is_refused_with_what_to_write(teacher: Path, tmp_path: Path, terms: str) -> None:
    with pytest.raises(RecipeError, match="name what a run learns, of images, features, discriminator"):
        gancompress.compress(teacher, 0.5, "channels", distill=terms, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
