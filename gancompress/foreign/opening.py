"""Modules that a function in a user's file makes, their weights out of ``.safetensors``, their inputs by shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.components.plugins import execute
from gancompress.errors import ExportError, RecipeError, did_you_mean
from gancompress.export.container import kind_of
from gancompress.graphs.graph import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PICKLES", "is_factory", "make_module", "parse_axes", "parse_example", "read_weights", "refuse_pickle"]

#: endings of files that run code when they are opened
PICKLES = frozenset({".pth", ".pt", ".ckpt", ".pkl", ".bin", ".tar", ".th"})
_FACTORY = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")
#: mismatches of a kind that a message lists
_SHOWN = 3
_LARGEST = 2**31  # elements of an example


def is_factory(text: str) -> bool:
    """Whether it is ``FILE.py:NAME``, or a file of Python without the name."""
    return bool(_FACTORY.fullmatch(text)) or text.endswith(".py")


def refuse_pickle(path: Path) -> None:
    """Refuse files that run code when they are opened, whether they are there or not.

    Raises:
        ExportError: it is one; the message says how it becomes a ``.safetensors``.
    """
    if path.suffix.lower() in PICKLES:
        code = (
            f"import torch, safetensors.torch as s; d = torch.load({path.name!r}, map_location='cpu'); "
            f"s.save_file({{k: v.clone() for k, v in d.items()}}, {path.with_suffix('.safetensors').name!r})"
        )
        raise ExportError(
            "is never opened, because that can run code; where you trust it, convert the state dict that it holds "
            f'(often under a key of d): python -c "{code}"',
            where=str(path),
        )


def make_module(text: str) -> nn.Module:
    """Run a file of Python and call the function in it that makes a module.

    Args:
        text: ``FILE.py:NAME``; NAME is a class or a function that is called without arguments, or a module.

    Raises:
        GancompressError: there is no such file or name, it raises, or it makes no module.
    """
    found = _FACTORY.fullmatch(text)
    if found is None:
        raise RecipeError(f"name the function that makes the module, as in {text}:make", where=text)
    file, name = Path(found["file"]), found["name"]
    if not file.is_file():
        raise RecipeError("there is no such file", where=str(file))
    content = execute(file.resolve(), str(file))
    if not hasattr(content, name):
        known = [key for key in vars(content) if not key.startswith("_")]
        raise RecipeError(f"defines no {name}{did_you_mean(name, known)}", where=str(file))
    made = getattr(content, name)
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:  # someone else's code
            reason = " ".join(str(error).split())[:200] or "no reason given"
            raise RecipeError(
                f"{name}() raises {type(error).__name__}: {reason}; it is called without arguments", where=str(file)
            ) from error
    if not isinstance(made, nn.Module):
        raise RecipeError(f"{name}() must give a torch.nn.Module, not a {type(made).__name__}", where=str(file))
    return made


def read_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a ``.safetensors`` into a module, every tensor of both or none.

    Raises:
        ExportError: it cannot be read, or its tensors are not those of the module; the first ones of each side are
            named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_pickle(path)
    where = str(path)
    if path.suffix.lower() != ".safetensors":
        raise ExportError("weights are read from .safetensors files", where=where)
    if kind := kind_of(path):
        raise ExportError(f"is a {kind}, which holds its network itself: gancompress.load() opens it", where=where)
    try:
        found = load_file(where)
    except FileNotFoundError:
        raise ExportError("there is no such file", where=where) from None
    except (SafetensorError, OSError) as error:
        raise ExportError(f"cannot be read as safetensors: {' '.join(str(error).split())}", where=where) from error
    wanted = module.state_dict()
    problems = [*_missing("the file lacks", wanted, found), *_missing("the module has no", found, wanted)]
    shapes = [
        f"{key} is {_shape(found[key])} in the file and {_shape(wanted[key])} in the module"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    problems += _listed(shapes)
    if problems:
        raise ExportError(f"does not fit the module: {'; '.join(problems)}", where=where)
    module.load_state_dict(found)


def parse_example(text: str, option: str = "--example") -> Tensor:
    """Return an input of a shape: random numbers of 0 to 1, or zeros where they are integers.

    Args:
        text: sizes with x between them, such as ``1x3x256x256``; ``1x10:int64`` for another type than float32.
        option: where it was given.

    Raises:
        RecipeError: it is no shape.
    """
    sizes, _, dtype = text.partition(":")
    parts = sizes.split("x")
    if not all(part.isdecimal() and int(part) for part in parts) or (dtype and dtype not in DTYPES):
        raise RecipeError(f"{option} {text!r}: give sizes with x between them, such as 1x3x256x256 or 1x10:int64")
    shape = [int(part) for part in parts]
    if torch.Size(shape).numel() > _LARGEST:
        raise RecipeError(f"{option} {text!r}: is larger than memory; sizes that may change need not be the largest")
    kind = DTYPES[dtype or "float32"]
    rng = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=rng).to(kind) if kind.is_floating_point else torch.zeros(shape, dtype=kind)


def parse_axes(text: str) -> dict[int, str]:
    """Return the axes whose sizes may change, with their names.

    Args:
        text: such as ``0=n,2=h,3=w``.

    Raises:
        RecipeError: it is something else.
    """
    found = {}
    for part in text.split(",") if text else ():
        axis, _, name = part.strip().partition("=")
        if not axis.isdecimal() or not name.isidentifier():
            raise RecipeError(f"--dynamic {text!r}: give axes and names of their sizes, such as 0=n,2=h,3=w")
        found[int(axis)] = name
    return found


def _missing(words: str, these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> list[str]:
    names = [key for key in these if key not in those]
    return [f"{words} {', '.join(_listed(names))}"] if names else []


def _listed(items: Sequence[str]) -> list[str]:
    more = len(items) - _SHOWN
    return [*items[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
