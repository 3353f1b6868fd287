"""An ONNX file as a torch module: every operation a few torch calls, so that it can be captured like any other network.

Sizes are computed with numbers, not with tensors: what ``Shape`` gives stays a list of ints, which may be symbols while
the module is captured, so that an exported network keeps the sizes that may change.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["OPERATIONS", "OnnxModule"]

#: a tensor, or a number or list of numbers that stands for a size
Operand = Any
Attributes = dict[str, Any]


#: constants of so many elements are numbers, not tensors, unless they are somebody's weights
_FEW = 16
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu", "BatchNormalization", "InstanceNormalization",
             "GroupNormalization", "LayerNormalization"}  # fmt: skip


class OnnxModule(nn.Module):
    """Computes a graph of ONNX.

    Its state has the names of the file's initializers; dots in them become modules.

    Args:
        nodes: ``(operation, inputs, outputs, attributes, name)`` in an order in which they can run; absent inputs are
            "".
        constants: initializers by name.
        inputs: names, in the order of the call.
        outputs: names of what is returned.

    Raises:
        ExportError: it has operations that are not in :data:`OPERATIONS`; each is named with its node.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[str, Sequence[str], Sequence[str], Attributes, str]],
        constants: Mapping[str, np.ndarray[Any, Any]],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        unknown = [
            f"{op} (node {name or '?'}, which makes {outs[0]!r})"
            for op, _, outs, _, name in nodes
            if op not in OPERATIONS
        ]
        if unknown:
            more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
            raise ExportError(f"it has operations that are not known here: {', '.join(unknown[:4])}{more}")
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._sizes: dict[str, Operand] = {}
        self._paths: dict[str, str] = {}
        weights = {name for op, ins, *_ in nodes if op in _WEIGHTED for name in ins}
        slopes = {ins[1] for op, ins, *_ in nodes if op == "PRelu"}
        slopes -= {name for op, ins, *_ in nodes if op != "PRelu" for name in ins}
        for name, array in constants.items():
            if name in slopes and array.size == max(array.shape, default=1):
                array = array.reshape(-1)  # torch's has one axis, and then nothing is computed on every call
            if array.ndim <= 1 and array.size <= _FEW and name not in weights:
                self._sizes[name] = array.tolist()
            else:
                self._keep(name, torch.from_numpy(array.copy()))
        self.nodes = tuple(node[:4] for node in nodes if not self._fold(node[:4], weights))
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Tensor) -> Any:
        """Compute the graph; one output as it is, several as a tuple."""
        values: dict[str, Operand] = dict(zip(self.inputs, inputs, strict=True)) | self._sizes
        values |= {name: self._stored(path) for name, path in self._paths.items()}
        for op, ins, outs, attributes in self.nodes:
            given = [values[name] if name else None for name in ins]
            while given and given[-1] is None:
                given.pop()
            found = OPERATIONS[op](*given, **attributes)
            made = found if isinstance(found, tuple) else (found,)
            values.update(zip((name for name in outs if name), made, strict=False))
        results = tuple(torch.as_tensor(values[name]) for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def _fold(self, node: tuple[str, Sequence[str], Sequence[str], Attributes], weights: Collection[str]) -> bool:
        """Compute what small constants alone decide, such as the widths of a border; return whether it was that."""
        op, ins, outs, attributes = node
        if any(name and name not in self._sizes for name in ins) or len(outs) != 1 or outs[0] in self.outputs:
            return False
        found = OPERATIONS[op](*(_tensor(self._sizes[name]) if name else None for name in ins), **attributes)
        if isinstance(found, Tensor) and found.dim() <= 1 and found.numel() <= _FEW and outs[0] not in weights:
            found = found.tolist()
        self._sizes[outs[0]] = found
        return True

    def _keep(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.replace("/", "_").strip(".").rpartition(".")
        module: nn.Module = self
        for part in path.split(".") if path else ():
            known = module._modules.get(part)
            if known is None:
                module.add_module(part or "_", known := nn.Module())
            module = known
        leaf = f"_{leaf}" if hasattr(module, leaf) else leaf
        if tensor.is_floating_point():
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(leaf, tensor)
        self._paths[name] = f"{path}.{leaf}" if path else leaf

    def _stored(self, path: str) -> Tensor:
        owner, _, leaf = path.rpartition(".")
        found: Tensor = getattr(self.get_submodule(owner), leaf)
        return found


# --------------------------------------------------------------------------- what operations take


def _ints(value: Operand) -> list[int]:
    """Return a list of sizes from whatever holds them."""
    if isinstance(value, Tensor):
        return [int(one) for one in value.reshape(-1).tolist()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _tensor(value: Operand, like: Tensor | None = None) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=None if like is None else like.dtype)


def _plain(*values: Operand) -> bool:
    """Return whether all are numbers or lists of them."""
    return not any(isinstance(value, Tensor) for value in values)


def _each(function: Callable[..., Any], *values: Operand) -> Operand:
    """Apply a function of numbers to numbers and lists of them, as far apart as ONNX lets them be."""
    long = max((len(value) for value in values if isinstance(value, list)), default=None)
    if long is None:
        return function(*values)
    wide = [value * long if isinstance(value, list) and len(value) == 1 else value for value in values]
    rows = zip(*(value if isinstance(value, list) else [value] * long for value in wide), strict=True)
    return [function(*row) for row in rows]


def _binary(function: Callable[..., Any], numbers: Callable[..., Any]) -> Callable[..., Operand]:
    def apply(a: Operand, b: Operand) -> Operand:
        if _plain(a, b):
            return _each(numbers, a, b)
        like = a if isinstance(a, Tensor) else b
        return function(_factor(a, like), _factor(b, like))

    return apply


def _factor(value: Operand, like: Tensor) -> Operand:
    """A single number stays one: an operation with a number is simpler than one with a tensor."""
    if isinstance(value, list) and len(value) == 1 and like.dim():
        return value[0]
    return value if isinstance(value, Tensor) or not isinstance(value, list) else _tensor(value, like)


def _divide(a: Any, b: Any) -> Any:
    whole = not isinstance(a, float) and not isinstance(b, float)
    return a // b if whole else a / b


def _quotient(a: Any, b: Any) -> Any:
    integral = all(not isinstance(x, float) and not (isinstance(x, Tensor) and x.is_floating_point()) for x in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if integral else torch.div(a, b)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Operand], Operand]:
    return lambda x: function(_tensor(x))


# --------------------------------------------------------------------------- convolutions and norms


def _pads(x: Tensor, pads: Sequence[int] | None, auto_pad: str, kernel: Sequence[int], strides: Sequence[int],
          dilations: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:  # fmt: skip
    """Return the input and the padding for a convolution; what is unequal is padded ahead."""
    axes = len(kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        ahead, behind = [], []
        for size, window, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            whole = max((-(-size // stride) - 1) * stride + dilation * (window - 1) + 1 - size, 0)
            less = whole // 2
            ahead.append(less if auto_pad == "SAME_UPPER" else whole - less)
            behind.append(whole - ahead[-1])
        pads = [*ahead, *behind]
    pads = list(pads or [0] * 2 * axes)
    if pads[:axes] == pads[axes:]:
        return x, tuple(pads[:axes])
    around = [one for axis in reversed(range(axes)) for one in (pads[axis], pads[axes + axis])]
    return F.pad(x, around), (0,) * axes


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET", group: int = 1,
          pads: Sequence[int] | None = None, strides: Sequence[int] | None = None,
          dilations: Sequence[int] | None = None, kernel_shape: Any = None) -> Tensor:  # fmt: skip
    axes = weight.dim() - 2
    strides, dilations = tuple(strides or (1,) * axes), tuple(dilations or (1,) * axes)
    x, padding = _pads(x, pads, auto_pad, weight.shape[2:], strides, dilations)
    function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    found: Tensor = function(x, weight, bias, strides, padding, dilations, group)
    return found


def _conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET", group: int = 1,
                    pads: Sequence[int] | None = None, strides: Sequence[int] | None = None,
                    dilations: Sequence[int] | None = None, output_padding: Sequence[int] | None = None,
                    kernel_shape: Any = None, output_shape: Sequence[int] | None = None) -> Tensor:  # fmt: skip
    axes = weight.dim() - 2
    strides, dilations = tuple(strides or (1,) * axes), tuple(dilations or (1,) * axes)
    more = tuple(output_padding or (0,) * axes)
    if output_shape is not None or auto_pad.startswith("SAME"):
        raise ExportError("ConvTranspose with output_shape or auto_pad is not known here; export it with pads")
    pads = list(pads or [0] * 2 * axes)
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    # Uneven pads are output padding on the other side, or what is cut off afterwards.
    least = [min(a, b) for a, b in zip(pads[:axes], pads[axes:], strict=True)]
    found: Tensor = function(x, weight, bias, strides, least, more, group, dilations)
    for axis in range(axes):
        ahead, behind = pads[axis] - least[axis], pads[axes + axis] - least[axis]
        if ahead or behind:
            found = found.narrow(2 + axis, ahead, found.shape[2 + axis] - ahead - behind)
    return found


def _gemm(a: Tensor, b: Tensor, c: Operand = None, *, alpha: float = 1.0, beta: float = 1.0, **turned: int) -> Tensor:
    a, turn = a.t() if turned.get("transA") else a, bool(turned.get("transB"))
    if alpha == 1 and turn and (c is None or (beta == 1 and isinstance(c, Tensor))):
        return F.linear(a, b, c)
    found = a @ (b.t() if turn else b)
    found = found if alpha == 1 else found * alpha
    return found if c is None else found + (c if beta == 1 else c * beta)


def _batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5,
                momentum: float = 0.9, training_mode: int = 0, spatial: int = 1) -> Tensor:  # fmt: skip
    if training_mode:
        raise ExportError("BatchNormalization in training mode is not known here; export the network in eval mode")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _dropout(x: Tensor, ratio: Operand = None, training: Operand = None, **_: Any) -> Tensor:
    if any(_ints(training)):  # pix2pix draws its noise so; without it the images are those of another generator
        raise ExportError("Dropout in training mode, which draws, is not known here; export the network in eval mode")
    return x


def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5,
                stash_type: int = 1) -> Tensor:  # fmt: skip
    return F.layer_norm(x, tuple(x.shape[axis:]), scale, bias, epsilon)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    slope = _tensor(slope, x)
    if slope.numel() in (1, x.shape[1]):
        return F.prelu(x, slope if slope.dim() == 1 else slope.reshape(-1))
    return torch.where(x > 0, x, x * slope)


def _clip(x: Operand, least: Operand = None, most: Operand = None, *, min: float | None = None,
          max: float | None = None) -> Operand:  # fmt: skip
    bounds = [float(_ints(one)[0]) if isinstance(one, list) else one for one in (least, most)]
    bounds = [float(one) if isinstance(one, Tensor) else one for one in bounds]
    low, high = (min if bounds[0] is None else bounds[0]), (max if bounds[1] is None else bounds[1])
    return torch.clamp(_tensor(x), low, high)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


# --------------------------------------------------------------------------- pictures


def _resize(x: Tensor, roi: Any = None, scales: Operand = None, sizes: Operand = None, *, mode: str = "nearest",
            coordinate_transformation_mode: str = "half_pixel", nearest_mode: str = "round_prefer_floor",
            cubic_coeff_a: float = -0.75, antialias: int = 0, **_: Any) -> Tensor:  # fmt: skip
    factors = None if scales is None or (isinstance(scales, list) and not scales) else _floats(scales)
    if factors == [] or (factors is not None and sizes is not None):
        factors = None
    size = None if factors is not None else tuple(_ints(sizes)[2:])
    if factors is not None and any(one != 1 for one in factors[:2]):
        raise ExportError("Resize of the batch or the channels is not known here")
    corners = coordinate_transformation_mode == "align_corners"
    known = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
    axes = x.dim() - 2
    kind = {1: {"linear": "linear", "nearest": "nearest"}, 2: known}.get(axes, {}).get(mode)
    whole = factors is not None and all(float(one).is_integer() for one in factors)
    if mode == "nearest":
        # With whole factors all of these pick the same pixel.
        same = (coordinate_transformation_mode, nearest_mode) == ("asymmetric", "floor") or (
            whole and (coordinate_transformation_mode, nearest_mode) in _SAME_FOR_WHOLE
        )
    else:
        same = corners or coordinate_transformation_mode in ("half_pixel", "pytorch_half_pixel")
    if kind is None or not same or antialias or (mode == "cubic" and cubic_coeff_a != -0.75):
        raise ExportError(
            f"Resize with mode {mode}, {coordinate_transformation_mode}, {nearest_mode} is not known here"
        )
    scale = None if factors is None else tuple(factors[2:])
    if mode == "nearest":
        return F.interpolate(x, size=size, scale_factor=scale, mode="nearest")
    return F.interpolate(x, size=size, scale_factor=scale, mode=kind, align_corners=corners)


#: (coordinates, rounding) that pick the pixel of torch's "nearest" when the factor is a whole number
_SAME_FOR_WHOLE = {
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
}


def _floats(value: Operand) -> list[float]:
    return [float(one) for one in (value.tolist() if isinstance(value, Tensor) else _ints(value))]


def _pad(x: Tensor, pads: Operand = None, value: Operand = None, axes: Operand = None, *, mode: str = "constant",
         **attributes: Any) -> Tensor:  # fmt: skip
    given = _ints(attributes.get("pads", pads))
    value = attributes.get("value", 0.0 if value is None else value)
    along = [axis % x.dim() for axis in _ints(axes)] if axes is not None else list(range(x.dim()))
    ahead = dict(zip(along, given[: len(along)], strict=True))
    behind = dict(zip(along, given[len(along) :], strict=True))
    first = min((axis for axis in along if ahead[axis] or behind[axis]), default=x.dim() - 1)
    around = [one for axis in reversed(range(first, x.dim())) for one in (ahead.get(axis, 0), behind.get(axis, 0))]
    if mode == "constant":
        return F.pad(x, around, value=float(_floats(value)[0]) if not isinstance(value, int | float) else float(value))
    kind = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    return F.pad(x, around, mode=kind)


def _depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    x = x.reshape(n, blocksize * blocksize, c // blocksize**2, h, w).transpose(1, 2)
    return F.pixel_shuffle(x.reshape(n, c, h, w), blocksize)


def _space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    x = F.pixel_unshuffle(x, blocksize).reshape(n, c, blocksize**2, h // blocksize, w // blocksize)
    return x.transpose(1, 2).reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


def _pool(function: Callable[..., Tensor], x: Tensor, kernel: Sequence[int], pads: Sequence[int] | None,
          strides: Sequence[int] | None, ceil_mode: int, auto_pad: str, **more: Any) -> Tensor:  # fmt: skip
    axes = len(kernel)
    pads = list(pads or [0] * 2 * axes)
    if pads[:axes] != pads[axes:] or auto_pad.startswith("SAME"):
        raise ExportError("pooling with unequal padding is not known here")
    strides = tuple(strides or (1,) * axes)
    return function(x, tuple(kernel), strides, tuple(pads[:axes]), ceil_mode=bool(ceil_mode), **more)


def _average_pool(x: Tensor, *, kernel_shape: Sequence[int], pads: Any = None, strides: Any = None, ceil_mode: int = 0,
                  auto_pad: str = "NOTSET", count_include_pad: int = 0, dilations: Any = None) -> Tensor:  # fmt: skip
    function: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel_shape) - 1]
    include = bool(count_include_pad)
    return _pool(function, x, kernel_shape, pads, strides, ceil_mode, auto_pad, count_include_pad=include)


def _max_pool(x: Tensor, *, kernel_shape: Sequence[int], pads: Any = None, strides: Any = None, ceil_mode: int = 0,
              auto_pad: str = "NOTSET", storage_order: int = 0, dilations: Any = None) -> Tensor:  # fmt: skip
    function: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel_shape) - 1]
    return _pool(function, x, kernel_shape, pads, strides, ceil_mode, auto_pad)


