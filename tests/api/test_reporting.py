"""The report of a run that has not ended well, or not yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

import gancompress
from gancompress.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8},
    "sparsity": {"method": {"name": "dst", "every": 2}, "density": 0.5},
    "training": {"steps": 4, "batch_size": 4, "log_every": 1},
    "evaluation": {"every": 2, "samples": 16, "metrics": ["fd"]},
}


class Reader(Silent):
    """Reads the page after every evaluation but the first; then something may go wrong."""

    def __init__(self, root: Path, error: BaseException | None = None) -> None:
        self.root, self.error, self.pages = root, error, list[str]()

    def record(self, record: Mapping[str, Any]) -> None:
        if record["kind"] != "evaluation":
            return
        self.pages += [path.read_text(encoding="utf-8") for path in self.root.glob("*/report.html")]
        if self.pages and self.error is not None:
            raise self.error


def warnings_of(page: str) -> str:
    return " ".join(re.findall(r'<p class="warning">(.*?)</p>', page, re.DOTALL))


def test_a_run_has_a_report_while_it_runs(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    done = gancompress.run(TINY, out=tmp_path, progress=reader)
    assert "was still running when this page was made, at step 2 of 4" in warnings_of(reader.pages[0])
    assert done.report is not None
    assert "Unfinished" not in done.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "words"), [(KeyboardInterrupt(), "was interrupted"), (MemoryError("gone"), "failed")]
)
def test_a_run_that_ends_early_says_so_in_its_report(tmp_path: Path, error: BaseException, words: str) -> None:
    with pytest.raises(type(error)):
        gancompress.run(TINY, out=tmp_path, progress=Reader(tmp_path, error))
    (page,) = tmp_path.glob("*/report.html")
    assert f"this run {words} at step 4 of 4" in warnings_of(page.read_text(encoding="utf-8"))
