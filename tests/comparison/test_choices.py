"""What the command line asks for, read into values."""

from __future__ import annotations

import pytest

from gancompress.comparison.choices import HeldEqual, parse_densities, parse_held, parse_methods, parse_seeds
from gancompress.errors import RecipeError


def test_methods_with_settings_of_their_own() -> None:
    choices = parse_methods("dst, dst:growth=random:every=50,imp:rate=0.5")
    assert [choice.label for choice in choices] == ["dst", "dst:growth=random:every=50", "imp:rate=0.5"]
    assert [choice.slug for choice in choices] == ["dst", "dst-growth-random-every-50", "imp-rate-0.5"]
    assert choices[1].settings == (("growth", "random"), ("every", "50"))


def test_commas_and_colons_in_brackets_belong_to_a_setting() -> None:
    (choice,) = parse_methods("dst:drop_fraction={name: cosine, start: 0.4, end: 0.0}")
    assert choice.settings == (("drop_fraction", "{name: cosine, start: 0.4, end: 0.0}"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dts", "unknown method 'dts'; did you mean 'dst'"),
        ("dst,,imp", "names with commas"),
        ("dst,dst", "'dst' is there twice"),
        ("dst:growth", "'growth' is no setting"),
    ],
)
def test_wrong_methods(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_methods(text)


def test_densities() -> None:
    assert parse_densities("0.1, 0.25") == (0.1, 0.25)
    assert parse_densities(None) == ()
    for text, message in (("x", "no number"), ("0", r"\(0, 1\]"), ("nan", r"\(0, 1\]"), ("0.1,0.10", "twice")):
        with pytest.raises(RecipeError, match=message):
            parse_densities(text)


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse_seeds("3", 5) == (5, 6, 7)
    assert parse_seeds("0,7", 5) == (0, 7)
    assert parse_seeds("4,", 5) == (4,)
    for text, message in (("0", "at least one"), ("a", "how many"), ("1,1", "twice"), ("", "how many"), ("-1", "how")):
        with pytest.raises(RecipeError, match=message):
            parse_seeds(text, 0)


def test_budgets() -> None:
    assert parse_held("steps") == HeldEqual("steps")
    assert parse_held("flops=2e14") == HeldEqual("flops", 2e14)
    for text, message in (
        ("step", "did you mean 'steps'"),
        ("steps=5", r"training\.steps=5"),
        ("flops=many", "no number of FLOPs"),
        ("flops=-1", "no number of FLOPs"),
        ("flops=inf", "no number of FLOPs"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_held(text)
