"""Killed at any line of the code that saves: a complete checkpoint is always there to go on from.

A killed process loses nothing that the kernel already has; only a power cut would, which no test can make.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.storage.checkpoint import Snapshot, clean, latest, prune, save

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

#: what touches the disk
OURS = ("checkpoint.py", "atomic.py", "shutil.py", "pathlib.py")


def snapshot(step: int, fill: int) -> Snapshot:
    mask = torch.ones(5, dtype=torch.bool)
    return Snapshot(step, {"generator": {"w": torch.full((4,), float(fill))}, "masks": {"w": mask}}, {"fill": fill})


def tree(directory: Path) -> dict[str, bytes | None]:
    """Return what is on the disk below ``directory``."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


def states_of_saving(directory: Path, new: Snapshot, keep: int) -> list[dict[str, bytes | None]]:
    """Return the state of the disk before every line of ours that runs in save(): what a kill there would leave."""
    states: list[dict[str, bytes | None]] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(OURS):
            return None
        if event == "line":
            states.append(tree(directory))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        save(directory, new)
        prune(directory, keep)
    finally:
        sys.settrace(before)
    return states


@pytest.mark.parametrize(("step", "keep"), [(30, 1), (20, 2)], ids=["new", "replaced"])
def test_a_kill_at_any_line_leaves_a_complete_checkpoint(tmp_path: Path, step: int, keep: int) -> None:
    save(tmp_path / "run", snapshot(10, 1))
    save(tmp_path / "run", snapshot(20, 2))
    states = states_of_saving(tmp_path / "run", snapshot(step, 99), keep)
    found: list[int] = []
    different = [state for state, last in zip(states, [None, *states], strict=False) if state != last]
    for number, state in enumerate(different):
        directory = tmp_path / str(number)
        directory.mkdir()
        for name, content in state.items():
            (directory / name).mkdir() if content is None else (directory / name).write_bytes(content)
        clean(directory)
        newest = latest(directory)
        assert newest.refused == []
        assert newest.snapshot is not None
        fill = int(newest.snapshot.groups["generator"]["w"][0])
        assert newest.snapshot.scalars == {"fill": fill}
        assert (newest.snapshot.step, fill) in {(20, 2), (step, 99)}
        assert not any(path.name.startswith(".") for path in directory.iterdir())
        found.append(fill)
        save(directory, snapshot(40, 4))
        assert latest(directory).path == directory / "00000040"
    assert len(states) > 60
    assert found.count(2) > 8  # killed in that many states before the new checkpoint had its name …
    assert found.count(99) > 5  # … and after


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from gancompress.errors import CheckpointError
from gancompress.storage.checkpoint import Snapshot, latest, save

root = Path(sys.argv[1])
save(root, Snapshot(1, {"g": {"w": torch.ones(10)}}, {}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(root, Snapshot(2, {"a": {"w": torch.ones(10)}, "g": {"w": torch.ones(500_000)}}, {}))
except CheckpointError as error:
    print(error)
print([path.name for path in root.iterdir()], latest(root).snapshot.step)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_real_limit_on_file_size_is_a_clear_message(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    message, state = done.stdout.splitlines()
    assert "it needs about 2 MB" in message
    assert "earlier checkpoints are intact" in message
    assert state == "['00000001'] 1"
