"""The Hugging Face hub's client without its chatter, and without its waiting where nobody answers.

What we ask the hub for ends in one line of our own. The client writes a line for every try, and tries six times over
half a minute even where the connection is refused at once.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["nobody_answers", "quiet"]


@contextlib.contextmanager
def quiet(*others: str) -> Iterator[None]:
    """Keep the client from saying that it tries again, while this lasts.

    Args:
        others: names of more loggers that are to be quiet.
    """
    told = {one: one.level for one in map(logging.getLogger, ("huggingface_hub", *others))}
    for one in told:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in told.items():
            one.setLevel(level)


def nobody_answers(repository: str, name: str, revision: str | None = None) -> str | None:
    """Ask the hub for a file once; return in words why nothing came back, None where anything did, a refusal too.

    Args:
        repository: ``OWNER/NAME`` of a model.
        name: of the file.
        revision: branch, tag or commit; None for the newest.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        with quiet():
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
    except (errors.HfHubHTTPError, ValueError):
        return None  # it answered, or the name is none: the client says that better
    except Exception as error:  # of whichever library the client's version speaks with
        return f"{type(error).__name__}: {error}"
    return None
