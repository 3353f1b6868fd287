"""Sparse layers that are really computed at their kept weights only, in training and after it.

:func:`conv2d`, :func:`conv_transpose2d` and :func:`linear` are masked layers on ordinary tensors; :func:`attach` gives
them to the layers of an existing model. Below a measured density they run on native CPU kernels, otherwise dense.
:func:`status` says whether the native kernels are there.
"""

from gancompress.kernels.layer import Layer
from gancompress.kernels.modules import Attachment, after_relu, attach, attached, detach, supports
from gancompress.kernels.native_library import Status, status
from gancompress.kernels.ops import conv2d, conv_transpose2d, counted_density, keep, linear
from gancompress.kernels.pattern import Pattern, as_pattern
from gancompress.kernels.program import Program
from gancompress.kernels.quantized import Quantized
from gancompress.kernels.steps import Activation, Addend, Affine, Border, Value
from gancompress.kernels.tuning import Mode, break_even, choose

__all__ = [
    "Activation",
    "Addend",
    "Affine",
    "Attachment",
    "Border",
    "Layer",
    "Mode",
    "Pattern",
    "Program",
    "Quantized",
    "Status",
    "Value",
    "after_relu",
    "as_pattern",
    "attach",
    "attached",
    "break_even",
    "choose",
    "conv2d",
    "conv_transpose2d",
    "counted_density",
    "detach",
    "keep",
    "linear",
    "status",
    "supports",
]
