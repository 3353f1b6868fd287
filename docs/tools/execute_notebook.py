"""Run ``docs/notebook.ipynb`` and keep what its cells show: ``python docs/tools/execute_notebook.py``.

Needs the extra ``docs``. The notebook runs in an empty directory, and times and paths of this machine are not kept.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["execute"]

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebook.ipynb"


def execute(path: Path, directory: Path) -> Any:
    """Return the notebook at ``path`` as it looks after a run of all its cells in ``directory``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(directory)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        # The line of progress is for whoever waits, and warnings are those of this machine.
        cell.outputs = [one for one in cell.outputs if not _is_progress(one) and one.get("name") != "stderr"]
        for output in cell.outputs:
            output.pop("execution_count", None)
            output.get("metadata", {}).clear()
            if output.output_type == "execute_result":
                output["execution_count"] = None
    return notebook


def _is_progress(output: Any) -> bool:
    return output.get("output_type") == "display_data" and "opacity: 0.7; font-family: monospace" in str(
        output.get("data", {}).get("text/html", "")
    )


def main() -> None:
    """Run the notebook and write it back."""
    import nbformat

    with tempfile.TemporaryDirectory() as directory:
        notebook = execute(NOTEBOOK, Path(directory))
    nbformat.write(notebook, NOTEBOOK)
    size = NOTEBOOK.stat().st_size
    print(f"written: {NOTEBOOK} ({size:,} B)")
    sys.exit(0 if size < 300_000 else f"too large: {size:,} B")


if __name__ == "__main__":
    main()
