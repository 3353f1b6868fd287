"""``gancompress doctor``: what this machine has, and what is wrong with it."""

from __future__ import annotations

import typer

from gancompress.cli.app import color

__all__ = ["doctor"]


def doctor() -> None:
    """Show versions, devices, kernels, plugins and disk space; exits 1 when something needs mending.

    Example: gancompress doctor
    """
    from gancompress import api

    findings = api.doctor()
    for one in findings:
        line = f"{one.name:<14} {one.value}{f'  <- {one.trouble}' if one.trouble else ''}"
        typer.secho(line, fg="yellow" if one.trouble and color() else None)
    if any(one.trouble for one in findings):
        raise typer.Exit(1)
