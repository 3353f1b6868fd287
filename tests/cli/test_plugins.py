"""``gancompress plugins`` and the option ``--plugin``, as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

import gancompress
from gancompress.api.machine import Finding, _plugins
from gancompress.cli.main import app
from gancompress.cli.plugins import Kind, NewKind
from gancompress.comparison.runner import cell_command
from gancompress.components.plugins import PLUGIN_RECORD, forget_plugins
from gancompress.components.registry import DATASETS, METHODS, METRICS, REGISTRIES, Entry
from gancompress.scaffold.package import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

MINE = """\
from gancompress import METHODS
from gancompress.methods.static import Static

class Mine(Static):
    '''Static masks under another name.'''

METHODS.register("mine", Mine)
"""
RECIPE = """\
name: tiny
data: {name: shapes, images: 24, resolution: 16}
model: {name: dcgan, channels: 4, latent_dim: 8}
sparsity: {method: mine, density: 0.5}
training: {steps: 2, batch_size: 2, device: cpu}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    yield tmp_path
    forget_plugins()


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


# --------------------------------------------------------------------------- --plugin


def test_a_plugin_file_works_wherever_a_recipe_does() -> None:
    shown = call("show", "tiny.yaml", "--plugin", "mine.py").stdout
    assert "name: mine" in shown
    assert "unknown method 'mine'" in (forget_plugins(), call("show", "tiny.yaml", code=2).stderr)[1]
    validated = call("validate", "tiny.yaml", "--plugin", "mine.py").stdout
    assert "ok      data shapes, model dcgan, loss hinge, method mine" in validated
    assert validated.splitlines()[-1] == "ready: gancompress run tiny.yaml --plugin mine.py"


def test_a_run_remembers_its_plugin_file_and_says_what_is_missing(here: Path) -> None:
    call("train", "tiny.yaml", "--plugin", "mine.py")
    (run,) = (here / "runs").iterdir()
    (record,) = json.loads((run / PLUGIN_RECORD).read_text())["components"]
    assert (record["kind"], record["name"], record["file"]) == ("method", "mine", str(here / "mine.py"))
    forget_plugins()
    for command in (("train", str(run)), ("sample", str(run)), ("show", str(run))):
        lines = call(*command, code=2).stderr.splitlines()
        assert lines[-1] == f"method 'mine' came from a plugin file: add --plugin {here / 'mine.py'}"
    assert "written: samples.png" in call("sample", str(run), "--plugin", "mine.py").stdout


def test_a_run_says_when_its_plugin_file_changed(here: Path) -> None:
    call("train", "tiny.yaml", "--plugin", "mine.py")
    assert "changed since" not in call("train", "tiny.yaml", "--plugin", "mine.py").stderr
    with (here / "mine.py").open("a") as file:
        file.write("\n# another thought\n")
    assert "note: method 'mine' changed since this run began" in (
        call("train", "tiny.yaml", "--plugin", "mine.py").stderr
    )


def test_the_processes_of_a_comparison_load_the_same_files(here: Path) -> None:
    class Folder:
        runs = here

        def recipe_path(self, cell: Any) -> Path:
            return here / "cell.yaml"

    call("show", "tiny.yaml", "--plugin", "mine.py")
    assert cell_command(Folder(), None)[-2:] == ["--plugin", str(here / "mine.py")]  # type: ignore[arg-type]


def test_a_mistake_in_a_plugin_file_is_one_line(here: Path) -> None:
    (here / "bad.py").write_text("import torch\nraise ValueError('no')\n")
    assert call("run", "tiny.yaml", "--plugin", "bad.py", code=2).stderr == (
        "--plugin bad.py:2: cannot be loaded: ValueError: no\n"
    )
    assert not (here / "runs").exists()


# --------------------------------------------------------------------------- list


def test_every_component_is_listed_with_where_it_is_from() -> None:
    lines = call("plugins", "list", "--kind", "method", "--plugin", "mine.py").stdout.splitlines()
    assert lines[0] == "Components"
    rows = [line.split() for line in lines[2:]]
    assert ["method", "dst", "gancompress", gancompress.__version__, "yes"] in rows
    assert ["method", "mine", "mine.py", "-", "yes"] in rows
    assert {row[0] for row in rows} == {"method"}
    assert call("plugins", "list", "--plugins", "--plugin", "mine.py").stdout.count("\n") == 3


