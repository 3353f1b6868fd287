"""Files that appear whole or not at all, and where what can be made again is kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from gancompress.storage import atomic
from gancompress.storage.atomic import whole_file, write_file
from gancompress.storage.cache import cache_directory


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and directories that were put on the disk, in order."""
    names: list[str] = []
    opened: dict[int, str] = {}
    really_open = os.open

    def remembered(path: str | Path, *arguments: int) -> int:
        descriptor = really_open(path, *arguments)
        opened[descriptor] = Path(path).name
        return descriptor

    monkeypatch.setattr(os, "open", remembered)
    monkeypatch.setattr(os, "fsync", lambda descriptor: names.append(opened[descriptor]))
    return names


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path: Path, synced: list[str]) -> None:
    path = tmp_path / "a.zip"
    path.write_text("old")
    with atomic.whole_file(path) as aside:
        assert (aside.parent, aside.name.startswith(atomic.ASIDE)) == (tmp_path, True)
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert synced == [aside.name, tmp_path.name]
    assert os.listdir(tmp_path) == ["a.zip"]


def test_what_was_there_survives_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def interrupted() -> None:
        with atomic.whole_file(path) as aside:
            aside.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(FileNotFoundError), atomic.whole_file(path):
        pass  # nothing was written
    assert (os.listdir(tmp_path), path.read_text()) == (["a"], "old")


@pytest.mark.skipif(os.name != "posix", reason="locks as on POSIX")
def test_what_a_dead_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    (tmp_path / ".tmp-a.zip-1-2").write_text("of a dead process")
    (tmp_path / ".tmp-b.zip-1-2").write_text("of a dead process, another file")
    with atomic.whole_file(tmp_path / "a.zip") as mine:
        mine.write_text("mine")
        assert sorted(os.listdir(tmp_path)) == sorted([mine.name, ".tmp-b.zip-1-2"])
        assert atomic.sweep(tmp_path) == [".tmp-b.zip-1-2"]
        assert mine.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.zip"]
    assert atomic.sweep(tmp_path / "missing") == []


def test_a_directory_gets_its_name_with_all_that_is_in_it(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "aside" / "deep").mkdir(parents=True)
    (tmp_path / "aside" / "deep" / "file").write_text("x")
    atomic.put_in_place(tmp_path / "aside", tmp_path / "set")
    assert (tmp_path / "set" / "deep" / "file").read_text() == "x"
    assert synced == [tmp_path.name]


def test_one_of_many_files_is_whole_and_left_to_be_synced(tmp_path: Path, synced: list[str]) -> None:
    with atomic.whole_file(tmp_path / "a", one_of_many=True) as aside:
        aside.write_text("x")
    assert (os.listdir(tmp_path), synced) == (["a"], [])


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("~/mine", "/shared", "HOME/mine"),
        ("/mine", None, "/mine"),
        (None, "~/shared", "HOME/shared/gancompress"),
        (None, "/shared", "/shared/gancompress"),
        (None, None, "HOME/.cache/gancompress"),
        ("", "", "HOME/.cache/gancompress"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str | None, shared: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("GANCOMPRESS_CACHE", own), ("XDG_CACHE_HOME", shared)):
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    assert cache_directory() == Path(expected.replace("HOME", str(tmp_path)))


def test_a_user_without_a_home_keeps_it_among_the_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GANCOMPRESS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_directory() == Path(tempfile.gettempdir()) / "gancompress"


def test_a_file_without_content_is_written_and_one_that_nobody_wrote_is_not(tmp_path: Path) -> None:
    write_file(tmp_path / "rows.csv", "")
    assert (tmp_path / "rows.csv").read_bytes() == b""
    with pytest.raises(OSError, match="nothing was written"), whole_file(tmp_path / "other"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
