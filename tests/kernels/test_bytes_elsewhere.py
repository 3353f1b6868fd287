"""Bytes on machines that are not here: the same result with VNNI emulated, and on arm64 in an emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "gancompress" / "kernels" / "native"
ARM = "aarch64-linux-gnu-g++"


def built(compiler: str, folder: Path, *flags: str) -> Path:
    """Compile the driver with all of the kernels."""
    out = folder / "driver"
    flags = ("-std=c++17", "-O1", "-ffp-contract=fast", "-pthread", "-Wno-psabi", f"-I{NATIVE}", *flags)
    sources = [str(path) for path in (HERE / "bytes_driver.cpp", *sorted(NATIVE.glob("*.cpp")))]
    subprocess.run([compiler, *flags, *sources, "-o", str(out)], check=True)
    return out


def cpu_flags() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def told(*command: str) -> tuple[set[str], str]:
    """Return the instruction sets that ran and the one hash that all of them gave, in four layouts."""
    lines = [line.split() for line in subprocess.check_output(command, text=True).splitlines()]
    assert len({hash_ for _, _, hash_, _ in lines}) == 1, lines
    assert all(int(different) > 1000 for *_, different in lines)
    names = {name for name, *_ in lines}
    assert len(lines) == 4 * len(names)
    return names, lines[0][2]


@pytest.mark.slow  # compiles all kernels
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_instructions_that_are_not_here(tmp_path):
    (tmp_path / "x86").mkdir()
    if "avx2" not in cpu_flags():
        pytest.skip("emulates with AVX2")
    names, wanted = told(str(built("g++", tmp_path / "x86", "-DGC_EMULATED")))
    assert names == {"amx", "avx512vnni", "avx512", "avxvnni", "avx2", "baseline"}
    if shutil.which(ARM) is None or shutil.which("qemu-aarch64") is None:
        pytest.skip(f"needs {ARM} and qemu-aarch64 for arm64")
    (tmp_path / "arm").mkdir()
    names, hash_ = told("qemu-aarch64", str(built(ARM, tmp_path / "arm", "-static")))
    assert names == {"dotprod", "baseline"}
    assert hash_ == wanted


@pytest.mark.slow  # compiles kernels
@pytest.mark.skipif(shutil.which("objdump") is None or shutil.which("g++") is None, reason="needs g++ and objdump")
@pytest.mark.parametrize(
    ("name", "instruction", "register"),
    [
        ("amx", "tdpbsud", "%tmm"),
        ("avx512vnni", "vpdpbusd", "%zmm"),
        ("avxvnni", "vpdpbusd", "%ymm"),
        ("avx512", "vpmaddubsw", "%zmm"),
    ],
)
def test_the_instruction_is_used_and_products_are_rounded(tmp_path, name, instruction, register):
    out = tmp_path / "kernels.o"
    flags = ("-std=c++17", "-O2", "-ffp-contract=fast", "-Wno-psabi", f"-I{NATIVE}")
    subprocess.run(["g++", *flags, "-c", str(NATIVE / f"bytes_{name}.cpp"), "-o", str(out)], check=True)
    code = subprocess.check_output(["objdump", "-d", "--no-show-raw-insn", str(out)], text=True).splitlines()
    assert any(instruction in line and register in line for line in code)
    assert not any("vfmadd" in line or "vfnmadd" in line or "vfmsub" in line for line in code)
