"""Distillation: what pruning kept is trained to the outputs of the whole network, on pieces of calibration inputs.

Images and whatever else by the mean absolute difference; sound by that of waves and of spectra at three resolutions
(those of Yamamoto, Song and Kim, "Parallel WaveGAN", 2020). Adam with a cosine decay, whose steps are in proportion to
how large the weights of a tensor are: what is pruned best starts near a minimum, and is trained there.

Piece and place of a step are functions of the seed and the step, so that what is left of a distillation is the same
wherever it was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import RecipeError
from gancompress.foreign.agreement import is_image, is_sound
from gancompress.foreign.calibration import windows
from gancompress.graphs.graph import Stored
from gancompress.seeds import derive
from gancompress.storage import checkpoint
from gancompress.storage.atomic import remove_tree
from gancompress.storage.checkpoint import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gancompress.foreign.calibration import Inputs
    from gancompress.graphs.build import CapturedModule
    from gancompress.storage.checkpoint import Groups

__all__ = ["Distillation", "Kept", "Length", "distill", "fingerprint", "parse_length", "spectral_loss"]

#: of a step, as a share of the root mean square of a tensor's weights, for a loss of 1, and at most: the nearer the
#: start is to the whole network, the smaller are the steps that do not lead away from it
_RATE, _FASTEST = 0.05, 2.5e-3
#: a tensor's root mean square is taken to be no more than the median layer's, and no less than this share of that
_LEAST = 0.1
_WARM_UP = 0.05
_BETAS = (0.9, 0.99)
#: size of a piece along its one open axis, or along each of several
_LONG, _WIDE = 64, 32
#: different pieces, and bytes of the whole network's outputs that are kept for them
_PIECES, _HELD = 512, 2**28
#: of the transforms: samples, hop, window
_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_QUIET = 1e-5
#: seconds after which losing what was trained would hurt
_CHECKPOINT_SECONDS = 30.0
#: where tensors stand that are trained among the arguments of operations that are no layers
_TRAINED = {
    "aten.prelu.default": (1,),
    "aten.instance_norm.default": (1, 2),
    "aten.group_norm.default": (2, 3),
    "aten.layer_norm.default": (2, 3),
}


@dataclasses.dataclass(frozen=True)
class Length:
    """How long to train: steps, or seconds of computing, CPU time over threads."""

    steps: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.steps is not None else f"{self.seconds:g} s"

    def share(self, steps: int, seconds: float) -> float:
        """Return which share of it is over."""
        if self.steps is not None:
            return steps / self.steps
        assert self.seconds is not None
        return seconds / self.seconds


def parse_length(text: str) -> Length:
    """Read ``60s`` or ``500 steps``.

    Raises:
        RecipeError: it is neither.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|steps?)\s*", text)
    if found is None or not float(found[1]) or (found[2] != "s" and "." in found[1]):
        raise RecipeError(f"distill {text!r}: give seconds of computing or steps, such as '60s' or '500 steps'")
    return Length(seconds=float(found[1])) if found[2] == "s" else Length(steps=int(found[1]))


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What is asked for.

    Attributes:
        length: how long.
        directory: for its checkpoints alone; whoever asks removes it when the result is safe.
        stop: whether to stop.
    """

    length: Length
    directory: Path
    stop: Callable[[], bool] = lambda: False


class Kept:
    """A distillation on the disk, from which the same call goes on.

    Args:
        directory: for it alone; made when something is saved.
        mark: :func:`fingerprint` of the call.
    """

    def __init__(self, directory: Path, mark: str) -> None:
        self._directory, self._mark = directory, mark
        self._groups: Groups = {}
        self._scalars: Mapping[str, Any] = {}

    def beside(self, groups: Groups, scalars: Mapping[str, Any]) -> None:
        """Save these with every state from now on."""
        self._groups, self._scalars = groups, scalars

    def load(self) -> Snapshot | None:
        """Return the newest state of the same call that is whole; that of another is removed."""
        found = checkpoint.latest(self._directory).snapshot
        if found is not None and found.scalars.get("fingerprint") == self._mark:
            return found
        remove_tree(self._directory)
        return None

    def save(self, snapshot: Snapshot) -> None:
        """Replace what is there.

        Raises:
            CheckpointError: the disk is full or refuses.
        """
        scalars = {**self._scalars, **snapshot.scalars, "fingerprint": self._mark}
        checkpoint.save(self._directory, Snapshot(snapshot.step, {**self._groups, **snapshot.groups}, scalars))
        checkpoint.prune(self._directory, 1)


def fingerprint(network: CapturedModule, inputs: Sequence[Inputs], settings: Sequence[object]) -> str:
    """Return a text that differs when anything does: the network, its inputs, or what is asked for."""
    found = hashlib.blake2b(repr((network.captured, *settings)).encode(), digest_size=20)
    state = network.state_dict()
    for tensor in (*(state[name] for name in sorted(state)), *(x for given in inputs for x in given)):
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def distill(
    whole: CapturedModule,
    pruned: CapturedModule,
    masks: Mapping[str, Tensor],
    inputs: Sequence[Inputs],
    length: Length,
    *,
    seed: int = 0,
    begun: Snapshot | None = None,
    save: Callable[[Snapshot], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Train what is left of a network to the outputs of the whole one, in place; masks stay.

    If the result is further away than the start, on pieces of the inputs, the start is kept.

    Args:
        whole: what is held to be right.
        pruned: the same graph with fewer weights.
        masks: by the names of weights; True is kept.
        inputs: what to train on.
        length: steps, for which the result is a function of the seed, or seconds.
        seed: of the pieces.
        begun: where it was interrupted, as ``save`` got it; its weights are those of ``pruned`` again.
        save: given the state now and then.
        stop: whether to stop after this step.
        say: told how far it is.

    Raises:
        KeyboardInterrupt: it was asked to stop; the state was saved first.
    """
    trained = _trained(pruned)
    start = {name: tensor.detach().clone() for name, tensor in trained.items()}
    adam = torch.optim.Adam([{"params": [tensor]} for tensor in trained.values()], betas=_BETAS, eps=1e-12)
    step, before, used = 0, math.nan, 0.0
    if begun is not None and "first" in begun.groups:
        step, before, used = begun.step, float(begun.scalars["loss"]), float(begun.scalars["seconds"])
        start = {name: begun.groups["start"][name] for name in start}
        for name, tensor in trained.items():
            moments = {"exp_avg": begun.groups["first"][name], "exp_avg_sq": begun.groups["second"][name]}
            adam.state[tensor] = {"step": torch.tensor(float(step)), **moments}
    pieces = _Pieces(whole, inputs, seed)
    if not step:
        before = _mean_loss(pruned, pieces)
    typical = statistics.median(_rms(start[name]) for name in masks)
    rate = min(_RATE * before, _FASTEST)
    rates = [rate * min(max(_rms(one), _LEAST * typical), typical) for one in start.values()]
    began, saved, told = time.process_time() - used * torch.get_num_threads(), time.monotonic(), -1

    def state() -> Snapshot:
        moments = [adam.state[tensor] for tensor in trained.values()]
        groups = {
            "weights": pruned.state_dict(),
            "start": start,
            "first": {name: one["exp_avg"] for name, one in zip(trained, moments, strict=True)},
            "second": {name: one["exp_avg_sq"] for name, one in zip(trained, moments, strict=True)},
        }
        return Snapshot(step, groups, {"loss": before, "seconds": used})

    for tensor in trained.values():
        tensor.requires_grad_(True)
    try:
        while (share := length.share(step, used)) < 1:
            if (tenth := int(share * 10)) > told:
                told = tenth
                say(f"distilling, {share:.0%} of {length}, step {step}")
            scale = min(1.0, (share + 1e-3) / _WARM_UP) * (1 + math.cos(math.pi * share)) / 2
            for group, own in zip(adam.param_groups, rates, strict=True):
                group["lr"] = own * scale
            given, wanted = pieces[step]
            adam.zero_grad()
            _loss(wanted, pruned.compute(given)).backward()  # type: ignore[no-untyped-call]
            for name, mask in masks.items():
                gradient = trained[name].grad
                if gradient is not None:  # else nothing of it reaches the outputs
                    gradient.mul_(mask)
            adam.step()
            step += 1
            used = (time.process_time() - began) / torch.get_num_threads()
            if stop():
                save(state())
                raise KeyboardInterrupt(f"interrupted; step {step} of the distillation is kept, the same call goes on")
            if time.monotonic() - saved >= _CHECKPOINT_SECONDS:
                save(state())
                saved = time.monotonic()
    finally:
        for tensor in trained.values():
            tensor.requires_grad_(False)
    after = _mean_loss(pruned, pieces)
    say(f"distilled in {step} steps, {used:.0f} s: loss {before:.4g} to {after:.4g}")
    if not after < before:
        say("warning: distillation made it no better: what it started from is kept; give it longer, or more inputs")
        for name, tensor in trained.items():
            tensor.copy_(start[name])


