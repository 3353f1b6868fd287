"""Numbers that follow the sizes of what a network is given: written once, for all sizes.

A network from elsewhere takes images of many sizes, and a page makes its programs when it knows the size. What is
recorded at a few sizes differs in whole numbers alone, and these grow evenly: ``at + by * steps`` along every axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UnevenError", "followed", "merged"]


class UnevenError(Exception):
    """Something differs that is no number, or that does not grow evenly."""


def merged(first: Any, others: Sequence[Any]) -> Any:
    """Return one record of what was recorded at several sizes.

    Args:
        first: plain JSON, at the smallest sizes.
        others: the same at sizes one step larger, along one axis each.

    Returns:
        ``first``, in which a list of numbers that follow the sizes is ``{"at": numbers, "by": [numbers of an axis]}``.

    Raises:
        UnevenError: they differ otherwise.
    """
    if all(first == other for other in others):
        return first
    if isinstance(first, dict):
        if any(not isinstance(other, dict) or other.keys() != first.keys() for other in others):
            raise UnevenError
        return {key: merged(value, [other[key] for other in others]) for key, value in first.items()}
    if not isinstance(first, list) or any(not isinstance(one, list) or len(one) != len(first) for one in others):
        raise UnevenError
    if all(type(value) is int for one in (first, *others) for value in one):
        return {"at": first, "by": [[b - a for a, b in zip(first, one, strict=True)] for one in others]}
    return [merged(value, [other[i] for other in others]) for i, value in enumerate(first)]


def followed(record: Any, steps: Sequence[int]) -> Any:
    """Return a record of :func:`merged` at sizes so many steps larger along every axis; as ``generator.js`` does."""
    if isinstance(record, dict):
        if record.keys() == {"at", "by"}:
            return [
                value + sum(by[i] * count for by, count in zip(record["by"], steps, strict=True))
                for i, value in enumerate(record["at"])
            ]
        return {key: followed(value, steps) for key, value in record.items()}
    return [followed(value, steps) for value in record] if isinstance(record, list) else record
