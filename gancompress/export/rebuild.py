"""From the name and the config of a backbone, and tensors, to a generator. No class definition is asked of anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from gancompress.components.registry import BACKBONES
from gancompress.errors import ExportError, GancompressError
from gancompress.export.folding import write_out
from gancompress.recipe.components import config_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.backbones.base import Generator
    from gancompress.data.base import ImageSpec

__all__ = ["build_generator", "check_tensors"]


def build_generator(model: Mapping[str, Any], image: ImageSpec, state: Mapping[str, Tensor]) -> Generator:
    """Build a generator in eval mode, without parametrisations, that holds the tensors of ``state``.

    Args:
        model: ``name`` of the backbone and the fields of its ``Config``.
        image: shape and classes of the images.
        state: exactly the tensors of the generator; they are taken over, not copied.

    Raises:
        ExportError: the config or the tensors are not of this backbone.
        ComponentError: the backbone is unknown here.
    """
    check_tensors(model, image, state)
    generator = _built(model, image)
    _compare(generator.state_dict(), state, _name(model))
    generator.load_state_dict(dict(state), assign=True)
    return generator.eval().requires_grad_(False)


def check_tensors(model: Mapping[str, Any], image: ImageSpec, state: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and dtypes with those of the backbone, which takes no memory whatever the config asks for.

    Args:
        model: see :func:`build_generator`.
        image: see :func:`build_generator`.
        state: the tensors; what they hold is not looked at, they may be on the meta device.

    Raises:
        ExportError: the config or the tensors are not of this backbone.
        ComponentError: the backbone is unknown here.
    """
    try:
        with torch.device("meta"):
            own = _built(model, image).state_dict()
    except _BuildError:
        return  # some constructors want to see numbers: building it in earnest will tell
    _compare(own, state, _name(model))


class _BuildError(ExportError):
    """A constructor failed."""


def _name(model: Mapping[str, Any]) -> str:
    return str(model.get("name", ""))


def _built(model: Mapping[str, Any], image: ImageSpec) -> Generator:
    config = dict(model)
    name = str(config.pop("name", ""))
    try:
        settings = config_type(BACKBONES, name).model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ExportError(f"the config does not fit backbone {name!r}: {key}: {first['msg']}") from error
    backbone: Any = BACKBONES.get(name)
    try:
        with torch.random.fork_rng(devices=[]):
            generator: Generator = write_out(backbone(settings, image).generator().eval())
    except GancompressError:
        raise
    except Exception as error:  # sizes that make no sense together fail somewhere in torch, or in a plugin
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _BuildError(f"backbone {name!r} cannot be built with the config ({reason})") from error
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
