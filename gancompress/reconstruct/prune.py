"""Layer-wise reconstruction: which weights go, and what the others become, from inputs alone.

In three passes over calibration inputs. The first collects, of the whole network, the second moments of every layer's
inputs and how much its outputs matter to the network's. The second removes weights in rounds, all layers together: those
whose removal costs the network's output least, when what is left is refitted. The third goes through the network once
more and refits every layer to the outputs of the whole one, on the inputs that the pruned layers ahead of it give, bias
included.

The saliency is that of optimal brain surgeon for layers (Frantar and Alistarh, "Optimal Brain Compression", 2022) times
the mean square of the network's derivative by the output concerned, estimated with random signs (Hutchinson, 1990).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.reconstruct.matrix import MatrixLayer, matrix_layers
from gancompress.reconstruct.solve import damped, fit, refit, saliency
from gancompress.seeds import generator
from gancompress.sparsity.select import best_overall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gancompress.graphs.build import CapturedModule
    from gancompress.sparsity.state import Budget

__all__ = ["Reconstructed", "reconstruct"]

#: share of the mean second moment that is added to all, so that inputs that were never seen apart stay apart
_DAMPING = 1e-4
_RANKING = getattr(torch, __import__("os").environ.get("RANK", "float32"))


@dataclasses.dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction did.

    Attributes:
        masks: by the names of the weights.
        errors: by the paths of the layers, squared error of the outputs over their mean square, as refitted last.
    """

    masks: Mapping[str, Tensor]
    errors: Mapping[str, float]


@dataclasses.dataclass
class _Seen:
    """What the whole network says about one layer."""

    layer: MatrixLayer
    moments: Tensor  # (groups, n, n)
    importance: Tensor  # (groups, outputs of a group)
    whole: Tensor  # (groups, outputs of a group, n): weights, and the bias last