class _Pieces:
    """Pieces of inputs and what the whole network makes of them, by the number of the step."""

    def __init__(self, whole: CapturedModule, inputs: Sequence[Inputs], seed: int) -> None:
        self._whole, self._inputs, self._seed = whole, inputs, seed
        self._axes = {one for given in whole.captured.inputs for one in given.shape[1:] if isinstance(one, str)}
        self._known: dict[int, tuple[Inputs, tuple[Tensor, ...]]] = {}
        self._held = 0

    def __getitem__(self, step: int) -> tuple[Inputs, tuple[Tensor, ...]]:
        number = step % (_PIECES if self._axes else len(self._inputs))
        if number in self._known:
            return self._known[number]
        size = _LONG if len(self._axes) == 1 else _WIDE
        one = [self._inputs[number % len(self._inputs)]]
        (given,) = windows(one, self._whole.captured, size, 1, derive(self._seed, "distill", number))
        turned = [axis - 4 for axis in (2, 3) if number // len(self._inputs) >> (axis - 2) & 1]
        # an image the other way round is one as well
        given = tuple(x.flip(turned) if is_image(x) else x for x in given)
        with torch.no_grad():
            wanted = self._whole.compute(given)
        self._held += sum(x.numel() * x.element_size() for x in (*given, *wanted))
        if self._held <= _HELD:
            self._known[number] = given, wanted
        return given, wanted


def _trained(network: CapturedModule) -> dict[str, Tensor]:
    """Return the tensors that training changes: of layers, of norms (their statistics stay) and slopes."""
    found: dict[str, Tensor] = dict(network.named_parameters())
    for node in network.captured.nodes:
        for at in _TRAINED.get(node.op, ()):
            stored = node.args[at] if at < len(node.args) else None
            if isinstance(stored, Stored):
                path, _, leaf = stored.name.rpartition(".")
                found[stored.name] = getattr(network.get_submodule(path), leaf)
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def _mean_loss(network: CapturedModule, pieces: _Pieces) -> float:
    with torch.no_grad():
        losses = [float(_loss(wanted, network.compute(given))) for given, wanted in map(pieces.__getitem__, range(8))]
    return math.fsum(losses) / len(losses)


def _loss(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    total = torch.zeros(())
    for one, other in zip(wanted, found, strict=True):
        if one.is_floating_point():
            total = total + (one - other).abs().mean() / one.abs().mean().clamp_min(torch.finfo(one.dtype).tiny)
            if is_sound(one):
                total = total + spectral_loss(one, other)
    return total


def spectral_loss(wanted: Tensor, found: Tensor) -> Tensor:
    """Return how far short-time spectra are apart, bin by bin and quiet ones as much as loud ones.

    The mean absolute difference of log magnitudes, and twice that of the spectra themselves over the sum of both
    magnitudes, which tells phases as well and is at most 1; means over three resolutions.

    Args:
        wanted: waves (N, 1, samples).
        found: of the same shape.
    """
    total = torch.zeros(())
    waves = torch.cat([wanted, found]).flatten(0, 1)
    for samples, hop, window in _RESOLUTIONS:
        if waves.shape[-1] <= samples // 2:  # too short to be mirrored at its ends
            continue
        shape = torch.hann_window(window, dtype=waves.dtype)
        spectrum = torch.stft(waves, samples, hop, window, shape, return_complex=True)
        one, other = _power(spectrum).clamp_min(_QUIET**2).sqrt().chunk(2)
        apart = (_power(torch.sub(*spectrum.chunk(2))) + _QUIET**2).sqrt() - _QUIET
        total = total + (one.log() - other.log()).abs().mean() + 2 * (apart / (one + other)).mean()
    return total / len(_RESOLUTIONS)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _rms(tensor: Tensor) -> float:
    """Of what is not zero."""
    return math.sqrt(float(tensor.double().square().sum()) / max(int((tensor != 0).sum()), 1))
