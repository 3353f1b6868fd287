"""Pages that hold a generator and run it: the player with its policy, and a page of its own. Imports no torch."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gancompress.errors import ExportError
from gancompress.units import size
from gancompress.web.container import header_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST_BYTES", "generator_page", "holds_network", "player", "player_script", "player_style", "policy"]

#: bytes of a generator that a page is made of: browsers open larger pages, slowly
MOST_BYTES = 64 * 2**20


@functools.cache
def _asset(name: str) -> str:
    return (importlib.resources.files("gancompress.web") / name).read_text(encoding="utf-8")


@functools.cache
def player_script(*, network: bool = False) -> str:
    """Return the one script of a page: generator.js and what is around it, without comments.

    Args:
        network: for networks from elsewhere; else for generators of latents.
    """
    kind = "NetworkPlayer" if network else "Player"
    text = _asset("generator.js") + _asset("player.js") + (_asset("network.js") if network else "")
    text += f'for (const root of document.querySelectorAll(".player")) new {kind}(root).start();'
    lines = (re.sub(r"\s+// .*$", "", line) for line in text.splitlines())
    return "\n".join(line.strip() for line in lines if line.strip() and not re.match(r"\s*(//|/\*\*)", line)) + "\n"


def player_style() -> str:
    """Return the style of the player; its colours are those of the page around it."""
    return _asset("player.css")


def policy(script: str, style: str | None = None) -> str:
    """Return a content security policy: this script and WebAssembly, pictures that lie in the page, and nothing else.

    Args:
        script: the only one of the page; empty without one.
        style: the only style sheet; None where elements have styles of their own.
    """
    scripts = f"{_hashed(script)} 'wasm-unsafe-eval'" if script else "'none'"
    styles = "'unsafe-inline'" if style is None else _hashed(style)
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _hashed(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def player(blobs: bytes | Mapping[str, bytes]) -> str:
    """Return the part of a page that holds generators and their controls; the page has :func:`player_script` once.

    Args:
        blobs: the ``.gcw`` file; or several by name, all of the same latents and classes, or all networks of the same
            inputs. Two are shown side by side, and of more any two that are chosen.
    """
    named = blobs if isinstance(blobs, Mapping) else {"": blobs}
    names = list(named)
    texts = [(name, base64.b85encode(blob).decode().replace("<", ",")) for name, blob in named.items()]
    header = header_of(next(iter(named.values())))
    if holds_network(header):
        return _filled(
            "network.html.j2", names=names, generators=texts, takes=header["takes"], gives=header["gives"],
            sized=bool(header["axes"]),
        )  # fmt: skip
    return _filled("player.html.j2", shown=names[:2], choices=names if len(names) > 2 else (), generators=texts)


def holds_network(header: Mapping[str, object]) -> bool:
    """Whether a file is of a network from elsewhere, by its header."""
    return header.get("kind") == "network"


def generator_page(blob: bytes, title: str, lines: Sequence[str] = ()) -> str:
    """Return one HTML file with a generator in it.

    Args:
        blob: the ``.gcw`` file.
        title: of the page, any text.
        lines: what else is said of it, any text.

    Raises:
        ExportError: it is larger than pages may be.
    """
    if len(blob) > MOST_BYTES:
        raise ExportError(
            f"the generator has {size(len(blob))}, and a page takes {size(MOST_BYTES)}: train it sparser, or export it "
            "with --values bf16 or int8"
        )
    script, style = player_script(network=holds_network(header_of(blob))), _asset("page.css") + player_style()
    return _filled(
        "page.html.j2", title=title, lines=lines, player=player(blob), script=script, style=style,
        policy=policy(script, style),
    )  # fmt: skip


def _filled(template: str, **values: object) -> str:
    import jinja2  # 40 ms, and only pages need it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gancompress.web", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**values)
