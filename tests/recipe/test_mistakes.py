"""Every kind of mistake, with the exact text that the user reads."""

# ruff: noqa: E501 - a message stands on one line, as it is shown

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recipe_toys import RECIPE

from gancompress.errors import RecipeError
from gancompress.recipe.document import parse_yaml
from gancompress.recipe.load import load_recipe
from gancompress.recipe.mistakes import InvalidRecipeError

if TYPE_CHECKING:
    from pathlib import Path


def message(folder: Path, text: str, *overrides: str) -> str:
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("x.yaml", overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("density: 0.2", "density: 1.5", "x.yaml:13:5: sparsity.generator.density: must be in (0, 1], got 1.5"),
        ("density: 0.2", "density: 0", "x.yaml:13:5: sparsity.generator.density: must be in (0, 1], got 0"),
        ("density: 0.2", "density: -.5", "x.yaml:13:5: sparsity.generator.density: must be in (0, 1], got -0.5"),
        ("density: 0.2", "density: .inf", "x.yaml:13:14: must be a finite number, got .inf"),
        ("density: 0.2", "density: .nan", "x.yaml:13:14: must be a finite number, got .nan"),
        ("density: 0.2", "density: 1e999", "x.yaml:13:14: must be a finite number, got 1e999"),
        ("density: 0.2", "density: half", "x.yaml:13:5: sparsity.generator.density: must be a number, got 'half'"),
        (
            "density: 0.2",
            "density: '0.2'",
            "x.yaml:13:5: sparsity.generator.density: must be a number, got '0.2'; leave the quotes out",
        ),
        ("density: 0.2", "density: true", "x.yaml:13:5: sparsity.generator.density: must be a number, got true"),
        (
            "density: 0.2",
            "densty: 0.2",
            "x.yaml:13:5: sparsity.generator.densty: unknown key; did you mean 'density'?",
        ),
        (
            "density: 0.2",
            "zzz: 1",
            "x.yaml:13:5: sparsity.generator.zzz: unknown key; known: allocation, dense, density, min_layer_density",
        ),
        ("steps: 100", "steps: ten", "x.yaml:16:3: training.steps: must be a whole number, got 'ten'"),
        ("steps: 100", "steps: 1.5", "x.yaml:16:3: training.steps: must be a whole number, got 1.5"),
        ("steps: 100", "steps: 0", "x.yaml:16:3: training.steps: must be at least 1, got 0"),
        ("steps: 100", "steps:", "x.yaml:16:3: training.steps: must be a whole number, got null"),
        ("steps: 100", "flip: true", "x.yaml:15:1: training.steps: required key is missing"),
        ("  steps: 100", "  steps: 9\n  flip: 1", "x.yaml:17:3: training.flip: must be true or false, got 1"),
        ("  steps: 100", "  steps: 9\n  flip: yes", "x.yaml:17:3: training.flip: must be true or false, got 'yes'"),
        (
            "  steps: 100",
            "  steps: 9\n  precision: fp16",
            "x.yaml:17:3: training.precision: must be one of 'float32' or 'bf16' (did you mean 'bf16'?), got 'fp16'",
        ),
        (
            "betas: [0.0, 0.99]",
            "betas: [0.0, high]",
            "x.yaml:18:40: training.optimizers.generator.betas.1: must be a number, got 'high'",
        ),
        (
            "betas: [0.0, 0.99]",
            "betas: [0.0]",
            "x.yaml:18:27: training.optimizers.generator.betas: needs 2 numbers, got [0.0]",
        ),
        (
            "betas: [0.0, 0.99]",
            "betas: []",
            "x.yaml:18:27: training.optimizers.generator.betas: needs 2 numbers, got []",
        ),
        (
            "betas: [0.0, 0.99]",
            "betas: [0, 1, 2]",
            "x.yaml:18:27: training.optimizers.generator.betas: needs 2 numbers, got [0, 1, 2]",
        ),
        (
            "lr: 2e-4",
            "learning_rate: 2e-4",
            "x.yaml:18:17: training.optimizers.generator.learning_rate: unknown key; did you mean 'lr'?",
        ),
        (
            "  steps: 100",
            "  steps: 100\n  learning_rate: 1",
            "x.yaml:17:3: training.learning_rate: unknown key; did you mean 'optimizers.generator.lr'?",
        ),
        (
            "betas: [0.0, 0.99]",
            "betas: 3",
            "x.yaml:18:27: training.optimizers.generator.betas: must be a list, got 3",
        ),
        ("lr: 2e-4", "lr: -2e-4", "x.yaml:18:17: training.optimizers.generator.lr: must be greater than 0, got -0.0002"),
        ("name: toy-data", "name: toy-dta", "x.yaml:3:3: data.name: unknown dataset 'toy-dta'; did you mean 'toy-data'?"),
        (
            "model: toy-model",
            "model: toy-modle",
            "x.yaml:5:1: model.name: unknown backbone 'toy-modle'; did you mean 'toy-model'?",
        ),
        (
            "name: toy-method",
            "name: toy-metod",
            "x.yaml:10:5: sparsity.method.name: unknown method 'toy-metod'; did you mean 'toy-method'?",
        ),
        ("resolution: 16", "resolution: 3", "x.yaml:4:3: data.resolution: must be in [4, 64], got 3"),
        ("resolution: 16", "resolutoin: 3", "x.yaml:4:3: data.resolutoin: unknown key; did you mean 'resolution'?"),
        ("every: 50", "evry: 50", "x.yaml:11:5: sparsity.method.evry: unknown key; did you mean 'every'?"),
        ("every: 50", "every: 13", "x.yaml:11:5: sparsity.method.every: 13 brings bad luck"),
        (
            "every: 50",
            "schedule: {start: 2}",
            "x.yaml:11:16: sparsity.method.schedule.start: must be in (0, 1], got 2",
        ),
        ("every: 50", "grow: Gradient", "x.yaml:11:5: sparsity.method.grow: must be one of 'gradient' or 'random' (did you mean 'gradient'?), got 'Gradient'"),
        ("margin: 2", "margin: 10", "x.yaml:7:26: objective.loss.margin: must be in (0, 10), got 10"),
        ("model: toy-model", "model: {name: toy-model, channels: 3}", "x.yaml:5:1: model: channels must be even, got 3"),
        (
            "model: toy-model",
            "model: {name: toy-model, width: 1.5}",
            "x.yaml:5:26: model.width: must be a whole number or must be one of 'narrow' or 'wide', got 1.5",
        ),
        ("model: toy-model", "model: [toy-model]", "x.yaml:5:1: model: must be a name, got ['toy-model']"),
        ("model: toy-model", "model: {channels: 8}", "x.yaml:5:1: model.name: required key is missing"),
        ("model: toy-model", "model: {name: 3}", "x.yaml:5:9: model.name: must be text, got 3"),
        ("model: toy-model\n", "", "x.yaml:1:1: model: required key is missing"),
        ("name: toy\n", "name: a/b\n", "x.yaml:1:1: name: must be letters, digits, '.', '_' and '-', beginning with a letter or a digit, got 'a/b'"),
        ("metrics: [fd, kd]", "metrics: [fd, kid]", "x.yaml:20:17: evaluation.metrics.1: unknown metric 'kid'; did you mean 'kd'?"),
        (
            "metrics: [fd, kd]",
            "extractor: incepton",
            "x.yaml:20:3: evaluation.extractor: unknown extractor 'incepton'; did you mean 'inception'?",
        ),
        ("metrics: [fd, kd]", "metrics: []", "x.yaml:20:3: evaluation.metrics: must not be empty, got []"),
        ("metrics: [fd, kd]", "metrics: fd", "x.yaml:20:3: evaluation.metrics: must be a list, got 'fd'"),
        (
            "sparsity:\n",
            "sparsity:\n  total_density: 0.3\n  density: 0.2\n",
            "x.yaml:8:1: sparsity: total_density and density contradict each other: give one of them",
        ),
    ],
)  # fmt: skip
def test_one_mistake(folder: Path, old: str, new: str, expected: str | None) -> None:
    assert RECIPE.count(old) == 1
    text = message(folder, RECIPE.replace(old, new))
    if expected is not None:
        assert text == expected
    assert "\n" not in text


