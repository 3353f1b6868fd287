"""pydantic's findings said in the words of a recipe, each with the place where the key was written."""

from __future__ import annotations

import dataclasses
import json
import shlex
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gancompress.errors import RecipeError, did_you_mean
from gancompress.recipe.document import Document, KeyPath, Mark, dotted
from gancompress.recipe.schema import SHORT_PATTERNS, Component

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic_core import ErrorDetails, ValidationError

__all__ = ["InvalidRecipeError", "Mistake", "coerced", "mistakes_of", "show_value"]


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a recipe.

    Attributes:
        mark: where it was written.
        path: which key it is about.
        message: what is wrong.
        stage: ``schema`` for keys and values, ``component`` for names and the plugins behind them.
    """

    mark: Mark
    path: KeyPath
    message: str
    stage: Literal["schema", "component"] = "schema"

    def __str__(self) -> str:
        where, key = str(self.mark), dotted(self.path)
        if not key or where.startswith(f"--set {key}="):
            return f"{where}: {self.message}"
        return f"{where}: {key}: {self.message}"


class InvalidRecipeError(RecipeError):
    """Everything that is wrong with a recipe, one line per mistake, in the order of its lines.

    Args:
        mistakes: at least one.
    """

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: (mistake.mark, mistake.path[:-1], str(mistake))))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def show_value(value: Any) -> str:
    """Return a value as a recipe writes it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --------------------------------------------------------------------------- pydantic's errors


def mistakes_of(error: ValidationError, document: Document, model: type[BaseModel]) -> Iterator[Mistake]:
    """Yield the mistakes that a validation found, one per key; ``model`` knows the ranges, ``document`` the lines."""
    found: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details, document), []).append(details)
    for path, several in found.items():
        messages = list(dict.fromkeys(_message(details, path, model) for details in several))
        got = ""
        if all(details["type"] not in _SELF_EXPLAINING for details in several):
            got = f", got {show_value(several[0]['input'])}"
        elif any(_lacks_items(details) for details in several):
            got = f", got {show_value(document.value(path))}"
        hint = _to_type(several[0]["type"].partition("_")[0], several[0]["input"], document, path, model)
        yield Mistake(document.mark(path), path, " or ".join(messages) + got + hint)


#: errors whose message needs no ", got …"
_SELF_EXPLAINING = frozenset({"missing", "extra_forbidden", "value_error", "assertion_error"})


def _lacks_items(details: ErrorDetails) -> bool:
    """Whether a list is too short, which pydantic calls an item that is missing."""
    return details["type"] == "missing" and isinstance(details["loc"][-1], int)


def _path(details: ErrorDetails, document: Document) -> KeyPath:
    """Return the keys that an error is about, without the union tags that pydantic adds."""
    path: KeyPath = ()
    for step in details["loc"]:
        if (*path, step) in document.marks:
            path = (*path, step)
    if details["type"] == "missing" and not _lacks_items(details):
        path = (*path, details["loc"][-1])
    return path or (() if details["type"] in ("value_error", "assertion_error") else tuple(details["loc"]))


def _message(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    match kind:
        case "missing" if _lacks_items(details):
            return _items(model, path) or "has too few items"
        case "too_long" if _items(model, path):
            return _items(model, path)
        case "too_short" if context.get("min_length") == 1:
            return "must not be empty"
        case "missing":
            return "required key is missing"
        case "extra_forbidden":
            return f"unknown key{_known_key(str(path[-1]), _model_at(model, path[:-1]))}"
        case "string_pattern_mismatch" if context.get("pattern") in _PATTERNS:
            return _PATTERNS[context["pattern"]]
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return _range(model, path) or details["msg"].replace("Input should be", "must be")
        case "literal_error":
            expected = str(context["expected"])
            close = did_you_mean(details["input"], _words(expected)) if isinstance(details["input"], str) else ""
            hint = f" ({close.removeprefix('; ')})" if "did you mean" in close else ""
            return f"must be {'one of ' if ' or ' in expected else ''}{expected}{hint}"
        case "model_type" | "model_attributes_type" if issubclass(_model_at(model, path) or BaseModel, Component):
            return f"must be a name{SHORT_PATTERNS if path[-1] == 'pattern' else ''}"
        case "value_error" | "assertion_error":
            return str(context.get("error", details["msg"]))
    return _PLAIN.get(kind, "") or _pydantic_words(details["msg"])


def _pydantic_words(message: str) -> str:
    for old, new in (("Input should be", "must be"), ("Input should", "must"), ("should", "must")):
        if message.startswith(old) or (old == "should" and " should " in message):
            message = message.replace(old, new, 1)
            break
    return message[:1].lower() + message[1:]


_PLAIN = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "none_required": "must be null",
}


