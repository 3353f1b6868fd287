"""``python -m tests.soak``."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = ("kill", "fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    module = importlib.import_module(f"tests.soak.{command}")
    own = argparse.ArgumentParser(
        prog=f"python -m tests.soak {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.options(own)
    code: int = module.run(own.parse_args(sys.argv[2:]))
    return code


if __name__ == "__main__":
    sys.exit(main())
