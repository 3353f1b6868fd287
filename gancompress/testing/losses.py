"""What every loss must do: two scalars from logits that pull the right way, whatever the batch is cut into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.components.registry import LOSSES
from gancompress.evaluation.sandbox import forked_rng
from gancompress.objectives.base import Loss
from gancompress.testing.conformance import ConfiguredSuite, Once, promise, require, skip_check
from gancompress.testing.datasets import from_two_random_states

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LossSuite"]

_BATCH = 8


def _logits(seed: int, *, scale: float = 0.1) -> Tensor:
    return (scale * torch.randn(_BATCH, generator=torch.Generator().manual_seed(seed))).requires_grad_()


class LossSuite(ConfiguredSuite):
    """All checks of one loss."""

    registry = LOSSES

    def __init__(self, component: str | type, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(component, settings)
        self.loss: Once[Loss[Any]] = Once(lambda: self.target(self.config()))

    def _both(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        loss = self.loss.get()
        return {"discriminator": loss.discriminator(real, fake), "generator": self._generator(real, fake)}

    def _generator(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.loss.get()
        found: Tensor = loss.generator(fake, real) if loss.compares else loss.generator(fake)
        return found

    @promise
    def scalars(self) -> None:
        """Both losses are finite float32 scalars, from float32 and bfloat16 logits."""
        for dtype in (torch.float32, torch.bfloat16):
            for side, value in self._both(_logits(1).to(dtype), _logits(2).to(dtype)).items():
                where = f"{side}() of {str(dtype).removeprefix('torch.')} logits"
                require(isinstance(value, Tensor), f"{where} gives a {type(value).__name__}, expected a tensor")
                require(value.shape == (), f"{where} has shape {tuple(value.shape)}, expected a scalar: take the mean")
                require(value.dtype is torch.float32, f"{where} is {value.dtype}: compute with logits.float()")
                require(bool(value.isfinite()), f"{where} is {value.item()}")
                require(value.requires_grad, f"{where} has no gradient")

    @promise
    def direction(self) -> None:
        """Real logits are pulled up and fake ones down; the generator pulls its own up."""
        real, fake = _logits(1), _logits(2)
        pulls = torch.autograd.grad(self.loss.get().discriminator(real, fake), (real, fake))
        require(bool(pulls[0].sum() < 0), "the discriminator's loss does not pull the logits of real images up")
        require(bool(pulls[1].sum() > 0), "the discriminator's loss does not pull the logits of fake images down")
        (pull,) = torch.autograd.grad(self._generator(real, fake), fake)
        require(bool(pull.sum() < 0), "the generator's loss does not pull the logits of its images up")

    @promise
    def mean(self) -> None:
        """The loss of a batch is the mean of the losses of its halves."""
        real, fake, half = _logits(1, scale=2), _logits(2, scale=2), _BATCH // 2
        parts = [self._both(real[part], fake[part]) for part in (slice(half), slice(half, None))]
        for side, whole in self._both(real, fake).items():
            mean = (parts[0][side] + parts[1][side]) / 2
            require(
                torch.allclose(whole, mean, rtol=1e-5, atol=1e-6),
                f"{side}() of a batch is {whole.item():.6g}, the mean of its halves {mean.item():.6g}: micro-batches "
                "and processes would change what is trained",
            )

    @promise
    def extremes(self) -> None:
        """Logits of ±10,000 give finite losses and gradients."""
        for size in (1e4, -1e4):
            real, fake = (torch.full((_BATCH,), sign * size, requires_grad=True) for sign in (1, -1))
            for side, value in self._both(real, fake).items():
                require(bool(value.isfinite()), f"{side}() is {value.item()} at logits of {size:g} and {-size:g}")
                pulls = torch.autograd.grad(value, (real, fake), allow_unused=True)
                finite = all(bool(pull.isfinite().all()) for pull in pulls if pull is not None)
                require(finite, f"the gradient of {side}() is not finite at logits of {size:g} and {-size:g}")

    @promise
    def random_state(self) -> None:
        """Nothing depends on a global random state, and none is moved."""

        def found() -> list[float]:
            penalty, _ = self._compute_penalty(7)
            values = [*self._both(_logits(1), _logits(2)).values(), *([] if penalty is None else [penalty])]
            return [value.item() for value in values]

        one, other = from_two_random_states(found, "use the rng that penalty() is given")
        require(one == other, f"{one}, then {other} with another global random state")

    def _compute_penalty(self, seed: int) -> tuple[Tensor | None, nn.Module]:
        network = _discriminator()
        real, fake = (torch.rand(_BATCH, 1, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (3, 4))

        def logits(images: Tensor) -> Tensor:
            out: Tensor = network(images).flatten()
            return out

        return self.loss.get().penalty(logits, real, fake, torch.Generator().manual_seed(seed)), network

    @promise
    def penalty(self) -> None:
        """Its penalty is a finite scalar, fixed by the rng, that reaches weights."""
        if type(self.loss.get()).penalty is Loss.penalty:
            skip_check("it has no penalty")
        penalty, network = self._compute_penalty(7)
        if penalty is None:
            skip_check("its settings turn the penalty off")
            return
        require(penalty.shape == (), f"penalty() has shape {tuple(penalty.shape)}, expected a scalar")
        require(bool(penalty.isfinite()), f"penalty() is {penalty.item()}")
        pulls = torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)
        reached = any(pull is not None and bool(pull.count_nonzero()) for pull in pulls)
        require(reached, "penalty() has no gradient in the discriminator's weights: use input_gradients()")
        again, _ = self._compute_penalty(7)
        require(again is not None and torch.equal(penalty, again), "penalty() differs with the same rng")


def _discriminator() -> nn.Module:
    with forked_rng(5):  # modules draw from the global state, which is not the loss's doing
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))
