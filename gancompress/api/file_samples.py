"""Images of a generator that lies in one file, as ``gancompress sample FILE`` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.errors import RunError, located
from gancompress.experiment.finished import check_samples, folder_of_images, write_samples, write_translated
from gancompress.export.loading import load
from gancompress.export.network import LoadedNetwork

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["sample_file"]


def sample_file(
    file: Path,
    out: Path,
    *,
    count: int,
    label: int | None,
    seed: int,
    step: str,
    truncation: float,
    inputs: Path | None,
) -> Path:
    """Write images of the generator in ``file``; see :func:`gancompress.sample` for the rest.

    Raises:
        RunError: a checkpoint is asked for, there is no such class, or images that it eats are missing.
        BackboneError: the generator has no average of styles, and ``truncation`` is not 1.
        ExportError: the file holds no generator.
    """
    if step != "last":
        raise RunError("a file holds one generator: leave step out", where=str(file))
    opened = load(file)
    if isinstance(opened, LoadedNetwork):
        raise RunError("is a network from elsewhere, which makes no samples: call it from Python", where=str(file))
    network = opened.truncated(truncation)
    check_samples(network, out, label, inputs)
    with located(str(file)):
        if not network.translates:
            return write_samples(network, out, count, label, seed)
        if inputs is None:
            raise RunError("makes images of images: give a folder of them as inputs")
        return write_translated(network, out, count, seed, folder_of_images(network, inputs))
