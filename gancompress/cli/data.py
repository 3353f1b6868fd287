"""``gancompress data``: images made ready for training."""

from __future__ import annotations

import shlex
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from gancompress.cli.app import fail

__all__ = ["data", "prepare"]

_HELP = "Make images ready for training."
_PREPARE = """Resize a folder or zip of images into one zip, which trains fastest.

SOURCE holds images in class folders, flat, or with a dataset.json; the zip keeps the labels. The same images and
settings give the same bytes.
"""
_EXAMPLE = "Example: gancompress data prepare photos --out photos64.zip --resolution 64"
#: broken images that are listed; the rest is counted
_LISTED = 20


class _Crop(StrEnum):
    centre = "center"
    none = "none"


class _Format(StrEnum):
    png = "png"
    jpg = "jpg"


class _Filter(StrEnum):
    lanczos = "lanczos"
    box = "box"


data = typer.Typer(
    name="data",
    help=_HELP,
    short_help=_HELP,
    epilog=_EXAMPLE,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data.callback()
def _group() -> None:
    """Keep ``prepare`` a command of its own while it is the only one."""


@data.command("prepare", help=_PREPARE, short_help=_PREPARE.partition("\n")[0], epilog=_EXAMPLE)
def prepare(
    source: Annotated[Path, typer.Argument(help="A folder or a zip of images.", metavar="SOURCE")],
    out: Annotated[Path, typer.Option("--out", help="The zip to make; one that is there is never replaced.")],
    resolution: Annotated[int, typer.Option("--resolution", min=4, max=1024, help="Height and width in pixels.")],
    crop: Annotated[
        _Crop, typer.Option("--crop", help="Oblong images: cut out the centred square, or squeeze the whole image.")
    ] = _Crop.centre,
    format_: Annotated[
        _Format, typer.Option("--format", help="png loses nothing; jpg (quality 95) is smaller.")
    ] = _Format.png,
    filter_: Annotated[_Filter, typer.Option("--filter", help="Filter of the resize; box averages.")] = _Filter.lanczos,
    channels: Annotated[
        int | None, typer.Option("--channels", help="1 = grey, 3 = RGB. [default: grey if all images are]")
    ] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Leave labels out.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be read; they are listed.")
    ] = False,
) -> None:
    """Resize a folder or zip of images into one zip."""
    from gancompress.data import prepare as work
    from gancompress.report.words import size

    if channels not in (None, 1, 3):
        raise typer.BadParameter("1 = grey, 3 = RGB", param_hint="'--channels'")
    progress = _Progress()
    try:
        made = work.prepare(
            source,
            out,
            resolution=resolution,
            crop=crop.value,
            format=format_.value,
            resample=filter_.value,
            channels=cast("Literal[1, 3] | None", channels),
            labelled=not unlabelled,
            skip_broken=skip_broken,
            progress=progress.show,
        )
    except work.BrokenImagesError as error:
        progress.end()
        _list(error.broken)
        raise
    finally:
        progress.end()
    if made.broken:
        fail(
            "1 broken image was left out:"
            if len(made.broken) == 1
            else f"{len(made.broken):,} broken images were left out:"
        )
        _list(made.broken)
    if made.enlarged:
        typer.echo(f"{made.enlarged:,} of the images were smaller than {resolution} pixels and are enlarged")
    named = ", ".join(made.classes[:5]) + (", …" if len(made.classes) > 5 else "")
    classes = f"{len(made.classes):,} classes ({named})" if made.classes else "no labels"
    colours = "grey" if made.channels == 1 else "RGB"
    typer.echo(f"{out}: {made.images:,} images, {resolution}x{resolution}, {colours}, {classes}, {size(made.size)}")
    typer.echo(f"train on it: gancompress run RECIPE --set data.name=zip --set {shlex.quote(f'data.path={out}')}")


def _list(broken: tuple[str, ...]) -> None:
    for line in broken[:_LISTED]:
        typer.echo(f"  {line}", err=True)
    if len(broken) > _LISTED:
        typer.echo(f"  and {len(broken) - _LISTED:,} more", err=True)


class _Progress:
    """One line that changes on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._pause = 0.1 if self._live else 10.0
        self._began = self._shown = time.monotonic()
        self._drawn = False

    def show(self, done: int, total: int) -> None:
        """Say how far it is, now and then."""
        from gancompress.report.words import duration

        now = time.monotonic()
        if now - self._shown < self._pause:
            return
        self._shown = now
        left = duration((now - self._began) / done * (total - done))
        words = f"{done:,} of {total:,} images, {done / (now - self._began):,.0f} a second, {left} left"
        self._drawn = self._live
        sys.stderr.write(f"\r{words}\x1b[K" if self._live else f"{words}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Clear the live line."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
