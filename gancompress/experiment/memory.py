"""How much memory a run will take, before it takes any: a run that clearly cannot fit is refused.

The largest step is played through on copies of the networks whose tensors have shapes and no values, and what is alive
at once is added up: activations, gradients, images. Weights, moments, average, masks and images held in memory come
from their sizes.

This counts tensors. A process takes 30 to 130 MB beyond them for libraries, workspaces of the convolutions and
fragments, so the estimate of a small run says little: quickstart's tensors are 7.6 MB, and its first three steps made
the process 39 MB larger. That of sngan_cifar10 with 64 channels is 362 MB, of measured 465; stgan_biggan with 32
channels at batch 20, 188 of 321 MB (CPU, float32, one thread, torch 2.15). Folding takes up to a tenth off it.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gancompress.errors import RunError
from gancompress.training.batches import Latents, RealBatch
from gancompress.training.forward_backward import ForwardBackward
from gancompress.training.optimizers import build_optimizer
from gancompress.units import size as size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import Backbone, BackboneConfig
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import OptimizerConfig, Recipe
    from gancompress.training.loop import Trainer

__all__ = ["MemoryEstimate", "available_memory", "check_images", "check_memory", "check_networks", "estimate_memory"]

#: a run is refused when its estimate is larger than what is free by this factor
MARGIN = 1.25
#: bytes per masked weight: mask, its complement, the mask in the weight's own width, and what was ever kept
_MASK_BYTES = 1 + 1 + 4 + 1

N = TypeVar("N", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process of a run holds at once.

    Attributes:
        weights: both networks, with their buffers.
        average: the averaged generator.
        moments: state of both optimizers.
        masks: masks of both networks.
        step: activations, gradients and images of the largest step; None when it could not be played through.
        images: images that are decoded into main memory when the run starts.
        processes: processes of the run on this machine.
    """

    weights: int
    average: int
    moments: int
    masks: int
    step: int | None
    images: int
    processes: int = 1

    @property
    def total(self) -> int:
        """Everything, per process."""
        return self.weights + self.average + self.images + self.to_come

    @property
    def to_come(self) -> int:
        """What is not there yet when the networks are built and the images are read."""
        return self.moments + self.masks + (self.step or 0)

    def to_dict(self) -> dict[str, int | None]:
        """Return the parts and their sum, as ``cost.json`` holds them; no sum when the step is not known."""
        parts = {name: size for name, size in vars(self).items() if name != "processes"}
        return {"peak": None if self.step is None else self.total, **parts}

    def describe(self) -> str:
        """Return the estimate in a line: ``at least 312 MB: weights 4.1 MB, …``."""
        parts = {key: size for key, size in self.to_dict().items() if key != "peak"}
        unknown = "" if self.step is not None else "; activations not counted, the networks cannot be played through"
        return f"at least {size_of(self.total)}{_each(self.processes)}: {_listed(parts)}{unknown}"


def _listed(parts: Mapping[str, int | None]) -> str:
    words = {"step": "activations and gradients"}
    return ", ".join(f"{words.get(name, name)} {size_of(size)}" for name, size in parts.items() if size)


