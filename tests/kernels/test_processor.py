"""What was measured on one CPU is not taken for another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.kernels.measured import _key, processor_key, processor_name

if TYPE_CHECKING:
    from pathlib import Path


def machine(folder: Path, *, family: int, caches: dict[str, str]) -> tuple[Path, Path]:
    folder.mkdir()
    core = f"vendor_id\t: AuthenticAMD\ncpu family\t: {family}\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nstepping\t: 2\n"
    (folder / "cpuinfo").write_text(f"processor\t: 0\n{core}\nprocessor\t: 1\n{core.replace('2', '9')}")
    for index, (level, size) in enumerate(caches.items()):
        cache = folder / "cache" / f"index{index}"
        cache.mkdir(parents=True)
        for name, value in (("level", level[0]), ("size", size), ("type", "Instruction" if "i" in level else "Data")):
            (cache / name).write_text(value + "\n")
    return folder / "cpuinfo", folder / "cache"


def test_the_key_holds_name_numbers_and_caches_of_data(tmp_path: Path) -> None:
    caches = {"1": "32K", "1i": "64K", "2": "512K", "3": "32768K"}
    old = _key(*machine(tmp_path / "old", family=25, caches=caches))
    assert old == "AMD EPYC, family 25, model 1, stepping 2, L1 32K, L2 512K, L3 32768K"
    assert _key(*machine(tmp_path / "new", family=26, caches=caches)) != old  # the same name, another generation
    assert _key(*machine(tmp_path / "large", family=25, caches={**caches, "3": "98304K"})) != old


def test_an_unknown_system_has_a_name_and_no_numbers(tmp_path: Path) -> None:
    assert _key(tmp_path / "none", tmp_path / "none")
    assert processor_key().startswith(processor_name())
