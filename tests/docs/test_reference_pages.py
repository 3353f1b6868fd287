"""The pages that the site's build writes: every setting, every command, every public name, and the notebook."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import pytest
import typer
from blocks import ROOT

import gancompress
from gancompress.cli.main import app
from gancompress.recipe.schema_export import recipe_schema


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the modules in ``docs/tools`` by name."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))
    yield importlib.import_module
    for name in ("reference", "notebook_page"):
        sys.modules.pop(name, None)


def test_the_reference_has_every_key_of_every_section(tools: Any) -> None:
    schema = recipe_schema()
    page = tools("reference").recipe_page(schema)
    assert page.count("| key | type | default | meaning |") > 30
    sections = [schema, *(one for name, one in schema["$defs"].items() if "properties" in one)]
    for section in sections:
        if section["title"] in ("Constant", "Linear", "Cosine", "Cubic"):
            continue  # shapes of a value, which its type names
        for key in section["properties"]:
            assert f"| `{key}` |" in page or key == "name", f"{section['title']}.{key}"
    assert "| `steps` | integer ≥ 1 | required | training steps (generator steps) |" in page
    assert "| `batch_size` | integer ≥ 1 | `64` |" in page
    assert "### sparsity.method: dst" in page
    assert "```" not in page


def test_the_reference_has_every_command_with_every_option(tools: Any) -> None:
    page = tools("reference").cli_page(typer.main.get_command(app))

    def check(command: Any, path: str) -> int:
        if hasattr(command, "commands"):
            return sum(check(below, f"{path} {name}") for name, below in command.commands.items())
        section = page.partition(f"## {path}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden and "--help" not in parameter.opts:
                assert f"`{parameter.opts[0]}" in section, f"{path} {parameter.opts[0]}"
        assert f"```text\n{path}" in section
        return 1

    assert check(typer.main.get_command(app), "gancompress") >= 14


def test_the_python_page_names_everything_that_people_call() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    said_elsewhere = {"__version__", "Recipe", "Batch", "Measure", "component_config", "prunable_weights"}
    for name in gancompress.__all__:
        if name in said_elsewhere or name.isupper() or name.endswith("Config"):
            continue
        home, value = gancompress._HOMES[name], getattr(gancompress, name)
        if home == "gancompress.api":  # which has it from elsewhere, under this name or another
            assert f"::: {value.__module__}.{value.__name__}\n" in page, name
        else:
            assert f"::: {home}.{name}\n" in page or f"::: {home}\n" in page, name


def test_a_page_is_made_of_a_notebook(tools: Any, tmp_path: Any) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Words."]},
        {"cell_type": "code", "source": "1 < 2", "outputs": [
            {"output_type": "execute_result", "data": {"text/plain": ["<True>"], "text/html": ["<b>True</b>"]}},
            {"output_type": "execute_result", "data": {"text/plain": ["<True>"]}},
            {"output_type": "stream", "name": "stdout", "text": ["a & b\n"]},
            {"output_type": "display_data", "data": {"image/png": "QUJD\n"}},
        ]},
    ]  # fmt: skip
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    page = tools("notebook_page").notebook_page(path, download="n.ipynb")
    assert page.startswith("# Title\n\n[Download this notebook](n.ipynb)")
    assert "```python\n1 < 2\n```" in page
    assert '<div class="cell-output"><b>True</b></div>' in page
    assert "<pre>&lt;True&gt;</pre>" in page
    assert "<pre>a &amp; b\n</pre>" in page
    assert 'src="data:image/png;base64,QUJD"' in page
