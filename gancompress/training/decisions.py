"""A method's answer: asked for on rank 0, validated, brought to every rank, written into a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from gancompress.errors import GancompressError, InvariantError, MethodError
from gancompress.sparsity.state import SparseState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gancompress.methods.base import NetView
    from gancompress.training.groups import Group
    from gancompress.training.masking import MaskedNetwork

Answer = TypeVar("Answer")

__all__ = ["answer", "below", "check_counts", "decide_together", "pack", "unpack", "validate"]


def decide_together(
    group: Group, method: str, net: MaskedNetwork, view: NetView, decide: Callable[[], SparseState]
) -> SparseState:
    """Let rank 0 ask the method; return its answer, validated, on every rank.

    Args:
        group: the processes of this run; all of them call.
        method: its class, for messages.
        net: the network that the answer is for.
        view: what the method was shown; its weights must not change.
        decide: the call of the method.

    Raises:
        InvariantError: the answer does not fit the network, the method changed a weight, or ranks disagree.
        GancompressError: on the other ranks, when rank 0 failed.
    """
    state: SparseState | None = None
    failure: Exception | None = None
    if group.is_main:
        try:
            state = _ask(method, net, view, decide)
        except Exception as error:
            # the other ranks wait for an answer: they must hear of the failure before it goes up
            failure = error
    if group.world > 1:
        state = _share(group, net, state, failure)
    if failure is not None:
        raise failure
    assert state is not None
    if group.world > 1:
        group.assert_same(state.hash(), f"the masks of the {net.name}")
    return state


def _ask(method: str, net: MaskedNetwork, view: NetView, decide: Callable[[], SparseState]) -> SparseState:
    # torch counts in-place writes per tensor: a method that edits what it was only shown is caught at no cost
    shown = _shown(net, view)
    before = [tensor._version for _, tensor in shown]
    state = answer(method, f"the {net.name} at step {view.step} of round {view.round}", decide)
    changed = [what for (what, tensor), version in zip(shown, before, strict=True) if tensor._version != version]
    if changed:
        raise InvariantError(f"method {method} changed {', '.join(changed)} of the {net.name} itself")
    if not isinstance(state, SparseState):
        raise MethodError(
            f"method {method} answered for the {net.name} with {type(state).__name__}, expected SparseState"
        )
    validate(net, state, f"method {method}")
    return state


def answer(method: str, asked: str, call: Callable[[], Answer]) -> Answer:
    """Call a method; whatever it raises names the method and what it was asked about.

    Raises:
        GancompressError: as the method raised it.
        MethodError: for everything else, with the original as its cause.
    """
    try:
        return call()
    except GancompressError:
        raise
    except Exception as error:
        raise MethodError(
            f"method {method} failed, asked about {asked}: {type(error).__name__}: {error} (--debug shows where)"
        ) from error


def _shown(net: MaskedNetwork, view: NetView) -> list[tuple[str, Tensor]]:
    """List every tensor that a method may look at and must not change."""
    groups: dict[str, Mapping[str, object]] = {
        "weight": view.weights,
        "gradient of": view.gradients or {},
        "momentum of": view.momentum,
        "the other network's": view.other.weights if view.other is not None else {},
    }
    if net.has_state:
        state = net.state
        groups |= {"mask of": state.masks, "backward mask of": state.backward, "memory": state.memory}
    return [
        (f"{what} {name}", tensor)
        for what, tensors in groups.items()
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    ]


def _share(
    group: Group, net: MaskedNetwork, state: SparseState | None, failure: Exception | None
) -> SparseState | None:
    scalars: dict[str, Any] = {"failure": None if failure is None else str(failure)}
    tensors: dict[str, Tensor] = {}
    if state is not None:
        more, tensors = pack(state)
        scalars.update(more)
    shared, received = group.share(scalars, tensors)
    if group.is_main:
        return state
    if shared["failure"] is not None:
        raise GancompressError(f"rank 0 could not choose the masks of the {net.name}: {shared['failure']}")
    return unpack(shared, received)


def validate(net: MaskedNetwork, state: SparseState, author: str) -> None:
    """Verify names, shapes, dtypes, counts and units of a state; waits for the device.

    Raises:
        InvariantError: naming the tensor that does not fit.
    """
    names = set(net.parameters)
    if set(state.masks) != names or set(state.budgets) != names:
        odd = sorted((set(state.masks) ^ names) | (set(state.budgets) ^ names))
        raise InvariantError(f"{author} gave the {net.name} masks or budgets for other tensors: {', '.join(odd)}")
    for name, parameter in net.parameters.items():
        mask = state.masks[name]
        if mask.dtype is not torch.bool or mask.shape != parameter.shape:
            raise InvariantError(
                f"{author} gave the {net.name}'s {name} a mask of {mask.dtype} {tuple(mask.shape)}, "
                f"expected bool {tuple(parameter.shape)}"
            )
    check_counts(state, f"{author}, {net.name}")
    net.parts.budget.check_units(state.masks, f"{author}, {net.name}")
    for what, tensors in (("backward mask", state.backward), ("start values", state.start)):
        for name, tensor in tensors.items():
            if name not in names or tensor.shape != state.masks[name].shape:
                raise InvariantError(f"{author} gave the {net.name}'s {name} {what} of another shape, or for no mask")
            if (tensor.dtype is torch.bool) != (what == "backward mask"):
                raise InvariantError(f"{author} gave the {net.name}'s {name} {what} of {tensor.dtype}")
    for name, larger in state.backward.items():
        missing = int((state.masks[name] & ~larger).sum())
        if missing:
            raise InvariantError(f"{author}: the backward mask of {name} leaves out {missing} weights that are kept")
    for key, value in state.memory.items():
        if isinstance(value, bool) or not isinstance(value, Tensor | int | float):
            raise InvariantError(
                f"{author} remembers {key} of the {net.name} as {type(value).__name__}; "
                "memory holds tensors, integers and floats"
            )


def check_counts(state: SparseState, where: str) -> None:
    """Verify ``mask.sum() == budget`` for every tensor, waiting for each device once.

    Raises:
        InvariantError: naming the tensor and both counts.
    """
    if not state.masks:
        return
    device = next(iter(state.masks.values())).device
    kept = torch.stack([mask.sum().to(device) for mask in state.masks.values()]).tolist()
    for name, count in zip(state.masks, kept, strict=True):
        if count != state.budgets[name]:
            raise InvariantError(
                f"{where}: the mask of {name} keeps {count} weights, its budget is {state.budgets[name]}"
            )


def pack(state: SparseState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split a state into JSON-able scalars and named tensors."""
    groups = {"mask": state.masks, "backward": state.backward, "start": state.start}
    tensors = {f"{kind}.{name}": tensor for kind, group in groups.items() for name, tensor in group.items()}
    tensors.update({f"memory.{key}": value for key, value in state.memory.items() if isinstance(value, Tensor)})
    memory = {key: value for key, value in state.memory.items() if not isinstance(value, Tensor)}
    return {"budgets": dict(state.budgets), "updates": state.updates, "memory": memory}, tensors


def unpack(scalars: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SparseState:
    """Undo :func:`pack`; other scalars and tensors are ignored."""
    return SparseState(
        masks=below(tensors, "mask."),
        budgets=dict(scalars["budgets"]),
        updates=scalars["updates"],
        memory={**scalars["memory"], **below(tensors, "memory.")},
        backward=below(tensors, "backward."),
        start=below(tensors, "start."),
    )


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name starts with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
