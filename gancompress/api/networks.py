"""Networks that gancompress did not train: opened, compressed, kept in a directory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gancompress.errors import RecipeError, located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gancompress.foreign.compress import CompressedNetwork
    from gancompress.progress import Observer

__all__ = ["Calibration", "CompressedFile", "compress_file", "compress_foreign", "is_foreign"]

#: a folder, a file, or inputs: a tensor each, or a tuple of tensors for a network with several
Calibration: TypeAlias = "str | Path | Sequence[Tensor | tuple[Tensor, ...]]"


def is_foreign(source: object) -> bool:
    """Whether it is a network without a recipe: a module of torch, or an ONNX file."""
    if isinstance(source, str | os.PathLike):
        return Path(source).suffix.lower() == ".onnx"
    return callable(getattr(source, "named_parameters", None))


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
) -> CompressedNetwork:
    """Open and prune; see :func:`gancompress.compress`."""
    import torch

    from gancompress.foreign.calibration import read_inputs
    from gancompress.foreign.compress import compress_network
    from gancompress.foreign.network import capture_module, open_onnx

    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if example is not None or dynamic is not None:
            raise RecipeError("example and dynamic are for modules: an ONNX file says which sizes it takes")
        observer.message(f"opening {path.name}")
        network, name = open_onnx(path), name or path.name
    else:
        if example is None:
            raise RecipeError("a module needs example, the tensors of one call, to be captured: example=(x,)")
        given = (example,) if isinstance(example, torch.Tensor) else tuple(example)
        listed = [dynamic] if isinstance(dynamic, Mapping) else dynamic
        axes = None if listed is None else [dict(one) for one in listed]
        name = name or type(source).__name__
        observer.message(f"capturing {name}")
        with located(name):
            network = capture_module(source, given, axes)
    inputs: list[Any] = []
    if isinstance(calibration, str | os.PathLike):
        inputs = read_inputs(Path(calibration), network.captured, pixels)
    elif calibration is not None:
        inputs = [(one,) if isinstance(one, torch.Tensor) else tuple(one) for one in calibration]
    chosen = method or ("reconstruct" if inputs else "magnitude")
    if not inputs:
        observer.message(
            f"warning: without calibration inputs {name} is pruned by magnitude and nothing is refitted, which costs "
            "far more, and nothing says how much"
        )
    with located(name):
        return compress_network(
            network,
            density,
            inputs,
            name=name,
            method=chosen,
            pattern=_pattern(pattern),
            pixels=pixels,
            seed=seed,
            say=observer.message,
        )


@dataclasses.dataclass(frozen=True)
class CompressedFile:
    """What ``gancompress compress FILE.onnx`` wrote.

    Attributes:
        network: compressed, with what that cost.
        file: where it is.
        size: of the file, bytes.
    """

    network: CompressedNetwork
    file: Path
    size: int


def compress_file(
    path: Path,
    density: float,
    method: str | None,
    calibration: Path | None,
    *of_runs: object,
    pattern: str,
    pixels: tuple[float, float],
    out: Path,
) -> CompressedFile:
    """Compress a file and write the result into a directory of its own below ``out``; ``of_runs`` must be empty."""
    from gancompress.progress import RunProgress

    if any(of_runs):
        raise RecipeError(f"{path.name} is no run: it is pruned without recipe, settings, steps and backbone")
    made = compress_foreign(
        path, density, method, example=None, dynamic=None, calibration=calibration, pattern=pattern, pixels=pixels,
        seed=0, name=None, observer=RunProgress(),
    )  # fmt: skip
    # ordinary names for ordinary densities, and none that two densities share
    file = made.save(out / f"{path.stem}-d{density:g}" / "generator.safetensors")
    return CompressedFile(made, file, file.stat().st_size)


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
