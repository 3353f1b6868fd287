"""How much memory a run will take, before it takes any: a run that clearly cannot fit is refused.

One step is played through on copies of the networks whose tensors have shapes and no values, and what is alive at once
is added up. Only tensors count: the process takes 30 to 130 MB more, for libraries, workspaces and fragments, so the
estimate of a small run says little (quickstart: 7.6 MB of tensors, 39 measured; sngan_cifar10 with 64 channels: 362 of
465; CPU, float32, torch 2.15). Folding takes up to a tenth off it.

Everywhere below, ``trainer`` is not used yet, ``images`` are bytes of decoded images, and ``processes`` counts those of
the run on this machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gancompress.errors import RunError
from gancompress.sparsity.state import PAIR, role_of
from gancompress.sparsity.weights import duplicate
from gancompress.training.optimizers import build_optimizer
from gancompress.units import size as size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gancompress.architecture.description import Architecture
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import OptimizerConfig, Recipe
    from gancompress.training.loop import Trainer

__all__ = ["MemoryEstimate", "available_memory", "check_images", "check_memory", "check_networks", "estimate_memory"]

#: a run is refused when its estimate is larger than what is free by this factor
MARGIN = 1.25
#: bytes per masked weight: mask, its complement, the mask in the weight's own width, and what was ever kept
_MASK_BYTES = 1 + 1 + 4 + 1
_CPU = torch.device("cpu")

N = TypeVar("N", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process of a run holds at once.

    Attributes:
        weights: all networks, with their buffers, and the generator that is learned from.
        average: the averaged generators.
        moments: state of all optimizers.
        masks: masks of all networks.
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
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, key: int, size: int) -> None:
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

    #: False whatever torch sets it to
    avoid_device_init = property(lambda self: False, lambda self, value: None)


def _without_values(network: N, mode: FakeTensorMode) -> N:
    """Return a copy of a network whose tensors have shapes and take no memory."""
    with FakeCopyMode(mode):
        return duplicate(network)


def _largest_step(trainer: Trainer) -> int | None:
    """Play one training step through; None when a network needs values for its shapes."""
    try:
        with _Shapes(allow_non_fake_inputs=True) as mode:
            networks = {name: _without_values(network, mode) for name, network in trainer.networks.items()}
            held = [tensor for network in networks.values() for tensor in _tensors(network)]
            return peak_bytes(lambda: trainer.play.rehearse(networks), held)
    except Exception:  # a plugin's network may do anything, and an estimate is no reason to stop it
        return None


def estimate_memory(recipe: Recipe, trainer: Trainer, *, images: int = 0, processes: int = 1) -> MemoryEstimate:
    """Estimate what a run of ``recipe`` takes; seconds at most, and no memory to speak of."""
    moments = masks = 0
    for name in trainer.engine.roles:
        budget, role = trainer.engine.budget(name), trainer.engine.role(name)
        size, masked = sum(p.nbytes for p in trainer.network(name).parameters()), sum(budget.sizes.values())
        if recipe.sparsity.moments == "compact":
            size -= 4 * (masked - budget.total)
        moments += round(size * _state_ratio(getattr(recipe.training.optimizers, role)))
        masks += _MASK_BYTES * masked if budget.density < 1 else 0
    return MemoryEstimate(
        weights=sum(map(_stored, (*trainer.networks.values(), *trainer.play.held))),
        average=sum(_stored(average.module) for average in trainer.all_averages.values()),
        moments=moments,
        masks=masks,
        step=_largest_step(trainer),
        images=images,
        processes=processes,
    )


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _stored(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _tensors(network))


def _state_ratio(config: OptimizerConfig) -> float:
    """Return the size of an optimizer's state over that of its weights, from one step of a small one."""
    probe = nn.Linear(32, 32, bias=False)
    optimizer = build_optimizer(probe, config)
    probe.weight.grad = torch.zeros_like(probe.weight)
    optimizer.step()
    state = [value for value in optimizer.state[probe.weight].values() if isinstance(value, Tensor)]
    return sum(t.numel() for t in state if t.numel() > 1) / probe.weight.numel()  # not the count of steps


def _lacking(needed: float, device: torch.device) -> str:
    """Begin the message that a refusal gives; an empty string when it fits or nobody says what is free."""
    free = available_memory(device)
    if free is None or needed <= MARGIN * free:
        return ""
    return f"not enough {'GPU memory' if device.type == 'cuda' else 'memory'}: {size_of(free)} are free"


