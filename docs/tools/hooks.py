"""Hooks of the documentation's build: pages that are written from the program, the notebook and the repository."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mkdocs.structure.files import File
from notebook_page import notebook_page
from reference import cli_page, recipe_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = {"Decisions": "adr/index.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation: one is a file, and nothing else has to name it."""
    for section in config.nav or ():
        for pages in section.values():
            if isinstance(pages, list) and DECISIONS in pages:
                at = pages.index(DECISIONS)
                pages[at] = {"Decisions": ["adr/index.md", *(f"adr/{path.name}" for path in decisions())]}
    return config


def decisions() -> list[Path]:
    """Return the files of the decisions, in the order of their numbers."""
    return sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


def decisions_page() -> str:
    """Return the list of all decisions."""
    lines = [
        "# Decisions",
        "",
        "Choices that the next person would ask about: what stood to choice, what was chosen, and what follows.",
        "",
    ]
    for path in decisions():
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        number, _, words = title.partition(". ")
        lines.append(f"{number}. [{words}]({path.name})")
    return "\n".join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no one writes by hand."""
    import typer

    from gancompress.cli.main import app
    from gancompress.recipe.schema_export import recipe_schema

    generated: dict[str, Any] = {
        "reference/recipe.md": recipe_page(recipe_schema()),
        "reference/cli.md": cli_page(typer.main.get_command(app)),
        "adr/index.md": decisions_page(),
        "guides/notebook.md": notebook_page(ROOT / "docs" / "notebook.ipynb", download="../notebook.ipynb"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Say in the page's words what docstrings say in those of another tool."""
    html = html.replace("<p>Example::</p>", "<p>Example:</p>")
    return re.sub(r":(?:class|func|meth|mod):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html)