def test_every_mistake_is_listed_in_the_order_of_its_lines(folder: Path) -> None:
    text = (
        RECIPE.replace("steps: 100", "stepz: 100")
        .replace("resolution: 16", "resolution: big")
        .replace("toy-method", "toy-metod")
        .replace("density: 0.2", "density: 2")
    )
    assert message(folder, text).splitlines() == [
        "x.yaml:4:3: data.resolution: must be a whole number, got 'big'",
        "x.yaml:10:5: sparsity.method.name: unknown method 'toy-metod'; did you mean 'toy-method'?",
        "x.yaml:13:5: sparsity.generator.density: must be in (0, 1], got 2",
        "x.yaml:15:1: training.steps: required key is missing",
        "x.yaml:16:3: training.stepz: unknown key; did you mean 'steps'?",
    ]


def test_mistakes_tell_schema_from_components(folder: Path) -> None:
    (folder / "x.yaml").write_text(RECIPE.replace("toy-method", "nothing").replace("steps: 100", "steps: 0"))
    with pytest.raises(InvalidRecipeError) as caught:
        load_recipe("x.yaml")
    assert [mistake.stage for mistake in caught.value.mistakes] == ["component", "schema"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yaml:1:1: the recipe is empty"),
        ("# nothing\n", "x.yaml:1:1: the recipe is empty"),
        ("- a\n", "x.yaml:1:1: a recipe must be a mapping of keys to values"),
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: duplicate key 'a', first written at line 1"),
        ("a:\n  b: {c: 1,\n      c: 2}\n", "x.yaml:3:7: duplicate key 'c', first written at line 2"),
        ("a: [1,\nb: 2\n", "x.yaml:3:1: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\t- 1\n", "x.yaml:2:1: indent with spaces, not tabs"),
        ("a:\n  b: 1\n\tc: 2\n", "x.yaml:3:1: indent with spaces, not tabs"),
        ("a: b: c\n", "x.yaml:1:5: mapping values are not allowed here"),
        ("1: 2\n", "x.yaml:1:1: keys must be text, got 1"),
        ("[a]: 2\n", "x.yaml:1:1: keys must be text, got a sequence"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "x.yaml:2:5: merge keys (<<) are not read; share settings with 'extends:'"),
        ("a: &x [*x]\n", "x.yaml:1:4: the aliases (*name) unfold without end"),
        ("a: !!python/name:os.system\n", "x.yaml:1:4: cannot read '' as tag:yaml.org,2002:python/name:os.system; leave the tag out"),
        ("a: !thing {}\n", "x.yaml:1:4: unknown tag !thing; leave it out"),
        ("a: !!set {}\n", "x.yaml:1:4: unknown tag tag:yaml.org,2002:set; leave it out"),
        ("a: *b\n", "x.yaml:1:4: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: but found another document"),
        ("a: 1\nb: \x07\n", "x.yaml:2:4: character U+0007 is not allowed in YAML"),
        ("a: " + "9" * 5000 + "\n", "x.yaml:1:4: number of 5000 digits is too long"),
        ("a: " + "[" * 5000 + "\n", "x.yaml: nested too deeply"),
        ("a: " + "[" * 100_000 + "]" * 100_000, "x.yaml: nested too deeply"),
    ],
)  # fmt: skip
def test_not_yaml(folder: Path, text: str, expected: str) -> None:
    assert message(folder, text) == expected


