"""Dense ways to train the same networks, to be compared with: the plain style of the field, and exact rewrites.

:class:`PlainStep` does what public sparse-GAN codes do: one discriminator call on real and one on generated images, the
generator's graph built although nobody needs it, weight gradients of the discriminator computed in the generator's
step and thrown away, an optimizer that loops over tensors in Python or launches one kernel per operation, masks
multiplied tensor by tensor, shortcuts computed on the larger side of a block as the papers draw them.

:func:`fold` goes the other way: nearest upsampling and the 3x3 convolution after it become one transposed 4x4
convolution of stride 2, a 3x3 convolution and the average pooling after it one 4x4 convolution of stride 2. Same
results, fewer multiplications; a dense network's best form in float32.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.backbones.layers import DownBlock, FirstDownBlock, UpBlock, normalise, upsample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.base import PrunableWeight
    from gancompress.sparsity.state import Role
    from gancompress.training.loop import Trainer

__all__ = ["PlainStep", "fold", "folded_down", "folded_up", "publish"]


def folded_up(weight: Tensor) -> Tensor:
    """Return ``[C, R, 4, 4]`` such that a transposed convolution (stride 2, padding 1) is upsampling, then ``weight``.

    Args:
        weight: ``[R, C, 3, 3]`` of a convolution with padding 1 after nearest x2 upsampling.
    """
    # A low pixel (i, j) covers 2x2 high ones, so what it adds to the result is weight spread over a 2x2 box.
    flipped = weight.transpose(0, 1).flip(2, 3)
    box = F.pad(flipped, (0, 1, 0, 1)) + F.pad(flipped, (1, 0, 0, 1))
    return box + torch.roll(box, 1, 2)


def folded_down(weight: Tensor) -> Tensor:
    """Return ``[R, C, 4, 4]`` such that a convolution (stride 2, padding 1) is ``weight``, then 2x2 average pooling.

    Args:
        weight: ``[R, C, 3, 3]`` of a convolution with padding 1.
    """
    box = F.pad(weight, (0, 1, 0, 1)) + F.pad(weight, (1, 0, 0, 1))
    return (box + torch.roll(box, 1, 2)) * 0.25


def _up(conv: nn.Conv2d, x: Tensor) -> Tensor:
    weight = conv.__dict__.get(_FROZEN)
    return F.conv_transpose2d(x, folded_up(conv.weight) if weight is None else weight, conv.bias, stride=2, padding=1)


def _down(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, folded_down(conv.weight), conv.bias, stride=2, padding=1)


#: where a generator that is not trained any more keeps its folded weight
_FROZEN = "_gancompress_folded"


def _up_block(self: UpBlock, x: Tensor, condition: Tensor | None = None) -> Tensor:
    h = _up(self.conv1, F.relu(normalise(self.norm1, x, condition)))
    h = self.conv2(F.relu(normalise(self.norm2, h, condition)))
    out: Tensor = h + upsample(self.shortcut(x))
    return out


def _first_down_block(self: FirstDownBlock, x: Tensor) -> Tensor:
    h = _down(self.conv2, F.relu(self.conv1(x)))
    out: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
    return out


def _down_block(self: DownBlock, x: Tensor) -> Tensor:
    h = F.relu(self.conv1(F.relu(x)))
    h = _down(self.conv2, h) if self.down else self.conv2(h)
    x = F.avg_pool2d(x, 2) if self.down else x
    return h + (x if self.shortcut is None else self.shortcut(x))


def _published_up_block(self: UpBlock, x: Tensor, condition: Tensor | None = None) -> Tensor:
    h = self.conv1(upsample(F.relu(normalise(self.norm1, x, condition))))
    h = self.conv2(F.relu(normalise(self.norm2, h, condition)))
    out: Tensor = h + self.shortcut(upsample(x))
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
    """Compute the residual blocks of ``network`` in folded form; return how many there were.

    Args:
        network: either network.
        frozen: fold the weights of a generator now and for good, instead of in every pass.
    """
    for block in network.modules() if frozen else ():
        if isinstance(block, UpBlock):
            weight = block.conv1.weight
            last = weight.is_contiguous(memory_format=torch.channels_last)
            memory = torch.channels_last if last else torch.contiguous_format
            block.conv1.__dict__[_FROZEN] = folded_up(weight.detach()).contiguous(memory_format=memory)
    return _replace(network, {UpBlock: _up_block, FirstDownBlock: _first_down_block, DownBlock: _down_block})


def publish(network: nn.Module) -> int:
    """Compute the residual blocks of ``network`` in the order that the papers draw; return how many there were."""
    return _replace(network, {UpBlock: _published_up_block, DownBlock: _published_down_block})


class PlainStep:
    """One training step in the plain style of the field, on the networks of a trainer whose engine has its masks.

    Args:
        trainer: gives networks, masks, losses and batches; its own step must not be called as well.
        weights: the masked weights of both networks.
    """

    def __init__(self, trainer: Trainer, weights: Mapping[Role, Mapping[str, PrunableWeight]]) -> None:
        self._trainer = trainer
        self._networks: dict[Role, nn.Module] = {
            "generator": trainer.generator,
            "discriminator": trainer.discriminator,
        }
        for network in self._networks.values():
            publish(network)
        self._optimizers = {
            role: torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9), foreach=True)
            for role, network in self._networks.items()
        }
        self._masks = {
            role: [(w.parameter, trainer.engine.state(role).masks[name].float()) for name, w in weights[role].items()]
            for role in self._networks
        }
        self._average = [p.detach().clone() for p in trainer.generator.parameters()]
        self._draw = 0

    def __call__(self) -> None:
        """Take ``discriminator_steps`` steps of the discriminator and one of the generator."""
        t, config = self._trainer, self._trainer.config
        for _ in range(config.discriminator_steps):
            real = t.source.real(config.batch_size, self._draw)
            latents = t.source.latents(config.batch_size, "discriminator", self._draw)
            self._draw += 1
            self._optimizers["discriminator"].zero_grad()
            fake = t.generator(latents.z, latents.labels).detach()
            real_logits = t.discriminator(real.images, real.labels)
            fake_logits = t.discriminator(fake, latents.labels)
            self._finish("discriminator", t.objective.loss.discriminator(real_logits, fake_logits))
        latents = t.source.latents(config.generator_batch_size or config.batch_size, "generator", self._draw)
        self._optimizers["generator"].zero_grad()
        logits = t.discriminator(t.generator(latents.z, latents.labels), latents.labels)
        self._finish("generator", t.objective.loss.generator(logits))
        with torch.no_grad():
            for average, live in zip(self._average, t.generator.parameters(), strict=True):
                average.mul_(0.999).add_(live, alpha=0.001)

    def _finish(self, role: Role, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizers[role].step()
        for parameter, mask in self._masks[role]:
            parameter.data.mul_(mask)
