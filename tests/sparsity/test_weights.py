"""Where weights live below torch's normalisations, hooks and masks, and whether zeros stay 0 there."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from gancompress.architecture.resize import resize
from gancompress.backbones.base import prunable_weights
from gancompress.errors import BackboneError
from gancompress.objectives.regularisers import filter_matrices
from gancompress.sparsity.weights import duplicate, masked_parameter, steady, write_out

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS: list[tuple[Callable[[], Any], tuple[int, ...]]] = [
    (lambda: nn.Linear(6, 5), (3, 6)),
    (lambda: nn.Conv1d(4, 5, 3, padding=1), (3, 4, 7)),
    (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), (3, 4, 7, 5)),
    (lambda: nn.Conv3d(2, 5, (1, 2, 3)), (3, 2, 3, 4, 5)),
    (lambda: nn.ConvTranspose1d(4, 5, 4, stride=2), (3, 4, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (3, 4, 3, 5)),
    (lambda: nn.ConvTranspose3d(2, 5, 2), (3, 2, 2, 3, 4)),
    (lambda: nn.Conv2d(1, 5, 1), (3, 1, 4, 4)),  # gain and direction of a weight norm have the same shape
]
IDS = ["linear", "conv1d", "conv2d", "conv3d", "transposed1d", "transposed2d", "transposed3d", "one channel"]


class _Parametrisation(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, weight: Tensor) -> Tensor:
        return self.function(weight)


class _Scaled(_Parametrisation):
    """A learned size of every output, as equalised learning rates are written."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(lambda weight: weight)
        self.size = nn.Parameter(torch.rand(weight.shape[0], *[1] * (weight.dim() - 1)) + 0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.size * 1.7


def scale_hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    layer.weight = layer.weight_orig * 1.7 * inputs[0].new_ones(())


def centre_hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    layer.weight = layer.weight_orig - layer.weight_orig.mean()


def settle_hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    layer.weight.data.sub_(layer.weight.data.mean())


def computed(layer: Any, hook: Callable[..., None]) -> Any:
    """A layer whose weight a hook computes, the way it was done before torch had parametrisations."""
    weight = layer.weight
    del layer._parameters["weight"]
    layer.register_parameter("weight_orig", weight)
    layer.weight = weight.data
    layer.register_forward_pre_hook(hook)
    return layer


def hooked(name: str) -> Callable[[Any], Any]:
    def apply(layer: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return getattr(nn.utils, name)(layer)

    return apply


def parametrised(*made: Callable[[Tensor], nn.Module]) -> Callable[[Any], Any]:
    def apply(layer: Any) -> Any:
        for one in made:
            parametrize.register_parametrization(layer, "weight", one(layer.weight.detach()), unsafe=True)
        return layer

    return apply


FORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "plain": (lambda layer: layer, "weight"),
    "spectral hook": (hooked("spectral_norm"), "weight_orig"),
    "spectral": (parametrizations.spectral_norm, "parametrizations.weight.original"),
    "weight norm hook": (hooked("weight_norm"), "weight_v"),
    "weight norm": (parametrizations.weight_norm, "parametrizations.weight.original1"),
    "scaled": (parametrised(_Scaled), "parametrizations.weight.original"),
    "scaled spectral": (
        lambda layer: parametrised(_Scaled)(parametrizations.spectral_norm(layer)), "parametrizations.weight.original"
    ),
    "hook of someone": (lambda layer: computed(layer, scale_hook), "weight_orig"),
    "parametrised bias": (
        lambda layer: parametrize.register_parametrization(layer, "bias", _Parametrisation(torch.tanh)), "weight"
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=IDS)
def test_zeros_of_the_parameter_are_zeros_of_the_weight(
    form: str, make: Callable[[], Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    apply, key = FORMS[form]
    layer = steady(apply(make()))
    (found,) = prunable_weights(layer).values()
    assert (found.name, found.key) == ("weight", key)
    assert dict(layer.named_parameters())[key] is found.parameter
    assert found.layer.bias == (None if form == "parametrised bias" else "bias")
    (matrix,) = filter_matrices(layer)
    assert matrix.untyped_storage().data_ptr() == found.parameter.untyped_storage().data_ptr()
    mask = torch.rand(found.parameter.shape) < 0.6
    with torch.no_grad():
        found.parameter.mul_(mask)
    x = torch.randn(shape)
    layer.train()
    layer(x).square().mean().backward()  # what hooks keep from here on has a history
    with torch.no_grad():
        found.parameter.sub_(0.1 * mask * found.parameter.grad)
    layer.eval()
    want = layer(x)
    assert torch.equal(layer.weight != 0, mask)
    twin = duplicate(layer)
    assert torch.equal(twin(x), want)
    plain = write_out(twin)
    assert set(plain.state_dict()) == {"weight", "bias"}
    assert type(plain.weight) is nn.Parameter
    assert torch.equal(plain.weight != 0, mask)
    torch.testing.assert_close(plain(x), want, rtol=0, atol=1e-6)
    assert set(layer.state_dict()) >= {key}, "the original is left as it is"
    torch.testing.assert_close(layer(x), want, rtol=0, atol=0)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "orthogonal": (parametrizations.orthogonal, "parametrization Orthogonal"),
    "householder": (
        lambda layer: parametrizations.orthogonal(layer, orthogonal_map="householder"), "parametrization Orthogonal"
    ),
    "softplus": (parametrised(lambda _: _Parametrisation(F.softplus)), "parametrization _?Parametrisation"),
    "centred": (
        parametrised(lambda _: _Parametrisation(lambda weight: weight - weight.mean())), "parametrization _?Param"
    ),
    "spectral, then shifted": (
        lambda layer: parametrised(lambda _: _Parametrisation(lambda weight: weight + 1))(
            parametrizations.spectral_norm(layer)
        ),
        "SpectralNorm and the parametrization",
    ),
    "turned": (
        parametrised(lambda _: _Parametrisation(lambda weight: weight.transpose(0, 1))), "gives a weight of shape"
    ),
    "broken": (parametrised(lambda _: _Parametrisation(lambda weight: weight.nothing)), "cannot be tried"),
    "hook that centres": (lambda layer: computed(layer, centre_hook), "forward pre-hook centre_hook"),
    "hook in place": (lambda layer: (layer.register_forward_pre_hook(settle_hook), layer)[1], "settle_hook"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 5), lambda: nn.Conv2d(4, 5, 3)], ids=["linear", "conv"])
def test_what_brings_masked_weights_back_is_refused_in_words(form: str, make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    apply, why = REFUSED[form]
    layer = make()
    if form == "broken":
        parametrize.register_parametrization(layer, "weight", _Parametrisation(torch.tanh))
        layer.parametrizations.weight[0].function = lambda weight: weight.nothing
    else:
        layer = apply(layer)
    network = nn.Sequential(nn.ReLU(), nn.Sequential(layer))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(BackboneError, match=why) as refused:
        prunable_weights(network)
    assert "layer 1.0" in str(refused.value)
    assert "prunable = False" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    layer.prunable = False
    assert prunable_weights(network) == {}


class Equalised(nn.Conv2d):
    """Scales in its forward, as equalised learning rates do, behind another change of the map."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(F.interpolate(x, scale_factor=2.0), self.weight * 0.3, self.bias)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Centred(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.conv_transpose2d(x, self.weight - self.weight.mean(), self.bias)


class Modulated(nn.Linear):
    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x * style, self.weight - 1)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_forward_that_computes_with_masked_weights_is_refused(groups: int) -> None:
    good = Equalised(4, 6, 3, groups=groups)
    before = good.weight.clone()
    assert prunable_weights(good)["weight"].parameter is good.weight
    assert torch.equal(good.weight, before)
    for bad in (
        Standardised(4, 6, 3, groups=groups),
        parametrizations.spectral_norm(Standardised(4, 6, 3)),
        Centred(4, 6, 3),
    ):
        with pytest.raises(BackboneError, match=r"layer 0: .*forward computes with weights that are masked"):
            prunable_weights(nn.Sequential(bad))
    other = Modulated(3, 4)  # takes what nobody here knows
    assert prunable_weights(other)["weight"].parameter is other.weight


def test_masks_of_torch_are_refused_with_the_way_out_and_can_be_written_out() -> None:
    layer = nn.Conv2d(3, 4, 3)
    prune.random_unstructured(layer, "weight", 0.5)
    prune.l1_unstructured(layer, "weight", 0.5)  # two make a container
    with pytest.raises(BackboneError, match=r"layer 0 has a mask of torch\.nn\.utils\.prune.*prune\.remove"):
        prunable_weights(nn.Sequential(layer))
    want = layer.weight.detach().clone()
    assert int((want == 0).sum()) == 81
    assert torch.equal(write_out(duplicate(layer)).weight, want)
    prune.remove(layer, "weight")
    assert prunable_weights(layer)["weight"].parameter is layer.weight
    prune.random_unstructured(layer, "bias", 0.5)
    assert prunable_weights(layer)["weight"].parameter is layer.weight, "a mask of the bias is another matter"


def test_two_parameters_below_a_weight_that_fit_no_shape_are_refused() -> None:
    class Product(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left @ right

        def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
            return torch.randn(5, 2), torch.randn(2, 6)

    layer = nn.Linear(6, 5)
    parametrize.register_parametrization(layer, "weight", Product())
    with pytest.raises(BackboneError, match="no parameter of its weight's shape to hold a mask, because of the param"):
        prunable_weights(layer)


def test_a_lazy_layer_is_refused_until_it_has_a_weight() -> None:
    layer = nn.LazyLinear(4)
    with pytest.raises(BackboneError, match="run the network once"):
        prunable_weights(layer)
    layer(torch.zeros(1, 3))
    assert prunable_weights(layer)["weight"].layer.shape == (4, 3)


def test_a_hook_that_looks_at_inputs_only_is_no_matter() -> None:
    layer = nn.Linear(6, 5)
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0].reshape(7, 7),))  # fails on other inputs
    assert prunable_weights(layer)["weight"].parameter is layer.weight


def test_nothing_is_tried_on_tensors_without_values() -> None:
    with torch.device("meta"):
        layer = parametrised(lambda _: _Parametrisation(F.softplus))(nn.Linear(6, 5))
    assert masked_parameter(layer, "one").is_meta


@pytest.mark.parametrize("form", ["weight norm", "weight norm hook"])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_a_weight_norm_survives_an_empty_filter_and_has_the_bits_of_torch_elsewhere(form: str, dim: int | None) -> None:
    def make() -> Any:
        torch.manual_seed(0)
        layer = nn.Linear(6, 5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return (nn.utils.weight_norm if "hook" in form else parametrizations.weight_norm)(layer, dim=dim)

    theirs, ours = make(), copy.deepcopy(steady(duplicate(make())))
    x = torch.randn(3, 6)
    for layer in (theirs, ours):
        layer(x).square().sum().backward()
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)
    assert torch.equal(theirs(x), ours(x))
    direction = prunable_weights(ours)["weight"].parameter
    gains = [p for name, p in ours.named_parameters() if name.endswith(("original0", "_g"))]
    place: Any = (slice(None) if dim is None else 2,) if dim != 1 else (slice(None), 2)
    with torch.no_grad():
        direction[place] = 0
    ours.zero_grad()
    ours(x).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in ours.parameters())
    assert torch.equal(ours.weight[place], torch.zeros_like(ours.weight[place]))
    assert bool((direction.grad[place] != 0).all()), "an empty filter can grow again"
    assert float(direction.grad[place].abs().max()) < 1e3 * float(gains[0].detach().abs().max())


@pytest.mark.parametrize("form", ["spectral hook", "spectral", "weight norm hook", "weight norm"])
def test_normalised_layers_can_be_cut(form: str) -> None:
    torch.manual_seed(0)
    apply, _ = FORMS[form]
    wide, narrow = (nn.Sequential(apply(nn.Conv2d(4, width, 3)), apply(nn.Linear(width, 2))) for width in (6, 5))
    resize(wide, {name: tuple(tensor.shape) for name, tensor in narrow.state_dict().items()})
    assert (wide[0].out_channels, wide[1].in_features) == (5, 5)
    wide.load_state_dict(narrow.state_dict())
    x = torch.randn(2, 4, 3, 3)
    for network in (wide, narrow):
        network.eval()
    torch.testing.assert_close(wide[1](wide[0](x).flatten(1)), narrow[1](narrow[0](x).flatten(1)), rtol=0, atol=0)
    assert [weight.layer.shape for weight in prunable_weights(wide).values()] == [(5, 4, 3, 3), (2, 5)]
