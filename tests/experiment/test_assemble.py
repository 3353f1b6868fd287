"""What a recipe becomes, and what is refused on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from gancompress.errors import DataError
from gancompress.experiment.assemble import build_dataset
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from pathlib import Path


def test_a_single_image_is_too_few_and_says_where_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "only.png")
    data = {"name": "folder", "path": str(tmp_path), "resolution": 8}
    recipe = parse_recipe({"name": "x", "data": data, "model": "dcgan", "training": {"steps": 1}}).recipe
    with pytest.raises(DataError, match=rf"^{tmp_path}: dataset 'folder' holds 1 images; training needs at least 2"):
        build_dataset(recipe)
