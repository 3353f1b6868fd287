"""Distillation between generators: a run's generator learns from a trained one, beside its adversarial loss.

Both make images of the same latents and classes. Up to three terms are added to the generator's loss:

* **images**: the mean absolute difference of the two images (as in GAN Compression, and as the pixel term of CAGC).
* **features**: one less the kernel alignment of the two generators' maps (CAT), which tells whether the maps hold
  images and places alike, whatever their widths. GAN Compression and OMGD put a learned 1x1 convolution between maps of
  different widths; the alignment needs none, so there is nothing to train, to save or to resume.
* **discriminator**: the difference of what a discriminator makes of both images, of equal widths by nature (DCD, whose
  discriminator is the teacher's; here it is the run's own, which learns with it).

The maps are the last that a module gives at each resolution before the output layer, where both networks have it.

Sources: Li et al., "GAN Compression" (CVPR 2020), section 3.1; Ren et al., "Online Multi-Granularity Distillation for
GAN Compression" (OMGD, ICCV 2021); Jin et al., "Teachers Do More Than Teach" (CAT, CVPR 2021), global kernel alignment;
Liu et al., "Content-Aware GAN Compression" (CAGC, CVPR 2021); Hu et al., "Discriminator-Cooperated Feature Map
Distillation for GAN Compression" (DCD, CVPR 2023).
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from gancompress.backbones.base import blank_inputs, evaluating
from gancompress.backbones.folding import resampling
from gancompress.cost.profile import profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.cost.profile import Counting

__all__ = [
    "TERMS",
    "FeatureMap",
    "GeneratorDistillation",
    "Lesson",
    "Size",
    "kernel_alignment",
    "last_maps",
    "relative_difference",
    "watched",
]

#: height and width
Size: TypeAlias = tuple[int, int]

#: what can be learned, in the order in which it is computed and recorded
TERMS = ("images", "features", "discriminator")


class FeatureMap(NamedTuple):
    """A map that a network makes on its way.

    Attributes:
        module: name of the module whose output it is.
        channels: of the map.
    """

    module: str
    channels: int


class Lesson(NamedTuple):
    """What one generator made of a batch of latents.

    Attributes:
        images: (B, C, H, W) float32.
        maps: on the way, those that are aligned.
        judged: those that the discriminator made of the images.
    """

    images: Tensor
    maps: Mapping[Size, Tensor]
    judged: Mapping[Size, Tensor]


@dataclasses.dataclass(frozen=True)
class GeneratorDistillation:
    """A teacher, and what is learned from it.

    Attributes:
        teacher: in eval mode, frozen, on the device of the run.
        weights: of the terms that are learned, by their names and in the order of :data:`TERMS`.
        maps: those that are aligned, the student's and the teacher's, by their size.
        judged: those of the discriminator.
    """

    teacher: Generator
    weights: Mapping[str, float]
    maps: Mapping[Size, tuple[FeatureMap, FeatureMap]] = dataclasses.field(default_factory=dict)
    judged: Mapping[Size, FeatureMap] = dataclasses.field(default_factory=dict)

    @property
    def students(self) -> dict[Size, FeatureMap]:
        """The student's maps."""
        return {size: student for size, (student, _) in self.maps.items()}

    @property
    def teachers(self) -> dict[Size, FeatureMap]:
        """The teacher's maps."""
        return {size: teacher for size, (_, teacher) in self.maps.items()}

    def macs(self) -> dict[Counting, int]:
        """Return the multiply-adds of one sample beside both networks: the teacher's forward pass and the alignment.

        Of the alignment, three products of maps forward and one for each of their factors that a gradient goes to.
        """
        found = profile(self.teacher)
        aligned = sum(
            height * width * (2 * s.channels * t.channels + 3 * s.channels**2 + t.channels**2)
            for (height, width), (s, t) in self.maps.items()
        )
        return {
            "published": found.weight_macs(counting="published") + found.other_macs("published") + aligned,
            "executed": found.weight_macs(counting="executed") + found.other_macs("executed") + aligned,
        }

    def compare(self, student: Lesson, teacher: Lesson) -> tuple[Tensor, ...]:
        """Return the terms that are learned, each 0 where both generators made the same."""
        found = []
        if "images" in self.weights:
            found.append((student.images - teacher.images).abs().mean())
        if "features" in self.weights:
            alike = [kernel_alignment(student.maps[size], teacher.maps[size]) for size in self.maps]
            found.append(1 - torch.stack(alike).mean())
        if "discriminator" in self.weights:
            apart = [relative_difference(student.judged[size], teacher.judged[size]) for size in self.judged]
            found.append(torch.stack(apart).mean())
        return tuple(found)


