"""Grids of samples for people, and images for files."""

from __future__ import annotations

import contextlib
import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from gancompress.errors import EvaluationError
from gancompress.evaluation.sampler import classes_of, open_sampler
from gancompress.storage.atomic import sweep, sync_all, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gancompress.backbones.base import Generator
    from gancompress.evaluation.sampler import Inputs

__all__ = ["grid_scale", "sample_grid", "save_images", "save_picture", "tile"]

#: pixels between the images of a grid
GAP = 2
#: small images are enlarged to about this many pixels, by a whole factor
READABLE = 64
#: images per forward pass
BATCH = 100
#: the same of generators that eat images, which are larger
_BATCH_OF_IMAGES = 16


def grid_scale(resolution: int) -> int:
    """Return the whole factor by which a grid enlarges images of this size: 4 for 16 pixels, 2 for 32, 1 from 48."""
    return max(1, READABLE // resolution)


def tile(images: Tensor, columns: int, scale: int = 1) -> Tensor:
    """Lay images out in rows on white, each pixel repeated ``scale`` times.

    Args:
        images: uint8, (N, C, H, W).
        columns: images per row.
        scale: whole factor of enlargement.

    Returns:
        uint8, (C, rows * (scale * H + gap) + gap, columns * (scale * W + gap) + gap).
    """
    big = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    count, channels, height, width = big.shape
    rows = -(-count // columns)
    canvas = torch.full((channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 255, dtype=torch.uint8)
    for index, image in enumerate(big):
        top, left = GAP + index // columns * (height + GAP), GAP + index % columns * (width + GAP)
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def sample_grid(
    network: Generator,
    path: Path,
    *,
    columns: int = 10,
    rows: int | None = None,
    seed: int = 0,
    scale: int | None = None,
) -> Path:
    """Write a grid of samples as PNG. The latents are the same at every call, so that grids can be compared over time.

    Args:
        network: the generator; left as it was.
        path: file to write; it appears whole or not at all.
        columns: images per row.
        rows: rows; default: the number of classes that were trained on, at most 20 (evenly spread when there are more),
            or ``columns``.
        seed: of the latents.
        scale: whole factor of enlargement; default: :func:`grid_scale`.

    Returns:
        ``path``.

    Raises:
        EvaluationError: pixels are not finite, or the file cannot be written.
    """
    trained = torch.tensor([index for index, count in enumerate(classes_of(network)) if count])
    classes = len(trained)
    height = rows or (min(classes, 20) if classes else columns)
    labels = None
    if classes:
        shown = trained[torch.arange(height) * max(1, classes // height) % classes]
        labels = shown.repeat_interleave(columns)
    with open_sampler(network, seed=seed, batch_size=BATCH, stream="grid") as sampler:
        made = torch.cat(list(sampler.batches(height * columns, BATCH, labels=labels))).cpu()
    return save_picture(tile(made, columns, grid_scale(made.shape[-1]) if scale is None else scale), path)


def save_picture(image: Tensor, path: Path) -> Path:
    """Write an image, uint8 (C, H, W), as PNG; return ``path``.

    Raises:
        EvaluationError: the file cannot be written.
    """
    with _whole_file(path) as temporary:
        _picture(image).save(temporary, format="PNG")
    return path


def save_images(
    network: Generator,
    out: Path,
    *,
    count: int,
    classes: Sequence[str] = (),
    only_class: int | None = None,
    seed: int = 0,
    inputs: Inputs | None = None,
) -> Path:
    """Write ``count`` samples as PNG files into a folder, or as one dataset when ``out`` ends in ``.zip``.

    The zip has the format that the dataset ``zip`` reads: stored images in numbered folders and a ``dataset.json``.

    Args:
        network: the generator; left as it was. Its classes take turns, each as often as in the data it was trained on.
        out: the zip, or the folder, which is made when needed; files in it are replaced one by one.
        count: number of images.
        classes: names of the classes, for the zip.
        only_class: make images of this class alone.
        seed: of the latents.
        inputs: what the generator is fed instead of latents.

    Returns:
        ``out``.

    Raises:
        EvaluationError: no such class, pixels are not finite, or a file cannot be written.
    """
    known = network.num_classes
    if only_class is not None and not 0 <= only_class < known:
        listed = f"0 to {known - 1}" if known else "none: the generator is unconditional"
        raise EvaluationError(f"there is no class {only_class}; known: {listed}")
    with open_sampler(network, seed=seed, batch_size=BATCH, inputs=inputs) as sampler:
        labels = sampler.labels(0, count)
        if labels is not None and only_class is not None:
            labels = torch.full_like(labels, only_class)
        named = _named(sampler.batches(count, BATCH if inputs is None else _BATCH_OF_IMAGES, labels=labels))
        if out.suffix == ".zip":
            _write_zip(out, named, None if labels is None else labels.tolist(), classes)
        else:
            sweep(out)
            for name, data in named:
                with _whole_file(out / Path(name).name, one_of_many=True) as temporary:
                    temporary.write_bytes(data)
            sync_all()
    return out


def _picture(image: Tensor) -> Image.Image:
    """Turn (C, H, W) uint8 into a Pillow image, grey for one channel."""
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _named(batches: Iterator[Tensor]) -> Iterator[tuple[str, bytes]]:
    """Yield the name within a zip and the PNG of every image; a thousand images per folder."""
    for index, image in enumerate(image for images in batches for image in images.cpu()):
        data = BytesIO()
        _picture(image).save(data, format="PNG")
        yield f"{index // 1000:05d}/img{index:08d}.png", data.getvalue()


def _write_zip(out: Path, named: Iterator[tuple[str, bytes]], labels: list[int] | None, classes: Sequence[str]) -> None:
    names = []
    with _whole_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, data in named:
            archive.writestr(zipfile.ZipInfo(name), data)  # a fixed date: the same samples, the same bytes
            names.append(name)
        listed = None if labels is None else [[name, label] for name, label in zip(names, labels, strict=True)]
        record = {"labels": listed, "classes": list(classes)}
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps(record))


@contextlib.contextmanager
def _whole_file(path: Path, *, one_of_many: bool = False) -> Iterator[Path]:
    """Yield a file beside ``path`` that takes its place on leaving, unless something went wrong."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, one_of_many=one_of_many) as aside:
            yield aside
    except OSError as error:
        raise EvaluationError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
