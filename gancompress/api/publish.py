"""``gancompress push``: a trained generator as a repository of the Hugging Face hub, or as the folder of one."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gancompress.api.finished import export
from gancompress.api.int8 import quality_lines
from gancompress.api.networks import refuse_foreign
from gancompress.api.outcomes import RunOutcome
from gancompress.errors import ExportError, located

if TYPE_CHECKING:
    from gancompress.progress import Observer

__all__ = ["Pushed", "push"]

#: what a pushed folder holds beside its generator
_CARD, _SAMPLES, _RECIPE, _METRICS = "README.md", "samples.png", "recipe.yaml", "metrics.json"
_IMAGES = 60


@dataclasses.dataclass(frozen=True)
class Pushed:
    """Where a generator was pushed.

    Attributes:
        folder: on this machine.
        files: their names, in order.
        address: what :func:`gancompress.load` takes.
        url: of its page; empty for a folder.
        step: of the checkpoint.
        evaluated: whether the card has metrics: the run was evaluated at that step.
    """

    folder: Path
    files: tuple[str, ...]
    address: str
    url: str
    step: int
    evaluated: bool


def push(
    run: str | Path | RunOutcome,
    destination: str | Path,
    *,
    step: str | int = "last",
    values: Literal["float32", "bf16", "int8"] = "float32",
    license: str = "",
    private: bool = False,
    progress: bool | Observer = True,
) -> Pushed:
    """Write a run's averaged generator as the Hugging Face hub wants it, and upload it; as ``gancompress push``.

    Example::

        gancompress.push("runs/quickstart-0a1b2c3d4e", "hf:me/digits", step="best")
        g = gancompress.load("hf:me/digits")

    Args:
        run: a run, or its directory.
        destination: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@BRANCH``; anything else is a folder, which is written and not
            uploaded. What is uploaded is kept in ``export/hub/`` of the run.
        step: checkpoint: ``last``, ``best`` or a number.
        values: of the weights, as in ``gancompress export``.
        license: for the card, as the hub calls it, such as ``mit``.
        private: make a new repository a private one.
        progress: as in :func:`gancompress.evaluate`.

    Raises:
        RunError: there is no such run or checkpoint.
        ExportError: the folder holds something else, the generator cannot be written so, or the hub cannot be reached
            or refuses; the folder is there then.
    """
    from gancompress.experiment.finished import open_run
    from gancompress.export.hub import CONFIG, HubAddress, is_pushed, upload
    from gancompress.export.packed import load_packed

    directory = run.directory if isinstance(run, RunOutcome) else Path(run)
    address = HubAddress.of(str(destination))
    folder = directory / "export" / "hub" if address is not None else Path(destination)
    refuse_foreign(directory, "push")
    if license and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license) is None:
        raise ExportError(f"license {license!r}: the hub's names are such as mit, apache-2.0, cc-by-4.0")
    opened = open_run(directory)
    at = opened.step(str(step))
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not is_pushed(folder))):
        raise ExportError("is there, and is no folder that `gancompress push` wrote; choose another", where=str(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-push-") as aside:
            name = "generator.safetensors" if values == "float32" else f"generator-{values}.safetensors"
            made = export(directory, Path(aside) / name, values=values, step=at, progress=progress)
            packed = load_packed(made.file)
            if packed.missing:
                raise ExportError(f"it loads only together with {made.needs}, which the hub does not have")
            opened.sample(Path(aside) / _SAMPLES, count=_IMAGES, step=str(at))
            evaluated = _write_words(Path(aside), opened.directory.path, made, packed, str(address or folder), license)
            config = {
                "library_name": "gancompress",
                "format": 1,
                "generator": name,
                "values": values,
                "step": at,
                "density": packed.density,
                "model": dict(packed.model),
                "image": packed.image.to_json(),
            }
            _write(Path(aside) / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
            files = sorted(path.name for path in Path(aside).iterdir())
            folder.mkdir(exist_ok=True)
            for old in folder.glob("generator*.safetensors"):
                old.unlink()
            for file in files:
                os.replace(Path(aside) / file, folder / file)
    except OSError as error:
        raise ExportError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error
    url = upload(folder, address, private=private) if address is not None else ""
    return Pushed(folder, tuple(files), str(address or folder), url, at, evaluated)


def _write_words(folder: Path, run: Path, made: Any, packed: Any, address: str, license: str) -> bool:
    """Write the card, the recipe and the metrics of the step; return whether there are any."""
    from gancompress.backbones.base import StyleGenerator
    from gancompress.recipe.document import dump_yaml
    from gancompress.report.card import CardFacts, model_card
    from gancompress.runs.record import RunRecord

    record = RunRecord(run)
    tensors, generator = made.tensors.values(), packed.generator()
    facts = CardFacts(
        address=address,
        step=made.step,
        values=str(packed.source.get("values", "float32")),
        backbone=str(packed.model["name"]),
        channels=packed.image.channels,
        resolution=packed.image.resolution,
        classes=packed.image.classes[: generator.num_classes],
        translates=generator.translates,
        styled=isinstance(generator, StyleGenerator),
        density=packed.density,
        kept=sum(int(mask.sum()) for mask in packed.masks.values()),
        weights=sum(mask.numel() for mask in packed.masks.values()),
        size=made.size,
        dense=sum(one.dense for one in tensors),
        quality=tuple(quality_lines(made.quality)) if made.quality else (),
        license=license,
        samples=_SAMPLES,
    )
    with located(str(run)):
        _write(folder / _CARD, model_card(record, facts))
        _write(folder / _RECIPE, dump_yaml(_without_paths(record.recipe)))
    found = [one for one in record.log.evaluations if one.get("step") == made.step]
    if found:
        mark = {"smoke": True} if record.is_smoke else {}
        _write(folder / _METRICS, json.dumps({**mark, **found[-1]}, indent=2, ensure_ascii=False) + "\n")
    return bool(found)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _without_paths(node: Any) -> Any:
    """Return a recipe in which what names a file of this machine keeps the file's name only."""
    if isinstance(node, dict):
        return {key: _without_paths(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_paths(value) for value in node]
    if isinstance(node, str) and "\n" not in node:
        before, colon, place = node.rpartition(":")
        looks = place if before and not (len(before) == 1 and before.isalpha()) else node
        if looks.startswith(("/", "~", "./", "../")) or re.match(r"[A-Za-z]:[\\/]", looks):
            kept = re.split(r"[\\/]", looks.rstrip("\\/"))[-1]
            return f"{before}{colon}{kept}" if looks == place and before else kept
    return node
