"""``gancompress data``: images made ready for training."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from gancompress.cli.app import add_command, fail, group

__all__ = ["data", "prepare"]

#: broken images that are listed; the rest is counted
_LISTED = 20


data = group(
    "data",
    "Make images ready for training.",
    "gancompress data prepare photos --out photos64.zip --resolution 64",
)


@data.callback()
def _group() -> None:
    """Keep ``prepare`` a command of its own while it is the only one."""


def prepare(
    source: Annotated[Path, typer.Argument(help="A folder or a zip of images.", metavar="SOURCE")],
    out: Annotated[Path, typer.Option("--out", help="The zip to make; one that is there is never replaced.")],
    resolution: Annotated[int, typer.Option("--resolution", min=4, max=1024, help="Height and width in pixels.")],
    crop: Annotated[
        Literal["center", "none"],
        typer.Option("--crop", help="Oblong images: cut out the centred square, or squeeze the whole image."),
    ] = "center",
    format_: Annotated[
        Literal["png", "jpg"], typer.Option("--format", help="png loses nothing; jpg (quality 95) is smaller.")
    ] = "png",
    filter_: Annotated[
        Literal["lanczos", "box"], typer.Option("--filter", help="Filter of the resize; box averages.")
    ] = "lanczos",
    channels: Annotated[
        int | None, typer.Option("--channels", help="1 = grey, 3 = RGB. [default: grey if all images are]")
    ] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Leave labels out.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be read; they are listed.")
    ] = False,
) -> None:
    """Resize a folder or zip of images into one zip, which trains fastest.

    SOURCE holds images in class folders, flat, or with a dataset.json; the zip keeps the labels. The same images and
    settings give the same bytes.

    Example: gancompress data prepare photos --out photos64.zip --resolution 64
    """
    from gancompress import api
    from gancompress.data.prepare import BrokenImagesError
    from gancompress.progress import display, duration
    from gancompress.units import size

    if channels not in (None, 1, 3):
        raise typer.BadParameter("1 = grey, 3 = RGB", param_hint="'--channels'")
    shown, began = display(10.0, at_once=False), time.monotonic()

    def progress(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        left = duration((total - done) / rate)
        shown.show(f"{done:,} of {total:,} images, {rate:,.0f} a second, {left} left", done, total)

    try:
        made = api.prepare_data(
            source,
            out,
            resolution=resolution,
            crop=crop,
            format=format_,
            resample=filter_,
            channels=cast("Literal[1, 3] | None", channels),
            labelled=not unlabelled,
            skip_broken=skip_broken,
            progress=progress,
        )
    except BrokenImagesError as error:
        shown.end()
        _list(error.broken)
        raise
    finally:
        shown.end()
    if made.broken:
        fail(
            "1 broken image was left out:"
            if len(made.broken) == 1
            else f"{len(made.broken):,} broken images were left out:"
        )
        _list(made.broken)
    for line in made.warnings:
        typer.echo(f"warning: {line}")
    if made.enlarged:
        typer.echo(f"{made.enlarged:,} of the images were smaller than {resolution} pixels and are enlarged")
    named = ", ".join(made.classes[:5]) + (", …" if len(made.classes) > 5 else "")
    classes = f"{len(made.classes):,} classes ({named})" if made.classes else "no labels"
    colours = "grey" if made.channels == 1 else "RGB"
    typer.echo(f"{out}: {made.images:,} images, {resolution}x{resolution}, {colours}, {classes}, {size(made.size)}")
    typer.echo(f"train on it: gancompress run RECIPE --set data.name=zip --set {shlex.quote(f'data.path={out}')}")


add_command("prepare", prepare, to=data, plugins=False)


def _list(broken: tuple[str, ...]) -> None:
    for line in broken[:_LISTED]:
        typer.echo(f"  {line}", err=True)
    if len(broken) > _LISTED:
        typer.echo(f"  and {len(broken) - _LISTED:,} more", err=True)
