"""What an entry of the suite is, and the measurements that several entries share."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, TypeVar

from gancompress.bench.infer import BenchInfer, bench_infer
from gancompress.bench.timing import ratios
from gancompress.bench.train import BenchTrain, bench_train
from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gancompress.recipe.schema import Recipe

#: densities of generators, and of generator and discriminator
DENSITIES = (0.05, 0.1, 0.2)
PAIRS = ((0.05, 0.05), (0.1, 0.1), (0.05, 0.3))
#: entries that need training steps in bf16, which take minutes on a CPU that has no instructions for it
BF16_ENTRIES = frozenset({"S6", "S7", "D2"})

T = TypeVar("T")

#: what CPU and wall seconds of every turn of every variant look like
Times = dict[str, list[tuple[float, float]]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: a cell of a table.

    Attributes:
        case: what it was measured on: the row of the table.
        at: the rest of it, ``density 0.05`` or ``32 channels``: the column of the table; empty for the only one.
        value: the ratio, median; None when it could not be measured here.
        target: what it should reach.
        stretch: what would be better still.
        quartiles: of the ratio, when it is one of times.
        lower: lower is better.
        note: anything to know, a few words.
        ran: the precision that what is compared with ours really ran in, where its engine tells.
    """

    case: str
    at: str
    value: float | None
    target: float | None = None
    stretch: float | None = None
    quartiles: tuple[float, float] | None = None
    lower: bool = False
    note: str = ""
    ran: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is nothing to compare."""
        if self.value is None or self.target is None:
            return None
        return self.value <= self.target if self.lower else self.value >= self.target


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the suite: its id, what it compares, and how it is measured."""

    name: str
    what: str
    measure: Callable[[int], Iterable[Row]]


ENTRIES: dict[str, Entry] = {}
#: by engine that was left out, why
LEFT_OUT: dict[str, str] = {}


@dataclasses.dataclass
class Narrowing:
    """What of the suite is measured.

    Attributes:
        names: the entries' ids.
        where: words that a figure's case and column must all hold, as ``batch 16`` or ``G/D 0.05/0.05``.
    """

    names: tuple[str, ...] = ()
    where: tuple[str, ...] = ()


NARROWED = Narrowing()


def _holds(text: str, words: str) -> bool:
    """Whole words count: ``batch 1`` is not in ``batch 16``."""
    return re.search(rf"(?<![\w.]){re.escape(words)}(?![\w.])", text) is not None


def wanted(case: str, at: str) -> bool:
    """Return whether a figure is asked for."""
    return all(_holds(f"{case}, {at}", words) for words in NARROWED.where)


def narrowed(values: Sequence[T], label: Callable[[T], str]) -> tuple[T, ...]:
    """Return the values that figures which are asked for can need: words that name some of them leave out the others.

    Args:
        values: what an entry measures: densities, or channels and batches.
        label: what the case or the column of a figure says of one.
    """
    for words in NARROWED.where:
        values = [value for value in values if _holds(label(value), words)] or values
    return tuple(values)


def at_density(density: float) -> str:
    """The column of a figure about a density of the generator."""
    return f"density {density:g}"


def at_pair(pair: tuple[float, float]) -> str:
    """The column of a figure about densities of generator and discriminator."""
    return f"G/D {pair[0]:g}/{pair[1]:g}"


def of_setup(setup: tuple[int, int]) -> str:
    """The first words of a case: channels, and images per call."""
    return f"{setup[0]} channels, batch {setup[1]}"


def entry(name: str, what: str) -> Callable[[Callable[[int], Iterable[Row]]], Callable[[int], Iterable[Row]]]:
    """Register a function from a number of rounds to rows."""

    def register(measure: Callable[[int], Iterable[Row]]) -> Callable[[int], Iterable[Row]]:
        ENTRIES[name] = Entry(name, what, measure)
        return measure

    return register


def over(times: Mapping[str, list[tuple[float, float]]], slow: str, fast: str) -> tuple[float, tuple[float, float]]:
    """How many times ``fast`` is faster than ``slow``, and the quartiles.

    The turns of these two are paired, round by round: through a third variant, one slow turn of that one would blur
    them both.
    """
    row = ratios(times, slow)[fast]
    return row.faster, row.quartiles


def recipe_of(channels: int, *overrides: str) -> Recipe:
    """SNGAN for 32x32 images, both networks this wide, on images that need no download."""
    wide = (f"model.channels={channels}", f"model.discriminator_channels={channels}")
    return load_recipe("sngan_cifar10", overrides=("data=shapes", "data.resolution=32", *wide, *overrides)).recipe


def training(channels: int, rounds: int) -> BenchTrain:
    """Whole training steps: 5 discriminator steps and 1 generator step of twice the batch; bf16 where an entry asks."""
    pairs = narrowed(PAIRS if channels > 64 else PAIRS[:1], at_pair)
    return _training(channels, rounds, pairs, not BF16_ENTRIES.isdisjoint(NARROWED.names))


@functools.cache
def _training(channels: int, rounds: int, pairs: tuple[tuple[float, float], ...], bf16: bool) -> BenchTrain:
    batch = 16 if channels > 64 else 64
    recipe = recipe_of(channels, f"training.batch_size={batch}", f"training.generator_batch_size={2 * batch}")
    return bench_train(recipe, pairs, rounds=rounds, bf16=bf16, alone=False)


@functools.cache
def generators(channels: int, batch: int, rounds: int, *overrides: str) -> BenchInfer:
    """Generators, dense on every engine that is installed, and compiled sparse."""
    return bench_infer(recipe_of(channels, *overrides), narrowed(DENSITIES, at_density), (batch,), rounds=rounds)
