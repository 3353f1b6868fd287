"""The rooms of the package, their floors and who imports whom, as the source says: the table of ``architecture.md``.

``python docs/tools/architecture.py`` writes it anew. A room is a package, or a module at the package's root; a floor is
one above the highest room that is imported. What stands under ``if TYPE_CHECKING:`` is not imported.
"""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["arrows", "floors", "imported", "room_of", "table", "with_table"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gancompress"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: made by docs/tools/architecture.py -->", "<!-- /rooms -->"


def room_of(path: Path) -> str:
    """Return the room that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every module that a file imports, inside functions too."""
    package = ["gancompress", *path.relative_to(PACKAGE).parent.parts]
    for node in _run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs: not what stands under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield other
                yield from _run_time(other)
            continue
        yield node
        yield from _run_time(node)


def arrows() -> dict[str, set[str]]:
    """Return of every room the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if not room.startswith("__"):
            parts = (name.split(".") for _, name in imported(path))
            rooms = {part[1] for part in parts if part[0] == "gancompress" and len(part) > 1}
            found.setdefault(room, set()).update(rooms - {room})
    return {room: {one for one in rooms if one in found} for room, rooms in found.items()}


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of every room, the ground floor being 0.

    Raises:
        graphlib.CycleError: rooms import each other in a circle.
    """
    found: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(graph).static_order():
        found[room] = 1 + max((found[one] for one in graph[room]), default=-1)
    return found


def table() -> str:
    """Return the rooms from the roof to the ground, as a table in Markdown."""
    graph = arrows()
    height = floors(graph)
    count = sum(map(len, graph.values()))
    rows = [
        f"| {height[room]} | `{room}{'/' if (PACKAGE / room).is_dir() else '.py'}` | {_what(room)} | "
        f"{', '.join(sorted(graph[room], key=lambda one: (-height[one], one))) or 'nothing'} |"
        for room in sorted(graph, key=lambda one: (-height[one], one))
    ]
    head = f"{len(graph)} rooms on {1 + max(height.values())} floors, {count} arrows, no circle."
    return "\n".join([head, "", "| floor | room | what it holds | imports |", "|---|---|---|---|", *rows])


def _what(room: str) -> str:
    """Return the first line of a room's docstring."""
    path = PACKAGE / room / "__init__.py"
    source = path if path.is_file() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|").removesuffix(".")


def with_table(page: str) -> str:
    """Return the page with the table that the source gives between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
