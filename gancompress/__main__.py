"""``python -m gancompress``."""

from __future__ import annotations

from gancompress.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