def _global_average(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


# --------------------------------------------------------------------------- shapes


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> list[int]:
    return list(x.shape)[start:end]


def _gather(x: Operand, index: Operand, *, axis: int = 0) -> Operand:
    if _plain(x, index):
        return [x[one] for one in index] if isinstance(index, list) else x[index]
    if isinstance(index, int):
        return x.select(axis, index)
    index = _tensor(index)
    where = torch.where(index < 0, index + x.shape[axis], index) if index.is_floating_point() is False else index
    found: Tensor = x.index_select(axis, where.reshape(-1))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis:][1:])


def _concat(*values: Operand, axis: int) -> Operand:
    if _plain(*values):
        return [one for value in values for one in _ints(value)]
    like = next(value for value in values if isinstance(value, Tensor))
    return torch.cat([_tensor(value, like) for value in values], axis)


def _slice(x: Operand, starts: Operand = None, ends: Operand = None, axes: Operand = None, steps: Operand = None,
           **attributes: Any) -> Operand:  # fmt: skip
    first, last = _ints(attributes.get("starts", starts)), _ints(attributes.get("ends", ends))
    axes = attributes.get("axes", axes)
    along = _ints(axes) if axes is not None else list(range(len(first)))
    strides = _ints(steps) if steps is not None else [1] * len(first)
    if _plain(x):
        return x[first[0] : last[0] : strides[0]]
    for axis, start, end, step in zip(along, first, last, strides, strict=True):
        if step < 0:
            if step != -1 or start not in (-1, x.shape[axis] - 1):
                raise ExportError("Slice backwards is known only for a whole axis")
            x = x.flip(axis)
            continue
        place = [slice(None)] * x.dim()
        place[axis] = slice(start, None if end >= 2**31 - 1 else end, step)
        x = x[tuple(place)]
    return x


