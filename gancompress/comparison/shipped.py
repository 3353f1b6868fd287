"""Generators as they are shipped: an exported file, run by the fastest of what is installed, on one thread.

A generator with masks runs as our compiled program. One that keeps everything could be taken to any runtime, so it is
timed in each that is installed, and the fastest counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.bench.engines import ready
from gancompress.bench.infer import dense_engines, random_masks
from gancompress.bench.timing import alternate, keep_memory, ratios, with_threads
from gancompress.comparison.fitting import Candidate, Cost
from gancompress.comparison.price import final_masks
from gancompress.components.registry import METHODS
from gancompress.errors import RecipeError, RunError
from gancompress.experiment.networks import build_architecture, build_networks
from gancompress.export.compact import compact
from gancompress.export.in_bytes import calibrate_generator
from gancompress.export.loading import LoadedGenerator
from gancompress.export.packed import export_packed, frees_channels, load_packed
from gancompress.export.plain import example_inputs
from gancompress.recipe.identity import run_id
from gancompress.seeds import generator as seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import Generator
    from gancompress.bench.timing import Ratio
    from gancompress.comparison.fitting import Meter
    from gancompress.data.base import ImageSpec
    from gancompress.experiment.networks import Networks
    from gancompress.export.packed import Values
    from gancompress.recipe.schema import Recipe

__all__ = ["NOISIEST", "OURS", "Clock", "Scales", "Untrained", "measuring"]

OURS = "gancompress"
#: how unsure the median of the times of a generator may be, as a share of it, to be believed
NOISIEST = 0.05
#: rounds, seconds of one turn and of all turns of a measurement, about, and how often it is made longer when unsure
_ROUNDS, _TURN, _SECONDS, _AGAIN = 25, 0.004, 3.0, 3
#: an engine that took so many times as long as the fastest is not timed again
_HOPELESS = 1.5


class Untrained:
    """Writes candidates into files, as a run of theirs would be exported.

    Args:
        folder: of the files.
        image: of the data.
    """

    def __init__(self, folder: Path, image: ImageSpec) -> None:
        self._folder, self._image = folder, image

    def file(self, candidate: Candidate) -> Path:
        """Return the file of a candidate, which is written once.

        Raises:
            RecipeError: it keeps too few weights for one of its layers.
            ExportError: it cannot be written with these values.
        """
        recipe, values = candidate
        path = self._folder / f"{run_id(recipe)}-{values}.safetensors"
        if path.exists():
            return path
        architecture = build_architecture(recipe, self._image)
        networks = build_networks(architecture, recipe.seed)
        generator, masks = networks.generator.eval(), self._masks(recipe, architecture, networks)
        for name, mask in masks.items():
            if not mask.any():
                raise RecipeError(f"leaves {name} of the generator none of its {mask.numel():,} weights")
        _as_if_trained(generator, masks, recipe.seed)
        narrowed = architecture.narrowed
        if frees_channels(recipe):
            result = compact(generator, architecture, masks)
            narrowed |= result.generator is not generator
            generator, masks = result.generator, result.masks
        export_packed(
            generator, path, model=architecture.model, masks=masks, values=cast("Values", values),
            origin=architecture.origin, narrowed=narrowed,
            ranges=calibrate_generator(generator, masks) if values == "int8" else None,
        )  # fmt: skip
        return path

    def _masks(self, recipe: Recipe, architecture: Architecture, networks: Networks) -> Mapping[str, Tensor]:
        if not METHODS.get(recipe.sparsity.method.name).sparsifies:
            return {}
        if not frees_channels(recipe):
            return random_masks(recipe, networks)
        masks = final_masks(recipe, architecture, networks)  # which channels go together is for the method to say
        with torch.no_grad():
            for name, weight in prunable_weights(networks.generator).items():
                if name in masks:
                    weight.parameter.masked_fill_(~masks[name], 0)
        return masks


def _as_if_trained(generator: Generator, masks: Mapping[str, Tensor], seed: int) -> None:
    """Move all numbers a little: the zeros and ones that networks begin with take fewer bytes than any others."""
    rng = seeded(seed, "compare", "trained")
    masked = {id(weight.parameter) for name, weight in prunable_weights(generator).items() if name in masks}
    with torch.no_grad():
        for tensor in (*generator.parameters(), *generator.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.01 * torch.randn(tensor.shape, generator=rng))
                if id(tensor) not in masked:
                    tensor.add_(0.001 * torch.randn(tensor.shape, generator=rng))


class Scales:
    """Bytes of files."""

    def __call__(self, files: Sequence[Path]) -> list[Cost]:
        """Return the bytes of every file."""
        return [Cost(path.stat().st_size) for path in files]


@dataclasses.dataclass
class Clock:
    """Times generators of exported files side by side, in turn with a yardstick, as process CPU time on one thread.

    A time is the median of its ratios to the yardstick of the same rounds, times what the yardstick took when it was
    first measured: a machine that slows down slows both.

    Attributes:
        yardstick: a file that all others are timed beside.
        batch: images of a call.
        force: believe times however they spread.
    """

    yardstick: Path
    batch: int
    force: bool = False
    _steps: dict[Path, dict[str, Callable[[], object]]] = dataclasses.field(default_factory=dict)
    _milliseconds: float | None = None

    def __call__(self, files: Sequence[Path]) -> list[Cost]:
        """Return milliseconds of an image of every file's generator, how sure they are, and the fastest runtime.

        Raises:
            RunError: they are too unsure to say anything.
        """
        found = self._timed(files)
        worst = max(cost.spread for cost in found)
        if worst > NOISIEST and not self.force:
            raise RunError(
                f"this machine is too loaded to measure: the median time of a generator is unsure by {worst:.0%}, and "
                f"{NOISIEST:.0%} is the most that is believed; try again when it is quieter, or force it"
            )
        return found

    def _timed(self, files: Sequence[Path]) -> list[Cost]:
        keep_memory()
        with with_threads(1), torch.no_grad():
            steps = [("", self._open(self.yardstick)[OURS])]
            steps += [(engine, step) for file in files for engine, step in self._open(file).items()]
            places = [self.yardstick, *(file for file in files for _ in self._open(file))]
            named = {f"{index}": step for index, (_, step) in enumerate(steps)}
            once = {name: min(turn[0] for turn in turns) for name, turns in alternate(named, 2).items()}
            calls = max(1, min(50, round(_TURN / max(min(once.values()), 1e-6))))
            rounds = max(5, min(_ROUNDS, int(_SECONDS / max(calls * sum(once.values()), 1e-6))))
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in named}
            for _ in range(_AGAIN):
                for name, turns in alternate(named, rounds, calls=calls).items():
                    times[name] += turns
                measured = ratios(times, "0")
                if all(_unsure(own, len(times["0"])) <= NOISIEST for own in measured.values()):
                    break
        if self._milliseconds is None:
            self._milliseconds = measured["0"].seconds * 1e3 / self.batch
        found: dict[Path, list[Cost]] = {}
        for (engine, _), file, own in zip(steps[1:], places[1:], list(measured.values())[1:], strict=True):
            cost = Cost(self._milliseconds / own.faster, _unsure(own, len(times["0"])), engine)
            found.setdefault(file, []).append(cost)
        for file, costs in found.items():
            best = min(cost.amount for cost in costs)
            for cost in costs:
                if cost.amount > _HOPELESS * best and cost.runtime != OURS:
                    self._steps[file].pop(cost.runtime, None)
        return [min(found[file]) for file in files]

    def _open(self, file: Path) -> dict[str, Callable[[], object]]:
        """Return what runs a file's generator once, by engine."""
        if file not in self._steps:
            packed = load_packed(file)
            ours = LoadedGenerator(packed, file).network
            inputs = tuple(example_inputs(ours, self.batch, "compare").values())
            steps: dict[str, Callable[[], object]] = {OURS: lambda: ours(*inputs)}
            if all(bool(mask.all()) for mask in packed.masks.values()) and not packed.ranges:
                low = packed.source["values"] == "bf16"
                makers = dense_engines(packed.generator(), inputs)
                steps |= ready({name: make for name, make in makers.items() if low or "bf16" not in name})[0]
            self._steps[file] = steps
        return self._steps[file]


def _unsure(measured: Ratio, count: int) -> float:
    """Return about one standard error of the median of ``count`` ratios, as a share of it."""
    low, high = measured.quartiles
    return float((high - low) / measured.faster / count**0.5)


@contextlib.contextmanager
def measuring(cost: str, yardstick: Candidate, image: ImageSpec, batch: int, *, force: bool = False) -> Iterator[Meter]:
    """Yield what measures candidates, or exported files, in ``latency`` or ``bytes``."""
    with tempfile.TemporaryDirectory() as folder:
        untrained = Untrained(Path(folder), image)
        clock = Clock(untrained.file(yardstick), batch, force) if cost == "latency" else Scales()
        yield lambda several: clock([one if isinstance(one, Path) else untrained.file(one) for one in several])
