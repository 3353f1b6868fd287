"""From a packed generator to the file that pages run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress import __version__
from gancompress.evaluation.sampler import classes_of
from gancompress.export.compiled import compile_generator
from gancompress.web.blob import Tensors, write_blob
from gancompress.web.tape import Tape, record

if TYPE_CHECKING:
    from gancompress.export.packed import Packed

__all__ = ["blob_of"]


def blob_of(packed: Packed) -> bytes:
    """Return a packed generator as a ``.gcw`` file; see :mod:`gancompress.web.blob`.

    Raises:
        ExportError: it has an operation that pages lack, which is named.
    """
    compiled = compile_generator(packed.generator(), packed.masks, sparse="always", ranges=packed.ranges or None)
    tensors = Tensors()
    tape = Tape(tensors, packed.state, packed.masks)
    record(compiled, tape)
    image = packed.image
    header: dict[str, Any] = {
        "gancompress": __version__,
        "latent": compiled.latent_dim,
        "classes": list(image.classes[: compiled.num_classes]),
        "counts": list(classes_of(compiled)),
        "channels": image.channels,
        "size": image.resolution,
        "programs": tape.programs,
        "operations": tape.operations,
        "output": tape.output,
    }
    return write_blob(header, tensors)
