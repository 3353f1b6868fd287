from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_toys import RECIPE, Schedule, ToyMethod

from gancompress.components.registry import METHODS
from gancompress.errors import ComponentError, RecipeError
from gancompress.recipe import catalogue, shipped
from gancompress.recipe.load import component_config, load_recipe, parse_recipe
from gancompress.recipe.schema import Component, Recipe


def test_a_recipe_becomes_typed_values(folder: Path) -> None:
    loaded = load_recipe("x.yaml")
    recipe = loaded.recipe
    assert isinstance(recipe, Recipe)
    assert recipe.name == "toy"
    assert recipe.training.steps == 100
    assert recipe.training.optimizers.generator.betas == (0.0, 0.99)
    assert recipe.training.optimizers.discriminator.betas == (0.0, 0.9)
    assert recipe.sparsity.generator.density == 0.2
    assert isinstance(recipe.sparsity.method, Component)
    assert recipe.sparsity.method.name == "toy-method"
    assert recipe.evaluation.metrics == ("fd", "kd")
    assert loaded.files == (Path("x.yaml"),)


def test_components_give_back_their_own_config(folder: Path) -> None:
    recipe = load_recipe("x.yaml").recipe
    config = component_config(recipe.sparsity.method)
    assert type(config) is ToyMethod.Config
    assert config == ToyMethod.Config(every=50)
    assert config.model_fields_set == {"every"}
    assert config.schedule == Schedule(start=0.3)
    assert component_config(recipe.model).model_dump() == {"channels": 32, "factor": 1.0, "width": 8}
    with pytest.raises(TypeError, match=r"load_recipe"):
        component_config(Component(name="toy-model"))


def test_components_left_out_are_the_defaults() -> None:
    recipe = parse_recipe(
        {"name": "a", "data": "toy-data", "model": "toy-model", "training": {"steps": 1}},
        overrides=("sparsity.method=still", "objective.loss=other-loss"),
    ).recipe
    assert recipe.sparsity.method.name == "still"
    # without a name the keys are the default loss's, and an override that names one starts it afresh
    with pytest.raises(RecipeError, match=r"(?m)^<recipe>:2:10: objective.loss.margin: unknown key; known: name$"):
        parse_recipe("objective:\n  loss: {margin: 1}\n")


def test_where_points_at_the_key(folder: Path) -> None:
    loaded = load_recipe("x.yaml", overrides=("seed=4",))
    assert loaded.where("sparsity", "generator", "density") == "x.yaml:13:5"
    assert loaded.where("sparsity", "generator", "allocation") == "x.yaml:12:3"  # not written: the level above
    assert loaded.where("seed") == "--set seed=4"
    assert str(loaded.error("no such file", "data", "path")) == "x.yaml:2:1: data.path: no such file"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("=", "="),
    ],
)
def test_yaml_1_2(text: str, value: Any) -> None:
    from gancompress.recipe.document import parse_yaml

    read = parse_yaml(f"a: {text}\n", "x").data["a"]
    assert read == value
    assert type(read) is type(value)


# --------------------------------------------------------------------------- extends


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_extends_merges_mappings_and_replaces_lists(folder: Path) -> None:
    write(folder, y="extends: x.yaml\nname: child\ntraining: {batch_size: 8}\nevaluation: {metrics: [is]}\n")
    recipe = load_recipe("y.yaml").recipe
    assert recipe.name == "child"
    assert (recipe.training.steps, recipe.training.batch_size) == (100, 8)
    assert recipe.evaluation.metrics == ("is",)
    assert recipe.sparsity.generator.density == 0.2


