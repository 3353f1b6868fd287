"""Random steps of programs beside the same written out in torch, for tests of what programs compute."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.kernels import Addend, Program, Value

SLOPES = ("none", "relu", "leaky", "prelu")
SMOOTH = ("tanh", "sigmoid", "silu")


class Random:
    """Draws a program and, by its own arithmetic, what it gives; float64.

    Args:
        seed: of everything drawn.
        block: outputs that a weight keeps or drops as one.
    """

    def __init__(self, seed: int, block: int = 1) -> None:
        self.block = block
        self.generator = torch.Generator().manual_seed(seed)

    def number(self, least: int, most: int) -> int:
        """Draw from ``least`` to ``most``, both included."""
        return int(torch.randint(least, most + 1, (), generator=self.generator))

    def one_of(self, *options):
        return options[self.number(0, len(options) - 1)]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def slope(self, channels: int, *more: str):
        kind = self.one_of(*SLOPES, *more)
        return {"none": None, "relu": 0.0, "leaky": 0.2, "prelu": self.normal(channels)}.get(kind, kind)

    def conv(self, net: Program, maps: dict[int, Tensor], signal: bool, transpose: bool = False) -> Value:
        """Add a convolution of anything that ``maps`` holds (by index of the value), and its result to ``maps``."""
        values = [v for v in net._values if v.index in maps]
        first = self.one_of(*values)
        alike = [v for v in values if v.shape[1:] == first.shape[1:]]
        sources = [first, *(self.one_of(*alike) for _ in range(self.one_of(0, 0, 1, 2)))]
        x = torch.cat([maps[v.index] for v in sources], 1)
        channels, rows, columns = x.shape[1:]
        groups = self.one_of(1, 1, *(g for g in (2, 3, channels) if channels % g == 0))
        options = {"groups": groups, "pre": self.slope(channels, "tanh", "silu")}
        if self.one_of(True, False, False):
            options["scale"], options["shift"] = self.normal(channels), self.normal(channels)
            x = x * options["scale"].double()[:, None, None] + options["shift"].double()[:, None, None]
        x = activated(x, options["pre"])
        if not transpose and not signal and rows * columns <= 200 and self.one_of(True, False, False):
            options["upsample"] = True
            x = F.interpolate(x, scale_factor=2.0)
        kernel = (1 if signal else self.number(1, 4), self.number(1, 5))
        stride = (1 if signal else self.one_of(1, 1, 2, 3), self.one_of(1, 1, 1, 2, 3, 8 if signal else 4))
        dilation = (self.number(1, 2), self.number(1, 3))
        span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        options |= {"stride": stride, "dilation": dilation}
        if transpose:
            made = self._transposed(options, x, kernel, span, groups)
        else:
            made = self._plain(options, x, kernel, span, groups)
        x, weight, mask, bias = made
        gives = x.shape[1]
        for v in [v for v in values if v.shape[0] == gives][: self.number(0, 3)]:
            times = x.shape[2] // v.shape[1]
            if x.shape[1:] == (gives, v.shape[1] * times, v.shape[2] * times):
                factor = self.one_of(1.0, 0.2, -1.5)
                options["add"] = (*options.get("add", ()), Addend(v, factor, times))
                x = x + factor * (F.interpolate(maps[v.index], scale_factor=float(times)))
        options["activation"] = self.slope(gives, *SMOOTH)
        x = activated(x, options["activation"])
        add = net.conv_transpose if transpose else net.conv
        value = add(sources if len(sources) > 1 else first, weight, mask, bias, **options)
        assert value.shape == x.shape[1:]
        maps[value.index] = x
        return value

    def _weight(self, *shape: int, outputs: int = 0) -> tuple[Tensor, Tensor]:
        blocks = [size // self.block if axis == outputs else size for axis, size in enumerate(shape)]
        mask = torch.rand(blocks, generator=self.generator) < self.one_of(0.1, 0.4, 1.0)
        mask = mask.repeat_interleave(self.block, outputs)
        return self.normal(*shape) / (shape[1] * shape[2] * shape[3]) ** 0.5, mask

    def _plain(self, options, x, kernel, span, groups):
        channels = x.shape[1]
        sides = []
        options["border"] = self.one_of("zeros", "zeros", "reflect", "replicate")
        for size, s in zip(x.shape[2:], span, strict=True):
            most = min(s, size - 1) if options["border"] == "reflect" else s
            before, after = self.number(0, most), self.number(0, most)
            if size + before + after < s:
                before, after = most, max(most, s - size - most)
                if options["border"] == "reflect" and size + 2 * most < s:
                    options["border"], before, after = "zeros", s, s
            sides += [before, after]
        options["padding"] = tuple(sides)
        shuffle = options["shuffle"] = self.one_of(1, 1, 2, 3) if x.shape[2] * x.shape[3] < 300 else 1
        gives = self.block * groups * shuffle**2 * self.number(1, 5 if self.block == 1 else 2)
        if groups == 1 and channels % self.block == 0 and self.one_of(True, False):
            gives = channels * shuffle**2  # something may be added
        weight, mask = self._weight(gives, channels // groups, *kernel)
        bias = self.normal(gives) if self.one_of(True, False) else None
        mode = "constant" if options["border"] == "zeros" else options["border"]
        x = F.pad(x, (*sides[2:], *sides[:2]), mode)
        x = F.conv2d(
            x, (weight * mask).double(), None if bias is None else bias.double(), options["stride"], 0,
            options["dilation"], groups,
        )  # fmt: skip
        return F.pixel_shuffle(x, shuffle), weight, mask, bias

    def _transposed(self, options, x, kernel, span, groups):
        channels, gives = x.shape[1], self.block * groups * self.number(1, 5 if self.block == 1 else 2)
        more = options["output_padding"] = tuple(self.number(0, s - 1) for s in options["stride"])
        weight, mask = self._weight(channels, gives // groups, *kernel, outputs=1)
        bias = self.normal(gives) if self.one_of(True, False) else None
        x = F.conv_transpose2d(
            x, (weight * mask).double(), None if bias is None else bias.double(), options["stride"], 0, more, groups,
            options["dilation"],
        )  # fmt: skip
        sides = []
        for size, s in zip(x.shape[2:], span, strict=True):
            before = self.number(0, min(s, size - 1))
            sides += [before, self.number(0, min(s, size - 1 - before))]
        options["padding"] = tuple(sides)
        top, bottom, left, right = sides
        return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right], weight, mask, bias


def activated(x: Tensor, slope) -> Tensor:
    if slope is None:
        return x
    if isinstance(slope, str):
        return {"tanh": torch.tanh(x), "sigmoid": 1 / (1 + torch.exp(-x)), "silu": x / (1 + torch.exp(-x))}[slope]
    slopes = slope.double()[:, None, None] if isinstance(slope, Tensor) else slope
    return torch.where(x < 0, x * slopes, x)


def random_program(seed: int, batch: int, signal: bool, block: int = 1) -> tuple[Program, list[Tensor], list[Tensor]]:
    """Draw a program of a few steps of every kind, its inputs, and its results in float64."""
    draw = Random(seed, block)
    channels = draw.one_of(1, 3, 6, 12)
    rows, columns = 1 if signal else draw.number(1, 14), draw.number(20, 90) if signal else draw.number(1, 14)
    shapes = [(channels, rows, columns)] * draw.one_of(1, 1, 2)
    net = Program(*shapes)
    inputs = [draw.normal(batch, *shape) for shape in shapes]
    maps = {i: x.double() for i, x in enumerate(inputs)}
    made = []
    for _ in range(draw.number(1, 4)):
        kind = draw.one_of("conv", "conv", "conv", "transpose", "norm", "sum")
        if kind == "norm":
            source = draw.one_of(*(v for v in net._values if v.index in maps))
            x, groups = maps[source.index], draw.one_of(None, 1)
            c = source.shape[0]
            gain, bias = draw.one_of((None, None), (draw.normal(c), draw.normal(c)))
            value = net.norm(source, gain, bias, 1e-5, groups)
            x = torch.group_norm(x, groups or c, *(None if t is None else t.double() for t in (gain, bias)), 1e-5)
            maps[value.index] = x
        elif kind == "sum":
            source = draw.one_of(*(v for v in net._values if v.index in maps))
            alike = [v for v in net._values if v.index in maps and v.shape == source.shape]
            addends = [Addend(draw.one_of(*alike), draw.one_of(1.0, 0.5)) for _ in range(draw.number(1, 3))]
            slope = draw.slope(source.shape[0], *SMOOTH)
            value = net.sum(addends, slope)
            maps[value.index] = activated(sum(a.factor * maps[a.value.index] for a in addends), slope)
        else:
            value = draw.conv(net, maps, signal, kind == "transpose")
            if maps[value.index][0].numel() > 30000:
                made.append(value)
                break
        made.append(value)
    outputs = made[-draw.one_of(1, 1, 2) :]
    net.output(*outputs)
    return net, inputs, [maps[v.index] for v in outputs]
