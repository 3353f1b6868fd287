"""Names of the tensors of a graph by which every convolution and linear layer can be a module of its own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.graphs.graph import Graph, Stored, Value

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

    from gancompress.graphs.graph import Argument, Node

__all__ = ["is_layer", "named", "replaced"]


def is_layer(node: Node) -> bool:
    """Whether it is a convolution or a linear layer: of an input, a weight, and a bias if it has one."""
    return node.op.startswith(("aten.conv1d.", "aten.conv2d.", "aten.conv3d.", "aten.conv_transpose", "aten.linear."))


def replaced(node: Node, by: Mapping[Value | Stored, Argument]) -> Node:
    """Return a node with other values and tensors in the place of some."""

    def changed(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(map(changed, argument))
        return by.get(argument, argument) if isinstance(argument, Value | Stored) else argument

    kwargs = {key: changed(one) for key, one in node.kwargs.items()}
    return dataclasses.replace(node, args=changed(node.args), kwargs=kwargs)


def named(
    graph: Graph, tensors: Mapping[str, Tensor], new: Mapping[str, tuple[str, str]], parameters: Collection[str]
) -> tuple[Graph, dict[str, Tensor]]:
    """Give new tensors names, and every layer a path where nothing else lies.

    That is where its weight is, if it can be, so that the weight is called ``conv.weight``; if ``conv`` has more than a
    layer has, it is the weight itself: ``conv.weight.weight``.

    Args:
        graph: what to compute.
        tensors: all that it reads.
        new: of new ones, the parameter that each was computed of, and what it is.
        parameters: names of the tensors that were trained.

    Returns:
        The graph and the tensors that it reads.
    """
    return _Naming(graph, tensors, new, parameters).result()


class _Naming:
    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Tensor],
        new: Mapping[str, tuple[str, str]],
        parameters: Collection[str],
    ) -> None:
        self.graph, self.tensors, self.new, self.parameters = graph, tensors, new, parameters
        used = graph.tensors
        self.old = {name for name in used if name not in new}
        #: where tensors are, or were computed of
        self.places = self.old | {new[name][0] for name in used if name in new}
        #: the names that tensors get
        self.names: dict[str, str] = {}
        #: biases of layers, by the names of their weights
        self.biases: dict[str, str] = {}
        self.found: dict[str, Tensor] = {}

    def result(self) -> tuple[Graph, dict[str, Tensor]]:
        for node in self.graph.nodes:
            if is_layer(node):
                self._place(node)
        for name in self.graph.tensors:
            if name not in self.names:
                root, what = self.new.get(name, (name, ""))
                wanted = f"{root}_{what}" if what not in ("", "bias") else root
                self._name(name, wanted if name == wanted else self._free(wanted, "" if root in self.old else root))
        nodes = tuple(map(self._renamed, self.graph.nodes))
        graph = Graph(self.graph.inputs, nodes, self.graph.outputs)
        return graph, {name: self.found[name] for name in graph.tensors}

    def _place(self, node: Node) -> None:
        """Give a layer that is met first its path."""
        weight, bias = node.args[1], _bias(node)
        if not isinstance(weight, Stored) or weight.name in self.names:
            return
        root, what = self.new.get(weight.name, (weight.name, "weight"))
        if root not in self.parameters or what != "weight" or not (bias is None or isinstance(bias, Stored)):
            return
        parent = root.removesuffix(".weight")
        own = "" if weight.name != root and root in self.old else root  # read by others, too
        beneath = {name for name in (*self.places, *self.found) if name.startswith(f"{parent}.")} - {own}
        if bias is not None:
            beneath -= {f"{parent}.bias"} & {self.new.get(bias.name, (bias.name, ""))[0]}
        path = parent if parent != root and own and not beneath else self._free(root, own)
        self._name(weight.name, f"{path}.weight")
        if bias is not None:
            self.biases[weight.name] = bias.name
            self.found[f"{path}.bias"] = self.tensors[bias.name]

    def _free(self, path: str, own: str) -> str:
        """Return ``path``, or with a number behind it, where nothing is at or beneath it but for ``own``."""
        taken = (*self.places - {own}, *self.found)
        number, free = 0, path
        while any(name == free or name.startswith(f"{free}.") for name in taken):
            number += 1
            free = f"{path}_{number}"
        return free

    def _name(self, old: str, name: str) -> None:
        self.names[old], self.found[name] = name, self.tensors[old]

    def _renamed(self, node: Node) -> Node:
        names: dict[Value | Stored, Argument] = {Stored(old): Stored(name) for old, name in self.names.items()}
        weight, bias = getattr(node.args[1], "name", "") if is_layer(node) else "", _bias(node)
        if bias is not None and self.biases.get(weight) == bias.name:
            names[bias] = Stored(self.names[weight].removesuffix("weight") + "bias")
        return replaced(node, names)


def _bias(node: Node) -> Argument:
    return node.args[2] if is_layer(node) and len(node.args) > 2 else None