def test_marks_point_at_the_file_that_a_key_came_from(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub", y="extends: ../x\nsparsity:\n  method: {every: 0}\n", z="extends: y.yaml\nseed: -1\n")
    write(folder, x=RECIPE.replace("density: 0.2", "density: 7"))
    with pytest.raises(RecipeError) as caught:
        load_recipe("sub/z.yaml", overrides=("training.batch_size=0",))
    assert str(caught.value).splitlines() == [
        "--set training.batch_size=0: must be at least 1, got 0",
        "sub/y.yaml:3:12: sparsity.method.every: must be at least 1, got 0",
        "sub/z.yaml:2:1: seed: must be at least 0, got -1",
        "x.yaml:13:5: sparsity.generator.density: must be in (0, 1], got 7",
    ]


def test_a_component_that_changes_its_name_drops_the_keys_of_the_other(folder: Path) -> None:
    write(
        folder,
        same="extends: x\nsparsity: {method: toy-method}\n",
        changed="extends: x\nsparsity: {method: still}\n",
        long="extends: x\nsparsity: {method: {name: still, seed: 3}}\n",
    )
    assert component_config(load_recipe("same.yaml").recipe.sparsity.method) == ToyMethod.Config(every=50)
    assert load_recipe("changed.yaml").recipe.sparsity.method.name == "still"
    assert component_config(load_recipe("long.yaml").recipe.sparsity.method).model_dump() == {"seed": 3}


def test_extends_that_go_in_circles_or_nowhere(folder: Path) -> None:
    write(folder, a="extends: b.yaml\n", b="\nextends: a.yaml\n", c="extends: c\n", d="name: d\nextends: nothing\n")
    for name, expected in (
        ("a", "b.yaml:2:1: extends: a recipe cannot extend itself: a.yaml -> b.yaml -> a.yaml"),
        ("c", "c.yaml:1:1: extends: a recipe cannot extend itself: c.yaml -> c.yaml"),
    ):
        with pytest.raises(RecipeError) as caught:
            load_recipe(f"{name}.yaml")
        assert str(caught.value) == expected
    with pytest.raises(RecipeError, match=r"^d.yaml:2:1: extends: no recipe 'nothing'"):
        load_recipe("d.yaml")
    write(folder, e="extends: [x]\n")
    with pytest.raises(RecipeError, match=r"^e.yaml:1:1: extends: must be the path or the name of one recipe"):
        load_recipe("e.yaml")


def test_a_shipped_recipe_can_be_extended_and_loaded_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "files", lambda: {"base": folder / "x.yaml"})
    (folder / "sub").mkdir()
    write(folder / "sub", y="extends: base\nseed: 5\n")
    assert load_recipe(folder / "sub" / "y.yaml").recipe.seed == 5
    for name in ("base", "base.yaml"):
        assert load_recipe(name).recipe.name == "toy"
    with pytest.raises(RecipeError, match=r"no recipe 'recipes/bse\.yaml'.*; did you mean 'base'\?"):
        load_recipe("recipes/bse.yaml")


# --------------------------------------------------------------------------- overrides


def test_overrides_reach_every_place(folder: Path) -> None:
    recipe = load_recipe(
        "x.yaml",
        overrides=(
            "training.optimizers.generator.betas.1=0.5",
            "training.ema.decay=0.5",
            "sparsity.method.every=7",
            "data.classes=[a, b]",
            "objective.diffaugment=[color]",
            "description=",
            "seed=1",
            "seed=2",
        ),
    ).recipe
    assert recipe.training.optimizers.generator.betas == (0.0, 0.5)
    assert recipe.training.ema.decay == 0.5
    assert component_config(recipe.sparsity.method) == ToyMethod.Config(every=7)
    assert component_config(recipe.data).model_dump()["classes"] == ("a", "b")
    assert recipe.objective.diffaugment == ("color",)
    assert recipe.seed == 2


def test_an_override_of_a_components_name_starts_it_afresh(folder: Path) -> None:
    for override in ("sparsity.method=still", "sparsity.method.name=still"):
        recipe = load_recipe("x.yaml", overrides=(override, "sparsity.method.seed=3")).recipe
        assert component_config(recipe.sparsity.method).model_dump() == {"seed": 3}


