"""Layer-wise reconstruction: which weights go, and what the others become, from inputs alone.

In three passes over calibration inputs. The first collects, of the whole network, the second moments of every layer's
inputs, and how much its outputs matter to the network's. The second removes weights in rounds, all layers together:
those whose removal costs the network's output least, when what is left is refitted. Within a round, those of one output
are taken one after the other, each with the ones before it gone, so that of two that can stand in for each other one
stays. The third goes through the network
once more and refits every layer, bias included, to the outputs of the whole one, on the inputs that the pruned layers
ahead of it give.

The saliency is that of optimal brain surgeon for layers (Frantar and Alistarh, "Optimal Brain Compression", 2022) times
the sum of squares of the network's derivatives by the output concerned, estimated with random signs (Hutchinson, 1990).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.graphs.build import CapturedModule
from gancompress.reconstruct.matrix import MatrixLayer, matrix_layers
from gancompress.reconstruct.solve import chance, damped, fit, inverse_diagonal, refit
from gancompress.seeds import generator
from gancompress.sparsity.select import best_overall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gancompress.sparsity.state import Budget

__all__ = ["Reconstructed", "reconstruct", "refit_layers"]

#: share of the mean second moment that is added to all, so that inputs that always went together stay apart
_DAMPING = 1e-4
#: of the same mean, by which what is refitted is drawn to the weights of the whole network: few inputs do not say what
#: others ask for, and quiet ones hardly show beside loud ones
_DRAWN = 1e-2
#: times the share that goes in a round on average: some outputs lose more
_GOING = 1.6
#: largest share of what is left that goes in a round
_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction did.

    Attributes:
        masks: by the names of the weights.
        errors: by the paths of the layers, squared error of the outputs over their variance, as refitted last.
    """

    masks: Mapping[str, Tensor]
    errors: Mapping[str, float]


