"""The rows of a table written once, and what was published about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recipe_toys import RECIPE

from gancompress.errors import RecipeError
from gancompress.recipe import catalogue, shipped
from gancompress.recipe.identity import directory_name, resolved_yaml, run_id
from gancompress.recipe.load import load_recipe, parse_recipe
from gancompress.recipe.schema import PublishedFigure
from gancompress.runs.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS = """\
published:
  - {metric: FID, value: 8, source: the text}
variants:
  plain:
    sparsity: {method: still}
  dense-$part-$every:
    axes: {part: [0.1, 0.05], every: [7, 70]}
    description: every $every at $part
    sparsity:
      method: {every: $every}
      generator: {density: $part}
    published:
      - {metric: FID, value: [1, 2, null, 4], note: [a, null, c, d], source: table $every}
      - {metric: IS, value: [5, 6, 7, 8], source: table 2}
"""


@pytest.fixture
def grid(folder: Path) -> Path:
    (folder / "x.yaml").write_text(RECIPE + VARIANTS, encoding="utf-8")
    return folder


def test_a_variant_is_the_recipe_with_its_settings_laid_over(grid: Path) -> None:
    base, plain = load_recipe("x.yaml"), load_recipe("x.yaml@plain")
    assert base.variants == ("plain", "dense-0.1-7", "dense-0.1-70", "dense-0.05-7", "dense-0.05-70")
    assert (plain.recipe.name, plain.recipe.sparsity.method.name) == ("toy-plain", "still")
    assert (plain.recipe.data, plain.recipe.training) == (base.recipe.data, base.recipe.training)
    row = load_recipe("x.yaml@dense-0.05-7", ("seed=3",)).recipe
    assert (row.name, row.description, row.seed) == ("toy-dense-0.05-7", "every 7 at 0.05", 3)
    assert row.sparsity.generator.density == 0.05
    assert row.sparsity.method.model_dump()["every"] == 7


def test_every_row_has_its_own_figures(grid: Path) -> None:
    def figures(address: str) -> list[tuple[str, str, str]]:
        return [(one.metric, one.text, one.note) for one in load_recipe(address).recipe.published]

    assert figures("x.yaml") == [("FID", "8", "")]
    assert figures("x.yaml@dense-0.1-7") == [("FID", "1", "a"), ("IS", "5", "")]
    assert figures("x.yaml@dense-0.1-70") == [("FID", "2", ""), ("IS", "6", "")]
    assert figures("x.yaml@dense-0.05-7") == [("IS", "7", "")]  # a figure that is null is none
    assert figures("x.yaml@plain") == []  # the file's own row is another one
    assert load_recipe("x.yaml@dense-0.1-70").recipe.published[0].source == "table 70"


def test_the_id_knows_neither_variants_nor_figures(grid: Path) -> None:
    row = load_recipe("x.yaml@dense-0.05-7").recipe
    (grid / "flat.yaml").write_text(RECIPE.replace("0.2", "0.05").replace("every: 50", "every: 7"), encoding="utf-8")
    assert run_id(row) == run_id(load_recipe("flat.yaml").recipe)
    written = resolved_yaml(row)
    assert "variants" not in written
    assert parse_recipe(written).recipe == row
    assert run_id(parse_recipe(written).recipe) == run_id(row)


def test_a_changed_figure_leaves_a_run_directory_alone(grid: Path) -> None:
    row = load_recipe("x.yaml@dense-0.05-7").recipe
    opened = RunDirectory.open(grid / "runs", row)
    text = (grid / "x.yaml").read_text(encoding="utf-8").replace("7, 8], source: table 2", "7.5, 8], source: table 9")
    (grid / "x.yaml").write_text(text, encoding="utf-8")
    again = load_recipe("x.yaml@dense-0.05-7").recipe
    assert again.published != row.published
    assert RunDirectory.open(grid / "runs", again).path == opened.path


def test_a_variant_can_be_extended_and_variants_are_inherited(grid: Path) -> None:
    (grid / "sub").mkdir()
    (grid / "sub" / "y.yaml").write_text("extends: ../x@dense-0.1-7\nseed: 4\n", encoding="utf-8")
    child = load_recipe("sub/y.yaml")
    assert (child.recipe.name, child.recipe.seed, child.variants) == ("toy-dense-0.1-7", 4, ())
    assert child.recipe.sparsity.generator.density == 0.1
    (grid / "z.yaml").write_text(
        "extends: x\nname: other\nvariants:\n  plain: {seed: 9}\n"
        "  dense-$part-$every: {published: [{metric: FID, value: [9, 9, 9, 9], source: z}]}\n",
        encoding="utf-8",
    )
    assert load_recipe("z.yaml").variants == load_recipe("x.yaml").variants
    plain = load_recipe("z.yaml@plain").recipe
    assert (plain.name, plain.seed, plain.sparsity.method.name) == ("other-plain", 9, "still")
    assert [one.value for one in load_recipe("z.yaml@dense-0.05-7").recipe.published] == [9.0]


def test_a_variant_whose_component_changes_drops_the_keys_of_the_other(grid: Path) -> None:
    (grid / "z.yaml").write_text(
        "extends: x\nvariants:\n  plain: {sparsity: {method: toy-method}}\n"
        "  dense-$part-$every: {sparsity: {method: {name: still, seed: 1}}}\n",
        encoding="utf-8",
    )
    # laid over every: 50 of the file itself
    assert load_recipe("z.yaml@plain").recipe.sparsity.method.model_dump()["every"] == 50
    assert load_recipe("z.yaml@dense-0.1-7").recipe.sparsity.method.model_dump() == {"name": "still", "seed": 1}


def test_changes_of_the_published_row_are_noted(grid: Path) -> None:
    def changed(address: str, *overrides: str) -> dict[str, str]:
        return {one.key: one.published for one in load_recipe(address, overrides).recipe.changed}

    assert changed("x.yaml") == {}
    assert changed("x.yaml", "seed=2", "training.device=cpu", "name=other") == {}
    others = ("training.steps=9", "data.resolution=32", "training.flip=true")
    assert changed("x.yaml", *others) == {"training.steps": "100", "data.resolution": "16", "training.flip": "default"}
    assert changed("x.yaml@plain", "training.steps=9") == {}  # nothing was published about it
    recipe = load_recipe("x.yaml", others).recipe
    assert run_id(recipe) == run_id(recipe.model_copy(update={"changed": ()}))
    assert hash(recipe) == hash(recipe.model_copy())
    # a resolved recipe still knows, and a setting that is put back is no change
    (grid / "resolved.yaml").write_text(resolved_yaml(recipe), encoding="utf-8")
    again = changed("resolved.yaml", "training.steps=100", "training.batch_size=8")
    assert again == {"data.resolution": "16", "training.flip": "default", "training.batch_size": "default"}
    (grid / "child.yaml").write_text("extends: x\ntraining: {steps: 9}\n", encoding="utf-8")
    assert changed("child.yaml") == {"training.steps": "100"}


def test_run_directories_and_addresses(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "files", lambda: {"toy": grid / "x.yaml"})
    for name in ("toy@plain", "toy.yaml@plain", str(grid / "x.yaml@plain")):
        assert load_recipe(name).recipe.name == "toy-plain"
    home = grid / "me@home"
    home.mkdir()
    (home / "x.yaml").write_text(RECIPE, encoding="utf-8")
    assert load_recipe(home / "x.yaml").recipe.name == "toy"
    (grid / "odd@plain").write_text(RECIPE, encoding="utf-8")
    assert load_recipe("odd@plain").recipe.name == "toy"  # a file of that very name comes first
    assert directory_name(load_recipe("toy@plain").recipe).startswith("toy-plain-")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("x.yaml@plane", "no variant 'plane' of x; did you mean 'plain'?; `gancompress ls x` lists them"),
        ("y.yaml@plain", "y has no variants, so no 'plain'; leave the @ out"),
        ("nothing@plain", "no recipe 'nothing': not a file, and not a shipped recipe"),
    ],
)
def test_an_unknown_variant_says_which_there_are(grid: Path, address: str, message: str) -> None:
    (grid / "y.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(address)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("[1]", "x.yaml:21:1: variants: must be a mapping of names to settings"),
        ("{a: 1}", "x.yaml:21:12: variants.a: must be a mapping of settings"),
        ("{a: {extends: y}}", "x.yaml:21:16: variants.a.extends: stands outside of the variants"),
        ("{a: {axes: [1]}}", "x.yaml:21:16: variants.a.axes: must be a mapping of names to lists of values"),
        ("{a: {axes: {p: []}}}", "x.yaml:21:23: variants.a.axes.p: must be a list of plain values"),
        ("{a: {axes: {p: [[1]]}}}", "x.yaml:21:23: variants.a.axes.p: must be a list of plain values"),
        ("{a: {axes: {p: [1, 2]}}}", "x.yaml:21:12: variants.a: 'a' is there twice; put every axis into the name"),
        ("{a-$q: {axes: {p: [1]}}}", "x.yaml:21:12: variants.a-$q: there is no axis 'q'; known: p"),
        ("{a: {seed: $q}}", "x.yaml:21:16: variants.a.seed: there is no axis 'q'"),
        ("{'a b': {seed: 1}}", "variants.a b: must be letters, digits, '.', '_', '-' and the $names of its axes"),
        (
            "{a-$p: {axes: {p: [1, 2]}, published: [{metric: FID, value: [1], source: s}]}}",
            "variants.a-$p.published.0.value: needs 2 items, one per row, got 1",
        ),
    ],
)
def test_malformed_variants_are_refused(folder: Path, variants: str, message: str) -> None:
    (folder / "x.yaml").write_text(f"{RECIPE}variants: {variants}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("x.yaml@a")
    assert message in str(caught.value)


def test_a_mistake_in_a_variant_points_at_its_line(grid: Path) -> None:
    text = (grid / "x.yaml").read_text(encoding="utf-8").replace("method: still", "method: {every: 0}")
    (grid / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"^x.yaml:25:25: sparsity.method.every: must be at least 1, got 0$"):
        load_recipe("x.yaml@plain")


def test_variants_belong_in_a_file() -> None:
    with pytest.raises(RecipeError, match=r"only a recipe file can have variants"):
        parse_recipe("variants: {}\n")


def test_the_catalogue_lists_variants_with_their_figures(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "files", lambda: {"toy": grid / "x.yaml"})
    (shown,) = catalogue.shipped_recipes()
    assert (shown.variants, shown.published) == (5, "FID 8")
    rows = {row.name: row for row in catalogue.variant_recipes("toy")}
    assert rows["toy@dense-0.1-7"].published == "FID 1, IS 5"
    assert rows["toy@plain"].method == "still"
    assert rows["toy@plain"].published == ""


@pytest.mark.parametrize(
    ("value", "spread", "bound", "text"),
    [
        (10.11, None, "exact", "10.11"),
        (8.79, None, "below", "below 8.79"),
        (9.2, 0.33, "exact", "9.20 ± 0.33"),
        (13.04, 0.4, "exact", "13.04 ± 0.40"),
        (10, 2, "exact", "10 ± 2"),
    ],
)
def test_a_figure_and_its_spread_have_as_many_digits(value: float, spread: float | None, bound: str, text: str) -> None:
    figure = PublishedFigure.model_validate(
        {"metric": "FID", "value": value, "spread": spread, "bound": bound, "source": "x"}
    )
    assert figure.text == text
