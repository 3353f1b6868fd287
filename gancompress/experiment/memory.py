"""How much memory a run will take, before it takes any.

The largest step is played through on the meta device, where tensors have shapes and no values, and what is alive at
once is added up: activations, gradients, images. Weights, moments, average, masks and images held in memory come from
their sizes. What this leaves out (workspaces of the convolutions, fragments, libraries, evaluation) adds to it; folded
convolutions (:mod:`gancompress.training.folding`) take a tenth off it. A run is refused only if its estimate is a
quarter above what is free.

Measured against the growth of the resident set over three steps on a CPU, float32, one thread, torch 2.15; what a small
run takes beyond its estimate (30 to 130 MB) is mostly libraries that are loaded on first use:

============================================  =========  ========
run                                           estimated  measured
============================================  =========  ========
quickstart                                       7.6 MB     39 MB
sngan_cifar10, 64 channels in both networks      362 MB    465 MB
stgan_biggan, 32 channels, batch 20              188 MB    321 MB
============================================  =========  ========
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gancompress.errors import RunError
from gancompress.training.batches import Latents, RealBatch
from gancompress.training.objective import Objective, frozen
from gancompress.training.optimizers import build_optimizer
from gancompress.units import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gancompress.backbones.base import Backbone, BackboneConfig
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import OptimizerConfig, Recipe
    from gancompress.sparsity.state import Role
    from gancompress.training.loop import Trainer

__all__ = [
    "MemoryEstimate",
    "available_memory",
    "check_images",
    "check_memory",
    "check_networks",
    "estimate_memory",
    "peak_bytes",
]

#: a run is refused when its estimate is larger than what is free by this factor
MARGIN = 1.25
#: bytes per masked weight: mask, its complement, the mask in the weight's own width, and what was ever kept
_MASK_BYTES = 1 + 1 + 4 + 1


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
        device: where the networks are, ``cpu`` or ``cuda``.
        processes: processes of the run on this machine.
    """

    weights: int
    average: int
    moments: int
    masks: int
    step: int | None
    images: int
    device: str
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
        parts = ("weights", "average", "moments", "masks", "step", "images")
        return {
            "peak": self.total if self.step is not None else None,
            **{name: getattr(self, name) for name in parts},
        }

    def describe(self) -> str:
        """Return the estimate in a line: ``at least 312 MB: weights 4.1 MB, …``."""
        parts = {
            "weights": self.weights,
            "average": self.average,
            "moments": self.moments,
            "masks": self.masks,
            "activations and gradients": self.step,
            "images": self.images,
        }
        named = ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value)
        unknown = "" if self.step is not None else "; activations not counted, the networks cannot be played through"
        several = f" on each of {self.processes} processes" if self.processes > 1 else ""
        return f"at least {size(self.total)}{several}: {named}{unknown}"


# --------------------------------------------------------------------------- the largest step


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive at once.

    Args:
        held: tensors that were there before and do not count.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(step: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Return the most bytes of tensors that ``step`` allocates and holds at once; meant for the meta device.

    Args:
        step: what to do.
        held: tensors that are there before, and that it may write to.
    """
    with _Alive(held) as alive:
        step()
    return int(alive.peak)


class _Shadow(nn.Module):
    """A network with tensors that have shapes only; the network itself is not touched, and nothing is copied."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.real = [network]  # in a list, so that its parameters are not taken for this one's
        self.dtype = dtype
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            shadow = torch.empty_like(tensor, dtype=kind, device="meta")
            self.tensors[name] = nn.Parameter(shadow) if isinstance(tensor, nn.Parameter) else shadow

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return (tensor for tensor in self.tensors.values() if isinstance(tensor, nn.Parameter))

    def forward(self, *inputs: Tensor | None) -> Tensor:
        cast = (x.to(self.dtype) if x is not None and x.is_floating_point() else x for x in inputs)
        out: Tensor = torch.func.functional_call(self.real[0], self.tensors, tuple(cast))
        return out


def _largest_step(recipe: Recipe, trainer: Trainer) -> int | None:
    """Play one discriminator step and one generator step through; None when a network needs values for its shapes."""
    training, source = recipe.training, trainer.generator
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    generator, discriminator = _Shadow(trainer.generator, dtype), _Shadow(trainer.discriminator, dtype)
    objective = Objective(
        loss=trainer.objective.loss,
        seed=0,
        # penalties are computed in float32 whatever the precision, which networks cast for good cannot
        r1_weight=recipe.objective.r1.weight if dtype is torch.float32 else 0.0,
        joint_batch=training.joint_batch,
    )
    share = trainer.group.world * training.accumulate
    reals, fakes = training.batch_size // share, (training.generator_batch_size or training.batch_size) // share
    shape = (reals, source.image.channels, source.image.resolution, source.image.resolution)

    def latents(count: int) -> Latents:
        labels = torch.zeros(count, dtype=torch.int64, device="meta") if source.num_classes else None
        return Latents(torch.empty(count, source.latent_dim, dtype=dtype, device="meta"), labels)

    def play() -> None:
        drawn = latents(reals)
        real = RealBatch(torch.empty(shape, dtype=dtype, device="meta"), drawn.labels)
        with torch.no_grad():
            fake = generator(drawn.z, drawn.labels)
        objective.discriminator(discriminator, real, fake, drawn.labels, 0).loss.backward()  # type: ignore[no-untyped-call]
        del real, fake
        with frozen(discriminator):
            drawn = latents(fakes)
            logits = discriminator(generator(drawn.z, drawn.labels), drawn.labels)
            objective.loss.generator(logits).backward()  # type: ignore[no-untyped-call]

    try:
        # meta tensors have no autocast: the networks are cast instead
        with mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()):
            return peak_bytes(play, (*generator.tensors.values(), *discriminator.tensors.values()))
    except Exception:  # a plugin's network may do anything, and an estimate is no reason to stop it
        return None


