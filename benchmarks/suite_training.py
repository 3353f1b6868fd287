"""Entries of the suite about training: masks, optimizers, averages, topology, layers, whole steps, memory."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import torch
from entries import PAIRS, Row, Times, at_pair, entry, narrowed, over, recipe_of, training
from peers import average_by_state_dict, mask_by_state_dict, mask_one_by_one, update_topology
from torch.nn import functional as F

from gancompress import kernels
from gancompress.bench.timing import alternate
from gancompress.bench.train import BF16, _give_gradients, _step, _trainer, optimizer_operations, sparse_name
from gancompress.cost.summary import optimizer_bytes
from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.experiment.budgets import ROLES, build_method, masked_weights
from gancompress.kernels.layout import to_batch_last
from gancompress.methods.base import NetView
from gancompress.seeds import generator as seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gancompress.training.loop import Trainer

OURS, COMPACT, PLAIN = "ours", "ours, compact", "default Adam"


@functools.cache
def trainer_of(channels: int, moments: str = "masked", density: float = 0.05, **settings: Any) -> Trainer:
    """A trainer that has taken two steps, dense, in the ordinary memory format."""
    recipe = recipe_of(channels, f"sparsity.moments={moments}", "training.batch_size=8")
    trainer = _trainer(recipe, build_dataset(recipe), (density, density), kernels="dense", fold="never", **settings)
    step = _step(trainer)
    for _ in range(2):
        step()
    _give_gradients(trainer)
    return trainer


def calls(channels: int) -> int:
    """Calls per turn: a turn of less than a millisecond says little."""
    return 1 if channels > 64 else 10


def masks_of(trainer: Trainer, role: Any) -> dict[str, tuple[torch.nn.Parameter, torch.Tensor, str]]:
    """Parameter, float mask and key in the state dict of every masked weight."""
    sparsity = recipe_of(32).sparsity
    weights = masked_weights(trainer.network(role), sparsity)
    return {n: (w.parameter, trainer.engine.state(role).masks[n].float(), w.key) for n, w in weights.items()}


@functools.cache
def optimizers(channels: int, rounds: int) -> Times:
    """Optimizer and masks of one D+G pair in every manner, beside torch's default Adam without masks."""
    masked, compact = trainer_of(channels), trainer_of(channels, "compact")
    plain = copy.deepcopy({role: masked.network(role) for role in ROLES})
    adams = [torch.optim.Adam(plain[role].parameters(), 2e-4, betas=(0.0, 0.9)) for role in ROLES]
    for role in ROLES:
        for own, live in zip(plain[role].parameters(), masked.network(role).parameters(), strict=True):
            own.grad = torch.randn_like(live)
    found = {role: masks_of(masked, role) for role in ROLES}
    own = {role: dict(plain[role].named_parameters()) for role in ROLES}

    def adam() -> None:
        for optimizer in adams:
            optimizer.step()

    def by_state_dict() -> None:
        adam()
        for role in ROLES:
            mask_by_state_dict(plain[role], {key: mask for _, mask, key in found[role].values()})

    def one_by_one() -> None:
        adam()
        for role in ROLES:
            mask_one_by_one([(own[role][key], mask) for _, mask, key in found[role].values()])  # type: ignore[misc]

    gradients = [p.grad for role in ROLES for p in compact.network(role).parameters()]

    def ours(trainer: Trainer) -> Callable[[], None]:
        def step() -> None:
            if trainer is compact:  # these are released by every step
                parameters = (p for role in ROLES for p in compact.network(role).parameters())
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
            for role in ROLES:
                trainer.engine.step(role)

        return step

    steps = {
        PLAIN: adam, OURS: ours(masked), COMPACT: ours(compact), "GAN-LTH": by_state_dict, "ADAPT": one_by_one
    }  # fmt: skip
    return alternate(steps, 3 * rounds, warm=3, calls=calls(channels))


