"""Kill the process at every line of the code that saves: a complete checkpoint is always there to go on from."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Runs in a process of its own, which forks before it has any thread. Each child traces the execution of save() and
# sends itself SIGKILL at the n-th line of our code, for every n until a child survives.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from gancompress.storage import checkpoint
from gancompress.storage.checkpoint import Snapshot, clean, latest, save

root, replace, keep = Path(sys.argv[1]), sys.argv[2] == "replace", int(sys.argv[3])
# A killed process loses nothing that the kernel already has; only a power cut would, which no test can make.
os.fsync = lambda descriptor: None
OURS = ("checkpoint.py", "atomic.py", "shutil.py")  # what touches the disk

def snapshot(step, fill):
    mask = torch.ones(5, dtype=torch.bool)
    return Snapshot(step, {"generator": {"w": torch.full((4,), float(fill))}, "masks": {"w": mask}}, {"fill": fill})

def run_and_die(directory, fatal):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(OURS):
            return None
        if event == "line":
            lines += 1
            if lines == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    save(directory, snapshot(20 if replace else 30, 99), keep=keep)
    sys.settrace(None)

outcomes = {}
fatal = 0
while True:
    fatal += 1
    directory = root / str(fatal)
    save(directory, snapshot(10, 1))
    save(directory, snapshot(20, 2))
    pid = os.fork()
    if pid == 0:
        run_and_die(directory, fatal)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    survived = not os.WIFSIGNALED(status)
    clean(directory)
    found = latest(directory)
    assert found.refused == [], (fatal, found.refused)
    fill = int(found.snapshot.groups["generator"]["w"][0])
    assert found.snapshot.scalars == {"fill": fill}, fatal
    assert (found.snapshot.step, fill) in {(20, 2), (20 if replace else 30, 99)}, (fatal, found.snapshot)
    assert all(not name.startswith(".") for name in os.listdir(directory)), fatal
    outcomes[fill] = outcomes.get(fill, 0) + 1
    save(directory, snapshot(40, 4), keep=keep)
    assert latest(directory).snapshot.step == 40
    if survived:
        assert os.WEXITSTATUS(status) == 0
        assert fill == 99
        break
print(outcomes[2], outcomes[99])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("mode", "keep"), [("new", 1), ("replace", 2)])
def test_sigkill_at_every_line_leaves_a_complete_checkpoint(tmp_path: Path, mode: str, keep: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), mode, str(keep)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before > 40  # killed that often before the new checkpoint had its name …
    assert after > 5  # … and that often after


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
    save(root, Snapshot(2, {"a": {"w": torch.ones(10)}, "g": {"w": torch.ones(500_000)}}, {}), keep=1)
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
