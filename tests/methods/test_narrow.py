from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_views import rng, view

from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.experiment.networks import build_architecture, build_backbone, build_networks
from gancompress.experiment.widths import choose_widths
from gancompress.methods.base import Size
from gancompress.methods.dense import Dense, DenseConfig
from gancompress.methods.narrow import Narrow, NarrowConfig, nearest_width
from gancompress.methods.static import Static, StaticConfig
from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.recipe.schema import Recipe

IMAGE = ImageSpec(3, 16, ())


@pytest.mark.parametrize(
    ("full", "multiple", "target", "expected"),
    [
        (64, 1, 410, 20),  # 400 is nearer than 441
        (64, 1, 421, 21),
        (64, 8, 410, 16),  # 256 is nearer than 576
        (64, 8, 420, 24),
        (64, 1, 64**2, 64),
        (64, 1, 10**9, 64),
        (64, 8, 1, 8),
        (4, 8, 1, 8),
        (10, 4, 10**9, 8),
    ],
)
def test_nearest_width_by_hand(full: int, multiple: int, target: int, expected: int) -> None:
    assert nearest_width(full, multiple, target, lambda width: width**2) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 16), st.integers(0, 10**6), st.integers(0, 2000), st.integers(1, 3))
def test_nearest_width_is_the_nearest(full: int, multiple: int, target: int, linear: int, power: int) -> None:
    calls: list[int] = []

    def measure(width: int) -> int:
        calls.append(width)
        return width**power + linear * width + 7

    found = nearest_width(full, multiple, target, measure)
    every = range(multiple, max(full, multiple) + 1, multiple)
    assert found in every
    assert abs(measure(found) - target) == min(abs(measure(width) - target) for width in every)


def test_few_networks_are_built_to_find_a_width() -> None:
    calls: list[int] = []

    def measure(width: int) -> int:
        calls.append(width)
        return 11 * width**2 + 4000 * width + 900

    nearest_width(1024, 1, 1_500_000, measure)
    assert len(set(calls)) <= 8


def narrow_recipe(tmp_path: Path, model: str = "{name: dcgan, channels: 32, latent_dim: 8}", **method: Any) -> Recipe:
    path = tmp_path / "narrow.yaml"
    path.write_text(
        f"name: narrow\ndata: {{name: shapes, resolution: 16, images: 16}}\nmodel: {model}\n"
        "sparsity:\n  method: narrow\n  generator: {density: 0.1}\n  discriminator: {density: 0.5}\n"
        "training: {steps: 1}\n"
    )
    return load_recipe(path, overrides=tuple(f"sparsity.method.{k}={v}" for k, v in method.items())).recipe


def test_each_dcgan_gets_the_width_of_its_density(tmp_path: Path) -> None:
    chosen = build_architecture(narrow_recipe(tmp_path), IMAGE).widths

    def generator(c: int) -> int:  # linear to 2c maps of 4x4, their norm, 2c -> c, its norm, c -> 3 with a bias
        return 8 * 2 * c * 16 + 2 * 2 * c + 2 * c * c * 16 + 2 * c + 3 * c * 16 + 3

    def sparse(c: int) -> int:  # only the convolutions are masked
        convolutions = 2 * c * c * 16 + 3 * c * 16
        return generator(c) - convolutions + round(0.1 * convolutions)

    found = chosen["generator"]
    assert (found["field"], found["full"]) == ("channels", 32)
    assert found["full_size"]["parameters"] == generator(32)
    assert found["target"]["parameters"] == sparse(32)
    best = min(range(1, 33), key=lambda c: abs(generator(c) - sparse(32)))
    assert found["chosen"] == best
    assert found["parameter_ratio"] == generator(best) / sparse(32)
    assert 0.9 < found["parameter_ratio"] < 1.1
    assert found["chosen"] < chosen["discriminator"]["chosen"] < 32


def test_the_networks_are_built_that_narrow(tmp_path: Path) -> None:
    recipe = narrow_recipe(tmp_path)
    chosen = build_architecture(recipe, IMAGE).widths
    networks = build_networks(build_backbone(recipe, IMAGE), recipe.seed)
    for role, width in chosen.items():
        assert sum(p.numel() for p in networks.of(role).parameters()) == width["size"]["parameters"]


def test_macs_can_be_matched_instead(tmp_path: Path) -> None:
    chosen = build_architecture(narrow_recipe(tmp_path, match="macs"), IMAGE).widths
    assert all(0.85 < width["macs_ratio"] < 1.15 for width in chosen.values())
    assert (
        chosen["generator"]["chosen"]
        != build_architecture(narrow_recipe(tmp_path), IMAGE).widths["generator"]["chosen"]
    )


def test_density_one_is_the_recipes_width(tmp_path: Path) -> None:
    recipe = narrow_recipe(tmp_path)
    whole = recipe.sparsity.model_copy(
        update={
            r: recipe.sparsity.generator.model_copy(update={"density": 1.0}) for r in ("generator", "discriminator")
        }
    )
    chosen = build_architecture(recipe.model_copy(update={"sparsity": whole}), IMAGE).widths
    assert [(width["chosen"], width["parameter_ratio"], width["macs_ratio"]) for width in chosen.values()] == [
        (32, 1, 1)
    ] * 2


def test_sngan_keeps_widths_that_can_be_split(tmp_path: Path) -> None:
    recipe = narrow_recipe(tmp_path, "{name: sngan, channels: 32, discriminator_channels: 32}")
    chosen = build_architecture(recipe, ImageSpec(3, 48, ())).widths
    assert chosen["generator"]["chosen"] % 8 == 0
    assert chosen["discriminator"]["chosen"] % 16 == 0
    build_backbone(recipe, ImageSpec(3, 48, ()))


def test_other_methods_leave_widths_alone(tmp_path: Path) -> None:
    backbone = build_backbone(narrow_recipe(tmp_path), IMAGE)
    for method in (Dense(DenseConfig()), Static(StaticConfig())):
        assert choose_widths(method, backbone, lambda networks: {}) == {}


def test_a_backbone_without_widths_is_refused(tmp_path: Path) -> None:
    backbone = build_backbone(narrow_recipe(tmp_path), IMAGE)

    class Rigid(type(backbone)):  # type: ignore[misc]
        widths: ClassVar[dict[str, Any]] = {}

    with pytest.raises(BackboneError, match="Rigid does not say how its networks are made narrower"):
        choose_widths(Narrow(NarrowConfig()), Rigid(backbone.config, IMAGE), lambda networks: {})


def test_the_method_itself_trains_densely() -> None:
    method = Narrow(NarrowConfig())
    assert method.init(view(), view().budget, rng()).density == 1
    assert not any(method.plan("generator", step, 100) for step in range(101))
    sizes = {width: Size(width**2, width**3) for width in range(65)}
    assert method.width(64, 1, Size(400, 8), sizes.__getitem__) == 20
    assert Narrow(NarrowConfig(match="macs")).width(64, 1, Size(400, 8), sizes.__getitem__) == 2
