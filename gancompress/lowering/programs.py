"""From a region to a sparse program, and how it is called with the tensors of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.kernels import Addend, Pattern, Program
from gancompress.lowering.made import Conv, Norm, Sum, composed
from gancompress.quantization.programs import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gancompress.kernels import Affine, Value
    from gancompress.lowering.made import Made, Read, Term
    from gancompress.lowering.regions import Region
    from gancompress.quantization.ranges import LayerBytes

__all__ = ["RegionProgram"]


class RegionProgram:
    """A region as a program.

    Args:
        region: what to compute.
        pattern: gives that of a weight, by its name and what it holds.
        ranges: how convolutions compute in bytes, by the names of their weights.

    Attributes:
        sources: names of the values that it reads, in order.
        results: names of the values that it gives, in order.
        layers: names of the weights of its convolutions, empty where one is fixed.
    """

    def __init__(
        self, region: Region, pattern: Callable[[str, Tensor], Pattern], ranges: Mapping[str, LayerBytes]
    ) -> None:
        self.sources, self.results = tuple(region.sources), tuple(region.results)
        self.layers = tuple(conv.layer for conv in region.convolutions)
        #: reads whose gains and biases differ from image to image
        self.given = [conv.read for conv in region.convolutions if conv.read.given]
        self._program = Program(*(one.shape for one in region.sources.values()))
        self._values: dict[Made, Value] = dict(zip(region.sources.values(), self._program.inputs, strict=True))
        affines = {id(read): self._program.affine(read.channels) for read in self.given}
        for made in region.made:
            self._values[made] = self._step(made, pattern, affines)
        outputs = [self._values[made] for made in region.results.values()]
        #: of every result, its place among the outputs of the program
        self.places = [list(dict.fromkeys(outputs)).index(one) for one in outputs]
        self._program.output(*dict.fromkeys(outputs))
        del self._values
        self._program = named(self._program, self.layers, ranges)

    @property
    def needs(self) -> list[str]:
        """Names of all values that a call needs."""
        return [*self.sources, *(one.name for read in self.given for one in read.given)]

    @property
    def program(self) -> Program:
        """What is called."""
        return self._program

    def arguments(self, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Return what the program is called with."""
        given = [values[name] for name in self.sources]
        maps = [x.unsqueeze(2) if x.dim() == 3 else x for x in given]
        return (*maps, *(_per_image(read, values, len(given[0])) for read in self.given))

    def __call__(self, values: dict[str, Any]) -> None:
        """Compute the results from the sources, all in ``values``."""
        signal = values[self.sources[0]].dim() == 3
        found = self._program(*self.arguments(values))
        outputs = found if isinstance(found, tuple) else (found,)
        for name, place in zip(self.results, self.places, strict=True):
            values[name] = outputs[place].squeeze(2) if signal else outputs[place]

    def _step(self, made: Made, pattern: Callable[[str, Tensor], Pattern], affines: Mapping[int, Affine]) -> Value:
        if isinstance(made, Conv):
            kept = pattern(made.layer, made.weight) if made.layer else Pattern(made.weight != 0)
            return self._conv(made, kept, affines.get(id(made.read)))
        if isinstance(made, Norm):
            return self._program.norm(self._values[made.source], made.weight, made.bias, made.eps, made.groups)
        assert isinstance(made, Sum)
        return self._program.sum(self._addends(made.add), made.activation)

    def _addends(self, terms: Sequence[Term]) -> list[Addend]:
        return [Addend(self._values[term.made], term.factor, term.up) for term in terms]

    def _conv(self, made: Conv, pattern: Pattern, affine: Affine | None) -> Value:
        read = made.read
        scale, shift = composed(read) if read.affine and affine is None else (None, None)
        x = [self._values[part] for part in read.parts]
        settings: dict[str, Any] = {
            "stride": made.stride, "padding": made.padding, "dilation": made.dilation, "groups": made.groups,
            "scale": scale, "shift": shift, "affine": affine, "pre": read.slope, "add": self._addends(made.add),
            "activation": made.activation,
        }  # fmt: skip
        if made.transposed:
            own = self._program.conv_transpose
            return own(x, made.weight, pattern, made.bias, output_padding=made.output_padding, **settings)
        return self._program.conv(
            x, made.weight, pattern, made.bias, border=made.border, upsample=read.up == 2, shuffle=made.shuffle,
            **settings,
        )  # fmt: skip


def _per_image(read: Read, values: Mapping[str, Any], images: int) -> Tensor:
    """Compose the gains and biases of a read, ``[N, 2, C]``."""

    def number(factor: Any) -> Tensor:
        return factor.float() if isinstance(factor, Tensor) else values[factor.name].flatten(1)

    scale, shift = torch.ones(images, read.channels), torch.zeros(images, read.channels)
    for gain, bias in read.affine:
        if gain is not None:
            scale, shift = scale * number(gain), shift * number(gain)
        if bias is not None:
            shift = shift + number(bias)
    return torch.stack((scale, shift), 1)
