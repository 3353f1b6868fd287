"""Turn Ctrl-C, SIGTERM and a closed terminal into a request that the training loop honours between two steps."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

__all__ = ["ENDS_WITH_STDIN", "Interruption", "end_with_stdin"]

#: set in the environment of a process that is to end when its standard input closes, as it does with its parent
ENDS_WITH_STDIN = "GANCOMPRESS_ENDS_WITH_STDIN"


class Interruption:
    """While entered, the first signal sets :attr:`requested`; a second one raises at once.

    Outside the main thread, where Python allows no handlers, it does nothing. A process that was started to outlive its
    terminal (``nohup``) goes on ignoring that it closes.

    Args:
        heard: called once, when the first signal comes.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self, heard: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._heard = heard
        self._before: dict[int, object] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> Interruption:
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._leave_closed_terminals()
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._heard is not None:
            with contextlib.suppress(OSError):  # nobody can be told that the terminal is closed
                self._heard()

    def _leave_closed_terminals(self) -> None:
        """Write to nowhere what went to a terminal that is gone: each further word would be an error."""
        for descriptor in self._terminals:
            if not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def end_with_stdin() -> None:
    """Send this process SIGTERM when its standard input closes, if its environment asks for it.

    A run in training then writes a checkpoint and ends, however its parent died.
    """
    if os.environ.pop(ENDS_WITH_STDIN, None) is not None:
        threading.Thread(target=_watch_stdin, name="parent", daemon=True).start()


def _watch_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    if os.name != "nt":
        os.kill(os.getpid(), signal.SIGTERM)
    elif signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        os._exit(1)
    else:  # there, os.kill asks nobody
        _thread.interrupt_main(signal.SIGTERM)
