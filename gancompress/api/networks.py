"""Networks that gancompress did not train: opened, compressed, kept in a directory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gancompress.api.channel_options import channel_options
from gancompress.errors import ExportError, RecipeError, located, ready_to_work
from gancompress.report.network import shown_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from gancompress.export.network import NetworkValues
    from gancompress.foreign.channels import ChannelOptions
    from gancompress.foreign.compress import CompressedNetwork
    from gancompress.foreign.distill import Distillation
    from gancompress.graphs.build import CapturedModule
    from gancompress.progress import Observer
    from gancompress.report.shown import Shown

__all__ = [
    "Calibration",
    "CompressedFile",
    "compress_file",
    "compress_foreign",
    "distilling",
    "is_foreign",
    "refuse_foreign",
    "written_network",
]

#: a folder, a file, or inputs: a tensor each, or a tuple of tensors for a network with several
Calibration: TypeAlias = "str | Path | Sequence[Tensor | tuple[Tensor, ...]]"


def is_foreign(source: object) -> bool:
    """Whether it is a network without a recipe: a module of torch, an ONNX file, or ``FILE.py:NAME``.

    Raises:
        ExportError: it is a file that would run code when it is opened.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix.lower() == ".onnx":
            return True
        from gancompress.foreign.opening import is_factory, refuse_pickle

        refuse_pickle(path)
        return is_factory(str(source))
    return callable(getattr(source, "named_parameters", None))


def written_network(path: Path) -> Path | None:
    """Return the file of a compressed network or packed generator, given itself or its directory; None of others."""
    from gancompress.export.container import kind_of

    written = path / "generator.safetensors" if path.is_dir() else path
    return written if kind_of(written) else None


def refuse_foreign(path: Path, command: str) -> None:
    """Say of a network from elsewhere what to do with it in place of a command for runs.

    Raises:
        ExportError: it is one.
    """
    weights = path.suffix == ".safetensors"
    if is_foreign(path) or weights:
        given = f"my_net.py:make --weights {path.name} --example 1x3x64x64" if weights else path.name
        raise ExportError(
            f"is no run: `gancompress compress {given} --density 0.3 --calibration photos/` makes a network from "
            f"elsewhere small, and writes it, which leaves nothing to {command}",
            where=str(path),
        )


def open_foreign(
    source: str | Path | nn.Module,
    *,
    example: Tensor | Sequence[Tensor] | None,
    dynamic: Mapping[int, str] | Sequence[Mapping[int, str]] | None,
    name: str | None,
    observer: Observer,
) -> tuple[CapturedModule, str]:
    """Capture a network; return it and how results call it."""
    import torch

    from gancompress.foreign.network import capture_module, open_onnx

    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix.lower() == ".onnx":
            if example is not None or dynamic is not None:
                raise RecipeError("example and dynamic are for modules: an ONNX file says which sizes it takes")
            observer.message(f"opening {path.name}")
            return open_onnx(path), name or path.name
        from gancompress.foreign.opening import make_module

        source, name = make_module(str(source)), name or path.name
    if example is None:
        raise RecipeError(
            "a module needs example, the tensors of one call, to be captured: example=(x,), or --example 1x3x64x64"
        )
    given = (example,) if isinstance(example, torch.Tensor) else tuple(example)
    listed = [dynamic] if isinstance(dynamic, Mapping) else dynamic
    axes = None if listed is None else [dict(one) for one in listed]
    name = name or type(source).__name__
    observer.message(f"capturing {name}")
    with located(name):
        return capture_module(source, given, axes), name


def read_calibration(
    calibration: Calibration | None, network: CapturedModule, pixels: tuple[float, float]
) -> list[tuple[Tensor, ...]]:
    """Return calibration inputs given in any of the ways that people have them."""
    import torch

    from gancompress.foreign.calibration import read_inputs

    if isinstance(calibration, str | os.PathLike):
        return read_inputs(Path(calibration), network.captured, pixels)
    return [(one,) if isinstance(one, torch.Tensor) else tuple(one) for one in calibration or ()]


def compress_foreign(
    source: str | Path | nn.Module,
    density: float,
    method: str | None,
    *,
    example: Tensor | Sequence[Tensor] | None,
    dynamic: Mapping[int, str] | Sequence[Mapping[int, str]] | None,
    calibration: Calibration | None,
    pattern: str,
    pixels: tuple[float, float],
    seed: int,
    name: str | None,
    observer: Observer,
    distillation: Distillation | None = None,
    values: NetworkValues = "float32",
    target: str | None = None,
    importance: str | None = None,
) -> CompressedNetwork:
    """Open and prune; see :func:`gancompress.compress`."""
    named = name or (Path(source).name if isinstance(source, str | os.PathLike) else type(source).__name__)
    _check(named, density, method, calibration, pattern, values, distillation is not None)
    network, name = open_foreign(source, example=example, dynamic=dynamic, name=name, observer=observer)
    inputs = read_calibration(calibration, network, pixels)
    channels = channel_options(method, target, importance)
    return _prune(
        network, density, method, inputs, pattern, pixels, seed, name, observer, distillation, values, channels
    )


