"""What a command exits with: 2 for what was given wrong, before anything is written; 1 for what failed at work."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from gancompress.cli.main import app
from gancompress.components.plugins import forget_plugins
from gancompress.errors import (
    EvaluationError,
    ExportError,
    GroupError,
    InvariantError,
    exit_code,
    ready_to_work,
    working,
)

if TYPE_CHECKING:
    from pathlib import Path

TINY = """\
name: tiny
data: {name: shapes, images: 64, resolution: 16, classes: 3}
model: {name: dcgan, channels: 8, latent_dim: 8, conditional: true}
sparsity: {method: static, density: 0.5}
training: {steps: 2, batch_size: 8}
"""

SPLITS = """\
import torch
from gancompress.components.registry import METHODS
from gancompress.methods.static import Static
from gancompress.sparsity.state import SparseState

@METHODS.register("splitting")
class Splitting(Static):
    def init(self, net, budget, rng):
        masks = {}
        for name, weight in net.weights.items():
            flat = torch.zeros(weight.numel(), dtype=torch.bool)
            flat[torch.randperm(weight.numel(), generator=rng)[: budget.counts[name]]] = True
            masks[name] = flat.view(weight.shape)
        return SparseState(masks, dict(budget.counts))
"""

WRONG = [
    "run",
    "run nowhere.yaml",
    "run tiny.yaml --fast",
    "run tiny.yaml --set",
    "run tiny.yaml --set training.stepz=3",
    "run tiny.yaml --set training.steps=many",
    "run tiny.yaml --set data=no-such-data",
    "run tiny.yaml --set data=folder --set data.path=nowhere",
    "run tiny.yaml --set evaluation.extractor=inception:nowhere.pt",
    "run tiny.yaml --set evaluation.metrics=[per_class_accuracy]",
    "run tiny.yaml --set training.batch_size=1",
    "run tiny.yaml --set training.device=gpu",
    "run tiny.yaml --set sparsity.density=0.000001",
    "run tiny.yaml --plugin nowhere.py",
    "run tiny.yaml --plugin tiny.yaml",
    "run tiny.yaml --plugin splits.py --set sparsity.method=splitting --set sparsity.pattern=1x4",
    "validate tiny.yaml --plugin splits.py --set sparsity.method=splitting --set sparsity.pattern=1x4",
    "run tiny.yaml --out tiny.yaml/runs",
    "train tiny.yaml --set training.optimizers.generator.name=no-such",
    "validate nowhere",
    "compare --methods no-such",
    "compare tiny.yaml --methods static --density 2",
    "compare tiny.yaml --methods static --seeds x",
    "compress nowhere --method magnitude --density 0.1",
    "compress tiny.yaml --method magnitude --density 0.1",
    "evaluate nowhere",
    "sample nowhere",
    "export nowhere",
    "show nowhere",
    "ls nowhere",
    "cp nowhere",
    "cp quickstart nowhere/at/all.yaml",
    "data prepare nowhere --out made.zip",
    "plugins check no-such",
    "plugins new x/y",
    "bench infer nowhere",
    "no-such-command",
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "splits.py").write_text(SPLITS)
    yield tmp_path
    forget_plugins()


@pytest.mark.parametrize("line", WRONG)
def test_what_is_given_wrong_exits_with_2_and_leaves_nothing(here: Path, line: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == ["splits.py", "tiny.yaml"]


def test_what_fails_at_work_exits_with_1(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gancompress.experiment.session import Session

    for error in (EvaluationError("degenerate"), PermissionError(errno.EACCES, "Permission denied", "x")):

        def fails(self: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(Session, "train", fails)
        assert CliRunner().invoke(app, ["run", "tiny.yaml"]).exit_code == 1
    assert (here / "runs").is_dir()


def test_the_code_of_an_error_is_where_it_happened() -> None:
    def raised(error: Exception, cause: BaseException | None = None) -> Exception:
        error.__cause__ = cause
        return error

    assert exit_code(InvariantError("broken")) == 1
    assert exit_code(ExportError("truncated")) == 2
    assert exit_code(raised(ExportError("cannot be written"), OSError(errno.ENOSPC, "No space left"))) == 1
    assert exit_code(raised(ExportError("cannot be written"), OSError(errno.ENOENT, "No such directory"))) == 2
    assert exit_code(OSError(errno.ENOSPC, "No space left")) == 1
    assert exit_code(PermissionError(errno.EACCES, "Permission denied")) == 2
    assert exit_code(ValueError()) == 1
    for way, error, code in (
        (working, ExportError("x"), 1),
        (working, PermissionError(errno.EACCES, "x"), 1),
        (ready_to_work, InvariantError("x"), 2),
        (ready_to_work, GroupError("another process failed"), 1),
        (ready_to_work, OSError(errno.ENOSPC, "x"), 1),
    ):
        with pytest.raises(type(error)) as caught, way():
            raise error
        assert exit_code(caught.value) == code
