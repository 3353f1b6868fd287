"""Imports point one way, and looking at the help costs nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parents[1] / "gancompress"

#: What each room may import of the others; rooms higher up may import all that is below them.
PURE = {"errors", "seeds", "locks"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "seeds": set(),
    "locks": {"errors"},
    "sparsity": PURE,
    "methods": PURE | {"sparsity"},
    "kernels": PURE | {"sparsity"},
    "data": PURE,
    "backbones": PURE | {"data", "sparsity", "kernels"},
    "objectives": PURE,
    "contract": PURE,
    "registry": PURE | {"contract"},
    "plugins": PURE | {"registry"},
    "recipe": PURE | {"registry", "plugins"},
    "evaluation": PURE | {"data", "backbones", "sparsity", "registry"},
    "cost": PURE | {"data", "backbones", "sparsity"},
    "training": PURE | {"sparsity", "methods", "backbones", "objectives", "data", "kernels", "recipe", "cost"},
}
#: The composition root and what stands on it.
ROOT = {
    "acceleration",
    "assemble",
    "widths",
    "initial",
    "memory",
    "experiment",
    "session",
    "runs",
    "environment",
    "interrupt",
    "observer",
    "provenance",
    "progress",
    "measure",
}
ALLOWED |= {room: {*ALLOWED, *ROOT} for room in ROOT}
ALLOWED["export"] = {*ALLOWED} - {"training"}
ALLOWED["bench"] = {*ALLOWED}
ALLOWED["compression"] = {*ALLOWED}
ALLOWED["comparison"] = {*ALLOWED}
ALLOWED["report"] = {*ALLOWED}
ALLOWED["outcomes"] = {*ALLOWED}
ALLOWED["api"] = {*ALLOWED}
ALLOWED["testing"] = {*ALLOWED}
ALLOWED["cli"] = {*ALLOWED}

#: Importing these rooms, all of their files, must import nothing heavy.
LIGHT = ("errors", "contract", "registry", "plugins", "recipe", "cli")
HEAVY = {"torch", "torchvision", "timm", "torch_fidelity", "torch_pruning", "numpy", "scipy", "sklearn", "matplotlib",
         "jinja2", "safetensors", "rich", "PIL"}  # fmt: skip


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs: not what stands under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield other
                yield from run_time(other)
            continue
        yield node
        yield from run_time(node)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every module that a file imports, inside functions too."""
    package = ["gancompress", *path.relative_to(PACKAGE).parent.parts]
    for node in run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def test_the_parser_sees_imports_in_functions_and_not_those_for_types(tmp_path: Path) -> None:
    source = PACKAGE / "registry.py"
    names = {name for _, name in imported(source)}
    assert "gancompress.__version__" in names  # inside a function
    assert not any(name.startswith("gancompress.methods") for name in names)  # for types only


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in ALLOWED, f"{path}: a new room must say in {Path(__file__).name} what it may import"
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] != "gancompress" or len(parts) < 2 or parts[1].startswith("__"):
            continue
        assert parts[1] == room or parts[1] in ALLOWED[room], f"{path}:{line}: {room} must not import {name}"


def test_the_directions_hold_no_circle() -> None:
    """No two rooms may import each other, those of the composition root aside, which are one room in spirit."""
    for room, below in ALLOWED.items():
        for other in below - ROOT:
            if room not in ROOT or other not in ROOT:
                assert room not in ALLOWED[other] or room == other, f"{room} and {other}"


def heavy_after(*arguments: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter imported while it did something."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "gancompress" in modules, "nothing was measured"
    return {module.partition(".")[0] for module in modules} & HEAVY


def test_looking_at_the_help_imports_nothing_heavy() -> None:
    assert heavy_after("-m", "gancompress", "--help") == set()


@pytest.mark.parametrize("arguments", [("--version",), ("ls",), ("run", "--help")], ids=" ".join)
def test_quick_commands_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert heavy_after("-m", "gancompress", *arguments) == set()


def test_importing_the_light_rooms_imports_nothing_heavy() -> None:
    modules = ["gancompress"]
    for path in files():
        if room_of(path) in LIGHT:
            relative = path.relative_to(PACKAGE.parent).with_suffix("")
            modules.append(".".join(relative.parts).removesuffix(".__init__"))
    assert len(modules) > 15
    assert heavy_after("-c", f"import {', '.join(modules)}") == set()


def test_the_probe_does_see_heavy_imports() -> None:
    assert "numpy" in heavy_after("-c", "import gancompress, numpy")


def test_every_public_name_is_there() -> None:
    import gancompress

    assert set(gancompress._HOMES) | {"__version__"} == set(gancompress.__all__)
    for name in gancompress.__all__:
        assert getattr(gancompress, name) is not None
    assert set(gancompress.__all__) <= set(dir(gancompress))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gancompress.nothing  # noqa: B018


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name == "__init__.py" and len(tree.body) <= 1:
        return  # a folder, not an interface
    assigned = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    assert "__all__" in assigned
    assert ast.get_docstring(tree), "a module says in its docstring what it is for"
