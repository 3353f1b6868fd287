"""A run in process: what it leaves behind, and that looking at it changes nothing."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.data.memory import Stored
from gancompress.data.shapes import Shapes
from gancompress.errors import BackboneError, CheckpointError, EvaluationError, RecipeError, RunError
from gancompress.evaluation.metrics import KernelDistance
from gancompress.experiment.finished import open_run
from gancompress.experiment.run import Experiment
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 64},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 8, "conditional": True},
    "sparsity": {
        "method": {"name": "dst", "explore": "both", "every": 4},
        "generator": {"density": 0.2},
        "discriminator": {"density": 0.5},
    },
    "training": {"steps": 12, "batch_size": 8, "log_every": 4, "keep_checkpoints": 9, "threads": 1},
    "evaluation": {"samples": 40, "batch_size": 20},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One classifier for all tests here, away from the user's cache."""
    base = tmp_path_factory.getbasetemp() / "experiment-cache"
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(base))


def run(root: Path, *overrides: str, evaluates: bool = False) -> Path:
    recipe = parse_recipe(TINY, overrides).recipe
    return Experiment(recipe, root, evaluates=evaluates).run().path


def last_checkpoint(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in checkpoints(directory / "checkpoints")[-1].iterdir()}


def test_a_run_leaves_everything_its_report_needs(tmp_path: Path) -> None:
    directory = run(tmp_path, evaluates=True)
    metrics = json.loads((directory / "metrics.json").read_text())
    assert [metric["name"] for metric in metrics["best"]["metrics"]] == ["fd", "kd", "is", "precision", "recall"]
    assert all("FID" not in metric["label"] and metric["protocol"] for metric in metrics["best"]["metrics"])
    cost = json.loads((directory / "cost.json").read_text())
    assert set(cost) == {"theory", "time", "bytes", "layers"}
    assert cost["theory"]["training"]["flops"] < cost["theory"]["training"]["dense_flops"]
    assert (directory / "samples" / "00000012.png").is_file()
    assert json.loads((directory / "status.json").read_text())["state"] == "done"


def test_evaluating_often_changes_not_one_byte_of_the_training(tmp_path: Path) -> None:
    blind = run(tmp_path / "blind")
    watched = run(
        tmp_path / "watched",
        "evaluation.every=3",
        "evaluation.batch_norm=standing",
        "training.sample_every=5",
        evaluates=True,
    )
    assert last_checkpoint(blind) == last_checkpoint(watched)


def test_evaluation_afterwards_gives_the_number_of_the_run(tmp_path: Path) -> None:
    directory = run(tmp_path, evaluates=True)
    during = json.loads((directory / "metrics.json").read_text())["last"]["metrics"]
    path, after = open_run(directory).evaluate("last")
    assert [metric["value"] for metric in after] == [metric["value"] for metric in during]
    assert json.loads(path.read_text())["metrics"] == after


def test_a_trained_run_is_evaluated_later_without_training_again(tmp_path: Path) -> None:
    directory = run(tmp_path)
    assert not (directory / "metrics.json").exists()
    before = last_checkpoint(directory)
    assert run(tmp_path, evaluates=True) == directory
    assert (directory / "metrics.json").exists()
    assert last_checkpoint(directory) == before


@pytest.mark.parametrize("n_d", [1, 2, 4, 5])
def test_updates_are_counted_in_generator_steps_whatever_n_d(tmp_path: Path, n_d: int) -> None:
    directory = run(tmp_path, f"training.discriminator_steps={n_d}")
    records = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    due = [(record["role"], record["step"]) for record in records if record["kind"] == "update"]
    assert due == [(role, step) for step in (4, 8, 12) for role in ("generator", "discriminator")]


