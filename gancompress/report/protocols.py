"""Protocols of several metrics said once: what they share as one line, what differs beside each metric."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.runs.record import Metric

__all__ = ["few_images", "shared_protocol"]

#: Images below which a Fréchet distance is not trusted: features of Inception, so that its covariance has full rank.
_ENOUGH = 2048
_HASH = re.compile(r"^(.*?)(?: (\[[0-9a-f]+\]))?$", re.DOTALL)
_IMAGES = re.compile(r"([\d,]+) generated against ([\d,]+) real")


def shared_protocol(protocols: Sequence[str]) -> tuple[str, list[str]]:
    """Return what all protocols say, and for each what it says beyond that, its hash included.

    Args:
        protocols: lines as they stand beside single metrics; ``a, b, c [hash]``.

    Returns:
        The shared line, empty when nothing is shared, and one text per protocol; empty texts when all are the same.
    """
    if len(set(protocols)) <= 1:
        return (protocols[0] if protocols else ""), [""] * len(protocols)
    split = [_HASH.fullmatch(protocol) for protocol in protocols]
    bodies = [(match[1] if match else protocol).split(", ") for match, protocol in zip(split, protocols, strict=True)]
    hashes = [(match[2] if match else None) or "" for match in split]
    shared = 0
    while all(len(body) > shared and body[shared] == bodies[0][shared] for body in bodies):
        shared += 1
    own = [
        " ".join(filter(None, (", ".join(body[shared:]), digest))) for body, digest in zip(bodies, hashes, strict=True)
    ]
    return ", ".join(bodies[0][:shared]), own


def few_images(metrics: Sequence[Metric]) -> str:
    """Return a warning when a Fréchet distance rests on too few images, generated or real; empty otherwise."""
    for metric in metrics:
        found = _IMAGES.search(metric.protocol)
        if found is None or re.match(r"(?:FD|FID)\b", metric.label) is None:
            continue
        fewest = min(int(number.replace(",", "")) for number in found.groups())
        if fewest < _ENOUGH:
            name = metric.label.partition("[")[0]
            return (
                f"{name} from {fewest:,} images, fewer than {_ENOUGH:,}, is biased upwards and noisy: "
                "compare it only with numbers of the same protocol"
            )
    return ""
