"""What a comparison is asked for on the command line, read into values: methods, densities, seeds, what is held equal.

Imports nothing heavy. Every mistake is a :class:`~gancompress.errors.RecipeError` that names the option.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from gancompress.components.registry import METHODS
from gancompress.errors import ComponentError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "VALUES",
    "Axis",
    "Cost",
    "HeldEqual",
    "MethodChoice",
    "parse_densities",
    "parse_held",
    "parse_methods",
    "parse_seeds",
    "parse_values",
    "parse_widths",
    "values_of",
]

#: what training has the same of
Axis: TypeAlias = Literal["steps", "flops"]
#: what generators have the same of, if anything: measured time of an image, or bytes of the exported file
Cost: TypeAlias = Literal["latency", "bytes"]
#: what the weights of an exported file are
VALUES = ("float32", "bf16", "int8")
_WIDEST = 8.0
_BYTES = {"": 1, "k": 1_000, "M": 1_000_000}

_OPEN, _CLOSE = "[{(", "]})"


@dataclasses.dataclass(frozen=True)
class MethodChoice:
    """One method with settings of its own, as in ``dst:growth=random``.

    Attributes:
        name: registered name.
        settings: dotted key and value, as written.
    """

    name: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """How tables call it."""
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.settings)])

    @property
    def slug(self) -> str:
        """How files call it."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.label).strip("-.")

    def setting(self, key: str) -> str | None:
        """Return the value written for ``key``, or ``None``."""
        return dict(self.settings).get(key)

    @property
    def width(self) -> float:
        """How many times as wide as the recipe's its generator is; not a setting of its method."""
        return float(self.setting("width") or 1)

    @property
    def values(self) -> str:
        """What the weights of its exported file are: one of :data:`VALUES`; not a setting of its method."""
        return self.setting("values") or VALUES[0]

    def with_setting(self, key: str, value: str) -> MethodChoice:
        """Return the same with one more setting."""
        return MethodChoice(self.name, (*self.settings, (key, value)))

    def at_width(self, width: float | None) -> MethodChoice:
        """Return the same with a generator so many times as wide as the recipe's; ``None`` and 1 leave it as it is."""
        return self if width in (None, 1) else self.with_setting("width", f"{width:g}")

    @property
    def trained(self) -> MethodChoice:
        """What is trained for it: the same run, whatever the values of its exported file."""
        return MethodChoice(self.name, tuple(pair for pair in self.settings if pair[0] != "values"))


def values_of(label: str) -> str:
    """Return the values that the label of a method names; empty where it names none, or float32."""
    found = next((one.removeprefix("values=") for one in label.split(":") if one.startswith("values=")), VALUES[0])
    return "" if found == VALUES[0] else found


@dataclasses.dataclass(frozen=True)
class HeldEqual:
    """What every run of a comparison has the same of.

    Attributes:
        axis: training steps, or training FLOPs.
        flops: FLOPs of every run, when given as a number; ``None``: those of the dense run.
        cost: what every generator has the same of; ``None``: what its density leaves.
        amount: milliseconds of an image, or bytes; ``None``: those of the first method, at every density asked for.
    """

    axis: Axis = "steps"
    flops: float | None = None
    cost: Cost | None = None
    amount: float | None = None

    def __str__(self) -> str:
        training = self.axis if self.flops is None else f"{self.axis}={self.flops:g}"
        if self.cost is None:
            return training
        return f"{self.cost}{'' if self.amount is None else f'={self.amount:g}'},{training}"


def parse_methods(text: str) -> tuple[MethodChoice, ...]:
    """Read ``dst,dst:growth=random,imp:rate=0.5:budget=total``.

    Raises:
        RecipeError: a method is unknown, is there twice, or a setting is no ``key=value``.
    """
    choices: list[MethodChoice] = []
    for part in _split(text, ","):
        name, *settings = (piece.strip() for piece in _split(part, ":"))
        if not name:
            raise RecipeError(f"methods {text!r}: expected names with commas between them, such as dst,imp")
        try:
            METHODS.entry(name)
        except ComponentError as error:
            raise RecipeError(f"methods: {error.message}") from None
        pairs = []
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not (equals and key.strip() and value.strip()):
                raise RecipeError(f"methods {part.strip()!r}: {setting!r} is no setting; write dst:growth=random")
            pairs.append((key.strip(), value.strip()))
            if key.strip() == "values":
                parse_values(value.strip())
            if key.strip() == "width":
                parse_widths(value.strip())
        choices.append(MethodChoice(name, tuple(pairs)))
    slugs = [choice.slug for choice in choices]
    for index, choice in enumerate(choices):
        if choice.slug in slugs[:index]:
            raise RecipeError(f"methods: {choice.label!r} is there twice")
    return tuple(choices)