@pytest.mark.parametrize("chosen", ["data=shapes", "data.name=shapes"])
def test_a_component_chosen_after_a_setting_of_it_does_not_drop_it_unsaid(chosen: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("sngan_cifar10", ["data.resolution=40", "training.steps=5", chosen])
    assert str(caught.value) == f"--set {chosen}: drops --set data.resolution=40 before it: put it first"
    shapes = load_recipe("sngan_cifar10", [chosen, "data.resolution=48", "data.resolution=32"]).recipe.data
    assert component_config(shapes).model_dump()["resolution"] == 32


def test_an_override_leaves_the_lines_of_other_keys_alone(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            "x.yaml",
            overrides=("sparsity.generator.allocation=er", "sparsity.generator.density=0.1", "training.ema.x=1"),
        )
    assert (
        str(caught.value)
        == "--set training.ema.x=1: unknown key; known: decay, growing, half_life, ramp_up, sparse, start"
    )
    loaded = load_recipe("x.yaml", overrides=("sparsity.generator.allocation=er",))
    assert loaded.where("sparsity", "generator") == "x.yaml:12:3"
    assert loaded.where("sparsity", "generator", "density") == "x.yaml:13:5"


def test_parse_recipe_refuses_what_is_no_plain_value() -> None:
    with pytest.raises(RecipeError, match=r"no plain value"):
        parse_recipe({"name": object()})
    with pytest.raises(RecipeError, match=r"finite"):
        parse_recipe({"name": float("nan")})
    with pytest.raises(RecipeError, match=r"only a recipe file can extend"):
        parse_recipe("extends: x\n")


# --------------------------------------------------------------------------- components


def test_a_component_without_a_usable_config_is_named(folder: Path) -> None:
    from pydantic import BaseModel

    class Bad:
        pass

    class Named:
        class Config(BaseModel):
            name: str = ""

    for component, reason in ((Bad, "has no Config"), (Named, "has a setting called 'name'")):
        with METHODS.registered("bad", component), pytest.raises(RecipeError, match=reason) as caught:  # type: ignore[arg-type]
            load_recipe("x.yaml", overrides=("sparsity.method=bad",))
        assert str(caught.value).startswith("--set sparsity.method=bad: sparsity.method.name: method 'bad' ")
    with pytest.raises(ComponentError):
        METHODS.get("bad")


def test_a_config_that_allows_extra_keys_does_not(folder: Path) -> None:
    from pydantic import BaseModel, ConfigDict

    class Loose:
        class Config(BaseModel):
            model_config = ConfigDict(extra="allow")
            a: int = 1

    with METHODS.registered("loose", Loose):  # type: ignore[arg-type]
        assert load_recipe("x.yaml", overrides=("sparsity.method=loose",)).recipe.sparsity.method.name == "loose"
        with pytest.raises(RecipeError, match=r"sparsity.method.b: unknown key"):
            load_recipe("x.yaml", overrides=("sparsity.method={name: loose, b: 1}",))


@pytest.mark.parametrize("name", shipped.shipped_names())
def test_shipped_recipes_load(name: str) -> None:
    loaded = load_recipe(name)
    assert loaded.recipe.description, "gancompress ls has nothing to say about it"


def test_the_catalogue_says_what_the_recipes_say() -> None:
    shown = {recipe.name: recipe for recipe in catalogue.shipped_recipes()}
    quickstart = shown["quickstart"]
    assert (quickstart.data, quickstart.model, quickstart.method) == ("digits", "dcgan", "dst")
    assert quickstart.path.name == "quickstart.yaml"


def test_an_installation_finds_the_recipes_by_its_own_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    placed = folder / "anywhere" / "share" / "gancompress" / "recipes"
    placed.mkdir(parents=True)
    (placed / "base.yaml").write_text(RECIPE)

    class Installed:
        version = "0"
        files = tuple(map(metadata.PackagePath, ("gancompress/errors.py", "share/gancompress/recipes/base.yaml")))

    for file in Installed.files:
        file.dist = Installed()  # type: ignore[assignment]
    monkeypatch.setattr(Installed, "locate_file", lambda self, path: folder / "anywhere" / str(path), raising=False)
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    monkeypatch.setattr(shipped, "__file__", str(folder / "site-packages" / "gancompress" / "recipe" / "shipped.py"))
    assert shipped.shipped_names() == ["base"]
    assert load_recipe("base").recipe.name == "toy"
