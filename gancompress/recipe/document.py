"""YAML text to plain data, remembering where every key was written.

YAML 1.2's core schema, so that ``2e-4`` is a number and ``no`` is a word. Duplicate keys, keys that are not text,
infinities and NaN are mistakes: none of them has a meaning in a recipe, and each hides a slip.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from gancompress.errors import RecipeError

__all__ = [
    "LARGEST_RECIPE",
    "Document",
    "KeyPath",
    "Mark",
    "dotted",
    "dump_yaml",
    "exists",
    "flat",
    "parse_value",
    "parse_yaml",
    "read_yaml",
    "show_path",
]

#: ``("training", "optimizers", "generator", "lr")``; integers are positions in lists
KeyPath: TypeAlias = tuple[str | int, ...]

#: bytes of a recipe's file; the longest has 10 KB, and YAML is read slowly
LARGEST_RECIPE: Final = 1 << 18
#: open brackets; deeper ones cost YAML time that grows with the square
_DEEPEST: Final = 200
#: more nodes than any recipe has, far fewer than a file of nested aliases can unfold to
_MAX_NODES: Final = 100_000


@dataclasses.dataclass(frozen=True, order=True)
class Mark:
    """Where a key was written.

    Attributes:
        source: file as the user would name it, or ``--set key=value`` for an override.
        line: line counted from 1; 0 for an override.
        column: column counted from 1; 0 for an override.
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclasses.dataclass(frozen=True)
class Document:
    """Plain data and the mark of every key and list item in it; the mark of ``()`` is where the document starts."""

    data: dict[str, Any]
    marks: dict[KeyPath, Mark]

    def mark(self, path: KeyPath) -> Mark:
        """Return the mark of ``path``, or of the nearest level above it that was written."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def value(self, path: KeyPath) -> Any:
        """Return what is written at ``path``, ``None`` when nothing is."""
        value: Any = self.data
        for step in path:
            if not isinstance(value, Mapping) or step not in value:
                return None
            value = value[step]
        return value

    def without(self, path: KeyPath) -> Document:
        """Return the document without the key at ``path`` and all below it."""
        if self.value(path) is None:
            return self
        data = copy.deepcopy(self.data)
        node = Document(data, {}).value(path[:-1])
        del node[path[-1]]
        return Document(data, {known: mark for known, mark in self.marks.items() if known[: len(path)] != path})


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key; lists are leaves."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    below = (flat(item, f"{prefix}.{key}" if prefix else str(key)) for key, item in value.items())
    return {key: leaf for part in below for key, leaf in part.items()}


def dotted(path: KeyPath) -> str:
    """Return ``path`` as ``--set`` takes it."""
    return ".".join(str(step) for step in path)


def exists(path: Path) -> bool:
    """Whether there is such a file or directory; a name too long or with a NUL is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def show_path(path: Path) -> str:
    """Return ``path`` as short as it can be said: relative to the working directory when it lies below it."""
    try:
        return os.path.normpath(path.relative_to(Path.cwd()))
    except ValueError:
        return os.path.normpath(path)


_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_SCALARS: Final = (
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2's core schema does."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - yaml's own name and type, filled below


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that :class:`_Loader` would read as something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _SCALARS:
    for _resolver in (_Loader, _Dumper):
        _whole = re.compile(rf"^(?:{_pattern.pattern})$")
        _resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)


