"""``gancompress plugins``: what is installed and whether it works, the conformance kit, and a package to start from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gancompress.cli.app import add_command, color, group, key_values, print_table

if TYPE_CHECKING:
    from gancompress.testing import Outcome

__all__ = ["check", "list_", "new", "plugins"]

plugins = group(
    "plugins",
    "Components of your own: list them, hold them to their contract, start a new one.",
    "gancompress plugins new my-method",
)


#: what a component is
Kind = StrEnum("Kind", "method pattern backbone dataset task loss metric extractor tracker")
#: what there is a template of
NewKind = StrEnum("NewKind", "method pattern backbone dataset metric loss")

KindOption = Annotated[Kind | None, typer.Option("--kind", help="Only components of this kind.")]


# --------------------------------------------------------------------------- list


def list_(
    kind: KindOption = None,
    mine: Annotated[bool, typer.Option("--plugins", help="Leave out what is built in.")] = False,
) -> None:
    """List every component: where it comes from, and whether it loads.

    Example: gancompress plugins list --kind method
    """
    from gancompress import api

    rows = [
        (one.entry.kind, one.entry.name, one.entry.distribution, one.entry.version or "-", one.trouble or "yes")
        for one in api.list_components(kind and kind.value, plugins=mine)
    ]
    if not rows:
        typer.echo("no plugins are installed; see: gancompress plugins new --help")
        return
    print_table("Components", ("kind", "name", "from", "version", "loads"), rows)


# --------------------------------------------------------------------------- check


def check(
    name: Annotated[
        str | None, typer.Argument(help="A component. [default: every plugin]", metavar="[NAME]", show_default=False)
    ] = None,
    kind: KindOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting of the component, e.g. --set every=2. Repeatable."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave a check out. Repeatable.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Run the slow checks too.")] = False,
) -> None:
    """Run the conformance kit on a component; without NAME on every plugin. Exits 1 when a check fails.

    Example: gancompress plugins check rigl
    """
    from gancompress import api

    shown = None
    failed = False
    settings = key_values("--set", set_ or (), "every=2")
    for entry, found in api.check_components(name, settings, kind=kind and kind.value, skip=skip or (), slow=slow):
        if entry != shown:
            typer.echo(f"{entry.kind} {entry.name}, from {entry.origin}")
            shown = entry
        failed |= found.state == "failed"
        _show(found)
    if shown is None:
        typer.echo("no plugins are installed that count; name a component to check one that is built in")
    if failed:
        raise typer.Exit(1)


def _show(found: Outcome) -> None:
    hue = {"passed": "green", "failed": "red", "skipped": "yellow"}[found.state]
    word = f"{found.state:<7}"
    typer.echo(f"  {typer.style(word, fg=hue) if color() else word}  {found.name:<24}  {found.promise}")
    if found.reason:
        typer.echo(f"{'':35}{found.reason}")


# --------------------------------------------------------------------------- new


def new(
    name: Annotated[str, typer.Argument(help="Name of the package, such as my-method.", metavar="NAME")],
    kind: Annotated[NewKind, typer.Option("--kind", help="What it adds.")] = NewKind.method,
    out: Annotated[Path, typer.Option("--out", help="Directory that the new one goes into.")] = Path(),
) -> None:
    """Write a package for a component of your own, which passes its own tests at once.

    Example: gancompress plugins new my-method
    """
    from gancompress import api

    for path in api.new_plugin(name, kind.value, out):
        typer.echo(f"written: {path}")
    typer.echo(f"next: cd {out / name} && pip install -e '.[test]' && pytest")


add_command("list", list_, to=plugins)
add_command("check", check, to=plugins)
add_command("new", new, to=plugins, plugins=False)
