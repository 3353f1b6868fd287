"""Layers made narrower than a backbone's config has them, whatever the backbone.

Channels may be removed from single layers; a config has one number for all. So a network is built by its config, and
every tensor whose described shape is smaller is cut to it, the first channels kept; layers are told their new sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from gancompress.errors import BackboneError
from gancompress.sparsity.weights import stored_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["resize"]


@torch.no_grad()
def resize(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Cut the tensors of ``network`` to ``shapes``, in place.

    Linear layers, convolutions, normalisations and embeddings can be cut, with or without spectral norm. Shared
    parameters stay shared.

    Args:
        network: as its config has it.
        shapes: by name, for every tensor of its state.

    Raises:
        BackboneError: a tensor is missing or unknown, would grow, or belongs to a layer that cannot be cut.
    """
    state = network.state_dict()
    for name in sorted(state.keys() ^ shapes.keys()):
        raise BackboneError(f"tensor {name} is {'missing' if name in state else 'unknown'} in the description")
    tied: dict[int, nn.Parameter] = {}
    changed = {name: shape for name, shape in shapes.items() if tuple(state[name].shape) != tuple(shape)}
    for name, shape in changed.items():
        path, _, leaf = name.rpartition(".")
        owner = network.get_submodule(path)
        tensor = state[name]
        layer = network.get_submodule(path.partition(".parametrizations")[0]) if "parametrizations" in path else owner
        fits = tensor.dim() == len(shape) and all(0 < new <= old for new, old in zip(shape, tensor.shape, strict=True))
        spatial = isinstance(layer, _ConvNd) and tensor.dim() > 2 and tuple(shape[2:]) != tuple(tensor.shape[2:])
        if not fits or spatial or not isinstance(layer, nn.Linear | _ConvNd | _NormBase | nn.Embedding | nn.PReLU):
            raise BackboneError(
                f"{name} is {tuple(shape)}, the config gives {tuple(tensor.shape)}, and {type(layer).__name__} "
                "cannot be cut to that"
            )
        cut = tensor[tuple(slice(size) for size in shape)].clone()
        parameter = owner._parameters.get(leaf)
        if parameter is not None:
            new = tied.setdefault(id(parameter), nn.Parameter(cut, requires_grad=parameter.requires_grad))
            if new.shape != cut.shape:
                raise BackboneError(
                    f"{name} is shared and cannot be {tuple(shape)} here and {tuple(new.shape)} elsewhere"
                )
            owner._parameters[leaf] = new
        else:
            owner._buffers[leaf] = cut
    for name in {name.rpartition(".")[0].partition(".parametrizations")[0] for name in changed}:
        _tell(network.get_submodule(name), name)


def _weight(layer: nn.Module) -> Tensor:
    stored = stored_parameter(layer)
    return layer.weight if stored is None else stored  # type: ignore[return-value]


def _tell(layer: nn.Module, name: str) -> None:
    """Set the sizes that a layer remembers to those of its tensors."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = _weight(layer).shape
    elif isinstance(layer, _ConvNd):
        first, second = _weight(layer).shape[:2]
        transposed = isinstance(layer, _ConvTransposeNd)
        if layer.groups == layer.in_channels > 1:  # as many groups as channels; otherwise narrower ones
            layer.groups = first if transposed else first * layer.in_channels // layer.out_channels
        if layer.groups < 1 or first % layer.groups:
            raise BackboneError(f"{name} has {layer.groups} groups and cannot be cut to {first} rows")
        second *= layer.groups
        layer.in_channels, layer.out_channels = (first, second) if transposed else (second, first)
    elif isinstance(layer, _NormBase):
        layer.num_features = len(layer.running_mean if layer.running_mean is not None else layer.weight)
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
