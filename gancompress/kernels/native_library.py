"""Finds and loads the native kernels, and says in one value whether they can be used and why not.

The library is a plain C interface over ctypes: float32 pointers in, float32 pointers out. It knows neither torch nor
Python, so one build serves many versions of both, and ctypes releases the interpreter's lock during a call.

Environment:
    GANCOMPRESS_KERNELS: ``amx``, ``avx512vnni``, ``avx512``, ``avxvnni``, ``avx2``, ``dotprod`` or ``baseline`` picks
        an instruction set, ``off`` runs everything dense. ``amx``, ``vnni`` and ``dotprod`` only change how bytes are
        multiplied.
    GANCOMPRESS_BF16: ``shifts`` lets machines without an instruction for it compute in bf16 too, to see what it does.
    GANCOMPRESS_KERNELS_LIBRARY: load this file instead of the installed one (used to run a sanitizer build).
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import os
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path

from gancompress.errors import KernelError, did_you_mean

__all__ = ["ENVIRONMENT", "Library", "Status", "library", "status", "warn_of_slow_bytes"]

_log = logging.getLogger(__name__)

#: The environment variable by which machines without an instruction for bf16 compute in it all the same, slowly.
SHIFTS = "GANCOMPRESS_BF16"
#: The environment variable that picks an instruction set.
ENVIRONMENT = "GANCOMPRESS_KERNELS"

_ABI = 14
_OK, _NOT_FINITE, _BAD_ARGUMENT, _NO_MEMORY = range(4)
IMAGES, POINTS, BATCH_LAST = range(3)
DIRECT, PHASED, WEIGHTS = range(3)
BATCH, FLAT, ROWS, COLUMNS = range(4)
SAME, UP, DOWN = range(3)


@dataclass(frozen=True)
class Status:
    """Whether the native kernels can be used here.

    Attributes:
        available: true when sparse kernels run; false when everything runs dense.
        isa: the instruction set in use (``amx``, ``avx512vnni``, ``avx512``, ``avxvnni``, ``avx2``, ``dotprod``,
            ``baseline``), or None.
        path: the library's file, or None when there is none.
        reason: why it is so, in one line.
        int8: the instruction that multiplies bytes, or None.
        bf16: the instruction that multiplies pairs of bf16, or None: layers stay dense where training is in bf16.
    """

    available: bool
    isa: str | None
    path: str | None
    reason: str
    int8: str | None = None
    bf16: str | None = None


def _fields(*names_by_type: tuple[type, str]) -> list[tuple[str, type]]:
    """Return the fields of a structure: names in their order, after the type that they share."""
    return [(name, kind) for kind, names in names_by_type for name in names.split()]


class PlanShape(ctypes.Structure):
    """``gc::PlanShape`` in ``native/plan.h``."""

    _fields_ = _fields(
        (c_int32, "kind dim0 dim1 kh kw stride_y stride_x top left dilation_y dilation_x groups shuffle"),
        (c_int32, "flat grid_h grid_w tile_h tile_w tiles_y tiles_x chunk blocks in_lanes pairs"),
    )


class ConvArgs(ctypes.Structure):
    """``GcConv`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "plan weight x bias out"),
        (c_int64, "batch"),
        (c_int32, "hi wi ho wo layout_x layout_out pre_relu threads"),
    )


class BackwardArgs(ctypes.Structure):
    """``GcBackward`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "plan_x plan_weight weight x gradient for_x for_weight"),
        (c_int64, "batch"),
        (c_int32, "hi wi ho wo layout_x layout_gradient transpose pre_relu bf16 threads"),
    )


class BoxesArgs(ctypes.Structure):
    """``GcBoxes`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "x gate out"),
        (c_int64, "planes height width inner"),
        (c_float, "scale"),
        (c_int32, "widen relu threads"),
    )


class FilterArgs(ctypes.Structure):
    """``GcFilter`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "x out"),
        (c_int64, "planes height width inner"),
        (c_float, "scale"),
        (c_int32, "kind padding isa threads"),
    )


class StyleArgs(ctypes.Structure):
    """``GcStyle`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "x gate gradient noise beside gain bias out for_gain sums"),
        (c_int64, "channels height width batch"),
        (c_float, "strength slope"),
        (c_int32, "before after isa threads"),
    )


class ValueArgs(ctypes.Structure):
    """``GcValue`` in ``native/api.h``."""

    _fields_ = _fields((c_int32, "arena channels h w strip_h strip_w bytes zero"), (c_float, "unit"))


class ProgramArgs(ctypes.Structure):
    """``GcProgram`` in ``native/api.h``."""

    _fields_ = _fields((c_void_p, "values"), (c_int32, "mode value_count"))


