"""Finds and loads the native kernels, and says in one value whether they can be used and why not.

The library is a plain C interface over ctypes: float32 pointers in, float32 pointers out. It knows neither torch nor
Python, so one build serves many versions of both, and ctypes releases the interpreter's lock during a call.

Environment:
    GANCOMPRESS_KERNELS: ``avx512``, ``avx2`` or ``baseline`` picks an instruction set, ``off`` runs everything dense.
    GANCOMPRESS_KERNELS_LIBRARY: load this file instead of the installed one (used to run a sanitizer build).
"""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

from gancompress.errors import KernelError, did_you_mean

__all__ = ["ENVIRONMENT", "Library", "Status", "library", "status"]

#: The environment variable that picks an instruction set.
ENVIRONMENT = "GANCOMPRESS_KERNELS"

_ABI = 6
_OK, _NOT_FINITE, _BAD_ARGUMENT, _NO_MEMORY = range(4)
IMAGES, POINTS, BATCH_LAST = range(3)
DIRECT, PHASED, WEIGHTS = range(3)


@dataclass(frozen=True)
class Status:
    """Whether the native kernels can be used here.

    Attributes:
        available: true when sparse kernels run; false when everything runs dense.
        isa: the instruction set in use (``avx512``, ``avx2``, ``baseline``), or None.
        path: the library's file, or None when there is none.
        reason: why it is so, in one line.
    """

    available: bool
    isa: str | None
    path: str | None
    reason: str


class PlanShape(ctypes.Structure):
    """``gc::PlanShape`` in ``native/plan.h``."""

    _fields_ = [
        (name, c_int32)
        for name in (
            "kind", "dim0", "dim1", "kh", "kw", "stride", "padding", "flat", "grid_h", "grid_w", "tile_h",
            "tile_w", "chunk",
        )
    ]  # fmt: skip


class ConvArgs(ctypes.Structure):
    """``GcConv`` in ``native/api.h``."""

    _fields_ = [
        *((name, c_void_p) for name in ("plan", "weight", "x", "bias", "out")),
        ("batch", c_int64),
        *((name, c_int32) for name in ("hi", "wi", "ho", "wo", "layout_x", "layout_out", "pre_relu", "threads")),
    ]


class BackwardArgs(ctypes.Structure):
    """``GcBackward`` in ``native/api.h``."""

    _fields_ = [
        *((name, c_void_p) for name in ("plan_x", "plan_weight", "weight", "x", "gradient", "for_x", "for_weight")),
        ("batch", c_int64),
        *(
            (name, c_int32)
            for name in ("hi", "wi", "ho", "wo", "layout_x", "layout_gradient", "transpose", "pre_relu", "threads")
        ),
    ]


class BoxesArgs(ctypes.Structure):
    """``GcBoxes`` in ``native/api.h``."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "gate", "out")),
        *((name, c_int64) for name in ("planes", "height", "width", "inner")),
        ("scale", c_float),
        *((name, c_int32) for name in ("widen", "relu", "threads")),
    ]


class StepArgs(ctypes.Structure):
    """``GcStep`` in ``native/api.h``."""

    _fields_ = [
        *((name, c_void_p) for name in ("plan", "weight", "bias", "scale", "shift")),
        *(
            (name, c_int32)
            for name in ("src", "dst", "add", "hi", "wi", "ho", "wo", "up", "pre_relu", "relu", "add_up", "affine")
        ),
    ]


class RunArgs(ctypes.Structure):
    """``GcRun`` in ``native/api.h``."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "out", "affines")),
        *((name, c_int64) for name in ("in_count", "out_count", "batch")),
        *((name, c_int32) for name in ("input", "output", "affine_count", "threads")),
    ]


