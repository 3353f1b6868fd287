"""A trained network made sparse from a few of its inputs: no training data, no discriminator, no recipe."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from gancompress.backbones.base import PrunableWeight, prunable_weights
from gancompress.channels.target import bytes_of
from gancompress.errors import ExportError, RecipeError
from gancompress.export.in_bytes import ranges_from_json, ranges_to_json
from gancompress.export.network import NetworkValues, save_network
from gancompress.foreign.agreement import Agreement, agreement, measured
from gancompress.foreign.calibration import Inputs, check_inputs, hold_out, windows
from gancompress.foreign.channels import ChannelOptions, cut
from gancompress.foreign.distill import Distillation, Kept, distill, fingerprint
from gancompress.foreign.in_bytes import calibrate_network, check_for_bytes, rounded, save_in_bytes
from gancompress.graphs.build import CapturedModule
from gancompress.lowering.network import SparseNetwork
from gancompress.reconstruct.norms import estimate_norms
from gancompress.reconstruct.prune import reconstruct
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.scores import magnitude
from gancompress.sparsity.select import best
from gancompress.storage.checkpoint import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gancompress.kernels import Mode
    from gancompress.lowering.network import Profile
    from gancompress.quantization.ranges import LayerBytes, RangeRule
    from gancompress.sparsity.patterns.base import Pattern, PatternConfig
    from gancompress.sparsity.state import Budget

__all__ = ["METHODS", "CompressedLayer", "CompressedNetwork", "check_settings", "compress_network"]

METHODS = ("reconstruct", "magnitude", "channels")

#: pieces that are cut out of calibration inputs, and their size along every axis that is open
_WINDOWS, _WINDOW = 16, 48


@dataclasses.dataclass(frozen=True)
class CompressedLayer:
    """One layer.

    Attributes:
        name: of its weight.
        shape: of its weight in the whole network.
        kept: weights.
        error: squared error of its outputs over their variance, on calibration inputs; None where nothing was fitted.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    error: float | None

    @property
    def density(self) -> float:
        """Share of kept weights."""
        return self.kept / torch.Size(self.shape).numel()