def _represent_list(dumper: yaml.SafeDumper, values: Any) -> yaml.Node:
    flow = not any(isinstance(value, list | tuple | dict) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # yaml leaves these line breaks as they are unless quoted, and reads them back as a space
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Return ``data`` as YAML that :func:`parse_yaml` reads back the same, keys in their order."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _scalar(node: yaml.ScalarNode, where: Mark) -> Any:
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    text: str = node.value
    match kind:
        case "str":
            try:
                text.encode()
            except UnicodeEncodeError:
                raise RecipeError("holds half of a character (an escaped surrogate)", where=str(where)) from None
            return text
        case "null" if text in ("", "~") or text.lower() == "null":
            return None
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int" if _INT.fullmatch(text):
            try:
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            except ValueError:
                raise RecipeError(f"number of {len(text)} digits is too long", where=str(where)) from None
        case "float" if _FLOAT.fullmatch(text):
            value = float(text) if text[-1].isdigit() or text[-1] == "." else math.inf
            if not math.isfinite(value):
                raise RecipeError(f"must be a finite number, got {text}", where=str(where))
            return value
    raise RecipeError(f"cannot read {text[:40]!r} as {node.tag}; leave the tag out", where=str(where))


class _Builder:
    """Turns one tree of YAML nodes into data and marks."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.marks: dict[KeyPath, Mark] = {}
        self.nodes = 0

    def mark(self, node: yaml.Node) -> Mark:
        return Mark(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: yaml.Node, path: KeyPath, inside: frozenset[int] = frozenset()) -> Any:
        where = self.mark(node)
        self.marks.setdefault(path, where)
        self.nodes += 1
        if self.nodes > _MAX_NODES or id(node) in inside:
            raise RecipeError("the aliases (*name) unfold without end", where=str(where))
        inside |= {id(node)}
        if isinstance(node, yaml.MappingNode):
            if node.tag != "tag:yaml.org,2002:map":
                raise RecipeError(f"unknown tag {node.tag}; leave it out", where=str(where))
            return self.mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != "tag:yaml.org,2002:seq":
                raise RecipeError(f"unknown tag {node.tag}; leave it out", where=str(where))
            return [self.build(item, (*path, index), inside) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # there is no fourth kind
        return _scalar(node, where)

    def mapping(self, node: yaml.MappingNode, path: KeyPath, inside: frozenset[int]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            where = self.mark(key_node)
            key = _scalar(key_node, where) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                got = f"a {key_node.id}" if key is None and key_node.id != "scalar" else repr(key)
                raise RecipeError(f"keys must be text, got {got}", where=str(where))
            if key in built:
                raise RecipeError(f"duplicate key {key!r}, first written at line {first[key]}", where=str(where))
            if key == "<<":
                raise RecipeError("merge keys (<<) are not read; share settings with 'extends:'", where=str(where))
            first[key] = where.line
            self.marks[(*path, key)] = where
            built[key] = self.build(value_node, (*path, key), inside)
        return built


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if bracket in "[{" else -1))
        if depth > _DEEPEST:
            raise RecursionError


def _compose(text: str, source: str) -> tuple[Any, dict[KeyPath, Mark]]:
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        if node is None:
            return None, {(): Mark(source, 1, 1)}
        builder = _Builder(source)
        return builder.build(node, ()), builder.marks
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = str(Mark(source, mark.line + 1, mark.column + 1)) if mark is not None else source
        problem = " ".join((error.problem or error.context or "not YAML").split())
        if "'\\t'" in problem:
            problem = "indent with spaces, not tabs"
        raise RecipeError(problem, where=where) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "?")
        where = str(Mark(source, line, column))
        raise RecipeError(f"character U+{code:04X} is not allowed in YAML", where=where) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise RecipeError(reason, where=source) from None


def parse_yaml(text: str, source: str) -> Document:
    """Read one YAML document whose top level is a mapping; messages call it ``source``.

    Raises:
        RecipeError: it is not such a document; the message has line and column.
    """
    data, marks = _compose(text, source)
    if data is None:
        raise RecipeError("the recipe is empty", where=str(marks[()]))
    if not isinstance(data, dict):
        raise RecipeError("a recipe must be a mapping of keys to values", where=str(marks[()]))
    return Document(data, marks)


def parse_value(text: str, source: str) -> Any:
    """Read the value of an override with the rules of a recipe: ``16``, ``2e-4``, ``[a, b]``, ``{name: dst}``.

    Raises:
        RecipeError: it is not YAML; the message starts with ``source``.
    """
    try:
        return _compose(text, "")[0]
    except RecipeError as error:
        raise RecipeError(f"cannot read {text[:60]!r}: {error.message}", where=source) from None


def read_yaml(path: Path) -> Document:
    """Read a recipe file as it stands, without what it extends.

    Raises:
        RecipeError: the file is missing, unreadable or not a recipe.
    """
    source = show_path(path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_RECIPE + 1)
        if len(content) > LARGEST_RECIPE:
            raise RecipeError(f"larger than {LARGEST_RECIPE // 1024} KiB: this is no recipe", where=source)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"not a text file: byte {error.start} is not UTF-8", where=source) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RecipeError(f"cannot be read: {reason}", where=source) from None
    return _parsed(text, source)


# the rows of one file are loaded one after the other, and parsing is most of that; documents are never changed in place
_parsed = functools.lru_cache(maxsize=32)(parse_yaml)
