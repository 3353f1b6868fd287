"""The generator that a run's report holds, or why it holds none."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from gancompress.errors import ExportError, GancompressError
from gancompress.report.player import BEFORE, FILE, MOST_BEFORE, MOST_BYTES, NOTE
from gancompress.runs.record import RunRecord
from gancompress.storage.atomic import write_file, write_json
from gancompress.units import size

if TYPE_CHECKING:
    from gancompress.experiment.finished import OpenedRun

__all__ = ["drop_player", "make_player"]

#: bytes that a kept weight takes in such a file, about
_BYTES_OF_A_WEIGHT = 1.5


def make_player(directory: Path) -> None:
    """Write the last generator of a run as its report takes it, or the reason why there is none. Never raises.

    Smoke runs get neither: their images are noise.

    Args:
        directory: of the run.
    """
    if RunRecord(directory).is_smoke:
        return
    note: dict[str, object] = {}
    try:
        note, blobs = _made(directory)
        (directory / FILE).parent.mkdir(exist_ok=True)  # not what is above: a run that is gone stays gone
        for name, blob in blobs.items():
            write_file(directory / name, blob)
    except GancompressError as error:
        note["missing"] = error.message
    except Exception as error:  # a backbone may raise whatever it likes, and the run is done all the same
        note["missing"] = f"it could not be made ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    try:
        (directory / NOTE).parent.mkdir(exist_ok=True)
        write_json(directory / NOTE, note)
    except OSError:
        return  # the report says nothing of a player then


def drop_player(directory: Path) -> None:
    """Take back what :func:`make_player` wrote: the report has no generator then, and a later run may make it again.

    Args:
        directory: of the run.
    """
    for name in (NOTE, FILE, BEFORE):
        (directory / name).unlink(missing_ok=True)


def _made(directory: Path) -> tuple[dict[str, object], dict[str, bytes]]:
    """Return what is noted, the step among it, and the generators by their files."""
    from gancompress.experiment.finished import open_run
    from gancompress.export.packed import export_run, load_packed
    from gancompress.web.make import blob_of

    opened = open_run(directory)
    step = opened.step("last")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "generator.safetensors"
        tensors = export_run(opened, file, step=str(step), values="bf16")
        expected = int(_BYTES_OF_A_WEIGHT * sum(one.kept for one in tensors.values()))
        if expected > MOST_BYTES:
            raise ExportError(
                f"it has about {size(expected)}, and a report takes {size(MOST_BYTES)}; gancompress export --format "
                "web makes a page of its own"
            )
        packed = load_packed(file)
        blobs = {FILE: blob_of(packed, opened.first_inputs() if packed.translates else ())}
        note: dict[str, object] = {"step": step}
        if opened.directory.read_json("compress.json"):
            try:
                blobs[BEFORE] = _before(opened, Path(folder) / "before.safetensors")
            except GancompressError as error:  # what is compressed plays alone then
                note["before"] = error.message
    return note, blobs


def _before(opened: OpenedRun, file: Path) -> bytes:
    """Return the generator that a compression began from."""
    from gancompress.experiment.compress import starting_network
    from gancompress.export.packed import export_packed, load_packed
    from gancompress.web.make import blob_of

    before, built = starting_network(opened.recipe)
    expected = int(_BYTES_OF_A_WEIGHT * sum(tensor.numel() for tensor in before.state_dict().values()))
    if expected > MOST_BEFORE:
        raise ExportError(f"it has about {size(expected)}, and a report takes {size(MOST_BEFORE)}")
    export_packed(before, file, model=built.model, values="bf16", origin=built.origin)
    return blob_of(load_packed(file))