@entry("M1", "our optimizer with masks over torch's default Adam without, a D+G pair; compact: moments of kept weights")
def m1(rounds: int) -> Iterator[Row]:
    for name, target, stretch in ((OURS, 0.6, None), (COMPACT, None, 0.35)):
        for channels in (32, 64, 256):
            value, quartiles = over(optimizers(channels, rounds), name, PLAIN)
            yield Row(name, f"{channels} channels", value, target, stretch, quartiles, lower=True)


@entry("M2", "a masked dense step over the same step without masks")
def m2(rounds: int) -> Iterator[Row]:
    channels = 64
    recipe = recipe_of(channels, "training.batch_size=16", "training.generator_batch_size=32")
    for moments in ("masked", "compact"):
        changed = recipe.model_copy(update={"sparsity": recipe.sparsity.model_copy(update={"moments": moments})})
        trainer = _trainer(changed, build_dataset(recipe), (0.05, 0.05), kernels="dense")
        step = _step(trainer)
        nets: Any = trainer.engine._nets.values()
        if moments == "compact":
            bare = _step(_trainer(recipe, build_dataset(recipe), (1.0, 1.0), kernels="dense"))
        else:
            # the same networks in the same memory: two that are equal differ by more than masks cost
            def bare(step: Any = step, nets: Any = nets) -> None:
                held = [(net, net.before_step, net.after_step) for net in nets]
                for net, _, _ in held:
                    net.before_step = lambda _: None
                    net.after_step = lambda: None
                step()
                for net, before, after in held:
                    net.before_step, net.after_step = before, after

        value, quartiles = over(alternate({"masked": step, "bare": bare}, 2 * rounds, warm=2), "masked", "bare")
        stretch = None if moments == "masked" else 1.0
        yield Row(f"moments {moments}", f"{channels} channels", value, 1.02, stretch, quartiles, lower=True)


@entry("M3", "optimizer and masks in GAN-LTH's manner over ours")
def m3(rounds: int) -> Iterator[Row]:
    for channels in (32, 256):
        value, quartiles = over(optimizers(channels, rounds), "GAN-LTH", OURS)
        yield Row("GAN-LTH", f"{channels} channels", value, 8, 10, quartiles)


@entry("M4", "optimizer and masks in ADAPT's manner over ours")
def m4(rounds: int) -> Iterator[Row]:
    for channels in (32, 256):
        value, quartiles = over(optimizers(channels, rounds), "ADAPT", OURS)
        yield Row("ADAPT", f"{channels} channels", value, 2, 2.5, quartiles)


@entry("M5", "operations dispatched for optimizers, masks and average of a D+G pair")
def m5(rounds: int) -> Iterator[Row]:
    yield Row("masked", "", optimizer_operations(trainer_of(32))["together"], 20, None, lower=True)
    yield Row("compact", "", optimizer_operations(trainer_of(32, "compact"))["together"], None, None, lower=True)


@entry("M6", "the average tensor by tensor through state dicts over ours")
def m6(rounds: int) -> Iterator[Row]:
    for channels in (32, 256):
        trainer = trainer_of(channels)
        other = copy.deepcopy(trainer.ema.module)
        steps = {
            OURS: lambda t=trainer: t.ema.update(t.generator, 10**6),
            "peers": lambda t=trainer, o=other: average_by_state_dict(o, t.generator),
        }
        value, quartiles = over(alternate(steps, 3 * rounds, warm=3, calls=calls(channels)), "peers", OURS)
        yield Row("average", f"{channels} channels", value, 4, 30, quartiles)


