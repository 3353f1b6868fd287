"""Measured time of a generator's forward pass, with everything that was on while it was measured."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING

import torch

from gancompress.cost.profile import evaluating
from gancompress.seeds import generator as random_generator

if TYPE_CHECKING:
    from gancompress.backbones.base import Generator

__all__ = ["Latency", "measure_latency"]


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of one batch.

    Attributes:
        median_seconds: median over the repeats.
        quartiles_seconds: first and third quartile.
        batch: images per pass.
        repeats: timed passes.
        device: where it ran, as the device names itself.
        threads: CPU threads that torch could use.
        dtype: type of the weights.
        autocast: type that autocast computed in, ``off`` without.
        kernels: ``dense``: masked weights were multiplied like any other; otherwise what the caller says ran.
    """

    median_seconds: float
    quartiles_seconds: tuple[float, float]
    batch: int
    repeats: int
    device: str
    threads: int
    dtype: str
    autocast: str
    kernels: str

    def to_dict(self) -> dict[str, object]:
        """Return all of it, ready for JSON."""
        return {**dataclasses.asdict(self), "quartiles_seconds": list(self.quartiles_seconds)}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_latency(
    network: Generator, batch: int = 1, *, repeats: int = 11, warmup: int = 2, kernels: str = "dense"
) -> Latency:
    """Time the generator in evaluation mode on its present device and threads; its modes are restored.

    Args:
        network: the generator.
        batch: images per pass.
        repeats: timed passes, at least 2.
        warmup: passes before them.
        kernels: what computes the layers, for the record.
    """
    if repeats < 2:
        raise ValueError("quartiles need at least 2 repeats")
    weight = next(network.parameters())
    device = weight.device
    rng = random_generator(0, "latency")
    z = torch.randn(batch, network.latent_dim, generator=rng).to(device, weight.dtype)
    labels = torch.arange(batch, device=device) % network.num_classes if network.num_classes else None
    seconds: list[float] = []
    with evaluating(network):
        for index in range(warmup + repeats):
            _synchronize(device)
            start = time.perf_counter()
            network(z, labels)
            _synchronize(device)
            if index >= warmup:
                seconds.append(time.perf_counter() - start)
    first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    return Latency(
        median_seconds=median,
        quartiles_seconds=(first, third),
        batch=batch,
        repeats=repeats,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        dtype=str(weight.dtype).removeprefix("torch."),
        autocast=str(autocast).removeprefix("torch.") if autocast is not None else "off",
        kernels=kernels,
    )
