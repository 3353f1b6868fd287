"""From a description and tensors to a generator in eval mode, without parametrisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.architecture.resize import resize
from gancompress.errors import BackboneError, ExportError, GancompressError
from gancompress.sparsity.weights import write_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import Generator

__all__ = ["build_generator", "check_tensors"]

#: A file whose config asks for more than so many times the weights that it holds is not believed.
_LARGEST = 1000


class _BuildError(ExportError):
    """A constructor failed."""


def build_generator(architecture: Architecture, state: Mapping[str, Tensor], *, narrowed: bool = False) -> Generator:
    """Build a generator that holds the tensors of ``state``.

    Args:
        architecture: its backbone, config and images.
        state: exactly the tensors of the generator; they are taken over, not copied.
        narrowed: layers may be narrower than the config has them.

    Raises:
        ExportError: the config or the tensors are not of this backbone.
        ComponentError: the backbone is unknown here.
    """
    check_tensors(architecture, state, narrowed=narrowed)
    generator = _built(architecture, state, narrowed)
    _compare(generator.state_dict(), state, architecture.backbone)
    generator.load_state_dict(dict(state), assign=True)
    return generator.requires_grad_(False)


def check_tensors(architecture: Architecture, state: Mapping[str, Tensor], *, narrowed: bool = False) -> None:
    """Compare names, shapes and dtypes with those of the backbone, which takes no memory whatever the config asks for.

    Args:
        architecture: see :func:`build_generator`.
        state: the tensors; what they hold is not looked at, they may be on the meta device.
        narrowed: see :func:`build_generator`.

    Raises:
        ExportError: the config or the tensors are not of this backbone.
        ComponentError: the backbone is unknown here.
    """
    try:
        with torch.device("meta"):
            own = _built(architecture, state, narrowed).state_dict()
    except _BuildError:
        return  # some constructors want to see numbers: building it in earnest will tell
    _compare(own, state, architecture.backbone)


def _built(architecture: Architecture, state: Mapping[str, Tensor], narrowed: bool) -> Generator:
    try:
        with torch.random.fork_rng(devices=[]):
            generator: Generator = write_out(architecture.generator().eval())
        if narrowed:
            whole, stored = (sum(one.numel() for one in of.values()) for of in (generator.state_dict(), state))
            if whole > _LARGEST * stored:
                raise ExportError(f"the config asks for {whole:,} numbers, the file holds {stored:,}")
            resize(generator, {name: tuple(tensor.shape) for name, tensor in state.items()})
    except BackboneError as error:
        raise ExportError(error.message) from error
    except GancompressError:
        raise
    except Exception as error:  # sizes that make no sense together fail somewhere in torch, or in a plugin
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _BuildError(f"backbone {architecture.backbone!r} cannot be built with the config ({reason})") from error
    return generator


def _compare(own: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> None:
    for key in sorted(own.keys() | state.keys()):
        if key not in state:
            raise ExportError(f"tensor {key} is missing: backbone {name!r} has it")
        if key not in own:
            raise ExportError(f"tensor {key} is not one of backbone {name!r}")
        if own[key].shape != state[key].shape or own[key].dtype is not state[key].dtype:
            raise ExportError(
                f"tensor {key} is {tuple(state[key].shape)} {state[key].dtype}, "
                f"backbone {name!r} has {tuple(own[key].shape)} {own[key].dtype}"
            )
