"""Other ways to train the same networks, to be compared with: the plain style of the field, and each switch alone.

:class:`PlainStep` does what public sparse-GAN codes do: one discriminator call on real and one on generated images, the
generator's graph built although nobody needs it, weight gradients of the discriminator computed in the generator's
step and thrown away, an optimizer that launches one kernel per operation, masks and averages tensor by tensor,
shortcuts computed on the larger side of a block as the papers draw them. A :class:`Style` turns single ones of these
off.
"""

from __future__ import annotations

import contextlib
import dataclasses
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.backbones import folding
from gancompress.backbones.layers import DownBlock, FirstDownBlock, UpBlock, normalise
from gancompress.errors import RecipeError
from gancompress.training.latent import LatentPlay
from gancompress.training.objective import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import PrunableWeight
    from gancompress.sparsity.state import Role
    from gancompress.training.loop import Trainer

__all__ = ["PlainStep", "Style", "fold", "publish"]


def _published_up_block(self: UpBlock, x: Tensor, condition: Tensor | None = None) -> Tensor:
    h = self.conv1(F.interpolate(F.relu(normalise(self.norm1, x, condition)), scale_factor=2.0))
    h = self.conv2(F.relu(normalise(self.norm2, h, condition)))
    out: Tensor = h + self.shortcut(F.interpolate(x, scale_factor=2.0))
    return out


def _published_first_down_block(self: FirstDownBlock, x: Tensor) -> Tensor:
    h = F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
    out: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
    return out


def _published_down_block(self: DownBlock, x: Tensor) -> Tensor:
    h: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
    if self.shortcut is not None:
        x = self.shortcut(x)
    return F.avg_pool2d(h, 2) + F.avg_pool2d(x, 2) if self.down else h + x


def _replace(network: nn.Module, forwards: Mapping[type[nn.Module], object]) -> int:
    count = 0
    for module in network.modules():
        forward = forwards.get(type(module))
        if callable(forward):
            module.__dict__["forward"] = MethodType(forward, module)
            count += 1
    return count


def fold(network: nn.Module, *, frozen: bool = False) -> int:
    """Fold every convolution of ``network`` beside a change of resolution; return how many there were.

    Args:
        network: either network.
        frozen: fold the weights now and for good, for a network in evaluation mode, instead of in every pass.
    """
    found = list(folding.resampling(network))
    for _, conv, kind in found:
        how = folding.attach(conv, kind, 0.0)
        if frozen:
            weight = conv.weight.detach()
            last = weight.is_contiguous(memory_format=torch.channels_last)
            memory = torch.channels_last if last else torch.contiguous_format
            how.kernel = folding.folded(weight, kind).contiguous(memory_format=memory)
    return len(found)


def publish(network: nn.Module) -> int:
    """Compute the residual blocks of ``network`` in the order that the papers draw; return how many there were."""
    blocks = {
        UpBlock: _published_up_block,
        FirstDownBlock: _published_first_down_block,
        DownBlock: _published_down_block,
    }
    return _replace(network, blocks)


@dataclasses.dataclass(frozen=True)
class Style:
    """What a plain step does better than the field, one switch each.

    Attributes:
        no_graph: build no graph of the generator in the discriminator's step.
        no_gradients: compute no weight gradients of the discriminator in the generator's step.
        joint: one discriminator call on real and generated images.
        fused: a fused optimizer.
        batched: masks, and the average, of all tensors in one call.
        published: compute blocks in the order that the papers draw; off where they are folded.
        compiled: ``torch.compile`` of both networks.
    """

    no_graph: bool = False
    no_gradients: bool = False
    joint: bool = False
    fused: bool = False
    batched: bool = False
    published: bool = True
    compiled: bool = False


class PlainStep:
    """One training step in the plain style of the field, on the networks of a trainer whose engine has its masks.

    Args:
        trainer: gives networks, masks, losses and batches, memory format, precision and folding; its own step must
            not be called as well.
        weights: the masked weights of both networks.
        style: single improvements.
    """

    def __init__(
        self,
        trainer: Trainer,
        weights: Mapping[Role, Mapping[str, PrunableWeight]],
        style: Style | None = None,
    ) -> None:
        if not isinstance(trainer.play, LatentPlay):
            raise RecipeError("bench train times steps of the task latent, and this recipe has another")
        self._trainer, self._play, self._style = trainer, trainer.play, style or Style()
        networks: dict[Role, nn.Module] = {"generator": trainer.generator, "discriminator": trainer.discriminator}
        if self._style.published:
            for network in networks.values():
                publish(network)
        trainer.choose()
        how = {"fused": True} if self._style.fused else {"foreach": True}
        self._optimizers = {
            role: torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9), **how)
            for role, network in networks.items()
        }
        self._masks = {
            role: [(w.parameter, trainer.engine.state(role).masks[name].float()) for name, w in weights[role].items()]
            for role in networks
        }
        self._live: list[Tensor] = list(trainer.generator.parameters())
        self._average = [p.detach().clone() for p in self._live]
        compiled: Any = torch.compile
        self._called = {
            role: compiled(network, dynamic=False) if self._style.compiled else network
            for role, network in networks.items()
        }
        self._draw = 0

    def __call__(self) -> None:
        """Take ``discriminator_steps`` steps of the discriminator and one of the generator."""
        t, config, style = self._trainer, self._trainer.config, self._style
        generator, discriminator = self._called["generator"], self._called["discriminator"]
        for _ in range(config.discriminator_steps):
            real = self._play.source.real(config.batch_size, self._draw)
            latents = self._play.source.latents(config.batch_size, "discriminator", self._draw)
            self._draw += 1
            self._optimizers["discriminator"].zero_grad()
            with self._play.objective.autocast(t.device):
                with torch.no_grad() if style.no_graph else contextlib.nullcontext():
                    fake = generator(latents.z, latents.labels).detach()
                if style.joint:
                    both = [labels for labels in (real.labels, latents.labels) if labels is not None]
                    logits = discriminator(torch.cat((real.images, fake)), torch.cat(both) if both else None)
                    real_logits, fake_logits = logits[: len(fake)], logits[len(fake) :]
                else:
                    real_logits = discriminator(real.images, real.labels)
                    fake_logits = discriminator(fake, latents.labels)
            self._finish("discriminator", self._play.objective.loss.discriminator(real_logits, fake_logits))
        latents = self._play.source.latents(config.generator_batch_size or config.batch_size, "generator", self._draw)
        self._optimizers["generator"].zero_grad()
        with frozen(t.discriminator) if style.no_gradients else contextlib.nullcontext():
            with self._play.objective.autocast(t.device):
                logits = [discriminator(generator(latents.z, latents.labels), latents.labels)]
                if self._play.objective.loss.compares:
                    with torch.no_grad():
                        logits.append(discriminator(real.images, real.labels))
            self._finish("generator", self._play.objective.loss.generator(*logits))
        with torch.no_grad():
            if style.batched:
                torch._foreach_lerp_(self._average, self._live, 0.001)
                return
            for average, live in zip(self._average, self._live, strict=True):
                average.mul_(0.999).add_(live, alpha=0.001)

    def _finish(self, role: Role, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizers[role].step()
        with torch.no_grad():
            if self._style.batched and self._masks[role]:
                weights, masks = zip(*self._masks[role], strict=True)
                torch._foreach_mul_(list(weights), list(masks))
                return
            for parameter, mask in self._masks[role]:
                parameter.mul_(mask)
