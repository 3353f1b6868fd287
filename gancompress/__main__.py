"""``python -m gancompress``."""

from __future__ import annotations

import os
import sys

# Python puts the working directory first on the path: files beside a recipe would be imported in place of libraries.
try:
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]
except OSError:  # the directory is gone, and all that could be imported from it
    pass

from gancompress.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
