"""The moving average of the generator, sparse like the generator itself.

With a plain average a weight that was just grown starts from 0 and needs thousands of steps to become itself. The
sparse rule (STU-GAN, "Don't Be So Dense", Liu et al., 2022, "sparse EMA") starts it from its live value instead: after
the first optimizer step of a grown weight its average *is* the weight. Which weights are new is told by the topology
update, never guessed from a zero in the average.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.backbones.spectral import norm_vectors, settle
from gancompress.errors import CheckpointError
from gancompress.sparsity.schedules import cosine
from gancompress.sparsity.weights import duplicate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gancompress.backbones.base import Generator
    from gancompress.recipe.schema import EMAConfig
    from gancompress.sparsity.state import Name

__all__ = ["SparseEMA", "average_group", "averaged_state", "decay_at", "load_average"]

_GROWN = "grown."
_MODULE = "module."


def average_group(name: Name) -> str:
    """Return what the group of tensors in a checkpoint is called that holds the average of a generator."""
    return "ema" if name == "generator" else f"ema_{name}"


def averaged_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the averaged generator out of the tensors that :meth:`SparseEMA.state_dict` saved."""
    return {name.removeprefix(_MODULE): tensor for name, tensor in tensors.items() if name.startswith(_MODULE)}


def load_average(network: Generator, tensors: Mapping[str, Tensor]) -> None:
    """Make ``network`` the averaged generator that :meth:`SparseEMA.state_dict` saved, as it is measured and used."""
    network.load_state_dict(averaged_state(tensors))
    settle(network)


def decay_at(config: EMAConfig, progress: float, step: int = 1, images: int = 1) -> float:
    """Return the decay at ``progress`` of the schedules: 0 at the first step of an average that grows.

    Its half-life, in steps, then goes from 0 to that of ``config.decay`` along a cosine (R3GAN; Huang et al., 2024).
    With a half-life in images the decay follows from ``images`` per step, and from the ``step`` while it ramps up
    (StyleGAN2-ADA; Karras et al., 2020).
    """
    if config.half_life is not None:
        half = 1000 * config.half_life
        if config.ramp_up is not None:
            half = min(half, config.ramp_up * images * step)
        return float(0.5 ** (images / half))
    if not config.growing or config.decay == 0 or progress >= 1:
        return config.decay
    share = cosine(0.0, 1.0, progress)
    return config.decay ** (1 / share) if share else 0.0


class SparseEMA:
    """Average of a generator's parameters; its buffers (batch-norm statistics, singular vectors) are copied.

    The loop calls :meth:`update` once per training step; the engine calls :meth:`retarget` after a topology update
    and :meth:`stepped` after an optimizer step of the generator.

    Args:
        network: the live generator, already on its device and in its memory format.
        config: decay, start and rule.
        images: real images of a training step, for a half-life that is given in images.

    Attributes:
        module: a generator of its own that holds the average. Spectrally normed layers have the vectors of the live
            weights in it: look at its images within :meth:`measured` only.
        pending: by parameter name, bool masks of grown weights whose first optimizer step is yet to come.
    """

    def __init__(self, network: Generator, config: EMAConfig, images: int = 1) -> None:
        self.config, self.images = config, images
        self.module: Generator = duplicate(network).requires_grad_(False)
        self.pending: dict[str, Tensor] = {}
        self._stepped = False
        self._average: dict[str, Tensor] = dict(self.module.named_parameters())
        self._bind(network)

    def _bind(self, network: Generator) -> None:
        """List the live tensors once, in the order of the average's, so that a step costs two calls."""
        self._network = network
        live, buffers = dict(network.named_parameters()), dict(network.named_buffers())
        self._live: dict[str, Tensor] = {name: live[name] for name in self._average}
        self._buffers = [(to, buffers[name]) for name, to in self.module.named_buffers()]

    @torch.no_grad()
    def update(self, network: Generator, step: int, progress: float = 1.0) -> None:
        """Take in the live weights of one training step, right after the generator's optimizer step.

        Args:
            network: the live generator.
            step: training step, 1 for the first; before ``config.start`` the average is a copy.
            progress: of the schedules, 0 at first and 1 where they end.
        """
        if network is not self._network:
            self._bind(network)
        average, live = list(self._average.values()), list(self._live.values())
        decay = decay_at(self.config, progress, step, self.images)
        if step < self.config.start or decay == 0:
            torch._foreach_copy_(average, live)
        else:
            torch._foreach_lerp_(average, live, 1.0 - decay)
            for name, new in self.pending.items():
                self._average[name].copy_(torch.where(new, self._live[name], self._average[name]))
        if self._stepped:
            self.pending = {}
        self._copy_buffers()

    def stepped(self, taken: bool = True) -> None:
        """Say whether this training step moved the weights: only then does a grown weight count as started."""
        self._stepped = taken

    @torch.no_grad()
    def retarget(self, off: Mapping[str, Tensor], grown: Mapping[str, Tensor]) -> None:
        """Follow a topology update: zero the average of masked weights, remember the grown ones.

        Args:
            off: by parameter name, True where masked now.
            grown: by parameter name, True where the update added a weight.
        """
        for name, where in off.items():
            self._average[name].masked_fill_(where, 0)
        if not self.config.sparse:
            return
        merged = dict(self.pending)
        for name, new in grown.items():
            merged[name] = merged[name] | new if name in merged else new
        self.pending = {name: new & ~off[name] if name in off else new for name, new in merged.items()}
        self._stepped = False

    @torch.no_grad()
    def reset(self) -> None:
        """Start again from a copy of the live weights (initialisation, a new round)."""
        torch._foreach_copy_(list(self._average.values()), list(self._live.values()))
        self._copy_buffers()
        self.pending, self._stepped = {}, False

    @contextlib.contextmanager
    def measured(self) -> Iterator[Generator]:
        """Yield the average as it is measured and used, under its own spectral norms; what is saved stays as it is."""
        buffers = [buffer for _, u, v in norm_vectors(self.module) for buffer in (u, v)]
        kept = [buffer.clone() for buffer in buffers]
        try:
            settle(self.module)
            yield self.module
        finally:
            for buffer, content in zip(buffers, kept, strict=True):
                buffer.copy_(content)

    def parameter(self, name: str) -> Tensor:
        """Return the average of one parameter, by its name in ``named_parameters()``."""
        return self._average[name]

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return every tensor that the next update depends on, and JSON-able scalars."""
        tensors = {_MODULE + name: tensor for name, tensor in self.module.state_dict().items()}
        tensors.update({_GROWN + name: new for name, new in self.pending.items()})
        return tensors, {"stepped": self._stepped}

    def load_state_dict(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, bit for bit.

        Raises:
            CheckpointError: names or shapes are not those of this generator.
        """
        module = averaged_state(tensors)
        grown = {n.removeprefix(_GROWN): t for n, t in tensors.items() if n.startswith(_GROWN)}
        try:
            self.module.load_state_dict(module)
            self.pending = {n: t.to(self._average[n].device, torch.bool, copy=True) for n, t in grown.items()}
            self._stepped = bool(scalars["stepped"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"the saved average does not fit this generator: {' '.join(str(error).split())}"
            ) from error

    def _copy_buffers(self) -> None:
        if self._buffers:
            to, live = zip(*self._buffers, strict=True)
            torch._foreach_copy_(list(to), list(live))
