"""Imports point one way, and looking at the help costs nothing heavy."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "tools"))

from architecture import imported, room_of

PACKAGE = Path(__file__).resolve().parents[1] / "gancompress"

#: What each room may import of the others. A room that needs more is a decision: change it here and in
#: ``docs/architecture.md`` together.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "seeds": set(),
    "units": set(),
    "progress": {"errors"},
    "hub_client": set(),
    "pretrained": {"errors", "hub_client"},
    "charts": set(),
    "storage": {"errors", "units"},
    "components": {"errors"},
    "sparsity": {"errors", "components"},
    "kernels": {"errors", "storage"},
    "methods": {"errors", "components", "sparsity"},
    "objectives": {"errors", "components", "seeds", "sparsity"},
    "data": {"errors", "hub_client", "units", "components", "seeds", "storage"},
    "recipe": {"errors", "components"},
    "runs": {"errors", "storage", "recipe"},
    "backbones": {"errors", "components", "kernels", "pretrained", "sparsity"},
    "cost": {"errors", "seeds", "backbones", "sparsity"},
    "graphs": {"errors"},
    "channels": {"errors", "seeds", "units", "graphs", "sparsity"},
    "lowering": {"kernels", "graphs", "quantization"},
    "quantization": {"errors", "kernels"},
    "architecture": {"errors", "components", "data", "recipe", "backbones", "sparsity"},
    "evaluation": {"errors", "seeds", "storage", "components", "data", "pretrained"},
}
ALLOWED["training"] = {*ALLOWED} - {"components", "recipe", "runs", "evaluation", "graphs", "lowering", "quantization",
                                    "architecture", "channels"}  # fmt: skip
ALLOWED["tasks"] = {"errors", "seeds", "components", "backbones", "cost", "data", "evaluation", "methods", "objectives",
                    "recipe", "sparsity", "training"}  # fmt: skip
ALLOWED["export"] = {*ALLOWED} - {"training", "methods", "objectives", "tasks"}
ALLOWED["web"] = {"errors", "units", "kernels", "evaluation", "graphs", "lowering", "export"}
ALLOWED["reconstruct"] = {"errors", "seeds", "graphs", "sparsity"}
ALLOWED["experiment"] = {*ALLOWED} - {"reconstruct", "lowering"}
ALLOWED["foreign"] = {"errors", "seeds", "units", "storage", "components", "data", "backbones", "sparsity", "graphs",
                      "lowering", "quantization", "export", "reconstruct", "channels"}  # fmt: skip
for room in ("comparison", "bench", "testing"):
    ALLOWED[room] = {*ALLOWED} - {"comparison", "bench"}
ALLOWED["comparison"].add("bench")
ALLOWED["tracking"] = {"errors", "components", "storage", "progress", "runs"}
ALLOWED["testing"].add("tracking")
ALLOWED["report"] = {"errors", "units", "charts", "storage", "runs", "recipe", "comparison", "web"}
ALLOWED["scaffold"] = {"errors", "components", "storage"}
ALLOWED["api"] = {*ALLOWED}
#: it only words what the front door returns; of the rooms below it knows errors, words, options and what stops a run
ALLOWED["cli"] = {"api", "bench", "comparison", "components", "data", "errors", "experiment", "kernels", "progress",
                  "recipe", "report", "runs", "storage", "units"}  # fmt: skip

#: Importing these rooms, all of their files, must import nothing heavy.
LIGHT = ("errors", "components", "recipe", "scaffold", "cli")
HEAVY = {"torch", "torchvision", "timm", "torch_fidelity", "torch_pruning", "numpy", "scipy", "sklearn",
         "jinja2", "safetensors", "rich", "PIL"}  # fmt: skip


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_the_parser_sees_imports_in_functions_and_not_those_for_types(tmp_path: Path) -> None:
    source = PACKAGE / "components" / "registry.py"
    names = {name for _, name in imported(source)}
    assert "gancompress.__version__" in names  # inside a function
    assert not any(name.startswith("gancompress.methods") for name in names)  # for types only


def test_imports_point_one_way() -> None:
    wrong = []
    for path in files():
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        assert room in ALLOWED, f"{path}: a new room must say in {Path(__file__).name} what it may import"
        for line, name in imported(path):
            parts = name.split(".")
            if parts[0] != "gancompress" or len(parts) < 2 or parts[1].startswith("__"):
                continue
            if parts[1] != room and parts[1] not in ALLOWED[room]:
                wrong.append(f"{path}:{line}: {room} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_the_directions_hold_no_circle() -> None:
    graphlib.TopologicalSorter(ALLOWED).prepare()  # raises CycleError


def test_no_two_files_import_each_other() -> None:
    modules = {module_of(path): path for path in files()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for _, name in imported(path):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name not in ("", "gancompress", module):
                graph[module].add(name)
    assert sum(map(len, graph.values())) > 400, "hardly an import was seen"
    graphlib.TopologicalSorter(graph).prepare()


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
    modules = ["gancompress", *(module_of(path) for path in files() if room_of(path) in LIGHT)]
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


def test_every_module_says_what_is_public() -> None:
    for path in files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path}: a module says in its docstring what it is for"
        if path.name == "__init__.py" and len(tree.body) <= 1:
            continue  # a folder, not an interface
        assigned = [
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        ]
        assert "__all__" in assigned, f"{path}: a module says what is public"
