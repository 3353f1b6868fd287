"""The checks of tasks: what training, checkpoints and costs rely on, looked at in two steps of a small run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from gancompress.components.registry import TASKS
from gancompress.errors import BackboneError
from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.methods.base import Round
from gancompress.recipe.load import parse_recipe
from gancompress.sparsity.state import role_of
from gancompress.testing.conformance import ConfiguredSuite, Once, promise, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.recipe.schema import Recipe
    from gancompress.training.loop import Trainer

__all__ = ["TaskSuite"]

_NAME: Final = "conformance-task"
#: drawn images, as :meth:`Task.drawn` is told of them, and networks to try, with losses that suit them
_DRAWN: Final = {"name": "shapes", "resolution": 32, "channels": 3, "classes": 1, "labelled": False, "images": 12}
_NETWORKS: Final = (
    ({"name": "dcgan", "channels": 4, "latent_dim": 8}, "hinge"),
    ({"name": "unet", "channels": 2, "discriminator_channels": 2, "norm": "instance"}, "non-saturating"),
    ({"name": "resnet", "channels": 2, "discriminator_channels": 2, "blocks": 1}, "least-squares"),
)
_STEPS: Final = Round("conformance", 4)


class TaskSuite(ConfiguredSuite):
    """All checks of one task."""

    registry = TASKS

    def __init__(self, component: str | type, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(component, settings)
        self.task = Once(lambda: self.target(self.config()))
        self.recipe = Once(self._recipe)

    def _recipe(self) -> Recipe:
        """Return a recipe with the first networks that the task takes."""
        refused = ""
        data = self.task.get().drawn(dict(_DRAWN))
        for model, loss in _NETWORKS:
            with TASKS.registered(_NAME, self.target):
                recipe = parse_recipe(
                    {
                        "name": "conformance",
                        "data": data,
                        "model": model,
                        "task": {"name": _NAME, **self.config().model_dump()},
                        "objective": {"loss": loss},
                        "sparsity": {"method": "static", "density": 0.5},
                        "training": {"steps": 4, "batch_size": 2, "device": "cpu", "kernels": "dense"},
                    }
                ).recipe
            try:
                self._trainer(recipe)
            except BackboneError as error:
                refused = str(error)
                continue
            return recipe
        raise AssertionError(f"it takes none of dcgan, unet and resnet: {refused}")

    def _trainer(self, recipe: Recipe | None = None) -> Trainer:
        recipe = recipe if recipe is not None else self.recipe.get()
        with TASKS.registered(_NAME, self.target):
            trainer = build_trainer(recipe, build_dataset(recipe))
        trainer.engine.init(trainer.probe)
        return trainer

    @promise
    def names(self) -> None:
        """Networks beside the pair have names that begin with their role."""
        for name in self.task.get().beside:
            require(name not in ("generator", "discriminator"), f"{name} is of the pair, and not beside it")
            role_of(name)

    @promise
    def trains(self) -> None:
        """A step moves every network, and gives every meter a number."""
        trainer = self._trainer()
        before = _weights(trainer)
        trainer.step(_STEPS)
        for name, tensors in _weights(trainer).items():
            moved = any(not torch.equal(one, before[name][key]) for key, one in tensors.items())
            require(moved, f"a step leaves the {name} as it was: call trainer.engine.step for it")
        found = trainer.meters.read()
        bad = [name for name, value in found.items() if value != value]
        require(set(found) >= set(trainer.play.meters), "meters are missing")
        require(not bad, f"{', '.join(bad)} got no number: give trainer.meters all that Play.meters names")

    @promise
    def counts(self) -> None:
        """What a step computes is said for every network."""
        trainer = self._trainer()
        trainer.step(_STEPS)
        trainer.engine.count_steps()
        require(set(trainer.counter.names) == set(trainer.networks), f"counted are {', '.join(trainer.counter.names)}")
        for name in trainer.networks:
            require(trainer.counter.forward_equivalents(name) > 0, f"a step of the {name} costs nothing")
            require(trainer.counter.steps[name].amount == 1, f"the {name} takes no optimizer step, or several")

    @promise
    def repeats(self) -> None:
        """The same seed gives the same bytes, and so does a step after a checkpoint."""
        one, other = self._trainer(), self._trainer()
        for trainer in (one, other):
            trainer.step(_STEPS)
        _require_same(_weights(one), _weights(other), "with the same seed")
        groups, scalars = one.snapshot()
        groups = {name: {key: tensor.clone() for key, tensor in group.items()} for name, group in groups.items()}
        resumed = self._trainer()
        resumed.restore(groups, scalars)
        for trainer in (one, resumed):
            trainer.step(_STEPS)
        _require_same(_weights(one), _weights(resumed), "after a checkpoint: keep what a step needs in Play.carried")

    @promise
    def probes(self) -> None:
        """A probe leaves gradients of every network, and moves none."""
        trainer = self._trainer()
        before = _weights(trainer)
        trainer.probe()
        for name, network in trainer.networks.items():
            require(any(p.grad is not None for p in network.parameters()), f"the probe leaves the {name} no gradient")
        _require_same(before, _weights(trainer), "after a probe")

    @promise
    def draws(self) -> None:
        """A grid is drawn, the same at every call."""
        trainer, task = self._trainer(), self.task.get()
        dataset = build_dataset(self.recipe.get())
        generators: Any = {name: average.module for name, average in trainer.all_averages.items()}
        with tempfile.TemporaryDirectory() as folder:
            paths = [task.grid(generators, dataset, Path(folder) / f"{index}.png", 0) for index in range(2)]
            content = [path.read_bytes() for path in paths]
        require(content[0].startswith(b"\x89PNG"), "the grid is no PNG")
        require(content[0] == content[1], "two grids of the same networks differ")


def _weights(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    return {
        name: {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
        for name, network in trainer.networks.items()
    }


def _require_same(
    one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]], when: str
) -> None:
    for name, tensors in one.items():
        odd = [key for key, tensor in tensors.items() if not torch.equal(tensor, other[name][key])]
        require(not odd, f"{', '.join(odd[:3])} of the {name} differ {when}")
