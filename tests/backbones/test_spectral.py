"""Vectors of a weight that was not trained as it is: layers whose true norm is known because it was built in."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

from gancompress.backbones.spectral import norm_vectors, settle

if TYPE_CHECKING:
    from collections.abc import Callable

STYLES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parametrization": parametrizations.spectral_norm,
    "hook": spectral_norm,
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "wide": lambda: nn.Linear(12, 5),
    "tall": lambda: nn.Linear(5, 12),
    "convolution": lambda: nn.Conv2d(4, 8, 3),
    "pointwise": lambda: nn.Conv1d(3, 3, 1),
    "transposed": lambda: nn.ConvTranspose2d(4, 8, 3),
    "embedding": lambda: nn.Embedding(7, 3),
}


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Callable[[nn.Module], nn.Module]:
    return STYLES[request.param]


def raw(layer: nn.Module) -> Tensor:
    """Return the weight before it is divided, (rows, columns) first, as a view of the parameter."""
    (weight,) = (p.detach() for name, p in layer.named_parameters() if name.endswith(("original", "weight_orig")))
    return weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight


def put(layer: nn.Module, singular: list[float]) -> None:
    """Give the raw weight random singular vectors and the singular values that are asked for."""
    weight = raw(layer)
    rows, columns = weight.shape[0], weight[0].numel()
    rng = torch.Generator().manual_seed(7)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=rng, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=rng, dtype=torch.float64))
    values = torch.tensor(singular, dtype=torch.float64)
    weight.copy_((left[:, : len(values)] * values @ right[:, : len(values)].T).reshape(weight.shape))


def norm(layer: nn.Module) -> float:
    """Return the true norm of the weight that the layer computes with, in eval mode."""
    ((matrix, u, v),) = norm_vectors(layer)
    return float(torch.linalg.matrix_norm(matrix.double() / torch.dot(u, matrix @ v), 2))


def computed(layer: nn.Module) -> Tensor:
    """Return the normalised weight; a hook computes it when the layer is called."""
    layer.eval()
    for hook in layer._forward_pre_hooks.values():
        hook(layer, None)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("singular", [[3.0, 1.0, 0.5], [3.0, 2.9999, 2.9998], [3.0, 3.0, 3.0], [3e-12, 1e-12]])
def test_the_norm_is_one_whatever_the_vectors_were(
    style: Callable[[nn.Module], nn.Module], kind: str, singular: list[float]
) -> None:
    layer = style(LAYERS[kind]())
    put(layer, singular)
    assert norm(layer) > 1.001 or singular[1] > 2.9
    assert settle(layer)
    assert norm(layer) == pytest.approx(1, abs=1e-6)
    weight = computed(layer).transpose(0, 1) if kind == "transposed" else computed(layer)
    torch.testing.assert_close(weight, raw(layer) / singular[0])


def test_vectors_at_right_angles_to_the_answer_which_no_iteration_would_leave(
    style: Callable[[nn.Module], nn.Module],
) -> None:
    layer = style(nn.Linear(2, 2, bias=False))
    ((_, u, v),) = norm_vectors(layer)
    raw(layer).copy_(torch.diag(torch.tensor([1.0, 4.0])))
    for vector in (u, v):
        vector.copy_(torch.tensor([1.0, 0.0]))
    assert computed(layer).tolist() == [[1, 0], [0, 4]]  # four times too large
    settle(layer)
    assert computed(layer).tolist() == [[0.25, 0], [0, 1]]


def test_again_gives_the_same_and_nothing_is_drawn(style: Callable[[nn.Module], nn.Module]) -> None:
    layer = style(nn.Conv2d(6, 6, 3))
    put(layer, [2.0, 1.99, 1.0])
    modes, random = layer.training, torch.random.get_rng_state()
    settle(layer)
    once = copy.deepcopy(norm_vectors(layer))
    settle(layer)
    for one, other in zip(once[0], norm_vectors(layer)[0], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(random, torch.random.get_rng_state())
    assert layer.training is modes


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_weight_without_a_norm_keeps_its_vectors(style: Callable[[nn.Module], nn.Module], value: float) -> None:
    layer = style(nn.Linear(4, 3))
    before = [vector.clone() for vector in norm_vectors(layer)[0][1:]]
    raw(layer).fill_(value)
    settle(layer)
    assert all(torch.equal(a, b) for a, b in zip(before, norm_vectors(layer)[0][1:], strict=True))


def test_a_weight_that_is_masked_but_for_one(style: Callable[[nn.Module], nn.Module]) -> None:
    layer = style(nn.Conv2d(4, 3, 3))
    ((_, u, v),) = norm_vectors(layer)
    raw(layer).zero_()
    raw(layer)[1, 2, 0, 2] = -0.5
    for vector in (u, v):
        vector.zero_()  # as iterations leave them while nothing is kept
    settle(layer)
    assert norm(layer) == pytest.approx(1, abs=1e-6)
    assert computed(layer).count_nonzero() == 1


def test_networks_without_such_layers_have_none() -> None:
    network = nn.Sequential(nn.Linear(3, 3), parametrizations.spectral_norm(nn.LayerNorm(3)))
    assert not settle(network)  # of a vector the norm is computed as it is, without vectors beside it