def test_what_does_not_load_is_listed_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [
        Entry("method", "bad", "module_that_is_gone:X", "bad-plugin", "0.1"),
        Entry("method", "json", "json:loads", "odd-plugin", "2"),
        Entry("method", "dst", "x:Y", "thief", "1", "has the same name as one of gancompress itself"),
    ]
    monkeypatch.setattr(METHODS, "_plugins", bad)
    out = call("plugins", "list", "--plugins").stdout
    assert "cannot be loaded from module_that_is_gone:X: ModuleNotFoundError: No module named" in out
    assert "cannot be used: json:loads is of type function, not a class" in out
    assert "has the same name as one of gancompress itself" in out
    result = call("plugins", "check", code=1)
    assert result.stdout.count("failed   loads") == 3
    assert "method bad, from bad-plugin 0.1" in result.stdout


def test_what_is_left_out_is_listed_and_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "is left out by GANCOMPRESS_PLUGINS; add its distribution there, or unset the variable"
    monkeypatch.setattr(
        METHODS, "_plugins", [Entry("method", "bad", "module_that_is_gone:X", "bad-plugin", "0.1", told)]
    )
    assert told in call("plugins", "list", "--plugins").stdout
    assert call("plugins", "check").stdout.startswith("no plugins are installed that count")
    assert told in call("plugins", "check", "bad", code=1).stdout
    findings = [found for found in _plugins() if "bad-plugin" in found.value]
    assert findings == [Finding("plugin", "method bad (bad-plugin 0.1), left out by GANCOMPRESS_PLUGINS")]


def test_a_metric_that_does_not_load_is_refused_before_anything_trains(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS, "_plugins", [Entry("metric", "bad", "module_that_is_gone:X", "bad-plugin", "0.1")])
    arguments = ("tiny.yaml", "--plugin", "mine.py", "--set", "evaluation.metrics=[bad]")
    reason = "metric 'bad' of bad-plugin 0.1 cannot be loaded from module_that_is_gone:X: "
    result = call("validate", *arguments, code=2)
    assert [line.split()[:3] for line in result.stdout.splitlines()][-1] == ["3/5", "components", "failed"]
    assert reason in result.stderr
    assert reason in call("run", *arguments, code=2).stderr
    assert not (here / "runs").exists()


def test_without_plugins_it_says_so() -> None:
    assert call("plugins", "list", "--plugins").stdout.startswith("no plugins are installed")
    assert call("plugins", "check").stdout.startswith("no plugins are installed")


# --------------------------------------------------------------------------- check


def test_a_component_is_checked_line_by_line() -> None:
    lines = call("plugins", "check", "fd").stdout.splitlines()
    assert lines[0] == f"metric fd, from gancompress {gancompress.__version__}"
    assert lines[1].split()[:2] == ["passed", "loads"]
    results = [line.split()[:2] for line in lines[1:] if line[2:3].strip()]  # reasons are further in
    assert {result for result, _ in results} == {"passed", "skipped"}
    assert [check for result, check in results if result == "skipped"] == ["of-a-generator"]
    assert any("honest-names" in line for line in lines)
    assert "honest-names" not in call("plugins", "check", "fd", "--skip", "honest-names").stdout


def test_a_broken_component_fails_with_its_reason() -> None:
    from gancompress.evaluation.metrics import FrechetDistance, MetricResult

    class Broken(FrechetDistance):
        def compute(self, real: Any, fake: Any) -> Any:
            return [MetricResult("x", "FID", float("nan"), "lower")]

    with METRICS.registered("broken", Broken):
        out = call("plugins", "check", "broken", code=1).stdout
    assert "failed   documented" in out
    assert "x is nan" in out
    assert "metric broken, from (this program)" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rgl",), "unknown component 'rgl'; did you mean 'rigl'?"),
        (("rgl", "--kind", "backbone"), "unknown backbone 'rgl'; known: "),
        (("rigl", "--set", "evry=2"), "--set: method 'rigl' has no setting 'evry'; did you mean 'every'?"),
        (("rigl", "--set", "every=0"), "--set every: Input should be greater than or equal to 1"),
        (("rigl", "--set", "every"), "--set 'every': expected KEY=VALUE"),
        (("rigl", "--skip", "luck"), "--skip: there is no check 'luck' to skip; there are: documented"),
        (("fd", "--set", "a=1"), "--set: metric 'fd' has no settings"),
        (("zip",), "dataset 'zip' needs a setting: give it with --set path=VALUE"),
        (("--set", "every=2"), "--set and --skip are for one component: give its NAME"),
    ],
)
def test_wrong_requests_are_told(arguments: tuple[str, ...], told: str) -> None:
    assert call("plugins", "check", *arguments, code=2).stderr.startswith(told)