def reconstruct(
    network: CapturedModule,
    batches: Sequence[tuple[Tensor, ...]],
    budget: Budget,
    *,
    rounds: int = 4,
    positions: int = 16_384,
    probes: int = 2,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Reconstructed:
    """Prune a network in place.

    Args:
        network: in eval mode; the budget's weights are changed, and the biases beside them.
        batches: calibration inputs.
        budget: how many weights are kept in all, which layers stay whole, and in which units weights are kept.
        rounds: in which weights are removed, a constant share of what is left in each.
        positions: of outputs, per layer, that are looked at.
        probes: random signs per batch for the importance of outputs.
        seed: of positions and signs.
        say: told what is being done.

    Raises:
        InvariantError: the budget cannot be met.
    """
    layers = matrix_layers(network, list(budget.sizes))
    say("looking at the whole network")
    seen = _look(network, layers, batches, positions, seed)
    _weigh(network, seen, batches, probes, seed)
    masks = _choose(seen, budget, rounds, say)
    say("refitting on the inputs that the pruned layers give")
    errors = _refit_in_order(network, seen, masks, batches, positions, seed)
    return Reconstructed(masks, errors)


def _look(
    network: CapturedModule,
    layers: Mapping[str, MatrixLayer],
    batches: Sequence[tuple[Tensor, ...]],
    positions: int,
    seed: int,
) -> dict[str, _Seen]:
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for number, batch in enumerate(batches):
            steps = network.walk(batch)
            for path, x in steps:
                if path not in layers:
                    continue
                layer = layers[path]
                y = layer.module(x)
                columns = layer.columns(x, _positions(layer, y, positions // len(batches), seed, number))
                own = (columns.transpose(1, 2) @ columns).double() / columns.shape[1]
                sums[path] = sums[path] + own if path in sums else own
    found = {}
    for path, layer in layers.items():
        if path in sums:
            moments = torch.stack([damped(one, _DAMPING) for one in sums[path]])
            whole = _whole(layer)
            found[path] = _Seen(layer, moments, torch.zeros(whole.shape[:2], dtype=torch.float64), whole)
    return found


def _weigh(
    network: CapturedModule, seen: Mapping[str, _Seen], batches: Sequence[tuple[Tensor, ...]], probes: int, seed: int
) -> None:
    """Estimate the sum of squared derivatives of the network's outputs by every output channel of every layer."""
    for number, batch in enumerate(batches):
        outputs: dict[str, list[Tensor]] = {path: [] for path in seen}
        hooks = [
            one.layer.module.register_forward_hook(lambda _, x, y, made=outputs[path]: made.append(y))
            for path, one in seen.items()
        ]
        try:
            with torch.enable_grad():
                given = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in batch)
                result = network(*given)
        finally:
            for hook in hooks:
                hook.remove()
        results = result if isinstance(result, tuple) else (result,)
        flat = [(path, y) for path, made in outputs.items() for y in made if y.requires_grad]
        for probe in range(probes):
            rng = generator(seed, "reconstruct", "signs", number, probe)
            signed = sum(
                (one * (torch.randint(0, 2, one.shape, generator=rng) * 2 - 1).to(one)).sum()
                for one in results
                if one.requires_grad
            )
            slopes = torch.autograd.grad(
                signed, [y for _, y in flat], retain_graph=probe + 1 < probes, allow_unused=True
            )
            for (path, y), slope in zip(flat, slopes, strict=True):
                if slope is not None:
                    one = seen[path]
                    rows = (slope if one.layer.linear else slope.flatten(2).transpose(1, 2)).flatten(0, -2)
                    square = rows.double().square().sum(0) / (probes * len(batch[0]) * len(batches))
                    one.importance += square.reshape(one.importance.shape)


def _choose(seen: Mapping[str, _Seen], budget: Budget, rounds: int, say: Callable[[str], None]) -> dict[str, Tensor]:
    sizes, total, target = budget.sizes, sum(budget.sizes.values()), budget.total
    floors = {name: sizes[name] for name in budget.dense}
    costs = {
        path: torch.stack([saliency(h, w) for h, w in zip(one.moments, one.whole, strict=True)])
        for path, one in seen.items()
    }
    masks: dict[str, Tensor] | None = None
    for number in range(1, rounds + 1):
        say(f"choosing weights, round {number} of {rounds}")
        scores = {}
        for name in sizes:
            one = seen[_path(name)]
            cost = costs[_path(name)] * one.importance[..., None]
            scores[name] = one.layer.weight(cost[..., : cost.shape[2] - one.layer.has_bias])
        count = target if number == rounds else round(total * (target / total) ** (number / rounds))
        masks = best_overall(budget.units, scores, count, floors=floors, candidates=masks)
        if number < rounds:
            for name, mask in masks.items():
                one = seen[_path(name)]
                kept = _kept(one.layer, mask)
                # Single precision is enough to rank by; what is written in the end is fitted in double.
                fits = [
                    fit(h.to(_RANKING), (h @ w.T).to(_RANKING), k)[1]
                    for h, w, k in zip(one.moments, one.whole, kept, strict=True)
                ]
                costs[_path(name)] = torch.stack(fits).double()
    assert masks is not None
    return masks


def _refit_in_order(
    network: CapturedModule,
    seen: Mapping[str, _Seen],
    masks: Mapping[str, Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    positions: int,
    seed: int,
) -> dict[str, float]:
    """Refit layer by layer; whole and pruned network advance together, so that each layer is computed once."""
    from gancompress.graphs.build import CapturedModule

    state = network.state_dict()
    whole = CapturedModule(network.captured, {name: tensor.clone() for name, tensor in state.items()})
    wanted = matrix_layers(whole, list(masks))
    errors: dict[str, float] = {}
    with torch.no_grad():
        for at in _together([whole.walk(batch) for batch in batches], [network.walk(batch) for batch in batches]):
            path = at[0][0][0]
            if path not in seen or path in errors:
                continue
            layer = seen[path].layer
            moments = cross = power = None
            for number, ((_, x_whole), (_, x)) in enumerate(at):
                y = wanted[path].module(x_whole)
                chosen = _positions(layer, y, positions // len(batches), seed, number)
                columns, outputs = layer.columns(x, chosen), layer.outputs_at(y, chosen)
                share = columns.shape[1] * len(batches)
                own = (columns.transpose(1, 2) @ columns).double() / share
                both = (columns.transpose(1, 2) @ outputs).double() / share
                square = outputs.double().square().sum() / share
                moments, cross, power = (
                    (own, both, square) if moments is None else (moments + own, cross + both, power + square)
                )
            assert moments is not None and cross is not None
            kept = _kept(layer, masks[f"{path}.weight"])
            fitted = torch.stack(
                [refit(damped(h, _DAMPING), c, k) for h, c, k in zip(moments, cross, kept, strict=True)]
            )
            rest = power - 2 * (fitted * cross.transpose(1, 2)).sum() + torch.einsum(
                "goi,gij,goj->", fitted, moments, fitted
            )
            errors[path] = max(float(rest), 0.0) / max(float(power), 1e-30)
            _write(layer, fitted)
    return errors


def _together(*groups: list[Iterator[tuple[str, Tensor]]]) -> Iterator[list[tuple[tuple[str, Tensor], ...]]]:
    """Advance several walks at once; yield, for every batch, where its walks are."""
    while True:
        try:
            yield list(zip(*[[next(walk) for walk in walks] for walks in groups], strict=True))
        except StopIteration:  # all have the same graph, so all end here
            return


def _positions(layer: MatrixLayer, y: Tensor, most: int, seed: int, batch: int) -> Tensor:
    count = layer.positions(y)
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator(seed, "reconstruct", "positions", layer.name, batch))[:most]


def _whole(layer: MatrixLayer) -> Tensor:
    matrix = layer.matrix(layer.module.weight.detach()).double()
    if layer.has_bias:
        bias = layer.module.bias.detach().double().unflatten(0, (layer.groups, -1))
        matrix = torch.cat([matrix, bias[..., None]], 2)
    return matrix


def _kept(layer: MatrixLayer, mask: Tensor) -> Tensor:
    matrix = layer.matrix(mask)
    if layer.has_bias:
        matrix = torch.cat([matrix, torch.ones_like(matrix[..., :1])], 2)
    return matrix


def _write(layer: MatrixLayer, fitted: Tensor) -> None:
    module = layer.module
    if layer.has_bias:
        module.bias.copy_(fitted[..., -1].flatten().to(module.bias))
        fitted = fitted[..., :-1]
    module.weight.copy_(layer.weight(fitted).to(module.weight))


def _path(name: str) -> str:
    return name.removesuffix(".weight")
