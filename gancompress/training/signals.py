"""Scalar signals of training (D on real images, on fakes before and after a generator step), kept on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.methods.base import Measure
    from gancompress.training.groups import Group

__all__ = ["SIGNALS", "Signals"]

#: what is recorded, in the order of the buffer's columns (see ``methods.base.Measure``)
SIGNALS = ("d_real", "d_fake", "d_fake_after")


class Signals:
    """The last ``measure.window`` records; recording never waits for the device.

    Args:
        measure: what the method asked for; None records nothing.
        device: where the signals are computed.
    """

    def __init__(self, measure: Measure | None, device: torch.device) -> None:
        self.measure = measure
        window = measure.window if measure is not None else 0
        # float64 wherever it exists: signals are differences of nearly equal means
        dtype = torch.float64 if device.type != "mps" else torch.float32
        self._ring = torch.zeros(window, len(SIGNALS), dtype=dtype, device=device)
        self._count = 0

    @torch.no_grad()
    def record(self, d_real: Tensor, d_fake: Tensor, d_fake_after: Tensor) -> None:
        """Store one record of scalars (shape ()), overwriting the oldest when the window is full."""
        window = self._ring.shape[0]
        if window:
            row = torch.stack((d_real, d_fake, d_fake_after)).detach().to(self._ring)
            self._ring[self._count % window].copy_(row)
            self._count += 1

    def read(self, group: Group) -> Mapping[str, Tensor]:
        """Return the records, oldest first, (n,) float64 on the CPU per signal, averaged over ranks; waits."""
        window = self._ring.shape[0]
        if not window:
            return {}
        ordered = self._ring[: self._count]
        if self._count > window:
            ordered = self._ring.roll(-(self._count % window), 0)
        values = group.mean(ordered).to("cpu", torch.float64)
        return {name: values[:, column].clone() for column, name in enumerate(SIGNALS)}

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the buffer and the number of records ever made."""
        return {"ring": self._ring} if self._ring.numel() else {}, {"count": self._count}

    def load_state_dict(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            CheckpointError: it was saved with another window.
        """
        if self._ring.numel():
            ring = tensors.get("ring")
            if ring is None or ring.shape != self._ring.shape:
                raise CheckpointError("the saved signals do not fit what the method measures")
            self._ring.copy_(ring)
        self._count = int(scalars["count"])
