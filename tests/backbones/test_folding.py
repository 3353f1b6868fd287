"""Folded convolutions are the written ones: exactly in algebra, to rounding in floats."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gancompress import kernels
from gancompress.backbones import folding
from gancompress.backbones.base import prunable_weights
from gancompress.backbones.biggan import BigGAN, BigGANConfig
from gancompress.backbones.biggan_deep import BigGANDeep, BigGANDeepConfig
from gancompress.backbones.layers import DownBlock, FirstDownBlock, UpBlock, averaged, initialiser, upsampled
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.cost.profile import profile
from gancompress.data.base import ImageSpec
from gancompress.kernels.layout import is_batch_last
from gancompress.kernels.native_library import library

DRAW = initialiser("orthogonal")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def fold_all(network: nn.Module, above: float = 0.0) -> int:
    found = list(folding.resampling(network))
    for _, conv, kind in found:
        folding.attach(conv, kind, above)
    return len(found)


def test_known_answers_in_a_corner():
    # the kernel that looks one pixel to the left and up
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 0] = 1
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    up = F.conv_transpose2d(x, folding.folded(weight, "up"), stride=2, padding=1)
    assert up[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 2], [0, 1, 1, 2], [0, 3, 3, 4]]
    down = F.conv2d(x, folding.folded(weight, "down"), stride=2, padding=1)
    assert down[0, 0].tolist() == [[0.25]]  # of the four results 0, 0, 0 and 1
    ones = folding.folded(torch.ones(1, 1, 3, 3), "down")[0, 0]
    assert ones.tolist() == [[v / 4 for v in row] for row in ([1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1])]


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_both_kinds_are_two_operations_in_one(size, memory):
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64).contiguous(memory_format=memory)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    up = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1)
    torch.testing.assert_close(F.conv_transpose2d(x, folding.folded(weight, "up"), stride=2, padding=1), up)
    down = F.avg_pool2d(F.conv2d(x, weight, padding=1), 2)
    torch.testing.assert_close(F.conv2d(x, folding.folded(weight, "down"), stride=2, padding=1), down)


@pytest.mark.parametrize(("operation", "kind"), [(upsampled, "up"), (averaged, "down")])
def test_gradients_and_those_of_gradients_are_right(operation, kind):
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    folding.attach(conv, kind, 0.0)

    def run(x, weight, bias):
        return torch.func.functional_call(_Call(operation, conv), {"conv.weight": weight, "conv.bias": bias}, x)

    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    leaves = (x, conv.weight.detach().clone().requires_grad_(), conv.bias.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


class _Call(nn.Module):
    def __init__(self, operation, conv):
        super().__init__()
        self.operation, self.conv = operation, conv

    def forward(self, x):
        return self.operation(self.conv, x)


def blocks() -> dict[str, nn.Module]:
    return {
        "up": UpBlock(4, 6, DRAW),
        "up, spectral norm": UpBlock(4, 6, DRAW, spectral_norm=True),
        "first": FirstDownBlock(4, 6, DRAW, spectral_norm=True),
        "down": DownBlock(4, 6, DRAW, hidden_channels=5, down=True, spectral_norm=True),
    }


@pytest.mark.parametrize("name", list(blocks()))
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_train_alike_and_keep_their_names(name, masked):
    written = blocks()[name].double()
    nn.init.normal_(next(folding.resampling(written))[1].bias)
    if masked:
        with torch.no_grad():
            for weight in prunable_weights(written).values():
                weight.parameter.mul_(torch.rand_like(weight.parameter) < 0.3)
    other = copy.deepcopy(written)
    assert fold_all(other) == 1
    assert list(other.state_dict()) == list(written.state_dict())
    assert list(prunable_weights(other)) == list(prunable_weights(written))
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    for _ in range(2):  # spectral norm takes a step in each
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outs = [block(inner) for block, inner in zip((written, other), inputs, strict=True)]
        torch.testing.assert_close(outs[1], outs[0])
        for out in outs:
            out.square().sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
        for a, b in zip(other.parameters(), written.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(other.buffers(), written.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def networks() -> dict[str, nn.Module]:
    image = ImageSpec(3, 32, ("ant", "bee"))
    large = ImageSpec(3, 128, ("ant", "bee"))
    sngan = SNGAN(SNGANConfig(channels=4, discriminator_channels=4, latent_dim=3), image)
    biggan = BigGAN(BigGANConfig(channels=2, latent_dim=3), image)
    deep = BigGANDeep(BigGANDeepConfig(channels=4, latent_dim=3, attention=0), large)
    return {
        "sngan G": sngan.generator(),
        "sngan D": sngan.discriminator(),
        "biggan G": biggan.generator(),
        "biggan D": biggan.discriminator(),
        "biggan-deep G": deep.generator(),
    }


@pytest.mark.parametrize(
    ("name", "count"), [("sngan G", 3), ("sngan D", 2), ("biggan G", 3), ("biggan D", 2), ("biggan-deep G", 5)]
)
def test_every_convolution_beside_a_change_of_resolution_is_found(name, count):
    network = networks()[name]
    x = torch.randn(3, 3) if name.endswith("G") else torch.randn(3, 3, 32, 32)
    if name.endswith("G"):  # batch norm of a few pixels magnifies rounding
        network, x = network.double(), x.double()
    other = copy.deepcopy(network)
    assert fold_all(other) == count
    labels = torch.tensor([0, 1, 0])
    torch.testing.assert_close(other(x, labels), network(x, labels), rtol=1e-4, atol=1e-5)


def test_bf16_rounds_no_worse_than_the_written_order():
    block = UpBlock(16, 16, DRAW).eval()
    folded = copy.deepcopy(block).train()
    folded.norm1.eval(), folded.norm2.eval()
    fold_all(folded)
    x = torch.randn(4, 16, 8, 8)
    exact = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        worst = [(net(x).float() - exact).abs().max() for net in (block, folded)]
    assert 0 < worst[1] < 2 * worst[0]


def test_evaluation_and_cost_see_the_published_network():
    network = networks()["sngan G"]
    z = torch.randn(2, 3)
    before, expected = profile(network), network.eval()(z)
    assert fold_all(network) == 3
    assert torch.equal(network.eval()(z), expected)
    assert profile(network.train()) == before
    calls = []
    conv = network.blocks[0].conv1
    conv.register_forward_hook(lambda *_: calls.append(1))
    network(z)
    assert not calls, "in training the convolution itself is not called"
    folding.detach(conv)
    network(z)
    assert calls


@pytest.mark.parametrize("kind", ["up", "down"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 2)])
@pytest.mark.parametrize("relu", [False, True])
def test_nine_products_give_what_two_operations_give(kind, size, relu):
    weight, bias = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    got = folding.combined(kind, x, weight, bias, relu=relu)
    torch.testing.assert_close(got, _written(kind, F.relu(x) if relu else x, weight, bias))


def _written(kind, x, weight, bias):
    if kind == "up":
        return F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)


def _masks(rows, columns):
    one = torch.zeros(rows, columns, 3, 3, dtype=torch.bool)
    one[-1, 0, 2, 1] = True
    return {"none": one & False, "one": one, "some": torch.rand(one.shape) < 0.3, "all": one | True}


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
@pytest.mark.parametrize("kind", ["up", "down"])
@pytest.mark.parametrize("kept", ["none", "one", "some", "all"])
@pytest.mark.parametrize("shape", [(16, 6, 8, 4, 6), (3, 5, 7, 6, 4), (32, 3, 2, 2, 2)])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_sparse_layers_agree_with_float64_in_all_gradients(kind, kept, shape, spectral_norm):
    batch, columns, rows, *size = shape
    conv = nn.Conv2d(columns, rows, 3, padding=1)
    mask = _masks(rows, columns)[kept]
    if spectral_norm and kept == "none":
        pytest.skip("the norm of no weights is 0")
    if spectral_norm:
        nn.utils.parametrizations.spectral_norm(conv)
    parameter = conv.parametrizations.weight.original if spectral_norm else conv.weight
    operation = upsampled if kind == "up" else averaged
    how = kernels.attach(conv, mask, sparse="always")
    how.batch_last = how.masked = True
    folding.attach(conv, kind, 0.9999)
    for dense_gradient in (False, True, False):
        with torch.no_grad():  # as the engine keeps it; masks change between steps
            parameter.copy_(torch.where(mask, torch.randn(parameter.shape), 0.0))
        how.pattern, how.dense_gradient = kernels.Pattern(mask), dense_gradient
        exact = copy.deepcopy(conv).double()
        kernels.detach(exact)
        folding.detach(exact)
        x = torch.randn(batch, columns, *size)
        inputs = [x.clone().requires_grad_(), x.double().requires_grad_()]
        for network in (conv, exact):
            network.zero_grad()
        out, want = operation(conv, inputs[0], relu=True), operation(exact, inputs[1], relu=True)
        by = torch.randn_like(want)
        out.backward(by.float())
        want.backward(by)
        assert batch % 16 or is_batch_last(out)
        close = {"rtol": 1e-4, "atol": 1e-4, "check_dtype": False}
        torch.testing.assert_close(out, want, **close)
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **close)
        torch.testing.assert_close(conv.bias.grad, exact.bias.grad, **close)
        theirs = exact.parametrizations.weight.original.grad if spectral_norm else exact.weight.grad
        if dense_gradient or not spectral_norm:  # spectral norm adds a multiple of the whole gradient to every weight
            theirs = theirs if dense_gradient else theirs * mask
            torch.testing.assert_close(parameter.grad, theirs, **close)
        else:
            torch.testing.assert_close(parameter.grad * mask, theirs * mask, **close)
        mask = mask.roll(1, 0) if kept != "some" else torch.rand(mask.shape) < 0.5


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
@pytest.mark.parametrize(("operation", "kind"), [(upsampled, "up"), (averaged, "down")])
def test_sparse_layers_have_gradients_of_gradients(operation, kind):
    conv = nn.Conv2d(3, 4, 3, padding=1)
    mask = _masks(4, 3)["some"]
    found = []
    with torch.no_grad():
        conv.weight.mul_(mask)
    x = torch.randn(16, 3, 4, 4)
    for ours in (True, False):
        if ours:
            kernels.attach(conv, mask, sparse="always")
            folding.attach(conv, kind, 0.9999)
        else:
            kernels.detach(conv)
            folding.detach(conv)
        conv.zero_grad()
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(operation(conv, leaf, relu=True).square().sum(), leaf, create_graph=True)
        first.square().mean().backward()
        found.append((first.detach(), leaf.grad, conv.weight.grad * mask))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
@pytest.mark.parametrize(
    ("density", "sparse", "runs"),
    [(0.1, "auto", "sparse"), (0.5, "auto", "folded"), (0.5, "always", "sparse"), (0.1, "never", "folded")],
)
def test_sparse_kernels_win_below_the_density_that_was_measured(density, sparse, runs, monkeypatch):
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 4, 4)
    mask = torch.arange(conv.weight.numel()).view_as(conv.weight) < density * conv.weight.numel()
    with torch.no_grad():
        conv.weight.mul_(mask)
    expected = upsampled(conv, x)
    monkeypatch.setattr(kernels.tuning, "break_even", lambda *_, **__: 1.0)
    kernels.attach(conv, mask, sparse=sparse)
    folding.attach(conv, "up", 0.3)
    calls = []
    ours = kernels.masked.calls.conv
    monkeypatch.setattr(kernels.masked.calls, "conv", lambda *a, **k: calls.append(1) or ours(*a, **k))
    torch.testing.assert_close(upsampled(conv, x), expected)
    assert bool(calls) == (runs == "sparse")


@pytest.mark.skipif(library() is None or library().pairs is None, reason="no kernels for pairs here")
@pytest.mark.parametrize(("above", "dtype"), [(0.9, torch.float32), (0.6, torch.bfloat16)])
def test_in_bf16_the_density_of_pairs_is_held_against_what_was_measured(above, dtype, monkeypatch):
    """Half of the weights fill three quarters of the pairs."""
    monkeypatch.setenv("GANCOMPRESS_BF16", "shifts")
    conv = nn.Conv2d(32, 32, 3, padding=1)
    mask = torch.rand(conv.weight.shape) < 0.5
    with torch.no_grad():
        conv.weight[~mask] = 0
    kernels.attach(conv, mask, sparse="auto")
    folding.attach(conv, "down", above)
    with torch.autocast("cpu", torch.bfloat16):
        assert folding.compute(conv, torch.randn(16, 32, 8, 8)).dtype == dtype


def test_undecided_layers_run_as_written_and_say_what_they_saw():
    network = networks()["sngan D"]
    expected = copy.deepcopy(network)(torch.ones(2, 3, 32, 32))
    fold_all(network, None)
    assert torch.equal(network(torch.ones(2, 3, 32, 32)), expected)
    seen = [folding.attached(conv).seen for _, conv, _ in folding.resampling(network)]
    assert seen == [(32, 32), (16, 16)]


def test_a_note_is_copied_with_its_network():
    network = networks()["sngan G"]
    fold_all(network)
    twin = copy.deepcopy(network)
    mine, other = (folding.attached(net.blocks[0].conv1) for net in (network, twin))
    assert other is not mine
    assert other.above == 0.0


def test_convolutions_of_another_shape_are_left_alone():
    class Block(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def resampling(self):
            return (("conv", "up"),)

    assert len(list(folding.resampling(Block(nn.Conv2d(4, 4, 3, padding=1))))) == 1
    others = [
        nn.Conv2d(4, 4, 5, padding=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3),
    ]
    assert not [found for conv in others for found in folding.resampling(Block(conv))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_folded_block_compiles():
    block = DownBlock(4, 4, DRAW, hidden_channels=4, down=True, spectral_norm=True)
    fold_all(block)
    twin = copy.deepcopy(block)
    x = torch.randn(2, 4, 8, 8)
    outs = [torch.compile(block)(x), twin(x)]
    torch.testing.assert_close(*outs, rtol=1e-3, atol=1e-4)
    for out in outs:
        out.sum().backward()
    for mine, theirs in zip(block.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
