"""Built-in components, found where they are declared and not in a table of names.

A built-in says its name in the line above its class, as a component of a plugin file does::

    @METHODS.register("dst")
    class DST(Method[DSTConfig]): ...

Such lines are found by reading the files of a room, so that knowing every name costs milliseconds and no import.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

__all__ = ["declared"]

_PACKAGE: Final = Path(__file__).resolve().parents[1]


@functools.lru_cache(maxsize=16)
def declared(registry: str, room: str) -> dict[str, str]:
    """Return ``module:Class`` by name of every component that the files of a room declare, in the order of files.

    Args:
        registry: what the declaring line calls the registry, such as ``METHODS``.
        room: folder of the package, such as ``methods`` or ``sparsity/patterns``.
    """
    # other decorators may stand between
    line = re.compile(rf'^@{registry}\.register\("([^"]+)"\)\n(?:@.*\n)*class (\w+)', re.MULTILINE)
    found = {}
    for path in sorted((_PACKAGE / room).glob("*.py")):
        module = ".".join((_PACKAGE.name, *path.relative_to(_PACKAGE).with_suffix("").parts))
        found.update({name: f"{module}:{kind}" for name, kind in line.findall(path.read_text(encoding="utf-8"))})
    return found
