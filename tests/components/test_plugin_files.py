"""Plugin files: what they may do wrong, what they leave behind, and what a run remembers of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.components.plugins import (
    command_line,
    forget_plugins,
    load_plugin,
    plugin_options,
    provenance,
    to_install,
)
from gancompress.components.registry import DATASETS, METHODS
from gancompress.errors import ComponentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = """\
from gancompress import METHODS, Method, MethodConfig, SparseState

class Mine(Method[MethodConfig]):
    def init(self, net, budget, rng):
        return SparseState({}, {})

METHODS.register("mine", Mine)
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    forget_plugins()


def write(folder: Path, text: str, name: str = "my_method.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(path: Any) -> str:
    with pytest.raises(ComponentError) as caught:
        load_plugin(path)
    assert caught.value.exit_code == 2
    assert "mine" not in METHODS
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_a_package_is_told_to_install_it(tmp_path: Path) -> None:
    from gancompress.scaffold.package import scaffold

    scaffold("my-method", "method", tmp_path)
    file = next(path for path in tmp_path.rglob("*.py") if "class" in path.read_text() and "test" not in path.name)
    assert f"registers nothing; its package's pyproject.toml does: pip install -e {tmp_path / 'my-method'}" in refusal(
        file
    )


def test_a_file_registers_what_it_defines(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load_plugin(path) == ["method mine"]
    assert METHODS.get("mine").__name__ == "Mine"
    assert METHODS.entry("mine").distribution == str(path)
    assert plugin_options() == plugin_options(typed=True) == ["--plugin", str(path)]
    assert command_line("run", "my recipe.yaml") == f"gancompress run 'my recipe.yaml' --plugin {path}"
    forget_plugins()
    assert "mine" not in METHODS
    assert plugin_options() == []


def test_a_file_is_run_once_and_again_when_it_changed(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    load_plugin(path)
    first = METHODS.get("mine")
    assert load_plugin(path) == ["method mine"]
    assert METHODS.get("mine") is first
    write(tmp_path, GOOD.replace("Mine", "Other"))
    load_plugin(path)
    assert METHODS.get("mine").__name__ == "Other"


def test_classes_know_their_module(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, "from __future__ import annotations\n" + GOOD))
    assert METHODS.get("mine").__module__ in sys.modules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", 'registers nothing; put a line such as @METHODS.register("my-method") above its class'),
        (GOOD + "\nraise ValueError('no\\nluck')", ":9: cannot be loaded: ValueError: no luck"),
        ("import a_package_that_is_not_there", ":1: cannot be loaded: ModuleNotFoundError: No module named 'a_pack"),
        ("def f(:", ":1: cannot be loaded: SyntaxError: "),
        (GOOD + "\nimport sys; sys.exit(3)", ":9: cannot be loaded: SystemExit: 3"),
        (GOOD.replace('"mine"', '"dst"'), "method 'dst' is already there, from gancompress "),
        (GOOD + 'METHODS.register("mine", Mine)', "method 'mine' is already there, from "),
        (GOOD.replace("init", "start"), "does not define init"),
        (GOOD.replace("net, budget, rng", "net, budget"), "defines init(self, net, budget), it is called as init(net"),
        (GOOD.replace("Mine)", "Mine({}))"), "is of type Mine, not a class"),
        (GOOD + "\nfrom gancompress import DATASETS\nDATASETS.register('mine', Mine)", "does not subclass gancomp"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_leaves_nothing(tmp_path: Path, text: str, reason: str) -> None:
    told = refusal(write(tmp_path, text))
    assert reason in told
    assert "my_method.py" in told
    assert "mine" not in DATASETS


def test_what_is_no_python_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.py").endswith("gone.py: cannot be read: No such file or directory")
    assert "is no Python file: its name must end in .py" in refusal(write(tmp_path, GOOD, "mine.txt"))
    assert "Is a directory" in refusal(tmp_path)


def test_a_run_can_say_where_its_components_came_from(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    load_plugin(path)
    (record,) = provenance([(METHODS, "mine"), (METHODS, "dst")])
    assert (record["kind"], record["name"], record["file"]) == ("method", "mine", str(path))
    assert len(record["hash"]) == 16
    assert to_install([record]) == []
    forget_plugins()
    assert to_install([record]) == [f"method 'mine' came from a plugin file: add --plugin {path}"]
    path.unlink()
    assert "which is not there any more: add --plugin" in to_install([record])[0]
    other = {"kind": "backbone", "name": "big", "from": "big-nets", "version": "2.0"}
    assert to_install([other, {"kind": "nonsense"}]) == ["backbone 'big' came from big-nets 2.0: install it"]


def test_a_checkpoint_says_the_name_of_a_backbones_file_and_not_where_it_lay(tmp_path: Path) -> None:
    from gancompress.data.base import ImageSpec
    from gancompress.experiment.networks import build_architecture
    from gancompress.recipe.load import parse_recipe

    text = """\
from gancompress.backbones.dcgan import DCGAN
from gancompress.components.registry import BACKBONES

BACKBONES.register("mine", type("Mine", (DCGAN,), {}))
"""
    load_plugin(write(tmp_path, text, "nets.py"))
    document = {"name": "x", "data": "shapes", "model": "mine", "training": {"steps": 1}}
    found = build_architecture(parse_recipe(document).recipe, ImageSpec(3, 32))
    assert found.to_json()["origin"] == "nets.py"
    assert "came from nets.py: register it first (--plugin FILE, or import the file)" in found.advice
