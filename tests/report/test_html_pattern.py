"""How a report names the pattern of a run."""

from __future__ import annotations

from gancompress.report.html import _pattern


def test_a_pattern_is_named_with_its_settings() -> None:
    assert _pattern({"name": "block", "outputs": 1, "inputs": 4}) == "block (outputs 1, inputs 4)"
    assert _pattern({"name": "kernels"}) == "kernels"
    assert _pattern({"name": "unstructured"}) is None
    assert _pattern({}) is None  # a run from before there were patterns
