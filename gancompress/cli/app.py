"""What every command shares: how errors are shown, the global options, the end of each help text."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gancompress.errors import GancompressError, RecipeError, exit_code

__all__ = [
    "PluginOption",
    "RecipeArgument",
    "SetOption",
    "SmokeOption",
    "add_command",
    "app",
    "color",
    "fail",
    "group",
    "key_values",
    "memory_words",
    "print_table",
    "with_plugins",
]

#: exit code of a run that Ctrl-C stopped
INTERRUPTED = 130

RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="A recipe file, a run directory, or the name of a shipped recipe; @VARIANT chooses a row of it.",
        metavar="RECIPE",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. --set training.steps=500. Repeatable."),
]
SmokeOption = Annotated[
    bool,
    typer.Option("--smoke", help="See the whole recipe work in a minute: tiny networks, generated images, no numbers."),
]

PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Python file that registers components of your own. Repeatable."),
]


def color(stream: Any = None) -> bool:
    """Whether ``stream`` (standard output by default) shows colours: a terminal whose user did not say no."""
    stream = sys.stdout if stream is None else stream
    return bool(stream.isatty()) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def fail(message: str) -> None:
    """Print an error the way every command does: on standard error, in red on a terminal, nothing around it."""
    rank = os.environ.get("RANK", "0")
    if rank != "0" and "WORLD_SIZE" in os.environ:
        message = f"rank {rank}: {message.removeprefix(f'rank {rank} ')}"
    with contextlib.suppress(OSError):  # nobody reads it: the exit code says it still
        typer.secho(message, fg="red" if color(sys.stderr) else None, err=True)


_ASKED = re.compile(r"allocate ([\d.]+) ?(bytes|B|[KMGT]i?B)\b")
_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_words(message: str) -> str:
    """Return what to say of memory that could not be had.

    Args:
        message: what torch or numpy said; may be empty.
    """
    found, asked = _ASKED.search(message), ""
    if found is not None:
        from gancompress.units import size

        asked = f": asked for {size(float(found[1]) * _BYTES.get(found[2][0], 1))}"
    return f"not enough memory{asked}; lower training.batch_size or model.channels"


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch is not imported to know its error, and its CPU allocator has none of its own."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


class _Group(TyperGroup):
    """Turns the user's own mistakes into a line of text and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with ``--debug`` every error keeps its traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if ctx.params.get("debug"):
                raise
            # A run that was interrupted between two steps says what it kept.
            fail(str(error) or "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except GancompressError as error:
            if ctx.params.get("debug"):
                raise
            fail(str(error))
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:  # `gancompress ls | head`: typer ends quietly
            raise
        except OSError as error:
            # Not ours and not a bug: a full disk, a directory that may not be written to.
            if ctx.params.get("debug") or error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            fail(f"{where}{error.strerror}; see --debug")
            raise typer.Exit(exit_code(error)) from None
        except (MemoryError, RuntimeError) as error:
            if ctx.params.get("debug") or not _lacks_memory(error):
                raise
            fail(memory_words(str(error)))
            raise typer.Exit(1) from None


app = typer.Typer(
    name="gancompress",
    cls=_Group,
    help="Train sparse GANs from scratch, and know what they cost and how good they are.",
    epilog="Example: gancompress run quickstart",
    # No rich at module level: it would be most of the time that `--help` takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if not asked:
        return
    from importlib import metadata

    from gancompress import __version__

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "not installed"
    typer.echo(f"gancompress {__version__} (torch {torch})")
    raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Collection[str] = ()
) -> None:
    """Print a table; without a terminal its lines are never cut, so that other programs can read them.

    Args:
        title: what stands above it.
        header: names of the columns.
        rows: texts, as many as there are columns. The first, a name that will be typed, is never cut.
        spare: columns that a terminal too narrow for all of them shows last; the first of them goes first.
    """
    if color():
        from rich.console import Console
        from rich.table import Table

        console = Console()
        shown = _fitting(header, rows, spare, console.width)
        table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for index in shown:
            right = header[index] in ("steps", "step", "variants")
            table.add_column(header[index], justify="right" if right else "left", no_wrap=index == 0)
        for row in rows:
            table.add_row(*(row[index].replace("[", r"\[") for index in shown))
        console.print(table)
        if len(shown) < len(header):
            left = ", ".join(column for index, column in enumerate(header) if index not in shown)
            console.print(f"(a wider terminal also shows: {left})", style="dim")
        return
    from gancompress.report.shown import aligned

    for line in (title, *aligned([header, *rows])):
        typer.echo(line)


def _fitting(header: Sequence[str], rows: Sequence[Sequence[str]], spare: Collection[str], width: int) -> list[int]:
    """Return the columns to show in ``width`` characters: the last one, of sentences, gets at least 30 of them."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]
    shown = list(range(len(header)))
    for column in spare:
        needed = sum(widths[index] + 2 for index in shown[:-1]) + min(30, widths[shown[-1]])
        if needed > width and column in header:
            shown.remove(header.index(column))
    return shown


def with_plugins(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--plugin``; the files are loaded before it does anything else."""

    @functools.wraps(function)
    def command(*arguments: Any, plugin_files: list[Path] | None = None, **options: Any) -> Any:
        if plugin_files:
            from gancompress.components.plugins import load_plugin

            for file in plugin_files:
                load_plugin(file)
        return function(*arguments, **options)

    # typer reads the signature as it stands, so nothing in it may be a string any more
    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("plugin_files", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=PluginOption)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), option]
    )
    return command


def key_values(option: str, items: Iterable[str], example: str) -> dict[str, Any]:
    """Read the ``KEY=VALUE`` of an option, values in YAML.

    Raises:
        RecipeError: one is none, or its value is no YAML.
    """
    from gancompress.recipe.document import parse_value

    settings = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise RecipeError(f"{option} {item!r}: expected KEY=VALUE, such as {example}")
        settings[key] = parse_value(value, f"{option} {item}")
    return settings


def group(name: str, help: str, example: str) -> typer.Typer:
    """Return a command that holds others, with its help text and a line that can be pasted."""
    return typer.Typer(
        name=name,
        help=help,
        short_help=help,
        epilog=f"Example: {example}",
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def add_command(name: str, function: Callable[..., Any], *, to: typer.Typer = app, plugins: bool = True) -> None:
    """Add a command to the application, or to a group of it.

    Args:
        name: what the user types.
        function: typer command. Its docstring is the help text and must end in a paragraph ``Example: …``, a line
            that can be pasted, which is set apart at the end of the help.
        to: what it is added to.
        plugins: it takes ``--plugin``.
    """
    text, _, example = inspect.cleandoc(function.__doc__ or "").rpartition("\n\nExample: ")
    # The summary is given whole: left to itself the list of commands would cut it short.
    register = to.command(name, help=text, short_help=text.partition("\n")[0], epilog=f"Example: {example}")
    register(with_plugins(function) if plugins else function)
