"""``gancompress bench train``: one training step of a recipe, computed in different ways, side by side.

Every variant is a whole step (its discriminator steps and its generator step) with its own copy of all networks from
the same seed: forward, backward, optimizer, masks, average, spectral norm, batches, everything. The plain style of the
field is written for images of latents; steps of other tasks are timed against our best dense one alone.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gancompress import kernels
from gancompress.bench.styles import PlainStep, Style
from gancompress.bench.timing import Ratio, alternate, keep_memory, machine, ratios
from gancompress.components.registry import PATTERNS
from gancompress.errors import RecipeError
from gancompress.experiment.acceleration import why_not_recorded
from gancompress.experiment.assemble import build_dataset, build_loss, build_trainer
from gancompress.experiment.budgets import ROLES, masked_weights, with_densities
from gancompress.methods.base import Plan
from gancompress.recipe.components import config_type, narrow_component
from gancompress.training.latent import LatentPlay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.recipe.schema import Recipe
    from gancompress.training.loop import Trainer

__all__ = ["BenchTrain", "bench_train", "in_blocks", "optimizer_operations", "parse_densities", "sparse_name"]

PLAIN = "plain style"
TOGETHER, UNMASKED = "all together, float32", "all together, no masks"
BF16, COMPILED, GRAPHS = "all together, bf16", "all together, compiled", "all together, CUDA graphs"
ADAM, BARE, MASKED = "Adam, default", "ours without masks", "ours with masks"

#: each switch alone on top of the plain style: what the step does better, and settings of the run
ALONE: dict[str, tuple[Style, dict[str, Any]]] = {
    "no generator graph in D's step": (Style(no_graph=True), {}),
    "no D gradients in G's step": (Style(no_gradients=True), {}),
    "real and fake in one call": (Style(joint=True), {}),
    "fused optimizer": (Style(fused=True), {}),
    "masks and average in one call": (Style(batched=True), {}),
    "channels last": (Style(), {"channels_last": True}),
    "folded": (Style(published=False), {"fold": "auto"}),
    "bf16": (Style(), {"precision": "bf16"}),
    "compiled": (Style(compiled=True), {}),
}


@dataclasses.dataclass(frozen=True)
class BenchTrain:
    """What was measured.

    Attributes:
        settings: the recipe's name, widths, batch and rounds, real images per step, and the machine in words.
        against_plain: every variant against the plain style: each switch alone, all together, and sparse; empty for a
            task that has no plain style.
        folded: by layer, the density above which it was measured to be folded (0 always, 1 never).
        best_dense: name of the best float32 dense variant, everything exact together.
        against_best: every variant against that one.
        masking: our dense step with masks over the one without, as a ratio of times (1.02: masks cost 2 %), and
            ``alone``: what masks add to the optimizers' steps of all networks, as a share of a whole step.
        optimizer: default ``Adam(foreach)``, our optimizer without masks, and with them, for all networks.
        operations: dispatched operations of optimizers, masks and averages of all networks.
        times: by variant, CPU and wall seconds of every turn.
    """

    settings: dict[str, Any]
    against_plain: dict[str, Ratio]
    folded: dict[str, float]
    best_dense: str
    against_best: dict[str, Ratio]
    masking: dict[str, float]
    optimizer: dict[str, Ratio]
    operations: dict[str, int]
    times: dict[str, list[tuple[float, float]]]

    def against(self, reference: str) -> dict[str, Ratio]:
        """Return every variant against another one, paired with it round by round."""
        return ratios(self.times, reference)

    def images_per_second(self, name: str) -> float:
        """Return the real images that one variant takes in per second of the clock."""
        return float(self.settings["images"]) / self.against_best[name].seconds

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        found = dataclasses.asdict(self)
        for rows in (found["against_plain"], found["against_best"]):
            for name, row in rows.items():
                row["images_per_second"] = self.images_per_second(name)
        return found


def parse_densities(text: str) -> list[tuple[float, float]]:
    """Read ``0.05,0.1/0.3``: one density for both networks, or that of the generator and of the discriminator.

    Raises:
        RecipeError: it is not that.
    """
    found = []
    for part in text.split(","):
        try:
            values = [float(number) for number in part.split("/")]
        except ValueError:
            values = []
        if len(values) not in (1, 2) or not all(0 < value <= 1 for value in values):
            raise RecipeError(f"density: {part.strip()!r} is no density; write 0.05 or, for G and D, 0.05/0.3")
        found.append((values[0], values[-1]))
    return found


def bench_train(
    recipe: Recipe,
    densities: Sequence[tuple[float, float]] = (),
    *,
    rounds: int = 5,
    bf16: bool = False,
    compile: bool = False,
    alone: bool = True,
    device: Literal["cpu", "cuda"] = "cpu",
) -> BenchTrain:
    """Time one training step in every way.

    Args:
        recipe: networks, data, batch and discriminator steps; its densities unless others are given.
        densities: of generator and discriminator, for our sparse step; the dense variants do not depend on them.
        rounds: turns of each variant, at least 2.
        bf16: time bf16 too; sparse steps with masks of 2x2 blocks, where there is an instruction for them.
        compile: time ``torch.compile`` too, which takes minutes to start.
        alone: time each switch alone, not only all together.
        device: where; on a GPU the clock is the wall's, CUDA graphs are timed where a step can be recorded, and the
            sparse kernels, which need a CPU, are not.

    Raises:
        RecipeError: there is no such device, the method changes masks at every step, or steps of the task cannot be
            compiled.
    """
    keep_memory()
    dataset = build_dataset(recipe)
    asked = list(densities) or [_densities(recipe)]
    gpu = device == "cuda"

    def trainer(pair: tuple[float, float] = asked[0], **training: Any) -> Trainer:
        return _trainer(recipe, dataset, pair, **{"device": device, "kernels": "dense", **training})

    def plain(style: Style | None = None, **training: Any) -> PlainStep:
        held = trainer(**{"fold": "never", **training})
        return PlainStep(held, {role: masked_weights(held.network(role), recipe.sparsity) for role in ROLES}, style)

    best: dict[str, Any] = {"channels_last": True, "fold": "auto", "joint_batch": True, "fused": True}
    together, bare = trainer(**best), trainer((1.0, 1.0), **best)
    of_latents = isinstance(together.play, LatentPlay)
    if compile and not of_latents:
        raise RecipeError(f"steps of the task {recipe.task.name!r} cannot be compiled: time them without compiling")
    steps: dict[str, Callable[[], object]] = {PLAIN: plain()} if of_latents else {}
    left_out = {*(() if bf16 else ("bf16",)), *(() if compile else ("compiled",))}
    for name, (style, settings) in ALONE.items() if alone and of_latents else ():
        if name not in left_out:
            steps[name] = plain(style, **settings)
    steps[TOGETHER], steps[UNMASKED] = _step(together), _step(bare)
    fast = {**best, "precision": "bf16"} if bf16 else best
    if bf16:
        steps[BF16] = _step(trainer(**fast))
    if compile:
        steps[COMPILED] = _step(trainer(**fast, compile=True))
    if gpu and of_latents and not why_not_recorded(recipe, build_loss(recipe), device=device):
        steps[GRAPHS] = _step(trainer(**fast, cuda_graphs=True))
    for pair in () if gpu else asked:
        steps[sparse_name(pair)] = _step(trainer(pair, kernels="auto", fold="auto"))
        if bf16 and kernels.status().bf16 is not None:
            blocks = _trainer(in_blocks(recipe), dataset, pair, kernels="auto", fold="auto", precision="bf16")
            steps[sparse_name(pair, bf16=True)] = _step(blocks)
    times = alternate(steps, rounds, warm=3 if gpu else 1, calls=10 if gpu else 1, gpu=gpu)
    against_best = ratios(times, TOGETHER)
    masking = against_best[UNMASKED]
    optimizer = _optimizers(together, bare, max(rounds, 9), gpu)
    alone_cost = (optimizer[MASKED].seconds - optimizer[BARE].seconds) / masking.seconds
    return BenchTrain(
        settings=_settings(recipe, rounds, gpu),
        against_plain=ratios(times, PLAIN) if of_latents else {},
        best_dense=TOGETHER,
        against_best=against_best,
        folded={} if together.folding is None else dict(together.folding.table),
        masking={
            "median": masking.faster,
            "first": masking.quartiles[0],
            "third": masking.quartiles[1],
            "alone": alone_cost,
        },
        optimizer=optimizer,
        operations=optimizer_operations(together),
        times=times,
    )


def sparse_name(pair: tuple[float, float], *, bf16: bool = False) -> str:
    """What a sparse step of these densities of generator and discriminator is called."""
    return f"sparse {pair[0]:g}/{pair[1]:g}{', bf16' if bf16 else ''}"


def in_blocks(recipe: Recipe) -> Recipe:
    """Return a recipe whose masks are of blocks of 2x2, which products of pairs of bf16 are made for."""
    narrowed = narrow_component("pattern", "block", config_type(PATTERNS, "block"))
    pattern = narrowed.model_validate({"name": "block", "outputs": 2, "inputs": 2})
    return recipe.model_copy(update={"sparsity": recipe.sparsity.model_copy(update={"pattern": pattern})})


def _densities(recipe: Recipe) -> tuple[float, float]:
    config = recipe.sparsity
    default = config.density if config.density is not None else 1.0
    generator, discriminator = config.generator.density, config.discriminator.density
    return default if generator is None else generator, default if discriminator is None else discriminator


def _settings(recipe: Recipe, rounds: int, gpu: bool) -> dict[str, Any]:
    training = recipe.training
    return {
        "recipe": recipe.name,
        "model": recipe.model.model_dump(mode="json"),
        "batch_size": training.batch_size,
        "generator_batch_size": training.generator_batch_size or training.batch_size,
        "discriminator_steps": training.discriminator_steps,
        "images": training.discriminator_steps * training.batch_size,
        "rounds": rounds,
        **machine(gpu),
    }


def _trainer(recipe: Recipe, dataset: Dataset[DatasetConfig], pair: tuple[float, float], **training: Any) -> Trainer:
    changed = recipe.training.model_copy(update=training)
    trainer = build_trainer(with_densities(recipe, *pair).model_copy(update={"training": changed}), dataset)
    trainer.engine.init(trainer.probe)
    return trainer


def _step(trainer: Trainer) -> Callable[[], object]:
    """Return one training step; topology updates are timed apart, for they come every few hundred steps."""
    engine = trainer.engine
    current = engine.method.rounds(10**6, {role: engine.budget(role).density for role in ROLES})[0]
    quiet = (s for s in range(1, 1000) if all(engine.plan(role, s, current.steps) == Plan.NOTHING for role in ROLES))
    number = next(quiet, None)
    if number is None:
        raise RecipeError("the method changes masks at every step; give it a longer interval to time plain steps")

    def step() -> None:
        trainer.position.step = number - 1
        trainer.step(current)

    return step


def _optimizers(trainer: Trainer, bare: Trainer, rounds: int, gpu: bool) -> dict[str, Ratio]:
    """Time the default optimizer against ours, with masks (``trainer``) and without (``bare``), on all networks."""
    plain = [torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9)) for network in trainer.networks.values()]
    for each in (trainer, bare):
        _give_gradients(each)

    def default() -> None:
        for optimizer in plain:
            optimizer.step()

    def ours(held: Trainer) -> Callable[[], None]:
        def step() -> None:
            for name in held.networks:
                held.engine.step(name)

        return step

    steps = {ADAM: default, BARE: ours(bare), MASKED: ours(trainer)}
    return ratios(alternate(steps, rounds, warm=3, gpu=gpu), ADAM)


def _give_gradients(trainer: Trainer) -> None:
    random = torch.Generator().manual_seed(0)
    for network in trainer.networks.values():
        for parameter in network.parameters():
            # laid out like the weight, as autograd does
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=random))


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a device would be given to do; views and the profiler's marks are not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten" and not func.is_view:
            self.count += 1
        return func(*args, **(kwargs or {}))


def optimizer_operations(trainer: Trainer) -> dict[str, int]:
    """Count the operations dispatched for optimizers and masks, and for averages, of one step of every network.

    Call it after a few training steps: the first ones also inspect the optimizer.
    """
    _give_gradients(trainer)
    with _Count() as optimizers:
        for name in trainer.networks:
            trainer.engine.step(name)
    with _Count() as average:
        for name, mean in trainer.all_averages.items():
            mean.update(trainer.network(name), 10**6)  # type: ignore[arg-type]
    return {
        "optimizers and masks": optimizers.count,
        "average": average.count,
        "together": optimizers.count + average.count,
    }
