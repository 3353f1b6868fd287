"""Damage to files: bytes, JSON values, lines, headers of tensor files. The same random source gives the same damage."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

__all__ = ["mutate_bytes", "mutate_json", "mutate_lines", "mutate_tensors", "mutate_value", "written"]

#: texts that stand in for what Python's JSON cannot write
_RAW = {
    "@deep-list@": "[" * 100_000 + "]" * 100_000,
    "@deep-object@": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "@deep-150@": "[" * 150 + "]" * 150,
    "@unclosed@": "[" * 100_000,
    "@huge@": "1" + "0" * 400,
    "@digits@": "9" * 5000,
    "@overflow@": "1e999",
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@surrogate@": '"\\ud800"',
}
_ODD: list[Any] = [
    None, True, False, -1, 0, 1, 0.5, -1e-300, 1e20, 1e300,
    2**31, 2**63, 2**64, 10**20, "", "x", "é😀\u2028", "\x00\x1b[31m",
    "../../etc/passwd", "nan", "x" * 20_000, "a\nb", [], {}, [[]], [None], {"a": None}, {"": {}}, list(range(3000)),
    *_RAW,
]  # fmt: skip


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return the content cut short, with other bits, bytes put in, taken out, doubled, zeroed or something else."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(found) + 1)
        until = min(len(found), at + rng.choice((1, 4, 64, 4096)))
        match rng.randrange(9):
            case 0:
                del found[at:]
            case 1 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 2:
                found[at:at] = rng.randbytes(rng.choice((1, 8, 300)))
            case 3:
                del found[at:until]
            case 4:
                found[at:at] = found[at:until]
            case 5:
                found[at:until] = bytes(until - at)
            case 6:
                found[at:until] = b"\xff" * (until - at)
            case 7:
                found[:] = rng.choice((b"", b"\0" * 5000, b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", rng.randbytes(200)))
            case _:
                found += rng.choice((b"\0", b"}", b"\n", bytes(found[:500])))
    return bytes(found)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value in which some are of another type, huge, missing, doubled or swapped."""
    found = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        parent, key = _place(found, rng)
        match rng.randrange(8):
            case 0 if isinstance(parent, dict):
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[rng.choice(("", "name", "step", "x" * 300, "é"))] = parent[key]
            case 2:
                parent[key] = [parent[key]] * rng.choice((1, 2, 50))
            case 3 if isinstance(parent[key], list | dict | str):
                parent[key] = parent[key] * 2 if not isinstance(parent[key], dict) else list(parent[key])
            case 4 if type(parent[key]) in (int, float):
                parent[key] = rng.choice((-parent[key], parent[key] * 2**40, parent[key] + 1, str(parent[key])))
            case 5:
                other, where = _place(found, rng)
                parent[key] = copy.deepcopy(other[where])
            case _:
                parent[key] = copy.deepcopy(rng.choice(_ODD))
        if not found:
            return None
    return found[0]


def _place(root: list[Any], rng: random.Random) -> tuple[Any, Any]:
    """Return a container somewhere below ``root`` and a key of it, deep ones as often as shallow ones."""
    parent: Any = root
    key: Any = 0
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.8:
        parent = parent[key]
        key = rng.choice([*parent]) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def written(value: Any) -> bytes:
    """Return a value of :func:`mutate_value` as JSON, or as what stands in for it."""
    text = json.dumps(value)
    for word, raw in _RAW.items():
        text = text.replace(f'"{word}"', raw)
    return text.encode()


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Damage a JSON file: mostly its values, sometimes its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(content, rng)
    return written(mutate_value(json.loads(content), rng))


def mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """Damage a file of JSON lines."""
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            return mutate_bytes(content, rng)
        case 1:
            lines[at] = mutate_bytes(lines[at], rng)
        case 2:
            rng.shuffle(lines)
        case _:
            lines[at] = written(mutate_value(json.loads(lines[at]), rng)) + b"\n"
    return b"".join(lines)


def mutate_tensors(content: bytes, rng: random.Random) -> bytes:
    """Damage a safetensors file: its bytes, or the values of its header, with the right length before it or another."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    end = 8 + int.from_bytes(content[:8], "little")
    header = written(mutate_value(json.loads(content[8:end]), rng))
    length = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**20, 2**63, 2**64 - 1))
    return length.to_bytes(8, "little") + header + content[end:]
