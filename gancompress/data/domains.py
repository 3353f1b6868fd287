"""Images of two domains: those that a generator makes, and those that it makes them from."""

from __future__ import annotations

import abc
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.data.census import Census
from gancompress.data.memory import digest
from gancompress.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Domains", "named_alike"]

C = TypeVar("C", bound=DatasetConfig)

#: names that a message lists
_SHOWN = 3


class Domains(Dataset[C]):
    """Images of a *target* domain and of a *source* domain. As a dataset it is the targets: they are what is made.

    Subclasses write :meth:`load`, and :meth:`other` where there are images that training never sees.

    Attributes:
        paired: whether source i is what target i is made from.
        source: images of the one domain.
        target: images of the other, as large and with as many colours.
    """

    paired: bool
    #: what messages call the two
    _called = "the sources", "the targets"

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self.source, self.target = self.load()
        one, other = self.source.spec, self.target.spec
        if (one.channels, one.resolution) != (other.channels, other.resolution):
            raise DataError(
                f"{self._called[0]} are {_described(one)}, {self._called[1]} {_described(other)}: set data.resolution "
                "and data.channels to bring them together"
            )
        if self.paired and len(self.source) != len(self.target):
            raise DataError(
                f"{len(self.source):,} of {self._called[0]} and {len(self.target):,} of {self._called[1]} are no pairs"
            )

    @classmethod
    def expected(cls, config: C) -> ImageSpec | None:
        """Return what the images will be where the settings say size and colours."""
        channels, resolution = (getattr(config, key, None) for key in ("channels", "resolution"))
        return None if channels is None or resolution is None else ImageSpec(channels, resolution)

    @abc.abstractmethod
    def load(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """Open source and target.

        Raises:
            DataError: they are not there, or are no pairs.
        """

    def other(self) -> Domains[C] | None:
        """Open images that training never sees, to measure and to look at; None: there are none."""
        return None

    @functools.cached_property
    def held_out(self) -> Domains[C]:
        """What is measured and looked at: other images where there are some, else those of training."""
        return self.other() or self

    @property
    def spec(self) -> ImageSpec:
        """Shape of every target; without classes."""
        spec = self.target.spec
        return ImageSpec(spec.channels, spec.resolution)

    def __len__(self) -> int:
        return len(self.target)

    def read(self, indices: Tensor) -> Batch:
        """Return the targets at ``indices`` (int64, (B,)), in that order."""
        return self.target.read(indices)

    def labels(self) -> Tensor:
        """Return zeros: there are no classes."""
        return self.target.labels() * 0

    def fingerprint(self) -> str:
        """Return a hash of both."""
        return digest("domains", self.paired, self.source.fingerprint(), self.target.fingerprint())

    def census(self) -> Census:
        """Return which images these are, sources first."""
        one, other = self.source.census(), self.target.census()
        if not (one.names and other.names):
            return Census(len(self), (), self.fingerprint())
        names = (*(f"source/{name}" for name in one.names), *(f"target/{name}" for name in other.names))
        labels = (0,) * len(names)
        return Census(len(names), (), names=names, labels=labels, marks=(*one.marks, *other.marks))

    def prepare(self) -> None:
        """Decode both now."""
        self.source.prepare()
        self.target.prepare()

    def warnings(self) -> tuple[str, ...]:
        """Return those of both."""
        return (*self.source.warnings(), *self.target.warnings())

    def bytes_to_prepare(self) -> int:
        """Return the memory of both."""
        return self.source.bytes_to_prepare() + self.target.bytes_to_prepare()


def named_alike(sources: tuple[str, ...], targets: tuple[str, ...], where: str) -> None:
    """Refuse two folders whose images are not named alike, but for their endings.

    Raises:
        DataError: naming some that have no partner.
    """
    one, other = ({name.rpartition(".")[0]: name for name in names} for names in (sources, targets))
    alone = [one[key] for key in one if key not in other], [other[key] for key in other if key not in one]
    if not any(alone):
        return
    said = [
        f"{len(names):,} {what} without a {partner} ({', '.join(map(repr, names[:_SHOWN]))}"
        f"{', …' if len(names) > _SHOWN else ''})"
        for names, what, partner in zip(alone, ("sources", "targets"), ("target", "source"), strict=True)
        if names
    ]
    raise DataError(f"no pairs: {len(one):,} sources and {len(other):,} targets; {'; '.join(said)}", where=where)


def _described(spec: ImageSpec) -> str:
    colours = "grey" if spec.channels == 1 else "RGB"
    return f"{spec.resolution}x{spec.resolution} pixels in {colours}"
