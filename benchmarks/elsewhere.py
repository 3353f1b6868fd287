"""Engines in environments of their own, timed in turns with ours by the process they run in (``worker.py``)."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER = Path(__file__).with_name("worker.py")
_MADE: dict[str, str | Exception] = {}


def python_of(variable: str, packages: Sequence[str] = ()) -> str:
    """Return the Python that an environment variable names; without one, that of a new temporary environment.

    Args:
        variable: its name, as ``MNN_PYTHON``.
        packages: to be installed into the new environment, with versions; none: it is not made.

    Raises:
        RuntimeError: the variable is not set and there is nothing to install, or installing failed.
    """
    given = os.environ.get(variable)
    if given:
        return given
    if not packages:
        raise RuntimeError(f"{variable} is not set")
    if variable not in _MADE:
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        python = str(Path(folder.name) / "bin" / "python")
        try:
            _run([sys.executable, "-m", "venv", folder.name])
            _run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])
            _MADE[variable] = python
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            _MADE[variable] = error  # once: an installation that fails takes its time
    made = _MADE[variable]
    if isinstance(made, Exception):
        raise RuntimeError(f"no environment ({made}); give one by {variable}")
    return made


def _run(command: list[str]) -> None:
    found = subprocess.run(command, capture_output=True, text=True, env=_alone(), timeout=600)
    if found.returncode:
        raise RuntimeError(_last(found.stderr))


def _alone() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1"}


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


class Elsewhere:
    """A model on an engine of another environment.

    Args:
        python: interpreter of that environment.
        engine: one of the functions of ``worker.py``.
        model: an ONNX file.
        z: latents, its only input.
        options: for the engine.

    Raises:
        RuntimeError: the engine did not start; the last line it said.
    """

    def __init__(self, python: str, engine: str, model: bytes, z: np.ndarray, *options: str, ran: str = "") -> None:
        self.ran = ran
        held = tempfile.TemporaryDirectory()
        folder = Path(held.name)
        (folder / "model.onnx").write_bytes(model)
        np.save(folder / "z.npy", z)
        self._said = (folder / "said").open("w+", errors="replace")
        files = contextlib.ExitStack()
        files.callback(held.cleanup)
        files.enter_context(self._said)
        weakref.finalize(self, files.close)
        command = [python, str(WORKER), engine, str(folder), *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=_alone()
        )
        files.enter_context(self._process)  # closes its input, which ends it, and waits
        if self._answer() != "ready":
            raise RuntimeError("it did not start")
        self.output = np.load(folder / "out.npy")

    def _answer(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            self._process.wait()
            self._said.seek(0)
            raise RuntimeError(_last(self._said.read()))
        return line

    def turn(self, calls: int) -> tuple[float, float]:
        """Run it so many times; return the CPU and wall seconds that its process took for all of them."""
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        cpu, wall = map(float, self._answer().split())
        return cpu, wall

    def __call__(self) -> np.ndarray:
        """Run it once; return what it gave when it started, for the latents are the same."""
        self.turn(1)
        return self.output