def test_aliases_that_unfold_to_too_much_are_refused(folder: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert "the aliases (*name) unfold without end" in message(folder, "\n".join(lines))


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"^no recipe 'y\.yaml': not a file, and not a shipped recipe"):
        load_recipe("y.yaml")
    (folder / "b.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(RecipeError, match=r"^b\.yaml: not a text file: byte 3 is not UTF-8$"):
        load_recipe("b.yaml")
    (folder / "d").mkdir()
    with pytest.raises(RecipeError, match=r"^d: is a directory without a recipe\.yaml$"):
        load_recipe("d")
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(RecipeError, match="no recipe"):
            load_recipe(name)


def test_a_run_directory_is_a_recipe(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "recipe.yaml").write_text(RECIPE)
    assert load_recipe("run").recipe == load_recipe("x.yaml").recipe


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sparsity.density=1.5", "--set sparsity.density=1.5: must be in (0, 1], got 1.5"),
        ("training.stepz=3", "--set training.stepz=3: unknown key; did you mean 'steps'?"),
        ("trainin.steps=3", "--set trainin.steps=3: trainin: unknown key; did you mean 'training'?"),
        ("training={steps: x}", "--set training={steps: x}: training.steps: must be a whole number, got 'x'; type a number, such as --set training.steps=16"),
        ("data=toy-dta", "--set data=toy-dta: data.name: unknown dataset 'toy-dta'; did you mean 'toy-data'?"),
        ("sparsity.method.every=x", "--set sparsity.method.every=x: must be a whole number, got 'x'; type a number, such as --set sparsity.method.every=100"),
        (
            "training.optimizers.generator.betas.1=x",
            "--set training.optimizers.generator.betas.1=x: must be a number, got 'x'; type a number, such as --set training.optimizers.generator.betas.1=0.5",
        ),
        (
            "training.optimizers.generator.betas.2=0",
            "--set training.optimizers.generator.betas.2=0: '2' is not a position in a list of 2",
        ),
        ("training.steps.x=1", "--set training.steps.x=1: training.steps is 100 and has no key 'x'"),
        ("training.steps", "--set training.steps: expected key.path=value, such as training.steps=100"),
        ("=3", "--set =3: expected key.path=value, such as training.steps=100"),
        ("a..b=3", "--set a..b=3: expected key.path=value, such as training.steps=100"),
        ("extends=y", "--set extends=y: extends belongs in a recipe file"),
        ("seed=[1", "--set seed=[1: cannot read '[1': expected ',' or ']', but got '<stream end>'"),
        ("seed={a: 1, a: 2}", "--set seed={a: 1, a: 2}: cannot read '{a: 1, a: 2}': duplicate key 'a', first written at line 1"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named_as_it_was_typed(folder: Path, override: str, expected: str) -> None:
    assert message(folder, RECIPE, override) == expected


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluation.metrics=fd", "must be a list, got 'fd'; type --set 'evaluation.metrics=[fd]'"),
        ("training.optimizers.generator.betas=0.9", "type --set 'training.optimizers.generator.betas=[0.0, 0.9]'"),
        ("name=5", """must be text, got 5; type --set 'name="5"'"""),
        ("name=[a]", "type --set 'name=\"[a]\"'"),
        ("training.steps=1_000", "must be a whole number, got '1_000'; type --set training.steps=1000"),
        ('training.ema.decay="0.9"', "must be a number, got '0.9'; type --set training.ema.decay=0.9"),
        ("training.batch_size=many", "got 'many'; type a number, such as --set training.batch_size=64"),
        ("training.ema.decay=most", "got 'most'; type a number, such as --set training.ema.decay=0.999"),
        ("training.flip=no", "must be true or false, got 'no'; type --set training.flip=false"),
        ("training.flip=1", "must be true or false, got 1; type --set training.flip=true"),
        ("training.generator_batch_size=none", "got 'none'; type --set training.generator_batch_size=null"),
        ("training.ema=0.9", "got 0.9; set its keys, such as --set training.ema.decay=VALUE"),
        ("sparsity.pattern=0x4", "sparsity.pattern.outputs: must be at least 1, got 0"),
        ("sparsity.pattern=3x", "or short for one: 1x4 (a block of outputs x inputs) or 2:4"),
        ("sparsity.pattern=4", "unknown pattern '4'; known: "),
    ],
)
def test_an_override_of_another_type_is_told_what_to_type(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", [override])
    assert str(caught.value).startswith(f"--set {override}: ")
    assert said in str(caught.value)
    value = override.partition("=")[2]
    if value in ("fd", "0.9") and "[" in said:  # what it says works
        typed = str(caught.value).rpartition("--set ")[2].strip("'")
        load_recipe("quickstart", [typed])


def test_a_text_of_the_wrong_form_is_not_told_to_be_quoted() -> None:
    with pytest.raises(RecipeError, match="must be 16 of the digits") as caught:
        load_recipe("quickstart", ["training.init_from.path=here", "training.init_from.hash=abc"])
    assert "type --set" not in str(caught.value)


def test_an_override_that_each_network_says_for_itself_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"--set sparsity.density=0.1: changes nothing: .*generator.density and spars"
    ):
        load_recipe("quickstart", ["sparsity.density=0.1"])
    own = [f"sparsity.{role}.density=null" for role in ("generator", "discriminator")]
    assert load_recipe("quickstart", [*own, "sparsity.density=0.1"]).recipe.sparsity.density == 0.1
    assert load_recipe("quickstart", [own[0], "sparsity.density=0.1"]).recipe.sparsity.density == 0.1


def test_half_a_character_is_refused_where_it_stands() -> None:
    with pytest.raises(RecipeError, match=r"recipe:2:7: holds half of a character"):
        parse_yaml('seed: 1\nname: "a\\ud800"\n', "recipe")
    assert parse_yaml('name: "\\U0001F600"', "recipe").data["name"] == "\U0001f600"
