"""``gancompress.load("generator.safetensors")``: a file becomes a function that makes images."""

from __future__ import annotations

import html
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from gancompress.components.plugins import command_line
from gancompress.data.transform import to_float, to_uint8
from gancompress.errors import ExportError, did_you_mean, located
from gancompress.evaluation.sampler import Sampler
from gancompress.export.compiled import compile_generator
from gancompress.export.container import kind_of
from gancompress.export.hub import CONFIG, HubAddress, fetch, is_pushed, pushed_generator
from gancompress.export.latents import draw_latents, interpolated, within
from gancompress.export.network import KIND, LoadedNetwork, load_network
from gancompress.export.packed import load_packed
from gancompress.storage.reading import UNFIT, reason
from gancompress.units import size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor

    from gancompress.backbones.base import Generator
    from gancompress.export.compiled import CompiledGenerator, LayerReport
    from gancompress.export.packed import Packed
    from gancompress.kernels import Mode

__all__ = ["Classes", "LoadedGenerator", "LoadedTranslator", "compiled_file", "load"]

#: one class for all images, or one per image; by number or by name
Classes: TypeAlias = "int | str | Sequence[int | str]"

#: images that are made together: a multiple of the kernels' 16, little enough to stay near the processor
_TOGETHER = 64
#: the same for images from images, which are larger
_IMAGES_TOGETHER = 8


