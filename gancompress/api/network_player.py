"""A network from elsewhere in a page: in the report of its compression, or in a page of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.errors import ExportError, GancompressError, located
from gancompress.report.player import MOST_BEFORE, MOST_BYTES, PlayerPart, part_of
from gancompress.units import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gancompress.export.network import LoadedNetwork
    from gancompress.graphs.build import CapturedModule
    from gancompress.web.make import Site

__all__ = ["network_player", "pixels_of", "write_network_page"]

#: inputs that a page begins with
_EXAMPLES = 2


def network_player(
    whole: CapturedModule,
    loaded: LoadedNetwork,
    inputs: Sequence[tuple[Tensor, ...]],
    pixels: tuple[float, float],
    rate: int | None,
) -> PlayerPart:
    """Return the compressed network beside the whole one, as a part of a report, or why it is not there.

    Args:
        whole: the network as it was.
        loaded: what became of it.
        inputs: of which pieces are shown first.
        pixels: black and white of its images.
        rate: samples per second of sound.
    """
    from gancompress.web.network import network_blob

    more: dict[str, Any] = {"name": str(loaded.source.get("name", "network")), "pixels": pixels, "rate": rate}
    try:
        shown = _pieces(whole, inputs)
        after = network_blob(loaded.network, loaded.masks, ranges=loaded.ranges, examples=shown, **more)
        if len(after) > MOST_BYTES:
            raise ExportError(f"it has {size(len(after))}, and a report takes {size(MOST_BYTES)}")
    except GancompressError as error:
        return PlayerPart(missing=f"The network is not in this page: {error.message}.")
    try:
        before = network_blob(whole, {}, **more)
        if len(before) > MOST_BEFORE:
            raise ExportError(f"it has {size(len(before))}, and a report takes {size(MOST_BEFORE)}")
    except GancompressError as error:
        beside = f"The dense network is not beside it: {error.message}."
        return dataclasses.replace(part_of({"compressed": after}), missing=beside)
    return part_of({"dense": before, "compressed": after})


def write_network_page(
    written: Path,
    page: Path,
    inputs: Sequence[tuple[Tensor, ...]],
    pixels: tuple[float, float],
    *,
    rounds: bool,
) -> Site:
    """Write a page with a compressed network from elsewhere, and what sites need beside it.

    Args:
        written: its file.
        page: the HTML file.
        inputs: of which pieces are shown first.
        pixels: black and white of its images.
        rounds: round weights to bfloat16.

    Raises:
        ExportError: it has an operation that pages lack, takes or gives what they cannot show, or is too large.
    """
    from gancompress.export.network import load_network
    from gancompress.web.make import check_name, write_blob_site
    from gancompress.web.network import network_blob

    check_name(page)
    loaded = load_network(written)
    name = str(loaded.source.get("name", written.stem))
    values = str(loaded.source.get("values", "float32"))
    with located(str(written)):
        blob = network_blob(
            loaded.network, loaded.masks, ranges=loaded.ranges, name=name,
            pixels=pixels, rate=_compressed_with(written).get("rate"),
            examples=_pieces(loaded.network, inputs), rounds=rounds,
        )  # fmt: skip
        kind = "bf16" if rounds and values == "float32" else values
        line = f"density {loaded.density:.3g}, {kind} weights, {size(loaded.bytes)} packed"
        return write_blob_site(blob, page, name, [line])


def pixels_of(written: Path) -> tuple[float, float]:
    """Return black and white of a compressed network's images, as is said beside its file, or 0 and 1."""
    low, high = _compressed_with(written).get("pixels", (0.0, 1.0))
    return float(low), float(high)


def _pieces(network: CapturedModule, inputs: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return pieces of the first few inputs, of sizes to be shown."""
    from gancompress.foreign.examples import pieces

    return [given[0] for given in pieces(network, inputs[:_EXAMPLES])] if inputs else []


def _compressed_with(written: Path) -> dict[str, Any]:
    """Return what is said beside a file of how it was compressed; nothing where that is not there."""
    try:
        found = json.loads((written.parent / "compress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and Path(str(found.get("file"))).name == written.name else {}
