"""The surface changes by decision only."""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from snapshot import FOLDER, SURFACES, cli_surface, python_surface, recipe_surface, rendered

RENEW = "if this is meant, run `python tests/surface/snapshot.py`, and write a line into CHANGELOG.md"


@pytest.mark.parametrize("name", SURFACES)
def test_the_surface_is_the_one_that_was_decided(name: str) -> None:
    kept = (FOLDER / name).read_text(encoding="utf-8")
    now = rendered(SURFACES[name]())
    changed = list(difflib.unified_diff(kept.splitlines(), now.splitlines(), "decided", "now", n=2, lineterm=""))
    assert not changed, "\n".join([*changed[:60], RENEW])


def test_what_is_kept_is_what_people_type() -> None:
    commands: dict[str, Any] = cli_surface()["commands"]
    assert {"run", "train", "compare", "compress", "evaluate", "sample", "export", "validate"} <= set(commands)
    assert commands["run"]["parameters"]["set_"] == {"kind": "option", "names": ["--set"], "multiple": True}
    assert commands["run"]["parameters"]["out"]["default"] == "runs"
    assert set(commands["bench"]["commands"]) == {"train", "infer"}


def test_words_are_free_and_ranges_are_not() -> None:
    surface = recipe_surface()
    assert surface["properties"]["description"] == {"default": "", "type": "string"}
    training = surface["$defs"]["TrainingConfig"]["properties"]
    assert training["batch_size"] == {"default": 64, "minimum": 1, "type": "integer"}
    assert '"description":' not in rendered({key: surface["$defs"][key] for key in ("EMAConfig", "TrainingConfig")})


def test_public_functions_are_kept_with_their_arguments() -> None:
    assert python_surface()["run"].startswith("function(recipe: 'RecipeLike', overrides: 'Overrides' = ()")
    assert python_surface()["RunOutcome"] == "class"


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    import yaml

    import gancompress

    root = FOLDER.parents[1]
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == gancompress.__version__
    assert (root / "CHANGELOG.md").read_text(encoding="utf-8").count("## [Unreleased]") == 1
