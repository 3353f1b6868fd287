"""Image files to arrays: decoding, orientation, colour, crop and resize, with errors that name the file."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gancompress.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MOST_PIXELS", "SUFFIXES", "Filter", "decode", "formats", "is_grey", "is_image_name",
           "resize_square", "squeeze", "stored_size", "to_array"]  # fmt: skip

#: file names that are taken for images: a list of ours, so that images do not come and go with Pillow's version
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".webp", ".avif", ".bmp", ".dib", ".gif",
            ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi")  # fmt: skip
#: what these may hold; others of Pillow's formats start programs (EPS) or hold files in files (ICO)
_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "QOI")
#: larger images are refused before their pixels are unpacked: 270 MB in RGB
MOST_PIXELS = 90_000_000

Filter: TypeAlias = Literal["lanczos", "box"]
_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
_GREY_MODES = ("1", "L", "LA", "La")


def is_image_name(name: str) -> bool:
    """Whether a file of that name (``/`` separated) is an image: by suffix, leaving out hidden files."""
    base = name.rsplit("/", 1)[-1]
    hidden = base.startswith(".") or name.startswith("__MACOSX/")
    return not hidden and base.lower().endswith(SUFFIXES)


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the formats that images may have: those of ours that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode(data: bytes, name: str, where: str) -> Image.Image:
    """Decode an image file, turned upright when a camera noted its orientation; deep grey keeps its upper 8 bits.

    Args:
        data: the file's bytes.
        name: the image's name, for the error.
        where: the zip or folder it is in, for the error.

    Raises:
        DataError: not an image, or a damaged or enormous one.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width:,}×{image.height:,} pixels, more than {MOST_PIXELS:,} in all")
        image.load()
        bits = _grey_bits(image)
        upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
        return Image.fromarray((np.asarray(upright) >> bits - 8).astype(np.uint8)) if bits > 8 else upright
    except Exception as error:  # Pillow's plugins raise anything: SyntaxError, struct.error, ValueError, …
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image of a known format" if data else "empty file"
        else:
            reason = str(error).replace("\n", " ") or type(error).__name__
        raise DataError(f"cannot read image {name!r} ({reason}): replace it or take it out", where=where) from error


def stored_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that an image file says it has, without decoding it; None of what is no image."""
    try:
        width, height = Image.open(io.BytesIO(data), formats=formats()).size
    except Exception:  # Pillow's plugins raise anything
        return None
    return width, height


def _grey_bits(image: Image.Image) -> int:
    """Return the bits per pixel of a grey image that has more than 8, else 0."""
    if image.mode.startswith("I;16"):
        stored: tuple[int, ...] = getattr(image, "tag_v2", {}).get(258, (16,))  # of a TIFF: 12 of 16 may be used
        return stored[0]
    # whatever a PGM's largest value is, Pillow brings it to 16 bits in a wider integer
    return 16 if image.mode == "I" and image.format == "PPM" else 0


def to_array(
    image: Image.Image, channels: int, resolution: int | None, resample: Filter, name: str, where: str
) -> npt.NDArray[np.uint8]:
    """Return an image as (C, H, W), cropped to a centred square and resized when ``resolution`` is given.

    Transparent parts become white, as on a page.

    Raises:
        DataError: pixels of a kind that has no natural 8-bit form (32-bit or signed integers, floats).
    """
    if image.mode in ("I", "F"):
        raise DataError(f"image {name!r} has 32-bit pixels or signed ones: convert it to 8 bits a channel", where=where)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if resolution is not None:
        image = resize_square(image, resolution, resample)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def squeeze(image: Image.Image, resolution: int, resample: Filter = "lanczos") -> Image.Image:
    """Resize the whole image to a square, whatever its proportions were."""
    side = (resolution, resolution)
    return image if image.size == side else image.resize(side, _FILTERS[resample])


def is_grey(image: Image.Image) -> bool:
    """Whether an image is stored in shades of grey (a property of the file, not of the colours it happens to use)."""
    return image.mode in _GREY_MODES or _grey_bits(image) > 8


def resize_square(image: Image.Image, resolution: int, resample: Filter = "lanczos") -> Image.Image:
    """Crop the centred square out of an image and resize it; untouched when it has that size already."""
    width, height = image.size
    if (width, height) == (resolution, resolution):
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if width != height:  # cut first: resize(box=...) lets the filter reach over the cut
        image = image.crop((left, top, left + side, top + side))
    return image.resize((resolution, resolution), _FILTERS[resample])
