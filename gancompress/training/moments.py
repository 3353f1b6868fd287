"""What an optimizer remembers of a parameter: which state tensors are moments, and how to keep them on the mask.

A *moment* is a state tensor of the parameter's own shape (``exp_avg``, ``exp_avg_sq``, ``momentum_buffer``, …). Scalar
steps are left alone. Anything else (row and column factors, lists, preconditioners) mixes kept and masked weights and
cannot be masked: such an optimizer is refused rather than trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.errors import UnsupportedOptimizerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer

__all__ = ["first_moment", "is_elementwise", "moments", "moments_of"]

#: names that optimizers give to their first moment, in order of preference
FIRST_MOMENTS = ("exp_avg", "momentum_buffer", "momentum", "mu")

_ELEMENTWISE = frozenset(
    {
        torch.optim.Adadelta,
        torch.optim.Adagrad,
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.RMSprop,
        torch.optim.SGD,
    }
)
#: of timm, by name: whoever only opens a run need not wait for it to be imported
_ELEMENTWISE_OF_TIMM = frozenset({"Lion", "NAdamW", "RMSpropTF", "SGDW"})


def is_elementwise(optimizer: Optimizer) -> bool:
    """Whether the optimizer is known to treat every number alone, as if it were the only one.

    Then a weight whose value, gradient and moments are 0 stays exactly 0. timm's cautious variants look at the signs
    of whole tensors; with an epsilon of 0 a weight without gradient is divided by 0.
    """
    groups = optimizer.param_groups
    settled = all(not group.get("caution") and group.get("eps", 1.0) > 0 for group in groups)
    kind = type(optimizer)
    of_timm = kind.__module__.startswith("timm.optim.") and kind.__name__ in _ELEMENTWISE_OF_TIMM
    return settled and (of_timm or kind in _ELEMENTWISE)


def moments(optimizer: Optimizer, parameter: nn.Parameter, name: str = "parameter") -> dict[str, Tensor]:
    """Return the state tensors of ``parameter``, of its shape; none before the first step. Errors call it ``name``.

    Raises:
        UnsupportedOptimizerError: it keeps state of another shape, which cannot be masked.
    """
    found: dict[str, Tensor] = {}
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor):
            if value.shape == parameter.shape:
                found[key] = value
            elif value.numel() != 1:
                raise _unsupported(optimizer, f"{key!r} of shape {tuple(value.shape)}", name, parameter)
        elif isinstance(value, list | tuple | dict) and len(value):
            raise _unsupported(optimizer, f"{key!r}, a {type(value).__name__}", name, parameter)
    return found


def moments_of(optimizer: Optimizer, parameters: dict[str, nn.Parameter]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (parameter name, state key, tensor) for every moment of the given parameters.

    Raises:
        UnsupportedOptimizerError: see :func:`moments`.
    """
    for name, parameter in parameters.items():
        for key, value in moments(optimizer, parameter, name).items():
            yield name, key, value


def first_moment(optimizer: Optimizer, parameter: nn.Parameter) -> Tensor | None:
    """Return the first moment of ``parameter``, or None when the optimizer keeps none (or has not stepped yet)."""
    state = optimizer.state.get(parameter, {})
    for key in FIRST_MOMENTS:
        value = state.get(key)
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            return value
    return None


def _unsupported(optimizer: Optimizer, what: str, name: str, parameter: nn.Parameter) -> UnsupportedOptimizerError:
    return UnsupportedOptimizerError(
        f"optimizer {type(optimizer).__name__} keeps {what}, for {name} of shape {tuple(parameter.shape)}: such state "
        "cannot be masked; choose one that keeps a value per weight (adam, adamw, sgd, rmsprop, lion)"
    )