def _check(
    name: str, density: float, method: str | None, calibration: Calibration | None, pattern: str, values: str,
    distilled: bool,
) -> None:  # fmt: skip
    """Refuse what no network can be compressed with before one is captured, which takes a minute of a large one."""
    from gancompress.foreign.compress import check_settings

    calibrated = isinstance(calibration, str | os.PathLike) or bool(calibration)
    chosen = method or ("reconstruct" if calibrated else "magnitude")
    with located(name):
        check_settings(density, chosen, values, calibrated=calibrated, distilled=distilled)
        _pattern(pattern)


def _prune(
    network: CapturedModule,
    density: float,
    method: str | None,
    inputs: list[tuple[Tensor, ...]],
    pattern: str,
    pixels: tuple[float, float],
    seed: int,
    name: str,
    observer: Observer,
    distillation: Distillation | None,
    values: NetworkValues,
    channels: ChannelOptions,
) -> CompressedNetwork:
    from gancompress.foreign.compress import compress_network

    if not inputs:
        observer.message(
            f"warning: without calibration inputs {name} is pruned by {channels.importance or 'magnitude'} and nothing "
            "is refitted, which costs far more, and nothing says how much"
        )
    elif len(inputs) == 1:
        observer.message(f"warning: {name} is fitted to one calibration input and measured on the same: give more")
    with located(name):
        return compress_network(
            network,
            density,
            inputs,
            name=name,
            method=method or ("reconstruct" if inputs else "magnitude"),
            pattern=_pattern(pattern),
            pixels=pixels,
            seed=seed,
            distillation=distillation,
            values=values,
            channels=channels,
            say=observer.message,
        )


@contextlib.contextmanager
def distilling(length: str | None, directory: Path, observer: Observer) -> Iterator[Distillation | None]:
    """Yield the distillation that ``length`` asks for, none for None.

    What it keeps on the disk lies in a directory of its own below ``directory``, which no other process uses meanwhile,
    and is removed when what is done inside ends well.

    Raises:
        RecipeError: it is no length.
        RunError: another process distils there.
    """
    if length is None:
        yield None
        return
    from gancompress.experiment.interrupt import Interruption
    from gancompress.foreign.distill import Distillation, parse_length
    from gancompress.storage.atomic import remove_tree
    from gancompress.storage.checkpoint import checkpoints
    from gancompress.storage.locks import hold, is_held

    asked, place, done = parse_length(length), directory / "distillation", False
    missing = [one for one in (directory, directory.parent) if not one.exists()]
    place.mkdir(parents=True, exist_ok=True)
    try:
        told = "stopping after this step; once more stops at once and keeps less"
        with hold(place / "lock"), Interruption(lambda: observer.message(told)) as interruption:
            yield Distillation(asked, place / "checkpoints", lambda: interruption.requested)
            done = True
    finally:
        if done or (not checkpoints(place / "checkpoints") and not is_held(place / "lock")):
            remove_tree(place)
            for one in missing:
                with contextlib.suppress(OSError):  # something else was written there
                    one.rmdir()


@dataclasses.dataclass(frozen=True)
class CompressedFile:
    """What ``gancompress compress FILE.onnx`` wrote.

    Attributes:
        network: compressed, with what that cost.
        file: where it is.
        size: of the file, bytes.
        record: before and after, the content of ``compress.json`` beside the file.
    """

    network: CompressedNetwork
    file: Path
    size: int
    record: Mapping[str, Any]

    @property
    def report(self) -> Path:
        """The page."""
        return self.file.parent / "report.html"

    @property
    def shown(self) -> Shown:
        """What is printed of it."""
        return shown_network(self.record)