@dataclasses.dataclass(frozen=True)
class CompressedNetwork:
    """A network with fewer weights, to be called like the whole one.

    Attributes:
        network: in eval mode.
        masks: by the names of weights; True is kept.
        layers: in the order of the network.
        agreement: with the whole network, on the calibration inputs that nothing was chosen by.
        held_out: how many these are; 0 when there was only one input, which is used for both.
        method: how weights were chosen.
        name: of the network.
        sparse: how a call computes on the CPU: ``always`` by sparse programs wherever they fit, ``never``, or ``auto``:
            what is measured to be faster; None takes ``GANCOMPRESS_SPARSE``, then ``auto``.
        distilled: how long what was kept was trained afterwards; empty if it was not.
        calibration: the inputs that it was calibrated on, all of them.
        pixels: black and white of its images.
        values: of the file that it is for.
        ranges: by the names of weights, how convolutions compute in bytes, where it was distilled with that rounding.
        channels: for ``channels``: by the names of groups, which of the whole network's are kept, bool (width,).
        whole_bytes: of the whole network, where this one has smaller tensors.
    """

    network: CapturedModule
    masks: Mapping[str, Tensor]
    layers: tuple[CompressedLayer, ...]
    agreement: tuple[Agreement, ...]
    held_out: int
    method: str
    name: str
    sparse: Mode | None = None
    distilled: str = ""
    calibration: tuple[Inputs, ...] = dataclasses.field(default=(), repr=False)
    pixels: tuple[float, float] = (0.0, 1.0)
    values: NetworkValues = "float32"
    ranges: Mapping[str, LayerBytes] = dataclasses.field(default_factory=dict, repr=False)
    channels: Mapping[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)
    whole_bytes: int | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        """Compute the outputs."""
        return self._run(*inputs)

    def profile(self, *inputs: Tensor) -> Profile:
        """Call it and say where the time goes: what ran in sparse programs, what in torch and why."""
        return self._run.profile(*inputs)

    @functools.cached_property
    def _run(self) -> SparseNetwork:
        return SparseNetwork(self.network, self.masks, self.sparse)

    @property
    def density(self) -> float:
        """Share of kept weights among the prunable ones of the whole network."""
        return sum(one.kept for one in self.layers) / self.weights

    @property
    def weights(self) -> int:
        """Prunable ones of the whole network."""
        return sum(torch.Size(one.shape).numel() for one in self.layers)

    @property
    def dense_bytes(self) -> int:
        """Of all tensors of the whole network, none left out."""
        return bytes_of(self.network) if self.whole_bytes is None else self.whole_bytes

    def save(self, path: str | Path, *, values: NetworkValues | None = None, range: RangeRule = "mse") -> Path:
        """Write it into one file, which :func:`gancompress.load` opens.

        Args:
            path: the file.
            values: ``bf16`` halves the weights again and rounds them, ``e8m4`` rounds them to 4 bits of mantissa,
                ``int8`` computes convolutions in bytes, by ranges from the calibration inputs. Default: what it is for.
            range: for int8: how the ends of what a layer reads are chosen: ``mse``, ``percentile`` or ``max``. With
                ``mse``, a network that was distilled for int8 keeps the ranges that it was trained with.

        Raises:
            ExportError: the file cannot be written, or there are no calibration inputs for int8.
        """
        file, source, values = Path(os.fspath(path)), {"name": self.name, "method": self.method}, values or self.values
        if values == "int8":
            own = self.ranges if range == "mse" else None
            save_in_bytes(self.network, self.masks, file, self.calibration, source, range, self.pixels, own)
        else:
            save_network(self.network, self.masks, file, values=values, source=source)
        return file

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return a line per layer: name, shape, density, error."""
        return [
            (
                one.name.removesuffix(".weight"),
                " x ".join(map(str, one.shape)),
                f"{one.density:.4g}",
                "" if one.error is None else f"{one.error:.2g}",
            )
            for one in self.layers
        ]

    def __repr__(self) -> str:
        return "\n".join(self._summary())

    def _summary(self) -> list[str]:
        kept = sum(one.kept for one in self.layers)
        whole, density = self.weights, self.density
        lines = [f"{self.name}: {kept:,} of {whole:,} weights kept (density {density:.4g}), by {self.method}"]
        lines[0] += f", distilled for {self.distilled}" * bool(self.distilled)
        on = f"{self.held_out} inputs held out" if self.held_out != 1 else "1 input held out"
        if not self.held_out:
            on = "the one calibration input, which the weights were fitted to as well: give more"
        lines += [f"{one}, on {on}" for one in self.agreement]
        return lines


def check_settings(
    density: float, method: str, values: str = "float32", *, calibrated: bool, distilled: bool = False
) -> None:
    """Refuse what no network can be compressed with; it takes no network, so it is known before one is captured.

    Raises:
        RecipeError: of a density, a method, a kind of values, or missing calibration inputs.
    """
    if method not in METHODS:
        raise RecipeError(f"method {method!r}: a network without its training is pruned by {' or '.join(METHODS)}")
    if values not in get_args(NetworkValues):
        raise RecipeError(f"values {values!r}: use {', '.join(get_args(NetworkValues))}")
    if not 0 < density <= 1:
        raise RecipeError(f"density must be more than 0 and at most 1, got {density:g}")
    if method == "reconstruct" and not calibrated:
        raise RecipeError(
            "reconstruct needs calibration inputs: a few of those that the network will meet; magnitude needs none, "
            "and is far worse"
        )
    if distilled and not calibrated:
        raise RecipeError("distillation needs calibration inputs: what is kept is trained on them")


def compress_network(
    network: CapturedModule,
    density: float,
    calibration: Sequence[Inputs] = (),
    *,
    name: str = "network",
    method: str = "reconstruct",
    pattern: Pattern[PatternConfig] | None = None,
    pixels: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    distillation: Distillation | None = None,
    values: NetworkValues = "float32",
    channels: ChannelOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> CompressedNetwork:
    """Prune a network of anybody's.

    Args:
        network: left as it is.
        density: share of the weights of convolutions and linear layers to keep; for ``channels``, of the channels of
            every group.
        calibration: inputs as the network will meet them; a few photographs do. Every fourth is only measured by.
        name: how results call the network.
        method: ``reconstruct``, which refits what it keeps; ``magnitude``, which needs no inputs and costs far more; or
            ``channels``, which keeps whole channels, and with inputs refits what reads them.
        pattern: units in which weights are kept; default: single weights.
        pixels: black and white of its images, for measuring.
        seed: of what is looked at.
        distillation: train what is kept afterwards, on the inputs that are pruned by.
        values: of the file that it is for: with ``int8``, distillation computes with the rounding of bytes.
        channels: for ``channels``: what else is asked of it.
        say: told what is being done.

    Raises:
        GancompressError: an input does not fit, the density cannot be met, or the network is not whole.
        KeyboardInterrupt: the distillation was asked to stop.
    """
    check_settings(density, method, values, calibrated=bool(calibration), distilled=distillation is not None)
    options = ChannelOptions() if channels is None else channels
    options.check(method, pattern)
    graph = network.captured
    if values == "int8":
        check_for_bytes(network, calibration, pixels)
    elif calibration:
        check_inputs(calibration, graph, pixels=pixels)
    weights = prunable_weights(network)
    if not weights:
        raise ExportError("has no convolution and no linear layer with weights of its own: there is nothing to prune")
    fitting, held = hold_out(calibration) if calibration else ([], [])
    for given in held:
        _check_finite(network, given)
    kept = begun = None
    if distillation is not None:
        say = _interrupted_by(distillation.stop, say)
        settings = (density, method, str(pattern), seed, str(distillation.length), *(["int8"] * (values == "int8")))
        settings += options.settings
        kept = Kept(distillation.directory, fingerprint(network, calibration, settings))
        begun = kept.load()
    pieces = windows(fitting, graph, _WINDOW, max(_WINDOWS, len(fitting)), seed) if fitting and begun is None else []
    stays: Mapping[str, Tensor] = {}
    errors: Mapping[str, float] = {}
    if method == "channels":
        known = None if begun is None else begun.groups["channels"]
        compressed, stays = cut(network, density, pieces, options, seed, known, say)
        masks = {key: torch.ones_like(one.parameter).bool() for key, one in prunable_weights(compressed).items()}
    else:
        compressed = CapturedModule(graph, {key: tensor.clone() for key, tensor in network.state_dict().items()})
        own = prunable_weights(compressed)
        if begun is None:
            budget = _budget(own, density, pattern, "erk" if method == "magnitude" else "global")
            masks, errors = _prune(compressed, own, pieces, budget, method, seed, say)
            if pieces and estimate_norms(compressed, network, pieces):
                say("statistics of batch norms estimated anew")
    if begun is not None:
        say(f"going on at step {begun.step} of the distillation")
        for key, tensor in compressed.state_dict().items():
            tensor.copy_(begun.groups["weights"][key])
        masks, errors = {key: begun.groups["masks"][key] for key in weights}, begun.scalars["errors"]
    empty = [key for key, mask in masks.items() if not bool(mask.any())]
    if empty:
        raise RecipeError(f"density {density:g} leaves no weight in {', '.join(empty[:4])}: raise it")
    ranges: dict[str, LayerBytes] = {}
    if distillation is not None and kept is not None:
        if values == "int8":
            held_ranges = None if begun is None else begun.scalars.get("ranges")
            ranges = (
                ranges_from_json(held_ranges)
                if held_ranges
                else calibrate_network(compressed, masks, calibration, "mse", pixels)
            )
        kept.beside({"masks": masks, "channels": dict(stays)}, {"errors": errors, "ranges": ranges_to_json(ranges)})
        if begun is None:
            kept.save(Snapshot(0, {"weights": compressed.state_dict()}, {}))
        with rounded(compressed, masks, ranges, fitting):
            distill(
                network, compressed, masks, fitting, distillation.length, seed=seed, begun=begun, save=kept.save,
                stop=distillation.stop, say=say,
            )  # fmt: skip
    layers = tuple(
        CompressedLayer(
            key, tuple(weights[key].parameter.shape), int(mask.sum()), errors.get(key.removesuffix(".weight"))
        )
        for key, mask in masks.items()
    )
    agreed = tuple(agreement(network, compressed, held, pixels)) if held else ()
    apart = len(held) if len(calibration) > 1 else 0
    trained = "" if distillation is None else str(distillation.length)
    return CompressedNetwork(
        compressed, masks, layers, agreed, apart, method, name, distilled=trained,
        calibration=tuple(calibration), pixels=pixels, values=values, ranges=ranges,
        channels=stays, whole_bytes=bytes_of(network) if stays else None,
    )  # fmt: skip


def _prune(
    network: CapturedModule,
    weights: Mapping[str, PrunableWeight],
    pieces: Sequence[Inputs],
    budget: Budget,
    method: str,
    seed: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Tensor], Mapping[str, float]]:
    """Prune in place; return masks by the names of weights and errors by the paths of layers."""
    if method == "magnitude":
        scores = {key: magnitude(weight.parameter.detach()) for key, weight in weights.items()}
        masks = best(budget.units, scores, budget.counts)
        for key, mask in masks.items():
            weights[key].parameter.data.mul_(mask)
        return masks, {}
    found = reconstruct(network, pieces, budget, measured=measured, seed=seed, say=say)
    return dict(found.masks), found.errors


def _interrupted_by(stop: Callable[[], bool], say: Callable[[str], None]) -> Callable[[str], None]:
    """Let pruning, which says what it does now and then, end there."""

    def told(text: str) -> None:
        if stop():
            raise KeyboardInterrupt
        say(text)

    return told


def _budget(
    weights: Mapping[str, PrunableWeight], density: float, pattern: Pattern[PatternConfig] | None, rule: str
) -> Budget:
    found = {name: pattern.units(weight.layer) for name, weight in weights.items()} if pattern is not None else {}
    if pattern is not None and density < 1 and all(one is None for one in found.values()):
        shapes = ", ".join(f"{name} {tuple(weight.parameter.shape)}" for name, weight in weights.items())
        raise RecipeError(f"no layer of this network can hold pattern {pattern}; its weights are {shapes}")
    return allocate(
        rule,
        {name: tuple(weight.parameter.shape) for name, weight in weights.items()},
        density,
        scores={name: magnitude(weight.parameter.detach()) for name, weight in weights.items()},
        units={name: own for name, own in found.items() if own is not None},
        pattern="unstructured" if pattern is None else str(pattern),
    )


def _check_finite(network: CapturedModule, given: Inputs) -> None:
    with torch.no_grad():
        outputs = network.compute(given)
    for one in outputs:
        if not bool(one.isfinite().all()):
            raise ExportError("gives NaN or infinite outputs on a calibration input")
