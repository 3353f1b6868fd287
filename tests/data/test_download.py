"""Downloads against a server on this machine that misbehaves in every way that servers do."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import re
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gancompress.data import download as module
from gancompress.data.download import Archive, download, fetch
from gancompress.data.torchvision_sets import CIFAR10, CIFARConfig
from gancompress.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file. Its class attributes say how badly."""

    content = CONTENT
    breaks_after: int | None = None  # bytes that one connection gets
    ranges = True
    status = 200
    seen: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).seen.append(asked)
        if self.status != 200:
            self.send_error(self.status)
            return
        start = int(re.findall(r"\d+", asked)[0]) if asked and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        body = self.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.breaks_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Server]]:
    kind = type("Server", (Server,), {"seen": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=functools.partial(running.serve_forever, poll_interval=0.01))
    thread.start()
    kind.port = running.server_port  # type: ignore[attr-defined]
    yield kind
    running.shutdown()
    thread.join()
    running.server_close()


def archive(server: type[Server], content: bytes = CONTENT) -> Archive:
    url = f"http://127.0.0.1:{server.port}/things.zip"  # type: ignore[attr-defined]
    return Archive("Things", url, len(content), hashlib.md5(content).hexdigest(), "things")


def test_it_says_what_from_where_how_large_and_how_far(server, tmp_path, capsys) -> None:
    download(archive(server), tmp_path / "things.zip")
    assert (tmp_path / "things.zip").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["things.zip"]
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"downloading Things from {archive(server).url} to {tmp_path} (1.049 MB)"
    assert "1.049 MB of 1.049 MB (100%)" in lines[-1]
    assert len(lines) <= 11


def test_a_connection_that_breaks_goes_on_where_it_stopped(server, tmp_path) -> None:
    server.breaks_after = 400_000
    download(archive(server), tmp_path / "things.zip")
    assert (tmp_path / "things.zip").read_bytes() == CONTENT
    assert server.seen == [None, "bytes=400000-", "bytes=800000-"]


def test_what_has_arrived_is_kept_for_the_next_time(server, tmp_path, capsys) -> None:
    (tmp_path / "things.zip.part").write_bytes(CONTENT[:1000])
    server.breaks_after = 0
    with pytest.raises(DataError, match=r"things\.zip: the connection broke off; 1 kB are kept, the next try goes on"):
        download(archive(server), tmp_path / "things.zip")
    assert (tmp_path / "things.zip.part").read_bytes() == CONTENT[:1000]
    server.breaks_after = None
    download(archive(server), tmp_path / "things.zip")
    assert (tmp_path / "things.zip").read_bytes() == CONTENT
    assert server.seen == ["bytes=1000-"] * 4
    assert "1 kB of it here already" in capsys.readouterr().err


def test_a_server_without_ranges_is_asked_for_all_of_it(server, tmp_path) -> None:
    (tmp_path / "things.zip.part").write_bytes(b"x" * 1000)
    server.ranges = False
    download(archive(server), tmp_path / "things.zip")
    assert (tmp_path / "things.zip").read_bytes() == CONTENT
    assert len(server.seen) == 1


def test_a_server_without_ranges_that_breaks_off_is_not_asked_for_ever(server, tmp_path) -> None:
    server.ranges, server.breaks_after = False, 400_000
    with pytest.raises(DataError, match="the connection broke off"):
        download(archive(server), tmp_path / "things.zip")
    assert len(server.seen) == 4
    assert not (tmp_path / "things.zip").exists()


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match=r"sent is not the published Things: its MD5 is [0-9a-f]{32}, not [0-9a-f]{32}"):
        download(archive(server), tmp_path / "things.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"wrong" * 1000, CONTENT + b"more", CONTENT], ids=["wrong", "too long", "whole"])
def test_parts_that_do_not_fit_are_downloaded_again(server, tmp_path, left) -> None:
    (tmp_path / "things.zip.part").write_bytes(left)
    download(archive(server), tmp_path / "things.zip")
    assert (tmp_path / "things.zip").read_bytes() == CONTENT
    assert len(server.seen) == (1 if left == CONTENT else 2)


def test_a_file_that_is_there_is_not_asked_for_again_and_another_one_is_not_replaced(server, tmp_path) -> None:
    (tmp_path / "things.zip").write_bytes(CONTENT)
    download(archive(server), tmp_path / "things.zip")
    (tmp_path / "things.zip").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"things\.zip: is not the Things that http.* offers .*: move it away"):
        download(archive(server), tmp_path / "things.zip")
    assert server.seen == []
    assert (tmp_path / "things.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_a_server_that_refuses_is_named(server, tmp_path, status, requests) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"http://127.*: the server answers {status} "):
        download(archive(server), tmp_path / "things.zip")
    assert len(server.seen) == requests


def test_no_server_at_all(server, tmp_path) -> None:
    closed = Archive("Things", "http://127.0.0.1:9/things.zip", 1, "", "things")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/things\.zip: .*refused"):
        download(closed, tmp_path / "things.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_told_before_anything_is_asked_for(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"Things needs 1\.049 MB, 1 kB are free"):
        download(archive(server), tmp_path / "things.zip")
    assert server.seen == []


def packed(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        for name, data in names.items():
            writer.writestr(name, data)
    return buffer.getvalue()


def test_an_archive_is_unpacked_whole_or_not_at_all_and_removed(server, tmp_path) -> None:
    server.content = packed({"things/a/1.txt": b"one", "../escaped.txt": b"no"})
    root = tmp_path / "data"
    fetch(archive(server, server.content), root, (root / "things").exists)
    assert (root / "things" / "a" / "1.txt").read_bytes() == b"one"
    assert not (tmp_path / "escaped.txt").exists()
    assert {path.name for path in root.iterdir()} == {"things", ".things.zip.lock"}
    fetch(archive(server, server.content), root, (root / "things").exists)
    assert len(server.seen) == 1


def test_what_is_no_archive_leaves_no_folder(server, tmp_path) -> None:
    with pytest.raises(DataError, match=r"things\.zip: cannot be unpacked"):
        fetch(archive(server), tmp_path, lambda: False)
    assert not (tmp_path / "things").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_of_several_processes_one_downloads(server, tmp_path) -> None:
    server.content = packed({"things/1.txt": b"one"})
    ask = functools.partial(fetch, archive(server, server.content), tmp_path, (tmp_path / "things").exists)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.seen) == 1


def test_no_folder_is_made_outside_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("gancompress.data.download.fetch", lambda *_: pytest.fail("begun"))
    for path in (tmp_path / "there" / "deep", "../there"):
        with pytest.raises(DataError, match=r"there.*: no such folder, and none is made outside of the work"):
            CIFAR10(CIFARConfig(path=str(path), download=True))
    assert [place.name for place in tmp_path.iterdir()] == ["here"]
    begun: list[Path] = []
    monkeypatch.setattr("gancompress.data.download.fetch", lambda archive, root, ready: begun.append(root))
    with pytest.raises(DataError, match="not as published"):
        CIFAR10(CIFARConfig(path="data", download=True))
    assert begun == [Path("data")]
