from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gancompress import __version__
from gancompress.cli import app as shared
from gancompress.cli.main import app, main
from gancompress.errors import RunError
from gancompress.recipe.document import parse_yaml
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import load_recipe, parse_recipe

TINY = """\
name: tiny
data: {name: shapes, images: 64, resolution: 16, classes: 3}
model: {name: dcgan, channels: 8, latent_dim: 8, conditional: true}
sparsity:
  method: static
  density: 0.5
training: {steps: 2}
"""
COMMANDS = [command.name for command in app.registered_commands]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def fails(code: int, *arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return str(result.stderr)


# --------------------------------------------------------------------------- the application


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_in_a_line_that_can_be_pasted(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    last = result.output.rstrip().splitlines()[-1].strip()
    assert last.startswith(f"Example: gancompress {command}")
    assert result.output.count("Example:") == 1
    assert parses(last.removeprefix("Example: gancompress ").split())


def parses(arguments: list[str]) -> bool:
    """Whether the options and arguments of a command line exist; nothing is run."""
    group = typer.main.get_command(app)
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]
    command.make_context(arguments[0], arguments[1:])
    return True


def test_the_help_lists_every_command_uncut() -> None:
    for arguments in ((), ("--help",), ("-h",)):
        output = call(*arguments).output
        assert all(f"  {command} " in output for command in COMMANDS)
        assert "..." not in output.partition("Commands:")[2]
        assert output.rstrip().splitlines()[-1].strip() == "Example: gancompress run quickstart"


def test_version() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert result.output.startswith(f"gancompress {__version__} (torch ")


def test_unknown_commands_and_options_are_usage_errors() -> None:
    assert "No such command 'trian'" in fails(2, "trian")
    assert "No such option" in fails(2, "ls", "--nope")


def boom(error: BaseException) -> typer.Typer:
    """Return an application like ours with one command that fails."""
    other = typer.Typer(cls=app.info.cls, pretty_exceptions_enable=False)

    @other.callback()
    def options(debug: bool = False) -> None: ...

    @other.command("boom")
    def command() -> None:
        raise error

    return other


CPU_FULL = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 819200000000 bytes. Error code 12 (Cannot allocate memory)"
)
LESS = "lower training.batch_size or model.channels"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunError("no such run", where="runs/x"), 2, "runs/x: no such run\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("interrupted; step 7 is kept"), 130, "interrupted; step 7 is kept\n"),
        (RuntimeError(CPU_FULL), 1, f"not enough memory: asked for 819.2 GB; {LESS}\n"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU"), 1,
         f"not enough memory: asked for 21.47 GB; {LESS}\n"),
        (MemoryError(), 1, f"not enough memory; {LESS}\n"),
        (MemoryError("Unable to allocate 512. KiB for an array"), 1,
         f"not enough memory: asked for 524.3 kB; {LESS}\n"),
        (OSError(28, "No space left", "runs/x/log"), 1, "runs/x/log: No space left; see --debug\n"),
        (PermissionError(13, "Permission denied"), 2, "Permission denied; see --debug\n"),
    ],
    ids=["ours", "ctrl-c", "ctrl-c in a run", "memory", "gpu", "python", "numpy", "disk", "permission"],
)  # fmt: skip
def test_errors_are_one_clean_line(error: BaseException, code: int, text: str) -> None:
    result = CliRunner().invoke(boom(error), ["boom"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, text, "")


def test_debug_and_bugs_keep_their_traceback() -> None:
    mine = RunError("no such run")
    assert CliRunner().invoke(boom(mine), ["--debug", "boom"]).exception is mine
    for bug in (ZeroDivisionError("a bug"), RuntimeError("another bug")):
        assert CliRunner().invoke(boom(bug), ["boom"]).exception is bug
    full = RuntimeError(CPU_FULL)
    assert CliRunner().invoke(boom(full), ["--debug", "boom"]).exception is full


def test_debug_may_stand_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    from gancompress.errors import RecipeError

    with pytest.raises(SystemExit) as ended:
        main(["show", "nothing-like-it"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("no recipe 'nothing-like-it'")
    with pytest.raises(RecipeError):
        main(["show", "nothing-like-it", "--debug"])


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert shared.color(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert not shared.color(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not shared.color(Terminal())


def test_it_is_a_program(here: Path) -> None:
    root = str(Path(shared.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-m", "gancompress", "validate", "x.yaml"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=here,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("no recipe 'x.yaml'")
    assert len(done.stderr.splitlines()) == 1


def test_files_of_the_working_directory_are_data(here: Path) -> None:
    """Neither modules nor installations: what lies beside a stranger's recipe is never run."""
    for name in ("jinja2", "yaml", "torch", "typer", "submitit", "stranger"):
        (here / f"{name}.py").write_text(f"open('ran-{name}', 'w').close()\n")
    info = here / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gancompress.methods]\nstranger = stranger:Method\n")
    root = str(Path(shared.__file__).parents[2])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"} | {"PYTHONPATH": root}
    listing = "import gancompress; print('stranger' in gancompress.METHODS.names())"  # as a notebook does
    for arguments in (["-m", "gancompress", "plugins", "list", "--kind", "method"], ["-c", listing]):
        for module in ("typer", "torch", "yaml", "jinja2") if arguments[0] == "-c" else ():
            (here / f"{module}.py").unlink()
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=here
        )
        assert done.returncode == 0, done.stderr
        assert "stranger" not in done.stdout
    assert not list(here.glob("ran-*"))


# --------------------------------------------------------------------------- show


def test_show_writes_a_recipe_that_loads_to_the_same_run(here: Path) -> None:
    (here / "tiny.yaml").write_text(TINY)
    original = load_recipe("tiny.yaml", ("seed=3",)).recipe
    for extra in ((), ("--defaults",)):
        result = call("show", "tiny.yaml", "--set", "seed=3", *extra)
        assert result.exit_code == 0
        assert result.output.startswith(f"# runs/tiny-{run_id(original)}\n")
        assert parse_recipe(result.output).recipe == original
        assert ("batch_size" in result.output) == bool(extra)


def test_show_prints_the_schema_for_editors() -> None:
    schema = json.loads(call("show", "--schema").output)
    assert schema["properties"]["seed"]["type"] == "integer"


def test_show_what() -> None:
    assert fails(2, "show") == "show what? give a recipe, or --schema\n"
    assert "did you mean 'quickstart'" in fails(2, "show", "quikstart")


# --------------------------------------------------------------------------- ls and cp


def test_ls_lists_recipes_and_runs(here: Path) -> None:
    alone = call("ls").output
    assert "quickstart" in alone
    assert "Runs" not in alone
    run = here / "runs" / "a-1234"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(TINY)
    (run / "status.json").write_text(json.dumps({"state": "failed", "reason": "out of luck", "id": "1234"}))
    (run / "metrics.json").write_text(json.dumps({"best": {"metrics": [{"label": "FD[x]", "value": 12.3456}]}}))
    (run / "log.jsonl").write_text('{"kind": "train", "step": 1500}\n')
    broken = here / "runs" / "b-5678"
    broken.mkdir()
    (broken / "recipe.yaml").write_text("[")
    (broken / "status.json").write_text("{")
    output = call("ls").output
    line = next(line for line in output.splitlines() if line.startswith("a-1234"))
    assert line.split() == ["a-1234", "failed", "1,500", "FD[x]", "12.35", "out", "of", "luck"]
    assert "b-5678" in output
    assert "a-1234" in call("ls", "--out", "runs").output
    of_directory = call("ls", "runs").output
    assert "a-1234" in of_directory
    assert "Recipes" not in of_directory
    (here / "empty").mkdir()
    assert "there are no runs in this directory" in fails(2, "ls", "empty")
    assert "Runs" not in call("ls", "--out", "elsewhere").output


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("RecipeError: density: too low", "density: too low"),
        ("InvalidRecipeError: x.yaml:1:1: a\nx.yaml:2:1: b", "x.yaml:1:1: a x.yaml:2:1: b"),
        ("IndexError: list index out of range", "IndexError: list index out of range"),
        ("stopped by a signal; run it again", "stopped by a signal; run it again"),
        ("annotations: no class of ours", "annotations: no class of ours"),
    ],
)
def test_notes_of_ls_have_no_names_of_our_errors(here: Path, reason: str, shown: str) -> None:
    run = here / "runs" / "a-1234"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(TINY)
    (run / "status.json").write_text(json.dumps({"state": "failed", "reason": reason, "id": "1234"}))
    assert call("ls").output.splitlines()[-1].split("  ")[-1].strip() == shown


def test_cp_never_overwrites_unasked(here: Path) -> None:
    assert call("cp", "quickstart").exit_code == 0
    copy = here / "quickstart.yaml"
    assert load_recipe(copy).recipe == load_recipe("quickstart").recipe
    assert call("cp", "quickstart").exit_code == 0  # the same again overwrites nothing
    copy.write_text("mine")
    assert fails(2, "cp", "quickstart") == "quickstart.yaml: already there; choose another name or use --force\n"
    assert copy.read_text() == "mine"
    assert call("cp", "quickstart", "--force").exit_code == 0
    assert copy.read_text() != "mine"
    (here / "sub").mkdir()
    for destination, made in (("sub", "sub/quickstart.yaml"), ("sub/mine.yaml", "sub/mine.yaml")):
        assert call("cp", "quickstart.yaml", destination).exit_code == 0
        assert (here / made).is_file()
    assert fails(2, "cp", "quickstart", "no/where.yaml") == "no/where.yaml: there is no directory no\n"
    assert "did you mean 'quickstart'" in fails(2, "cp", "quickstrat")


def test_what_cp_copied_needs_no_other_file(here: Path) -> None:
    from gancompress.recipe.shipped import shipped_names

    for name in shipped_names():
        assert call("cp", name).exit_code == 0
        assert load_recipe(here / f"{name}.yaml").recipe == load_recipe(name).recipe


# --------------------------------------------------------------------------- sample and evaluate


class Opened:
    """Stands in for a finished run and keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.overrides: tuple[str, ...] = ()
        self.recipe = SimpleNamespace(smoke=False)

    def open(self, path: Path, overrides: tuple[str, ...] = ()) -> Opened:
        self.overrides = overrides
        return self

    def sample(self, out: Path, **asked: Any) -> Path:
        self.asked = {"out": out, **asked}
        return out

    def evaluate(self, step: str, observer: Any) -> tuple[Path, list[dict[str, Any]]]:
        metric = {"name": "fd", "label": "FD", "value": 1.5, "std": None, "higher_is_better": False, "protocol": "p"}
        return Path("evaluations/x.json"), [metric]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    run = Opened()
    monkeypatch.setattr("gancompress.experiment.finished.open_run", run.open)
    return run


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ((), "samples.png"),
        (("--class", "3"), "samples-class-3"),
        (("--class", "3", "--out", "threes.zip"), "threes.zip"),
        (("--out", "digits-v0.2"), "digits-v0.2"),
        (("--out", "there.jpg"), "there.jpg"),  # a directory that is there
    ],
)
def test_where_samples_go(here: Path, opened: Opened, arguments: tuple[str, ...], out: str) -> None:
    (here / "there.jpg").mkdir()
    result = call("sample", "run", *arguments)
    assert result.exit_code == 0, result.output
    assert opened.asked["out"] == Path(out)


@pytest.mark.parametrize(("classes", "known"), [(10, "0 to 9"), (0, "none: the generator is unconditional")])
def test_a_class_that_is_not_there_is_a_usage_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, classes: int, known: str
) -> None:
    from gancompress.experiment.finished import OpenedRun

    network = SimpleNamespace(latent_dim=8, num_classes=classes)
    monkeypatch.setattr(OpenedRun, "generator", lambda self, step: network)
    run: Any = None
    monkeypatch.setattr("gancompress.experiment.finished.open_run", lambda path: OpenedRun(run, run))
    assert fails(2, "sample", "run", "--class", "10") == f"there is no class 10; known: {known}\n"


@pytest.mark.parametrize("out", ["s.jpg", "s.PNG", "s.tar"])
def test_unknown_endings_are_refused(opened: Opened, out: str) -> None:
    assert fails(2, "sample", "run", "--out", out).startswith(f"{out}: unknown ending '.{out[2:]}'; end in .png")
    assert opened.asked == {}


def test_the_protocol_is_changed_with_or_without_its_section(opened: Opened) -> None:
    result = call("evaluate", "run", "--set", "samples=60", "--set", "evaluation.seed=1")
    assert opened.overrides == ("evaluation.samples=60", "evaluation.seed=1")
    assert result.stdout.splitlines() == ["FD  1.5", "protocol: p", "written: evaluations/x.json"]
    opened.recipe.smoke = True
    assert call("evaluate", "run").stdout.splitlines()[0] == "smoke run: the numbers mean nothing"


# --------------------------------------------------------------------------- progress


def test_a_line_that_says_nothing_new_is_not_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    from gancompress.progress import Lines

    lines = Lines(interval=0.0)
    for done in (8, 9, 9, 9):  # trained, but not measured yet
        lines.show(f"tiny {done}/9", done, 9)
    assert capsys.readouterr().err.splitlines() == ["tiny 8/9", "tiny 9/9"]


def test_lines_of_progress_say_the_step_of_their_record(capsys: pytest.CaptureFixture[str]) -> None:
    from gancompress.progress import Lines, RunProgress

    shown = RunProgress(Lines(interval=0.0))
    shown.start("tiny", "runs/tiny-1", 2400, 0)
    shown.step(49, 10.0)
    losses = {"loss_generator": 0.1, "loss_discriminator": 0.2, "density_generator": 0.2, "density_discriminator": 0.5}
    shown.record({"kind": "train", "step": 50, **losses})
    assert capsys.readouterr().err.splitlines()[-1].startswith("step 50/2400  10.0 steps/s  left 3m55s  loss G +0.100")


@pytest.mark.parametrize(
    ("done", "told"),
    [
        (0, "running tiny for 9 steps in runs/tiny-1"),
        (4, "resuming tiny at step 4/9 in runs/tiny-1"),
        (9, "tiny is trained, all 9 steps, in runs/tiny-1"),
    ],
)
def test_the_first_line_says_what_is_left(capsys: pytest.CaptureFixture[str], done: int, told: str) -> None:
    from gancompress.progress import Lines, RunProgress

    RunProgress(Lines()).start("tiny", "runs/tiny-1", 9, done)
    assert capsys.readouterr().err.splitlines() == [told]


# --------------------------------------------------------------------------- validate


def test_validate_walks_through_five_steps(here: Path) -> None:
    (here / "tiny.yaml").write_text(TINY)
    result = call("validate", "tiny.yaml", "--set", "seed=3", "--set", "description=two words")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    steps = [line.split()[:3] for line in lines if line[:1].isdigit()]
    assert steps == [
        ["1/5", "YAML", "ok"],
        ["2/5", "schema", "ok"],
        ["3/5", "components", "ok"],
        ["4/5", "data", "ok"],
        ["5/5", "shapes", "ok"],
    ]
    assert "64 images" in result.output
    assert "density 0.5000" in result.output
    assert lines[-1] == "ready: gancompress run tiny.yaml --set seed=3 --set 'description=two words'"
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("change", "failed", "error"),
    [
        ("steps: 2}", "1/5", "tiny.yaml:8:1: expected ',' or '}'"),
        ("steps: 0", "2/5", "tiny.yaml:7:12: training.steps: must be at least 1, got 0"),
        ("static", "3/5", "tiny.yaml:5:3: sparsity.method.name: unknown method 'statc'; did you mean 'static'?"),
        ("data", "4/5", "nowhere.zip"),
        ("model", "5/5", "conditional"),
    ],
)
def test_validate_names_the_step_that_failed(here: Path, change: str, failed: str, error: str) -> None:
    text = {
        "steps: 2}": TINY.replace("steps: 2}", "steps: 2"),
        "steps: 0": TINY.replace("steps: 2", "steps: 0"),
        "static": TINY.replace("static", "statc"),
        "data": TINY.replace(
            "{name: shapes, images: 64, resolution: 16, classes: 3}", "{name: zip, path: nowhere.zip}"
        ),
        "model": TINY.replace(
            "{name: shapes, images: 64, resolution: 16, classes: 3}", "{name: folder, path: images, resolution: 16}"
        ),
    }[change]
    (here / "images").mkdir()
    from PIL import Image

    for index in range(24):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(here / "images" / f"{index}.png")
    (here / "tiny.yaml").write_text(text)
    result = call("validate", "tiny.yaml")
    assert result.exit_code == 2, result.output
    assert [line[:3] for line in result.stdout.splitlines() if "failed" in line] == [failed]
    assert error in result.stderr
    assert "Traceback" not in result.output


# --------------------------------------------------------------------------- doctor


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_a_network_that_nothing_passes_through_is_refused_before_there_is_a_directory(here: Path, role: str) -> None:
    (here / "tiny.yaml").write_text(TINY)
    settings = ("--set", f"sparsity.{role}.density=0.002", "--set", f"sparsity.{role}.allocation=uniform")
    for command in ("validate", "run"):
        said = fails(2, command, "tiny.yaml", *settings)
        assert f"of the {role} leaves no path from" in said
        assert f"raise sparsity.{role}.density" in said
    assert not (here / "runs").exists()


def test_a_network_that_will_be_pruned_to_nothing_is_refused_before_it_is(here: Path) -> None:
    (here / "tiny.yaml").write_text(TINY)
    settings = (
        "sparsity.density=0.02",
        "sparsity.method={name: magnitude, prune: generator}",
        "sparsity.pattern=channels",
    )
    said = fails(2, "validate", "tiny.yaml", *(part for one in settings for part in ("--set", one)))
    assert "nothing is kept in convs." in said


def test_doctor_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from gancompress.components.registry import METHODS, Entry

    plain = call("doctor")
    for word in ("gancompress", "python", "torch", "device", "sparse kernels", "plugins        none", "GiB free"):
        assert word in plain.output
    bad = Entry("method", "bad", "module_that_is_gone:X", "bad-plugin", "0.1")
    monkeypatch.setattr(METHODS, "_plugins", [bad])
    result = call("doctor")
    assert result.exit_code == 1
    line = next(line for line in result.output.splitlines() if "bad-plugin" in line)
    assert "method bad (bad-plugin 0.1)  <- method 'bad' of bad-plugin 0.1 cannot be loaded" in line
    assert "ModuleNotFoundError" in line


@pytest.mark.parametrize(("cuda", "hip", "build"), [(None, None, "CPU build"), ("12.8", None, "CUDA 12.8 build")])
def test_doctor_says_which_torch_is_installed_and_its_size(
    here: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, hip: str | None, build: str
) -> None:
    import torch

    from gancompress.api.machine import torch_build

    for folder, count in (("torch", 1000), ("torch/lib", 500), ("nvidia/cudnn", 2000), ("numpy", 4000)):
        (here / folder).mkdir(parents=True, exist_ok=True)
        (here / folder / "file").write_bytes(b"x" * count)
    monkeypatch.setattr(torch, "__file__", str(here / "torch" / "__init__.py"))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert torch_build() == f"{build}, 3.5 kB on disk"


def test_documents_of_the_tests_are_what_they_seem() -> None:
    assert parse_yaml(TINY, "x").data["sparsity"] == {"method": "static", "density": 0.5}


def test_a_narrow_terminal_cuts_no_name_and_leaves_out_what_can_be_spared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared, "color", lambda: True)
    name, sentence = "a-name-of-thirty-characters-x1", "a sentence that is longer than thirty characters"
    table = (("recipe", "steps", "data", "what it is"), [(name, "3,600", "digits [real]", sentence)])
    wide = len(name) + 2 + len("3,600") + 2 + len("digits [real]") + 2 + 30

    def shown(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        shared.print_table("Recipes", *table, spare=("steps", "data"))
        return capsys.readouterr().out

    assert "3,600" in shown(wide)
    assert "wider" not in shown(wide)
    one_less = shown(wide - 1)
    assert name in one_less
    assert "digits [real]" in one_less
    assert "3,600" not in one_less
    assert "(a wider terminal also shows: steps)" in one_less
    assert name in shown(40)
    assert "(a wider terminal also shows: steps, data)" in shown(62)
