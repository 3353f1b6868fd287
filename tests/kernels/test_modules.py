from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gancompress import kernels
from gancompress.errors import KernelError


def mask_of(module, density=0.3):
    return torch.rand(module.weight.shape) < density


def masked_copy(module, mask):
    plain = copy.deepcopy(module)
    with torch.no_grad():
        plain.weight.mul_(mask)
    return plain


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(5, 7, 3, stride=2, padding=1), (17, 5, 9, 9)),
        (nn.Conv2d(5, 7, (1, 3), padding=(0, 1)), (4, 5, 9, 9)),
        (nn.Conv2d(6, 6, 3, groups=3), (4, 6, 9, 9)),
        (nn.Conv2d(5, 7, 3, dilation=2), (4, 5, 9, 9)),
        (nn.Conv2d(5, 7, 3, padding=1, padding_mode="reflect"), (4, 5, 9, 9)),
        (nn.Conv2d(5, 7, 3, padding="same"), (4, 5, 9, 9)),
        (nn.Linear(12, 5), (20, 12)),
        (nn.Linear(12, 5, bias=False), (3, 4, 12)),
        (nn.ConvTranspose2d(5, 7, 4, stride=2, padding=1), (17, 5, 4, 4)),
        (nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1, groups=2), (3, 6, 4, 4)),
        (nn.ConvTranspose2d(5, 7, 3, stride=2, padding=1, output_padding=1), (3, 5, 4, 4)),
    ],
    ids=lambda v: str(v)[:60],
)
def test_an_attached_module_computes_with_its_mask(module, shape):
    mask, x = mask_of(module), torch.randn(shape)
    want = masked_copy(module, mask)(x)
    before = set(module.state_dict())
    how = kernels.attach(module, mask)
    torch.testing.assert_close(module(x), want, rtol=1e-5, atol=1e-5)
    assert set(module.state_dict()) == before
    assert kernels.attached(module) is how
    kernels.detach(module)
    assert kernels.attached(module) is None
    torch.testing.assert_close(module(x), type(module).forward(module, x))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Conv2d(5, 7, 3, dilation=2), "dilation"),
        (nn.Conv2d(5, 7, 3, padding=1, padding_mode="circular"), "circular"),
        (nn.Conv2d(5, 7, 3, stride=(1, 2)), "stride"),
        (nn.Embedding(4, 4), "Embedding"),
    ],
    ids=lambda v: str(v)[:60],
)
def test_an_unsupported_layer_says_which_it_is(module, says, caplog):
    caplog.set_level("INFO", logger="gancompress.kernels")
    assert says in kernels.attach(module, mask_of(module)).dense_because
    assert says in caplog.text


def test_output_size_of_a_transposed_convolution():
    module = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1)
    x, mask = torch.randn(2, 3, 5, 5), mask_of(module)
    want = masked_copy(module, mask)(x, output_size=[10, 10])
    kernels.attach(module, mask)
    torch.testing.assert_close(module(x, output_size=[10, 10]), want, rtol=1e-5, atol=1e-5)


def test_spectral_norm_and_a_training_step():
    torch.manual_seed(0)
    net = nn.Sequential(spectral_norm(nn.Conv2d(3, 8, 3, padding=1)), nn.Softplus(), nn.Flatten(), nn.Linear(8 * 36, 1))
    other = copy.deepcopy(net)
    mask = torch.rand(8, 3, 3, 3) < 0.3
    kernels.attach(net[0], mask)  # must not read the weight: that would be a step of the power iteration
    x = torch.randn(5, 3, 6, 6)
    net(x).sum().backward()
    # The same by hand: the normalised weight, masked.
    normalised = other[0].weight
    out = nn.functional.conv2d(x, normalised * mask, other[0].bias, padding=1)
    other[3](torch.nn.functional.softplus(out).flatten(1)).sum().backward()
    mine, theirs = (n[0].parametrizations.weight.original.grad for n in (net, other))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 4, 3, bias=False), lambda: nn.Linear(6, 4, bias=False)])
def test_a_copy_computes_with_its_own_weights(make):
    module = make()
    kernels.attach(module, torch.ones_like(module.weight, dtype=torch.bool))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.weight.zero_()
    x = torch.randn(2, 3, 6, 6)
    assert module(x).abs().sum() > 0
    assert twin(x).abs().sum() == 0
    assert kernels.attached(twin) is not kernels.attached(module)


def test_dense_gradient_is_switched_on_the_attachment():
    module = nn.Conv2d(3, 4, 3)
    mask = mask_of(module)
    how = kernels.attach(module, mask)
    for wanted in (True, False):
        how.dense_gradient = wanted
        module.weight.grad = None
        module(torch.randn(2, 3, 6, 6)).square().sum().backward()
        assert (module.weight.grad[~mask].abs().sum() > 0) == wanted


def test_a_mask_of_the_wrong_shape_is_refused():
    with pytest.raises(KernelError, match="mask has shape"):
        kernels.attach(nn.Conv2d(3, 4, 3), torch.ones(4, 3, 1, 1, dtype=torch.bool))
