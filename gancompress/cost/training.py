"""What a whole training run computes, from its counter and the layers of its networks.

Counted in forward-equivalents: a forward pass of one sample is 1, its backward pass 2 (gradients to the activations
and to the weights). In one training step, n_d discriminator steps of batch b and a generator step of batch g,

* the generator makes ``b n_d`` images for the discriminator and trains on ``g``: ``b n_d + 3 g``;
* the discriminator trains on b real and b generated images n_d times, and passes a gradient to the generator's images
  without one to its own weights: ``6 b n_d + 2 g``.

Frozen layers come first in their network, so that its own steps pass no gradient back through them: in a discriminator
they cost ``2 b n_d`` and, for the gradient to the generator's images, ``2 g``. In extra work, such as penalties, they
are counted like any other layer.

A step whose gradient is wanted at masked positions too also computes the weight gradient of the masked weights.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.cost.profile import FLOPS_PER_MAC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.cost.counter import NonzeroCount, TrainingCounter
    from gancompress.cost.profile import Counting, NetworkProfile
    from gancompress.sparsity.state import Name

__all__ = ["TrainingCost", "training_cost"]

#: extra work that dense training with the same objective does as well
_SHARED = frozenset({"penalty", "real_logits", "teacher", "path_length", "consistency"})


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """MACs of a whole training run, exact.

    Attributes:
        dense_macs: the same number of steps with dense networks and the same objective.
        parts: MACs by what they were spent on: the name of every network (its steps),
            ``dense_gradients``, and every reason of the counter's extra work.
    """

    dense_macs: int
    parts: Mapping[str, int]

    @property
    def macs(self) -> int:
        """All that was computed."""
        return sum(self.parts.values())

    @property
    def ratio(self) -> float:
        """Share of the dense cost; 1 for a run without steps."""
        return self.macs / self.dense_macs if self.dense_macs else 1.0

    def to_dict(self) -> dict[str, object]:
        """Return FLOPs (2 per MAC), the parts and how they were counted, ready for JSON."""
        return {
            "flops": FLOPS_PER_MAC * self.macs,
            "dense_flops": FLOPS_PER_MAC * self.dense_macs,
            "flops_ratio": self.ratio,
            "parts_flops": {name: FLOPS_PER_MAC * macs for name, macs in self.parts.items()},
            "convention": "steps",
        }


def training_cost(
    counter: TrainingCounter,
    profiles: Mapping[Name, NetworkProfile],
    counting: Counting = "published",
) -> TrainingCost:
    """Count the MACs of the run that ``counter`` describes.

    Args:
        counter: what was done; rounds and pre-training are in it when they used the same counter.
        profiles: layers of every network.
        counting: the architecture as published, or as executed here.
    """
    parts: dict[str, int] = {}
    dense = 0
    for role, profile in profiles.items():
        per_step, steps = counter.forward_equivalents(role), counter.steps[role]
        saved = _backward_of_step(counter, role) * profile.frozen_macs(counting) * steps.amount
        parts[role] = per_step * _forward(profile, steps, counting) - saved
        dense += per_step * _dense_forward(profile, steps, counting) - saved
    parts["dense_gradients"] = sum(
        _masked_gradients(counter, role, profile, counting) for role, profile in profiles.items()
    )
    for reason, counts in counter.extra.items():
        parts[reason] = sum(_forward(profiles[role], counts[role], counting) for role in profiles)
        if reason in _SHARED:
            dense += sum(_dense_forward(profiles[role], counts[role], counting) for role in profiles)
    for reason, macs in counter.beside.items():
        parts[reason] = parts.get(reason, 0) + macs[counting]
        if reason in _SHARED:
            dense += macs[counting]
    return TrainingCost(dense, parts)


def _backward_of_step(counter: TrainingCounter, role: Name) -> int:
    """Return the forward-equivalents of a training step that pass gradients back in the network's own steps."""
    return 2 * counter.gradient_samples(role) * counter.optimizer_steps(role)


def _forward(profile: NetworkProfile, count: NonzeroCount, counting: Counting) -> int:
    """Return the MACs of one forward pass per unit of ``count``, at the non-zeros it recorded."""
    weights = sum(layer.positions(counting) * count.total(layer.name, layer.size) for layer in profile.layers)
    return weights + profile.other_macs(counting) * count.amount


def _dense_forward(profile: NetworkProfile, count: NonzeroCount, counting: Counting) -> int:
    return (profile.weight_macs(counting=counting) + profile.other_macs(counting)) * count.amount


def _masked_gradients(counter: TrainingCounter, role: Name, profile: NetworkProfile, counting: Counting) -> int:
    """Return the MACs of weight gradients at masked positions, on the steps that asked for them."""
    count = counter.dense_gradients[role]
    masked = sum(
        layer.positions(counting) * (count.amount * layer.size - count.total(layer.name, layer.size))
        for layer in profile.layers
    )
    return counter.gradient_samples(role) * masked