def _each(processes: int) -> str:
    return f" on each of {processes} processes" if processes > 1 else ""


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive at once; those of ``held``, which were there before, do not count."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._add(storage._cdata, storage.nbytes())
                    weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        return out

    def _add(self, key: int, size: int) -> None:
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(step: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Return the most bytes of tensors that ``step`` allocates and holds at once; ``held`` were there before."""
    with _Alive(held) as alive:
        step()
    return int(alive.peak)


class _Shapes(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Tensors without values that leave the process as it was.

    torch's own mode puts a stand-in for CUDA's devices into a process that has none, for good; the next backward pass
    then starts a thread for them, and a process forked after that cannot differentiate.
    """

    @property
    def avoid_device_init(self) -> bool:
        """Whether other devices than the CPU are to be left alone: the networks say where they are."""
        return False

    @avoid_device_init.setter
    def avoid_device_init(self, value: bool) -> None:  # an attribute in older versions of torch
        pass


def _without_values(network: N, mode: FakeTensorMode) -> N:
    """Return a copy of a network whose tensors have shapes and take no memory."""
    shapes: dict[int, Any] = {id(buffer): mode.from_tensor(buffer) for buffer in network.buffers()}
    for parameter in network.parameters():
        shapes[id(parameter)] = nn.Parameter(mode.from_tensor(parameter.detach()), parameter.requires_grad)
    return copy.deepcopy(network, shapes)


def _largest_step(trainer: Trainer) -> int | None:
    """Play one discriminator step and one generator step through; None when a network needs values for its shapes."""
    config = trainer.config.model_copy(update={"compile": False, "cuda_graphs": False})
    source, device, world = trainer.generator, trainer.device, trainer.group.world
    reals, fakes = config.batch_size // world, (config.generator_batch_size or config.batch_size) // world

    def labels(count: int) -> Tensor | None:
        return torch.zeros(count, dtype=torch.int64, device=device) if source.num_classes else None

    def real(count: int) -> RealBatch:
        size = source.image.resolution
        return RealBatch(torch.empty(count, source.image.channels, size, size, device=device), labels(count))

    def latents(count: int) -> Latents:
        return Latents(torch.empty(count, source.latent_dim, device=device), labels(count))

    try:
        with _Shapes(allow_non_fake_inputs=True) as mode:
            networks = _without_values(trainer.generator, mode), _without_values(trainer.discriminator, mode)
            passes = ForwardBackward(*networks, trainer.objective, config)

            def play() -> None:
                passes.discriminator(real(reals), latents(reals), 0)
                passes.generator(latents(fakes), 0, real(fakes) if trainer.objective.loss.compares else None)

            return peak_bytes(play, [t for net in networks for t in (*net.parameters(), *net.buffers())])
    except Exception:  # a plugin's network may do anything, and an estimate is no reason to stop it
        return None


def estimate_memory(recipe: Recipe, trainer: Trainer, *, images: int = 0, processes: int = 1) -> MemoryEstimate:
    """Estimate what a run of ``recipe`` takes; seconds at most, and no memory to speak of.

    Args:
        recipe: a checked recipe.
        trainer: built from it, and not used yet.
        images: bytes of the images held in memory.
        processes: processes of the run on this machine.
    """
    moments = masks = 0
    for role in trainer.engine.roles:
        budget, size = trainer.engine.budget(role), _stored(trainer.network(role), buffers=False)
        if recipe.sparsity.moments == "compact":
            size -= 4 * (sum(budget.sizes.values()) - budget.total)
        moments += round(size * _state_ratio(getattr(recipe.training.optimizers, role)))
        masks += _MASK_BYTES * sum(budget.sizes.values()) if budget.density < 1 else 0
    return MemoryEstimate(
        weights=_stored(trainer.generator) + _stored(trainer.discriminator),
        average=_stored(trainer.ema.module),
        moments=moments,
        masks=masks,
        step=_largest_step(trainer),
        images=images,
        processes=processes,
    )


def _stored(network: nn.Module, *, buffers: bool = True) -> int:
    tensors = [*network.parameters(), *(network.buffers() if buffers else ())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _state_ratio(config: OptimizerConfig) -> float:
    """Return the size of an optimizer's state over that of its weights, from one step of a small one."""
    probe = nn.Linear(32, 32, bias=False)
    optimizer = build_optimizer(probe, config)
    probe.weight.grad = torch.zeros_like(probe.weight)
    optimizer.step()
    state = [value for value in optimizer.state[probe.weight].values() if isinstance(value, Tensor)]
    return sum(t.numel() for t in state if t.numel() > 1) / probe.weight.numel()  # not the count of steps


# --------------------------------------------------------------------------- refusals


def check_images(dataset: Dataset[DatasetConfig], processes: int = 1) -> int:
    """Return the bytes that ``dataset.prepare()`` will take, after comparing them with what is free.

    Raises:
        RunError: they clearly do not fit.
    """
    images, free = dataset.bytes_to_prepare(), available_memory()
    if free is not None and processes * images > MARGIN * free:
        raise RunError(
            f"not enough memory: {size_of(free)} are free, the images take {size_of(images)} decoded"
            f"{_each(processes)}; decode them when they are needed with --set data.memory_limit=0, "
            "or lower data.resolution"
        )
    return images


def check_networks(
    recipe: Recipe, backbone: Backbone[BackboneConfig] | Architecture, device: torch.device, processes: int = 1
) -> None:
    """Refuse networks that clearly do not fit, before they are built: drawing them could take hours, or all memory.

    Args:
        recipe: a checked recipe.
        backbone: of the recipe, not built yet.
        device: where the networks will be.
        processes: processes of the run on this machine.

    Raises:
        RunError: they do not fit even without activations; the message says what to lower.
    """
    try:
        with torch.device("meta"):
            sizes = {"generator": _stored(backbone.generator()), "discriminator": _stored(backbone.discriminator())}
    except Exception:  # a plugin's network may do anything, and an estimate is no reason to stop it
        return
    weights, compact = sum(sizes.values()), recipe.sparsity.moments == "compact"
    moments = sum(size * _state_ratio(getattr(recipe.training.optimizers, role)) for role, size in sizes.items())
    parts = {
        "weights": weights,
        "gradients": weights,
        "average": sizes["generator"],
        "moments": 0 if compact else round(moments),
    }
    total = sum(parts.values())
    # networks are built on the CPU wherever they go
    places = [(torch.device("cpu"), processes * (weights if device.type == "cuda" else total))]
    if device.type == "cuda":
        places.append((device, total))
    for place, needed in places:
        free = available_memory(place)
        if free is not None and needed > MARGIN * free:
            raise RunError(
                f"not enough {_memory(place)}: {size_of(free)} are free, and the networks alone take {size_of(total)}"
                f"{_each(processes)}: {_listed(parts)}; lower model.channels"
            )


def check_memory(recipe: Recipe, trainer: Trainer, *, images: int = 0, processes: int = 1) -> MemoryEstimate:
    """Estimate, compare what is still to come with what is free now, and return the estimate.

    Args:
        recipe: a checked recipe.
        trainer: built from it, and not used yet.
        images: bytes of the images, which are held already.
        processes: processes of the run on this machine.

    Raises:
        RunError: it clearly does not fit; the message says what to lower.
    """
    estimate = estimate_memory(recipe, trainer, images=images, processes=processes)
    on_gpu = trainer.device.type == "cuda"
    free = available_memory(trainer.device)
    if free is None or estimate.to_come * (1 if on_gpu else processes) <= MARGIN * free:
        return estimate
    ways = [
        "lower training.batch_size or model.channels",
        f"raise training.accumulate (now {trainer.config.accumulate})",
    ]
    if trainer.config.precision == "float32" and on_gpu:
        ways.append("--set training.precision=bf16")
    if processes > 1 and not on_gpu:
        ways.append("start fewer processes")
    raise RunError(
        f"not enough {_memory(trainer.device)}: {size_of(free)} are free, and this run takes {estimate.describe()}; "
        f"{', or '.join(ways)}"
    )


def _memory(device: torch.device) -> str:
    return "GPU memory" if device.type == "cuda" else "memory"


# --------------------------------------------------------------------------- what there is


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Return the bytes that can be had now, or None where nobody says: swap counts, and the limits of containers."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min((free for free in (_free_in_machine(), _free_in_container()) if free is not None), default=None)


def _free_in_machine(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return sum(int(fields[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # at most that
        except (AttributeError, OSError, ValueError):
            return None


def _free_in_container(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return what the control groups (version 2) above this process leave it; caches of files can be given up."""
    try:
        path = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::")).strip("/")
    except (OSError, StopIteration):
        path = ""
    free: list[int] = []
    for folder in (root / path, *(root / path).parents):
        if folder != root and root not in folder.parents:
            break
        try:
            left = _left(folder, "memory")
            if left is not None:
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
                free.append(max(0, left + cached) + _swap(folder))
        except (OSError, ValueError):
            continue
    return min(free) if free else None


def _left(folder: Path, what: str) -> int | None:
    """Return what a control group leaves of its limit, which may be less than nothing; None without a limit."""
    limit = (folder / f"{what}.max").read_text().strip()
    return None if limit == "max" else int(limit) - int((folder / f"{what}.current").read_text())


def _swap(folder: Path) -> int:
    try:
        left = _left(folder, "memory.swap")
        return 2**63 if left is None else max(0, left)  # without a limit the machine's own figure decides
    except (OSError, ValueError):
        return 0
