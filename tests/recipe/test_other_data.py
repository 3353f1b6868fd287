"""What a recipe says about its results goes when the images are others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

BASE = """
name: base
description: FID 10 on these images
data: {name: zip, path: /a.zip}
model: {name: dcgan}
training: {steps: 5}
published: [{metric: FID, value: 10.0, source: table 1, protocol: {samples: 10}}]
"""


@pytest.mark.parametrize(
    ("override", "stays"),
    [
        ("data.path=/b.zip", False),
        ("data=shapes", False),
        ("data.resolution=32", True),
        ("training.steps=9", True),
    ],
)
def test_description_and_figures_go_with_the_images(override: str, stays: bool, tmp_path: Path) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text(BASE)
    loaded = load_recipe(str(base), (override,))
    assert bool(loaded.recipe.description) == bool(loaded.recipe.published) == stays
    keys, _, value = override.partition("=")
    section, _, key = keys.partition(".")
    lines = f"{section}: {{{key}: {value}}}" if key else f"{section}: {{name: {value}}}"
    mine.write_text(f"extends: base.yaml\n{lines}\n")
    loaded = load_recipe(str(mine))
    assert bool(loaded.recipe.description) == bool(loaded.recipe.published) == stays
    if not stays:
        assert not loaded.recipe.changed
        mine.write_text(f"extends: base.yaml\ndescription: my own\n{lines}\n")
        assert load_recipe(str(mine)).recipe.description == "my own"
