"""What is killed: commands on tiny networks, each with what it needs lying ready, and what must come out of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: what says when, where and how fast: no two runs agree about it
_OF_THE_MOMENT = {
    "seconds", "rate", "updated", "started", "pid", "host", "made", "time", "training_seconds", "when",
}  # fmt: skip
#: of locks, and what processes said
_BESIDE = (".lock", ".lock.holder", ".log")

_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 24},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 4},
    "training": {
        "steps": 6, "batch_size": 4, "threads": 1,
        "log_every": 2, "sample_every": 3, "checkpoint_every": 2, "keep_checkpoints": 2,
    },
    "evaluation": {"samples": 24, "every": 3, "metrics": ["fd"], "extractor": "classifier:rotation", "batch_size": 24},
}  # fmt: skip


class Scenario(NamedTuple):
    """A command that may be killed at any operation.

    Attributes:
        name: in the table.
        command: run in the directory of the trial; returns the exit code.
        ready: makes what the command finds in its directory.
        most: trials of it at most, because one takes long.
        trains: it needs a trained network, or trains one.
    """

    name: str
    command: Callable[[], int]
    ready: Callable[[Path], None] = lambda _: None
    most: int = 10**9
    trains: bool = True


def scenarios(cache: Path) -> list[Scenario]:
    """Return all of them; ``cache`` holds the classifier that all but one find ready."""
    from gancompress.components.registry import METHODS

    methods = [entry.name for entry in METHODS.entries() if entry.origin.startswith("gancompress ")]
    found = [Scenario(f"run {name}", _cli("run", "tiny.yaml"), _recipe(name)) for name in methods]
    return [
        *found,
        Scenario("evaluate", _cli("evaluate", "runs/RUN", "--set", "seed=1"), _trained),
        Scenario("evaluate, no cache", _cold, _trained, most=20),
        Scenario("export", _cli("export", "runs/RUN"), _trained),
        Scenario("sample a grid", _cli("sample", "runs/RUN", "--out", "grid.png"), _trained),
        Scenario("sample a folder", _cli("sample", "runs/RUN", "--out", "some", "--count", "4"), _trained),
        Scenario("sample a zip", _cli("sample", "runs/RUN", "--out", "some.zip", "--count", "20"), _trained),
        Scenario("compress", _cli("compress", "runs/RUN", "--density", "0.3", "--steps", "4"), _trained),
        Scenario("data prepare", _cli("data", "prepare", "in", "--out", "out.zip", "--resolution", "8"), _images,
                 trains=False),
        Scenario("compare", _compare, _recipe("dst")),
        Scenario("compare, processes", _cli("compare", "tiny.yaml", "--methods", "static", "--no-narrow", "--set",
                                            "training.sample_every=0"), _recipe("dst"), most=3),
    ]  # fmt: skip


def _cli(*arguments: str) -> Callable[[], int]:
    def command() -> int:
        from gancompress.cli.main import main

        # of two, the other one is named after this one
        given = [
            str(min(Path("runs").iterdir(), key=lambda path: len(path.name))) if part == "runs/RUN" else part
            for part in arguments
        ]
        try:
            main(given)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return command


def _cold() -> int:
    """Evaluate with a cache of its own, in which nothing lies yet."""
    import os

    os.environ["GANCOMPRESS_CACHE"] = "cache"
    return _cli("evaluate", "runs/RUN", "--set", "seed=1")()


def _compare() -> int:
    """Compare in this process: its runs are other processes otherwise, and these die elsewhere."""
    import gancompress
    from gancompress.errors import GancompressError

    try:
        gancompress.compare("tiny.yaml", "static", narrow=True, jobs=0, out="compare", progress=False)
    except GancompressError as error:
        print(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _recipe(method: str) -> Callable[[Path], None]:
    def ready(directory: Path) -> None:
        from gancompress.recipe.load import parse_recipe
        from gancompress.recipe.smoke import fitted

        settings = {**_RECIPE, "sparsity": {"method": {"name": method}, "density": 1.0 if method == "dense" else 0.5}}
        chosen = fitted(parse_recipe(settings).recipe)
        settings["sparsity"]["method"].update(chosen)
        # every recipe is YAML, and JSON is
        (directory / "tiny.yaml").write_text(json.dumps(settings))

    return ready


def _trained(directory: Path) -> None:
    """A finished run of a dense network."""
    _recipe("dense")(directory)
    assert _cli("run", "tiny.yaml")() == 0


def warm_up(directory: Path) -> None:
    """Do once what all commands do first, in this process and directory."""
    _trained(directory)
    for command in (("evaluate", "runs/RUN"), ("export", "runs/RUN"), ("compress", "runs/RUN", "--steps", "2")):
        assert _cli(*command)() == 0
    assert _compare() == 0


def _images(directory: Path) -> None:
    from PIL import Image

    for index in range(6):
        path = directory / "in" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), (40 * index, 0, 99)).save(path)


def facts(directory: Path) -> dict[str, Any]:
    """Return what lies below a directory: bytes, but of what says the time only what else it says."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_dir():
            found[name] = "a folder"
            continue
        if name.endswith(_BESIDE):
            continue
        content = path.read_bytes()
        if path.suffix in (".html", ".csv"):  # full of times
            found[name] = content.count(b"\n") > 0
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(line)) for line in content.splitlines()]
        elif path.suffix == ".json" and "checkpoints" not in path.parts:
            found[name] = _timeless(json.loads(content.replace(str(directory).encode(), b"")))
        else:
            found[name] = content.replace(str(directory).encode(), b"") if path.suffix == ".yaml" else content
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _OF_THE_MOMENT}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return what is not as it must be, in words."""
    lines = [f"missing: {name}" for name in expected if name not in found]
    lines += [f"left over: {name}" for name in found if name not in expected]
    return lines + [f"other contents: {name}" for name in expected if name in found and found[name] != expected[name]]


def fresh(template: Path, directory: Path) -> None:
    """Lay a trial's directory out."""
    shutil.copytree(template, directory, symlinks=True)
