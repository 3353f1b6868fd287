"""What a traced graph computes from weights alone, done once: such as sums of squares that styles are divided by."""

from __future__ import annotations

from torch import Tensor, fx

from gancompress.export.tracing import VALUE, value_of

__all__ = ["fold_constants"]


def fold_constants(graph: fx.GraphModule) -> int:
    """Replace every tensor that depends on parameters and buffers alone by a buffer; return how many there are now.

    Args:
        graph: from :func:`~gancompress.export.tracing.trace`, without operations that write; changed in place.
    """
    known: set[fx.Node] = set()
    for node in graph.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr" or (_is_pure(node) and inputs and all(other in known for other in inputs)):
            known.add(node)
    used = [n for n in known if n.op != "get_attr" and any(reader not in known for reader in n.users)]
    folded = 0
    for node in sorted(used, key=list(graph.graph.nodes).index):
        value = value_of(node)
        if not isinstance(value, Tensor):
            continue
        name = f"constant{folded}"
        # a view of a weight would keep all of it alive, and be written twice
        graph.register_buffer(name, value.detach().clone(), persistent=False)
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(name)
        constant.meta[VALUE] = value
        node.replace_all_uses_with(constant)
        folded += 1
    if folded:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return folded


def _is_pure(node: fx.Node) -> bool:
    """Whether a node is a call of a function, whose answer is a tensor."""
    return node.op in ("call_function", "call_method") and isinstance(value_of(node), Tensor)
