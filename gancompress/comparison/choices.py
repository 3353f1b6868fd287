"""What a comparison is asked for on the command line, read into values: methods, densities, seeds, what is held equal.

Imports nothing heavy. Every mistake is a :class:`~gancompress.errors.RecipeError` that names the option.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from gancompress.components.registry import METHODS
from gancompress.errors import ComponentError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Axis", "HeldEqual", "MethodChoice", "parse_densities", "parse_held", "parse_methods", "parse_seeds"]

#: what a comparison holds equal
Axis: TypeAlias = Literal["steps", "flops"]

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


@dataclasses.dataclass(frozen=True)
class HeldEqual:
    """What every run of a comparison has the same of.

    Attributes:
        axis: training steps, or training FLOPs.
        flops: FLOPs of every run, when given as a number; ``None``: those of the dense run.
    """

    axis: Axis = "steps"
    flops: float | None = None

    def __str__(self) -> str:
        return self.axis if self.flops is None else f"{self.axis}={self.flops:g}"


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
    found: list[float] = []
    for part in (text or "").split(",") if text else ():
        try:
            value = float(part)
        except ValueError:
            raise RecipeError(f"density: {part.strip()!r} is no number; write densities as 0.1,0.2") from None
        if not 0 < value <= 1:
            raise RecipeError(f"density: must be in (0, 1], got {part.strip()}")
        if value in found:
            raise RecipeError(f"density: {value:g} is there twice")
        found.append(value)
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
    """Read ``steps``, ``flops`` or ``flops=2e14``.

    Raises:
        RecipeError: it is none of them.
    """
    axis, equals, value = (part.strip() for part in text.partition("="))
    if axis == "steps" and not equals:
        return HeldEqual("steps")
    if axis == "steps":
        raise RecipeError(f"budget {text}: the steps are those of the recipe; set training.steps={value}")
    if axis != "flops":
        hint = did_you_mean(axis, ("steps", "flops"))
        raise RecipeError(f"budget: expected steps, flops or flops=NUMBER, got {text!r}{hint}")
    if not equals:
        return HeldEqual("flops")
    try:
        flops = float(value)
    except ValueError:
        flops = math.nan
    if not (math.isfinite(flops) and flops > 0):
        raise RecipeError(f"budget: {value!r} is no number of FLOPs; write flops=2e14")
    return HeldEqual("flops", flops)


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
