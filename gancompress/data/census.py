"""Which images a run trains on, kept in its checkpoints: so that what changed is named when the run goes on.

Of every image its name, its class and a mark: what tells it from another of that name without decoding it. In a zip the
mark is size and checksum, and nothing escapes it. In a folder it is the size and, up to :data:`PROBED` images, a
checksum of both ends of the file: what keeps these escapes it, such as pixels changed in the middle of a large BMP.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gancompress.units import some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

__all__ = ["PROBED", "Census", "changes"]

#: images up to which files are opened for their marks, which takes 30 µs each where they lie in memory
PROBED = 50_000
#: images that a message names of each kind
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Census:
    """The images of a dataset.

    Attributes:
        count: how many.
        classes: names of the classes.
        own: fingerprint of a dataset that does not name its images, else empty.
        names: of the images in order, else empty.
        labels: class of every image that is named.
        marks: of every image that is named: size and checksum, as far as they are known.
    """

    count: int
    classes: tuple[str, ...]
    own: str = ""
    names: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    marks: tuple[str, ...] = ()

    @functools.cached_property
    def _listing(self) -> bytes:
        return json.dumps([self.names, self.labels, self.marks]).encode()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all of it."""
        head = json.dumps([self.count, self.classes, self.own]).encode()
        return hashlib.blake2b(head + self._listing, digest_size=8).hexdigest()

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside :attr:`scalars`: about 7 bytes per image."""
        return {"images": torch.from_numpy(np.frombuffer(zlib.compress(self._listing, 1), dtype=np.uint8).copy())}

    @property
    def scalars(self) -> dict[str, Any]:
        """What a checkpoint keeps beside :attr:`tensors`."""
        return {
            "images": self.count,
            "classes": list(self.classes),
            "own": self.own,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_checkpoint(cls, scalars: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Census:
        """Return what a checkpoint, which has been verified, kept."""
        names, labels, marks = json.loads(zlib.decompress(tensors["images"].numpy().tobytes()))
        classes = tuple(scalars["classes"])
        return cls(scalars["images"], classes, scalars["own"], tuple(names), tuple(labels), tuple(marks))


def changes(then: Census, now: Census) -> list[str]:
    """Return what became of the images, in words that name some of each kind; nothing when they are the same."""
    if then.fingerprint == now.fingerprint:
        return []
    if not (then.names and now.names):
        counts = "" if then.count == now.count else f": {then.count:,} then, {now.count:,} now"
        return [] if (then.own, then.count) == (now.own, now.count) else [f"they are others{counts}"]
    before, after = _by_name(then), _by_name(now)
    both = [name for name in before if name in after]
    changed = [name for name in both if _differ(before[name][1], after[name][1])]
    relabelled = [name for name in both if before[name][0] != after[name][0]]
    shown = [f"{name!r}: {before[name][0]} then, {after[name][0]} now" for name in relabelled[:_NAMED]]
    return [
        *_said("removed", [name for name in before if name not in after]),
        *_said("added", [name for name in after if name not in before]),
        *_said("changed", changed),
        *_said("relabelled", relabelled, shown),
    ]


def _by_name(census: Census) -> dict[str, tuple[str, str]]:
    classes = census.classes
    named = (classes[label] if label < len(classes) else str(label) for label in census.labels)
    return dict(zip(census.names, zip(named, census.marks, strict=True), strict=True))


def _differ(one: str, other: str) -> bool:
    """Whether two marks contradict each other; one may know less than the other."""
    return any(a != b for a, b in zip(one.split(), other.split(), strict=False))


def _said(what: str, names: Sequence[str], shown: Sequence[str] = ()) -> list[str]:
    if not names:
        return []
    first = some(shown, len(names), "; ") if shown else some([repr(name) for name in names[:_NAMED]], len(names))
    return [f"{len(names):,} {what} ({first})"]
