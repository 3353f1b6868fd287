"""How public sparse-GAN codes do what the suite times: imitations of their manner, written for these measurements.

No line is theirs. What is imitated is what costs: which operations run, on how many tensors, in what order.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def mask_by_state_dict(network: nn.Module, masks: dict[str, Tensor]) -> None:
    """Mask as GAN-LTH does: through the state dict, asked for once per tensor, copied whole, and loaded again."""
    state = copy.deepcopy(network.state_dict())
    for key, mask in masks.items():
        state[key] = copy.deepcopy(network.state_dict()[key]) * mask
    network.load_state_dict(state)


def mask_one_by_one(weights: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Mask as ADAPT does: a product per tensor, into new memory."""
    for parameter, mask in weights:
        parameter.data = parameter.data * mask


def average_by_state_dict(average: nn.Module, live: nn.Module, decay: float = 0.999) -> None:
    """Average as most do: tensor by tensor through two state dicts, asked for once per tensor."""
    with torch.no_grad():
        for key in live.state_dict():
            own, new = average.state_dict()[key], live.state_dict()[key]
            own.copy_(own * decay + new * (1 - decay))


def update_topology(
    weights: dict[str, Tensor], masks: dict[str, Tensor], gradients: dict[str, Tensor], share: float = 0.3
) -> dict[str, Tensor]:
    """Drop by magnitude and grow by gradient with two full sorts per layer, thresholds read back to the host."""
    found = {}
    for name, weight in weights.items():
        mask = masks[name].float()
        kept = int(mask.sum().item())
        swapped = int(share * kept)
        magnitudes = torch.sort((weight * mask).abs().flatten()).values
        threshold = magnitudes[weight.numel() - kept + swapped - 1].item()
        mask = ((weight * mask).abs() > threshold).float()
        scores = torch.sort((gradients[name].abs() * (mask == 0)).flatten(), descending=True).values
        threshold = scores[swapped - 1].item()
        found[name] = (mask + (gradients[name].abs() * (mask == 0) >= threshold)) > 0
    return found
