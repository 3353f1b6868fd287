"""A network from elsewhere as one file, and back: no class, no pickle, the kept weights only."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from gancompress import __version__
from gancompress.backbones.base import prunable_weights
from gancompress.errors import ExportError
from gancompress.export.container import read_container, write_container
from gancompress.export.in_bytes import grid_of, ranges_from_json, ranges_to_json
from gancompress.export.tensors import FORMAT, declared_tensor, decode_tensor, density, encode_tensor, format_of
from gancompress.graphs.build import CapturedModule, check
from gancompress.graphs.graph import Graph
from gancompress.lowering.network import SparseNetwork
from gancompress.storage.reading import UNFIT, reason
from gancompress.units import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gancompress.kernels import Mode
    from gancompress.lowering.network import Profile
    from gancompress.quantization.ranges import LayerBytes

__all__ = [
    "FORMAT",
    "KIND",
    "LoadedNetwork",
    "NetworkValues",
    "decode_network",
    "encode_network",
    "load_network",
    "save_network",
    "write_network",
]

KIND = "gancompress network"

#: kinds of values, and the bits of mantissa that they keep, int8 of what is not in bytes
NetworkValues: TypeAlias = Literal["float32", "bf16", "e8m4", "int8"]
_MANTISSA: dict[str, int | None] = {"float32": None, "bf16": 7, "e8m4": 4, "int8": 7}


@dataclasses.dataclass(frozen=True)
class LoadedNetwork:
    """A network from a file, to be called with the inputs of the original.

    Attributes:
        network: in eval mode.
        masks: by the names of weights; True is kept.
        source: where it comes from: name, method, version of gancompress, kind of values.
        bytes: of the file.
        sparse: how a call computes on the CPU: ``always`` by sparse programs wherever they fit, ``never``, or ``auto``:
            what is measured to be faster; None takes ``GANCOMPRESS_SPARSE``, then ``auto``.
        ranges: how convolutions compute in bytes, by the names of their weights.
    """

    network: CapturedModule
    masks: Mapping[str, Tensor]
    source: Mapping[str, Any]
    bytes: int
    sparse: Mode | None = None
    ranges: Mapping[str, LayerBytes] = dataclasses.field(default_factory=dict)

    def __call__(self, *inputs: Tensor) -> Any:
        """Return its one output, or a tuple of them.

        Raises:
            ExportError: the inputs are not as many as it takes, or of other shapes.
        """
        self._check(inputs)
        return self._run(*inputs)

    def profile(self, *inputs: Tensor) -> Profile:
        """Call it and say where the time goes: what ran in sparse programs, what in torch and why.

        Raises:
            ExportError: as for a call.
        """
        self._check(inputs)
        return self._run.profile(*inputs)

    @functools.cached_property
    def _run(self) -> SparseNetwork:
        return SparseNetwork(self.network, self.masks, self.sparse, self.ranges or None)

    def _check(self, inputs: Sequence[Tensor]) -> None:
        taken = self.network.captured.inputs
        fits = len(inputs) == len(taken) and all(
            # sizes of one name may differ here: the network says what it cannot do
            isinstance(x, Tensor) and one.takes(x.shape, {})
            for x, one in zip(inputs, taken, strict=True)
        )
        if not fits:
            given = ", ".join(" x ".join(map(str, getattr(x, "shape", "?"))) for x in inputs)
            raise ExportError(f"it takes {', '.join(map(str, taken))}, not {given or 'nothing'}")

    @property
    def density(self) -> float:
        """Share of kept weights among all that have a mask, 1 without masks."""
        return density(self.masks)

    def __repr__(self) -> str:
        taken = ", ".join(map(str, self.network.captured.inputs))
        return f"<{self.source.get('name', 'network')}: takes {taken}; density {self.density:.3g}, {size(self.bytes)}>"


def save_network(
    network: CapturedModule,
    masks: Mapping[str, Tensor],
    path: Path,
    *,
    values: NetworkValues = "float32",
    source: Mapping[str, Any] | None = None,
) -> int:
    """Write a network; return the bytes of the file, which appears whole or not at all.

    Arguments and errors are those of :func:`encode_network` and :func:`write_network`.
    """
    return write_network(path, *encode_network(network, masks, values=values, source=source))


def write_network(path: Path, stored: Mapping[str, Tensor], document: Mapping[str, Any]) -> int:
    """Write what :func:`encode_network` returned; return the bytes of the file.

    Raises:
        ExportError: the file cannot be written.
    """
    return write_container(path, stored, document, kind=KIND, format=format_of(stored, int8="int8" in document))


def encode_network(
    network: CapturedModule,
    masks: Mapping[str, Tensor],
    *,
    values: NetworkValues = "float32",
    source: Mapping[str, Any] | None = None,
    ranges: Mapping[str, LayerBytes] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file and its document.

    Args:
        network: left as it is.
        masks: by the names of weights that are not stored whole.
        values: ``bf16`` rounds the prunable weights to 7 bits of mantissa, ``e8m4`` to 4; ``int8`` those of ``ranges``
            to eight bits with a scale per output channel, and the others as ``bf16``.
        source: plain JSON values to remember.
        ranges: for ``int8``: how convolutions compute in bytes, by the names of their weights.

    Raises:
        ExportError: there are no such values, or no ranges for int8.
    """
    if values not in _MANTISSA:
        raise ExportError(f"values {values!r}: use {', '.join(_MANTISSA)}")
    if values == "int8" and not ranges:
        raise ExportError("int8 needs ranges, and this network was never calibrated: give calibration inputs")
    own = dict(ranges or {}) if values == "int8" else {}
    stored: dict[str, Tensor] = {}
    table = {}
    prunable = prunable_weights(network)
    state = network.state_dict()
    for name in network.captured.tensors:
        rounds = name in prunable and state[name].dtype is torch.float32
        grid = grid_of(prunable[name].layer, own[name]) if rounds and name in own else None
        bits = _MANTISSA[values] if rounds and grid is None else None
        parts, table[name] = encode_tensor(state[name].detach().contiguous(), masks.get(name), bits, grid)
        stored |= {name + suffix: part for suffix, part in parts.items()}
    document: dict[str, Any] = {
        "graph": network.captured.to_json(),
        "source": {"gancompress": __version__, "values": values, **(source or {})},
        "tensors": table,
    }
    if own:
        document["int8"] = ranges_to_json(own)
    return stored, document


