"""Trained weights that a run starts from: out of another run's checkpoint, or a generator's file from elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.architecture.description import Architecture
from gancompress.backbones.spectral import settle
from gancompress.errors import BackboneError, CheckpointError, GancompressError, RecipeError, RunError
from gancompress.sparsity.state import PAIR, role_of
from gancompress.storage.checkpoint import load, put_to_use
from gancompress.training.decisions import below
from gancompress.training.ema import average_group, averaged_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Name

__all__ = [
    "InitialWeights",
    "check_tensors",
    "initial_architecture",
    "load_initial",
    "read_initial",
    "whole_generator",
]

#: mismatches that a message lists
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Weights to start from.

    Attributes:
        generator: state of the generator; of a run, its average, which is what was evaluated.
        discriminator: state of the discriminator; ``None`` when only a generator is known.
        scalars: those of the checkpoint; empty for a file from elsewhere.
        masks: of every network by the names of its weights; empty for a file from elsewhere.
        beside: states of networks that play beside the pair, by name.
    """

    generator: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor] | None
    scalars: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)
    beside: Mapping[Name, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)

    @property
    def known(self) -> dict[Name, Mapping[str, Tensor]]:
        """The states that are known, by the names of networks."""
        pair = {"generator": self.generator, "discriminator": self.discriminator}
        return {**{name: state for name, state in pair.items() if state is not None}, **self.beside}

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that depend on every name, type, shape and value."""
        digest = hashlib.blake2b(digest_size=8, person=b"gancompress-ini")
        for group, state in self.known.items():
            for name, tensor in sorted(state.items()):
                digest.update(f"{group}\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def initial_architecture(path: Path) -> Architecture | None:
    """Return what the networks of a checkpoint are, None when it does not say it or cannot be read."""
    if not path.is_dir():
        return None
    try:
        scalars = load(path, groups=()).scalars
    except CheckpointError:
        return None  # whoever reads the weights will say it
    with put_to_use(path):
        return Architecture.from_json(scalars["architecture"]) if "architecture" in scalars else None


def read_initial(path: Path) -> InitialWeights:
    """Read a checkpoint directory of a run, or a ``.safetensors`` file with a generator's weights.

    Raises:
        RunError: there is nothing of either kind.
        CheckpointError: it is truncated or altered.
    """
    if path.is_dir():
        described = load(path, groups=()).scalars.get("architecture", {})
        others = tuple(map(str, described.get("beside", ()))) if isinstance(described, dict) else ()
        averages = {name: average_group(name) for name in others if role_of(name) == "generator"}
        kept = {name: averages.get(name, name) for name in others}
        snapshot = load(path, groups=("ema", "discriminator", "sparsity", *kept.values()))
        with put_to_use(path):
            generator, sparsity = averaged_state(snapshot.groups["ema"]), snapshot.groups["sparsity"]
            states = {
                name: averaged_state(snapshot.groups[group]) if name in averages else dict(snapshot.groups[group])
                for name, group in kept.items()
            }
        masks: dict[str, dict[str, Tensor]] = {name: below(sparsity, f"{name}.mask.") for name in (*PAIR, *others)}
        return InitialWeights(generator, dict(snapshot.groups["discriminator"]), snapshot.scalars, masks, states)
    if not path.is_file():
        raise RunError("no such checkpoint or file", where=str(path))
    if path.suffix != ".safetensors":
        raise RunError(
            "is neither a run nor a network: give a run directory, FILE.onnx, my_net.py:make, or weights as "
            ".safetensors; other formats can run code when they are opened",
            where=str(path),
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return InitialWeights(load_file(str(path)), None)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot be read as safetensors: {error}", where=str(path)) from error


def load_initial(
    recipe: Recipe, networks: Mapping[Name, Generator | Discriminator]
) -> Mapping[str, Mapping[str, Tensor]]:
    """Put the weights that a recipe starts from into its networks; without any, leave them as initialised.

    Those of a generator are an average, and get the spectral norms that are their own.

    Returns:
        Masks of all networks that the run is to keep where it can; none if it is told to draw new ones.

    Raises:
        GancompressError: the weights are not there, not those that the recipe means, or do not fit.
    """
    wanted = recipe.training.init_from
    if wanted is None:
        return {}
    try:
        weights = read_initial(Path(wanted.path))
    except GancompressError as error:
        raise type(error)(f"training.init_from: {error.message}", where=error.where) from error
    if weights.hash != wanted.hash:
        raise RecipeError(
            f"training.init_from: {wanted.path} holds other weights ({weights.hash}) than the recipe means "
            f"({wanted.hash}); set training.init_from.hash={weights.hash} to start from these"
        )
    for name, network in networks.items():
        if (state := weights.known.get(name)) is not None:
            state = network.adopted(state, wanted.path)
            check_tensors(network, state, wanted.path)
            network.load_state_dict(dict(state), strict=False)
        if role_of(name) == "generator":
            settle(network)
    return weights.masks if wanted.masks == "keep" else {}


def check_tensors(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Hold the names and shapes of ``state`` against those of ``network``; counters of batch norm may be missing.

    Raises:
        BackboneError: they differ; the message lists the first mismatches.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    mismatches = []
    for name, shape in expected.items():
        if name not in state:
            if not name.endswith("num_batches_tracked"):
                mismatches.append(f"{name} {shape} is missing")
        elif tuple(state[name].shape) != shape:
            mismatches.append(f"{name} is {tuple(state[name].shape)}, must be {shape}")
    mismatches += [f"{name} {tuple(state[name].shape)} is unknown" for name in state if name not in expected]
    if mismatches:
        more = f"; and {len(mismatches) - _SHOWN} more" if len(mismatches) > _SHOWN else ""
        raise BackboneError(
            f"the weights do not fit {type(network).__name__} as the recipe builds it: "
            f"{'; '.join(mismatches[:_SHOWN])}{more}",
            where=where,
        )


def whole_generator(architecture: Architecture, weights: InitialWeights, where: str) -> Generator:
    """Return a generator with the weights of a checkpoint, in eval mode, as it is measured and used.

    Raises:
        BackboneError: they do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        network = architecture.generator()
    state = network.adopted(weights.generator, where)
    check_tensors(network, state, where)
    network.load_state_dict(dict(state), strict=False)
    settle(network)
    return network.eval()
