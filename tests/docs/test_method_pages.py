"""One page per method, all with the same parts, each setting on it with the default that it has."""

from __future__ import annotations

import re
from typing import Any

import pytest
from blocks import ROOT

from gancompress.components.registry import METHODS

HEADINGS = ["How to use", "Suggested values", "Details", "Source"]
#: before the source, where anything was
MEASURED = "Measured here"


def page_of(method: str) -> str:
    return (ROOT / "docs" / "methods" / f"{method}.md").read_text(encoding="utf-8")


def rows(method: str) -> dict[str, list[str]]:
    """Return the rows of the table of suggested values by key: ``low, high`` is a row for both."""
    found: dict[str, list[str]] = {}
    for line in page_of(method).partition("## Suggested values")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        keys = re.findall(r"`([\w.]+)`", cells[0])
        for index, key in enumerate(keys):
            mine = [part.strip() for part in cells[1].split(",")] if len(keys) > 1 else [cells[1]]
            found[key] = [mine[index], *cells[2:]]
    return found


@pytest.mark.parametrize("method", METHODS.builtin_names())
def test_every_method_has_a_page_with_the_same_parts(method: str) -> None:
    page = page_of(method)
    assert page.startswith(f"# {method}\n")
    found = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert found in (HEADINGS, [*HEADINGS[:-1], MEASURED, HEADINGS[-1]])
    measured = page.partition(f"## {MEASURED}")[2].partition("\n## ")[0]
    assert (not measured) or ("](../" in measured and "seeds" in measured), "a finding without its table or its seeds"
    listed = (ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8")
    assert f"[{method}]({method}.md)" in listed
    assert f"methods/{method}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"`{method}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_page_is_of_a_method_that_is_not_there() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")}
    assert pages == {"index", *METHODS.builtin_names()}


@pytest.mark.parametrize("method", METHODS.builtin_names())
def test_every_setting_is_on_the_page_with_its_default(method: str) -> None:
    table = rows(method)
    for name, field in METHODS.get(method).Config.model_fields.items():
        assert name in table, f"docs/methods/{method}.md: {name} is not in the table of suggested values"
        written = table[name][0].replace("`", "").replace("-", " ")
        assert agrees(written, field.default), f"docs/methods/{method}.md: {name} is {field.default!r}, not {written!r}"


def agrees(written: str, default: Any) -> bool:
    """Whether a cell says a default: ``500``, ``null (never)``, ``cosine 0.5 → 0.005``, ``generator gradient, …``."""
    if default is None:
        return written.startswith("null")
    if isinstance(default, bool):
        return written == str(default).lower()
    if isinstance(default, int | float):
        return bool(re.fullmatch(r"[\d.]+", written)) and float(written) == default
    if isinstance(default, str):
        return written == default.replace("-", " ")
    said = [str(value) for value in default.model_dump().values()]
    numbers = [float(value) for value in said if re.fullmatch(r"[\d.e-]+", value)]
    words = [value for value in said if not re.fullmatch(r"[\d.e-]+", value)]
    return [float(one) for one in re.findall(r"\d+(?:\.\d+)?", written)] == numbers and all(
        one in written for one in words
    )


def test_a_wrong_default_is_seen() -> None:
    from gancompress.sparsity.schedules import Cosine

    assert agrees("cosine 0.5 → 0.005", Cosine(start=0.5, end=0.005))
    assert not agrees("cosine 0.5 → 0.05", Cosine(start=0.5, end=0.005))
    assert not agrees("constant 0.5 → 0.005", Cosine(start=0.5, end=0.005))
    assert not agrees("0.2", 0.1)
    assert not agrees("total", "per-round")
    assert not agrees("true", False)