class LoadedGenerator:
    """A generator from a file, ready to make images on the CPU.

    Attributes:
        packed: what the file holds: config, image spec, weights, masks, where it comes from.
        network: the compiled generator: latents and labels to images.
    """

    def __init__(self, packed: Packed, path: Path, sparse: Mode | None = None) -> None:
        self.packed = packed
        self.path = path
        self._sparse = sparse
        self.network: CompiledGenerator = self._compiled(1)
        self._last: tuple[float, CompiledGenerator] = (1, self.network)

    def truncated(self, truncation: float = 1.0) -> CompiledGenerator:
        """Return the compiled generator, its styles drawn to their average; the last one is kept.

        Raises:
            BackboneError: it has no average of styles, and ``truncation`` is not 1.
            ExportError: ``truncation`` is no number from 0 to 2.
        """
        _check_truncation(truncation)
        if truncation == 1:
            return self.network
        if truncation != self._last[0]:
            self._last = (truncation, self._compiled(truncation))
        return self._last[1]

    def _compiled(self, truncation: float) -> CompiledGenerator:
        generator, packed = self.packed.generator(), self.packed
        if truncation != 1:
            with located(str(self.path)):
                generator.truncate(truncation)
        return compile_generator(generator, packed.masks, sparse=self._sparse, ranges=packed.ranges or None)

    def __call__(
        self,
        n: int | None = None,
        seed: int = 0,
        classes: Classes | None = None,
        *,
        z: Tensor | None = None,
        uint8: bool = False,
        truncation: float = 1.0,
    ) -> Tensor:
        """Make images.

        Image i depends on ``seed`` and i, up to rounding, not on how many are made; it is the i-th single image that
        ``gancompress sample`` makes of this seed.

        Args:
            n: how many; default: one per listed class, else 16.
            seed: of the latents.
            classes: a class for all images, or a list with one per image, by number or name; default: all in turn.
            z: latents to use instead, (n, latent_dim), as from :meth:`latents` and :meth:`interpolate`.
            uint8: give 0 to 255 instead of -1 to 1.
            truncation: ψ of Karras et al. (2019), 0 to 2: draws the styles of a generator that has them towards their
                average. 1 leaves them as they are, at 0 all images are one. Another one than before takes part of a
                second, once.

        Returns:
            (n, C, H, W), float32 in [-1, 1] or uint8.

        Raises:
            ExportError: no such class, another number of classes than images, latents of another size, or
                ``truncation`` out of bounds.
            BackboneError: the generator has no average of styles, and ``truncation`` is not 1.
        """
        network, image = self.truncated(truncation), self.network.image
        listed = isinstance(classes, Sequence) and not isinstance(classes, str)
        if z is not None:
            if z.dim() != 2 or z.shape[1] != network.latent_dim or not len(z) or n not in (None, len(z)):
                raise ExportError(f"latents are (n, {network.latent_dim}), got {tuple(z.shape)} for n={n}")
            n = len(z)
        count = n if n is not None else len(classes) if listed and isinstance(classes, Sequence) else 16
        _check_count(count)
        labels = self._labels(classes, count)
        sampler = Sampler(network, seed=seed)
        latents = self.latents(count, seed) if z is None else z.detach().to("cpu", torch.float32)
        made = torch.empty(
            count, image.channels, image.resolution, image.resolution, dtype=torch.uint8 if uint8 else torch.float32
        )
        for start in range(0, count, _TOGETHER):
            stop = min(start + _TOGETHER, count)
            chosen = None if labels is None else labels[start:stop]
            batch = sampler.images(start, stop, chosen, latents[start:stop])
            made[start:stop] = to_uint8(batch) if uint8 else batch
        return made

    def latents(self, n: int = 16, seed: int = 0, *, threshold: float | None = None) -> Tensor:
        """Return the latents of ``g(n, seed)``, (n, latent_dim), float32: those of a web page of this generator too.

        Args:
            n: how many.
            seed: image i has the same latent whatever ``n`` is.
            threshold: bring all numbers between this and its negative, where they have the law of normal numbers that
                lie there: images that are more alike, and mostly better.

        Raises:
            ExportError: ``n`` is below 1, or ``threshold`` not above 0.
        """
        _check_count(n)
        drawn = draw_latents(self.network.latent_dim, seed, 0, n)
        return drawn if threshold is None else within(drawn, threshold)

    def interpolate(self, a: int | Tensor, b: int | Tensor, steps: int = 8) -> Tensor:
        """Return latents on the way from one to another, both ends included, for ``g(z=...)``: (steps, latent_dim).

        Args:
            a: a latent (latent_dim,), or a seed, which stands for its first one.
            b: the same.
            steps: how many.

        Raises:
            ExportError: a latent has another size, or ``steps`` is below 1.
        """
        _check_count(steps)
        ends = [self.latents(1, end)[0] if isinstance(end, int) else end.detach().cpu() for end in (a, b)]
        for end in ends:
            if tuple(end.shape) != (self.network.latent_dim,):
                raise ExportError(f"a latent is ({self.network.latent_dim},), got {tuple(end.shape)}")
        return interpolated(ends[0], ends[1], steps)

    def _labels(self, classes: Classes | None, count: int) -> Tensor | None:
        known = self.network.image.classes[: self.network.num_classes]
        if classes is None:
            return None
        if not self.network.num_classes:
            raise ExportError("this generator is unconditional: leave out classes")
        if isinstance(classes, int | str):
            classes = [classes] * count
        if len(classes) != count:
            raise ExportError(f"{len(classes)} classes for {count} images: list one per image")
        numbers = []
        for label in classes:
            if isinstance(label, str):
                if label not in known:
                    raise ExportError(f"there is no class {label!r}{did_you_mean(label, known)}")
                label = known.index(label)
            try:
                number = operator.index(label)  # a number of numpy or torch is one too, 1.5 is not
            except TypeError:
                raise ExportError(f"a class is a number or a name, got {label!r}") from None
            if not 0 <= number < self.network.num_classes:
                raise ExportError(f"there is no class {label}; there are 0 to {self.network.num_classes - 1}")
            numbers.append(number)
        return torch.tensor(numbers)

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return a line per layer: its name, the share of weights it keeps, and how it is computed."""
        return [
            (layer.name, f"{layer.density:.4g}", f"{layer.runs}: {layer.why}" if layer.why else _runs(layer))
            for layer in self.network.layers
        ]

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("layer", no_wrap=True)
        table.add_column("density", justify="right", no_wrap=True)
        table.add_column("runs", style="dim", overflow="fold")
        for row in self._rows():
            table.add_row(*(Text(cell) for cell in row))
        return Group(Text(repr(self)[1:-1], style="bold"), table)

    def _repr_html_(self) -> str:
        lines = [("layer", "density", "runs"), *self._rows()]
        cells = ["".join(f'<td style="text-align: left">{html.escape(cell)}</td>' for cell in line) for line in lines]
        table = "".join(f"<tr>{line}</tr>" for line in cells)
        return f"<div><strong>{html.escape(repr(self)[1:-1])}</strong><table>{table}</table></div>"

    def __repr__(self) -> str:
        network, image, packed = self.network, self.network.image, self.packed
        classes = f"{network.num_classes} classes" if network.num_classes else "unconditional"
        sparse = sum(layer.runs == "sparse" for layer in network.layers)
        return (
            f"<{packed.model['name']} generator from {self.path.name}: {image.channels}x{image.resolution}x"
            f"{image.resolution}, {classes}, density {packed.density:.3g}, {size(packed.bytes)}; {sparse} of "
            f"{len(network.layers)} layers sparse; images = g(n=64, seed=0"
            f"{', classes=None' if network.num_classes else ''})>"
        )


class LoadedTranslator:
    """A generator from a file that makes images of one domain from images of another, ready on the CPU.

    Attributes:
        packed: what the file holds: config, image spec, weights, masks, where it comes from.
        network: the compiled generator: images to images.
    """

    def __init__(self, packed: Packed, path: Path, generator: Generator, sparse: Mode | None = None) -> None:
        self.packed, self.path = packed, path
        self.network: CompiledGenerator = compile_generator(generator, packed.masks, sparse=sparse)

    def truncated(self, truncation: float = 1.0) -> CompiledGenerator:
        """Return the compiled generator, which has no styles to be drawn to an average.

        Raises:
            BackboneError: ``truncation`` is not 1.
        """
        if truncation != 1:
            with located(str(self.path)):
                self.packed.generator().truncate(truncation)
        return self.network

    def __call__(self, images: Tensor, *, uint8: bool = False) -> Tensor:
        """Make images of images.

        Args:
            images: (n, C, H, W) or (C, H, W), of the size that it was trained on; float in [-1, 1], or uint8.
            uint8: give 0 to 255 instead of -1 to 1.

        Returns:
            As many, float32 in [-1, 1] or uint8.

        Raises:
            ExportError: images of another shape or type, or none.
        """
        wanted = self.network.input_shape
        given = images[None] if images.dim() == 3 else images
        if given.dim() != 4 or tuple(given.shape[1:]) != wanted or not len(given):
            raise ExportError(f"images are (n, {', '.join(map(str, wanted))}), got {tuple(images.shape)}")
        if given.dtype is not torch.uint8 and not given.is_floating_point():
            raise ExportError(f"images are float in [-1, 1] or uint8, got {given.dtype}")
        pixels = to_float(given.cpu()) if given.dtype is torch.uint8 else given.detach().to("cpu", torch.float32)
        parts = [self.network(part) for part in torch.split(pixels, _IMAGES_TOGETHER)]
        made = torch.cat([to_uint8(part) if uint8 else part for part in parts])
        return made[0] if images.dim() == 3 else made

    def __repr__(self) -> str:
        image, packed, layers = self.network.image, self.packed, self.network.layers
        return (
            f"<{packed.model['name']} generator from {self.path.name}: takes and makes {image.channels}x"
            f"{image.resolution}x{image.resolution}, density {packed.density:.3g}, {size(packed.bytes)}; "
            f"{sum(layer.runs == 'sparse' for layer in layers)} of {len(layers)} layers sparse; images = g(images)>"
        )


def compiled_file(path: Path) -> CompiledGenerator:
    """Return the compiled generator of a packed file."""
    packed = load_packed(path)
    return compile_generator(packed.generator(), packed.masks, ranges=packed.ranges or None)


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ExportError(f"n must be a number of images, at least 1, got {n!r}")


def _check_truncation(psi: float) -> None:
    if isinstance(psi, bool) or not isinstance(psi, int | float) or not 0 <= psi <= 2:
        raise ExportError(f"truncation is a number from 0 to 2, got {psi!r}")


def _runs(layer: LayerReport) -> str:
    return layer.runs if layer.values == "float32" else f"{layer.runs}, {layer.values}"


def load(path: str | Path, *, sparse: Mode | None = None) -> LoadedGenerator | LoadedTranslator | LoadedNetwork:
    """Open a file that ``gancompress export RUN`` wrote, or ``compress`` of a network from elsewhere.

    Example::

        g = gancompress.load("generator.safetensors")
        images = g(n=64, seed=0)  # (64, C, H, W), float32 in [-1, 1]
        filled = gancompress.load("pix2pix.safetensors")(outlines)  # images to images
        upscaler = gancompress.load("upscaler.safetensors")
        large = upscaler(small)  # the inputs and outputs of the original
        g = gancompress.load("hf:OWNER/NAME")  # of the Hugging Face hub, as ``gancompress push`` puts it there

    Args:
        path: the file; a folder that ``gancompress push`` wrote; or ``hf:OWNER/NAME``, ``hf:OWNER/NAME@REVISION``.
        sparse: how it computes on the CPU: ``always`` by sparse kernels wherever they fit, ``never``, or ``auto``: what
            is measured to be faster; None takes ``GANCOMPRESS_SPARSE``, then ``auto``.

    Raises:
        ExportError: it is truncated, altered, from a newer version, or no such file; or the hub cannot be reached.
    """
    if not isinstance(path, str | os.PathLike):
        raise ExportError(f"give the file that `outcome.export()` returns, not a {type(path).__name__}")
    address = HubAddress.of(str(path))
    path = Path(path) if address is None else fetch(address)
    if path.is_dir() and is_pushed(path):
        path = path / pushed_generator(path / CONFIG)
    if path.is_dir():
        written = path / "export" / "generator.safetensors"
        mend = f"give {written}" if written.is_file() else f"write the file first: {command_line('export', path)}"
        raise ExportError(f"is a directory: {mend}", where=str(path))
    if kind_of(path) == KIND:
        return load_network(path, sparse)
    packed = load_packed(path)
    try:
        with located(str(path)):
            if (generator := packed.generator()).translates:
                return LoadedTranslator(packed, path, generator, sparse)
            return LoadedGenerator(packed, path, sparse)
    except UNFIT as error:
        raise ExportError(f"what it holds cannot be run ({reason(error)})", where=str(path)) from error
