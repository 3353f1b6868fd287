"""Training for int8: from the middle of the last round on, the generator computes with the rounding of its export."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

from gancompress.backbones.base import prunable_weights
from gancompress.export.in_bytes import calibrate_generator, doubled_layers, ranges_from_json, ranges_to_json
from gancompress.quantization.rounding import rounding

if TYPE_CHECKING:
    from gancompress.training.loop import Trainer

__all__ = ["Rounding"]


class Rounding:
    """The rounding of one run.

    Ranges are chosen once, of the averaged generator, which is what is exported; they are part of the checkpoints.

    Args:
        trainer: whose live generator is to be rounded.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._inside = trainer, contextlib.ExitStack()
        self._on = False

    def begin(self) -> None:
        """Let the generator compute with rounding from now on, if it does not yet.

        Raises:
            ExportError: no layer of it fits int8.
        """
        if self._on:
            return
        trainer = self._trainer
        with trainer.ema.measured() as average:
            average = copy.deepcopy(average).cpu().eval()
        masks = {name: weight.parameter.detach() != 0 for name, weight in prunable_weights(average).items()}
        if trainer.int8 is None:
            trainer.int8 = ranges_to_json(calibrate_generator(average, masks))
        ranges = ranges_from_json(trainer.int8)
        self._inside.enter_context(rounding(trainer.generator, ranges, doubled_layers(average, masks)))
        self._on = True

    def end(self) -> None:
        """Undo it."""
        self._inside.close()
        self._on = False
