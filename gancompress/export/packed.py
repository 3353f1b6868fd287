"""Generators in one small file: kept values, coded masks, and all that is needed to build the network again.

The file is safetensors and never needs a pickle. Layout, for every tensor ``T`` of the network's state, with
spectral norm written out:

- ``T`` as it is, when that is smallest or it holds whole numbers;
- else ``T:values``, its values coded by :func:`~gancompress.export.coding.encode_values`, and, when it has a mask,
  ``T:mask``, coded by :func:`~gancompress.export.coding.encode_mask`: the mask of the training, not where values
  happen to be 0.
- a weight in eight bits as ``T:values``, its whole numbers, ``T:scales``, one per output channel, and its mask; the
  document's ``int8`` has the bytes that its convolution reads.

The document beside them (see :mod:`gancompress.export.container`) has the backbone's name, origin and config, the image
spec, shape, dtype and number of kept weights per tensor, where the generator comes from, and a hash over the file.
A backbone that is not built in is stored with its graph (:mod:`gancompress.graphs`), which needs no class to be read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from gancompress import __version__
from gancompress.architecture.description import Architecture
from gancompress.backbones.base import prunable_weights
from gancompress.components.registry import METHODS
from gancompress.data.base import ImageSpec
from gancompress.errors import ChannelError, ComponentError, ExportError
from gancompress.export.captured import CapturedGenerator, capture_generator, check_captured
from gancompress.export.compact import compact
from gancompress.export.compiled import compile_generator
from gancompress.export.container import read_container, write_container
from gancompress.export.in_bytes import calibrate_generator, grid_of, ranges_from_json, ranges_to_json
from gancompress.export.plain import plain_copy
from gancompress.export.rebuild import build_generator, check_tensors
from gancompress.export.tensors import FORMAT, declared_tensor, decode_tensor, density, encode_tensor, format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gancompress.backbones.base import Generator
    from gancompress.experiment.finished import OpenedRun
    from gancompress.export.compiled import CompiledGenerator
    from gancompress.quantization.ranges import LayerBytes, RangeRule
    from gancompress.recipe.schema import Recipe

__all__ = [
    "FORMAT",
    "KIND",
    "Packed",
    "TensorSize",
    "Values",
    "export_packed",
    "export_run",
    "file_name",
    "frees_channels",
    "load_packed",
]

KIND = "packed generator"

Values = Literal["float32", "bf16", "int8"]


@dataclasses.dataclass(frozen=True)
class TensorSize:
    """Bytes of one tensor.

    Attributes:
        dense: of its elements.
        packed: of its part of the file, values and mask.
        elements: how many it has.
        kept: how many of them are kept.
        kind: ``convolution`` or ``linear`` for prunable weights, else ``other``.
    """

    dense: int
    packed: int
    elements: int
    kept: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Packed:
    """What a packed file holds.

    Attributes:
        architecture: backbone, its config as built, and images.
        state: every tensor of the generator, dense, spectral norm written out.
        masks: bool tensor per masked weight; True is kept.
        source: where it comes from: run, step, version of gancompress, kind of values.
        bytes: of the file.
        captured: the graph, of a backbone that is not built in.
        narrowed: whether layers are narrower than the config has them.
        missing: why there is no graph where there should be one.
        ranges: how convolutions compute in bytes, by the names of their weights.
    """

    architecture: Architecture
    state: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    source: Mapping[str, Any]
    bytes: int = 0
    captured: Mapping[str, Any] | None = None
    narrowed: bool = False
    missing: str = ""
    ranges: Mapping[str, LayerBytes] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> Mapping[str, Any]:
        """Name of the backbone and its config."""
        return self.architecture.model

    @property
    def image(self) -> ImageSpec:
        """Shape and classes of the images."""
        return self.architecture.image

    @functools.cached_property
    def translates(self) -> bool:
        """Whether the generator eats images."""
        return self.generator().translates

    def generator(self) -> Generator:
        """Build a generator of its own, in eval mode.

        Raises:
            ExportError: the backbone of this installation has other tensors.
            ComponentError: the backbone is not installed, and the file has no graph of it.
        """
        state = {name: tensor.clone() for name, tensor in self.state.items()}
        if self.captured is not None:
            return CapturedGenerator(self.captured, state, self.image)
        try:
            return build_generator(self.architecture, state, narrowed=self.narrowed)
        except ComponentError as error:
            why = f" (the file has no graph of it: {self.missing})" if self.missing else ""
            raise ComponentError(error.message + why) from error

    @property
    def density(self) -> float:
        """Share of kept weights among all that have a mask, 1 without masks."""
        return density(self.masks)


def export_packed(
    generator: Generator,
    path: Path,
    *,
    model: Mapping[str, Any],
    masks: Mapping[str, Tensor] | None = None,
    values: Values = "float32",
    source: Mapping[str, Any] | None = None,
    origin: str = "",
    narrowed: bool = False,
    ranges: Mapping[str, LayerBytes] | None = None,
) -> dict[str, TensorSize]:
    """Write a generator into one file.

    Args:
        generator: left as it is.
        path: the file; it appears whole or not at all.
        model: ``name`` of its backbone and the fields of the backbone's ``Config``.
        masks: by the name that ``prunable_weights`` gives; a weight that is not named is stored whole.
        values: ``bf16`` rounds the prunable weights to bfloat16, ``int8`` those of ``ranges`` to eight bits with a
            scale per output channel and the others to bfloat16; biases, norms and embeddings stay float32.
        source: anything to remember about where it comes from, plain JSON values.
        origin: distribution or plugin file of the backbone.
        narrowed: whether layers are narrower than the config has them.
        ranges: for ``int8``: how convolutions compute in bytes, by the names of their weights, from
            :func:`~gancompress.export.in_bytes.calibrate_generator`.

    Returns:
        Bytes per tensor.

    Raises:
        ExportError: a mask does not fit its weight, the tensors are not those that ``model`` describes, or the file
            cannot be written.
    """
    if values not in get_args(Values):
        raise ExportError(f"values {values!r}: use {', '.join(get_args(Values))}")
    if values == "int8" and not ranges:
        raise ExportError("int8 needs ranges, and this generator was never calibrated")
    own_ranges = dict(ranges or {}) if values == "int8" else {}
    plain = plain_copy(generator)
    weights = prunable_weights(plain)
    prunable = {name: weight.kind for name, weight in weights.items()}
    state = {name: tensor.detach().contiguous() for name, tensor in plain.state_dict().items()}
    masks = masks or {}
    _check_masks(state, masks)
    name, config = str(model["name"]), {key: value for key, value in model.items() if key != "name"}
    architecture = Architecture(name, origin, config, plain.image)
    build_generator(architecture, state, narrowed=narrowed)  # what is written must be readable
    more: dict[str, Any] = {"narrowed": True} if narrowed else {}
    if not architecture.builtin:
        try:
            more["captured"], read = capture_generator(plain)
            state |= read
        except ExportError as error:
            more["missing"] = error.message
    stored: dict[str, Tensor] = {}
    table: dict[str, dict[str, Any]] = {}
    sizes: dict[str, TensorSize] = {}
    for name, tensor in state.items():
        rounds = values != "float32" and name in prunable and tensor.dtype is torch.float32
        grid = grid_of(weights[name].layer, own_ranges[name]) if rounds and name in own_ranges else None
        parts, entry = encode_tensor(tensor, masks.get(name), 7 if rounds and grid is None else None, grid)
        stored.update({name + suffix: part for suffix, part in parts.items()})
        table[name] = entry
        packed = sum(part.numel() * part.element_size() for part in parts.values())
        kept = entry.get("kept", tensor.numel())
        dense = tensor.numel() * tensor.element_size()
        sizes[name] = TensorSize(dense, packed, tensor.numel(), kept, prunable.get(name, "other"))
    if own_ranges:
        more["int8"] = ranges_to_json(own_ranges)
    document = {
        **more,
        "model": architecture.model,
        "origin": origin,
        "image": plain.image.to_json(),
        "source": {"gancompress": __version__, "values": values, **(source or {})},
        "tensors": table,
    }
    write_container(path, stored, document, kind=KIND, format=format_of(stored, int8=bool(own_ranges)))
    return sizes


def file_name(values: str) -> str:
    """Return how the file of a run is called by default: one of rounded weights stands beside the exact one."""
    return "generator.safetensors" if values == "float32" else f"generator-{values}.safetensors"


def frees_channels(recipe: Recipe) -> bool:
    """Whether a run leaves empty channels, which its files do without."""
    return bool(METHODS.get(recipe.sparsity.method.name).frees_channels)


def export_run(
    run: OpenedRun,
    path: Path,
    *,
    step: str = "last",
    values: Values = "float32",
    rule: RangeRule = "mse",
    judge: Callable[[CompiledGenerator, CompiledGenerator], Mapping[str, Any]] | None = None,
    compacted: bool | None = None,
) -> dict[str, TensorSize]:
    """Write the averaged generator of a finished run into one file; see :func:`export_packed`.

    Args:
        run: which.
        path: the file.
        step: ``last``, ``best`` or a number.
        values: as for :func:`export_packed`.
        rule: how the ends of ranges are chosen, for ``int8``.
        judge: compares the generator in float32 with the one in the file, for ``int8``; what it returns is kept in the
            file as the source's ``quality``.
        compacted: whether empty channels are left out; the source's ``removed`` says how many were, by layers. None:
            if the run's method empties whole ones.
    """
    number = run.step(step)
    source: dict[str, Any] = {"run": run.directory.path.resolve().name, "step": number, "weights": "ema"}
    snapshot = run.snapshot(str(number), ("ema", "sparsity"))
    generator, built = run.rebuild(snapshot)
    prefix, kept = "generator.mask.", snapshot.groups.get("sparsity", {})  # weights that were never masked have none
    masks = {name.removeprefix(prefix): mask for name, mask in kept.items() if name.startswith(prefix)}
    try:
        narrowed = built.narrowed
        if frees_channels(run.recipe) if compacted is None else compacted:
            result = compact(generator, built, masks)
            narrowed |= result.generator is not generator
            generator, masks = result.generator, dict(result.masks)
            source["removed"] = [[name, *counts] for name, counts in result.removed.items()]
        told: dict[str, Any] = {
            "model": built.model,
            "masks": masks,
            "values": values,
            "origin": built.origin,
            "narrowed": narrowed,
        }
        if values != "int8":
            return export_packed(generator, path, source=source, **told)
        ranges = calibrate_generator(generator, masks, rule)
        source["range"] = rule
        sizes = export_packed(generator, path, source=source, ranges=ranges, **told)
        if judge is not None:
            packed = load_packed(path)
            exact = compile_generator(generator, masks)
            found = judge(
                exact, compile_generator(packed.generator(), packed.masks, sparse="always", ranges=packed.ranges)
            )
            source["quality"] = dict(found)
            sizes = export_packed(generator, path, source=source, ranges=ranges, **told)
        return sizes
    except (ExportError, ChannelError) as error:
        where = error.where or str(run.directory.checkpoints / f"{number:08d}")
        raise type(error)(error.message, where=where) from error


def load_packed(path: Path) -> Packed:
    """Read a file of :func:`export_packed`: the same weights bit for bit (those of the rounded ones with ``bf16``).

    Raises:
        ExportError: the file is truncated, altered, from a newer version, or not a packed generator.
    """
    stored, document = read_container(path, kind=KIND, format=FORMAT)
    where, at = str(path), ""
    try:
        spec = ImageSpec.from_json(document["image"])
        model, source, table = dict(document["model"]), dict(document["source"]), dict(document["tensors"])
        architecture = Architecture(str(model.pop("name", "")), str(document.get("origin", "")), model, spec)
        captured, narrowed = document.get("captured"), document.get("narrowed") is True
        ranges = ranges_from_json(document.get("int8", {}))
        if unknown := ranges.keys() - table.keys():
            raise ExportError(f"layer {min(unknown)}: it has ranges and no weight")
        declared, state, masks = {}, {}, {}
        for name, entry in table.items():
            at = f"tensor {name}: "
            declared[name] = declared_tensor(entry)
        at = ""
        # before anything is decoded: a forged table could ask for more memory than there is
        if captured is not None:
            check_captured(captured, declared, spec)
        else:
            with contextlib.suppress(ComponentError):
                check_tensors(architecture, declared, narrowed=narrowed)
        for name, entry in table.items():
            at = f"tensor {name}: "
            state[name], mask = decode_tensor(name, stored, entry, ranges[name].factors if name in ranges else None)
            if mask is not None:
                masks[name] = mask
    except ExportError as error:
        raise ExportError(at + error.message, where=where) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, RuntimeError) as error:
        raise ExportError(f"not a {KIND} of format {FORMAT} ({error!r})", where=where) from error
    if stored:
        raise ExportError(f"tensor {min(stored)} belongs to no tensor of the generator", where=where)
    missing = str(document.get("missing", ""))
    return Packed(architecture, state, masks, source, path.stat().st_size, captured, narrowed, missing, ranges)


def _check_masks(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        if name not in state:
            raise ExportError(f"there is a mask for {name}, which the generator does not have")
        weight = state[name]
        if mask.shape != weight.shape or mask.dtype is not torch.bool:
            raise ExportError(
                f"the mask of {name} is {tuple(mask.shape)} {mask.dtype}, its weight has {tuple(weight.shape)}"
            )
        off = int(weight.masked_select(~mask.cpu()).count_nonzero())
        if off:
            raise ExportError(f"{name} is not 0 at {off} masked positions: these masks are of other weights")
