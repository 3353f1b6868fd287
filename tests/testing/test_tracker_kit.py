"""Every check of the tracker kit passes for a good tracker and fails for one that is broken in just that way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.testing import checks
from gancompress.tracking.base import TrackedRun, Tracker

if TYPE_CHECKING:
    from pathlib import Path


class Good(Tracker):
    """A file of lines."""

    def open(self, run: TrackedRun) -> None:
        self.file = (run.folder / "lines.txt").open("a")

    def scalars(self, step: int, values: Any) -> None:
        print(step, *values.items(), file=self.file)

    def image(self, step: int, name: str, path: Path) -> None:
        print(step, name, len(path.read_bytes()), file=self.file)

    def close(self) -> None:
        self.file.close()


def draws(self: Any, step: int, values: Any) -> None:
    random.random()


def once(self: Any, run: TrackedRun) -> None:
    self.file = (run.folder / "lines.txt").open("x")


def elsewhere(self: Any, run: TrackedRun) -> None:
    self.file = (run.folder.parent / "lines.txt").open("a")


def eats(self: Any, step: int, name: str, path: Path) -> None:
    path.write_bytes(b"")


def raises(self: Any, *_: Any) -> None:
    raise ValueError("no")


def closes_badly(self: Any) -> None:
    self.file.close()
    raise ValueError("no")


FAULTS: dict[str, dict[str, Any]] = {
    "documented": {"__doc__": ""},
    "says-what-is-missing": {"available": classmethod(lambda cls: " ")},
    "follows": {"image": raises},
    "goes-on": {"open": once},
    "nothing-to-show": {"close": closes_badly},
    "random-state": {"scalars": draws},
    "untouched": {"image": eats},
}


def outcomes(kind: type) -> dict[str, str]:
    return {check.name: check.outcome().state for check in checks(kind)}


def test_a_good_one_passes() -> None:
    assert outcomes(Good) == dict.fromkeys(FAULTS, "passed")


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_one_fails(name: str) -> None:
    assert outcomes(type("Broken", (Good,), {"__doc__": "Broken.", **FAULTS[name]}))[name] == "failed"


def test_one_that_writes_beside_its_folder_fails() -> None:
    assert outcomes(type("Broken", (Good,), {"__doc__": "Broken.", "open": elsewhere}))["untouched"] == "failed"


def test_one_that_cannot_be_used_here_is_skipped() -> None:
    missing = type("Missing", (Good,), {"__doc__": "X.", "available": classmethod(lambda cls: "x is not installed")})
    found = outcomes(missing)
    assert found.pop("documented") == found.pop("says-what-is-missing") == "passed"
    assert set(found.values()) == {"skipped"}


@pytest.mark.parametrize("check", checks("tensorboard", kind="tracker"), ids=str)
def test_tensorboard_conforms(check: Any) -> None:
    check()


@pytest.mark.slow
@pytest.mark.parametrize("check", checks("wandb", kind="tracker"), ids=str)
def test_wandb_conforms(check: Any) -> None:
    check()
