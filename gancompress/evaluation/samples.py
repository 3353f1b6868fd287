"""Grids of samples for people, and images for files."""

from __future__ import annotations

import contextlib
import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.errors import EvaluationError
from gancompress.evaluation.sampler import Sampler, open_sampler
from gancompress.storage.atomic import sync_all, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from gancompress.evaluation.extractors import Progress
    from gancompress.evaluation.sandbox import BatchNormMode

__all__ = ["grid_scale", "sample_grid", "save_images", "tile"]

#: pixels between the images of a grid
GAP = 2
#: small images are enlarged to about this many pixels, by a whole factor
READABLE = 64


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
    network: nn.Module,
    path: Path,
    *,
    latent_dim: int,
    num_classes: int,
    columns: int = 10,
    rows: int | None = None,
    seed: int = 0,
    scale: int | None = None,
    batch_norm: BatchNormMode = "running",
    batch_size: int = 100,
    device: torch.device | str = "cpu",
) -> Path:
    """Write a grid of samples as PNG. The latents are the same at every call, so that grids can be compared over time.

    Args:
        network: maps latents (B, latent_dim) and labels (B,) or None to images in [-1, 1]; left as it was.
        path: file to write; it appears whole or not at all.
        latent_dim: size of a latent.
        num_classes: classes, one per row; 0 = unconditional.
        columns: images per row.
        rows: rows; default: the number of classes, at most 20 (evenly spread when there are more), or ``columns``.
        seed: of the latents.
        scale: whole factor of enlargement; default: :func:`grid_scale`.
        batch_norm: statistics of batch norm while sampling.
        batch_size: images per forward pass.
        device: where the network is.

    Returns:
        ``path``.

    Raises:
        EvaluationError: pixels are not finite, or the file cannot be written.
    """
    height = rows or (min(num_classes, 20) if num_classes else columns)
    labels = None
    if num_classes:
        shown = torch.arange(height) * max(1, num_classes // height) % num_classes
        labels = shown.repeat_interleave(columns)
    opened = open_sampler(
        network,
        latent_dim=latent_dim,
        num_classes=num_classes,
        seed=seed,
        batch_size=batch_size,
        batch_norm=batch_norm,
        device=device,
        stream="grid",
    )
    with opened as sampler:
        made = torch.cat(list(_draw(sampler, height * columns, labels, batch_size)))
    picture = tile(made, columns, grid_scale(made.shape[-1]) if scale is None else scale)
    with _whole_file(path) as temporary:
        _picture(picture).save(temporary, format="PNG")
    return path


def save_images(
    network: nn.Module,
    out: Path,
    *,
    count: int,
    latent_dim: int,
    num_classes: int,
    classes: Sequence[str] = (),
    only_class: int | None = None,
    seed: int = 0,
    batch_norm: BatchNormMode = "running",
    batch_size: int = 100,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Write ``count`` samples as PNG files into a folder, or as one dataset when ``out`` ends in ``.zip``.

    The zip has the format that the dataset ``zip`` reads: stored images in numbered folders and a ``dataset.json``.

    Args:
        network: maps latents (B, latent_dim) and labels (B,) or None to images in [-1, 1]; left as it was.
        out: the zip, or the folder, which is made when needed; files in it are replaced one by one.
        count: number of images.
        latent_dim: size of a latent.
        num_classes: 0 = unconditional; else classes take turns.
        classes: names of the classes, for the zip.
        only_class: make images of this class alone.
        seed: of the latents.
        batch_norm: statistics of batch norm while sampling.
        batch_size: images per forward pass.
        device: where the network is.
        progress: told after every batch.

    Returns:
        ``out``.

    Raises:
        EvaluationError: no such class, pixels are not finite, or a file cannot be written.
    """
    if only_class is not None and not 0 <= only_class < num_classes:
        known = f"0 to {num_classes - 1}" if num_classes else "none: the generator is unconditional"
        raise EvaluationError(f"there is no class {only_class}; known: {known}")
    labels = torch.arange(count) % num_classes if num_classes else None
    if labels is not None and only_class is not None:
        labels = torch.full_like(labels, only_class)
    opened = open_sampler(
        network,
        latent_dim=latent_dim,
        num_classes=num_classes,
        seed=seed,
        batch_size=batch_size,
        batch_norm=batch_norm,
        device=device,
    )
    with opened as sampler:
        named = _named(_draw(sampler, count, labels, batch_size), count, progress)
        if out.suffix == ".zip":
            _write_zip(out, named, None if labels is None else labels.tolist(), classes)
        else:
            for name, data in named:
                with _whole_file(out / Path(name).name, one_of_many=True) as temporary:
                    temporary.write_bytes(data)
            sync_all()
    return out


def _draw(sampler: Sampler, count: int, labels: Tensor | None, batch_size: int) -> Iterator[Tensor]:
    """Yield ``count`` images as uint8 on the CPU, batch by batch."""
    from gancompress.data.transform import to_uint8

    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        chosen = None if labels is None else labels[start:stop].to(sampler.device)
        yield to_uint8(sampler.images(start, stop, chosen)).cpu()


def _picture(image: Tensor) -> Image:
    """Turn (C, H, W) uint8 into a Pillow image, grey for one channel."""
    from PIL import Image as pillow  # noqa: N813 (a module)

    return pillow.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _named(batches: Iterator[Tensor], count: int, progress: Progress | None) -> Iterator[tuple[str, bytes]]:
    """Yield the name within a zip and the PNG of every image; a thousand images per folder."""
    index = 0
    for images in batches:
        for image in images:
            data = BytesIO()
            _picture(image).save(data, format="PNG")
            yield f"{index // 1000:05d}/img{index:08d}.png", data.getvalue()
            index += 1
        if progress is not None:
            progress("writing samples", index, count)


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
