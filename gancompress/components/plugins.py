"""Plugin files: components in a Python file that is installed nowhere, for a new idea or a single experiment.

``gancompress run recipe.yaml --plugin ./my_method.py`` runs the file once, before anything else. A file is a plugin by
registering what it defines, under the name that recipes use::

    from gancompress import METHODS, Method

    @METHODS.register("my-method")
    class MyMethod(Method):
        ...

That is all: ``PATTERNS``, ``BACKBONES``, ``DATASETS``, ``LOSSES``, ``METRICS``, ``EXTRACTORS`` and ``TRACKERS`` have
the same ``register``. A run notes where its components came from, and the hash of a plugin file; opening the run
again never executes a file by itself, it says which one to give.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.components.registry import REGISTRIES, installed
from gancompress.errors import ComponentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

    from gancompress.components.registry import Registry

__all__ = [
    "PLUGIN_RECORD",
    "command_line",
    "execute",
    "forget_plugins",
    "load_plugin",
    "plugin_options",
    "provenance",
    "recipe_folders",
    "to_install",
]

#: file of a run directory that says which components came from elsewhere
PLUGIN_RECORD = "plugins.json"
#: entry-point group of packages that bring recipes, in a folder ``recipes`` inside them
_RECIPE_GROUP = "gancompress.recipes"


@dataclasses.dataclass(frozen=True)
class _Loaded:
    digest: str
    names: tuple[tuple[Registry[Any], str], ...]
    typed: str = ""


_LOADED: dict[Path, _Loaded] = {}


def load_plugin(path: str | Path) -> list[str]:
    """Run a Python file and keep what it registers. A file that was loaded before is run again only if it changed.

    Returns:
        What it registered, each as ``kind name``.

    Raises:
        ComponentError: there is no such file, it raises, it registers nothing, or what it registers cannot be used.
    """
    file = Path(path).resolve()
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ComponentError(f"cannot be read: {error.strerror}", where=f"--plugin {path}") from None
    if file in _LOADED and _LOADED[file].digest == digest:
        return [f"{registry.kind} {name}" for registry, name in _LOADED[file].names]
    _forget(file)
    registered: list[tuple[Registry[Any], list[str]]] = []
    try:
        with contextlib.ExitStack() as stack:
            registered += [(one, stack.enter_context(one.registering(str(path)))) for one in REGISTRIES.values()]
            execute(file, f"--plugin {path}")
    except BaseException:
        for registry, found in registered:
            for name in found:
                registry.unregister(name)
        raise
    names = tuple((registry, name) for registry, found in registered for name in found)
    if not names:
        package = next((folder for folder in file.parents[:4] if (folder / "pyproject.toml").is_file()), None)
        mend = 'put a line such as @METHODS.register("my-method") above its class'
        if package is not None:
            mend = f"its package's pyproject.toml does: pip install -e {package} in place of --plugin, or {mend}"
        raise ComponentError(f"registers nothing; {mend}", where=f"--plugin {path}")
    _LOADED[file] = _Loaded(digest, names, str(path))
    return [f"{registry.kind} {name}" for registry, name in names]


def forget_plugins() -> None:
    """Take back everything that plugin files registered."""
    for file in list(_LOADED):
        _forget(file)


def _forget(file: Path) -> None:
    for registry, name in _LOADED.pop(file, _Loaded("", ())).names:
        registry.unregister(name)


def execute(file: Path, shown: str) -> ModuleType:
    """Run a Python file of a user as a module of its own.

    Args:
        file: whole path.
        shown: what errors call it.

    Raises:
        ComponentError: it is none, or it raises; with the line.
    """
    # two files of one name are two modules
    name = f"gancompress_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ComponentError("is no Python file: its name must end in .py", where=shown)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pydantic and dataclasses look names up
    try:
        spec.loader.exec_module(module)
    except ComponentError as error:
        sys.modules.pop(name, None)
        raise ComponentError(str(error), where=shown) from error
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(file)), 0
        )
        line = error.lineno or 0 if isinstance(error, SyntaxError) else line
        reason = " ".join(str(error).split()) or "no reason given"
        where = f"{shown}{f':{line}' if line else ''}"
        raise ComponentError(f"cannot be loaded: {type(error).__name__}: {reason}", where=where) from error
    return module


def command_line(*arguments: object) -> str:
    """Return a line of gancompress that can be pasted: these arguments, and the plugins that this process was given."""
    return shlex.join(["gancompress", *map(str, arguments), *plugin_options(typed=True)])


def plugin_options(*, typed: bool = False) -> list[str]:
    """Return the options that make another process of this program load the same plugin files.

    They name whole paths, which hold in any directory; or, for people, each as it was ``typed``.
    """
    return [part for file, one in _LOADED.items() for part in ("--plugin", one.typed if typed else str(file))]


# --------------------------------------------------------------------------- what a run took from elsewhere


def provenance(used: Iterable[tuple[Registry[Any], str]]) -> list[dict[str, str]]:
    """Return where components that are not built in come from, as JSON-able records.

    Args:
        used: registry and name of components that a run uses.
    """
    records = []
    for registry, name in used:
        entry = registry.entry(name)
        if entry.distribution == "gancompress":
            continue
        record = {"kind": entry.kind, "name": name, "from": entry.distribution, "version": entry.version}
        file = next((file for file, loaded in _LOADED.items() if (registry, name) in loaded.names), None)
        if file is not None:
            record |= {"file": str(file), "hash": _LOADED[file].digest}
        records.append(record)
    return records


def to_install(records: Sequence[Mapping[str, str]]) -> list[str]:
    """Return, one line per component of ``records`` that is not there now, what to do about it."""
    lines = []
    for record in records:
        registry = next((registry for registry in REGISTRIES.values() if registry.kind == record.get("kind")), None)
        if registry is None or record.get("name") in registry:
            continue
        what = f"{record['kind']} {record['name']!r} came from"
        if record.get("file"):
            there = "" if Path(record["file"]).is_file() else ", which is not there any more"
            lines.append(f"{what} a plugin file{there}: add --plugin {record['file']}")
        else:
            lines.append(f"{what} {record.get('from')} {record.get('version', '')}".rstrip() + ": install it")
    return lines


def recipe_folders() -> list[Path]:
    """Return the folders of recipes that installed plugins bring, found without importing them.

    A package brings recipes by an entry point of the group ``gancompress.recipes`` whose value is the package, and a
    folder ``recipes`` in it. ``GANCOMPRESS_PLUGINS`` counts here too.
    """
    folders = []
    for point, allowed in installed(_RECIPE_GROUP):
        if not allowed:
            continue
        try:
            spec = importlib.util.find_spec(point.value.partition(":")[0].strip())
        except (ImportError, ValueError, AttributeError):
            continue
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            folder = Path(place) / "recipes"
            if folder.is_dir() and folder not in folders:
                folders.append(folder)
    return folders
