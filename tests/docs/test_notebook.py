"""The example notebook: run cell by cell in this process, and in the slow suite by a real kernel."""

from __future__ import annotations

import ast
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from blocks import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
#: in the place of the cell that is tagged ``parameters``
SMALL = "STEPS = 6\nCOMPARED_STEPS = 4\nIMAGES = 20\n"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def code_cells() -> list[str]:
    """Return the code of every cell, with small settings."""
    return [
        SMALL if "parameters" in cell["metadata"].get("tags", []) else "".join(cell["source"])
        for cell in cells()
        if cell["cell_type"] == "code"
    ]


def run_cell(code: str, namespace: dict[str, Any]) -> Any:
    """Run a cell and return what a notebook would show below it: the value of its last line."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace) if last is not None else None


def test_every_cell_runs_and_shows_something(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display = types.ModuleType("IPython.display")
    monkeypatch.setattr(display, "Image", lambda filename, width: Path(filename).read_bytes()[:4], raising=False)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = {}
    for code in code_cells():
        value = run_cell(code, namespace)
        if value is not None:
            page = value._repr_html_() if hasattr(value, "_repr_html_") else None
            shown[code.strip().splitlines()[-1]] = (value, page)
    outcome, page = shown["outcome"]
    assert outcome.step == 6
    assert "FD[classifier-" in page
    assert "data:image/png;base64," in page
    comparison, page = shown["comparison"]
    assert [row.method for row in comparison.rows] == ["dense", "static", "dst"]
    assert "Held equal: 4 training steps" in page
    assert "data:image" not in page
    assert shown["Image(filename=outcome.samples, width=330)"][0] == b"\x89PNG"
    assert repr(shown["generator"][0]).startswith("<dcgan generator from generator.safetensors")
    shape, dtype = shown["images.shape, images.dtype"][0]
    assert (tuple(shape), str(dtype)) == ((10, 1, 16, 16), "torch.uint8")
    strip = shown["strip.resize((strip.width * 3, strip.height * 3), Pictures.Resampling.NEAREST)"][0]
    assert strip.size == (480, 48)


def test_what_is_kept_of_its_outputs_is_small_and_names_no_machine() -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    outputs = [output for cell in cells() if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert len(outputs) >= 7, "run docs/tools/execute_notebook.py"
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    text = re.sub(r"[A-Za-z0-9+/=\\n]{200,}", "", json.dumps(outputs))  # pictures
    assert not re.findall(r"(?:/home|/root|/tmp|/work|/opt|/Users)/\S*", text)


@pytest.mark.slow
def test_a_real_kernel_runs_it(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="needs the extra docs")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    import execute_notebook

    notebook = execute_notebook.execute(NOTEBOOK, desk)
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(shown) >= 7
    assert not [output for output in shown if output.output_type == "error"]
