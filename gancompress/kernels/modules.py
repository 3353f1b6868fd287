"""Gives existing layers the sparse kernels without changing the model.

:func:`attach` overrides one method of one module *instance*; parameters, parametrizations (spectral norm), hooks, state
dict and class stay as they are, and ``copy.deepcopy`` (as for an averaged copy) carries it along.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.errors import KernelError
from gancompress.kernels import ops
from gancompress.kernels.pattern import Pattern, as_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from gancompress.kernels.tuning import Mode

__all__ = ["Attachment", "after_relu", "attach", "attached", "detach", "supports"]

_NAME = "_gancompress_sparse"
_log = logging.getLogger(__name__)


@dataclass
class Attachment:
    """How one module is computed; the engine may change it between calls.

    Attributes:
        pattern: what is kept; assign a new one after a topology update.
        dense_gradient: give the weight's gradient at masked positions too, on the steps that need it.
        sparse: ``always``, ``never``, ``auto``, or None for ``GANCOMPRESS_SPARSE``.
        dense_because: None, or why this layer is always computed dense.
        masked: the weight is 0 off the mask already and its gradient is masked elsewhere (see ``ops.conv2d``).
        table: break-evens of this run (see ``tuning.break_even``).
        batch_last: maps leave this layer batch last (see :mod:`gancompress.kernels.layout`).
        pre_relu: the layer takes ``relu(x)``; :func:`after_relu` sets it for one call.
    """

    pattern: Pattern
    dense_gradient: bool = False
    sparse: Mode | None = None
    dense_because: str | None = None
    masked: bool = False
    table: dict[str, float] | None = None
    batch_last: bool = False
    pre_relu: bool = False

    def options(self) -> dict[str, Any]:
        """Return what every operator is told."""
        return {n: getattr(self, n) for n in ("dense_gradient", "sparse", "masked", "table")}


def _one(value: Any) -> int | None:
    """The one number behind ``3``, ``(3, 3)``; None for anything else."""
    if isinstance(value, int):
        return value
    if isinstance(value, tuple) and len(set(value)) == 1 and isinstance(value[0], int):
        return value[0]
    return None


def _weight_shape(module: nn.Module) -> tuple[int, ...] | None:
    # Not from `module.weight`: reading that of a layer with spectral norm advances its power iteration.
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, nn.Conv2d):
        return module.out_channels, module.in_channels // module.groups, *module.kernel_size
    if isinstance(module, nn.ConvTranspose2d):
        return module.in_channels, module.out_channels // module.groups, *module.kernel_size
    return None


def _unsupported(module: nn.Module) -> str | None:
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return None
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return f"{name} has no sparse kernel"
    if _one(module.dilation) != 1:
        return f"{name} with dilation={module.dilation} has no sparse kernel"
    if module.padding_mode != "zeros":
        return f"{name} with padding_mode={module.padding_mode!r} has no sparse kernel"
    if _one(module.stride) is None or _one(module.padding) is None:
        return f"{name} with stride={module.stride}, padding={module.padding!r} has no sparse kernel"
    return None


def supports(module: nn.Module) -> bool:
    """Return whether the sparse kernels can compute this layer."""
    return _unsupported(module) is None


def _conv_forward(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    how: Attachment = self.__dict__[_NAME]
    stride, padding = _one(self.stride), _one(self.padding)
    if how.dense_because is not None or stride is None or padding is None or x.dim() != 4:
        plain = type(self)._conv_forward
        kept = weight if how.masked else ops.keep(weight, how.pattern, how.dense_gradient)
        out: Tensor = plain(self, F.relu(x) if how.pre_relu else x, kept, bias)
        return out
    return ops.conv2d(
        x, weight, how.pattern, bias, stride=stride, padding=padding, groups=self.groups, batch_last=how.batch_last,
        pre_relu=how.pre_relu, **how.options(),
    )  # fmt: skip


def _linear_forward(self: nn.Linear, x: Tensor) -> Tensor:
    how: Attachment = self.__dict__[_NAME]
    return ops.linear(x, self.weight, how.pattern, self.bias, **how.options())


def _transpose_forward(self: nn.ConvTranspose2d, x: Tensor, output_size: list[int] | None = None) -> Tensor:
    how: Attachment = self.__dict__[_NAME]
    extra = self.output_padding
    cut = self.padding if isinstance(self.padding, tuple) else (0, 0)  # a transposed convolution takes no names
    if output_size is not None:
        extra = tuple(self._output_padding(x, output_size, self.stride, cut, self.kernel_size, 2, self.dilation))  # type: ignore[arg-type]
    stride, padding, more = _one(self.stride), _one(self.padding), _one(extra)
    if how.dense_because is not None or stride is None or padding is None or more is None or x.dim() != 4:
        kept = self.weight if how.masked else ops.keep(self.weight, how.pattern, how.dense_gradient)
        return F.conv_transpose2d(x, kept, self.bias, self.stride, cut, extra, self.groups, self.dilation)
    return ops.conv_transpose2d(
        x, self.weight, how.pattern, self.bias, stride=stride, padding=padding, output_padding=more,
        groups=self.groups, batch_last=how.batch_last, **how.options(),
    )  # fmt: skip


def after_relu(module: nn.Module, x: Tensor) -> Tensor:
    """``module(relu(x))``; in a layer that runs on the kernels the ReLU costs nothing, forward and backward."""
    how = attached(module)
    if how is None or not isinstance(module, nn.Conv2d):
        out: Tensor = module(F.relu(x))
        return out
    how.pre_relu = True
    try:
        out = module(x)
    finally:
        how.pre_relu = False
    return out


def attach(module: nn.Module, mask: Tensor | Pattern, *, sparse: Mode | None = None) -> Attachment:
    """Make a layer compute with its mask, sparse where that is faster.

    Afterwards ``module(x)`` means the layer with ``where(mask, weight, 0)`` in place of its weight.

    Args:
        module: ``Conv2d``, ``ConvTranspose2d`` or ``Linear``. A layer that the kernels do not take (dilation, another
            padding mode, unequal strides) is computed dense, with its mask; any other module is left alone.
            Both are logged, and :attr:`Attachment.dense_because` says why.
        mask: of the weight's shape.
        sparse: see :func:`gancompress.kernels.conv2d`.

    Returns:
        The attachment, to be changed in place or replaced by attaching again.

    Raises:
        KernelError: the mask has another shape than the weight.
    """
    pattern = as_pattern(mask)
    shape = _weight_shape(module)
    if shape is not None and shape != pattern.shape:
        raise KernelError(f"{module}: the mask has shape {pattern.shape}, the weight {shape}")
    how = Attachment(pattern, sparse=sparse, dense_because=_unsupported(module))
    if how.dense_because is not None:
        _log.info("%s: computed dense", how.dense_because)
    methods: dict[type[nn.Module], tuple[str, Callable[..., Tensor]]] = {
        nn.Conv2d: ("_conv_forward", _conv_forward),
        nn.Linear: ("forward", _linear_forward),
        nn.ConvTranspose2d: ("forward", _transpose_forward),
    }
    for kind, (name, function) in methods.items():
        if isinstance(module, kind):
            module.__dict__[_NAME] = how
            module.__dict__[name] = MethodType(function, module)
    return how


def attached(module: nn.Module) -> Attachment | None:
    """Return what :func:`attach` put on this module, or None."""
    how = module.__dict__.get(_NAME)
    return how if isinstance(how, Attachment) else None


def detach(module: nn.Module) -> None:
    """Undo :func:`attach`; a module without attachment is left alone."""
    if module.__dict__.pop(_NAME, None) is not None:
        module.__dict__.pop("_conv_forward" if isinstance(module, nn.Conv2d) else "forward", None)