def load_network(path: Path, sparse: Mode | None = None) -> LoadedNetwork:
    """Read a file of :func:`save_network`; ``sparse`` is an attribute of the result.

    Raises:
        ExportError: it is truncated, altered, of a newer version, or no such file.
    """
    stored, document = read_container(path, kind=KIND, format=FORMAT)
    loaded = decode_network(stored, document, str(path))
    return dataclasses.replace(loaded, bytes=path.stat().st_size, sparse=sparse)


def decode_network(stored: Mapping[str, Tensor], document: Mapping[str, Any], where: str = "") -> LoadedNetwork:
    """Undo :func:`encode_network`; errors as for :func:`load_network`.

    Args:
        stored: tensors of the file.
        document: what it says of them.
        where: what errors call it.
    """
    stored, at = dict(stored), ""
    try:
        graph, source, table = Graph.from_json(document["graph"]), dict(document["source"]), dict(document["tensors"])
        ranges = ranges_from_json(document.get("int8", {}))
        if unknown := ranges.keys() - table.keys() - {node.name for node in graph.nodes}:
            raise ExportError(f"layer {min(unknown)}: it has ranges and no weight")
        declared = {name: declared_tensor(entry) for name, entry in table.items()}
        # before anything is decoded: a forged table could ask for more memory than there is
        check(graph, declared, {name: 64 for one in graph.inputs for name in one.shape if isinstance(name, str)})
        state, masks = {}, {}
        for name, entry in table.items():
            at = f"tensor {name}: "
            state[name], mask = decode_tensor(name, stored, entry, ranges[name].factors if name in ranges else None)
            if mask is not None:
                masks[name] = mask
        at = ""
        network = CapturedModule(graph, state)
    except ExportError as error:
        raise ExportError(at + error.message, where=where) from error
    except UNFIT as error:
        raise ExportError(f"not a {KIND} of format {FORMAT} ({reason(error)})", where=where) from error
    if stored:
        raise ExportError(f"tensor {min(stored)} belongs to no tensor of the network", where=where)
    return LoadedNetwork(network, masks, source, 0, None, ranges)
