"""Whole channels of a trained generator taken away: what a run that trains the narrower one starts from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from gancompress.architecture.description import Architecture
from gancompress.channels.cut import cut_state, verify
from gancompress.channels.groups import find_channels
from gancompress.channels.module import read_module, written_out
from gancompress.channels.scores import channel_scores
from gancompress.channels.target import choose, parse_target
from gancompress.errors import located
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.initial import InitialWeights, read_initial, whole_generator
from gancompress.experiment.networks import build_architecture, build_networks, stored_architecture
from gancompress.export.compiled import compile_generator
from gancompress.recipe.composition import apply_override, without_densities
from gancompress.recipe.identity import directory_name
from gancompress.recipe.load import check_document
from gancompress.runs.directory import RunDirectory
from gancompress.seeds import generator as random_generator
from gancompress.storage.checkpoint import Snapshot, checkpoints, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.backbones.base import Generator
    from gancompress.channels.target import Timer
    from gancompress.experiment.compress import Source
    from gancompress.recipe.schema import Recipe

__all__ = ["START", "plan_channels"]

#: directory of a run in which lies what it starts from
START = "start"
#: images that channels are ranked by
_LOOKED_AT = 16


def plan_channels(
    source: Source,
    density: float,
    steps: int | None,
    overrides: Sequence[str],
    root: Path,
    *,
    target: str | None = None,
    importance: str | None = None,
    timer: Timer | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Recipe:
    """Cut the averaged generator of a run, write it into the directory of the run that will train it, and return that.

    The same call finds what was cut before, also where measured milliseconds would differ now.

    Args:
        source: what is compressed.
        density: share of every group's channels to keep, without a target.
        steps: fine-tuning; default: half the steps of the recipe.
        overrides: ``key.path=value`` for the new run.
        root: directory of run directories.
        target: what one image may cost, or the generator may hold.
        importance: how channels are ranked; default: ``magnitude``.
        timer: for milliseconds: measures the whole generator in turn with one as it is exported, for one image.
        say: told what is being done.

    Raises:
        GancompressError: nothing can be cut, or not so far, or an override is wrong; nothing is written then.
    """
    wanted = density if target is None else parse_target(target)
    way = f"d{density:g}" if isinstance(wanted, float | int) else wanted.slug
    importance = importance or "magnitude"
    request = {"hash": source.weights.hash, "wanted": way, "importance": importance}
    base = source.base.recipe
    document = apply_override(source.base.document, f"name={base.name}-channels-{way}")
    document = apply_override(without_densities(document), "sparsity.method.name=dense")
    document = apply_override(document, "sparsity.pattern=unstructured")
    shorter = max(1, base.training.steps // 2)
    document = apply_override(document, f"training.steps={shorter if steps is None else steps}")
    for expression in overrides:
        document = apply_override(document, expression)
    check_document(document)

    def recipe_from(path: Path, weights: InitialWeights) -> Recipe:
        found = document
        for key, value in (("path", str(path.resolve())), ("hash", weights.hash)):
            found = apply_override(found, f"training.init_from.{key}={value!r}")
        return check_document(found)

    for place in sorted(root.glob(f"{base.name}-channels-{way}-*/{START}")):
        for path in checkpoints(place):
            weights = read_initial(path)
            if weights.scalars.get("channels", {}).get("request") == request:
                recipe = recipe_from(path, weights)
                if root / directory_name(recipe) == place.parent:
                    say(f"going on with the channels that {place.parent.name} keeps")
                    return recipe
    weights, scalars = _cut(source, wanted, importance, request, timer, say)
    name = directory_name(recipe_from(root, weights))
    groups = {
        "ema": {f"module.{key}": tensor for key, tensor in weights.generator.items()},
        "discriminator": dict(weights.discriminator or {}),
        "sparsity": {},
    }
    recipe = recipe_from(root / name / START / f"{0:08d}", weights)
    RunDirectory.open(root, recipe)
    save(root / name / START, Snapshot(0, groups, scalars))
    return recipe


def _cut(
    source: Source,
    wanted: Any,
    importance: str,
    request: Mapping[str, Any],
    timer: Timer | None,
    say: Callable[[str], None],
) -> tuple[InitialWeights, dict[str, Any]]:
    """Return the weights to start from, and what their checkpoint says."""
    architecture = _architecture(source.weights, source.base.recipe)
    whole = whole_generator(architecture, source.weights, str(source.path))
    discriminator = source.weights.discriminator
    if discriminator is None:
        discriminator = build_networks(architecture, source.base.recipe.seed).discriminator.state_dict()
    masked = sum(int((~mask.bool()).sum()) for mask in source.weights.masks.get("generator", {}).values())
    if masked:
        say(
            f"warning: {source.label} keeps masks that leave out {masked:,} weights of its generator: they are "
            "dropped, and what is left is trained dense"
        )
    say("finding the channels that go together")
    with located(source.label):
        inputs = _images(whole, 0)
        network = read_module(whole, inputs)
        channels = find_channels(network, inputs)
        calls = [_images(whole, index) for index in range(_LOOKED_AT)]
        scores = channel_scores(network, channels, importance, calls)

        def narrowed(kept: Mapping[str, Tensor]) -> tuple[Architecture, Generator]:
            state = cut_state(whole, channels.indices(kept))
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
            described = dataclasses.replace(architecture, shapes={**architecture.shapes, "generator": shapes})
            with torch.random.fork_rng(devices=[]):
                narrow = described.generator()
            narrow.load_state_dict(state)
            return described, narrow.eval()

        plain = written_out(whole)  # norms of weights are no part of what a file of it computes

        def clock(kept: Mapping[str, Tensor]) -> tuple[float, float]:
            assert timer is not None
            return timer(plain, compile_generator(narrowed(kept)[1]), inputs)

        kept = choose(network, channels, scores, wanted, inputs, None if timer is None else clock, say)
        described, narrow = narrowed(kept)
        verify(network, narrow, channels, kept, inputs, written_out(narrow).state_dict())
    widths = {group.name: [int(kept[group.name].sum()), group.width] for group in channels.groups}
    for name, (count, width) in widths.items():
        say(f"{name}: {count} of {width} channels kept")
    history = {
        "request": dict(request),
        "source": str(source.path.resolve()),
        "whole": architecture.to_json(),
        "kept": {name: mask.nonzero().flatten().tolist() for name, mask in kept.items()},
        "widths": widths,
    }
    weights = InitialWeights({name: tensor.contiguous() for name, tensor in narrow.state_dict().items()}, discriminator)
    return weights, {"architecture": described.to_json(), "channels": history}


def _architecture(weights: InitialWeights, recipe: Recipe) -> Architecture:
    if "architecture" in weights.scalars:
        return Architecture.from_json(weights.scalars["architecture"])
    if weights.scalars:
        return stored_architecture(weights.scalars, recipe)
    return build_architecture(recipe, build_dataset(recipe).spec)


def _images(network: Generator, index: int) -> tuple[Tensor, ...]:
    """Return the inputs of one image."""
    z = torch.randn(1, *network.input_shape, generator=random_generator(0, "channels", "latents", index))
    return (z, torch.tensor([index % network.num_classes])) if network.num_classes else (z,)