def compress_file(
    source: str | Path,
    density: float,
    method: str | None,
    calibration: Path | None,
    *of_runs: object,
    weights: Path | None,
    example: Sequence[str],
    dynamic: Sequence[str],
    pattern: str,
    pixels: tuple[float, float],
    values: NetworkValues,
    out: Path,
    distill: str | None = None,
    rate: int | None = None,
    target: str | None = None,
    importance: str | None = None,
    player: bool = True,
) -> CompressedFile:
    """Compress an ONNX file or what ``FILE.py:NAME`` makes, into a directory of its own below ``out``.

    Args:
        source: the file.
        density: share of weights to keep.
        method: as in :func:`gancompress.compress`.
        calibration: photographs or inputs.
        *of_runs: what only runs have; must be empty.
        weights: of the module, as ``.safetensors``.
        example: shapes of its inputs, such as ``1x3x256x256``.
        dynamic: axes whose sizes may change, for every input, such as ``0=n,2=h,3=w``.
        pattern: units in which weights are kept.
        pixels: black and white of its images.
        values: of the file.
        out: directory of directories.
        distill: how long to train what is kept.
        rate: samples per second of the sound that it makes, for the report.
        target: for ``channels``: what the network may cost.
        importance: for ``channels``: how they are ranked.
        player: put the network into the report, where it runs.
    """
    from gancompress.api.network_report import report_network
    from gancompress.channels.target import parse_target
    from gancompress.foreign.opening import is_factory, make_module, parse_axes, parse_example, read_weights
    from gancompress.progress import RunProgress

    path, observer = Path(source), RunProgress()
    with ready_to_work():
        channels = channel_options(method, target, importance)
        if any(of_runs):
            raise RecipeError(f"{path.name} is no run: it is pruned without recipe, settings, steps and backbone")
        _check(path.name, density, method, calibration, pattern, values, distill is not None)
        opened: str | Path | nn.Module = path
        if is_factory(str(source)):
            if not example:
                raise RecipeError("give --example, the shape of an input: --example 1x3x256x256", where=path.name)
            inputs, axes = [parse_example(one) for one in example], [parse_axes(one) for one in dynamic]
            opened = make_module(str(source))
            if weights is not None:
                read_weights(opened, weights)
            else:
                observer.message(
                    f"{path.name} has the weights that it makes; --weights FILE.safetensors gives it others"
                )
        elif weights is not None or example or dynamic:
            raise RecipeError("--weights, --example and --dynamic are for a module: my_net.py:make", where=path.name)
        network, name = open_foreign(
            opened,
            example=inputs if example else None,
            dynamic=(axes or None) if example else None,
            name=path.name,
            observer=observer,
        )
        if rate is not None:
            _check_sound(network, path.name)
        given = read_calibration(calibration, network, pixels)
        if values == "int8" and not given:
            raise RecipeError("int8 needs calibration inputs, which set its ranges: --calibration photos/", where=name)
    # ordinary names for ordinary densities, and none that two densities share
    way = "channels-" * (method == "channels") + (f"d{density:g}" if target is None else parse_target(target).slug)
    folder = out / f"{path.name.partition('.')[0] or 'network'}-{way}"
    with distilling(distill, folder, observer) as distillation:
        made = _prune(
            network, density, method, given, pattern, pixels, 0, name, observer, distillation, values, channels
        )
        if values == "int8":
            observer.message(f"bringing {name} into bytes")
        file = made.save(folder / "generator.safetensors", values=values)
    onnx = path if path.suffix.lower() == ".onnx" else None
    observer.message(f"timing {name} before and after")
    record = report_network(
        network,
        made,
        file,
        given,
        asked=target or density,
        pattern=pattern,
        pixels=pixels,
        rate=rate,
        onnx=onnx,
        player=player,
    )
    return CompressedFile(made, file, file.stat().st_size, record)


def _check_sound(network: CapturedModule, name: str) -> None:
    """Refuse a sampling rate of what is no sound, before anything is computed."""
    import torch

    from gancompress.foreign.agreement import is_sound
    from gancompress.graphs.build import check

    graph = network.captured
    sizes = {size: 64 for one in graph.inputs for size in one.shape if isinstance(size, str)}
    shape = check(graph, network.state_dict(), sizes)[0]
    if not is_sound(torch.empty(shape, device="meta")):
        raise RecipeError("--rate is for networks that make sound, 1 channel over time", where=name)


def _pattern(text: str) -> Any:
    """Return the pattern that a recipe means by ``text``; None for single weights."""
    from gancompress.components.registry import PATTERNS
    from gancompress.recipe.load import component_config, parse_recipe

    if text == "unstructured":
        return None
    # a recipe knows every way to write one, and what to say about the others
    rest = {"name": "any", "data": "shapes", "model": "dcgan", "training": {"steps": 1}}
    node = parse_recipe({**rest, "sparsity": {"pattern": text}}).recipe.sparsity.pattern
    pattern: Any = PATTERNS.get(node.name)
    return pattern(component_config(node))