def parse_densities(text: str | None) -> tuple[float, ...]:
    """Read ``0.1,0.2``; nothing gives none.

    Raises:
        RecipeError: one is no density, or is there twice.
    """
    return _numbers("density", "densities", text, 1.0, "0.1,0.2")


def parse_widths(text: str | None) -> tuple[float, ...]:
    """Read ``0.5,1,1.5``, times the recipe's width; nothing gives none.

    Raises:
        RecipeError: one is no width, or is there twice.
    """
    return _numbers("width", "widths", text, _WIDEST, "0.5,1,1.5")


def _numbers(one: str, several: str, text: str | None, most: float, example: str) -> tuple[float, ...]:
    found: list[float] = []
    for part in (text or "").split(",") if text else ():
        try:
            value = float(part)
        except ValueError:
            raise RecipeError(f"{one}: {part.strip()!r} is no number; write {several} as {example}") from None
        if not 0 < value <= most:
            raise RecipeError(f"{one}: must be in (0, {most:g}], got {part.strip()}")
        if value in found:
            raise RecipeError(f"{one}: {value:g} is there twice")
        found.append(value)
    return tuple(found)


def parse_values(text: str | None) -> tuple[str, ...]:
    """Read ``float32,int8``; nothing gives none.

    Raises:
        RecipeError: there are no such values, or they are there twice.
    """
    found: list[str] = []
    for part in (text or "").split(",") if text else ():
        name = part.strip()
        if name not in VALUES:
            raise RecipeError(f"values: expected {', '.join(VALUES)}, got {name!r}{did_you_mean(name, VALUES)}")
        if name in found:
            raise RecipeError(f"values: {name} is there twice")
        found.append(name)
    return tuple(found)


def parse_seeds(text: str, first: int) -> tuple[int, ...]:
    """Read ``3`` as three seeds from ``first`` on, and ``0,7,8`` as just these.

    Raises:
        RecipeError: they are no whole numbers, or one is there twice.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise RecipeError(f"seeds: expected how many, or a list such as 0,1,2; got {text!r}")
    numbers = [int(part) for part in parts]
    if "," not in text:
        if numbers[0] < 1:
            raise RecipeError("seeds: at least one seed is needed; for the seed 0 alone write 0,")
        return tuple(range(first, first + numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise RecipeError(f"seeds: a seed is there twice in {text!r}")
    return tuple(numbers)


def parse_held(text: str) -> HeldEqual:
    """Read ``steps``, ``flops=2e14``, ``latency=0.5`` or ``bytes=200k,flops``: what training and generators have equal.

    Raises:
        RecipeError: it is none of them.
    """
    held: dict[str, HeldEqual] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name in ("latency", "bytes"):
            kind, one = "cost", HeldEqual(cost=cast("Cost", name), amount=_amount(name, value) if equals else None)
        else:
            kind, one = "axis", _parse_axis(text, name, value, given=bool(equals))
        if kind in held:
            raise RecipeError(f"budget {text}: give one of steps and flops, and one of latency and bytes")
        held[kind] = one
    training, cost = held.get("axis", HeldEqual()), held.get("cost", HeldEqual())
    return HeldEqual(training.axis, training.flops, cost.cost, cost.amount)


def _parse_axis(text: str, axis: str, value: str, *, given: bool) -> HeldEqual:
    if axis == "steps" and not given:
        return HeldEqual("steps")
    if axis == "steps":
        raise RecipeError(f"budget {text}: the steps are those of the recipe; set training.steps={value}")
    if axis != "flops":
        hint = did_you_mean(axis, ("steps", "flops", "latency", "bytes"))
        raise RecipeError(
            f"budget: expected steps, flops or flops=NUMBER, latency or latency=MS, bytes or bytes=NUMBER, got "
            f"{text!r}{hint}"
        )
    if not given:
        return HeldEqual("flops")
    flops = _positive(value)
    if flops is None:
        raise RecipeError(f"budget: {value!r} is no number of FLOPs; write flops=2e14")
    return HeldEqual("flops", flops)


def _amount(cost: str, value: str) -> float:
    unit = value[-1:] if cost == "bytes" and value[-1:] in ("k", "M") else ""
    amount = _positive(value.removesuffix(unit))
    if amount is None:
        example = "no number of milliseconds; write latency=0.5" if cost == "latency" else "no size; write bytes=200k"
        raise RecipeError(f"budget: {value!r} is {example}")
    return amount * _BYTES[unit]


def _positive(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and found > 0 else None


def _split(text: str, mark: str) -> Sequence[str]:
    """Split at ``mark``, but not inside brackets: settings may be YAML lists and mappings."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == mark and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