class Library:
    """The loaded library with one instruction set chosen.

    Args:
        path: the shared library.
        wanted: the instruction set's name, or None for the best that this machine runs.

    Raises:
        KernelError: the file cannot be loaded, was built from other sources, or does not hold ``wanted``.
    """

    def __init__(self, path: Path, wanted: str | None) -> None:
        try:
            lib = ctypes.CDLL(str(path))
            abi = int(lib.gc_abi())
        except (OSError, AttributeError) as error:
            raise KernelError(f"cannot load the native kernels: {error}", where=str(path)) from error
        if abi != _ABI:
            raise KernelError(
                f"native kernels have interface {abi}, this version needs {_ABI}: reinstall", where=str(path)
            )
        lib.gc_isa_name.restype = c_char_p
        lib.gc_plan_new.restype = c_void_p
        lib.gc_plan_new.argtypes = [c_void_p, POINTER(PlanShape), c_int32]
        lib.gc_plan_free.restype = None
        lib.gc_plan_free.argtypes = [c_void_p]
        lib.gc_conv.argtypes = [POINTER(ConvArgs)]
        lib.gc_backward.argtypes = [POINTER(BackwardArgs)]
        lib.gc_boxes.argtypes = [POINTER(BoxesArgs)]
        lib.gc_to_batch_last.argtypes = [c_void_p, c_int64, c_int64, c_void_p]
        lib.gc_from_batch_last.argtypes = [c_void_p, c_int64, c_int64, c_void_p]
        lib.gc_program_new.restype = c_void_p
        lib.gc_program_new.argtypes = [c_int32, POINTER(c_int64), c_int32]
        lib.gc_program_free.restype = None
        lib.gc_program_free.argtypes = [c_void_p]
        lib.gc_program_add.argtypes = [c_void_p, POINTER(StepArgs)]
        lib.gc_program_run.argtypes = [c_void_p, POINTER(RunArgs)]
        self.path = path
        self.raw = lib
        self.built_for = self._names()
        self.supported = tuple(name for i, name in enumerate(self.built_for) if lib.gc_isa_supported(i))
        if wanted is None:
            self.isa = self.supported[0]
        elif wanted in self.supported:
            self.isa = wanted
        else:
            raise KernelError(
                f"{ENVIRONMENT}={wanted}: not an instruction set of this machine"
                f"{did_you_mean(wanted, [*self.supported, 'off'])}"
            )
        self.isa_index = self.built_for.index(self.isa)

    def _names(self) -> tuple[str, ...]:
        names: list[str] = []
        while (name := self.raw.gc_isa_name(len(names))) is not None:
            names.append(name.decode())
        return tuple(names)

    def check(self, code: int) -> bool:
        """Turn a status code into True (done), False (an input was not finite: nothing useful written) or an error."""
        if code == _OK:
            return True
        if code == _NOT_FINITE:
            return False
        if code == _NO_MEMORY:
            raise KernelError("not enough memory (or threads) for a sparse convolution")
        raise KernelError(f"native kernel refused its arguments (status {code}): this is a bug of gancompress")


def _find() -> Path | None:
    if given := os.environ.get("GANCOMPRESS_KERNELS_LIBRARY"):
        return Path(given)
    folder = Path(__file__).parent / "native"
    found = sorted(p for pattern in ("_sparse*.so", "_sparse*.pyd", "_sparse*.dll") for p in folder.glob(pattern))
    return found[0] if found else None


@functools.cache
def _load(wanted: str) -> tuple[Library | None, Status]:
    path = _find()
    where = str(path) if path else None
    if wanted == "off":
        return None, Status(False, None, where, f"switched off by {ENVIRONMENT}=off")
    if path is None:
        return None, Status(
            False, None, None, "not built: no C++17 compiler at install time; install one and reinstall gancompress"
        )
    try:
        lib = Library(path, wanted or None)
    except KernelError as error:
        return None, Status(False, None, where, str(error))
    chosen = f"chosen by {ENVIRONMENT}" if wanted else f"best of {', '.join(lib.supported)}"
    return lib, Status(True, lib.isa, where, chosen)


def library() -> Library | None:
    """Return the loaded library, or None where the kernels cannot be used (see :func:`status`)."""
    return _load(os.environ.get(ENVIRONMENT, ""))[0]


def status() -> Status:
    """Say whether the native kernels are in use, with which instruction set, and why. Never raises.

    Returns:
        A :class:`Status`; ``gancompress doctor`` prints it.
    """
    return _load(os.environ.get(ENVIRONMENT, ""))[1]
