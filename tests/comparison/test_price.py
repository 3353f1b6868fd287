"""What a run will cost is told before it starts, and is what the run then counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gancompress.comparison.price import price
from gancompress.cost.profile import profile
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.networks import build_backbone, build_networks
from gancompress.experiment.run import Experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gancompress.comparison.price import Price
    from gancompress.recipe.load import LoadedRecipe


def priced(loaded: LoadedRecipe) -> Price:
    return price(loaded.recipe, build_dataset(loaded.recipe).spec)


def test_a_dense_run_by_hand(tiny: Callable[..., LoadedRecipe]) -> None:
    """b = 4, g = 6, n_d = 2: G computes 4·2 + 3·6 = 26 forward-equivalents a step, D 6·4·2 + 2·6 = 60."""
    recipe = tiny("sparsity.method=dense").recipe
    networks = build_networks(build_backbone(recipe, build_dataset(recipe).spec), 0)
    g, d = profile(networks.generator), profile(networks.discriminator)
    step = 26 * (g.weight_macs() + g.other_macs()) + 60 * (d.weight_macs() + d.other_macs())
    found = priced(tiny("sparsity.method=dense"))
    assert found.training_flops == 2 * 12 * step
    assert found.inference_flops == 2 * g.weight_macs()
    assert (found.exact, found.updates, found.dynamic) == (True, 0, False)


def test_magnitude_is_charged_its_dense_half_and_its_sparse_half(tiny: Callable[..., LoadedRecipe]) -> None:
    dense, sparse = priced(tiny("sparsity.method=dense")), priced(tiny("sparsity.method=static"))
    found = priced(tiny("sparsity.method={name: magnitude, finetune: 0.5}"))
    assert found.rounds == (("dense", 6), ("finetune", 6))
    assert found.training_flops == dense.training_flops / 2 + sparse.training_flops / 2
    assert found.exact


def test_every_round_of_a_ticket_is_charged(tiny: Callable[..., LoadedRecipe]) -> None:
    """Density 0.25 at rate 0.5: dense, 0.5, 0.25; the recipe's steps are split between them."""
    ticket = "sparsity.method={name: imp, rate: 0.5, prune: generator, scope: layer, budget: total}"
    found = priced(tiny(ticket, "sparsity.discriminator.density=1"))
    assert found.rounds == (("dense", 4), ("prune 1/2", 4), ("prune 2/2", 4))
    thirds = [
        priced(
            tiny("sparsity.method=static", f"sparsity.generator.density={share}", "sparsity.discriminator.density=1")
        )
        for share in (1.0, 0.25)
    ]
    ends = sum(third.training_flops for third in thirds) / 3
    middle = found.training_flops - ends
    assert thirds[1].training_flops / 3 < middle < thirds[0].training_flops / 3
    assert found.steps == 12


def test_dense_gradients_and_probes_cost_something(tiny: Callable[..., LoadedRecipe]) -> None:
    static = priced(tiny("sparsity.method=static"))
    by_gradient = priced(tiny("sparsity.method={name: dst, every: 3, growth: gradient}"))
    at_random = priced(tiny("sparsity.method={name: dst, every: 3, growth: random}"))
    assert static.training_flops == at_random.training_flops < by_gradient.training_flops
    probed = priced(tiny("sparsity.method={name: snip, scope: layer}"))
    assert probed.training_flops > static.training_flops
    assert by_gradient.updates > 0


def test_a_price_that_depends_on_what_is_learned_says_so(tiny: Callable[..., LoadedRecipe]) -> None:
    assert not priced(tiny("sparsity.method={name: snip, scope: global}")).exact
    assert not priced(tiny("sparsity.method={name: adapt, every: 3}")).exact


@pytest.mark.parametrize(
    "method",
    [
        "dense",
        "narrow",
        "{name: dst, every: 3, explore: both, growth: gradient}",
        "{name: magnitude, finetune: 0.3}",
        "{name: gmp, every: 2, scope: layer}",
        "{name: imp, rate: 0.5, scope: layer, budget: total}",
        "{name: rigl, every: 4}",
    ],
)
def test_an_exact_price_is_what_the_run_counts(tiny: Callable[..., LoadedRecipe], tmp_path: Path, method: str) -> None:
    penalties = (
        "objective.r1={weight: 1.0, every: 3}",
        "objective.r2={weight: 1.0, every: 2}",
        "objective.consistency={real: 10, fake: 10}",
    )
    loaded = tiny(f"sparsity.method={method}", *penalties, "objective.loss=relativistic")
    found = priced(loaded)
    cost = Experiment(loaded.recipe, tmp_path, evaluates=False).run().cost
    told = (found.training_flops, found.inference_flops)
    counted = (cost["theory"]["training"]["flops"], cost["theory"]["inference"]["generator"]["flops"])
    if found.exact:
        assert told == counted
    else:
        assert told == pytest.approx(counted, rel=0.05)
    assert found.exact or "gmp" in method