def test_a_plugin_that_needs_settings_keeps_no_other_from_being_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = Entry("dataset", "mine", "gancompress.data.zipped:Zip", "my-data", "1")
    plain = Entry("metric", "mine", "gancompress.evaluation.metrics:FrechetDistance", "my-metric", "1")
    monkeypatch.setattr(DATASETS, "_plugins", [needy])
    monkeypatch.setattr(METRICS, "_plugins", [plain])
    out = call("plugins", "check").stdout
    assert "dataset 'mine' needs a setting: give it with --set path=VALUE" in out
    assert "metric mine, from my-metric 1" in out
    assert call("plugins", "check", "mine", code=2).stderr == (
        "'mine' is a dataset and a metric: choose one with --kind\n"
    )


def test_every_kind_has_a_kit() -> None:
    assert "passed   direction " in call("plugins", "check", "hinge").stdout
    assert "passed   each-by-itself " in call("plugins", "check", "classifier").stdout


# --------------------------------------------------------------------------- new


def own_tests(package: Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(gancompress.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=package,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_kind_can_be_asked_for() -> None:
    assert {kind.value for kind in Kind} == {registry.kind for registry in REGISTRIES.values()}
    assert {kind.value for kind in NewKind} == set(KINDS)
    assert "pattern unstructured" in call("plugins", "check", "unstructured", "--kind", "pattern").stdout


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "metric"])
def test_a_new_package_passes_its_own_tests(here: Path, kind: str) -> None:
    out = call("plugins", "new", f"my-{kind}", "--kind", kind).stdout
    assert out.splitlines()[-1] == f"next: cd my-{kind} && pip install -e '.[test]' && pytest"
    done = own_tests(here / f"my-{kind}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_metric_passes_its_own_tests(here: Path) -> None:
    call("plugins", "new", "gancompress-my-gap", "--kind", "metric")
    text = (here / "gancompress-my-gap" / "pyproject.toml").read_text()
    assert 'my-gap = "gancompress_my_gap:MyGap"' in text
    assert not [p for p in here.rglob("*") if p.is_file() and "@" in p.read_text().replace("@pytest", "")]
    done = own_tests(here / "gancompress-my-gap")
    assert done.returncode == 0, done.stdout + done.stderr


def test_new_packages_are_formatted_and_clean(here: Path) -> None:
    (here / "new").mkdir()
    for kind in KINDS:
        call("plugins", "new", f"my-{kind}", "--kind", kind, "--out", "new")
    for arguments in (("check", "--ignore", "D,I"), ("format", "--check")):
        ruff = [sys.executable, "-m", "ruff", *arguments, "--line-length", "120", "--isolated", "."]
        done = subprocess.run(ruff, cwd=here / "new", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("My_Method",), "'My_Method' is no name for a package: write it like my-method, small letters only"),
        (("../up",), "'../up' is no name for a package"),
        (("dst",), "method 'dst' is already there, from gancompress "),
        (("gancompress-dst",), "method 'dst' is already there, from gancompress "),
        (("torch",), "'torch' is a module of Python or of an installed package; choose another name"),
        (("lambda",), "'lambda' is a module of Python or of an installed package"),
        (("my-method", "--out", "nowhere"), "--out nowhere: there is no such directory"),
    ],
)
def test_names_that_cannot_be_are_refused(here: Path, arguments: tuple[str, ...], told: str) -> None:
    before = sorted(here.rglob("*"))
    assert call("plugins", "new", *arguments, code=2).stderr.startswith(told)
    assert sorted(here.rglob("*")) == before


def test_nothing_is_overwritten(here: Path) -> None:
    call("plugins", "new", "my-method")
    (here / "my-method" / "README.md").write_text("mine")
    assert "is already there" in call("plugins", "new", "my-method", code=2).stderr
    assert (here / "my-method" / "README.md").read_text() == "mine"


def test_a_package_appears_whole_and_what_a_dead_process_left_of_it_goes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancompress.scaffold import package

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(package, "put_in_place", dies)
        call("plugins", "new", "my-method", code=130)
    assert [path.name for path in here.iterdir() if "my-method" in path.name] == [".tmp-my-method"]
    call("plugins", "new", "my-method")
    assert [path.name for path in here.iterdir() if "my-method" in path.name] == ["my-method"]
