"""What ``gancompress plugins new`` writes: a package that can be installed and that passes its own tests."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from typing import Final

from gancompress.cli.scaffold_code import PARTS, Part
from gancompress.components.registry import REGISTRIES
from gancompress.errors import ComponentError, RunError

__all__ = ["KINDS", "scaffold"]

#: kinds that there is a template of
KINDS: Final = tuple(PARTS)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX: Final = "gancompress-"

_PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "@DISTRIBUTION@"
version = "0.1.0"
description = "@WHAT@ for gancompress."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["gancompress"]

[project.optional-dependencies]
test = ["pytest>=8"]

# what recipes call it = module:Class
[project.entry-points."gancompress.@PLURAL@"]
@NAME@ = "@MODULE@:@CLASS@"
@RECIPES@
[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["src"]
"""

_RECIPES = """
# the package that has a folder of recipes
[project.entry-points."gancompress.recipes"]
@NAME@ = "@MODULE@"

[tool.setuptools.package-data]
@MODULE@ = ["recipes/*.yaml"]
"""

_README = """# @DISTRIBUTION@

@WHAT@ for gancompress. Say here what it does, and who published it.

```
pip install .
gancompress plugins check @NAME@@CHECK@
@USE@
```

While you work on it: `pip install -e '.[test]'`, then `pytest`. The tests hold it to the conformance kit of
gancompress, one test per promise.
"""

_ENTRY_POINT_TEST = """

def test_recipes_find_it_by_name() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, attribute = project["entry-points"]["gancompress.@PLURAL@"]["@NAME@"].partition(":")
    assert getattr(importlib.import_module(module), attribute) is @CLASS@
"""


def scaffold(distribution: str, kind: str, parent: Path) -> list[Path]:
    """Write a package for one component.

    Args:
        distribution: what pip calls it; recipes call the component the same, without a leading ``gancompress-``.
        kind: one of :data:`KINDS`.
        parent: where the new directory goes.

    Returns:
        The files.

    Raises:
        ComponentError: the name is no name of a package, or a component, a module or a keyword has it already.
        RunError: the directory is there already, or cannot be written.
    """
    if not _NAME.fullmatch(distribution):
        raise ComponentError(f"{distribution!r} is no name for a package: write it like my-method, small letters only")
    name, module = distribution.removeprefix(_PREFIX), distribution.replace("-", "_")
    part = PARTS[kind]
    registry = REGISTRIES[part.plural]
    taken = next((entry for entry in registry.entries() if entry.name == name), None)
    if taken is not None:
        raise ComponentError(f"{kind} {name!r} is already there, from {taken.origin}; choose another name")
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise ComponentError(f"{module!r} is a module of Python or of an installed package; choose another name")
    words = {
        "DISTRIBUTION": distribution,
        "NAME": name,
        "MODULE": module,
        "CLASS": "".join(word.capitalize() for word in name.split("-")),
        "PLURAL": part.plural,
        "WHAT": part.what,
        "USE": part.use,
        "CHECK": part.check,
    }
    directory = parent / distribution
    if directory.exists():
        raise RunError("is already there; choose another name, or --out another directory", where=str(directory))
    written = []
    try:
        for path, text in _files(part, module).items():
            target = directory / _filled(path, words)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_filled(text, words), encoding="utf-8")
            written.append(target)
    except OSError as error:
        raise RunError(f"cannot be written: {error.strerror}", where=str(directory)) from error
    return written


def _files(part: Part, module: str) -> dict[str, str]:
    recipe = {f"src/{module}/recipes/{path}": text for path, text in part.recipes.items()}
    return {
        "pyproject.toml": _PYPROJECT.replace("@RECIPES@", _RECIPES if recipe else ""),
        "README.md": _README,
        f"src/{module}/__init__.py": part.source,
        f"tests/test_{module}.py": part.tests + _ENTRY_POINT_TEST,
        **recipe,
    }


def _filled(text: str, words: dict[str, str]) -> str:
    # twice: what is filled in may hold words itself
    for _ in range(2):
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
    return text
