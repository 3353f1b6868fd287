"""``cost.json``: theory, time and bytes in groups of their own, and the layers they come from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Protocol

from gancompress.cost.bytes import network_bytes, optimizer_bytes
from gancompress.cost.flops import sample_cost
from gancompress.cost.latency import measure_latency
from gancompress.cost.profile import profile
from gancompress.cost.training import training_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.cost.ledger import TrainingLedger
    from gancompress.cost.profile import NetworkProfile
    from gancompress.sparsity.state import Role, SparseState

__all__ = ["CostReport", "cost_summary", "run_cost"]

_COUNTED: Final = (
    "MACs of kept weights at every position of the published architecture; biases and products without weights counted "
    "dense. Normalisation, activations, resampling, residual sums, embeddings, spectral norm's power iterations, "
    "optimizer steps, orthogonal regularisation and topology updates are not counted. A backward pass is two forward "
    "passes."
)


@dataclasses.dataclass(frozen=True)
class CostReport:
    """What a run costs, as ``cost.json`` holds it.

    Attributes:
        theory: operations counted from shapes and masks; nothing was timed.
        time: measured seconds.
        bytes: sizes of tensors as allocated, and of a packed file.
        layers: one record per layer: role, name, shape, numel, nonzeros, density, macs_dense, macs_sparse.
    """

    theory: Mapping[str, Any]
    time: Mapping[str, Any]
    bytes: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``cost.json``."""
        return {
            "theory": dict(self.theory),
            "time": dict(self.time),
            "bytes": dict(self.bytes),
            "layers": [dict(layer) for layer in self.layers],
        }


def cost_summary(
    profiles: Mapping[Role, NetworkProfile],
    budgets: Mapping[Role, Mapping[str, int]],
    ledger: TrainingLedger | None = None,
    *,
    time: Mapping[str, Any] | None = None,
    bytes: Mapping[str, Any] | None = None,
) -> CostReport:
    """Put the cost of a run together.

    Args:
        profiles: layers of both networks.
        budgets: kept weights per tensor at the end of training; tensors that are not named are dense.
        ledger: what training did; without it only inference is counted.
        time: measured times, passed through.
        bytes: sizes, passed through.
    """
    theory: dict[str, Any] = {
        "inference": {role: sample_cost(found, budgets.get(role)).to_dict() for role, found in profiles.items()},
        "counted": _COUNTED,
    }
    if ledger is not None:
        executed = training_cost(ledger, profiles, counting="executed")
        theory["training"] = {
            **training_cost(ledger, profiles).to_dict(),
            "executed": {key: value for key, value in executed.to_dict().items() if key != "convention"},
        }
    layers = [
        _layer(role, layer, budgets.get(role, {}).get(layer.name, layer.size))
        for role, found in profiles.items()
        for layer in found.layers
    ]
    return CostReport(theory, time or {}, bytes or {}, tuple(layers))


def _layer(role: Role, layer: Any, nonzeros: int) -> dict[str, Any]:
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
    }


class _Masks(Protocol):
    """What is asked of the engine."""

    def state(self, role: Role) -> SparseState:
        """Return the masks of one network."""

    def count_steps(self) -> None:
        """Bring the ledger up to date."""


class _Trained(Protocol):
    """What is asked of a trainer; its module stays unknown to this room."""

    @property
    def generator(self) -> Generator: ...
    @property
    def discriminator(self) -> Discriminator: ...
    @property
    def engine(self) -> _Masks: ...
    @property
    def ledger(self) -> TrainingLedger: ...
    @property
    def optimizers(self) -> Mapping[Role, Optimizer]: ...


def run_cost(trained: _Trained, training_seconds: float) -> dict[str, Any]:
    """Return ``cost.json`` of a run that ended, given the measured seconds of its training.

    The generator's forward pass is timed here, one image at a time, in this process.
    """
    networks: dict[Role, Generator | Discriminator] = {
        "generator": trained.generator,
        "discriminator": trained.discriminator,
    }
    trained.engine.count_steps()
    budgets = {role: trained.engine.state(role).budgets for role in networks}
    sizes: dict[str, Any] = {
        role: {
            **dataclasses.asdict(network_bytes(network, budgets[role])),
            "optimizer": optimizer_bytes(trained.optimizers[role]),
        }
        for role, network in networks.items()
    }
    timed = {
        "training_seconds": training_seconds,
        "generator_latency": measure_latency(trained.generator).to_dict(),
    }
    profiles = {role: profile(network) for role, network in networks.items()}
    return cost_summary(profiles, budgets, trained.ledger, time=timed, bytes=sizes).to_dict()
