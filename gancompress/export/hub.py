"""Generators on the Hugging Face hub: ``hf:OWNER/NAME``, and the folder that such a repository is.

A pushed folder holds ``config.json``, which names the file of the generator, and what people read. Nothing of it is a
pickle, and no code of it is run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.errors import ExportError, working
from gancompress.hub_client import nobody_answers, quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONFIG", "LIBRARY", "HubAddress", "fetch", "is_pushed", "pushed_generator", "upload"]

CONFIG = "config.json"
#: what ``library_name`` says in a config and in a model card
LIBRARY = "gancompress"
_PREFIX = "hf:"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(rf"hf:({_PART}/{_PART})(?:@([^\s@]+))?")
#: bytes of a config that are read
_LONGEST = 1 << 22


@dataclasses.dataclass(frozen=True)
class HubAddress:
    """A repository of the hub, ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.

    Attributes:
        repository: ``OWNER/NAME``.
        revision: branch, tag or commit; None for the newest.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def of(cls, text: str) -> HubAddress | None:
        """Return what a text names; None for one that does not begin with ``hf:``.

        Raises:
            ExportError: it does, and names no repository.
        """
        if not text.startswith(_PREFIX):
            return None
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ExportError(f"{text!r} is no model of the hub: it is hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return _PREFIX + self.repository + (f"@{self.revision}" if self.revision else "")


def is_pushed(folder: Path) -> bool:
    """Whether ``gancompress push`` wrote a folder."""
    try:
        return _config(folder / CONFIG).get("library_name") == LIBRARY
    except ExportError:
        return False


def pushed_generator(config: Path) -> str:
    """Return the name of the generator's file that a ``config.json`` speaks of.

    Raises:
        ExportError: it is not one of ours, is of a newer version, or names no file beside it.
    """
    said = _config(config)
    if said.get("library_name") != LIBRARY:
        raise ExportError("is not of a generator that `gancompress push` wrote", where=str(config))
    if said.get("format") != 1:
        raise ExportError(f"has format {said.get('format')!r}; upgrade gancompress", where=str(config))
    name = said.get("generator")
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise ExportError(f"names no file beside it: {name!r}", where=str(config))
    return name


def _config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_LONGEST))
    except OSError as error:
        raise ExportError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, RecursionError):
        raise ExportError("is no JSON", where=str(path)) from None
    return said if isinstance(said, dict) else {}


def fetch(address: HubAddress) -> Path:
    """Bring a generator here, or find it where it was brought before, and return its file.

    Raises:
        ExportError: there is no such repository, it holds none of our generators, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    away = nobody_answers(address.repository, CONFIG, address.revision) is not None

    def brought(name: str) -> Path:
        found = hf_hub_download(
            address.repository, name, revision=address.revision, library_name=LIBRARY, local_files_only=away
        )
        return Path(found)

    with working(), quiet():
        try:
            config = brought(CONFIG)
        except Exception as error:
            raise ExportError(_why_not(error, CONFIG), where=str(address)) from error
        name = pushed_generator(config)
        try:
            return brought(name)
        except Exception as error:
            raise ExportError(_why_not(error, name), where=str(address)) from error


def upload(folder: Path, address: HubAddress, *, private: bool = False) -> str:
    """Make a repository of a folder, or a further commit to it.

    Args:
        folder: with what is to be there.
        address: a revision is a branch that exists.
        private: for a new repository.

    Returns:
        Where it can be looked at.

    Raises:
        ExportError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi(library_name=LIBRARY)
    with working(), quiet():
        try:
            made = hub.create_repo(address.repository, private=private or None, exist_ok=True)
            hub.upload_folder(
                repo_id=address.repository,
                folder_path=folder,
                revision=address.revision,
                commit_message="Push a generator",
                ignore_patterns=[".*"],
            )
        except Exception as error:
            raise ExportError(
                f"not uploaded: {_why_not(error, '')}; everything is in {folder}, and the same command tries again",
                where=str(address),
            ) from error
    return str(made)


def _why_not(error: Exception, name: str) -> str:
    """Return in words why the hub did not do what it was asked."""
    from huggingface_hub import errors

    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return "its owner must let you in first (on its page), and you must be logged in: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or it is private and you are not logged in: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the hub cannot be reached, and it was not loaded here before"
    if isinstance(error, errors.EntryNotFoundError):
        return f"has no {name}: it is no generator that `gancompress push` wrote"
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return f"the hub knows no login that may do this ({status}): hf auth login"
        return f"the hub answers {status} ({said[:300]})"
    return f"the hub cannot be reached ({type(error).__name__}: {said[:300]})"
