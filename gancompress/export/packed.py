"""Generators in one small file: kept values, coded masks, and all that is needed to build the network again.

The file is safetensors and never needs a pickle. Layout (format 1), for every tensor ``T`` of the network's state, with
spectral norm written out:

- ``T`` as it is, when that is smallest or it holds whole numbers;
- else ``T:values``, its values coded by :func:`~gancompress.export.coding.encode_values`, and, when it has a mask,
  ``T:mask``, coded by :func:`~gancompress.export.coding.encode_mask`: the mask of the training, not where values
  happen to be 0.

The document beside them (see :mod:`gancompress.export.container`) has the backbone's name, origin and config, the image
spec, shape, dtype and number of kept weights per tensor, where the generator comes from, and a hash over the file.
A backbone that is not built in is stored with its graph (:mod:`gancompress.graphs`), which needs no class to be read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gancompress import __version__
from gancompress.architecture.description import Architecture
from gancompress.backbones.base import prunable_weights
from gancompress.data.base import ImageSpec
from gancompress.errors import ComponentError, ExportError
from gancompress.export.captured import CapturedGenerator, capture_generator, check_captured
from gancompress.export.coding import decode_mask, decode_values, encode_mask, encode_values
from gancompress.export.container import read_container, write_container
from gancompress.export.plain import plain_copy
from gancompress.export.rebuild import build_generator, check_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gancompress.backbones.base import Generator
    from gancompress.experiment.finished import OpenedRun

__all__ = [
    "FORMAT",
    "KIND",
    "Packed",
    "TensorSize",
    "Values",
    "export_packed",
    "export_run",
    "file_name",
    "load_packed",
]

#: version of the layout that is written, and the newest that is read
FORMAT = 1
KIND = "packed generator"

Values = Literal["float32", "bf16"]

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8,
                  torch.bool)
}  # fmt: skip
_MASK, _VALUES = ":mask", ":values"


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
    """

    architecture: Architecture
    state: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    source: Mapping[str, Any]
    bytes: int = 0
    captured: Mapping[str, Any] | None = None
    narrowed: bool = False
    missing: str = ""

    @property
    def model(self) -> Mapping[str, Any]:
        """Name of the backbone and its config."""
        return self.architecture.model

    @property
    def image(self) -> ImageSpec:
        """Shape and classes of the images."""
        return self.architecture.image

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
        size = sum(mask.numel() for mask in self.masks.values())
        return sum(int(mask.sum()) for mask in self.masks.values()) / size if size else 1.0


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
) -> dict[str, TensorSize]:
    """Write a generator into one file.

    Args:
        generator: left as it is.
        path: the file; it appears whole or not at all.
        model: ``name`` of its backbone and the fields of the backbone's ``Config``.
        masks: by the name that ``prunable_weights`` gives; a weight that is not named is stored whole.
        values: ``bf16`` rounds the prunable weights to bfloat16; biases, norms and embeddings stay float32.
        source: anything to remember about where it comes from, plain JSON values.
        origin: distribution or plugin file of the backbone.
        narrowed: whether layers are narrower than the config has them.

    Returns:
        Bytes per tensor.

    Raises:
        ExportError: a mask does not fit its weight, the tensors are not those that ``model`` describes, or the file
            cannot be written.
    """
    if values not in ("float32", "bf16"):
        raise ExportError(f"values {values!r}: use 'float32' or 'bf16'")
    plain = plain_copy(generator)
    prunable = {name: weight.kind for name, weight in prunable_weights(plain).items()}
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
        half = values == "bf16" and name in prunable and tensor.dtype is torch.float32
        parts, entry = _encode(tensor, masks.get(name), half)
        stored.update({name + suffix: part for suffix, part in parts.items()})
        table[name] = entry
        packed = sum(part.numel() * part.element_size() for part in parts.values())
        kept = entry.get("kept", tensor.numel())
        dense = tensor.numel() * tensor.element_size()
        sizes[name] = TensorSize(dense, packed, tensor.numel(), kept, prunable.get(name, "other"))
    document = {
        **more,
        "model": architecture.model,
        "origin": origin,
        "image": plain.image.to_json(),
        "source": {"gancompress": __version__, "values": values, **(source or {})},
        "tensors": table,
    }
    write_container(path, stored, document, kind=KIND, format=FORMAT)
    return sizes


def file_name(values: str) -> str:
    """Return how the file of a run is called by default: one of rounded weights stands beside the exact one."""
    return "generator.safetensors" if values == "float32" else f"generator-{values}.safetensors"