def _split(
    x: Tensor, split: Operand = None, *, axis: int = 0, num_outputs: int | None = None, **attributes: Any
) -> Any:
    parts = attributes.get("split", split)
    if parts is not None:
        return torch.split(x, _ints(parts), axis)
    return torch.split(x, -(-x.shape[axis] // (num_outputs or 2)), axis)


def _reshape(x: Operand, shape: Operand, *, allowzero: int = 0) -> Operand:
    wanted = _ints(shape)
    if _plain(x):
        return _ints(x) if wanted else _ints(x)[0]
    return x.reshape([x.shape[axis] if size == 0 and not allowzero else size for axis, size in enumerate(wanted)])


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), -1) if axis else x.reshape(1, -1)


def _squeeze(x: Operand, axes: Operand = None, **attributes: Any) -> Operand:
    axes = attributes.get("axes", axes)
    if _plain(x):
        return _ints(x)[0] if len(_ints(x)) == 1 else x
    return x.squeeze(tuple(_ints(axes))) if axes is not None else x.squeeze()


def _unsqueeze(x: Operand, axes: Operand = None, **attributes: Any) -> Operand:
    along = _ints(attributes.get("axes", axes))
    if _plain(x) and not isinstance(x, list) and along == [0]:
        return [x]
    x = _tensor(x)
    for axis in sorted(one % (x.dim() + len(along)) for one in along):
        x = x.unsqueeze(axis)
    return x


