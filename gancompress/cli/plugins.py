"""``gancompress plugins``: what is installed and whether it works, the conformance kit, and a package to start from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gancompress.cli.app import add_command, color, group, key_values, print_table
from gancompress.errors import ComponentError, RecipeError, RunError

if TYPE_CHECKING:
    from gancompress.components.registry import Entry, Registry
    from gancompress.testing import Check, Outcome

__all__ = ["check", "list_", "new", "plugins"]

plugins = group(
    "plugins",
    "Components of your own: list them, hold them to their contract, start a new one.",
    "gancompress plugins new my-method",
)


#: what a component is
Kind = StrEnum("Kind", "method pattern backbone dataset loss metric extractor")
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
    rows = []  # importing each is what tells whether it loads
    for registry in _registries(kind):
        for entry in registry.entries():
            if not (mine and _is_built_in(entry)):
                reason = registry.trouble(entry)
                version = entry.version or "-"
                rows.append((entry.kind, entry.name, entry.distribution, version, reason or "yes"))
    if not rows:
        typer.echo("no plugins are installed; see: gancompress plugins new --help")
        return
    print_table("Components", ("kind", "name", "from", "version", "loads"), rows)


def _registries(kind: Kind | None) -> list[Registry[Any]]:
    from gancompress.components.registry import REGISTRIES

    return [registry for registry in REGISTRIES.values() if kind is None or registry.kind == kind.value]


def _is_built_in(entry: Entry) -> bool:
    return entry.distribution == "gancompress"


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
    chosen = _chosen(name, kind)
    if name is None and (set_ or skip):
        raise RecipeError("--set and --skip are for one component: give its NAME")
    settings = key_values("--set", set_ or (), "every=2")
    if not chosen:
        typer.echo("no plugins are installed that count; name a component to check one that is built in")
        return
    failed = 0
    for registry, entry in chosen:
        try:
            failed += _report(registry, entry, settings, skip or [], slow)
        except RecipeError as error:
            if name is not None:
                raise
            # one that needs settings keeps no other from being checked
            typer.echo(f"{entry.kind} {entry.name}, from {entry.origin}")
            _line("loads", "it can be imported, and is what its kind asks for", "passed", "")
            _line("settings", "it can be checked without settings of its own", "skipped", str(error))
    if failed:
        raise typer.Exit(1)


def _chosen(name: str | None, kind: Kind | None) -> list[tuple[Registry[Any], Entry]]:
    registries = _registries(kind)
    if name is None:
        return [(r, e) for r in registries for e in r.entries() if not (_is_built_in(e) or e.left_out)]
    found = [(r, e) for r in registries for e in r.entries() if e.name == name]
    kinds = sorted({registry.kind for registry, _ in found})
    if len(kinds) > 1:
        raise ComponentError(f"{name!r} is a {' and a '.join(kinds)}: choose one with --kind")
    if not found:
        from gancompress.errors import did_you_mean

        known = sorted({known for registry in registries for known in registry.names()})
        raise ComponentError(
            f"unknown {'component' if kind is None else kind.value} {name!r}{did_you_mean(name, known)}"
        )
    return found[:1]


def _report(registry: Registry[Any], entry: Entry, settings: dict[str, Any], skip: list[str], slow: bool) -> int:
    """Run the checks of one component, print each as it ends, and return how many failed."""
    reason = registry.trouble(entry)
    checks = [] if reason else _checks(registry, entry, settings, skip, slow)
    typer.echo(f"{entry.kind} {entry.name}, from {entry.origin}")
    state = "failed" if reason else "passed"
    failed = _line("loads", "it can be imported, and is what its kind asks for", state, reason)
    for one in checks:
        found: Outcome = one.outcome()
        failed += _line(found.name, found.promise, found.state, found.reason)
    return failed


def _checks(
    registry: Registry[Any], entry: Entry, settings: dict[str, Any], skip: list[str], slow: bool
) -> list[Check]:
    from gancompress.testing import checks

    given = []
    if hasattr(registry.base(), "Config"):
        _refuse_settings(registry, entry, settings)
        given.append(settings)
    elif settings:
        raise RecipeError(f"--set: {entry.kind} {entry.name!r} has no settings")
    try:
        return checks(entry.name, *given, kind=entry.kind, skip=skip, slow=slow)
    except ValueError as error:
        raise RecipeError(f"--skip: {error}") from None


def _refuse_settings(registry: Registry[Any], entry: Entry, settings: dict[str, Any]) -> None:
    """Refuse settings that the component does not have or cannot take, rather than fail every check for them.

    Raises:
        RecipeError: naming the first one.
    """
    from pydantic import ValidationError

    from gancompress.errors import did_you_mean

    config = registry.get(entry.name).Config
    try:
        config(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise RecipeError(
                f"{entry.kind} {entry.name!r} needs a setting: give it with --set {where}=VALUE"
            ) from None
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(where, config.model_fields)
            raise RecipeError(f"--set: {entry.kind} {entry.name!r} has no setting {where!r}{hint}") from None
        raise RecipeError(f"--set {where}: {first['msg']}") from None


def _line(name: str, promise: str, state: str, reason: str) -> int:
    hue = {"passed": "green", "failed": "red", "skipped": "yellow"}[state]
    word = f"{state:<7}"
    typer.echo(f"  {typer.style(word, fg=hue) if color() else word}  {name:<24}  {promise}")
    if reason:
        typer.echo(f"{'':35}{reason}")
    return int(state == "failed")


# --------------------------------------------------------------------------- new


def new(
    name: Annotated[str, typer.Argument(help="Name of the package, such as my-method.", metavar="NAME")],
    kind: Annotated[NewKind, typer.Option("--kind", help="What it adds.")] = NewKind.method,
    out: Annotated[Path, typer.Option("--out", help="Directory that the new one goes into.")] = Path(),
) -> None:
    """Write a package for a component of your own, which passes its own tests at once.

    Example: gancompress plugins new my-method
    """
    from gancompress.scaffold.package import scaffold

    if not out.is_dir():
        raise RunError("there is no such directory", where=f"--out {out}")
    written = scaffold(name, kind.value, out)
    for path in written:
        typer.echo(f"written: {path}")
    typer.echo(f"next: cd {out / name} && pip install -e '.[test]' && pytest")


add_command("list", list_, to=plugins)
add_command("check", check, to=plugins)
add_command("new", new, to=plugins, plugins=False)