@entry("T1", "a topology update with two sorts per layer over ours, counts exact")
def t1(rounds: int) -> Iterator[Row]:
    for channels in (64, 256):
        recipe = recipe_of(channels, "sparsity.method={name: rigl}", "training.batch_size=8")
        trainer = build_trainer(recipe_with(recipe), build_dataset(recipe))
        trainer.engine.init(trainer.probe)
        net = trainer.engine._nets["generator"]
        method, state = build_method(recipe), net.state
        weights = {name: p.detach() for name, p in net.parameters.items()}
        gradients = {name: torch.randn_like(w) for name, w in weights.items()}
        view = NetView(
            role="generator", weights=weights, budget=net.parts.budget, gradients=gradients, momentum={},
            protected=frozenset(), signals={}, step=1, total_steps=1000, round=0,
        )  # fmt: skip
        rng = seeded(0, "bench")
        steps = {
            OURS: lambda m=method, s=state, v=view, r=rng: m.update(s, v, r),
            "peers": lambda w=weights, s=state, g=gradients: update_topology(w, dict(s.masks), g),
        }
        value, quartiles = over(alternate(steps, 3 * rounds, warm=2, calls=calls(channels)), "peers", OURS)
        size = sum(w.numel() for w in weights.values()) / 1e6
        yield Row("magnitude out, gradient in", f"{size:.2g} M weights", value, 8, 50, quartiles)


def recipe_with(recipe: Any) -> Any:
    """The recipe at density 0.05 in both networks, computed dense."""
    training_ = recipe.training.model_copy(update={"kernels": "dense", "fold": "never", "device": "cpu"})
    sparsity = recipe.sparsity.model_copy(update={"density": 0.05, "total_density": None})
    for role in ROLES:
        own = getattr(sparsity, role).model_copy(update={"density": None})
        sparsity = sparsity.model_copy(update={role: own})
    return recipe.model_copy(update={"training": training_, "sparsity": sparsity})


@entry("S1", "a dense 3x3 convolution, forward and backward, over a sparse one")
def s1(rounds: int) -> Iterator[Row]:
    targets = {0.05: (6, 11), 0.1: (4.2, 7), 0.2: (2.4, 4)}
    for channels, size, batch in ((128, 16, 64), (256, 16, 32), (256, 32, 16)):
        x = torch.randn(batch, channels, size, size)
        weight = (torch.randn(channels, channels, 3, 3) * 0.05).requires_grad_()
        gradient = torch.randn(batch, channels, size, size)
        last, by = to_batch_last(x).requires_grad_(), to_batch_last(gradient)
        x.requires_grad_()

        def dense(x: Any = x, weight: Any = weight, gradient: Any = gradient) -> None:
            x.grad = weight.grad = None
            F.conv2d(x, weight, padding=1).backward(gradient)

        steps: dict[str, Callable[[], object]] = {"dense": dense}
        for density in targets:
            pattern = kernels.Pattern(torch.rand(weight.shape) < density)

            def sparse(pattern: Any = pattern, last: Any = last, weight: Any = weight, by: Any = by) -> None:
                last.grad = weight.grad = None
                kernels.conv2d(last, weight, pattern, padding=1, sparse="always").backward(by)

            steps[f"{density}"] = sparse
        times = alternate(steps, rounds, warm=1)
        for density, (target, stretch) in targets.items():
            value, quartiles = over(times, "dense", f"{density}")
            case = f"{channels} channels, {size}x{size}, batch {batch}"
            yield Row(case, f"density {density}", value, target, stretch, quartiles)


@entry("S2", "SparseProp's convolution over ours; it is no package, so it is not measured")
def s2(rounds: int) -> Iterator[Row]:
    for density, target in ((0.05, 2), (0.1, 2.5)):
        yield Row("SparseProp", f"density {density}", None, target, 4)


@entry("S3", "a whole training step in the plain style of the field over a sparse one")
def s3(rounds: int) -> Iterator[Row]:
    aims = dict(zip(PAIRS, ((5.5, 9), (4.3, 6.5), (3.2, 5)), strict=True))
    for pair in narrowed(PAIRS, at_pair):
        row = training(256, rounds).against_plain[sparse_name(pair)]
        yield Row("256 channels", at_pair(pair), row.faster, *aims[pair], row.quartiles)


#: channels, and densities of generator and discriminator
STEPS = (*((256, pair) for pair in PAIRS), (64, PAIRS[0]))


