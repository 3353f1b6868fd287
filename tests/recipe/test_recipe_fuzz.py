"""Whatever stands in a recipe, loading it gives a recipe or an error that is the user's to read."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_toys import RECIPE

from gancompress.errors import RecipeError
from gancompress.recipe.document import parse_yaml
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import parse_recipe

CHARACTERS = [*list(":{}[],-#&*!|>'\"%@`? \n\t.0123456789aeEnNxo~<="), "\x00", "\x07", "�", "é", "😀", "\u2028", "<<: "]
ODD: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "dst", "toy-data", [], {}, [1], {"name": "dst"}, {"a": {"b": 1}}]
WORDS = ["name", "steps", "method", "extends", "density", "training", "zzz"]


def outcome(source: Any, *overrides: str) -> str:
    try:
        return run_id(parse_recipe(source, overrides, name="f.yaml").recipe)
    except RecipeError:
        return "refused"


@given(st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_text_changed_at_random(seed: int) -> None:
    rng = random.Random(seed)
    text = RECIPE
    for _ in range(rng.randint(1, 6)):
        at, until = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(CHARACTERS) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 5) :]
            case 2:
                text = text[:at] + text[until : until + 20] + text[at:]
            case _:
                text = text[:at]
    outcome(text)


@given(st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_values_changed_at_random(seed: int) -> None:
    rng = random.Random(seed)
    data = parse_yaml(RECIPE, "x").data
    for _ in range(rng.randint(1, 3)):
        level: Any = data
        while True:
            keys = list(level) if isinstance(level, dict) else list(range(len(level)))
            key = (
                rng.choice([*keys, rng.choice(WORDS)])
                if isinstance(level, dict)
                else (rng.choice(keys) if keys else None)
            )
            if key is None:
                break
            below = level.get(key) if isinstance(level, dict) else level[key]
            if isinstance(below, dict | list) and rng.random() < 0.7:
                level = below
                continue
            level[key] = rng.choice(ODD)
            break
    outcome(data)


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_override(key: str, value: str) -> None:
    outcome(RECIPE, f"{key}={value}", value)
    outcome(RECIPE, f"training.steps={value}")


@given(st.lists(st.sampled_from(CHARACTERS), max_size=40).map("".join))
@settings(max_examples=100, deadline=None)
def test_any_text(text: str) -> None:
    assert outcome(text) == "refused"


def test_the_valid_recipe_is_not_refused() -> None:
    assert outcome(RECIPE) != "refused"