class AddendArgs(ctypes.Structure):
    """``GcAddend`` in ``native/api.h``."""

    _fields_ = _fields((c_int32, "value"), (c_float, "factor"), (c_int32, "up"))


class ViewArgs(ctypes.Structure):
    """``GcView`` in ``native/api.h``."""

    _fields_ = _fields((c_void_p, "scale shift slopes"), (c_int32, "value affine activation"), (c_float, "inverse"))


class StepArgs(ctypes.Structure):
    """``GcStep`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "plan weight bias scale shift pre_slopes slopes sources add views"),
        (
            c_int32,
            "source_count add_count view_count dst written up border pre activation affine groups blocks shuffle",
        ),
        (c_float, "eps"),
    )


class LinearArgs(ctypes.Structure):
    """``gc::LinearJob`` in ``native/isa_bytes.h``."""

    _fields_ = _fields((c_void_p, "x weight bias out"), (c_int64, "images inputs outputs"))


class RunArgs(ctypes.Structure):
    """``GcRun`` in ``native/api.h``."""

    _fields_ = _fields(
        (c_void_p, "inputs outputs affines output_values"),
        (c_int64, "batch"),
        (c_int32, "input_count output_count affine_count threads"),
    )


#: what functions give, where that is no status code, and what they take, where ctypes cannot tell it from the values
_RESULTS = {"gc_isa_name": c_char_p, "gc_isa_bytes": c_char_p, "gc_isa_pairs": c_char_p, "gc_plan_new": c_void_p,
            "gc_program_new": c_void_p, "gc_plan_free": None, "gc_program_free": None}  # fmt: skip
_ARGUMENTS = {
    "gc_plan_new": [c_void_p, POINTER(PlanShape), c_int32],
    "gc_plan_free": [c_void_p],
    "gc_conv": [POINTER(ConvArgs)],
    "gc_backward": [POINTER(BackwardArgs)],
    "gc_boxes": [POINTER(BoxesArgs)],
    "gc_filter": [POINTER(FilterArgs)],
    "gc_style": [POINTER(StyleArgs)],
    "gc_style_gradient": [POINTER(StyleArgs)],
    "gc_totals": [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_int32, c_int32],
    "gc_linear": [POINTER(LinearArgs), c_int32],
    "gc_tanh": [c_void_p, c_int64, c_void_p, c_int32],
    "gc_to_batch_last": [c_void_p, c_int64, c_int64, c_void_p],
    "gc_from_batch_last": [c_void_p, c_int64, c_int64, c_void_p],
    "gc_program_new": [POINTER(ProgramArgs), c_int32],
    "gc_program_free": [c_void_p],
    "gc_program_add": [c_void_p, POINTER(StepArgs)],
    "gc_program_run": [c_void_p, POINTER(RunArgs)],
}


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
        for name, result in _RESULTS.items():
            getattr(lib, name).restype = result
        for name, arguments in _ARGUMENTS.items():
            getattr(lib, name).argtypes = arguments
        self.path = path
        self.raw = lib
        names = map(lib.gc_isa_name, itertools.count())
        self.built_for = tuple(name.decode() for name in itertools.takewhile(lambda name: name is not None, names))
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
        self.lanes = int(lib.gc_isa_lanes(self.isa_index))
        self.blocks = int(lib.gc_isa_blocks(self.isa_index))
        self.flat_blocks = int(lib.gc_isa_flat_blocks(self.isa_index))
        self.int8: str = lib.gc_isa_bytes(self.isa_index).decode()
        pairs = lib.gc_isa_pairs(self.isa_index)
        self.pairs: str | None = None if pairs is None else pairs.decode()

    @property
    def computes_bf16(self) -> bool:
        """Whether layers compute in bf16 where training does: with an instruction for it, or told to by shifts."""
        return self.pairs is not None and (self.pairs != "shifts" or os.environ.get(SHIFTS) == "shifts")

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
    return lib, Status(True, lib.isa, where, chosen, lib.int8)


def library() -> Library | None:
    """Return the loaded library, or None where the kernels cannot be used (see :func:`status`)."""
    return _load(os.environ.get(ENVIRONMENT, ""))[0]


def warn_of_slow_bytes() -> None:
    """Say, once in a process, that programs in bytes run without an instruction for them."""
    if status().isa in (None, "baseline"):
        _warn(status().reason)


@functools.cache
def _warn(reason: str) -> None:
    _log.warning("int8 runs without the instructions for it (kernels: %s): the same numbers, slowly", reason)


def status() -> Status:
    """Say whether the native kernels are in use, with which instruction set, and why. Never raises.

    Returns:
        A :class:`Status`; ``gancompress doctor`` prints it.
    """
    lib, found = _load(os.environ.get(ENVIRONMENT, ""))
    return replace(found, bf16=lib.pairs) if lib is not None and lib.computes_bf16 else found
