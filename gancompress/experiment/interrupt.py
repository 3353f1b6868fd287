"""Turn Ctrl-C and SIGTERM into a request that the training loop honours between two steps."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

__all__ = ["Interruption"]


class Interruption:
    """While entered, the first signal sets :attr:`requested`; a second one raises at once.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Args:
        heard: called once, when the first signal comes.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, heard: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._heard = heard
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._heard is not None:
            self._heard()
