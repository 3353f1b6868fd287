"""The page of the architecture is what a parser of the imports prints, and rooms import each other in no circle."""

from __future__ import annotations

import graphlib
import re
import sys

import pytest
from blocks import ROOT

sys.path.insert(0, str(ROOT / "docs" / "tools"))

import architecture


def test_the_page_is_what_the_source_says() -> None:
    page = architecture.PAGE.read_text(encoding="utf-8")
    assert architecture.with_table(page) == page, "run: python docs/tools/architecture.py"


def test_floors_by_hand() -> None:
    graph = {"roof": {"hall", "cellar"}, "hall": {"cellar"}, "cellar": set(), "shed": set()}
    assert architecture.floors(graph) == {"cellar": 0, "shed": 0, "hall": 1, "roof": 2}
    with pytest.raises(graphlib.CycleError):
        architecture.floors({"hall": {"cellar"}, "cellar": {"hall"}})


def test_every_room_says_what_it_holds() -> None:
    rows = [line.split(" | ") for line in architecture.table().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert all(len(row) == 4 and row[2] for row in rows)


def test_what_the_page_says_is_decided_somewhere_is_defined_there() -> None:
    page = architecture.PAGE.read_text(encoding="utf-8")
    places = re.findall(
        r"`([a-z_/]+\.py)(?:::(\w+))?`", page.partition("## Where is it decided?")[2].partition("\n## ")[0]
    )
    assert len(places) > 15
    for file, name in places:
        source = (ROOT / "gancompress" / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^ *(def|class) {name}\b", source, re.MULTILINE), f"{file} has no {name}"
