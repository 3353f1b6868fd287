"""The forward and backward pass of each player: as written, compiled, or recorded as a CUDA graph."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.backbones.base import blank_inputs
from gancompress.errors import RunError
from gancompress.training.batches import Latents, RealBatch
from gancompress.training.graphs import RecordedPass
from gancompress.training.objective import DiscriminatorTerms, Objective, frozen, unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.recipe.schema import TrainingConfig
    from gancompress.sparsity.state import Role
    from gancompress.training.graphs import Recorder

__all__ = ["ForwardBackward"]


class ForwardBackward:
    """Computes the losses of both players and leaves their gradients in ``.grad``; steps nothing, waits for nothing.

    The discriminator's pass builds no graph of the generator, and the generator's computes no gradients of the
    discriminator's weights. ``record`` says how passes are recorded: as CUDA graphs, except in tests.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        objective: Objective,
        config: TrainingConfig,
        record: Recorder | None = None,
    ) -> None:
        self._generator, self._discriminator = generator, discriminator
        self._objective = objective
        self._config = config
        # the compiled module is another object around the same one: names, state and copies are those of the original
        self._called: dict[Role, nn.Module] = {"generator": generator, "discriminator": discriminator}
        if config.compile:
            self._called = {role: _compiled(network) for role, network in self._called.items()}
        self._recorded: dict[Role, RecordedPass] = {}
        if config.cuda_graphs:
            self._recorded["discriminator"] = RecordedPass(
                self._work_of_discriminator, discriminator, (generator,), record
            )
            self._recorded["generator"] = RecordedPass(self._work_of_generator, generator, (discriminator,), record)
        self._number = 0

    def discriminator(self, real: RealBatch, latents: Latents, draw: int) -> list[DiscriminatorTerms]:
        """Compute the ``draw``-th discriminator step's gradients and return its terms, one per micro-batch."""
        self._number = draw
        inputs = (*real, *latents)
        # what happens now and then is no part of a recording
        recorded = self._recorded.get("discriminator")
        if recorded is None or self._objective.penalties(draw) or self._objective.teacher is not None:
            flat = self._work_of_discriminator(inputs)
        else:
            flat = recorded(inputs)
        return [DiscriminatorTerms(*flat[start : start + 3]) for start in range(0, len(flat), 3)]

    def generator(self, latents: Latents, step: int, real: RealBatch | None = None) -> list[tuple[Tensor, ...]]:
        """Compute the ``step``-th generator step's gradients and return, per micro-batch, its loss and then its terms.

        Args:
            latents: of the images to make.
            step: index of the generator step in the run.
            real: as many real images, for a loss that compares.
        """
        self._number = step
        inputs = (*latents, *(real or ()))
        recorded = self._recorded.get("generator")
        unrecorded = recorded is None or self._objective.follows_paths(step)
        flat = self._work_of_generator(inputs) if unrecorded or recorded is None else recorded(inputs)
        each = len(flat) // self._config.accumulate
        return [tuple(flat[start : start + each]) for start in range(0, len(flat), each)]

    def _work_of_discriminator(self, inputs: Sequence[Tensor | None]) -> list[Tensor]:
        real, latents = RealBatch(*inputs[:2]), Latents(*inputs[2:])  # type: ignore[arg-type]
        parts = self._config.accumulate
        _forget_gradients(self._discriminator)
        found: list[Tensor] = []
        micros = zip(_chunks(real, parts), _chunks(latents, parts), strict=True)
        for micro, (real_part, latent_part) in enumerate(micros):
            with _explained(self._config.compile):
                with torch.no_grad():
                    fake = self._objective.generate(self._called["generator"], latent_part)
                terms = self._objective.discriminator(
                    self._called["discriminator"], real_part, fake, latent_part.labels, self._number, micro
                )
                (terms.loss / parts).backward()  # type: ignore[no-untyped-call]
            found += [term.detach() for term in terms]
        return found

    def _work_of_generator(self, inputs: Sequence[Tensor | None]) -> list[Tensor]:
        latents = Latents(*inputs[:2])  # type: ignore[arg-type]
        parts = self._config.accumulate
        reals = _chunks(RealBatch(*inputs[2:]), parts) if inputs[2:] else [None] * parts  # type: ignore[arg-type]
        _forget_gradients(self._generator)
        found: list[Tensor] = []
        with frozen(self._discriminator), _explained(self._config.compile):
            for micro, (part, real) in enumerate(zip(_chunks(latents, parts), reals, strict=True)):
                loss, *terms = self._objective.generator_terms(
                    self._called["generator"], self._called["discriminator"], part, self._number, micro, real
                )
                (loss / parts).backward()  # type: ignore[no-untyped-call]
                found += [loss.detach(), *terms]
        return found

    def show(self, device: torch.device) -> None:
        """Take two images through both networks as in training, and change nothing: layers see their inputs."""
        latents, labels = blank_inputs(self._generator, 2)
        with torch.no_grad(), self._objective.autocast(device):
            unchanged(self._discriminator, unchanged(self._generator, latents, labels).float(), labels)

    def images(self, role: Role, world: int) -> int:
        """Return how many images one process takes through a network at once in that network's own step."""
        config = self._config
        batch = config.batch_size
        if role == "generator":
            batch = config.generator_batch_size or batch
        elif config.joint_batch:
            batch *= 2
        return max(1, batch // (world * config.accumulate))


def _compiled(network: nn.Module) -> nn.Module:
    # batches of a run have few sizes: one compilation for each is faster than one for all
    made: Any = torch.compile(network, dynamic=False)
    assert isinstance(made, nn.Module)
    return made


@contextlib.contextmanager
def _explained(compiles: bool) -> Iterator[None]:
    """Say what can be done when torch cannot compile the networks here."""
    if not compiles:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"torch.compile cannot compile these networks here ({reason}); use --set training.compile=false"
        ) from error


def _forget_gradients(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.grad = None


def _chunks(batch: Any, parts: int) -> list[Any]:
    """Cut a batch of (images or latents, labels) into equal micro-batches."""
    if parts == 1:
        return [batch]
    first = batch[0].chunk(parts)
    second = batch[1].chunk(parts) if batch[1] is not None else (None,) * parts
    return [type(batch)(a, b) for a, b in zip(first, second, strict=True)]
