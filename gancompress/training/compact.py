"""Optimizer moments at kept weights only (``sparsity.moments: compact``), with the same results bit for bit.

The optimizer holds a short vector in place of every masked tensor. Around each step the engine gathers the kept
gradients and values into these vectors, lets the optimizer step, and scatters the values back; a change of masks moves
the moments along. Whoever looks at the network, its gradients or its weights sees dense tensors as ever.

Equal bits need two things. The optimizer must treat every number alone: one that looks at norms, rows or signs of whole
tensors is refused. And a vectorised loop treats the last few elements of a tensor differently (rounding twice where a
fused multiply-add rounds once). So a vector ends with the same ``numel % 64`` places as its tensor, masked ones
included, and what comes before is padded to a multiple of 64: every kept number stays in the part it was in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.errors import UnsupportedOptimizerError
from gancompress.training.moments import is_elementwise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

__all__ = ["CompactMoments"]

#: a multiple of what vectorised loops take at a time (two vectors of 16 floats)
_UNIT = 64


class _Vector:
    """The kept numbers of one tensor, and their places in it.

    Args:
        weight: the dense parameter, in any dense memory format.
        mask: bool, of its shape.

    Attributes:
        values: what the optimizer holds, 1-d: the kept weights, padding, and the last places of the tensor.
    """

    def __init__(self, weight: nn.Parameter, mask: Tensor) -> None:
        strides: tuple[int, ...] = weight.stride()
        # places are counted in memory order, which is the order of the optimizer's loops
        self._order = sorted(range(weight.dim()), key=lambda d: (-strides[d], d))
        self.weight = weight
        kept = self._flat(mask)
        self._whole = weight.numel() - weight.numel() % _UNIT
        self._index = kept[: self._whole].nonzero().flatten()
        self._last = kept[self._whole :].clone()
        self._padded = -(-len(self._index) // _UNIT) * _UNIT
        self.values = nn.Parameter(weight.new_zeros(self._padded + len(self._last)))
        self._gradient = torch.zeros_like(self.values)

    def _flat(self, tensor: Tensor) -> Tensor:
        """The elements of a tensor of the weight's shape, in the order of the weight's memory; a view if it can be."""
        return tensor.permute(self._order).reshape(-1)

    def gather(self, dense: Tensor, out: Tensor) -> Tensor:
        """Fill ``out``, shaped like ``values``, with the kept elements of ``dense``; its padding is left alone."""
        flat = self._flat(dense)
        torch.index_select(flat, 0, self._index, out=out[: len(self._index)])
        if len(self._last):
            out[self._padded :] = torch.where(self._last, flat[self._whole :], 0)
        return out

    def scatter(self, vector: Tensor, dense: Tensor) -> Tensor:
        """Put the kept elements of ``vector`` to their places in ``dense``, laid out like the weight; no others."""
        flat = self._flat(dense)
        flat.index_copy_(0, self._index, vector[: len(self._index)])
        if len(self._last):
            last = flat[self._whole :]
            last.copy_(torch.where(self._last, vector[self._padded :], last))
        return dense

    def compress(self, dense: Tensor) -> Tensor:
        """Return a dense moment as a vector."""
        return self.gather(dense, torch.zeros_like(self.values, dtype=dense.dtype, requires_grad=False))

    def expand(self, vector: Tensor) -> Tensor:
        """Return a vector as a dense tensor, 0 off the mask."""
        return self.scatter(vector, torch.zeros_like(self.weight, dtype=vector.dtype, requires_grad=False))

    def load(self) -> None:
        """Take the weight's values and its gradient, which is released: the optimizer's ``zero_grad`` cannot see it."""
        self.gather(self.weight.detach(), self.values.detach())
        gradient, self.weight.grad = self.weight.grad, None
        self.values.grad = None if gradient is None else self.gather(gradient, self._gradient)

    def store(self) -> None:
        """Give the weight its new values."""
        self.scatter(self.values.detach(), self.weight.detach())


class CompactMoments:
    """Makes an optimizer hold vectors of kept weights in place of masked tensors.

    Args:
        optimizer: of all parameters of a network; its parameter groups are changed in place.
        parameters: the prunable ones, by name.

    Raises:
        UnsupportedOptimizerError: it does not treat every weight alone.
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        if not is_elementwise(optimizer):
            raise UnsupportedOptimizerError(
                f"sparsity.moments: compact cannot be the same as masked with optimizer {type(optimizer).__name__}, "
                "which does not treat every weight alone as it is set up here; choose adam, adamw, sgd, rmsprop or "
                "lion, or --set sparsity.moments=masked"
            )
        self._optimizer = optimizer
        self._parameters = dict(parameters)
        self._vectors: dict[str, _Vector] = {}
        places = {
            id(parameter): (group["params"], i)
            for group in optimizer.param_groups
            for i, parameter in enumerate(group["params"])
        }
        self._places = {name: places[id(parameter)] for name, parameter in parameters.items()}

    @torch.no_grad()
    def follow(self, masks: Mapping[str, Tensor]) -> None:
        """Hold exactly these tensors as vectors; moments of weights that stay kept stay, all others become 0.

        Args:
            masks: of the tensors that are not kept whole.
        """
        for name, parameter in self._parameters.items():
            old = self._vectors.pop(name, None)
            before = parameter if old is None else old.values
            after = parameter
            new: _Vector | None = None
            if name in masks:
                new = self._vectors[name] = _Vector(parameter, masks[name])
                after, parameter.grad = new.values, None  # out of reach of the optimizer's zero_grad from now on
            state = self._optimizer.state.pop(before, None)
            if state:
                self._optimizer.state[after] = {
                    key: _moved(value, old, new) if _is_moment(value, before) else value for key, value in state.items()
                }
            held, place = self._places[name]
            held[place] = after

    @torch.no_grad()
    def load(self) -> None:
        """Gather weights and gradients, right before the optimizer's step."""
        for vector in self._vectors.values():
            vector.load()

    @torch.no_grad()
    def store(self) -> None:
        """Scatter the weights, right after the optimizer's step."""
        for vector in self._vectors.values():
            vector.store()

    def holder(self, name: str) -> nn.Parameter:
        """Return the parameter that the optimizer holds for a tensor."""
        vector = self._vectors.get(name)
        return self._parameters[name] if vector is None else vector.values

    def dense(self, name: str, moment: Tensor) -> Tensor:
        """Return a moment of a tensor in the tensor's shape, 0 where masked."""
        vector = self._vectors.get(name)
        return moment if vector is None else vector.expand(moment)


def _is_moment(value: Any, holder: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == holder.shape


def _moved(value: Tensor, old: _Vector | None, new: _Vector | None) -> Tensor:
    dense = value if old is None else old.expand(value)
    return dense if new is None else new.compress(dense)
