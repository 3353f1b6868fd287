"""What is known of a graph before it runs: sizes of its values, and values that no input changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.graphs.graph import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.graphs.build import CapturedModule

__all__ = ["constants_of", "values_of"]

#: Operations that give what they get a shape of; the meta device is slow to find that out.
_ALIKE = {
    f"aten.{name}.default"
    for name in ("relu", "leaky_relu", "prelu", "_prelu_kernel", "batch_norm", "group_norm", "instance_norm", "tanh",
                 "sigmoid", "silu", "elu")
}  # fmt: skip


def values_of(network: CapturedModule, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Return every value of a network on the meta device, by name, without its numbers: tensors, and sizes.

    Args:
        network: on the meta device.
        inputs: of the call; only their shapes and dtypes matter.
    """
    graph = network.captured
    values: dict[str, Any] = {
        one.name: x.detach().to("meta") for one, x in zip(graph.inputs, inputs, strict=True)
    }  # fmt: skip
    with torch.device("meta"), torch.no_grad():
        for index, node in enumerate(graph.nodes):
            x = values.get(getattr(node.args[0], "name", "")) if node.op in _ALIKE else None
            values[node.name] = network.operation(index, values) if x is None else x
    return values


def constants_of(network: CapturedModule) -> dict[str, Tensor]:
    """Return the values that are computed of stored tensors alone, by name."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for index, node in enumerate(network.captured.nodes):
            references = list(node.references())
            if references and all(isinstance(one, Stored) or one.name in found for one in references):
                value = network.operation(index, found)
                if isinstance(value, Tensor):
                    found[node.name] = value
    return found