#: what the patterns of the schema ask for, in words
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": "must be letters, digits, '.', '_' and '-', beginning with a letter or a digit",
    r"^[0-9a-f]{16}$": "must be 16 of the digits 0-9 and the letters a-f",
}

#: words of other programs, and the keys that they are here, from the mapping in which they were written
_ALIASES = {
    "learning_rate": ("lr", "optimizers.generator.lr"),
    "lr": ("optimizers.generator.lr",),
    "betas": ("optimizers.generator.betas",),
    "iterations": ("steps",),
    "max_steps": ("steps",),
    "z_dim": ("latent_dim",),
}


def _known_key(name: str, owner: type[BaseModel] | None) -> str:
    """Return the clause that says which key was meant."""
    if owner is None:
        return ""
    for alias in _ALIASES.get(name, ()):
        if _field_at(owner, tuple(alias.split("."))) is not None:
            return f"; did you mean {alias!r}?"
    return did_you_mean(name, owner.model_fields)


def _annotation(model: type[BaseModel], path: KeyPath) -> Any:
    """Return the type of the field at ``path``, the list's where it may also be null."""
    field = _field_at(model, path)
    annotation = field.annotation if field is not None else None
    if get_origin(annotation) in (typing.Union, types.UnionType):
        lists = (one for one in get_args(annotation) if get_origin(one) is tuple)
        return next(lists, annotation)
    return annotation


def _items(model: type[BaseModel], path: KeyPath) -> str:
    """Return how many items the list at ``path`` needs, empty when any number will do."""
    items = get_args(_annotation(model, path))
    if not items or Ellipsis in items:
        return ""
    kind = "number" if set(items) <= {int, float} else "item"
    return f"needs {len(items)} {kind}{'s' if len(items) != 1 else ''}"


def _words(expected: str) -> list[str]:
    return [word.strip(" '") for part in expected.split(" or ") for word in part.split(",")]


# --------------------------------------------------------------------------- ranges and allowed keys