def _expand(x: Tensor, shape: Operand) -> Tensor:
    wanted = _ints(shape)
    x = _tensor(x)
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    wide = [1] * (len(own) - len(wanted)) + wanted
    return x.reshape(own).expand([-1 if want == 1 else want for want in wide])


def _cast(x: Operand, *, to: int, saturate: int = 1) -> Operand:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float32, 11: torch.float32}
    if to not in kinds:
        raise ExportError(f"Cast to type {to} of ONNX is not known here")
    if _plain(x):
        number: Callable[[Any], Any] = (lambda one: one) if to in (6, 7) else float
        # Symbols stay what they are: a size is whole.
        return _each(number, x) if not _symbolic(x) else x
    return x.to(kinds[to])


def _symbolic(x: Operand) -> bool:
    return any(not isinstance(one, int | float) for one in _ints(x))


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: Operand = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0,
               **attributes: Any) -> Tensor:  # fmt: skip
        axes = attributes.get("axes", axes)
        along = tuple(_ints(axes)) if axes is not None else ()
        if not along:
            if noop_with_empty_axes:
                return x
            along = tuple(range(x.dim()))
        return function(x, along, keepdim=bool(keepdims))

    return reduce


def _constant(**attributes: Any) -> Operand:
    ((_, value),) = attributes.items()
    if isinstance(value, np.ndarray):
        if value.ndim <= 1 and value.size <= _FEW:
            return value.tolist()
        return torch.from_numpy(value.copy())
    return value


