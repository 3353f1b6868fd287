"""Cells of a comparison that are rows of a published table carry its figure, and only these."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gancompress.api.comparisons import compare
from gancompress.comparison.choices import MethodChoice
from gancompress.comparison.grid import build_grid
from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.comparison.grid import Grid

VARIANTS = """
published: [{metric: FID, value: 9, source: text}]
variants:
  dense:
    sparsity: {method: dense, generator: {density: null}, discriminator: {density: null, dense: ["output.*"]}}
    published: [{metric: FID, value: 7, source: table 1}]
  static-$g:
    axes: {g: [0.25, 0.5]}
    sparsity: {method: static, generator: {density: $g}}
    published: [{metric: FID, value: [20, 10], source: table 1}]
"""


def grid_of(tiny_file: Path, *overrides: str, smoke: bool = False) -> Grid:
    tiny_file.write_text(tiny_file.read_text() + VARIANTS)
    base = load_recipe(tiny_file, overrides, smoke)
    choices = (MethodChoice("static"), MethodChoice("dst"))
    return build_grid(base, choices, (0.25, 0.4), seeds=(0, 7))


def test_a_cell_finds_the_figure_of_its_row_whatever_the_seed(tiny_file: Path) -> None:
    cells = {cell.name: cell.recipe for cell in grid_of(tiny_file).cells}
    figures = {name: [one.value for one in recipe.published] for name, recipe in cells.items() if recipe.published}
    # dst with every: 3 is the file's own row only if its settings are kept, which --methods dst does
    assert figures == {
        "dense-s0": [7.0],  # layers that no mask touches are those of any dense run
        "dense-s7": [7.0],
        "static-d0.25-s0": [20.0],
        "static-d0.25-s7": [20.0],
        "dst-d0.25-s0": [9.0],
        "dst-d0.25-s7": [9.0],
    }


def test_overrides_of_the_base_are_told(tiny_file: Path) -> None:
    cells = {cell.name: cell.recipe for cell in grid_of(tiny_file, "training.steps=8").cells}
    assert [one.key for one in cells["static-d0.25-s0"].changed] == ["training.steps"]
    assert cells["dst-d0.4-s0"].changed == ()


def test_smoke_runs_answer_to_nothing(tiny_file: Path) -> None:
    grid = grid_of(tiny_file, smoke=True)
    assert grid.base.smoke
    assert not any(cell.recipe.published for cell in grid.cells)
    assert all(cell.recipe.smoke for cell in grid.cells)


def test_table_page_and_json_show_the_figure_beside_the_mean_over_seeds(tiny_file: Path, tmp_path: Path) -> None:
    tiny_file.write_text(tiny_file.read_text() + VARIANTS)
    done = compare(
        str(tiny_file), ["static"], densities=0.25, seeds=2, narrow=False, jobs=0, out=tmp_path / "out", progress=False
    )
    dense, line = (line for line in str(done).splitlines() if "published" in line)
    assert dense.startswith("dense: FID: published 7, here FD[classifier-")
    assert line.startswith("static 0.25: FID: published 20, here FD[classifier-")
    assert " ± " in line
    assert line.endswith("; no known difference of protocol")  # this figure tells nothing of its protocol
    _, row = json.loads((done.directory / "compare.json").read_text())["published"]
    assert (row["method"], row["density"], row["published"], row["source"]) == ("static", 0.25, "20", "table 1")
    assert "Beside what was published" in (done.directory / "compare.html").read_text()
