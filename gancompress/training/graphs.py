"""CUDA graphs: the forward and backward passes of a step, recorded once and replayed.

At the sizes of these networks a GPU computes an operation faster than Python launches it. A graph launches all of a
pass at once. What is recorded is the pass alone: images and latents in, losses and gradients out. Optimizers, masks and
the average, a dozen launches for all tensors together, stay outside; they write weights in place, so topology updates,
restored checkpoints and new rounds need no new recording.

A recording holds everything that was decided in Python while it was made, so a pass that draws random numbers inside,
or that differs between steps, is not recorded (:func:`why_no_graphs`; steps with an R1 penalty run as they are).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Pass: TypeAlias = Callable[[Sequence[Tensor | None]], list[Tensor]]
    Work: TypeAlias = Callable[[], list[Tensor]]
    #: runs or captures the work; returns what repeats it, and the tensors that hold its results from then on
    Recorder: TypeAlias = Callable[[Work], tuple[Callable[[], object], list[Tensor]]]

__all__ = ["RecordedPass", "record_on_gpu", "why_no_graphs"]

_WARM_UP = 3


def why_no_graphs(*, device: str, augments: bool, penalises: bool, world: int) -> str:
    """Say why the passes of a run cannot be recorded, or return an empty string when they can.

    Args:
        device: type of the device.
        augments: images are augmented in the pass.
        penalises: every discriminator step has a gradient penalty at places drawn in the pass.
        world: processes that train together.
    """
    if device != "cuda":
        return f"CUDA graphs need a GPU, and this run is on the {device}"
    if augments or penalises:
        what = "augmentation" if augments else "the gradient penalty of the loss"
        return f"{what} draws random numbers in every pass, which a recording would repeat"
    return "several processes talk to each other during a pass" if world > 1 else ""


class RecordedPass:
    """A forward and backward pass that is recorded when it is first called, and replayed from then on.

    Args:
        work: the pass: inputs to results, all tensors on the device; it must set the gradients of ``network`` anew.
        network: whose gradients it computes.
        others: further networks whose buffers it moves.
        record: captures or, in tests, imitates.
    """

    def __init__(
        self,
        work: Pass,
        network: nn.Module,
        others: Sequence[nn.Module] = (),
        record: Recorder | None = None,
    ) -> None:
        self._work = work
        self._parameters = list(network.parameters())
        self._buffers = [buffer for net in (network, *others) for buffer in net.buffers()]
        self._record = record_on_gpu if record is None else record
        self._replay: Callable[[], object] | None = None
        self._inputs: list[Tensor | None] = []
        self._results: list[Tensor] = []
        self._gradients: list[Tensor | None] = []

    def __call__(self, inputs: Sequence[Tensor | None]) -> list[Tensor]:
        """Return the results for inputs of the same shapes every time; those of the next call overwrite them."""
        if self._replay is None:
            self._start(inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            if held is not None and given is not None:
                held.copy_(given, non_blocking=True)
        assert self._replay is not None
        self._replay()
        # a pass that was not recorded, in between, may have left others
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._results

    def _start(self, inputs: Sequence[Tensor | None]) -> None:
        self._inputs = [None if given is None else given.clone() for given in inputs]
        # trying a pass moves statistics and power iterations
        before = [buffer.clone() for buffer in self._buffers]
        self._replay, self._results = self._record(lambda: self._work(self._inputs))
        self._gradients = [parameter.grad for parameter in self._parameters]
        with torch.no_grad():
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)


def record_on_gpu(work: Work) -> tuple[Callable[[], object], list[Tensor]]:
    """Capture ``work`` as a CUDA graph, after running it a few times so that libraries have chosen their kernels."""
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            work()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # a thread that makes batches may go on meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = work()
    return graph.replay, results
