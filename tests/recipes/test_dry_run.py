"""Every row that ships can be run: it validates, its networks build, its budgets and rounds work out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest
import torch
from recipe_rows import RECIPES, ROWS, loaded

from gancompress.components.registry import DATASETS
from gancompress.data.base import ImageSpec
from gancompress.experiment.assemble import build_loss
from gancompress.experiment.budgets import ROLES, build_budgets, build_method, masked_weights
from gancompress.experiment.networks import Networks, build_backbone, build_networks
from gancompress.methods.base import Plan
from gancompress.recipe.identity import resolved_yaml, run_id
from gancompress.recipe.load import component_config, load_recipe, parse_recipe

if TYPE_CHECKING:
    from gancompress.recipe.schema import Recipe

#: what the images of recipes with files of their own are
FILES = {
    "cifar10_train.zip": ImageSpec(3, 32, tuple(map(str, range(10)))),
    "faces64.zip": ImageSpec(3, 64),
    "ffhq64.zip": ImageSpec(3, 64),
    "shots256.zip": ImageSpec(3, 256),
    "church256.zip": ImageSpec(3, 256),
}


def image_of(recipe: Recipe) -> ImageSpec:
    path = getattr(recipe.data, "path", "")
    if path in FILES:
        return FILES[path]
    kind, config = DATASETS.get(recipe.data.name), component_config(recipe.data)
    found = kind.expected(config)
    return found if found is not None else kind(config).spec


@functools.lru_cache(maxsize=2)
def _networks(models: str, image: ImageSpec, address: str) -> Networks:
    recipe = loaded(address).recipe
    assert _models(recipe) == models
    with torch.device("meta"):
        return build_networks(build_backbone(recipe, image), 0)


def _models(recipe: Recipe) -> str:
    return recipe.model_dump_json(include={"model", "discriminator"})


_BUILT: dict[tuple[str, ImageSpec], str] = {}


def networks_of(recipe: Recipe, address: str) -> Networks:
    """Build each pair of networks once, without memory: hundreds of rows share a handful of them."""
    key = (_models(recipe), image_of(recipe))
    return _networks(*key, _BUILT.setdefault(key, address))


@pytest.mark.parametrize("address", ROWS)
def test_dry_run(address: str) -> None:
    recipe = loaded(address).recipe
    assert recipe.description, "gancompress ls has nothing to say about it"
    assert not recipe.changed
    networks = networks_of(recipe, address)
    weights = {role: masked_weights(networks.of(role), recipe.sparsity) for role in ROLES}
    budgets = build_budgets(recipe, weights)
    method, training = build_method(recipe), recipe.training
    build_loss(recipe)
    asked = {role: budgets[role].density for role in ROLES}
    for role in ROLES:
        assert all(budgets[role].counts.values()), f"a layer of the {role} is left without weights"
        assert budgets[role].exact_density == pytest.approx(asked[role], abs=1e-3)
    rounds = method.rounds(training.steps, asked)
    assert all(current.steps >= 1 for current in rounds)
    if getattr(recipe.sparsity.method, "every", None) is not None:
        updates = [
            step
            for role in ROLES
            for step in range(0, rounds[0].steps + 1, 50)
            if step and Plan.UPDATE in method.plan(role, step, rounds[0].steps)
        ]
        assert len(updates) >= 2


@pytest.mark.parametrize("name", RECIPES)
def test_no_two_rows_of_a_recipe_are_the_same_run(name: str) -> None:
    rows = [row for row in ROWS if row.partition("@")[0] == name]
    assert len({run_id(loaded(row).recipe) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", RECIPES)
def test_a_resolved_row_stands_alone(name: str) -> None:
    variants = loaded(name).variants
    for row in ("", *variants[:1], *variants[-1:]):
        recipe = loaded(f"{name}@{row}" if row else name).recipe
        again = parse_recipe(resolved_yaml(recipe)).recipe
        assert (again, run_id(again)) == (recipe, run_id(recipe))


# --------------------------------------------------------------------------- what the grids are


def test_the_headline_is_what_was_published() -> None:
    recipe = loaded("stgan_biggan").recipe
    sparsity, training = recipe.sparsity, recipe.training
    assert recipe.model.model_dump(exclude_unset=True) == {
        "name": "biggan",
        "channels": 64,
        "latent_dim": 128,
        "conditional": True,
        "init": "normal",
    }
    assert (sparsity.generator.density, sparsity.discriminator.density) == (0.2, 0.3)
    config = component_config(sparsity.method)
    assert (sparsity.method.name, config.every, config.explore, config.growth_of("generator")) == (  # type: ignore[attr-defined]
        "stu-gan",
        500,
        "generator",
        "gradient",
    )
    assert (training.steps, training.batch_size, training.discriminator_steps) == (125_000, 50, 4)
    assert (training.ema.decay, training.ema.start, training.ema.sparse) == (0.9999, 1000, True)
    assert recipe.objective.orthogonal.weight == 0  # --G_ortho 0.0


@pytest.mark.parametrize(("address", "final"), [("r3gan_cifar10", 0.55), ("r3gan_ffhq64", 0.3)])
def test_r3gan_augments_as_published_and_as_it_was_measured(address: str, final: float) -> None:
    objective = loaded(address).recipe.objective
    assert objective.ada is not None
    assert (objective.ada.target, objective.ada.probability, objective.ada.final) == (None, 0, final)
    assert objective.diffaugment == ()
    former = ("objective.ada=null", "objective.diffaugment=[color,translation,cutout]")
    recipe = load_recipe(address, former).recipe
    # the ids of what docs/results.md measured
    assert run_id(recipe) == {0.55: "0898902d0b", 0.3: "65902c8831"}[final]


def test_the_grids_are_whole() -> None:
    rows = {name: loaded(name).variants for name in RECIPES}
    kinds = ("static-balanced", "set-balanced", "rigl-balanced", "relaxed-adapt", "strict-adapt")
    for name in ("sngan_cifar10", "sngan_stl10", "biggan_cifar10", "biggan_tiny_imagenet"):
        variants = rows[f"adapt_{name}"]
        assert len(variants) == 44
        assert {f"{kind}-d{density}" for kind in kinds for density in (0.1, 0.2, 0.3, 0.5)} <= set(variants)
    assert {f"dst-g{density}" for density in (0.05, 0.1, 0.2, 0.3, 0.5)} <= set(rows["stugan_biggan"])
    assert {"gmp-g0.1", "snip-g0.1", "pf-balanced-d0.1", "interval-random-500"} <= set(rows["stugan_biggan"])
    assert {"ticket-0.3277", "both-distilled-0.3277"} <= set(rows["lottery_sngan"])


@pytest.mark.parametrize(
    ("address", "figures"),
    [
        ("stgan_biggan", ["FID below 8.79"]),
        ("stugan_biggan", ["FID 8.79 ± 0.37"]),
        ("stugan_biggan@static-balanced-d0.1", ["FID 14.26 ± 0.87", "IS 8.352"]),
        ("stugan_biggan@split-static-g0.06", ["FID 16.44"]),
        ("stugan_biggan@split-gradient-g0.06", ["FID 10.94"]),
        ("stugan_biggan@split-explore-generator-g0.06", ["FID 11.73"]),
        ("stugan_biggan@split-explore-discriminator-g0.06", ["FID 18.72"]),
        ("stugan_biggan@interval-random-10000", ["FID 12.1"]),
        ("stugan_biggan@interval-gradient-50000", ["FID 17.07"]),
        ("stugan_biggan@pf-balanced-d0.05", ["FID 10.49"]),
        ("stugan_biggan@gmp-g0.05", []),
        ("stugan_sngan", ["FID 13.33", "IS 8.27"]),
        ("stugan_sngan@static-balanced-d0.05", ["FID 36.2"]),
        ("stugan_sngan@static-g0.05", ["FID 25.44", "IS 7.58"]),
        ("stugan_sngan@dst-g0.05", ["FID 20.83", "IS 7.75"]),
        ("lottery_sngan@ticket-0.3277", ["FID 15.6"]),
        ("adapt_sngan_cifar10@static-balanced-d0.5", ["FID 12.24", "FID 12.58"]),
        ("adapt_sngan_cifar10@relaxed-adapt-d0.5", ["FID 10.6"]),
        ("adapt_sngan_stl10@strict-rigl-strong-d0.1", ["FID 53.74"]),
        ("adapt_biggan_cifar10@strict-rigl-strong-d0.1", ["FID 10.11"]),
        ("adapt_biggan_cifar10@relaxed-static-strong-d0.1", ["FID 23.48"]),
        ("adapt_biggan_tiny_imagenet@strict-adapt-d0.3", ["FID 16.93"]),
        ("r3gan_cifar10", ["FID 1.96"]),
        ("r3gan_ffhq64", ["FID 1.95"]),
        ("stylegan2_cifar10", ["FID 2.42", "IS 10.14"]),
        ("projected_church256", ["FID 1.59"]),
    ],
)
def test_a_row_carries_its_own_figure(address: str, figures: list[str]) -> None:
    published = loaded(address).recipe.published
    assert [f"{one.metric} {one.text}" for one in published] == figures
    assert all(one.source for one in published)
