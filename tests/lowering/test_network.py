"""Who decides what runs in programs, what is kept, and what stays in torch."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from foreign_generators import difference
from torch import Tensor

import gancompress
from gancompress.errors import ExportError, KernelError
from gancompress.export.network import LoadedNetwork, save_network
from gancompress.foreign.network import capture_module
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Graph, Input, Node, Stored, Value
from gancompress.lowering import network as lowering
from gancompress.lowering.network import SparseNetwork
from gancompress.lowering.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path


def chain(*nodes: Node, shape: tuple[int | str, ...] = ("n", 4, "h", "w"), **tensors: Tensor) -> CapturedModule:
    graph = Graph((Input("x", shape, "float32"),), nodes, (nodes[-1].name,))
    return CapturedModule(graph, {name.replace("__", "."): tensor for name, tensor in tensors.items()})


def conv(name: str, x: str, layer: str, padding: int = 1) -> Node:
    args = (Value(x), Stored(f"{layer}.weight"), Stored(f"{layer}.bias"), (1, 1), (padding, padding))
    return Node(name, "aten.conv2d.default", args)


def two_layers() -> CapturedModule:
    torch.manual_seed(0)
    return chain(
        conv("one", "x", "a"), Node("act", "aten.relu.default", (Value("one"),)), conv("two", "act", "b"),
        a__weight=torch.randn(8, 4, 3, 3), a__bias=torch.randn(8),
        b__weight=torch.randn(4, 8, 3, 3), b__bias=torch.zeros(4),
    )  # fmt: skip


def test_programs_are_kept_by_size_and_the_oldest_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(Plan):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(lowering, "Plan", Counted)
    run = SparseNetwork(two_layers(), {}, "always")
    inputs = [torch.randn(1, 4, 5, 3 + i) for i in range(9)]
    run(inputs[0])
    tried = len(made)
    for x in (*inputs, *inputs[1:]):
        run(x)
    assert len(made) == tried + 8
    run(inputs[0])
    assert len(made) == tried + 9


def test_the_switch_and_the_environment_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = two_layers(), torch.randn(1, 4, 6, 6)
    never = SparseNetwork(network, {}).profile(x)
    assert never.dense == dict.fromkeys(("a.weight", "b.weight"), "asked for")  # the environment of the tests
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "always")
    assert SparseNetwork(network, {}).profile(x).dense == {}
    assert SparseNetwork(network, {}, "never").profile(x).programs == 0
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "allways")
    with pytest.raises(KernelError, match="did you mean 'always'"):
        SparseNetwork(network, {})(x)


def test_the_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = two_layers(), torch.randn(1, 4, 6, 6)
    masks = {"a.weight": torch.ones(8, 4, 3, 3, dtype=torch.bool), "b.weight": torch.rand(4, 8, 3, 3) < 0.2}
    network.b.weight.data.mul_(masks["b.weight"])  # type: ignore[union-attr, operator]
    both, one = ["a.weight", "b.weight"], ["b.weight"]
    for times, sparse in (([1.0, 2.0, 3.0], []), ([3.0, 2.0, 2.5], both), ([3.0, 2.0, 1.0], one)):
        monkeypatch.setattr(lowering, "fastest", lambda turns, times=times: times[: len(turns)])
        run = SparseNetwork(network, masks, "auto")
        assert difference(network(x), run(x)) < 1e-5
        profile = run.profile(x)
        assert profile.sparse == sparse
        assert set(profile.dense) == set(masks) - set(sparse)
    assert "1.00 of its weights are left" in profile.dense["a.weight"]


def test_programs_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = two_layers(), torch.randn(1, 4, 6, 6)
    monkeypatch.setattr(Plan, "__call__", lambda self, *inputs: network(*inputs) * 1.01)
    run = SparseNetwork(network, {}, "always")
    assert torch.equal(run(x), network(x))
    assert "outputs of the programs differ" in run.profile(x).dense["a.weight"]


def test_weights_that_are_trained_on_are_read_again() -> None:
    network, x = two_layers(), torch.randn(1, 4, 6, 6)
    run = SparseNetwork(network, {}, "always")
    run(x)
    with torch.no_grad():
        network.get_parameter("b.weight").mul_(2)
    assert difference(network(x), run(x)) < 1e-5


def test_inputs_that_no_program_takes_go_to_torch() -> None:
    network = two_layers()
    run = SparseNetwork(network, {}, "always")
    assert run(torch.randn(0, 4, 6, 6)).shape == (0, 4, 6, 6)
    with torch.inference_mode():
        x = torch.randn(1, 4, 6, 6)
        assert difference(network(x), run(x)) < 1e-5
    with pytest.raises(RuntimeError, match="expected input"):
        run(torch.randn(1, 5, 6, 6))
    twin = copy.deepcopy(run)
    assert difference(run(x), twin(x)) < 1e-5
    assert twin.profile(x).dense == {}


def test_a_file_that_is_loaded_runs_as_it_is_told_to(tmp_path: Path) -> None:
    network, x = two_layers(), torch.randn(1, 4, 6, 6)
    masks = {name: torch.rand(network.get_parameter(name).shape) < 0.3 for name in ("a.weight", "b.weight")}
    for name, mask in masks.items():
        network.get_parameter(name).data.mul_(mask)
    save_network(network, masks, tmp_path / "network.safetensors")
    loaded = gancompress.load(tmp_path / "network.safetensors", sparse="always")
    assert isinstance(loaded, LoadedNetwork)
    assert difference(network(x), loaded(x)) < 1e-5
    assert loaded.profile(x).sparse == ["a.weight", "b.weight"]
    assert gancompress.load(tmp_path / "network.safetensors").profile(x).sparse == []  # type: ignore[union-attr]
    with pytest.raises(ExportError, match="it takes x n x 4 x h x w"):
        loaded.profile(x[0])


def test_what_is_computed_of_stored_tensors_alone_is_a_constant() -> None:
    """Weights that a scale is multiplied to, and slopes that a view makes flat."""
    torch.manual_seed(0)
    weight = torch.randn(8, 4, 3, 3) * (torch.rand(8, 4, 3, 3) < 0.3)
    network = chain(
        Node("scaled", "aten.mul.Tensor", (Stored("a.weight"), 0.5)),
        Node("flat", "aten.view.default", (Stored("slopes"), (-1,))),
        Node("conv", "aten.conv2d.default", (Value("x"), Value("scaled"), None, (1, 1), (1, 1))),
        Node("out", "aten.prelu.default", (Value("conv"), Value("flat"))),
        a__weight=weight, slopes=torch.rand(8, 1, 1),
    )  # fmt: skip
    run, x = SparseNetwork(network, {}, "always"), torch.randn(2, 4, 5, 6)
    assert difference(network(x), run(x)) < 1e-5
    (plan,) = run._plans.values()
    assert plan.sparse == ["scaled"]
    assert len(plan.steps) == 1
    assert run._pattern("scaled", weight).kept == int((weight != 0).sum())  # no mask: what is not zero


def test_a_group_norm_in_pieces_is_a_group_norm() -> None:
    """As exporters to ONNX write it: instance norm of groups of channels, then gains and biases."""
    torch.manual_seed(0)
    settings = (True, 0.1, 1e-3, False)
    pieces = (
        conv("one", "x", "a"),
        Node("groups", "aten.view.default", (Value("one"), (2, 2, -1))),
        Node("norm", "aten.instance_norm.default", (Value("groups"), Stored("ones"), None, None, None, *settings)),
        Node("map", "aten.view.default", (Value("norm"), (2, 8, 5, 6))),
        Node("gain", "aten.mul.Tensor", (Value("map"), Stored("gains"))),
        Node("bias", "aten.add.Tensor", (Value("gain"), Stored("biases"))),
        conv("two", "bias", "b"),
    )  # fmt: skip
    tensors = {
        "a__weight": torch.randn(8, 4, 3, 3), "a__bias": torch.randn(8), "ones": torch.rand(2),
        "gains": torch.randn(8, 1, 1), "biases": torch.randn(8, 1, 1),
        "b__weight": torch.randn(4, 8, 3, 3), "b__bias": torch.zeros(4),
    }  # fmt: skip
    x = torch.randn(2, 4, 5, 6)
    network = chain(*pieces, **tensors)
    run = SparseNetwork(network, {}, "always")
    assert difference(network(x), run(x)) < 1e-5
    (plan,) = run._plans.values()
    assert len(plan.steps) == 1
    # anything else between the pieces sees groups of channels, which programs do not
    cut = chain(*pieces[:3], Node("act", "aten.relu.default", (Value("norm"),)), **tensors)
    assert difference(cut(x), SparseNetwork(cut, {}, "always")(x)) < 1e-5


def test_a_convolution_of_single_pixels_is_computed_ahead_of_the_enlargement() -> None:
    network = chain(
        Node("up", "aten.upsample_nearest2d.vec", (Value("x"), None, (2.0, 2.0))),
        Node("one", "aten.conv2d.default", (Value("up"), Stored("a.weight"), None)),
        Node("two", "aten.conv2d.default", (Value("up"), Stored("b.weight"), None, (1, 1), (1, 1))),
        Node("out", "aten.add.Tensor", (Value("one"), Value("two"))),
        a__weight=torch.randn(8, 4, 1, 1), b__weight=torch.randn(8, 4, 3, 3),
    )  # fmt: skip
    run, x = SparseNetwork(network, {}, "always"), torch.randn(2, 4, 5, 6)
    assert difference(network(x), run(x)) < 1e-5
    (plan,) = run._plans.values()
    shapes = {step.weight.shape[2]: step.dst.shape for step in plan.programs[0]._program._steps}  # type: ignore[union-attr]
    assert shapes == {1: (8, 5, 6), 3: (8, 10, 12)}


@pytest.mark.parametrize("ahead", [True, False])
def test_a_gate_of_ones_own_is_fused(ahead: bool) -> None:
    """x * sigmoid(x), as it is in ONNX; the map that is read twice is computed once."""
    gated = (Value("one"), Value("gate"))
    network = chain(
        conv("one", "x", "a"),
        Node("gate", "aten.sigmoid.default", (Value("one"),)),
        Node("swish", "aten.mul.Tensor", gated if ahead else gated[::-1]),
        conv("two", "swish", "b"),
        Node("out", "aten.tanh.default", (Value("two"),)),
        a__weight=torch.randn(8, 4, 3, 3) / 6, a__bias=torch.randn(8), b__weight=torch.randn(4, 8, 3, 3) / 8,
        b__bias=torch.randn(4),
    )  # fmt: skip
    run, x = SparseNetwork(network, {}, "always"), torch.randn(2, 4, 5, 6)
    assert difference(network(x), run(x)) < 1e-5
    (plan,) = run._plans.values()
    first, second = plan.programs[0]._program._steps
    assert (first.activation, second.pre, second.activation) == (None, "silu", "tanh")  # type: ignore[union-attr]


class Doubling(torch.nn.Module):
    def __init__(self, module: bool) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(4, 6, 3, padding=1), torch.nn.Conv2d(6, 3, 3, padding=1)
        self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False) if module else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        size = (2 * x.shape[2], 2 * x.shape[3])
        x = self.up(x) if self.up is not None else F.interpolate(x, size=size, mode="bilinear")
        return self.two(x)


@pytest.mark.parametrize("module", [True, False])
def test_bilinear_doubling_is_exactly_that_of_torch_to_the_edge(module: bool) -> None:
    network = capture_module(Doubling(module).eval(), [torch.randn(2, 4, 6, 8)], [{0: "n", 2: "h", 3: "w"}])
    run = SparseNetwork(network, {}, "always")
    for shape in ((1, 4, 5, 7), (3, 4, 2, 9), (17, 4, 1, 3), (1, 4, 24, 33)):
        x = torch.randn(shape)
        assert difference(network(x), run(x)) < 1e-5
    profile = run.profile(x)
    assert (profile.programs, profile.dense) == (1, {})
    assert set(profile.sparse) == {"one.weight", "two.weight"}
    other = chain(  # not by two, whatever the sizes
        conv("one", "x", "a"),
        Node("up", "aten.upsample_bilinear2d.vec", (Value("one"), None, False, (2.3, 2.3))),
        conv("two", "up", "b"),
        a__weight=torch.randn(3, 4, 3, 3), a__bias=torch.randn(3), b__weight=torch.randn(3, 3, 3, 3),
        b__bias=torch.randn(3),
    )  # fmt: skip
    x = torch.randn(1, 4, 2, 2)
    assert difference(other(x), SparseNetwork(other, {}, "always")(x)) < 1e-5


def test_nan_goes_through() -> None:
    network, x = two_layers(), torch.randn(1, 4, 6, 6)
    x[0, 0, 3, 3] = float("nan")
    found = SparseNetwork(network, {}, "always")(x)
    assert torch.equal(found.isnan(), network(x).isnan())


KINDS = """conv conv conv conv conv conv transposed relu leaky prelu add add sub mul scalar channel shift cat pad
shuffle up norm batch_norm group bilinear tanh sigmoid silu swish gelu rsub product mean"""


def random_network(seed: int) -> tuple[CapturedModule, tuple[int, ...]]:
    """A graph of random operations, each on what is there."""
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    nodes: list[Node] = []
    shapes: dict[str, tuple[int, ...]] = {"x": (2, 4, 6, 8)}

    def stored(*shape: int) -> Stored:
        name = f"t{len(tensors)}.weight"
        tensors[name] = torch.randn(shape, generator=noise) * (0.4 if len(shape) > 1 else 1)
        return Stored(name)

    def add(op: str, args: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        name = f"v{len(nodes)}"
        nodes.append(Node(name, f"aten.{op}", args))
        shapes[name] = shape

    while len(nodes) < 14:
        x = rng.choice(list(shapes)[-4:])
        n, c, h, w = shapes[x]
        value, alike = Value(x), [name for name, shape in shapes.items() if shape == shapes[x]]
        choice = rng.choice(KINDS.split())
        if choice == "conv":
            k, s, g = rng.choice([1, 3]), rng.choice([1, 1, 1, 2]), rng.choice([1, 1, 2]) if c % 2 == 0 else 1
            p = rng.choice([0, k // 2])
            if min(h, w) + 2 * p < k:
                continue
            out = rng.choice([2, 4, 8])
            size = [(one + 2 * p - k) // s + 1 for one in (h, w)]
            bias = rng.choice([None, stored(out)])
            add("conv2d.default", (value, stored(out, c // g, k, k), bias, (s, s), (p, p), (1, 1), g), (n, out, *size))
        elif choice == "transposed" and h * w < 200:
            add("conv_transpose2d.input", (value, stored(c, 4, 4, 4), None, (2, 2), (1, 1)), (n, 4, 2 * h, 2 * w))
        elif choice in ("relu", "tanh", "sigmoid", "silu", "gelu"):
            add(f"{choice}.default", (value,), shapes[x])
        elif choice == "swish":
            add("sigmoid.default", (value,), shapes[x])
            add("mul.Tensor", (value, Value(f"v{len(nodes) - 1}")), shapes[x])
        elif choice == "leaky":
            add("leaky_relu.default", (value, rng.choice([0.2, 0.5])), shapes[x])
        elif choice == "prelu":
            add("prelu.default", (value, stored(c)), shapes[x])
        elif choice == "sub" and len(alike) == 1:
            continue  # a norm of zeros is made of rounding
        elif choice in ("add", "sub", "product"):
            alike = [name for name in alike if choice != "sub" or name != x]
            op = {"add": "add.Tensor", "sub": "sub.Tensor", "product": "mul.Tensor"}[choice]
            add(op, (value, Value(rng.choice(alike))), shapes[x])
        elif choice == "scalar":
            add(rng.choice(["mul.Tensor", "div.Tensor"]), (value, rng.choice([0.2, -0.7, 3])), shapes[x])
        elif choice == "mul":
            add("mul.Tensor", (stored(1, c, 1, 1), value), shapes[x])
        elif choice == "mean" and h * w > 1:  # one number per image and channel
            add("amax.default", (value, (2, 3), True), (n, c, 1, 1))  # a mean of what is normed is rounding
            add("add.Tensor" if rng.random() < 0.5 else "mul.Tensor", (value, Value(f"v{len(nodes) - 1}")), shapes[x])
        elif choice in ("channel", "shift"):
            add("add.Tensor", (value, stored(c, 1, 1) if choice == "channel" else 0.3), shapes[x])
        elif choice == "rsub":
            add("rsub.Scalar", (value, 0.5), shapes[x])
        elif choice == "cat":
            parts = [name for name, (_, _, *size) in shapes.items() if size == [h, w]]
            chosen = [value] + [Value(rng.choice(parts)) for _ in range(2)]
            channels = sum(shapes[one.name][1] for one in chosen)
            if channels < 40:
                add("cat.default", (tuple(chosen), 1), (n, channels, h, w))
        elif choice == "pad" and min(h, w) > 2 and h * w < 200:
            mode = rng.choice(["constant", "reflect", "replicate"])
            add("pad.default", (value, (1, 2, 1, 0), mode), (n, c, h + 1, w + 3))
        elif choice == "shuffle" and c % 4 == 0:
            add("pixel_shuffle.default", (value, 2), (n, c // 4, 2 * h, 2 * w))
        elif choice == "up" and h * w < 100:
            add("upsample_nearest2d.vec", (value, None, (2.0, 2.0)), (n, c, 2 * h, 2 * w))
        elif choice == "bilinear" and h * w < 100:
            sized = rng.random() < 0.5
            args = (value, (2 * h, 2 * w) if sized else None, False, None if sized else (2.0, 2.0))
            add("upsample_bilinear2d.vec", args, (n, c, 2 * h, 2 * w))
        elif choice == "norm" and h * w > 4:
            add("instance_norm.default", (value, stored(c), None, None, None, True, 0.1, 1e-3, False), shapes[x])
        elif choice == "group" and c % 2 == 0 and h * w > 4:
            add("group_norm.default", (value, 2, stored(c), stored(c), 1e-3), shapes[x])
        elif choice == "batch_norm":
            name = stored(c).name
            tensors[name] = tensors[name].abs() + 0.5
            args = (value, stored(c), stored(c), stored(c), Stored(name), False, 0.1, 1e-5, False)
            add("batch_norm.default", args, shapes[x])
    outputs = dict.fromkeys([nodes[-1].name, rng.choice(nodes).name])
    graph = Graph((Input("x", ("n", 4, "h", "w"), "float32"),), tuple(nodes), tuple(outputs))
    return CapturedModule(graph, {name: tensors[name] for name in graph.tensors}), (2, 4, 6, 8)


@pytest.mark.parametrize("few", range(4))
def test_random_graphs_compute_what_torch_computes(few: int) -> None:
    sparse = 0
    for seed in range(25 * few, 25 * few + 25):
        network, shape = random_network(seed)
        masks = {name: torch.rand(t.shape) < 0.5 for name, t in network.state_dict().items() if t.dim() == 4}
        masks = {name: mask for name, mask in masks.items() if mask.shape[2] > 1 or mask.shape[0] > 1}
        for name, mask in masks.items():
            network.state_dict()[name].mul_(mask)
        run = SparseNetwork(network, masks, "always")
        x = torch.randn(shape)
        assert difference(network(x), run(x)) < 1e-5, seed
        choice = next(iter(run._choices.values()))
        assert not choice.torch or choice.torch == "programs have no place for it", (seed, choice.torch)
        sparse += len(next(reversed(run._plans.values())).sparse) if run._plans else 0
    assert sparse > 25