# --------------------------------------------------------------------------- the whole


def estimate_memory(recipe: Recipe, trainer: Trainer, *, images: int = 0, processes: int = 1) -> MemoryEstimate:
    """Estimate what a run of ``recipe`` takes; a second at most, and no memory to speak of.

    Args:
        recipe: a checked recipe.
        trainer: built from it, and not used yet.
        images: bytes of the images held in memory.
        processes: processes of the run on this machine.
    """
    networks = {role: trainer.network(role) for role in trainer.engine.roles}
    masked = (trainer.engine.budget(role) for role in networks)
    return MemoryEstimate(
        weights=sum(_stored(network) for network in networks.values()),
        average=_stored(trainer.ema.module),
        moments=sum(_moments(recipe, trainer, role) for role in networks),
        masks=sum(sum(budget.sizes.values()) for budget in masked if budget.density < 1) * _MASK_BYTES,
        step=_largest_step(recipe, trainer),
        images=images,
        device=trainer.device.type,
        processes=processes,
    )


def _stored(network: nn.Module, *, buffers: bool = True) -> int:
    tensors = [*network.parameters(), *(network.buffers() if buffers else ())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _moments(recipe: Recipe, trainer: Trainer, role: Role) -> int:
    weights, budget = _stored(trainer.network(role), buffers=False), trainer.engine.budget(role)
    if recipe.sparsity.moments == "compact":
        weights -= 4 * (sum(budget.sizes.values()) - budget.total)
    return round(weights * _state_ratio(getattr(recipe.training.optimizers, role)))


def _state_ratio(config: OptimizerConfig) -> float:
    """Return the size of an optimizer's state over that of its weights, from one step of a small one."""
    probe = nn.Linear(32, 32, bias=False)
    optimizer = build_optimizer(probe, config)
    probe.weight.grad = torch.zeros_like(probe.weight)
    optimizer.step()
    tensors = (value for value in optimizer.state[probe.weight].values() if isinstance(value, Tensor))
    held = sum(tensor.numel() for tensor in tensors if tensor.numel() > 1)  # not the count of steps
    return held / probe.weight.numel()


def check_images(dataset: Dataset[DatasetConfig], processes: int = 1) -> int:
    """Return the bytes that ``dataset.prepare()`` will take, after comparing them with what is free.

    Raises:
        RunError: they clearly do not fit.
    """
    images = dataset.bytes_to_prepare()
    free = available_memory()
    if free is not None and processes * images > MARGIN * free:
        several = f" on each of {processes} processes" if processes > 1 else ""
        raise RunError(
            f"not enough memory: {size(free)} are free, the images take {size(images)} decoded{several}; "
            "decode them when they are needed with --set data.memory_limit=0, or lower data.resolution"
        )
    return images


def check_networks(
    recipe: Recipe, backbone: Backbone[BackboneConfig], device: torch.device, processes: int = 1
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
            named = ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value)
            several = f" on each of {processes} processes" if processes > 1 else ""
            raise RunError(
                f"not enough {'GPU memory' if place.type == 'cuda' else 'memory'}: {size(free)} are free, and the "
                f"networks alone take {size(total)}{several}: {named}; lower model.channels"
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
    needed = estimate.to_come if on_gpu else estimate.to_come * processes
    free = available_memory(trainer.device)
    if free is None or needed <= MARGIN * free:
        return estimate
    ways = [
        "lower training.batch_size or model.channels",
        f"raise training.accumulate (now {recipe.training.accumulate})",
    ]
    if recipe.training.precision == "float32" and on_gpu:
        ways.append("--set training.precision=bf16")
    if processes > 1 and not on_gpu:
        ways.append("start fewer processes")
    raise RunError(
        f"not enough {'GPU memory' if on_gpu else 'memory'}: {size(free)} are free, and this run takes "
        f"{estimate.describe()}; {', or '.join(ways)}"
    )


# --------------------------------------------------------------------------- what there is


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Return the bytes that can be had now, or None where nobody says: swap counts, and the limits of containers."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [value for value in (_free_in_machine(), _free_in_container()) if value is not None]
    return min(found) if found else None


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
            limit = (folder / "memory.max").read_text().strip()
            if limit == "max":
                continue
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
            swap = _allowed_swap(folder)
            free.append(max(0, int(limit) - int((folder / "memory.current").read_text()) + cached) + swap)
        except (OSError, ValueError):
            continue
    return min(free) if free else None


def _allowed_swap(folder: Path) -> int:
    try:
        limit = (folder / "memory.swap.max").read_text().strip()
        if limit == "max":
            return 2**63  # the machine's own figure decides
        return max(0, int(limit) - int((folder / "memory.swap.current").read_text()))
    except (OSError, ValueError):
        return 0
