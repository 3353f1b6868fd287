"""What ``gancompress plugins new`` writes: a package that can be installed and that passes its own tests.

Every kind of component has a folder of templates: the module, its tests, and a recipe where one is needed to use it.
``@NAME@`` and its kin are filled in.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gancompress.components.registry import REGISTRIES
from gancompress.errors import ComponentError, RunError, did_you_mean
from gancompress.storage.atomic import ASIDE, put_in_place, remove_tree, sync_all

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "scaffold"]

_TEMPLATES: Final = Path(__file__).parent / "templates"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_WORD: Final = re.compile(r"@([A-Z]+)@")
_PREFIX: Final = "gancompress-"


class _Kind(NamedTuple):
    """What a README says of one kind: a component in words, a command that uses it, settings for the kit."""

    plural: str
    what: str
    use: str
    check: str = ""


_KINDS: Final[Mapping[str, _Kind]] = {
    "method": _Kind("methods", "A sparsity method", "run quickstart --set sparsity.method=@NAME@", " --set every=2"),
    "pattern": _Kind("patterns", "A sparsity pattern", "run quickstart --set sparsity.pattern=@NAME@"),
    "backbone": _Kind("backbones", "A pair of networks", "run @NAME@_digits", " --set channels=8"),
    "dataset": _Kind("datasets", "A dataset", "run quickstart --set data=@NAME@"),
    "metric": _Kind("metrics", "A metric", "run quickstart --set evaluation.metrics=[@NAME@]"),
    "loss": _Kind("losses", "A loss", "run quickstart --set objective.loss=@NAME@"),
}

#: kinds that there is a template of
KINDS: Final = tuple(_KINDS)


def scaffold(distribution: str, kind: str = "method", parent: str | Path = ".") -> list[Path]:
    """Write a package for one component, which passes its own tests; as ``gancompress plugins new``.

    Args:
        distribution: what pip calls it; recipes call the component the same, without a leading ``gancompress-``.
        kind: one of :data:`KINDS`.
        parent: where the new directory goes.

    Returns:
        The files.

    Raises:
        ComponentError: there is no such kind, or the name is no name of a package, or a component, a module or a
            keyword has it already.
        RunError: ``parent`` is no directory, or the new one is there already or cannot be written.
    """
    parent = Path(parent)
    if not parent.is_dir():
        raise RunError("there is no such directory", where=f"--out {parent}")
    if kind not in _KINDS:
        raise ComponentError(f"there is no template of kind {kind!r}{did_you_mean(kind, KINDS)}")
    if not _NAME.fullmatch(distribution):
        raise ComponentError(f"{distribution!r} is no name for a package: write it like my-method, small letters only")
    name, module = distribution.removeprefix(_PREFIX), distribution.replace("-", "_")
    words = _KINDS[kind]
    taken = next((entry for entry in REGISTRIES[words.plural].entries() if entry.name == name), None)
    if taken is not None:
        raise ComponentError(f"{kind} {name!r} is already there, from {taken.origin}; choose another name")
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise ComponentError(f"{module!r} is a module of Python or of an installed package; choose another name")
    files = _files(kind, module, name)
    filling = {
        "DISTRIBUTION": distribution,
        "NAME": name,
        "MODULE": module,
        "CLASS": "".join(word.capitalize() for word in name.split("-")),
        "RECIPES": _template("recipes.toml") if any(path.endswith(".yaml") for path in files) else "",
        **{key.upper(): value for key, value in words._asdict().items()},
    }
    directory, aside = parent / distribution, parent / f"{ASIDE}{distribution}"
    if directory.exists():
        raise RunError("is already there; choose another name, or --out another directory", where=str(directory))
    try:
        remove_tree(aside)  # of one who died while writing it
        for path, text in files.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_text(_filled(text, filling), encoding="utf-8")
        sync_all()
        put_in_place(aside, directory)
    except OSError as error:
        raise RunError(f"cannot be written: {error.strerror}", where=str(directory)) from error
    return [directory / path for path in files]


def _files(kind: str, module: str, name: str) -> dict[str, str]:
    """Return the templates of a package's files by path."""
    files = {
        "pyproject.toml": _template("pyproject.toml"),
        "README.md": _template("README.md"),
        f"src/{module}/__init__.py": _template(f"{kind}/component.py"),
        f"tests/test_{module}.py": _template(f"{kind}/test.py"),
    }
    if (_TEMPLATES / kind / "recipe.yaml.tmpl").is_file():
        files[f"src/{module}/recipes/{name}_digits.yaml"] = _template(f"{kind}/recipe.yaml")
    return files


def _template(name: str) -> str:
    return (_TEMPLATES / f"{name}.tmpl").read_text(encoding="utf-8")


def _filled(text: str, words: Mapping[str, str]) -> str:
    # what is filled in may hold words itself
    return _WORD.sub(lambda match: _filled(words[match[1]], words), text)
