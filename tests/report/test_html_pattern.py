"""How a report names the pattern of a run, and the layers that do not hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.report.html import _pattern, render
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import read_run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pattern_is_named_with_its_settings() -> None:
    assert _pattern({"name": "block", "outputs": 1, "inputs": 4}) == "block (outputs 1, inputs 4)"
    assert _pattern({"name": "kernels"}) == "kernels"
    assert _pattern({"name": "unstructured"}) is None
    assert _pattern({}) is None  # a run from before there were patterns


def test_layers_that_keep_single_weights_in_spite_of_a_pattern_are_marked(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", {"name": "x"}, "name: x")
    layer = {"role": "generator", "shape": [4, 4], "numel": 16, "nonzeros": 8, "macs_dense": 16, "macs_sparse": 8}
    own = {"whole.weight": {"unit": [1, 4]}, "odd.weight": {"unit": None}, "old.weight": {}}
    run.write_json("cost.json", {"layers": [{**layer, "name": name, **unit} for name, unit in own.items()]})
    page = render(read_run(run.path))
    marked = [line for line in page.splitlines() if "single weights</span>" in line]
    assert len(marked) == 1
    assert "odd.weight" in marked[0]