def steps() -> tuple[tuple[int, tuple[float, float]], ...]:
    """Those of them that are asked for."""
    wide = narrowed((256, 64), lambda channels: f"{channels} channels")
    return tuple((c, pair) for c, pair in narrowed(STEPS, lambda step: at_pair(step[1])) if c in wide)


@entry("S4", "our best dense float32 step over a sparse one, by densities of generator and discriminator")
def s4(rounds: int) -> Iterator[Row]:
    aims = dict(zip(STEPS, ((3, 5), (2.4, 5), (1.8, 5), (1.7, 3)), strict=True))
    for channels, pair in steps():
        row = training(channels, rounds).against_best[sparse_name(pair)]
        yield Row(f"{channels} channels", at_pair(pair), row.faster, *aims[channels, pair], row.quartiles)


@entry("S6", "our dense bf16 step over a sparse float32 one; slow where the CPU has no instructions for bf16")
def s6(rounds: int) -> Iterator[Row]:
    ran = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "bf16 without instructions for it"
    for channels, pair in steps():
        row = training(channels, rounds).against(BF16)[sparse_name(pair)]
        yield Row(f"{channels} channels", at_pair(pair), row.faster, None, None, row.quartiles, ran=ran)


@entry("S7", "a sparse float32 step, and our dense bf16 one, over a sparse bf16 one in blocks of 2x2")
def s7(rounds: int) -> Iterator[Row]:
    """Only where the processor multiplies pairs of bf16 in one instruction."""
    aims = {(256, PAIRS[2]): {"sparse float32": (1.5, 2), "dense bf16": (1.8, 2.4)}}
    for channels, pair in steps():
        found, own = training(channels, rounds), sparse_name(pair, bf16=True)
        for case, reference in (("sparse float32", sparse_name(pair)), ("dense bf16", BF16)):
            target, stretch = aims.get((channels, pair), {}).get(case, (None, None))
            if own in found.against_plain:
                row = found.against(reference)[own]
                yield Row(f"{channels} channels: {case}", at_pair(pair), row.faster, target, stretch, row.quartiles)
            else:
                note = "no instruction for pairs of bf16 here"
                yield Row(f"{channels} channels: {case}", at_pair(pair), None, target, stretch, note=note)


@entry("S5", "bytes of optimizer state: dense over compact, 256 channels, density 0.05/0.05")
def s5(rounds: int) -> Iterator[Row]:
    for weights, target in (("convolutions", 6.0), ("all", 18.0)):
        sizes = []
        for moments in ("masked", "compact"):
            recipe = recipe_of(256, "training.batch_size=8", f"sparsity.weights={weights}")
            changed = recipe.model_copy(update={"sparsity": recipe.sparsity.model_copy(update={"moments": moments})})
            trainer = build_trainer(recipe_with(changed), build_dataset(recipe))
            trainer.engine.init(trainer.probe)
            _give_gradients(trainer)
            for role in ROLES:
                trainer.engine.step(role)
            sizes.append(sum(optimizer_bytes(trainer.optimizers[role]) for role in ROLES))
        note = f"{sizes[0] / 1e6:.1f} MB over {sizes[1] / 1e6:.1f} MB"
        yield Row(f"masked: {weights}", "", sizes[0] / sizes[1], target, 18, note=note)


@entry("D1", "a training step in the plain style over our best dense float32 one")
def d1(rounds: int) -> Iterator[Row]:
    for channels in narrowed((256, 64), lambda channels: f"{channels} channels"):
        found = training(channels, rounds)
        row = found.against_plain[found.best_dense]
        yield Row("best float32", f"{channels} channels", row.faster, 1.5, 2.2, row.quartiles)


@entry("D2", "a training step in the plain style over our dense bf16 one")
def d2(rounds: int) -> Iterator[Row]:
    for channels in narrowed((256, 64), lambda channels: f"{channels} channels"):
        row = training(channels, rounds).against_plain[BF16]
        yield Row("bf16", f"{channels} channels", row.faster, 2.5, 3.8, row.quartiles)
