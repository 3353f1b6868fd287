"""What authors of methods get wrong, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gancompress.components.registry import METHODS
from gancompress.errors import InvariantError, MethodError
from gancompress.experiment.run import Experiment
from gancompress.methods import Plan
from gancompress.methods.static import Static
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from pathlib import Path

RECIPE: dict[str, Any] = {
    "name": "mistaken",
    "data": {"name": "shapes", "resolution": 16, "images": 32},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 8},
    "sparsity": {"method": {"name": "mistaken"}, "density": 0.5},
    "training": {"steps": 2, "batch_size": 4},
}


class Every(Static):
    """Updates every step."""

    def plan(self, role: Any, step: int, total_steps: int) -> Plan:
        return Plan.UPDATE | Plan.DENSE_GRADIENT


def run(method: type[Static], root: Path) -> None:
    with METHODS.registered("mistaken", method):
        Experiment(parse_recipe(RECIPE).recipe, root, evaluates=False).run()


def test_its_own_exception_names_the_method_and_the_moment(tmp_path: Path) -> None:
    class Raises(Every):
        def update(self, state: Any, net: Any, rng: Any) -> Any:
            return {}["layer"]

    with pytest.raises(MethodError, match=r"Raises failed, asked about the generator at step 1 of round 0: KeyError"):
        run(Raises, tmp_path)


def test_an_answer_of_another_type(tmp_path: Path) -> None:
    class Forgets(Every):
        def update(self, state: Any, net: Any, rng: Any) -> Any:
            return None

    with pytest.raises(MethodError, match="answered for the generator with NoneType, expected SparseState"):
        run(Forgets, tmp_path)


def test_a_plan_of_another_type(tmp_path: Path) -> None:
    class Yes(Static):
        def plan(self, role: Any, step: int, total_steps: int) -> Any:
            return True

    with pytest.raises(MethodError, match="plans True for the generator at step 1, expected a Plan"):
        run(Yes, tmp_path)


@pytest.mark.parametrize("what", ["weights", "gradients", "momentum", "masks"])
def test_changing_what_was_only_shown(tmp_path: Path, what: str) -> None:
    class Edits(Every):
        def update(self, state: Any, net: Any, rng: Any) -> Any:
            tensors = state.masks if what == "masks" else getattr(net, what)
            next(iter(tensors.values())).zero_()
            return state

    with pytest.raises(InvariantError, match="method Edits changed"):
        run(Edits, tmp_path)


def test_a_memory_that_cannot_be_saved(tmp_path: Path) -> None:
    class Remembers(Every):
        def update(self, state: Any, net: Any, rng: Any) -> Any:
            return state.replace(memory={"seen": [1, 2]})

    with pytest.raises(InvariantError, match="remembers seen of the generator as list"):
        run(Remembers, tmp_path)


def test_rounds_that_cannot_be_run(tmp_path: Path) -> None:
    from gancompress.errors import RunError
    from gancompress.methods import Round

    class Late(Static):
        def rounds(self, total_steps: int, density: Any) -> Any:
            return (Round("a", 2), Round("b", 2, generator="rewind", rewind_step=5))

    with pytest.raises(RunError, match="rewinds to step 5; the first round has steps 0 to 1"):
        run(Late, tmp_path)
    assert not list(tmp_path.iterdir())
