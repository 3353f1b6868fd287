from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_toys import RECIPE

from gancompress.recipe.document import dump_yaml, parse_yaml
from gancompress.recipe.identity import directory_name, minimal, resolved_yaml, run_id
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from gancompress.recipe.schema import Recipe

DATA = parse_yaml(RECIPE, "x").data


def load(source: Any, *overrides: str) -> Recipe:
    return parse_recipe(source, overrides).recipe


def test_the_id_is_short_and_stays_what_it_was() -> None:
    # A change here would orphan every run directory there is.
    assert run_id(load(RECIPE)) == "9d3572fb19"
    assert directory_name(load(RECIPE)) == "toy-9d3572fb19"


def test_minimal_keeps_what_differs_from_the_defaults() -> None:
    assert minimal(load(RECIPE)) == {
        "name": "toy",
        "data": {"name": "toy-data", "resolution": 16},
        "model": {"name": "toy-model"},
        "objective": {"loss": {"name": "toy-loss", "margin": 2.0}},
        "sparsity": {
            "method": {"name": "toy-method", "every": 50},
            "generator": {"density": 0.2},
            "discriminator": {"density": 0.5},
        },
        "training": {"steps": 100, "optimizers": {"generator": {"betas": [0.0, 0.99]}}},
        "evaluation": {"metrics": ["fd", "kd"]},
    }


def test_words_do_not_matter_and_everything_else_does() -> None:
    plain = run_id(load(RECIPE))
    for override in ("name=other", "description=other", "seed=0", "training.batch_size=64", "model.factor=1"):
        assert run_id(load(RECIPE, override)) == plain, override
    changes = ("seed=1", "training.steps=101", "sparsity.method.every=51", "sparsity.method=still", "model.factor=1.5")
    assert len({plain, *(run_id(load(RECIPE, change)) for change in changes)}) == 1 + len(changes)


def test_a_default_that_differs_within_its_parent_is_told_apart() -> None:
    # ToyMethod's schedule starts at 0.3; a Schedule of its own starts at 0.5
    ids = {
        run_id(load(RECIPE)),
        run_id(load(RECIPE, "sparsity.method.schedule={}")),
        run_id(load(RECIPE, "sparsity.method.schedule.end=0.1")),
    }
    assert len(ids) == 3
    assert run_id(load(RECIPE, "sparsity.method.schedule={start: 0.3}")) == run_id(load(RECIPE))
    assert run_id(load(RECIPE, "sparsity.method.schedule={start: 0.5}")) == run_id(
        load(RECIPE, "sparsity.method.schedule={}")
    )


def test_writing_a_default_component_out_changes_nothing() -> None:
    bare = {"name": "a", "data": "toy-data", "model": "toy-model", "training": {"steps": 1}}
    # the default components may be heavy to import: stand in for them
    from recipe_toys import OtherLoss, Still

    from gancompress.components.registry import LOSSES, METHODS

    for registry, name, component in ((LOSSES, "hinge", OtherLoss), (METHODS, "dense", Still)):
        registry._loaded[name] = component  # type: ignore[index]
    try:
        ids = {
            run_id(load(bare)),
            run_id(load(bare, "objective.loss=hinge")),
            run_id(load(bare, "sparsity.method.name=dense")),
            run_id(load(bare, "sparsity={}")),
        }
        assert len(ids) == 1
        assert "sparsity" not in minimal(load(bare))
    finally:
        for registry, name in ((LOSSES, "hinge"), (METHODS, "dense")):
            del registry._loaded[name]  # type: ignore[attr-defined]


def shuffled(data: Any, rng: random.Random) -> Any:
    if isinstance(data, dict):
        keys = list(data)
        rng.shuffle(keys)
        return {key: shuffled(data[key], rng) for key in keys}
    return data


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 10**12),
        "training.steps": st.integers(1, 10**6),
        "training.optimizers.generator.lr": st.floats(1e-9, 1e3),
        "sparsity.generator.density": st.floats(1e-9, 1.0),
        "sparsity.method.every": st.integers(14, 10**6),
        "sparsity.discriminator.dense": st.lists(st.text(max_size=8), max_size=3),
        "data.path": st.text(max_size=20),
        "description": st.text(max_size=20),
        "model.channels": st.integers(1, 1000).map(lambda n: 2 * n),
        "model.width": st.one_of(st.integers(0, 99), st.sampled_from(["narrow", "wide"])),
        "evaluation.metrics": st.lists(st.sampled_from(["fd", "kd", "is", "pr"]), min_size=1, max_size=4),
    },
)


def changed(values: dict[str, Any]) -> dict[str, Any]:
    data = parse_yaml(RECIPE, "x").data
    data["model"] = {"name": "toy-model"}
    for key, value in values.items():
        level = data
        *above, last = key.split(".")
        for step in above:
            level = level.setdefault(step, {})
        level[last] = value
    return data


@given(VALUES, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_id_depends_on_meaning_alone(values: dict[str, Any], order: int) -> None:
    recipe = load(changed(values))
    identity = run_id(recipe)
    assert run_id(load(shuffled(changed(values), random.Random(order)))) == identity
    for defaults in (True, False):
        again = load(resolved_yaml(recipe, defaults=defaults))
        assert again == recipe
        assert run_id(again) == identity


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(st.dictionaries(st.text(), TREES, min_size=1).filter(lambda data: "<<" not in str(data)))
@settings(max_examples=100, deadline=None)
def test_yaml_reads_back_what_was_written(data: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(data), "x").data == data


def test_text_that_looks_like_something_else_stays_text() -> None:
    for text in ("1e3", "0o7", "no", "null", "~", "2026-01-01", "1_000", "", "0x1F", ".5", "true", "<<", "=", "1:30"):
        assert parse_yaml(dump_yaml({"a": text}), "x").data == {"a": text}