def test_a_run_keeps_to_the_threads_it_was_given(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        directory = run(tmp_path, "training.threads=3", "training.steps=1")
        assert json.loads((directory / "environment.json").read_text())["threads"] == 3
    finally:
        torch.set_num_threads(before)


def test_a_run_on_a_cpu_keeps_freed_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr("gancompress.experiment.run.keep_memory", lambda: kept.append(1))
    run(tmp_path, "training.steps=1")
    assert kept == [1]


def test_accumulation_needs_a_divisor(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"8 images cannot be shared out evenly over 3 micro-batches: .*batch_size=9",
    ):
        run(tmp_path, "training.accumulate=3")


def test_growth_by_momentum_wants_dense_moments_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--set sparsity\.moments=dense"):
        run(tmp_path, "sparsity.method.growth=momentum")
    run(
        tmp_path,
        "sparsity.method.growth=momentum",
        "sparsity.moments=dense",
        "training.optimizers.generator.betas=[0.5, 0.9]",
    )


def test_conditional_model_on_one_class(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"--set model\.conditional=false"):
        run(tmp_path, "data.classes=1")


def test_size_the_backbone_cannot_make(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"16, 32, 64 pixels.*48"):
        run(tmp_path, "data.resolution=48")


def test_altered_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    directory = run(tmp_path, "training.checkpoint_every=4")
    newest = checkpoints(directory / "checkpoints")[-1]
    good = last_checkpoint(directory)
    file = newest / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    assert run(tmp_path, "training.checkpoint_every=4") == directory
    assert last_checkpoint(directory) == good


def test_no_good_checkpoint_left_is_an_error_and_nothing_is_deleted(tmp_path: Path) -> None:
    directory = run(tmp_path)
    for path in checkpoints(directory / "checkpoints"):
        (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint of this run is intact"):
        run(tmp_path)
    assert checkpoints(directory / "checkpoints")


def test_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"training diverged; a lower learning rate"):
        run(
            tmp_path,
            "training.optimizers.generator.lr=1e30",
            "training.optimizers.discriminator.lr=1e30",
            "objective.loss=least-squares",
        )


@pytest.mark.parametrize("loss", ["hinge", "non-saturating", "least-squares", "relativistic", "wgan-gp"])
def test_every_loss_trains_with_everything_on(tmp_path: Path, loss: str) -> None:
    run(
        tmp_path,
        f"objective.loss={loss}",
        "objective.r1={weight: 1.0, every: 2, final: 0.1}",
        "objective.r2={weight: 1.0, every: 1}",
        "training.optimizers.generator={schedule: cosine, final_lr: 1e-5, final_beta2: 0.99}",
        "training.ema={decay: 0.9, growing: true}",
        "training.schedule_until=0.5",
        "objective.diffaugment=[color, translation, cutout]",
        "training.accumulate=2",
        "training.joint_batch=false",
        "training.precision=bf16",
        "training.channels_last=true",
        "training.steps=4",
    )


def test_a_diverged_run_keeps_its_good_checkpoints(tmp_path: Path) -> None:
    wild = ("training.optimizers.generator.lr=1e30", "training.optimizers.discriminator.lr=1e30")
    with pytest.raises(RunError, match="a weight is not finite"):
        run(tmp_path, *wild, "objective.loss=least-squares", "training.log_every=12", "training.checkpoint_every=2")


def test_initial_weights_that_are_not_there_leave_no_directory(tmp_path: Path) -> None:
    weights = f"{{path: {tmp_path / 'none.safetensors'}, hash: {'a' * 16}}}"
    with pytest.raises(RunError, match="no such checkpoint or file"):
        run(tmp_path / "runs", f"training.init_from={weights}")
    assert not (tmp_path / "runs").exists()


def test_updates_that_are_never_due_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stop \(0\.1\) must come after start \(0\.9\)"):
        run(tmp_path, "sparsity.method.start=0.9", "sparsity.method.stop=0.1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("data.images=12",), "evaluation.extractor: classifier: 12 real images are too few .* at least 20"),
        (("evaluation.metrics=[kd]",), "kd needs at least 50 real and generated images, evaluation.samples is 40"),
        (
            ("evaluation.metrics=[coverage]", "data.labelled=false", "model.conditional=false"),
            "coverage needs labelled data",
        ),
        (("evaluation.extractor='classifier:shapes'",), "unknown option 'shapes'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(KernelDistance, "least", 50)
    with pytest.raises(EvaluationError, match=message):
        run(tmp_path, *changes, evaluates=True)
    assert not [*tmp_path.iterdir()]


def test_samples_of_uneven_data_follow_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Shapes.load

    def uneven(self: Shapes) -> Stored:
        stored = load(self)
        return Stored(stored.images, stored.labels.clamp(min=1, max=2), stored.classes)

    monkeypatch.setattr(Shapes, "load", uneven)
    opened = open_run(run(tmp_path))
    assert opened.generator().image.counts == (0, 16, 48, 0, 0, 0, 0, 0)
    opened.sample(tmp_path / "made.zip", count=8)
    with zipfile.ZipFile(tmp_path / "made.zip") as made:
        labels = [label for _, label in json.loads(made.read("dataset.json"))["labels"]]
    assert labels == [2, 1, 2, 2, 2, 1, 2, 2]
