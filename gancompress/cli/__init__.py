"""The command line: one file per command, nothing heavy imported before a command runs."""

from __future__ import annotations

__all__: list[str] = []
