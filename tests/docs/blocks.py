"""The blocks of code in ``README.md``, ``CONTRIBUTING.md`` and ``docs/``, and how they are run.

The scheme:

* Every fenced block names its language: ``bash``, ``python``, ``yaml``, ``toml`` or, for what is only shown, ``text``.
* The blocks of a page are run in order, in one directory and one Python namespace, as a reader would run them. The
  directory holds ``recipes/``, a small ``cifar10_train.zip``, and two small folders of images.
* Nothing is run at its real size. ``gancompress run`` and ``train`` get ``--smoke``, which keeps the recipe's method,
  objective and rounds and shrinks the rest; ``evaluate`` gets few images, ``compress`` few steps, and ``compare`` gets
  ``--dry-run``, or in the slow suite few steps. In Python, ``gancompress.run``, ``compare`` and ``compress`` are shrunk
  in the same way. Everything else is run as it is written.
* ``0a1b2c3d4e`` stands for the id of a run: ``runs/quickstart-0a1b2c3d4e`` is the newest run of that name, one that the
  page made, or one that is made for it.
* A ``python`` block with ``title="my_method.py"`` is a file: it is written down, not run.
* ``pip`` and ``pytest`` are left to ``.ci/run``. Any other block that cannot be run says why in a comment above it:
  ``<!-- not run: needs a GPU -->``. One that is meant to fail is marked ``<!-- fails: reason -->``, and if a ``text``
  block follows, the program must say just that.
* Every command is parsed, those of blocks that are not run and those within sentences included: its options exist.
* A ``yaml`` block is part of a recipe: it must be one when it is laid over the quickstart.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

__all__ = ["PLACEHOLDER", "ROOT", "Block", "blocks", "commands", "gancompress_arguments", "inline_commands", "pages"]

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = "0a1b2c3d4e"
LANGUAGES = ("bash", "python", "yaml", "toml", "js", "text")

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\S*)(?P<more>.*)$")
_TITLE = re.compile(r'title="(?P<name>[\w.]+)"')
_NOTE = re.compile(r"^<!-- (?P<kind>not run|fails): (?P<reason>.+) -->$")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: file, relative to the repository.
        line: of its opening fence.
        language: after the fence.
        text: what is in it.
        note: ``not run``, ``fails`` or nothing.
        reason: of the note.
        title: name of the file that the block shows, if it says one.
    """

    page: str
    line: int
    language: str
    text: str
    note: str = ""
    reason: str = ""
    title: str = ""

    @property
    def where(self) -> str:
        """``page:line``."""
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return the pages that people read, relative to the repository."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return list(parse((ROOT / page).read_text(encoding="utf-8"), page))


def parse(text: str, page: str) -> list[Block]:
    """Return the fenced blocks of ``text``."""
    found: list[Block] = []
    opened: tuple[int, str, str, str, str] | None = None
    inside: list[str] = []
    note = ("", "")
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            if fence and fence["ticks"] == opened[1] and not fence["language"]:
                found.append(Block(page, opened[0], opened[3], "\n".join(inside), *note, opened[4]))
                opened, inside, note = None, [], ("", "")
            else:
                inside.append(line.removeprefix(opened[2]))
        elif fence and "`" not in fence["more"]:
            title = _TITLE.search(fence["more"])
            opened = (number, fence["ticks"], fence["indent"], fence["language"], title["name"] if title else "")
        elif line.strip():
            said = _NOTE.match(line)
            note = (said["kind"], said["reason"]) if said else ("", "")
    assert opened is None, f"{page}:{opened[0]}: this block is never closed"
    return found


def commands(text: str) -> list[str]:
    """Return the command lines of a shell block: comments dropped, continued lines joined, split at ``&&``."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    found = []
    for line in joined.splitlines():
        bare = re.sub(r"(^|\s)#.*$", "", line).strip()
        found += [part.strip() for part in bare.split(" && ") if part.strip()]
    return found


def gancompress_arguments(command: str) -> list[str] | None:
    """Return the arguments that a command line gives the program, however it starts it; ``None`` when it does not."""
    words = shlex.split(command)
    for index, word in enumerate(words):
        if word == "gancompress" and (index == 0 or words[index - 1] in ("-m", "srun")):
            return words[index + 1 :]
    return None


def inline_commands(text: str) -> list[str]:
    """Return the commands within sentences: ```gancompress ls```; those that leave something out (…) are not meant."""
    outside = re.sub(r"^( *)(`{3,}).*?^\1\2$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?<!`)`(gancompress [a-z][^`]*)`(?!`)", outside)
    return [" ".join(one.split()) for one in found if "…" not in one]
