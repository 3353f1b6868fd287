"""A recipe that trains in a second, and one classifier for all tests here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gancompress.recipe.load import LoadedRecipe, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 16, "latent_dim": 8, "conditional": True},
    "sparsity": {
        "method": {"name": "dst", "every": 3},
        "generator": {"density": 0.25},
        "discriminator": {"density": 0.5},
        "weights": "all",
    },
    "training": {"steps": 12, "batch_size": 4, "generator_batch_size": 6, "discriminator_steps": 2, "log_every": 3},
    "evaluation": {"samples": 20, "batch_size": 20, "every": 4, "metrics": ["fd", "pr"]},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One classifier for all tests here, away from the user's cache."""
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "comparison-cache"))


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished generators are not timed here: each takes a millisecond."""
    from gancompress.comparison.fitting import Cost

    def clock(files: list[Path]) -> list[Cost]:
        return [Cost(1.0, 0.01, "fake") for _ in files]

    monkeypatch.setattr("gancompress.comparison.shipping.Clock", lambda *_: clock)


@pytest.fixture
def tiny() -> Callable[..., LoadedRecipe]:
    return lambda *overrides: parse_recipe(TINY, overrides)


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    from gancompress.recipe.document import dump_yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(TINY))
    return path
