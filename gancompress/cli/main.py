"""``gancompress``: the commands and the way in."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gancompress.cli.app import add_command, app
from gancompress.cli.bench import bench
from gancompress.cli.catalogue import cp, ls
from gancompress.cli.compare import compare
from gancompress.cli.compress import compress
from gancompress.cli.data import data
from gancompress.cli.doctor import doctor
from gancompress.cli.evaluate import evaluate
from gancompress.cli.export import export
from gancompress.cli.plugins import plugins
from gancompress.cli.push import push
from gancompress.cli.run import run, train
from gancompress.cli.sample import sample
from gancompress.cli.show import show
from gancompress.cli.validate import validate
from gancompress.experiment.interrupt import end_with_stdin

__all__ = ["app", "main"]

add_command("run", run)
add_command("train", train)
add_command("compare", compare)
add_command("compress", compress)
add_command("evaluate", evaluate)
add_command("sample", sample)
add_command("export", export)
add_command("push", push)
add_command("validate", validate)
add_command("ls", ls, plugins=False)
add_command("cp", cp, plugins=False)
add_command("show", show)
add_command("doctor", doctor, plugins=False)
app.add_typer(plugins)
app.add_typer(data)
app.add_typer(bench)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        argv: the arguments after the program's name; by default those it was started with.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # no process started from here imports files of the working directory
    end_with_stdin()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # `--debug` is wanted after something failed, and then it is typed at the end of the same line.
    if "--debug" in arguments[1:]:
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    app(args=arguments, prog_name="gancompress")