def _field_at(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    owner = _model_at(model, path[:-1])
    return owner.model_fields.get(str(path[-1])) if owner is not None and path else None


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the model of the mapping at ``path``."""
    current: type[BaseModel] | None = model
    for step in path:
        if current is None or step not in current.model_fields:
            return None
        current = _model_in(current.model_fields[str(step)].annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _constraints(annotation: Any, metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        yield from _constraints(None, item.metadata) if isinstance(item, FieldInfo) else (item,)
    if get_origin(annotation) is typing.Annotated:
        inner, *more = get_args(annotation)
        yield from _constraints(inner, more)
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _constraints(argument, ())


def _range(model: type[BaseModel], path: KeyPath) -> str:
    """Return ``must be in (0, 1]`` for the bounds of the field at ``path``, empty when it has none of its own."""
    field = _field_at(model, path)
    if field is None:
        return ""
    bounds: dict[str, Any] = {}
    for constraint in _constraints(field.annotation, field.metadata):
        found = {name: getattr(constraint, name, None) for name in ("gt", "ge", "lt", "le")}
        bounds |= {name: value for name, value in found.items() if value is not None}
    low, high = bounds.get("gt", bounds.get("ge")), bounds.get("lt", bounds.get("le"))
    if low is not None and high is not None:
        return f"must be in {'(' if 'gt' in bounds else '['}{low}, {high}{')' if 'lt' in bounds else ']'}"
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    return next((f"must be {said} {bounds[name]}" for name, said in words.items() if name in bounds), "")


# --------------------------------------------------------------------------- what to type


def _to_type(kind: str, value: Any, document: Document, path: KeyPath, model: type[BaseModel]) -> str:
    """Return the clause that says what to type in place of an override of another type; empty for other mistakes.

    Args:
        kind: first word of pydantic's error, which is the type that it wanted.
        value: what it was given.
        document: the recipe, which knows what was typed.
        path: the key.
        model: knows its default, and whether it may be null.
    """
    source = document.mark(path).source
    if not source.startswith("--set "):
        return ""
    field, said = _field_at(model, path), value if isinstance(value, str) else show_value(value)
    if field is not None and said.lower() in ("none", "nil", "") and type(None) in get_args(field.annotation):
        return _command(path, "null")
    default: Any = field.default if field is not None else None
    match kind:
        case "list" | "tuple":
            whole = default if isinstance(default, tuple) and _items(model, path) else (said,)
            return _command(path, f"[{', '.join(map(str, whole))}]")
        case "string" if not isinstance(value, str):  # a text of the wrong form stays wrong between quotes
            typed = source.removeprefix(f"--set {dotted(path)}=")
            return _command(path, json.dumps(said if typed == source else typed, ensure_ascii=False))
        case "bool":
            return _command(path, "false" if said.lower() in ("no", "off", "0", "0.0", "n", "f", "") else "true")
        case "int" | "float" | "finite":
            number = isinstance(default, int | float) and not isinstance(default, bool)
            return _command(path, str(default if number else 16 if kind == "int" else 0.5), "; type a number, such as")
        case "model" | "dict":
            owner = _model_at(model, path)
            if owner is not None and issubclass(owner, Component):
                return ""
            below = next(iter(owner.model_fields), "KEY") if owner is not None else "KEY"
            return _command((*path, below), "VALUE", "; set its keys, such as")
    return ""


def _command(path: KeyPath, text: str, verb: str = "; type") -> str:
    return f"{verb} --set {shlex.quote(f'{dotted(path)}={text}')}"


# --------------------------------------------------------------------------- silent conversions


def coerced(
    raw: Any, checked: Any, document: Document, model: type[BaseModel], path: KeyPath = ()
) -> Iterator[Mistake]:
    """Yield a mistake for every value that pydantic took for another type: ``'16'`` or ``true`` for a number.

    Args:
        raw: what the recipe says at ``path``.
        checked: what came out of the validation.
        document: the recipe, for marks.
        model: of the recipe.
        path: where both stand.
    """
    if isinstance(raw, dict) and isinstance(checked, BaseModel | dict):
        for key, value in raw.items():
            inner = checked.get(key) if isinstance(checked, dict) else getattr(checked, key, None)
            yield from coerced(value, inner, document, model, (*path, key))
    elif isinstance(raw, list) and isinstance(checked, list | tuple) and len(raw) == len(checked):
        for index, value in enumerate(raw):
            yield from coerced(value, checked[index], document, model, (*path, index))
    elif isinstance(checked, bool) and not isinstance(raw, bool) and isinstance(raw, int | float | str):
        hint = _to_type("bool", raw, document, path, model)
        yield Mistake(document.mark(path), path, f"must be true or false, got {show_value(raw)}{hint}")
    elif isinstance(checked, int | float) and not isinstance(checked, bool) and _reads_as(raw, checked):
        kind = "a number" if isinstance(checked, float) else "a whole number"
        whole = "float" if isinstance(checked, float) else "int"
        if isinstance(raw, str):
            typed = document.mark(path).source.startswith("--set ")
            hint = _command(path, show_value(checked)) if typed else "; leave the quotes out"
        else:
            hint = _to_type(whole, raw, document, path, model)
        yield Mistake(document.mark(path), path, f"must be {kind}, got {show_value(raw)}{hint}")


def _reads_as(raw: Any, number: float) -> bool:
    """Whether ``raw`` is a truth value or a text that was silently read as ``number``."""
    if isinstance(raw, bool):
        return True
    if not isinstance(raw, str):
        return False
    try:
        return float(raw) == number
    except ValueError:
        return False
