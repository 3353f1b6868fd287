"""``cost.json``: theory, time and bytes in groups of their own, and the layers they come from."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from gancompress.backbones.base import Generator, evaluating, prunable_weights
from gancompress.cost.profile import profile, sample_cost
from gancompress.cost.training import training_cost
from gancompress.seeds import generator as random_generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from torch.optim import Optimizer

    from gancompress.backbones.base import Discriminator
    from gancompress.cost.counter import TrainingCounter
    from gancompress.cost.profile import LayerCost
    from gancompress.sparsity.state import Name
    from gancompress.sparsity.units import Units

__all__ = ["measure_latency", "network_bytes", "optimizer_bytes", "run_cost"]

_COUNTED: Final = (
    "MACs of kept weights at every position of the published architecture; biases and products without weights counted "
    "dense. Normalisation, activations, resampling, residual sums, embeddings, spectral norm's power iterations, "
    "optimizer steps, orthogonal regularisation and topology updates are not counted. A backward pass is two forward "
    "passes."
)


def run_cost(
    networks: Mapping[Name, Generator | Discriminator],
    budgets: Mapping[Name, Mapping[str, int]],
    optimizers: Mapping[Name, Optimizer],
    counter: TrainingCounter,
    training_seconds: float,
    units: Mapping[Name, Mapping[str, Units]] | None = None,
) -> dict[str, Any]:
    """Return ``cost.json`` of a run that ended.

    The generator's forward pass is timed here, one image at a time, in this process.

    Args:
        networks: all, by name, as they are now.
        budgets: kept weights per tensor at the end of training; tensors that are not named are dense.
        optimizers: of all.
        counter: what training did, up to its last step.
        training_seconds: measured.
        units: per network, what is kept or dropped as one in the tensors that hold the recipe's pattern; without any of
            a network, its layers keep single weights.

    Returns:
        ``theory`` (operations counted from shapes and masks; ``frozen`` are those of layers that nothing trains),
        ``time`` (measured seconds), ``bytes`` (of tensors as allocated, and of a packed file) and ``layers`` (one
        record per layer that is trained).
    """
    generator = networks["generator"]
    assert isinstance(generator, Generator)
    profiles = {role: profile(network) for role, network in networks.items()}
    frozen = {role: {"macs": macs} for role, found in profiles.items() if (macs := found.frozen_macs())}
    training, executed = (
        training_cost(counter, profiles, counting).to_dict() for counting in ("published", "executed")
    )
    del executed["convention"]
    return {
        "theory": {
            "inference": {role: sample_cost(found, budgets[role]).to_dict() for role, found in profiles.items()},
            **({"frozen": frozen} if frozen else {}),
            "counted": _COUNTED,
            "training": {**training, "executed": executed},
        },
        "time": {"training_seconds": training_seconds, "generator_latency": measure_latency(generator)},
        "bytes": {
            role: {**network_bytes(network, budgets[role]), "optimizer": optimizer_bytes(optimizers[role])}
            for role, network in networks.items()
        },
        "layers": [
            _layer(role, layer, budgets[role].get(layer.name, layer.size), (units or {}).get(role, {}))
            for role, found in profiles.items()
            for layer in found.layers
            if not layer.frozen
        ],
    }


def _layer(role: Name, layer: LayerCost, nonzeros: int, units: Mapping[str, Units]) -> dict[str, Any]:
    # recipes without a pattern keep their bytes
    own = {"unit": list(units[layer.name].box) if layer.name in units else None} if units and layer.prunable else {}
    return {
        "role": role,
        "name": layer.name,
        "shape": list(layer.shape),
        "numel": layer.size,
        "nonzeros": nonzeros,
        "density": nonzeros / layer.size,
        "macs_dense": layer.macs(),
        "macs_sparse": layer.macs(nonzeros),
        "prunable": layer.prunable,
        **own,
    }


def network_bytes(network: nn.Module, budgets: Mapping[str, int]) -> dict[str, int]:
    """Count the bytes of a network whose masks keep ``budgets`` weights per tensor (names as prunable weights).

    Returns:
        ``dense``: all parameters and buffers; ``packed``: the same with each masked weight as a bit per element and the
        values of its kept weights, or dense where that is smaller; ``masks``: the bits alone.
    """
    dense = sum(t.numel() * t.element_size() for t in [*network.parameters(), *network.buffers()])
    weights = prunable_weights(network)
    packed, masks = dense, 0
    for name, nonzeros in budgets.items():
        weight = weights[name].parameter
        whole, bits = weight.numel() * weight.element_size(), -(-weight.numel() // 8)
        if bits + nonzeros * weight.element_size() < whole:
            packed -= whole - bits - nonzeros * weight.element_size()
            masks += bits
    return {"dense": dense, "packed": packed, "masks": masks}


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of all tensors in the optimizer's state, as allocated."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure_latency(network: Generator, batch: int = 1, *, repeats: int = 11, warmup: int = 2) -> dict[str, Any]:
    """Time the generator in evaluation mode on its present device and threads; its modes are restored.

    Args:
        network: the generator.
        batch: images per pass.
        repeats: timed passes, at least 2.
        warmup: passes before them.

    Returns:
        Median and quartiles in seconds, with everything that was on. ``kernels`` is ``dense``: masked weights were
        multiplied like any other.
    """
    if repeats < 2:
        raise ValueError("quartiles need at least 2 repeats")
    weight = next(network.parameters())
    device = weight.device
    rng = random_generator(0, "latency")
    z = torch.randn(batch, *network.input_shape, generator=rng).to(device, weight.dtype)
    labels = torch.arange(batch, device=device) % network.num_classes if network.num_classes else None
    seconds: list[float] = []
    with evaluating(network):
        for index in range(warmup + repeats):
            start = time.perf_counter()
            network(z, labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if index >= warmup:
                seconds.append(time.perf_counter() - start)
    first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    return {
        "median_seconds": median,
        "quartiles_seconds": [first, third],
        "batch": batch,
        "repeats": repeats,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "autocast": str(autocast).removeprefix("torch.") if autocast is not None else "off",
        "kernels": "dense",
    }
