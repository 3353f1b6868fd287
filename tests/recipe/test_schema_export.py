"""The JSON Schema, checked with a small validator of the keywords that it uses."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml

from gancompress.recipe import shipped
from gancompress.recipe.document import read_yaml
from gancompress.recipe.schema_export import recipe_schema

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema()


def is_type(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def problems(value: Any, node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """Return what is wrong with ``value`` by the schema ``node``."""
    found: list[str] = []
    if "$ref" in node:
        found += problems(value, root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
    if "type" in node and not is_type(value, node["type"]):
        return [*found, f"{value!r} is no {node['type']}"]
    if "const" in node and value != node["const"]:
        found.append(f"{value!r} is not {node['const']!r}")
    if "enum" in node and value not in node["enum"]:
        found.append(f"{value!r} is none of {node['enum']}")
    if "pattern" in node and not re.search(node["pattern"], value):
        found.append(f"{value!r} does not match")
    for keyword, wrong in (
        ("minimum", lambda bound: value < bound),
        ("maximum", lambda bound: value > bound),
        ("exclusiveMinimum", lambda bound: value <= bound),
        ("exclusiveMaximum", lambda bound: value >= bound),
    ):
        if keyword in node and wrong(node[keyword]):
            found.append(f"{value!r} breaks {keyword} {node[keyword]}")
    for keyword in ("anyOf", "oneOf"):
        if keyword in node:
            fits = [branch for branch in node[keyword] if not problems(value, branch, root)]
            if not fits or (keyword == "oneOf" and len(fits) > 1):
                found.append(f"{value!r} fits {len(fits)} branches")
    if "if" in node and not problems(value, node["if"], root):
        found += problems(value, node.get("then", {}), root)
    if "not" in node and not problems(value, node["not"], root):
        found.append("fits what it must not")
    if isinstance(value, dict):
        found += [f"{key} is missing" for key in node.get("required", ()) if key not in value]
        properties = node.get("properties", {})
        for key, below in value.items():
            if key in properties:
                found += problems(below, properties[key], root)
            elif node.get("additionalProperties") is False:
                found.append(f"{key} is unknown")
    if isinstance(value, list):
        for index, item in enumerate(value):
            prefix = node.get("prefixItems", [])
            found += problems(item, prefix[index] if index < len(prefix) else node.get("items", {}), root)
    return found


@pytest.mark.parametrize("name", shipped.shipped_names())
def test_shipped_recipes_fit(schema: dict[str, Any], name: str) -> None:
    path = shipped.find_shipped(name)
    assert path is not None
    assert problems(read_yaml(path).data, schema, schema) == []


@pytest.mark.parametrize(
    "change",
    [
        "seed: -1",
        "sede: 1",
        "training: {}",
        "training: {steps: 1, stepz: 2}",
        "data: digit",
        "data: {name: digits, zzz: 1}",
        "data: {resolution: 16}",
        "objective: {loss: hinges}",
        "sparsity: {method: {name: dst, zzz: 1}}",
        "sparsity: {generator: {density: 1.5}}",
        "evaluation: {metrics: fd}",
        "name: a/b",
    ],
)
def test_mistakes_are_seen(schema: dict[str, Any], change: str) -> None:
    valid = {"name": "a", "data": "digits", "model": {"name": "dcgan"}, "training": {"steps": 1}}
    assert problems(valid, schema, schema) == []
    assert problems({**valid, **yaml.safe_load(change)}, schema, schema)


def test_what_is_required_may_come_from_the_recipe_extended(schema: dict[str, Any]) -> None:
    assert problems({"seed": 1}, schema, schema)
    assert problems({"extends": "quickstart", "seed": 1, "training": {"batch_size": 8}}, schema, schema) == []


def test_components_are_told_apart_by_name(schema: dict[str, Any]) -> None:
    bare, union = schema["properties"]["data"]["anyOf"]
    assert "digits" in bare["enum"]
    assert union["discriminator"]["propertyName"] == "name"
    assert set(union["discriminator"]["mapping"]) == set(bare["enum"])


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    for name, definition in {"Recipe": schema, **schema["$defs"]}.items():
        for key, node in definition.get("properties", {}).items():
            assert node.get("description") or "const" in node, f"{name}.{key}"


def test_it_is_json_and_its_references_resolve(schema: dict[str, Any]) -> None:
    text = json.dumps(copy.deepcopy(schema))
    for reference in re.findall(r'"\$ref": "([^"]+)"', text):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]