def _constant_of_shape(shape: Operand, *, value: Any = None) -> Tensor:
    fill = value if value is not None else np.zeros(1, np.float32)
    return torch.full(_ints(shape), fill.reshape(-1)[0].item(), dtype=torch.from_numpy(fill.copy()).dtype)


def _extreme(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Operand]:
    def apply(*values: Operand) -> Operand:
        like = next((one for one in values if isinstance(one, Tensor)), None)
        found = _tensor(values[0], like)
        for value in values[1:]:
            found = function(found, _tensor(value, like))
        return found

    return apply


def _range(start: Any, limit: Any, delta: Any) -> Tensor:
    first, last, step = (_ints(one)[0] for one in (start, limit, delta))
    return torch.arange(first, last, step)


#: what is known: a function of the inputs and, by keyword, the attributes
OPERATIONS: Mapping[str, Callable[..., Operand]] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": lambda a, b: _tensor(a) @ _tensor(b),
    "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm,
    "InstanceNormalization": lambda x, scale, bias, epsilon=1e-5: F.instance_norm(
        x, weight=_tensor(scale, x), bias=_tensor(bias, x), eps=epsilon),
    "GroupNormalization": lambda x, scale, bias, num_groups, epsilon=1e-5, stash_type=1: F.group_norm(
        x, num_groups, _tensor(scale, x), _tensor(bias, x), epsilon),
    "Relu": _unary(F.relu), "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha), "PRelu": _prelu,
    "Elu": lambda x, alpha=1.0: F.elu(x, alpha), "Sigmoid": _unary(torch.sigmoid), "Tanh": _unary(torch.tanh),
    "Softplus": _unary(F.softplus), "HardSwish": _unary(F.hardswish), "Gelu": lambda x, approximate="none": F.gelu(
        x, approximate=approximate),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: torch.clamp(x * alpha + beta, 0, 1),
    "Swish": lambda x, alpha=1.0: x * torch.sigmoid(x if alpha == 1 else x * alpha),
    "Mish": lambda x: x * torch.tanh(F.softplus(x)), "Clip": _clip, "Softmax": _softmax,
    "Add": _binary(torch.add, operator.add), "Sub": _binary(torch.sub, operator.sub),
    "Mul": _binary(torch.mul, operator.mul), "Div": _binary(_quotient, _divide),
    "Pow": _binary(torch.pow, operator.pow), "Min": _extreme(torch.minimum), "Max": _extreme(torch.maximum),
    "Neg": _unary(torch.neg), "Abs": _unary(torch.abs), "Sqrt": _unary(torch.sqrt), "Exp": _unary(torch.exp),
    "Log": _unary(torch.log), "Sin": _unary(torch.sin), "Cos": _unary(torch.cos), "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil), "Erf": _unary(torch.erf), "Reciprocal": _unary(torch.reciprocal),
    "Equal": _binary(torch.eq, operator.eq), "Greater": _binary(torch.gt, operator.gt),
    "Less": _binary(torch.lt, operator.lt),
    "Where": lambda c, a, b: torch.where(_tensor(c), a if isinstance(a, Tensor) else _tensor(a), _tensor(b)),
    "Resize": _resize, "Upsample": lambda x, scales=None, mode="nearest", **kw: _resize(
        x, None, kw.get("scales", scales), mode=mode, coordinate_transformation_mode="asymmetric",
        nearest_mode="floor"),
    "Pad": _pad, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth, "AveragePool": _average_pool,
    "MaxPool": _max_pool, "GlobalAveragePool": _global_average,
    "Shape": _shape, "Gather": _gather, "Concat": _concat, "Slice": _slice, "Split": _split, "Reshape": _reshape,
    "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Expand": _expand, "Cast": _cast,
    "Transpose": lambda x, perm=None: x.permute(perm if perm is not None else [*reversed(range(x.dim()))]),
    "Tile": lambda x, repeats: _tensor(x).repeat(_ints(repeats)),
    "ReduceMean": _reduced(torch.mean), "ReduceSum": _reduced(torch.sum), "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin), "ReduceL2": _reduced(lambda x, axes, keepdim: torch.linalg.vector_norm(
        x, 2, axes, keepdim)),
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _range,
    "Identity": lambda x: x, "Dropout": _dropout,
}  # fmt: skip
