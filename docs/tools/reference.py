"""The reference pages, written from the recipe's JSON Schema and from the command line itself."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import click

__all__ = ["cli_page", "recipe_page"]

#: key of a recipe, and what its page section is called when the key names a component
COMPONENTS = {
    "data": "Data",
    "model": "Model",
    "task": "Task",
    "loss": "Loss",
    "method": "Method",
    "pattern": "Pattern",
}


# --------------------------------------------------------------------------- recipes


def recipe_page(schema: Mapping[str, Any]) -> str:
    """Return the page of every setting that a recipe may have.

    Args:
        schema: from ``gancompress show --schema``.
    """
    return "\n".join(
        [
            "# Recipe settings",
            "",
            "Every key of a recipe, made from the schema that recipes are checked against. A key that is not here is "
            "an error. `gancompress show RECIPE --defaults` writes a recipe out with all of them, and "
            "`gancompress show --schema` prints the JSON Schema for an editor.",
            "",
            "On the command line a key is its dotted path: `--set training.steps=500`.",
            "",
            "## The whole recipe",
            "",
            *_table(schema["properties"], schema, schema["then"]["required"]),
            *_sections(schema["properties"], "", schema),
        ]
    )


def _sections(properties: Mapping[str, Any], path: str, schema: Mapping[str, Any], level: int = 2) -> Iterator[str]:
    """Yield a section for every key that holds keys of its own, depth first."""
    for key, node in properties.items():
        where = f"{path}.{key}" if path else key
        if key in COMPONENTS:
            yield from _component(where, node, schema)
            continue
        for definition in _objects(node, schema):
            yield from ("", f"{'#' * level} `{where}`", "", _text(definition), "")
            # what a recipe must say is required unless it extends another, which may have said it
            below = schema["then"].get("properties", {}).get(where, {}).get("required", [])
            yield from _table(definition["properties"], schema, [*below, *definition.get("required", [])])
            yield from _sections(definition["properties"], where, schema, min(level + 1, 4))


def _component(where: str, node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    union = next(option for option in node["anyOf"] if "oneOf" in option or "$ref" in option)
    yield from (
        "",
        f"## `{where}`",
        "",
        f"{_text(node).capitalize()}. One of the following, by its `name`; a name alone stands for the ",
    )
    yield from ("component with its defaults.", "")
    for option in union.get("oneOf", [union]):
        definition = _resolve(option, schema)
        name = definition["properties"]["name"]["const"]
        own = {key: value for key, value in definition["properties"].items() if key != "name"}
        yield from ("", f"### {where}: {name}", "", _text(definition), "")
        yield from _table(own, schema, definition.get("required", [])) if own else ["No settings of its own."]


def _objects(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a node, or an item of it, may be, of those things that have keys.

    Named schedules are left out: their type says what they are.
    """
    options = [_resolve(option, schema) for option in node.get("anyOf", [node])]
    options += [_resolve(option["items"], schema) for option in options if isinstance(option.get("items"), dict)]
    return [
        option for option in options if "properties" in option and "const" not in option["properties"].get("name", {})
    ]


def _table(properties: Mapping[str, Any], schema: Mapping[str, Any], required: Collection[str]) -> Iterator[str]:
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for key, node in properties.items():
        default = f"`{_yaml(node['default'])}`" if "default" in node and not _long(node["default"]) else ""
        default = "required" if key in required else default
        yield f"| `{key}` | {_type(node, schema)} | {default} | {_cell(_text(node))} |"


def _type(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "discriminator" in node or "oneOf" in node:
        names = [_resolve(option, schema)["properties"]["name"]["const"] for option in node["oneOf"]]
        return "by name: " + ", ".join(f"`{name}`" for name in names)
    if "anyOf" in node:
        texts = [
            _type(option, schema)
            for option in node["anyOf"]
            if option.get("description") != "the component with its defaults"
        ]
        return " or ".join(dict.fromkeys(texts))
    if "$ref" in node:
        resolved = _resolve(node, schema)
        return "section" if "properties" in resolved else _type(resolved, schema)
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        items = node.get("prefixItems") or [node.get("items", {})]
        inside = ", ".join(dict.fromkeys(_type(item, schema) for item in items))
        return f"list of {inside}" if inside != "section" else "list of sections"
    names = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
    return " ".join(filter(None, (names.get(str(node.get("type")), "any"), _range(node))))


def _range(node: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {node[key]:g}" for key, sign in words.items() if key in node)


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _long(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 3


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return value if isinstance(value, str) and value else json.dumps(value)


def _text(node: Mapping[str, Any]) -> str:
    """Return a description; what stands in two backticks in Python stands in one here."""
    text = inspect.cleandoc(str(node.get("description") or ""))
    text = text.partition("\n\nAttributes:")[0].partition("\n\nArgs:")[0]
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# --------------------------------------------------------------------------- the command line


def cli_page(program: click.Command, name: str = "gancompress") -> str:
    """Return the page of every command with all its arguments and options.

    Args:
        program: the command that holds all others.
        name: what the user types.
    """
    before = [f"`{option.opts[0]}` ({option.help.rstrip('.').lower()})" for option in program.params if option.help]
    lines = [
        "# Command line",
        "",
        "Made from the program itself: `gancompress COMMAND --help` says the same. Exit codes: 0 done, 1 something "
        "failed at work (or a check found something), 2 the command, recipe, file or data given is wrong and nothing "
        "was trained or written, 130 stopped by Ctrl-C (the same command goes on), 128 + N ended by signal N.",
        "",
        f"Options before a command: {', '.join(before)}.",
    ]
    for command, path in _commands(program, name):
        lines += ["", f"## {path}", "", _prose(command.help), ""]
        lines += ["```text", _usage(command, path), "```"]
        lines += _parameters(command)
        example = (command.epilog or "").partition("Example: ")[2]
        if example:
            lines += ["", f"Example: `{example}`"]
    return "\n".join(lines)


def _commands(program: Any, path: str) -> Iterator[tuple[Any, str]]:
    for name, command in program.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield command, f"{path} {name}"


def _usage(command: Any, path: str) -> str:
    context = command.make_context(path, [], resilient_parsing=True)
    return " ".join([path, *command.collect_usage_pieces(context)])


def _parameters(command: Any) -> Iterator[str]:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        if parameter.param_type_name == "argument":
            name = f"`{(parameter.metavar or parameter.name.upper()).strip('[]')}`"
        else:
            words = f" {parameter.metavar}" if parameter.metavar else ""
            name = ", ".join(f"`{option}{words}`" for option in (*parameter.opts, *parameter.secondary_opts))
        default = parameter.default
        shown = "" if default in (None, "", ()) or parameter.required or isinstance(default, bool) else f"`{default}`"
        rows.append(f"| {name} | {shown} | {_cell(str(getattr(parameter, 'help', '') or ''))} |")
    if rows:
        yield from ("", "| | default | |", "|---|---|---|", *rows)


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "")