def kernel_alignment(one: Tensor, other: Tensor) -> Tensor:
    """Return how alike two maps (B, C, H, W) of as many images and places, and any widths, tell these apart: 0 to 1.

    ``|X'Y|² / (|X'X| |Y'Y|)`` in Frobenius norms, a row of X and of Y for every image and place: 1 for maps that differ
    by a factor and a rotation of their channels. A map of zeros has an alignment of 0.
    """
    x, y = (tensor.float().movedim(1, -1).flatten(0, -2) for tensor in (one, other))
    # of a unit scale, so that squares of squares neither overflow nor vanish
    x, y = (rows / rows.detach().square().mean().sqrt().clamp_min(torch.finfo(rows.dtype).tiny) for rows in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    alike: Tensor = (x.T @ y).square().sum() / scale.clamp_min(torch.finfo(x.dtype).tiny)
    return alike


def relative_difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of two maps over the mean magnitude of both, a mere scale: 0 to 2."""
    one, other = one.float(), other.float()
    magnitude = (one.detach().abs().mean() + other.abs().mean()) / 2
    return (one - other).abs().mean() / magnitude.clamp_min(torch.finfo(other.dtype).tiny)


def last_maps(network: Generator | Discriminator) -> dict[Size, FeatureMap]:
    """Return the last map of each resolution of more than one pixel that comes before the output layer.

    Blocks count as one, lists and sequences of them do not. Convolutions that training may fold with what stands beside
    them, and then does not call, are left out.
    """
    found: dict[Size, FeatureMap] = {}
    output, ended, count = network.output_layer(), False, 2
    aside = {name for name, _, _ in resampling(network)}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, out: object) -> None:
            if not ended and isinstance(out, Tensor) and out.dim() == 4 and len(out) == count:
                _, channels, height, width = out.shape
                if height * width > 1:
                    found[height, width] = FeatureMap(name, channels)

        return hook

    def end(module: nn.Module, inputs: object) -> None:
        nonlocal ended
        ended = True

    handles = [output.register_forward_pre_hook(end)]
    for name, module in _blocks(network, output, ""):
        if name not in aside:
            handles.append(module.register_forward_hook(note(name)))
    try:
        with evaluating(network):
            network(*blank_inputs(network, count))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _blocks(network: nn.Module, output: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost modules of a network that are neither containers nor hold its output layer."""
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) or output in child.modules():
            yield from _blocks(child, output, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


@contextlib.contextmanager
def watched(network: nn.Module, maps: Mapping[Size, FeatureMap]) -> Iterator[dict[Size, Tensor]]:
    """Yield what gathers these maps of ``network`` while it is called inside; of several calls, those of the last."""
    gathered: dict[Size, Tensor] = {}

    def gather(size: Size) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, out: Tensor) -> None:
            if tuple(out.shape[2:]) == size:
                gathered[size] = out

        return hook

    modules = {size: network.get_submodule(one.module) for size, one in maps.items()}
    handles = [module.register_forward_hook(gather(size)) for size, module in modules.items()]
    try:
        yield gathered
    finally:
        for handle in handles:
            handle.remove()
