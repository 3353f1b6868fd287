"""Parts of a network that nothing trains: their numbers are constants, which no optimizer, mask or budget knows."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

__all__ = ["Frozen", "freeze"]

N = TypeVar("N", bound=nn.Module)


def freeze(network: N, *, stored: bool) -> N:
    """Turn every parameter of ``network`` into a buffer, and take its layers out of what may be pruned.

    Args:
        network: changed in place, and returned.
        stored: whether its tensors are part of a state, and so of checkpoints; False where they can be had again.
    """
    for module in network.modules():
        module.prunable = False  # type: ignore[assignment]
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                del module._parameters[name]
                module.register_buffer(name, parameter.detach(), persistent=stored)
        if not stored:
            module._non_persistent_buffers_set.update(module._buffers)
            # batch norm adds its counter to a state that has none, and would then not know it
            module._load_from_state_dict = _nothing  # type: ignore[assignment,method-assign]
    return network


def _nothing(*_: Any) -> None:
    pass


class Frozen(nn.Module):
    """A network as it is: frozen, and in evaluation mode always, so that its statistics never move.

    Gradients pass through it to its input.

    Args:
        network: see :func:`freeze`, as for ``stored``.
    """

    def __init__(self, network: nn.Module, *, stored: bool) -> None:
        super().__init__()
        self.network = freeze(network, stored=stored)
        self.train()

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, *inputs: Any) -> Any:
        """Return what the network gives."""
        return self.network(*inputs)
