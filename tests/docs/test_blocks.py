"""Every block of code in the documentation is parsed, checked and run; ``blocks.py`` says how."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from blocks import (
    LANGUAGES,
    PLACEHOLDER,
    ROOT,
    Block,
    blocks,
    commands,
    gancompress_arguments,
    inline_commands,
    pages,
    parse,
)
from typer.testing import CliRunner

import gancompress
from gancompress import api as front
from gancompress.api import commands as api
from gancompress.api.networks import is_foreign
from gancompress.cli.main import app
from gancompress.components.plugins import forget_plugins
from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES = pages()
WITH_CODE = [page for page in PAGES if any(block.language in ("bash", "python") for block in blocks(page))]
#: programs that ``.ci/run`` runs, and no test
LEFT_TO_CI = ("pip", "pytest")
SMALL = {
    "run": ["--smoke"],
    "train": ["--smoke"],
    "compress": ["--steps", "2"],
    "evaluate": ["--set", "samples=20", "--set", "batch_size=20"],
    "compare": ["--dry-run"],
}
#: what the slow suite appends to ``compare``, to see it through
SHORT = (
    "training.steps=12", "training.log_every=4", "training.batch_size=4", "model.channels=8",
    "evaluation.every=6", "evaluation.samples=20", "evaluation.batch_size=20",
)  # fmt: skip


#: pages that the site's build writes
MADE = {
    "reference/recipe.md",
    "reference/cli.md",
    "guides/notebook.md",
    "adr/index.md",
    "changelog.md",
    "contributing.md",
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a plugin file of a page registers ends with the page."""
    yield
    forget_plugins()


# --------------------------------------------------------------------------- reading


def test_blocks_are_found_with_their_notes() -> None:
    text = "\n".join(
        [
            "Words.", "", "<!-- not run: needs a GPU -->", "```bash", "a \\", "  b  # why", "", "c && d", "```", "",
            "<!-- something else -->", "```python", "x = 1", "```", "  ```text", "  shown", "  ```",
            "```` ```inline``` ````",
        ]
    )  # fmt: skip
    found = parse(text, "page")
    assert [(block.line, block.language, block.note, block.reason) for block in found] == [
        (4, "bash", "not run", "needs a GPU"),
        (12, "python", "", ""),
        (15, "text", "", ""),
    ]
    assert commands(found[0].text) == ["a b", "c", "d"]
    assert found[2].text == "shown"


def test_commands_are_found_however_they_are_started() -> None:
    assert gancompress_arguments("gancompress ls --out x") == ["ls", "--out", "x"]
    assert gancompress_arguments("torchrun --nproc-per-node 2 -m gancompress run a") == ["run", "a"]
    assert gancompress_arguments("pip install gancompress") is None
    assert inline_commands(
        "say `gancompress ls` and ``gancompress`` and `gancompress run …`\n```\n`gancompress x`\n```"
    ) == ["gancompress ls"]


def test_there_is_something_to_test() -> None:
    assert len(WITH_CODE) > 8
    assert "README.md" in WITH_CODE