def export_run(run: OpenedRun, path: Path, *, step: str = "last", values: Values = "float32") -> dict[str, TensorSize]:
    """Write the averaged generator of a finished run into one file; see :func:`export_packed`.

    ``step`` is ``last``, ``best`` or a number.
    """
    number = run.step(step)
    source = {"run": run.directory.path.resolve().name, "step": number, "weights": "ema"}
    snapshot = run.snapshot(str(number), ("ema", "sparsity"))
    generator, built = run.rebuild(snapshot)
    prefix, kept = "generator.mask.", snapshot.groups.get("sparsity", {})  # weights that were never masked have none
    masks = {name.removeprefix(prefix): mask for name, mask in kept.items() if name.startswith(prefix)}
    try:
        return export_packed(
            generator, path, model=built.model, masks=masks, values=values, source=source, origin=built.origin,
            narrowed=built.narrowed,
        )  # fmt: skip
    except ExportError as error:
        where = error.where or str(run.directory.checkpoints / f"{number:08d}")
        raise ExportError(error.message, where=where) from error


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
        declared, state, masks = {}, {}, {}
        for name, entry in table.items():
            at = f"tensor {name}: "
            declared[name] = torch.empty(_shape(entry), dtype=_DTYPES[entry["dtype"]], device="meta")
        at = ""
        # before anything is decoded: a forged table could ask for more memory than there is
        if captured is not None:
            check_captured(captured, declared, spec)
        else:
            with contextlib.suppress(ComponentError):
                check_tensors(architecture, declared, narrowed=narrowed)
        for name, entry in table.items():
            at = f"tensor {name}: "
            parts = {suffix: stored.pop(name + suffix) for suffix in ("", _VALUES, _MASK) if name + suffix in stored}
            state[name], mask = _decode(parts, entry)
            if mask is not None:
                masks[name] = mask
    except ExportError as error:
        raise ExportError(at + error.message, where=where) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, RuntimeError) as error:
        raise ExportError(f"not a {KIND} of format {FORMAT} ({error!r})", where=where) from error
    if stored:
        raise ExportError(f"tensor {min(stored)} belongs to no tensor of the generator", where=where)
    missing = str(document.get("missing", ""))
    return Packed(architecture, state, masks, source, path.stat().st_size, captured, narrowed, missing)


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


def _encode(tensor: Tensor, mask: Tensor | None, half: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the parts of a tensor by suffix and its line in the document's table."""
    entry: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if entry["dtype"] not in _DTYPES:
        raise ExportError(f"tensors of {tensor.dtype} cannot be packed")
    if not tensor.is_floating_point():
        return {"": tensor}, entry
    kept = tensor.reshape(-1) if mask is None else tensor.masked_select(mask.cpu())
    if half:
        kept, entry["values"] = kept.to(torch.bfloat16), "bfloat16"
    code = encode_values(kept)
    if mask is not None:
        return {_VALUES: code, _MASK: encode_mask(mask)}, {**entry, "kept": kept.numel()}
    if code.numel() < kept.numel() * kept.element_size():
        return {_VALUES: code}, entry
    return {"": kept.reshape(tensor.shape)}, entry


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in entry["shape"])
    if min(shape, default=0) < 0:
        raise ExportError(f"a shape {list(shape)} is impossible")
    return shape


def _decode(parts: Mapping[str, Tensor], entry: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    shape, dtype = _shape(entry), _DTYPES[entry["dtype"]]
    held = _DTYPES[entry.get("values", entry["dtype"])]
    if parts.keys() == {""}:
        whole = parts[""]
        if tuple(whole.shape) != shape or whole.dtype is not held:
            raise ExportError(f"it is {tuple(whole.shape)} {whole.dtype}, the table says {shape} {held}")
        return whole.to(dtype), None
    codes = all(code.dtype is torch.uint8 and code.dim() == 1 for code in parts.values())
    if not codes or parts.keys() != ({_VALUES, _MASK} if "kept" in entry else {_VALUES}):
        raise ExportError("its parts are not those that the table says")
    if _MASK not in parts:
        return decode_values(parts[_VALUES], math.prod(shape), held).to(dtype).reshape(shape), None
    mask = decode_mask(parts[_MASK], shape)
    kept = int(mask.sum())
    if kept != entry["kept"]:
        raise ExportError(f"its mask keeps {kept} weights, the table says {entry['kept']}")
    tensor = torch.zeros(shape, dtype=dtype)
    tensor[mask] = decode_values(parts[_VALUES], kept, held).to(dtype)
    return tensor, mask
