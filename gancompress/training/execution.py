"""How masked layers are computed while training: on the sparse kernels or dense.

The engine keeps weights exactly 0 off their masks, so both ways mean the same and agree to float32 rounding. A layer
that runs sparse computes its output, its input gradient and the gradient of its *kept* weights only; on the steps
whose plan asks for a dense gradient (RigL's growth), that one is computed dense.

``auto`` compares each layer's density with the break-even measured on this machine (:mod:`gancompress.kernels.tuning`).
The measurements that a run has used travel in its checkpoints: a resumed run makes the choices it began with, whatever
the machine's cache says by then, and so ends with the same bytes.
"""

from __future__ import annotations

import contextlib
from types import MethodType
from typing import TYPE_CHECKING, Literal

from torch import nn

from gancompress import kernels
from gancompress.kernels.layout import norm_forward

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from gancompress.backbones.base import PrunableWeight

__all__ = ["Execution", "Kernels", "SparseLayers", "why_dense"]

#: ``auto``: as measured; ``dense``: never on the sparse kernels; ``sparse``: every masked layer on them
Kernels = Literal["auto", "dense", "sparse"]


def why_dense(*, device: str, precision: str, channels_last: bool, world: int, compiled: bool = False) -> str:
    """Say why a run cannot use the sparse kernels, or return an empty string when it can.

    Args:
        device: type of the device.
        precision: ``float32`` or ``bf16``.
        channels_last: the memory format of the run; the kernels take the other one.
        world: processes that train together. Each would measure for itself, and a checkpoint keeps one measurement.
        compiled: the networks run under ``torch.compile``.
    """
    status = kernels.status()
    if not status.available:
        return f"the native kernels are missing: {status.reason}"
    if device != "cpu":
        return f"the kernels run on a CPU, this run on {device}"
    if precision != "float32" and status.bf16 is None:
        return f"this run is in {precision}, and here no instruction of the kernels multiplies that"
    if channels_last:
        return "the kernels take images in the ordinary memory format, this run has channels_last"
    if compiled:
        return "torch.compile does not look into the kernels"
    return "several processes train together" if world > 1 else ""


class SparseLayers:
    """The masked layers of one network."""

    def __init__(self, execution: Execution, network: nn.Module, weights: Mapping[str, PrunableWeight]) -> None:
        self._execution = execution
        #: the coming backward pass gives weight gradients at masked positions too
        self.expects_dense = execution.every_gradient
        # a backbone of another package may view what a convolution gave, which needs the usual format
        self._batch_last = bool(getattr(network, "any_memory_format", False))
        self._norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if self._batch_last else []
        self._modules = {name: network.get_submodule(name.removesuffix("weight").rstrip(".")) for name in weights}

    def follow(self, masks: Mapping[str, Tensor]) -> None:
        """Compute with these masks from now on; the weights are already 0 off them.

        Layers kept whole are dense under ``sparse``; under ``auto`` they are measured like the others once any layer
        is masked, for the kernels are faster at 3 channels even so. A network without masks is left alone.
        """
        found = {name: masks[name].cpu() for name in self._modules}
        whole = {name: bool(mask.all()) for name, mask in found.items()}
        measured = self._execution.mode is None and not all(whole.values())
        for name, module in self._modules.items():
            kernels.detach(module)
            if kernels.supports(module) and (measured or not whole[name]):
                how = kernels.attach(module, found[name], sparse=self._execution.mode)
                how.masked, how.table = True, self._execution.table
                how.dense_gradient, how.batch_last = self.expects_dense, self._batch_last
        for norm in self._norms:
            norm.__dict__["forward"] = MethodType(norm_forward, norm)

    def expect(self, dense_gradient: bool) -> None:
        """Say whether the coming backward pass must give weight gradients at masked positions too."""
        self.expects_dense = dense_gradient or self._execution.every_gradient
        for module in self._modules.values():
            how = kernels.attached(module)
            if how is not None:
                how.dense_gradient = self.expects_dense

    @contextlib.contextmanager
    def dense(self) -> Iterator[None]:
        """Compute every layer dense inside."""
        held = {module: how for module in self._modules.values() if (how := kernels.attached(module)) is not None}
        modes = {module: (how.sparse, how.batch_last) for module, how in held.items()}
        for how in held.values():
            how.sparse, how.batch_last = "never", False
        try:
            yield
        finally:
            for module, how in held.items():
                how.sparse, how.batch_last = modes[module]


class Execution:
    """How one run computes its masked layers.

    Args:
        kernels: ``auto`` or ``sparse``; a run that is computed dense has no execution at all.
        every_gradient: weight gradients are wanted at masked positions on every step (dense optimizer moments).

    Attributes:
        table: the break-evens that this run has used, by layer; part of its checkpoints.
    """

    def __init__(self, kernels: Literal["auto", "sparse"], *, every_gradient: bool = False) -> None:
        self.mode: Literal["always"] | None = "always" if kernels == "sparse" else None
        self.every_gradient = every_gradient
        self.table: dict[str, float] = {}

    def layers(self, network: nn.Module, weights: Mapping[str, PrunableWeight]) -> SparseLayers:
        """Take over the masked layers of one network; nothing changes before :meth:`SparseLayers.follow`."""
        return SparseLayers(self, network, weights)

    def restore(self, table: Mapping[str, float]) -> None:
        """Go on with the break-evens that a checkpoint holds. The dictionary stays: layers refer to it."""
        self.table.clear()
        self.table.update({key: float(value) for key, value in table.items()})