@pytest.mark.parametrize("page", PAGES)
def test_every_block_names_its_language(page: str) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: name the language of this block: {', '.join(LANGUAGES)}"
        if block.language == "text":
            started = [line for line in block.text.splitlines() if line.startswith(("gancompress ", "pip ", "$ "))]
            assert not started, f"{block.where}: this is a shell block: {started[0]}"
    indented = re.findall(
        r"^\n {4}(?:gancompress|pip|python) .*", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert not indented, f"{page}: fence this as bash: {indented[0].strip()}"


def test_what_is_shown_as_a_command_exists(mistake_in: Callable[..., Any]) -> None:
    """Every command line of every page parses: in blocks, run or not, and within sentences."""
    found = [
        (block.where, arguments)
        for page in PAGES
        for block in blocks(page)
        if block.language in ("bash", "text")
        for command in (commands(block.text) if block.language == "bash" else block.text.splitlines())
        if "gancompress" in command
        if (arguments := gancompress_arguments(command)) is not None
    ]
    found += [
        (page, shlex.split(command)[1:])
        for page in PAGES
        for command in inline_commands((ROOT / page).read_text(encoding="utf-8"))
    ]
    assert len(found) > 40
    wrong = [
        f"{where}: gancompress {shlex.join(arguments)}: {said}"
        for where, arguments in found
        if (said := mistake_in(arguments))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def mistake_in() -> Callable[[list[str]], str]:
    """Return what is wrong with the arguments of a command; nothing is run."""

    def check(arguments: list[str]) -> str:
        command: Any = typer.main.get_command(app)
        path = "gancompress"
        rest = list(arguments)
        if rest[:1] in (["--version"], ["--help"]):
            return ""
        if rest[:1] == ["--debug"]:
            rest = rest[1:]
        while hasattr(command, "commands"):
            if not rest:
                return "" if path == "gancompress" else "no subcommand"
            if rest[0] not in command.commands:
                return f"no command {rest[0]!r}"
            path, command, rest = f"{path} {rest[0]}", command.commands[rest[0]], rest[1:]
        if "--help" in rest:
            return ""
        # an argument that is left out within a sentence is only not said
        required = [
            parameter for parameter in command.params if parameter.param_type_name == "argument" and parameter.required
        ]
        given = rest if any(not word.startswith("-") for word in rest) else [*rest, *("X" for _ in required)]
        try:
            command.make_context(path, given)
        except Exception as error:  # whatever the parser's errors are called in this version
            return str(getattr(error, "message", error))
        return ""

    return check


def test_the_check_sees_what_is_wrong(mistake_in: Callable[..., str]) -> None:
    assert mistake_in(["run", "quickstart"]) == ""
    assert "No such option" in mistake_in(["run", "quickstart", "--nope"])
    assert "no command" in mistake_in(["trian", "quickstart"])


# --------------------------------------------------------------------------- yaml and toml


@pytest.mark.parametrize("page", PAGES)
def test_every_recipe_that_is_shown_is_one(page: str, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language != "yaml" or block.note == "not run":
            continue
        text = (
            block.text
            if re.search(r"^(extends|data):", block.text, re.MULTILINE)
            else f"extends: quickstart\n{block.text}"
        )
        path = tmp_path / f"line-{block.line}.yaml"
        path.write_text(text, encoding="utf-8")
        load_recipe(path)


# --------------------------------------------------------------------------- running


@pytest.mark.parametrize("page", WITH_CODE)
def test_every_block_runs(page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Reader(page, desk, monkeypatch).work(whole=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in WITH_CODE if any("gancompress compare" in block.text for block in blocks(page))]
)
def test_every_comparison_runs(page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Reader(page, desk, monkeypatch).work(whole=True)


class Reader:
    """Runs the blocks of one page, one after the other."""

    def __init__(self, page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page, self.desk = page, desk
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        for name in ("run", "compare", "compress"):
            monkeypatch.setattr(gancompress, name, functools.partial(getattr(self, name), getattr(front, name)))

    def work(self, *, whole: bool) -> None:
        """Run all blocks; ``whole``: see comparisons through."""
        found = blocks(self.page)
        for block, after in zip(found, [*found[1:], None], strict=True):
            if block.note == "not run":
                continue
            if block.language == "bash":
                said = [self.command(block, command, whole) for command in commands(block.text)]
                if block.note == "fails" and after is not None and after.language == "text":
                    assert after.text.strip() in "".join(said), f"{block.where} says something else: {said}"
            elif block.language == "python":
                self.python(block)

    def command(self, block: Block, command: str, whole: bool) -> str:
        """Run one command line and return what it wrote to standard error."""
        if command.split()[0] in LEFT_TO_CI:
            return ""
        command = self.with_ids(command)
        arguments = gancompress_arguments(command)
        if arguments is None:
            done = subprocess.run(["bash", "-euc", command], cwd=self.desk, capture_output=True, text=True, check=False)
            code, said = done.returncode, done.stderr
        else:
            result = CliRunner().invoke(app, [*arguments, *self.small(arguments, whole)])
            code, said = result.exit_code, result.stderr
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
        # what this machine lacks is not the documentation's mistake
        expected = (0, 1) if arguments == ["doctor"] else (2,) if block.note == "fails" else (0,)
        assert code in expected, f"{block.where}: {command}: exit code {code}\n{said}"
        return said

    def small(self, arguments: list[str], whole: bool) -> list[str]:
        """Return what is appended to a command so that it takes seconds."""
        if arguments[0] in ("run", "train") and (Path(arguments[1]) / "recipe.yaml").is_file():
            return []  # a smoke run, which goes on as one
        if arguments[0] == "compare" and whole and "--dry-run" not in arguments:
            return [part for one in SHORT for part in ("--set", one)]
        more = SMALL.get(arguments[0], [])
        return [] if set(more) <= set(arguments) else more

    def python(self, block: Block) -> None:
        """Run a block in the namespace of the page; one that shows a file becomes that file."""
        if block.title:
            (self.desk / block.title).write_text(block.text + "\n", encoding="utf-8")
            return
        text = self.with_ids(block.text)
        code = compile("\n" * block.line + text, str(ROOT / self.page), "exec")
        exec(code, self.namespace)

    # ------------------------------------------------------------------ ids

    def with_ids(self, text: str) -> str:
        """Put the ids of real runs in the place of those that stand for them."""
        return re.sub(rf"([\w./-]*?)([\w.]+)-{PLACEHOLDER}", lambda match: str(self.newest(match[1], match[2])), text)

    def newest(self, folder: str, name: str) -> Path:
        """Return the newest run of a name; the first time that a page speaks of one it may have to be made."""

        def known() -> list[Path]:
            found = [*Path(folder or ".").glob(f"{name}-*/recipe.yaml")]
            return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]

        if not known():
            assert folder == "runs/", f"{self.page}: there is no run {folder}{name}"
            api.run(name, smoke=True, progress=False)
        run = known()[-1]
        packed = run / "export" / "generator.safetensors"
        if not packed.exists():
            gancompress.RunOutcome.read(run).export()
        return run

    # ------------------------------------------------------------------ the functions, shrunk

    def run(self, real: Callable[..., Any], recipe: Any, overrides: Any = (), **more: Any) -> Any:
        shrunk = not (isinstance(recipe, str | Path) and (Path(recipe) / "recipe.yaml").is_file())
        return real(recipe, overrides, **{"smoke": shrunk, "progress": False, **more})

    def compare(self, real: Callable[..., Any], recipe: Any = "compare_digits", methods: Any = ("static", "dst"),
                overrides: Any = (), **more: Any) -> Any:  # fmt: skip
        more |= {"seeds": 1, "narrow": False, "jobs": 0, "progress": False}
        return real(api.resolve(recipe, overrides, smoke=True), methods, **more)

    def compress(self, real: Callable[..., Any], source: Any, *arguments: Any, **more: Any) -> Any:
        steps = {} if is_foreign(source) else {"steps": 2}
        return real(source, *arguments, **{**more, **steps, "progress": False})


# --------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_somewhere(page: str) -> None:
    """Of pages of the site, the site's own build checks links too, anchors included; this one is quick."""
    text = re.sub(
        r"^( *)(`{3,}).*?^\1\2$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        path = ((ROOT / page).parent / target).resolve()
        inside = path.relative_to(ROOT / "docs").as_posix() if path.is_relative_to(ROOT / "docs") else ""
        assert path.exists() or inside in MADE, f"{page}: {target} is not there"


def test_the_navigation_names_pages_that_are_there() -> None:
    import yaml

    def files(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for item in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
            yield from files(item)

    named = list(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(named) == len(set(named))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(named) - MADE <= written
    assert {page for page in written if not page.startswith("adr/")} <= set(named)
