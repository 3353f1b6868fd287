"""The packages in ``plugins/``, installed as an outsider would, found by name, trained with and held to the kit."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
SNFS = ["--set", "sparsity.method={name: snfs, every: 2}", "--set", "sparsity.moments=dense"]
QUICK = ["--set", "training.steps=4", "--set", "training.batch_size=4", "--set", "model.channels=8"]


def run(*command: str, environment: dict[str, str], cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        list(command), env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def sources(folder: Path) -> list[Path]:
    """Copies: building writes beside the sources."""
    return [Path(shutil.copytree(package, folder / "sources" / package.name)) for package in PACKAGES]


def own_sources(folder: Path) -> Path:
    """A copy of what a wheel of gancompress is made of, without anything that was built in place."""
    copy = folder / "sources" / "gancompress"
    built = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    for name in ("gancompress", "recipes"):
        shutil.copytree(ROOT / name, copy / name, ignore=built)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def environment(*paths: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GANCOMPRESS", "PIP"))}
    kept |= {"OMP_NUM_THREADS": "1", "GANCOMPRESS_SPARSE": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | ({"PYTHONPATH": os.pathsep.join(map(str, paths))} if paths else {})


def pip(*arguments: str, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", "-q", *arguments, environment=environment(), cwd=cwd)


def train_by_name(python: str, env: dict[str, str], folder: Path) -> None:
    """What a person does after installing: look, train by name, look at the run."""

    def gancompress(*arguments: str, code: int = 0) -> str:
        return run(python, "-m", "gancompress", *arguments, environment=env, cwd=folder, code=code)

    listed = gancompress("plugins", "list", "--plugins").splitlines()
    assert [line.split() for line in listed[2:]] == [
        ["method", "snfs", "gancompress-snfs", "0.1.0", "yes"],
        ["backbone", "r3gan-plugin", "gancompress-r3gan", "0.1.0", "yes"],
    ]
    assert "r3gan_digits" in gancompress("ls")
    # both at once: the recipe that one brings, with the method of the other
    gancompress("train", "r3gan_digits", *QUICK, *SNFS)
    (directory,) = (folder / "runs").iterdir()
    components = json.loads((directory / "plugins.json").read_text())["components"]
    assert [(c["kind"], c["name"], c["from"], c["version"]) for c in components] == [
        ("backbone", "r3gan-plugin", "gancompress-r3gan", "0.1.0"),
        ("method", "snfs", "gancompress-snfs", "0.1.0"),
    ]
    updates = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert {record["step"] for record in updates if record["kind"] == "update"} == {2, 4}


def test_there_are_two_and_they_are_documented() -> None:
    assert [package.name for package in PACKAGES] == ["gancompress-r3gan", "gancompress-snfs"]
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        assert project["name"] == package.name
        assert len((package / "README.md").read_text().splitlines()) > 20
        assert list((package / "tests").glob("test_*.py"))


def test_they_work_beside_the_package(tmp_path: Path) -> None:
    target = tmp_path / "site"
    names = [str(path) for path in sources(tmp_path)]
    pip("install", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), *names, cwd=tmp_path)
    env = environment(target, ROOT)
    train_by_name(sys.executable, env, tmp_path)

    # without them a run says what it was made with
    (directory,) = (tmp_path / "runs").iterdir()
    told = run(
        *(sys.executable, "-m", "gancompress", "show", str(directory)),
        environment={**env, "GANCOMPRESS_PLUGINS": ""},
        cwd=tmp_path,
        code=2,
    )
    assert "'snfs' of gancompress-snfs 0.1.0 is left out by GANCOMPRESS_PLUGINS" in told
    told = run(
        *(sys.executable, "-m", "gancompress", "show", str(directory)),
        environment=environment(ROOT),
        cwd=tmp_path,
        code=2,
    )
    assert "method 'snfs' came from gancompress-snfs 0.1.0: install it" in told
    assert "backbone 'r3gan-plugin' came from gancompress-r3gan 0.1.0: install it" in told


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_passes_its_own_tests(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / package.name)
    command = (sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    run(*command, environment=environment(ROOT), cwd=Path(copy))


@pytest.mark.slow
def test_their_wheels_work_in_a_clean_environment(tmp_path: Path) -> None:
    names = [str(path) for path in (*sources(tmp_path), own_sources(tmp_path))]
    wheels = tmp_path / "wheels"
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), *names, cwd=tmp_path)
    built = sorted(str(path) for path in wheels.glob("*.whl"))
    assert len(built) == len(PACKAGES) + 1

    # an environment of its own, in which torch and its like are looked up where they are: nothing is downloaded
    home = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", str(home), environment=environment(), cwd=tmp_path)
    python = str(home / "bin" / "python")
    (own,) = (home / "lib").glob("python*/site-packages")
    (own / "beside.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip("--python", python, "install", "--no-deps", "--no-index", *built, cwd=tmp_path)

    work = tmp_path / "work"
    work.mkdir()
    # the wheel of gancompress holds all that it needs: modules, recipes, templates of pages, the kernels' source
    where = run(python, "-c", "import gancompress; print(gancompress.__file__)", environment=environment(), cwd=work)
    assert Path(where.strip()).is_relative_to(home)
    run(python, "-m", "gancompress", "run", "quickstart", "--smoke", environment=environment(), cwd=work)
    (first,) = (work / "runs").iterdir()
    assert (first / "report.html").is_file()
    shutil.rmtree(work / "runs")
    train_by_name(python, environment(), work)
    for name, setting in (("snfs", "every=2"), ("r3gan-plugin", "channels=8")):
        told = run(
            *(python, "-m", "gancompress", "plugins", "check", name, "--set", setting),
            environment=environment(),
            cwd=work,
        )
        assert "failed" not in told
        assert told.count("passed") > 10
