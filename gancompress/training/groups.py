"""Process groups: everything that training needs from ``torch.distributed``, and nothing when there is one process.

No wrapper goes around the networks. Gradients are averaged in one flat buffer per step, after the last micro-batch: a
loss that reaches a network by another path than a wrapper's ``forward`` (R1, DiffAugment, the same discriminator twice)
cannot miss the synchronisation. Nothing is pickled: what rank 0 decides travels as JSON and raw bytes.

Processes end together. One that fails leaves its reason where the others can read it and closes its connections;
whoever waits for it then fails too, at once, and says why. One that is killed closes them by dying.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from gancompress.errors import GroupError, InvariantError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from torch.distributed.distributed_c10d import Store

__all__ = ["Group"]

T = TypeVar("T")

#: the longest that one process may wait for the others between two steps: they may be evaluating
_PATIENCE = datetime.timedelta(hours=24)
#: the longest within a step
_STEP = datetime.timedelta(minutes=30)
_FAILED = "gancompress/failed"


@dataclasses.dataclass
class _Links:
    """What connects the processes of a group. gloo closes a connection with the last reference to it, and only then.

    Attributes:
        store: where a process that fails leaves its reason.
        control: the same processes, talking over the network rather than between GPUs: for waiting and agreeing.
    """

    store: Store | None = None
    control: dist.ProcessGroup | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of one run. ``Group()`` is a group of one and never touches ``torch.distributed``.

    As a context manager it is left with :meth:`close` when all went well, with :meth:`fail` otherwise.

    Attributes:
        world: number of processes.
        rank: this process, 0 first.
        device: where collective buffers live (``cuda:N`` with NCCL, ``cpu`` with gloo).
    """

    world: int = 1
    rank: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    _links: _Links = dataclasses.field(default_factory=_Links, compare=False, repr=False)

    @classmethod
    def join(
        cls, device: torch.device | str = "cpu", *, rank: int, world: int, init_method: str | None = None
    ) -> Group:
        """Join a group of ``world`` processes; blocks until all are there and connected to each other.

        Args:
            device: device of this process; CUDA uses NCCL, anything else gloo.
            rank: number of this process.
            world: number of processes; 1 joins nothing.
            init_method: where they meet (``file://…``, ``tcp://…``); default: the environment, as torchrun sets it.

        Raises:
            RunError: there is no such GPU on this machine, or nothing says where the processes meet.
            GroupError: they did not meet, or one of them failed meanwhile.
        """
        where = torch.device(device)
        if where.type == "cuda" and where.index is not None:
            if where.index >= torch.cuda.device_count():
                raise RunError(
                    f"rank {rank} wants GPU {where.index}, this machine has {torch.cuda.device_count()}: start at most "
                    "as many processes per machine, or use --set training.device=cpu"
                )
            torch.cuda.set_device(where)
        if world == 1:
            return cls(world, rank, where)
        backend, patience = ("nccl", _STEP) if where.type == "cuda" else ("gloo", _PATIENCE)
        try:
            store, _, _ = next(rendezvous(init_method or "env://", rank, world))
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
            control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except ValueError as error:  # a variable is not set
            reason = str(error).rpartition(": ")[2]
            raise RunError(f"{world} processes cannot meet: {reason}; start them with torchrun") from error
        except RuntimeError as error:
            if dist.is_initialized():
                dist.destroy_process_group()
            reason = " ".join(str(error).split())
            raise GroupError(f"rank {rank} of {world} cannot meet the others: {reason}") from error
        assert isinstance(control, dist.ProcessGroup)
        group = cls(world, rank, where, _Links(store, control))
        try:
            group.barrier()  # gloo lets the first go on, and fail, while others still connect: they could not say why
        except GroupError as error:
            group.fail(error)
            raise
        return group

    @classmethod
    def from_environment(cls, device: torch.device | str = "cpu") -> Group:
        """Join the group that torchrun describes in ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; alone without it."""
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        where = torch.device(device)
        if world > 1 and where.type == "cuda" and where.index is None:
            where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return cls.join(where, rank=rank, world=world)

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.fail(error)

    @property
    def is_main(self) -> bool:
        """Whether this process decides, logs and saves."""
        return self.rank == 0

    @property
    def neighbours(self) -> int:
        """Processes of this group on this machine, this one included, as torchrun counts them."""
        return min(self.world, int(os.environ.get("LOCAL_WORLD_SIZE", self.world)))

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Average floating-point tensors over all ranks, in place, in one collective per dtype.

        Args:
            tensors: the same shapes in the same order on every rank.
        """
        if self.world == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for same in by_dtype.values():
            flat = torch.cat([tensor.detach().reshape(-1).to(self.device) for tensor in same])
            with self._connected():
                dist.all_reduce(flat)
            flat /= self.world
            parts = torch.split(flat, [tensor.numel() for tensor in same])
            for tensor, part in zip(same, parts, strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the average of a floating-point tensor over all ranks; the tensor itself when alone."""
        if self.world == 1:
            return tensor
        out = tensor.detach().clone()
        self.mean_([out])
        return out

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of a network over all ranks, in place; the same ones must exist on every rank."""
        if self.world > 1:
            self.mean_(parameter.grad for parameter in parameters if parameter.grad is not None)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return rank 0's value of a tensor that has the same shape and dtype on every rank (any dtype)."""
        if self.world == 1:
            return tensor
        raw = _to_bytes([tensor], self.device)
        with self._connected():
            dist.broadcast(raw, 0)
        return _from_bytes(raw, tensor.dtype, tensor.shape).to(tensor.device)

    def share(
        self, scalars: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """Return rank 0's scalars and tensors on every rank; names, shapes and dtypes may differ before.

        Args:
            scalars: JSON-able; only rank 0's is read.
            tensors: only rank 0's are read. They arrive on the kind of device that they were on.
        """
        if self.world == 1:
            return scalars, tensors
        layout: list[tuple[str, str, Sequence[int], bool]] = []
        if self.is_main:
            layout = [
                (name, str(t.dtype).removeprefix("torch."), list(t.shape), t.device.type == "cpu")
                for name, t in tensors.items()
            ]
        text = json.dumps({"scalars": dict(scalars), "layout": layout} if self.is_main else {}).encode()
        length = self.broadcast(torch.tensor([len(text)], dtype=torch.int64))
        head = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_main:
            head = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        header = json.loads(bytes(self.broadcast(head).tolist()))
        specs = [(name, getattr(torch, dtype), shape, on_cpu) for name, dtype, shape, on_cpu in header["layout"]]
        sizes = [math.prod(shape) * dtype.itemsize for _, dtype, shape, _ in specs]
        raw = torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
        if self.is_main and tensors:
            raw = _to_bytes(tensors.values(), self.device)
        if raw.numel():
            with self._connected():
                dist.broadcast(raw, 0)
        if self.is_main:
            return scalars, tensors
        received = {
            name: _from_bytes(part, dtype, shape).to("cpu" if on_cpu else self.device)
            for (name, dtype, shape, on_cpu), part in zip(specs, torch.split(raw, sizes), strict=True)
        }
        return header["scalars"], received

    def assert_same(self, digest: str, what: str) -> None:
        """Verify that every rank calls with the same ``digest``.

        Raises:
            InvariantError: on every rank, naming ``what`` differs.
        """
        if self.world == 1:
            return
        number = int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=7).digest(), "little")
        extremes = torch.tensor([number, -number], dtype=torch.int64)
        with self._connected():
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self._links.control)
        if int(extremes[0]) != -int(extremes[1]):
            raise InvariantError(f"the processes of this run disagree about {what} (rank {self.rank} has {digest})")

    def any(self, flag: bool) -> bool:
        """Return whether any rank calls with true. Waits for every rank, but for no GPU."""
        if self.world == 1:
            return flag
        raised = torch.tensor([int(flag)])
        with self._connected():
            dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=self._links.control)
        return bool(raised)

    def barrier(self) -> None:
        """Wait for every rank, hours if need be."""
        self.any(False)

    def first(self, check: Callable[[], T]) -> T | None:
        """Let rank 0 check something while the others wait: what is free must not change meanwhile."""
        self.barrier()
        found = check() if self.is_main else None
        self.barrier()
        return found

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Leave the group after waiting for every rank."""
        if self.world > 1 and dist.is_initialized():
            self.barrier()
            self._links.control = None
            dist.destroy_process_group()

    def fail(self, error: BaseException) -> None:
        """Leave the group because of ``error``, waiting for nobody; the others fail and name it."""
        if self.world == 1 or not dist.is_initialized():
            return
        store = self._links.store
        if store is not None and not isinstance(error, GroupError):  # that one is another's failure
            reason = " ".join(str(error).split()) or "no reason given"
            with contextlib.suppress(Exception):  # the store may have gone with its process
                store.set(f"{_FAILED}/{self.rank}", f"{type(error).__name__}: {reason}")
        control, self._links.control = self._links.control, None
        if self.device.type != "cuda":
            dist.destroy_process_group()
        elif control is not None:  # NCCL itself would wait for collectives under way; it ends with the process
            dist.destroy_process_group(control)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn a broken connection into a message that says whose, and why if it said."""
        try:
            yield
        except RuntimeError as error:
            raise GroupError(self._why()) from error

    def _why(self) -> str:
        said = self._reasons()
        if said:
            return "; ".join(f"rank {rank} failed: {reason}" for rank, reason in said.items())
        return (
            f"rank {self.rank} lost another process of this run: killed, perhaps for want of memory, or its machine is "
            "gone; the same command goes on from the last checkpoint"
        )

    def _reasons(self) -> dict[int, str]:
        """Return what the ranks that failed left behind."""
        said: dict[int, str] = {}
        store = self._links.store
        if store is not None:
            with contextlib.suppress(Exception):  # the store may have gone with its process
                for rank in range(self.world):
                    if store.check([f"{_FAILED}/{rank}"]):
                        said[rank] = store.get(f"{_FAILED}/{rank}").decode()
        return said


def _to_bytes(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """Return the raw bytes of tensors, one after the other (gloo and NCCL do not move every dtype)."""
    return torch.cat([t.detach().reshape(-1).contiguous().view(torch.uint8).to(device) for t in tensors])


def _from_bytes(raw: Tensor, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """Undo :func:`_to_bytes` for one tensor; a copy, so that the bytes are aligned for their dtype."""
    return raw.clone().view(dtype).view(tuple(shape))