class _Moments:
    """Sums over positions for one block of a layer."""

    def __init__(self) -> None:
        self.count = 0
        self.inputs = self.outputs = self.power = torch.zeros(())
        self.input_pairs = self.pairs = torch.zeros(())

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        self.count += len(inputs)
        self.inputs = self.inputs + inputs.double().sum(0)
        self.outputs = self.outputs + outputs.double().sum(0)
        self.power = self.power + outputs.double().square().sum(0)
        self.input_pairs = self.input_pairs + (inputs.T @ inputs).double()
        self.pairs = self.pairs + (inputs.T @ outputs).double()

    def second(self, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean products of inputs, of inputs and outputs, and the mean squares of the outputs.

        Args:
            centred: about their means, which is what a bias makes of them.
        """
        n = self.count
        if not centred:
            return self.input_pairs / n, self.pairs / n, self.power / n
        x, y = self.inputs / n, self.outputs / n
        return self.input_pairs / n - x[:, None] * x, self.pairs / n - x[:, None] * y, self.power / n - y**2


@dataclasses.dataclass
class _Seen:
    """What the whole network says about one layer, block by block."""

    layer: MatrixLayer
    moments: list[Tensor]
    spread: list[Tensor]
    importance: Tensor  # of every output


def reconstruct(
    network: CapturedModule,
    batches: Sequence[tuple[Tensor, ...]],
    budget: Budget,
    *,
    rounds: int | None = None,
    positions: int = 16_384,
    probes: int = 2,
    measured: Callable[[Tensor], Tensor] = lambda output: output,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Reconstructed:
    """Prune a network in place.

    Args:
        network: in eval mode; the budget's weights are changed, and the biases beside them.
        batches: calibration inputs.
        budget: how many weights are kept in all, which layers stay whole, and in which units weights are kept.
        rounds: in which weights are removed, a constant share of what is left in each; default: as many as let no more
            than a fifth go in one.
        positions: of outputs that are looked at, per layer.
        probes: random signs per batch for the importance of outputs.
        measured: what of an output is to change little, in the sum of squares; differentiable.
        seed: of positions and signs.
        say: told what is being done.

    Raises:
        InvariantError: the budget cannot be met.
    """
    layers = matrix_layers(network, list(budget.sizes))
    say("looking at the whole network")
    seen = _look(network, layers, batches, positions, seed)
    _weigh(network, seen, batches, probes, measured, seed)
    if rounds is None:
        rounds = max(1, math.ceil(math.log(max(budget.total, 1) / sum(budget.sizes.values())) / math.log(1 - _SHARE)))
    masks = _choose(seen, budget, rounds, say)
    say("refitting what is left")
    return Reconstructed(masks, _refit_in_order(network, layers, masks, batches, positions, seed))


def refit_layers(
    network: CapturedModule,
    batches: Sequence[tuple[Tensor, ...]],
    masks: Mapping[str, Tensor],
    *,
    positions: int = 16_384,
    seed: int = 0,
) -> dict[str, float]:
    """Prune a network in place to masks that are given, and refit what is left.

    Args:
        network: whole, in eval mode.
        batches: calibration inputs.
        masks: by the names of weights; True is kept.
        positions: of outputs that are looked at, per layer.
        seed: of positions.

    Returns:
        Errors by the paths of layers, as in :class:`Reconstructed`.
    """
    return _refit_in_order(network, matrix_layers(network, list(masks)), masks, batches, positions, seed)


def _collect(layer: MatrixLayer, pairs: Sequence[tuple[Tensor, Tensor]], positions: int, seed: int) -> list[_Moments]:
    """Return the moments of every block over inputs and outputs of all batches."""
    found = []
    phases = len(layer.blocks) // layer.groups
    for number, block in enumerate(layer.blocks):
        moments = _Moments()
        for batch, (x, y) in enumerate(pairs):
            rng = generator(seed, "reconstruct", "positions", layer.name, number, batch)
            most = max(positions // len(pairs) // phases, 1)
            moments.add(*layer.columns(x, y, block, most, rng))
        found.append(moments)
    return found


def _look(
    network: CapturedModule,
    layers: Mapping[str, MatrixLayer],
    batches: Sequence[tuple[Tensor, ...]],
    positions: int,
    seed: int,
) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    with torch.no_grad():
        for (at,) in _together([network.walk(batch) for batch in batches]):
            path = at[0][0]
            if path not in layers or path in found:  # a layer that is used twice is taken where it comes first
                continue
            layer = layers[path]
            pairs = [(x, layer.module(x)) for _, x in at]
            moments = []
            for one in _collect(layer, pairs, positions, seed):
                second = one.second(layer.has_bias)[0]
                moments.append(damped(second, max(_DAMPING, chance(second, one.count))))
            spread = [inverse_diagonal(one) for one in moments]
            found[path] = _Seen(layer, moments, spread, torch.zeros(layer.outputs, dtype=torch.float64))
    return found


def _weigh(
    network: CapturedModule,
    seen: Mapping[str, _Seen],
    batches: Sequence[tuple[Tensor, ...]],
    probes: int,
    measured: Callable[[Tensor], Tensor],
    seed: int,
) -> None:
    """Estimate the sum of squared derivatives of the network's outputs by every output channel of every layer.

    Per position, as the moments are: layers of many positions count by what one of them does to the output, times how
    many there are.
    """
    for number, batch in enumerate(batches):
        made: list[tuple[str, Tensor]] = []
        hooks = [
            one.layer.module.register_forward_hook(lambda _, x, y, made=made, path=path: made.append((path, y)))
            for path, one in seen.items()
        ]
        try:
            with torch.enable_grad():
                given = [x.detach().requires_grad_(x.is_floating_point()) for x in batch]
                results = [measured(one) for one in network.compute(given) if one.requires_grad]
        finally:
            for hook in hooks:
                hook.remove()
        made = [(path, y) for path, y in made if y.requires_grad]
        for probe in range(probes if results and made else 0):
            rng = generator(seed, "reconstruct", "signs", number, probe)
            signs = [(torch.randint(0, 2, one.shape, generator=rng) * 2 - 1).to(one) for one in results]
            slopes = torch.autograd.grad(
                results, [y for _, y in made], signs, retain_graph=probe + 1 < probes, allow_unused=True
            )
            for (path, _), slope in zip(made, slopes, strict=True):
                if slope is not None:
                    one = seen[path]
                    rows = slope.flatten(0, -2) if one.layer.linear else slope.transpose(0, 1).flatten(1).T
                    one.importance += rows.double().square().sum(0) / (probes * len(batches))


def _choose(seen: Mapping[str, _Seen], budget: Budget, rounds: int, say: Callable[[str], None]) -> dict[str, Tensor]:
    sizes, total, target = budget.sizes, sum(budget.sizes.values()), budget.total
    floors = {name: sizes[name] for name in budget.dense}
    masks: dict[str, Tensor] | None = None
    for number in range(1, rounds + 1):
        say(f"choosing weights, round {number} of {rounds}")
        going = min(_GOING * (1 - (target / total) ** (1 / rounds)), 1.0)
        scores = {
            name: _costs(seen[_path(name)], None if masks is None else masks[name], going)
            for name in sizes
            if _path(name) in seen
        }
        count = target if number == rounds else round(total * (target / total) ** (number / rounds))
        masks = best_overall(budget.units, scores, count, floors=floors, candidates=masks)
    assert masks is not None
    return masks


def _costs(one: _Seen, mask: Tensor | None, going: float) -> Tensor:
    """Return what removing each kept weight of a layer costs the output of the network."""
    layer, weight = one.layer, one.layer.module.weight.detach()
    found = torch.zeros_like(weight, dtype=torch.float64)
    # every position is one of a single block of its group
    rows = one.importance.reshape(layer.groups, -1) * layer.groups / len(layer.blocks)
    for block, moments, spread in zip(layer.blocks, one.moments, one.spread, strict=True):
        matrix = layer.matrix(weight, block).double()
        # Single precision is enough to rank by; what is written in the end is fitted in double.
        kept = torch.ones_like(matrix, dtype=torch.bool) if mask is None else layer.matrix(mask, block)
        cost = fit(moments.float(), (moments @ matrix.T).float(), kept, spread, going)[1].double()
        layer.put(found, block, cost * rows[block.group][:, None])
    return found


def _refit_in_order(
    network: CapturedModule,
    layers: Mapping[str, MatrixLayer],
    masks: Mapping[str, Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    positions: int,
    seed: int,
) -> dict[str, float]:
    """Refit layer by layer; the whole and the pruned network advance together, so that each layer is computed once."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    whole = CapturedModule(network.captured, state)
    errors: dict[str, float] = {}
    with torch.no_grad():
        walks = ([whole.walk(batch) for batch in batches], [network.walk(batch) for batch in batches])
        for wanted, given in _together(*walks):
            path = given[0][0]
            if path not in layers or path in errors:
                continue
            layer, original = layers[path], whole.get_submodule(path)
            pairs = [(x, original(x_whole)) for (_, x_whole), (_, x) in zip(wanted, given, strict=True)]
            collected = _collect(layer, pairs, positions, seed)
            errors[path] = _refit(layer, state[f"{path}.weight"], masks[f"{path}.weight"], collected)
    return errors


def _refit(layer: MatrixLayer, original: Tensor, mask: Tensor, collected: Sequence[_Moments]) -> float:
    """Write the best weights and bias into a layer; return its relative error."""
    weight = torch.zeros_like(layer.module.weight, dtype=torch.float64)
    bias = torch.zeros(layer.groups, layer.outputs // layer.groups, dtype=torch.float64)
    rest = power = 0.0
    for block, moments in zip(layer.blocks, collected, strict=True):
        inputs, cross, squares = moments.second(layer.has_bias)
        stiff = damped(inputs, _DRAWN)
        drawn = (stiff - inputs).diagonal()[:, None] * layer.matrix(original, block).double().T
        fitted = refit(stiff, cross + drawn, layer.matrix(mask, block))
        layer.put(weight, block, fitted)
        if layer.has_bias:  # phases of one channel share it
            shift = (moments.outputs - fitted @ moments.inputs) / moments.count
            bias[block.group] += shift * layer.groups / len(layer.blocks)
        rest += float(squares.sum() - 2 * (fitted * cross.T).sum() + ((fitted @ inputs) * fitted).sum())
        power += float(squares.sum())
    layer.module.weight.copy_(weight)
    if layer.has_bias:
        layer.module.bias.copy_(bias.flatten())
    return max(rest, 0.0) / power if power > 0 else 0.0


def _together(*groups: Sequence[Iterator[tuple[str, Tensor]]]) -> Iterator[tuple[list[tuple[str, Tensor]], ...]]:
    """Advance several walks at once, and yield where they are, group by group."""
    while True:
        try:
            places = [[next(walk) for walk in walks] for walks in groups]
        except StopIteration:  # all walk through the same graph, so all end here
            return
        yield tuple(places)


def _path(name: str) -> str:
    return name.removesuffix(".weight")
