"""Two tiny networks, a dynamic method written independently of the package's own, and the loop of the design."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gancompress.backbones.base import prunable_weights
from gancompress.methods.base import Measure, Method, MethodConfig, NetView, Plan
from gancompress.recipe.schema import EMAConfig
from gancompress.sparsity.state import Budget, Role, SparseState
from gancompress.training.ema import SparseEMA
from gancompress.training.engine import Engine, RoleParts, UpdateReport

ROLES: tuple[Role, Role] = ("generator", "discriminator")


class ToyGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 5 * 4 * 4)
        self.first = nn.Conv2d(5, 7, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.last = nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.project(z).view(-1, 5, 4, 4)
        return torch.tanh(self.last(torch.relu(self.norm(self.first(h)))))


class ToyDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(8, 8, 3, padding=1, stride=2))
        self.out = spectral_norm(nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(torch.relu(self.first(x))))
        return self.out(h.mean((2, 3)))[:, 0]


class ToyConfig(MethodConfig):
    every: int = 3
    drop: float = 0.3
    roles: tuple[str, ...] = ROLES
    window: int = 0
    skip: bool = False


def kth_mask(scores: Tensor, k: int) -> Tensor:
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().argsort(descending=True, stable=True)[:k]] = True
    return mask.view(scores.shape)


class Toy(Method[ToyConfig]):
    """RigL in a few lines: drop by magnitude, grow by gradient; the first masks are random."""

    Config = ToyConfig

    @property
    def measure(self) -> Measure | None:
        return Measure(every=2, window=self.config.window) if self.config.window else None

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        masks = {n: kth_mask(torch.rand(w.shape, generator=rng), budget.counts[n]) for n, w in net.weights.items()}
        return SparseState(masks, dict(budget.counts), memory={"calls": 0, "rate": 0.1, "trace": torch.zeros(2)})

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        if role not in self.config.roles or step % self.config.every:
            return Plan.NOTHING
        return Plan.UPDATE | Plan.DENSE_GRADIENT | (Plan.SKIP_STEP if self.config.skip else Plan.NOTHING)

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        assert net.gradients is not None
        masks = {}
        for name, mask in state.masks.items():
            k = state.budgets[name]
            kept = kth_mask(net.weights[name].abs().masked_fill(~mask, -1), k - round(self.config.drop * k))
            grow = net.gradients[name].abs().nan_to_num(nan=-1.0).masked_fill(kept, -2)
            masks[name] = kept | kth_mask(grow, k - int(kept.sum()))
        memory = {**state.memory, "calls": int(state.memory["calls"]) + 1, "trace": torch.rand(2, generator=rng)}
        return state.replace(masks=masks, memory=memory)


def budget_of(weights: dict, density: float) -> Budget:
    sizes = {name: w.parameter.numel() for name, w in weights.items()}
    counts = {name: max(1, round(density * size)) for name, size in sizes.items()}
    return Budget(density, counts, sizes, "uniform")


@dataclasses.dataclass
class Toys:
    """Everything one toy run is made of."""

    networks: dict[Role, nn.Module]
    optimizers: dict[Role, torch.optim.Optimizer]
    engine: Engine
    ema: SparseEMA
    n_d: int = 1
    total: int = 1000

    @property
    def generator(self) -> nn.Module:
        return self.networks["generator"]

    @property
    def discriminator(self) -> nn.Module:
        return self.networks["discriminator"]

    def backward(self, role: Role, step: int, k: int = 0) -> None:
        draw = torch.Generator().manual_seed(1000 * step + 10 * k + (role == "generator"))
        z = torch.randn(4, 6, generator=draw)
        self.optimizers[role].zero_grad(set_to_none=True)
        if role == "discriminator":
            real = torch.rand(4, 3, 4, 4, generator=draw)
            with torch.no_grad():
                fake = self.generator(z)
            d = self.discriminator
            (torch.relu(1 - d(real)).mean() + torch.relu(1 + d(fake)).mean()).backward()
            return
        self.discriminator.requires_grad_(False)
        (-self.discriminator(self.generator(z)).mean()).backward()
        self.discriminator.requires_grad_(True)

    def step(self, step: int, round: int = 0) -> list[UpdateReport]:
        engine = self.engine
        plans = {role: engine.plan(role, step, self.total) for role in ROLES}
        for k in range(self.n_d):
            plan = plans["discriminator"] if k == self.n_d - 1 else Plan.NOTHING
            engine.expect("discriminator", plan)
            self.backward("discriminator", step, k)
            engine.step("discriminator", plan)
        engine.expect("generator", plans["generator"])
        self.backward("generator", step)
        engine.step("generator", plans["generator"])
        self.ema.update(self.generator, step)
        return [
            engine.update(role, step=step, total_steps=self.total, round=round)
            for role, plan in plans.items()
            if Plan.UPDATE in plan
        ]

    def bytes(self) -> bytes:
        """Every tensor that training changes, as bytes."""
        parts = [*self.generator.state_dict().values(), *self.discriminator.state_dict().values()]
        parts += self.ema.state_dict()[0].values()
        for optimizer in self.optimizers.values():
            for state in optimizer.state.values():
                parts += [v for v in state.values() if isinstance(v, Tensor)]
        parts += self.engine.state_dict()[0].values()
        return b"".join(p.detach().contiguous().numpy().tobytes() for p in parts)


def make(
    method: Method | None = None,
    *,
    density: float = 0.3,
    optimizer=lambda p: torch.optim.Adam(p, 1e-2, betas=(0.0, 0.9)),
    ema: EMAConfig | None = None,
    n_d: int = 1,
    seed: int = 0,
    init: bool = True,
    **engine,
) -> Toys:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks: dict[Role, nn.Module] = {"generator": ToyGenerator(), "discriminator": ToyDiscriminator()}
    optimizers: dict[Role, torch.optim.Optimizer] = {r: optimizer(n.parameters()) for r, n in networks.items()}
    average = SparseEMA(networks["generator"], ema or EMAConfig(decay=0.9))
    parts = {}
    for role, network in networks.items():
        weights = {n: w for n, w in prunable_weights(network).items() if w.kind == "convolution"}
        parts[role] = RoleParts(network, optimizers[role], budget_of(weights, density), weights)
    held = Engine(method or Toy(ToyConfig()), parts, seed=seed, ema=average, **engine)
    toys = Toys(networks, optimizers, held, average, n_d=n_d)
    if init:
        held.init()
    return toys


def off_mask(toys: Toys, role: Role) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Parameter and masked positions per prunable weight."""
    weights = prunable_weights(toys.networks[role])
    return {name: (weights[name].parameter, ~mask) for name, mask in toys.engine.state(role).masks.items()}
