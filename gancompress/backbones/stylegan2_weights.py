"""Published weights of StyleGAN2 under the names of this package.

The names are those of the state of a generator (``G_ema``) of stylegan2-ada-pytorch, as ``.safetensors``. Pickles are
not opened: docs/networks.md has the lines that convert one where the published code is installed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gancompress.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = ["from_published", "is_published", "published_names"]

_STORED = "parametrizations.{}.original"


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether a state has the published names."""
    return "synthesis.b4.const" in state


def published_names(resolution: int, layers: int, conditional: bool) -> dict[str, str]:
    """Return the published name of every tensor of a generator, by its name here.

    Args:
        resolution: of the images.
        layers: of the mapping.
        conditional: whether there are classes.
    """
    names = {"start": "synthesis.b4.const", "average": "mapping.w_avg"}
    if conditional:
        names |= {"mapping.embedding.weight": "mapping.embed.weight", "mapping.shift": "mapping.embed.bias"}
    for index in range(layers):
        for leaf in ("weight", "bias"):
            names[f"mapping.layers.{index}.{_STORED.format(leaf)}"] = f"mapping.fc{index}.{leaf}"
    places = {"first": "b4.conv1", "colours.0": "b4.torgb"}
    for index in range((resolution // 4).bit_length() - 1):
        block = f"b{8 << index}"
        places |= {f"ups.{index}": f"{block}.conv0", f"convs.{index}": f"{block}.conv1"}
        places[f"colours.{index + 1}"] = f"{block}.torgb"
    for own, place in places.items():
        other = f"synthesis.{place}"
        names[f"{own}.style.{_STORED.format('weight')}"] = f"{other}.affine.weight"
        names[f"{own}.style.bias"] = f"{other}.affine.bias"
        names[f"{own}.conv.weight"] = f"{other}.weight"
        if own.startswith("colours"):
            names[f"{own}.conv.bias"] = f"{other}.bias"
        else:
            names |= {
                f"{own}.bias": f"{other}.bias",
                f"{own}.strength": f"{other}.noise_strength",
                f"{own}.noise": f"{other}.noise_const",
            }
    return names


def from_published(
    state: Mapping[str, Tensor], *, resolution: int, layers: int, conditional: bool, where: str = ""
) -> dict[str, Tensor]:
    """Return a generator's state under the names of this package.

    Args:
        state: under the published names; filters, which are constants here, are left out.
        resolution: of the images that the network makes.
        layers: of its mapping.
        conditional: whether it has classes.
        where: what to call the weights in errors.

    Raises:
        BackboneError: the weights are of another resolution, mapping or conditioning.
    """
    sizes = [int(found[1]) for name in state if (found := re.match(r"synthesis\.b(\d+)\.", name))]
    if max(sizes) != resolution:
        raise BackboneError(
            f"these weights make images of {max(sizes)} pixels, the recipe's have {resolution}: "
            f"--set data.resolution={max(sizes)}",
            where=where,
        )
    mapped = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in state)
    if mapped != layers:
        raise BackboneError(
            f"these weights have {mapped} layers of mapping, the recipe's model {layers}: "
            f"--set model.mapping_layers={mapped}",
            where=where,
        )
    if ("mapping.embed.weight" in state) != conditional:
        word = "no " if conditional else ""
        raise BackboneError(
            f"these weights have {word}classes: --set model.conditional={str(not conditional).lower()}", where=where
        )
    names = published_names(resolution, layers, conditional)
    known = {*names.values()}
    unknown = sorted(name for name in state if name not in known and not name.endswith("resample_filter"))
    missing = sorted(known - state.keys())
    if unknown or missing:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise BackboneError(f"these are not the weights of a published StyleGAN2 generator: {what}", where=where)
    return {own: _turned(own)(state[name]).clone() for own, name in names.items()}


def _turned(name: str) -> Callable[[Tensor], Tensor]:
    """Return what brings a published tensor into the shape that it has here."""
    if name == "mapping.embedding.weight" or (name.startswith("ups.") and name.endswith("conv.weight")):
        return lambda tensor: tensor.transpose(0, 1).contiguous()
    return lambda tensor: tensor
