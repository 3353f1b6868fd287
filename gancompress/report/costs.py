"""What a run costs, as three small tables: the numbers that people look for first, out of ``cost.json``.

Everything else is in that file. Whatever is missing, or of another version's shape, is left out.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.report.words import count, duration, ratio, scaled, size
from gancompress.runs.record import ROLES, mapping, number

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CostCard", "cost_cards"]


@dataclasses.dataclass(frozen=True)
class CostCard:
    """One kind of cost. The three are never mixed: a FLOP that is saved is not a second that is saved.

    Attributes:
        title: which kind.
        note: what its numbers rest on.
        header: heads of the columns; the first is the column of labels.
        rows: as many cells as heads; the first is the label.
        remarks: what must be known to read the numbers, in sentences.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()


def cost_cards(cost: Mapping[str, Any]) -> list[CostCard]:
    """Return theory, time and bytes of a run from its ``cost.json``; none when nothing is known."""
    cards = [_theory(mapping(cost.get("theory"))), _time(mapping(cost.get("time"))), _bytes(mapping(cost.get("bytes")))]
    cards += [card for card in [_channels(mapping(cost.get("channels")))] if card.rows]
    return cards if any(card.rows for card in cards) else []


def _channels(channels: Mapping[str, Any]) -> CostCard:
    rows = []
    for role, groups in channels.items():
        for name, group in mapping(groups).items():
            width, kept = number(mapping(group).get("width")), mapping(group).get("kept")
            if width and isinstance(kept, list):
                rows.append((f"{role}, {name}", str(len(kept)), f"{width:.0f}", ratio(len(kept) / width)))
    return CostCard(
        "Channels",
        "of every group of channels that go together, by the layer that makes them; which they are is in cost.json",
        ("group", "kept", "of", "share"),
        tuple(rows),
    )


# --------------------------------------------------------------------------- theory


def _theory(theory: Mapping[str, Any]) -> CostCard:
    inference, training = mapping(theory.get("inference")), mapping(theory.get("training"))
    executed = mapping(training.get("executed"))
    rows = [_flops(f"{role}, one image", mapping(inference.get(role))) for role in dict.fromkeys((*ROLES, *inference))]
    for role, frozen in mapping(theory.get("frozen")).items():
        macs = number(mapping(frozen).get("macs"))
        if macs:
            rows.append((f"– of the {role}, in layers that nothing trains", scaled(2 * macs), "", ""))
    rows.append(_flops("whole training", training))
    for part, flops in mapping(training.get("parts_flops")).items():
        spent = number(flops)
        if spent:
            rows.append((f"– {str(part).replace('_', ' ')}", scaled(spent), "", ""))
    remarks = []
    if executed and executed.get("flops") != training.get("flops"):
        rows.append(_flops("whole training, as executed here", executed))
        remarks.append("As executed here: the layers as this implementation computes them, not as they were published.")
    convention = training.get("convention")
    if isinstance(convention, str) and convention in _CONVENTIONS:
        remarks.append(_CONVENTIONS[convention])
    if isinstance(theory.get("counted"), str):
        remarks.append(f"Counted: {theory['counted']}")
    return CostCard(
        "Theory",
        "FLOPs (two per multiply-add) from layer shapes and masks; nothing was timed",
        ("FLOPs", "this run", "dense", "share"),
        tuple(row for row in rows if row is not None),
        tuple(remarks),
    )


_CONVENTIONS = {
    "steps": "Every generator and every discriminator step of the training is counted, with its backward pass.",
    "adapt": "Steps are counted as in ADAPT's tables.",
}


def _flops(label: str, group: Mapping[str, Any]) -> tuple[str, ...] | None:
    sparse, dense = number(group.get("flops")), number(group.get("dense_flops"))
    if sparse is None:
        return None
    return (label, scaled(sparse), scaled(dense) if dense else "—", ratio(sparse / dense) if dense else "—")


# --------------------------------------------------------------------------- time


def _time(time: Mapping[str, Any]) -> CostCard:
    rows, remarks = [], []
    seconds = number(time.get("training_seconds"))
    if seconds is not None:
        rows.append(("training, without evaluations", duration(seconds)))
    latency = mapping(time.get("generator_latency"))
    median = number(latency.get("median_seconds"))
    if median is not None:
        rows.append(("generator, median of one pass", duration(median)))
        quartiles = latency.get("quartiles_seconds")
        if isinstance(quartiles, list) and len(quartiles) == 2:
            low, high = number(quartiles[0]), number(quartiles[1])
            if low is not None and high is not None:
                rows.append(("– middle half of the passes", f"{duration(low)} to {duration(high)}"))
        remarks.append(_conditions(latency))
    return CostCard(
        "Time", "measured by the clock on the machine below", ("time", "measured"), tuple(rows), tuple(remarks)
    )


def _conditions(latency: Mapping[str, Any]) -> str:
    """Return what a generator pass was timed with, as a sentence."""

    def several(key: str, one: str, many: str) -> str | None:
        found = number(latency.get(key))
        return None if found is None else f"{count(found)} {one if found == 1 else many}"

    device, kernels, autocast = (latency.get(key) for key in ("device", "kernels", "autocast"))
    parts = [
        several("batch", "image a pass", "images a pass"),
        several("repeats", "pass", "passes"),
        f"on {device}" if device else None,
        several("threads", "thread", "threads"),
        str(latency["dtype"]) if latency.get("dtype") else None,
        f"autocast {autocast}" if autocast and autocast != "off" else None,
        f"{kernels} kernels" if kernels else None,
    ]
    said = ", ".join(part for part in parts if part)
    dense = " Dense kernels multiply by the zeros too." if kernels == "dense" else ""
    return f"A generator pass: {said}.{dense}"


# --------------------------------------------------------------------------- bytes


_SIZES = {"dense": "dense", "packed": "packed, computed", "masks": "– masks in it", "optimizer": "optimizer state"}


def _bytes(sizes: Mapping[str, Any]) -> CostCard:
    roles = [role for role in dict.fromkeys((*ROLES, *sizes)) if role != "training" and mapping(sizes.get(role))]
    rows = []
    for key, label in _SIZES.items():
        found = [number(mapping(sizes.get(role)).get(key)) for role in roles]
        if any(value is not None for value in found):
            rows.append((label, *(size(value) if value is not None else "—" for value in found)))
    remarks = []
    if any(row[0] == _SIZES["packed"] for row in rows):
        remarks.append(
            "Packed: one bit for each weight of a masked layer and the values of those kept, computed from the "
            "budgets; `gancompress export` writes such a file."
        )
    peak = number(mapping(sizes.get("training")).get("peak"))
    if roles and peak is not None:
        networks = "both" if len(roles) == 2 else "all"
        rows.append((f"peak of training, {networks}, computed", size(peak), *[""] * (len(roles) - 1)))
        remarks.append(
            "Peak of training: weights, average, moments, masks, images held in memory and the largest step, from "
            "shapes; libraries, workspaces and evaluation come on top."
        )
    return CostCard("Bytes", "sizes of tensors", ("bytes", *roles), tuple(rows), tuple(remarks))
