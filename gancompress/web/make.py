"""From a packed generator to the file that pages run."""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import TYPE_CHECKING, Any

from gancompress import __version__
from gancompress.errors import ExportError
from gancompress.evaluation.sampler import classes_of
from gancompress.export.compiled import compile_generator
from gancompress.export.container import write_whole
from gancompress.units import size
from gancompress.web.blob import Tensors, write_blob
from gancompress.web.page import generator_page
from gancompress.web.tape import Tape, record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.export.packed import Packed

__all__ = ["Site", "blob_of", "check_name", "write_blob_site", "write_site"]

_MODULE = ("generator.js", "generator.d.ts")


@dataclasses.dataclass(frozen=True)
class Site:
    """What a generator for the web is written as.

    Attributes:
        page: one HTML file that needs nothing else.
        blob: the generator alone, for ``load()`` of generator.js.
        module: generator.js and its types.
    """

    page: Path
    blob: Path
    module: tuple[Path, ...]


def blob_of(packed: Packed, examples: Sequence[Tensor] = ()) -> bytes:
    """Return a packed generator as a ``.gcw`` file; see :mod:`gancompress.web.blob`.

    Args:
        packed: the generator.
        examples: images that a page begins with, ``(1, C, H, W)`` in [-1, 1]; of a generator that eats images.

    Raises:
        ExportError: it has an operation that pages lack, which is named.
    """
    generator = packed.generator()
    if generator.translates:
        return _translator_blob(packed, generator, examples)
    compiled = compile_generator(generator, packed.masks, sparse="always", ranges=packed.ranges or None)
    tensors = Tensors()
    tape = Tape(tensors, packed.state, packed.masks)
    record(compiled, tape)
    image = packed.image
    header: dict[str, Any] = {
        "gancompress": __version__,
        "latent": compiled.latent_dim,
        "classes": list(image.classes[: compiled.num_classes]),
        "counts": list(classes_of(compiled)),
        "channels": image.channels,
        "size": image.resolution,
        "programs": tape.programs,
        "operations": tape.operations,
        "output": tape.output,
    }
    return write_blob(header, tensors)


def _translator_blob(packed: Packed, generator: Any, examples: Sequence[Tensor]) -> bytes:
    """Write a generator that eats images by its graph, as networks from elsewhere are."""
    from gancompress.export.captured_run import captured_module
    from gancompress.export.plain import example_inputs
    from gancompress.web.network import network_blob

    network = captured_module(generator, example_inputs(generator, 2, "web"))
    return network_blob(
        network, packed.masks, name=str(packed.model["name"]), pixels=(-1.0, 1.0),
        examples=examples, rounds=packed.source.get("values") == "bf16",
    )  # fmt: skip


def write_site(
    packed: Packed, page: Path, title: str, lines: Sequence[str] = (), *, examples: Sequence[Tensor] = ()
) -> Site:
    """Write a page with a generator in it; and beside it, for people who build a site, the generator and its module.

    Args:
        packed: the generator, in the values that its file has.
        page: the HTML file; the others are called after it, and ``generator.js``.
        title: of the page, any text.
        lines: what else is said of it, any text; what kind of generator it is stands ahead.
        examples: as for :func:`blob_of`.

    Raises:
        ExportError: it has an operation that pages lack, or is too large, or a file cannot be written.
    """
    check_name(page)
    image, values = packed.image, packed.source.get("values", "float32")
    what = f"{packed.model['name']} generator, {image.channels}x{image.resolution}x{image.resolution}"
    told = [f"{what}, density {packed.density:.3g}, {values} weights, {size(packed.bytes)} packed", *lines]
    return write_blob_site(blob_of(packed, examples), page, title, told)


def write_blob_site(blob: bytes, page: Path, title: str, lines: Sequence[str] = ()) -> Site:
    """Write a page with what a ``.gcw`` file holds, that file, and the module that reads it; as :func:`write_site`."""
    check_name(page)
    site = Site(page, page.with_suffix(".gcw"), tuple(page.parent / name for name in _MODULE))
    write_whole(page, generator_page(blob, title, lines).encode())
    write_whole(site.blob, blob)
    for path in site.module:
        write_whole(path, (importlib.resources.files("gancompress.web") / path.name).read_bytes())
    return site


def check_name(page: Path) -> None:
    """Refuse what is not the name of a page."""
    if page.suffix not in (".html", ".htm"):
        raise ExportError("the format web writes an HTML file: choose a name that ends in .html", where=str(page))
