"""Signals, closed terminals and dead parents: a run hears them between two steps."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gancompress.experiment.interrupt import ENDS_WITH_STDIN, Interruption

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in Interruption.SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have started them with nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_asks_and_the_second_stops(name: str) -> None:
    number, heard = getattr(signal, name), []
    with Interruption(lambda: heard.append(name)) as interruption:
        assert not interruption.requested
        signal.raise_signal(number)
        assert interruption.requested
        assert heard == [name]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_what_was_started_to_outlive_its_terminal_does() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert not interruption.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_nobody_to_tell_does_not_keep_a_run_from_stopping() -> None:
    def closed() -> None:
        raise OSError("the terminal is gone")

    with Interruption(closed) as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.requested


WAITER = """
import os, signal, sys
from gancompress.experiment.interrupt import Interruption, end_with_stdin
end_with_stdin()
with Interruption() as interruption:
    os.write(int(sys.argv[1]), b"ready")
    while not interruption.requested:
        signal.pause()
    print("words that a closed terminal cannot take", flush=True)
    os.write(int(sys.argv[1]), b"asked")
"""


def test_a_child_hears_that_its_parent_is_gone() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WAITER, "1"],
        env={**os.environ, ENDS_WITH_STDIN: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.read(5) == b"ready"
        child.stdin.close()  # as the system does for whoever dies
        assert b"asked" in child.stdout.read()
    assert child.returncode == 0


def test_a_terminal_that_closes_stops_a_run_in_an_orderly_way() -> None:
    mine, its = pty.openpty()
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(write)],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        start_new_session=True,
        pass_fds=[write],
    )
    os.close(its)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        assert said.read(5) == b"ready"
        os.close(mine)
        child.send_signal(signal.SIGHUP)  # it is not the terminal's own session: the system tells nobody
        assert said.read(5) == b"asked"
    assert child.wait() == 0
