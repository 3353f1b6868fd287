"""A page from a notebook: its words, its code, and what its cells showed when it was last run."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["notebook_page"]


def notebook_page(path: Path, download: str) -> str:
    """Return the notebook as Markdown.

    Args:
        path: the notebook.
        download: its address as seen from the page.
    """
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            parts += [
                f'<div class="cell-output">{shown}</div>' for output in cell["outputs"] for shown in _shown(output)
            ]
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n[Download this notebook]({download}){{ download }} to run it yourself.\n{rest}\n"


def _shown(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if "text/html" in data:
        yield "".join(data["text/html"])
    elif "image/png" in data:
        yield f'<img alt="output of the cell" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    elif "text/plain" in data:
        yield f"<pre>{html.escape(''.join(data['text/plain']))}</pre>"
    elif output.get("name") == "stdout":
        yield f"<pre>{html.escape(''.join(output['text']))}</pre>"
