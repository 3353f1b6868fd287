"""Layers as matrices: what a block sees, times its matrix, is what the layer gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gancompress.reconstruct.matrix import MatrixLayer

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d, dilated": (nn.Conv1d(4, 6, 5, padding=4, dilation=2), (2, 4, 19)),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 9)),
    "conv2d, strided, uneven": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False), (3, 4, 8, 5)),
    "conv2d, groups": (nn.Conv2d(4, 6, 3, padding="same", groups=2), (2, 4, 5, 6)),
    "conv2d, depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 8, stride=4, padding=2), (2, 4, 7)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (2, 4, 5, 3)),
    "transposed 2d, odd": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 3)),
    "transposed 2d, groups, dilated": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=3), (2, 4, 4, 3)),
    "transposed, larger stride than kernel": (nn.ConvTranspose1d(4, 6, 2, stride=3), (2, 4, 5)),
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear, of three axes": (nn.Linear(5, 3), (2, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_what_a_block_sees_times_its_matrix_is_what_the_layer_gives(name: str) -> None:
    module, shape = LAYERS[name]
    layer, x, rng = MatrixLayer("layer", module), torch.randn(shape), torch.Generator().manual_seed(0)
    y, seen = module(x), 0
    for block in layer.blocks:
        columns, outputs = layer.columns(x, y, block, 10_000, rng)
        made = columns @ layer.matrix(module.weight, block).T
        if layer.has_bias:
            made = made + module.bias.reshape(layer.groups, -1)[block.group]
        assert torch.allclose(made, outputs, atol=1e-5)
        seen += outputs.numel()
        drawn, _ = layer.columns(x, y, block, 3, rng)
        assert len(drawn) == min(3, len(columns))
    if name != "transposed, larger stride than kernel":  # whose third phase sees nothing
        assert seen == y.numel()


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_blocks_put_together_are_the_weight(name: str) -> None:
    module, _ = LAYERS[name]
    layer, found = MatrixLayer("layer", module), torch.full_like(module.weight, torch.nan)
    for block in layer.blocks:
        layer.put(found, block, layer.matrix(module.weight, block))
    assert torch.equal(found, module.weight)