def check_images(dataset: Dataset[DatasetConfig], processes: int = 1) -> int:
    """Return the bytes that ``dataset.prepare()`` will take, after comparing them with what is free.

    Raises:
        RunError: they clearly do not fit.
    """
    images = dataset.bytes_to_prepare()
    if lacking := _lacking(processes * images, _CPU):
        raise RunError(
            f"{lacking}, the images take {size_of(images)} decoded{_each(processes)}; "
            "decode them when they are needed with --set data.memory_limit=0, or lower data.resolution"
        )
    return images


def check_networks(recipe: Recipe, architecture: Architecture, device: torch.device, processes: int = 1) -> None:
    """Refuse networks that clearly do not fit, before they are built: drawing them could take hours, or all memory.

    Raises:
        RunError: they do not fit even without activations; the message says what to lower.
    """
    try:
        with torch.device("meta"):
            sizes = {name: _stored(architecture.network(name)) for name in architecture.names}
    except Exception:  # a plugin's network may do anything, and an estimate is no reason to stop it
        return
    weights = sum(sizes.values())
    ratios = {role: _state_ratio(getattr(recipe.training.optimizers, role)) for role in PAIR}
    moments = sum(size * ratios[role_of(name)] for name, size in sizes.items())
    parts = {
        "weights": weights,
        "gradients": weights,
        "average": sum(size for name, size in sizes.items() if role_of(name) == "generator"),
        "moments": 0 if recipe.sparsity.moments == "compact" else round(moments),
    }
    total = sum(parts.values())
    on_gpu = device.type == "cuda"  # networks are built on the CPU wherever they go
    lacking = _lacking(processes * (weights if on_gpu else total), _CPU) or (on_gpu and _lacking(total, device))
    if lacking:
        raise RunError(
            f"{lacking}, and the networks alone take {size_of(total)}{_each(processes)}: {_listed(parts)}; "
            "lower model.channels"
        )


def check_memory(recipe: Recipe, trainer: Trainer, *, images: int = 0, processes: int = 1) -> MemoryEstimate:
    """Estimate, compare what is still to come with what is free now, and return the estimate.

    Raises:
        RunError: it clearly does not fit; the message says what to lower.
    """
    estimate = estimate_memory(recipe, trainer, images=images, processes=processes)
    on_gpu = trainer.device.type == "cuda"
    lacking = _lacking(estimate.to_come * (1 if on_gpu else processes), trainer.device)
    if not lacking:
        return estimate
    ways = [
        "lower training.batch_size or model.channels",
        f"raise training.accumulate (now {trainer.config.accumulate})",
    ]
    if trainer.config.precision == "float32" and on_gpu:
        ways.append("--set training.precision=bf16")
    if processes > 1 and not on_gpu:
        ways.append("start fewer processes")
    raise RunError(f"{lacking}, and this run takes {estimate.describe()}; {', or '.join(ways)}")


def available_memory(device: torch.device = _CPU) -> int | None:
    """Return the bytes that can be had now, or None where nobody says: swap counts, and the limits of containers."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min((free for free in (_free_in_machine(), _free_in_container()) if free is not None), default=None)


def _free_in_machine(path: Path = Path("/proc/meminfo")) -> int | None:
    with contextlib.suppress(OSError, KeyError, ValueError):
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return sum(int(fields[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree"))
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # at most that
    return None


def _free_in_container(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return what the control groups (version 2) above this process leave it; caches of files can be given up."""
    path = ""
    with contextlib.suppress(OSError):
        path = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "").strip("/")
    free: list[int] = []
    for folder in (root / path, *(root / path).parents):
        if not folder.is_relative_to(root):
            break
        with contextlib.suppress(OSError, ValueError):
            left = _left(folder, "memory")
            if left is not None:
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                left += int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
                swap: int | None = 0
                with contextlib.suppress(OSError, ValueError):
                    swap = _left(folder, "memory.swap")
                # with swap and no limit to it the machine's own figure decides
                free.append(max(0, left) + (2**63 if swap is None else max(0, swap)))
    return min(free, default=None)


def _left(folder: Path, what: str) -> int | None:
    """Return what a control group leaves of its limit, which may be less than nothing; None without a limit."""
    limit = (folder / f"{what}.max").read_text().strip()
    return None if limit == "max" else int(limit) - int((folder / f"{what}.current").read_text())
