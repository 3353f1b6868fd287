"""A page in headless Chromium, over its debugging protocol: what it shows, says and asks for."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


class Socket:
    """As much of a WebSocket (RFC 6455) as the protocol needs: whole texts, one after the other."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        self._connection.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._stream = self._connection.makefile("rb")
        while self._stream.readline().strip():
            pass

    def send(self, text: str) -> None:
        content, mask = text.encode(), os.urandom(4)
        size = len(content)
        head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFF]) + size.to_bytes(8, "big")
        self._connection.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(content)))

    def receive(self) -> str:
        whole = b""
        while True:
            first, second = self._stream.read(2)
            size = second & 127
            if size > 125:
                size = int.from_bytes(self._stream.read(2 if size == 126 else 8), "big")
            whole += self._stream.read(size)
            if first & 0x80:
                return whole.decode()

    def close(self) -> None:
        self._stream.close()
        self._connection.close()


class Page:
    """A page that was opened from the disk, in a browser of its own.

    Attributes:
        errors: what went to the console as an error, and exceptions.
        requests: addresses that were asked for, the page's own first.
    """

    def __init__(self, folder: Path, file: Path) -> None:
        assert CHROMIUM is not None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._browser = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._browser.stderr is not None
        address = next(
            found[1] for line in self._browser.stderr if (found := re.search(r"listening on (ws://\S+)", line))
        )
        self._socket, self._number, self._session = Socket(address), 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{part}.enable")
        self.call("Page.navigate", url=file.as_uri())
        self.evaluate("new Promise((done) => document.readyState === 'complete' ? done() : onload = done)")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = json.loads(self._socket.receive())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._see(answer.get("method"), answer.get("params", {}))

    def _see(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", told)))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(str(told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])

    def evaluate(self, code: str) -> Any:
        """Return what an expression gives, awaited."""
        found = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()
        self._browser.terminate()
        self._browser.wait(30)
        if self._browser.stderr is not None:
            self._browser.stderr.close()
