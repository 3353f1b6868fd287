"""The backbone contract: a pair of networks, the latent, the conditioning, and which weights may be pruned."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from gancompress.errors import BackboneError
from gancompress.sparsity.layers import Layer, LayerKind
from gancompress.sparsity.weights import LAYERS, masked_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = [
    "Backbone",
    "BackboneConfig",
    "Discriminator",
    "Generator",
    "PrunableWeight",
    "StyleGenerator",
    "Translator",
    "WeightKind",
    "Width",
    "blank_inputs",
    "evaluating",
    "prunable_weights",
]

WeightKind = Literal["convolution", "linear"]


@dataclasses.dataclass(frozen=True)
class PrunableWeight:
    """One tensor that a method may mask.

    Attributes:
        name: ``<module>.weight``, the same with and without spectral norm.
        parameter: the leaf parameter, its axes as ``layer`` says; for a spectrally normalised layer the raw parameter
            before the division by sigma, for one with weight norm its direction.
        key: name of that leaf in ``named_parameters()``.
        layer: kind, axes, kernel, groups and bias; neighbours are found by
            :func:`~gancompress.backbones.connections.connected_layers`.
    """

    name: str
    parameter: nn.Parameter
    key: str
    layer: Layer

    @property
    def output(self) -> bool:
        """Whether it makes the image or the logits, so that global rules protect it."""
        return self.layer.output

    @property
    def kind(self) -> WeightKind:
        """``convolution`` (transposed ones too) or ``linear``: what ``sparsity.weights`` tells apart."""
        return "linear" if self.layer.kind == "linear" else "convolution"


class _Network(nn.Module):
    """What generators and discriminators share."""

    #: classes that the network is conditioned on, 0 = unconditional
    num_classes: int
    image: ImageSpec
    #: whether ``forward`` takes maps whatever their memory format: no ``view`` of what a convolution gave. Training on
    #: the sparse kernels is faster then
    any_memory_format = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one of its inputs, without the axis of the batch."""
        return self.image.channels, self.image.resolution, self.image.resolution

    def output_layer(self) -> nn.Module:
        """Return the layer that makes the image or the logits."""
        raise NotImplementedError(f"{type(self).__name__} must say which layer is its output")

    def adopted(self, state: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
        """Return ``state`` under this network's names, where it has those of a published implementation.

        Args:
            state: of weights from elsewhere.
            where: their file, for errors.
        """
        return state


class Generator(_Network):
    """Latents to images.

    Shape: ``forward(z: (B, latent_dim) float, labels: (B,) int64 or None) -> (B, C, H, W) float in [-1, 1]``; while
    training, images may leave that range.

    Attributes:
        truncation: in evaluation mode, how near styles stay to their average; see :meth:`truncate`.
    """

    latent_dim: int
    #: whether it eats images, of another domain, instead of latents
    translates = False
    truncation: float = 1.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a latent."""
        return (self.latent_dim,)

    def truncate(self, psi: float) -> None:
        """Trade variety for quality in evaluation mode: 1 is the network as trained, 0 its average.

        Raises:
            BackboneError: the network keeps no average of what it makes of latents.
        """
        raise BackboneError(
            f"truncation: {type(self).__name__.lstrip('_')} has no average of styles to draw to, as stylegan2 has: "
            "leave truncation out"
        )


class StyleGenerator(Generator):
    """A generator in two halves, latents to styles (B, layers, style_dim) and styles to images, and their average.

    Attributes:
        average: running average of styles, (style_dim,), a buffer.
    """

    average: Tensor

    def styles(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim) and labels (B,) to the styles of every layer."""
        raise NotImplementedError

    def synthesise(self, styles: Tensor) -> Tensor:
        """Map styles to images (B, C, H, W)."""
        raise NotImplementedError

    def truncate(self, psi: float) -> None:
        """Draw styles towards their average in evaluation mode; 1 leaves them as they are."""
        self.truncation = psi


class Translator(Generator):
    """Images of one domain to images of another, of the same size.

    Shape: ``forward(x: (B, C, H, W) float in [-1, 1], labels: None) -> (B, C, H, W) float in [-1, 1]``.
    """

    latent_dim = 0
    num_classes = 0
    translates = True

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return self.image.channels, self.image.resolution, self.image.resolution


class Discriminator(_Network):
    """Images to logits.

    Shape: ``forward(x: (B, C, H, W) float in [-1, 1], labels: (B,) int64 or None) -> (B,) float``, before any loss
    non-linearity, or (B, places) with a logit for each of several places, over all of which losses are means. One that
    plays against a :class:`Translator` may give a logit per patch, (B, h, w), and see what that was given beside what
    it made, (B, 2C, H, W): its ``input_shape`` says so.
    """

    #: whether a logit depends on the other images of its batch, as under minibatch standard deviation. Real and
    #: generated images then never share a call
    sees_batch = False


_CONVOLUTION = nn.modules.conv._ConvNd


def prunable_weights(network: nn.Module) -> dict[str, PrunableWeight]:
    """List the weights of ``network`` that a method may mask, in the order of ``named_modules()``.

    Convolutions, transposed convolutions and linear layers count; a layer whose module has the attribute
    ``prunable = False`` does not (class embeddings, the gains and biases of conditional normalisation). Biases,
    normalisation and embeddings never do. Layers are found by ``isinstance``, since a parametrised layer has a class
    of its own.

    Raises:
        BackboneError: zeros of a layer's weight would not stay 0, see
            :func:`gancompress.sparsity.weights.masked_parameter`.
    """
    output = network.output_layer() if isinstance(network, _Network) else None
    leaves = {id(parameter): key for key, parameter in network.named_parameters()}
    found: dict[str, PrunableWeight] = {}
    for name, module in network.named_modules():
        if not isinstance(module, LAYERS) or not getattr(module, "prunable", True):
            continue
        label = f"{name}.weight" if name else "weight"
        leaf = masked_parameter(module, name or type(module).__name__)
        found[label] = PrunableWeight(label, leaf, leaves[id(leaf)], _layer(module, leaf, leaves, module is output))
    return found


def _layer(module: nn.Module, weight: nn.Parameter, leaves: Mapping[int, str], output: bool) -> Layer:
    shape, bias = tuple(weight.shape), leaves.get(id(module.bias))
    if not isinstance(module, _CONVOLUTION):
        return Layer("linear", shape, bias=bias, output=output)
    kind: LayerKind = "transposed convolution" if module.transposed else "convolution"
    return Layer(kind, shape, module.groups, tuple(module.stride), bias, output)


@contextlib.contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside: neither batch statistics nor power iterations move."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def blank_inputs(network: Generator | Discriminator, count: int) -> tuple[Tensor, Tensor | None]:
    """Return zeros that a network takes, on its device: latents or images (count, ...), and labels (count,) or None."""
    device = next(network.parameters()).device
    labels = torch.zeros(count, dtype=torch.int64, device=device) if network.num_classes else None
    return torch.zeros(count, *network.input_shape, device=device), labels


class Width(NamedTuple):
    """The setting that makes one network wider or narrower.

    Attributes:
        field: its name in the backbone's ``Config``.
        channels: its value, defaults resolved.
        multiple: what the value must divide by.
    """

    field: str
    channels: int
    multiple: int = 1


class BackboneConfig(BaseModel):
    """Base of every backbone's ``Config``.

    Attributes:
        takes_weights: whether a network takes weights from elsewhere. A setting ``weights`` then says where they lie,
            and a setting ``hash``, 16 hexadecimal digits or None, which they are: that makes a run what it is, and the
            place does not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    takes_weights: ClassVar[bool] = False

    def weights_hash(self) -> str:
        """Return the hash of the weights from elsewhere.

        Raises:
            BackboneError: they cannot be had.
        """
        raise BackboneError(f"{type(self).__name__} takes no weights from elsewhere")

    def smoke(self) -> dict[str, Any]:
        """Return settings of a run of seconds, beside widths, which are made small anyway."""
        return {}


C = TypeVar("C", bound=BackboneConfig)


class Backbone(abc.ABC, Generic[C]):
    """A matched generator and discriminator. Subclass it in one file, give it a ``Config``, register it.

    Weights are drawn from torch's global generator: the caller seeds it.
    """

    Config: ClassVar[type[BackboneConfig]] = BackboneConfig

    def __init__(self, config: C, image: ImageSpec) -> None:
        self.config = config
        self.image = image

    @property
    @abc.abstractmethod
    def resolutions(self) -> tuple[int, ...]:
        """Image sizes that this backbone can make."""

    @property
    @abc.abstractmethod
    def conditional(self) -> bool:
        """Whether the networks take class labels."""

    @property
    def widths(self) -> Mapping[Role, Width]:
        """What sets the width of each network, separately; empty when they cannot be built narrower."""
        return {}

    def resized(self, channels: Mapping[Role, int]) -> Backbone[C]:
        """Return the same backbone with other widths; a role that is not named keeps its own."""
        changes = {width.field: channels.get(role, width.channels) for role, width in self.widths.items()}
        return type(self)(self.config.model_copy(update=changes), self.image)

    @abc.abstractmethod
    def generator(self) -> Generator:
        """Build a freshly initialised generator."""

    @abc.abstractmethod
    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
