"""What every page is made with: its template, the style of its charts, pictures inside it, and the file."""

from __future__ import annotations

import base64
import datetime
from typing import TYPE_CHECKING, Any

from gancompress.charts.plot import style_sheet
from gancompress.errors import RunError
from gancompress.storage.atomic import write_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["data_uri", "fill", "png_uri", "write_page"]

_PNG = b"\x89PNG\r\n\x1a\n"


def fill(template: str, **values: Any) -> str:
    """Return a page as text: UTF-8, no address outside itself.

    Args:
        template: name of its file.
        values: what the template shows; ``made`` and the style of charts are added.
    """
    import jinja2  # 40 ms, and only pages need it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gancompress.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(chart_style=style_sheet(), made=made, **values)


def write_page(path: Path, content: str) -> Path:
    """Write a page, whole or not at all.

    Raises:
        RunError: the disk refuses.
    """
    try:
        write_file(path, content)
    except OSError as error:
        raise RunError(f"cannot write the report: {error.strerror}", where=str(path)) from error
    return path


def png_uri(path: Path, largest: int | None = None) -> str | None:
    """Return a PNG as an address that holds the picture itself; ``None`` when it is none, or has too many bytes."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(_PNG) or (largest is not None and len(content) > largest):
        return None
    return data_uri("image/png", content)


def data_uri(kind: str, content: bytes) -> str:
    """Return an address that holds the content itself; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
