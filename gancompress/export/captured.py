"""Generators whose class is not at hand: captured as a graph when written, built from it when read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.backbones.base import Generator, prunable_weights
from gancompress.errors import ExportError
from gancompress.evaluation.sandbox import draws
from gancompress.export.plain import example_inputs
from gancompress.graphs.build import CapturedModule, check
from gancompress.graphs.capture import capture
from gancompress.graphs.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec

__all__ = ["CapturedGenerator", "capture_generator", "check_captured"]

#: Largest difference of a pixel between a generator and its graph.
_TOLERANCE = 1e-5


class CapturedGenerator(CapturedModule, Generator):
    """A generator that a graph computes.

    Args:
        content: from :func:`capture_generator`.
        tensors: by name, all that the graph reads; they are taken over, not copied.
        image: shape and classes of its images.

    Raises:
        ExportError: the content is no graph of such a generator.
    """

    def __init__(self, content: Mapping[str, Any], tensors: Mapping[str, Tensor], image: ImageSpec) -> None:
        graph, classes = _parsed(content)
        super().__init__(graph, tensors)
        self.image, self.num_classes = image, classes
        given = graph.inputs[0].shape[1:]
        self.translates = len(given) == 3
        self.latent_dim = 0 if self.translates else int(given[0])
        self._shape = tuple(map(int, given))
        prunable = {str(name) for name in content["prunable"]}
        for name in prunable_weights(self).keys() - prunable:
            module: Any = self.get_submodule(name.removesuffix(".weight"))
            module.prunable = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self._shape

    def output_layer(self) -> nn.Module:
        """Return the last convolution or linear layer."""
        return self.get_submodule(self.last_layer)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Map latents (B, latent_dim) and labels (B,) or None to images (B, C, H, W)."""
        if self.num_classes and labels is None:
            raise ValueError("this network is conditional: give it labels")
        images: Tensor
        (images,) = self.compute((z,) if labels is None or not self.num_classes else (z, labels))
        return images


def capture_generator(network: Generator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a file needs to build ``network`` without its class, and the tensors that its graph reads.

    Args:
        network: in eval mode on the CPU, without parametrisations; left as it is.

    Raises:
        ExportError: it cannot be captured, or its graph gives other images.
    """
    inputs = example_inputs(network, 2, "capture", 2)
    if draws(network, *inputs.values()):
        raise ExportError("it draws random numbers of its own, which a graph cannot do")
    graph, tensors = capture(network, inputs, [{0: "N"}] * len(inputs))
    content = {"graph": graph.to_json(), "num_classes": network.num_classes, "prunable": [*prunable_weights(network)]}
    check_captured(content, tensors, network.image)
    rebuilt = CapturedGenerator(content, tensors, network.image)
    for count in (1, 3):
        given = example_inputs(network, count, "capture", count).values()
        with torch.no_grad():
            difference = float((rebuilt(*given) - network(*given)).abs().max())
        if not difference <= _TOLERANCE:
            raise ExportError(f"the images of its graph differ by {difference:.1e}")
    return content, tensors


def check_captured(content: Mapping[str, Any], tensors: Mapping[str, Tensor], image: ImageSpec) -> None:
    """Try a graph without memory, whatever shapes it asks for.

    Raises:
        ExportError: it is no graph, does not run, or does not make such images.
    """
    graph, _ = _parsed(content)
    (shape,) = check(graph, tensors, {"N": 2}) or ((),)
    wanted = (2, image.channels, image.resolution, image.resolution)
    if tuple(shape) != wanted:
        raise ExportError(f"the graph makes {tuple(shape)}, the file says {wanted}")


def _parsed(content: Mapping[str, Any]) -> tuple[Graph, int]:
    graph, classes = Graph.from_json(content["graph"]), int(content["num_classes"])
    latent = graph.inputs[0].shape if graph.inputs else ()
    labelled = [one for one in graph.inputs[1:] if one.shape == ("N",) and one.dtype == "int64"]
    taken = len(graph.inputs) == 1 + len(labelled) and len(labelled) == bool(classes)
    if len(latent) not in (2, 4) or len(graph.outputs) != 1 or not taken or (len(latent) == 4 and classes):
        raise ExportError("the graph takes neither latents and labels nor images, or gives no images")
    return graph, classes
