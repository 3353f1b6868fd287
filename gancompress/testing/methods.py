"""What every sparsity method and pattern must do, shown on short real runs, checkpoints and processes included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from gancompress.components.registry import METHODS
from gancompress.errors import InvariantError
from gancompress.experiment.budgets import ROLES
from gancompress.methods.base import Method, Plan
from gancompress.sparsity.state import SparseState
from gancompress.testing.conformance import ConfiguredSuite, Once, promise, require, skip_check
from gancompress.testing.ranks import in_two_processes
from gancompress.testing.training_runs import Bench, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from gancompress.sparsity.state import Role

__all__ = ["MethodSuite"]

#: discriminator steps per generator step for which updates are counted
_DISCRIMINATOR_STEPS = (1, 2, 4, 5)


class MethodSuite(ConfiguredSuite):
    """All checks of one method; they share the runs that several of them look at.

    Args:
        component: the class, or a registered name.
        settings: its settings. They must make it act within four training steps; by default ``every`` is 2 where the
            method has such a setting, and everything else is as it comes.
        overrides: ``key.path=value``, laid over the recipe that the kit trains.
    """

    registry = METHODS
    quick: ClassVar = {"every": 2}

    def __init__(
        self, component: str | type, settings: Mapping[str, Any] | None = None, *, overrides: Sequence[str] = ()
    ) -> None:
        super().__init__(component, settings)
        self.bench = Bench(self, overrides)
        self.whole = Once(self.bench.run)
        self.stops = Once(lambda: _stops(self.whole.need("trains").rounds))

    # ------------------------------------------------------------------ one run

    @promise
    def trains(self) -> None:
        """Every round that it declares is trained to its end, every answer fits."""
        self.whole.get()

    @promise
    def exact_counts(self) -> None:
        """Every mask keeps exactly its budget, in whole units, at every step."""
        wrong = self.whole.need("trains").watcher.counts
        require(not wrong, _first(wrong))

    @promise
    def zero_off_mask(self) -> None:
        """Weights, average, gradients and moments are 0 off the mask."""
        wrong = self.whole.need("trains").watcher.leaks
        require(not wrong, _first(wrong))

    @promise
    def budget_met(self) -> None:
        """The last masks keep as many weights as the recipe asks for."""
        whole = self.whole.need("trains")
        for role in filter(self.bench.method().meets_density, ROLES):
            kept, asked = whole.states[role].nonzeros, whole.budgets[role].total
            # units of different sizes may not add up to the very number
            unit = max((whole.budgets[role].step(name) for name in whole.budgets[role].sizes), default=1)
            require(
                abs(kept - asked) < unit,
                f"the {role} keeps {kept} weights, the recipe asks for {asked}; a method that chooses its own density "
                "says so with meets_density",
            )

    @promise
    def holds_a_pattern(self) -> None:
        """Its masks hold a pattern of blocks too: whole units, at every step of the first round."""
        self.whole.need("trains")
        if not self.bench.method().sparsifies:
            skip_check("it masks nothing")
        try:
            self.bench.first_round("sparsity.pattern=2x2")
        except InvariantError as error:
            require(
                False,
                f"with sparsity.pattern=2x2: {error}; choose with net.top, net.top_overall and net.random, count in "
                "budget.step(name), or leave this check out with skip if it is made for single weights",
            )

    @promise
    def state_round_trip(self) -> None:
        """What it remembers comes back from a checkpoint as it was."""
        whole = self.whole.need("trains")
        trainer = self.bench.restored(whole)
        for role in ROLES:
            _same_state(role, whole.states[role], trainer.engine.state(role))

    # ------------------------------------------------------------------ plans and updates

    @promise
    def pure_plan(self) -> None:
        """Plan() depends on its arguments alone."""
        total = 12
        asked = [(role, step) for role in ROLES for step in range(1, total + 1)]
        method = self.bench.method()
        first = {key: method.plan(*key, total) for key in asked}
        again = {key: method.plan(*key, total) for key in reversed(asked)}
        fresh = self.bench.method()
        other = {key: fresh.plan(*key, total) for key in reversed(asked)}
        for key in asked:
            role, step = key
            require(isinstance(first[key], Plan), f"plan() of the {role} at step {step} is {first[key]!r}, no Plan")
            require(
                first[key] == again[key] == other[key],
                f"plan() of the {role} at step {step} of {total} is {first[key]}, then {again[key]}, and {other[key]} "
                "of another object: it counts its calls, or draws at random",
            )

    @promise
    def one_update_per_due_step(self) -> None:
        """One topology update per due step, with 1, 2, 4 and 5 discriminator steps."""
        # the first round as it is declared, by an object that will see no update
        trainer, done = self.bench.first_round()
        steps = trainer.position.step
        method = self.bench.method()
        asked = [(role, step) for step in range(1, steps + 1) for role in ROLES]
        due = [key for key in asked if Plan.UPDATE in method.plan(*key, steps)]
        if not due:
            require(
                type(method).update is Method.update,
                f"it overrides update(), but none was due in a round of {steps} steps: give the kit settings that make "
                "it act within these",
            )
        for n_d in _DISCRIMINATOR_STEPS:
            if n_d > 1:
                _, done = self.bench.first_round(f"training.discriminator_steps={n_d}")
            require(
                sorted(done) == sorted(due),
                f"with {n_d} discriminator steps per training step the updates were {done}, due were {due}",
            )

    # ------------------------------------------------------------------ seeds

    @promise
    def same_seed_same_masks(self) -> None:
        """The seed decides the masks, no global random state does."""
        self.whole.need("trains")
        first, again = (self.bench.first_round(scramble=seed)[0] for seed in (1, 2))
        for role in ROLES:
            one, two = first.engine.state(role), again.engine.state(role)
            # masks of the end may be the same where others were in force on the way: the weights tell
            same = one.hash() == two.hash() and digest(first.network(role)) == digest(again.network(role))
            require(
                same,
                f"two runs with the same seed have other masks of the {role}: draw from the rng that the method is "
                "given, not from a global random state, the clock or the process",
            )

    @promise
    def other_seed_other_masks(self) -> None:
        """Another seed gives other masks."""
        whole = self.whole.need("trains")
        if all(whole.states[role].density == 1 for role in ROLES):
            skip_check("it keeps every weight")
        other = self.bench.run("seed=1")
        for role in ROLES:
            state = whole.states[role]
            require(
                state.density == 1 or state.hash() != other.states[role].hash(),
                f"the {role}'s masks are the same with another seed; a method whose masks are a fixed pattern leaves "
                "this check out with skip",
            )

    # ------------------------------------------------------------------ stopped and gone on with

    @promise
    def bit_exact_resume(self) -> None:
        """Stopped in the middle and at the end of every round, it ends with the same bytes."""
        stops = self.stops.need("trains")
        parts = self.bench.run(stops=stops)
        differing = self.whole.get().differing(parts)
        require(
            not differing,
            f"stopped at steps {', '.join(map(str, stops))} and gone on with, it ends with another "
            f"{', '.join(differing)}: something that it depends on is not in SparseState.memory",
        )

    @promise
    def resume_negative_control(self) -> None:
        """A checkpoint with one bit of one weight changed ends elsewhere, so the comparison sees."""
        whole = self.whole.need("trains")
        last = sum(whole.rounds) - 1  # in the last round: at the start of it weights may be drawn anew
        require(whole.rounds[-1] > 1, "the last round has one step only; give the kit settings with longer rounds")
        changed = self.bench.run(stops=[last], perturb=True)
        require(
            whole.differing(changed),
            f"a checkpoint of step {last} with one bit of one weight changed ends with the same bytes: the comparison "
            "of bit-exact-resume would see nothing",
        )

    @promise
    def two_ranks(self) -> None:
        """Two processes that train together end with the same masks and weights."""
        self.whole.need("trains")
        first, second = in_two_processes(lambda group, folder: self.bench.in_group(folder / "runs", group))
        differing = [what for what in first if first[what] != second[what]]
        require(not differing, f"two processes disagree about the {', '.join(differing)}")


def _stops(rounds: Sequence[int]) -> list[int]:
    """Return the middle and the end of every round but the last, whose end is the end of the run."""
    found, before = [], 0
    for steps in rounds:
        found += [before + steps // 2, before + steps]
        before += steps
    return [step for step in dict.fromkeys(found[:-1]) if step > 0]


def _first(wrong: Sequence[str]) -> str:
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}" if wrong else ""


def _same_state(role: Role, saved: SparseState, loaded: SparseState) -> None:
    require(
        type(saved) is type(loaded) is SparseState,
        f"the state of the {role} is a {type(saved).__name__}: only what SparseState has is saved; remember the rest "
        "in SparseState.memory",
    )
    require(saved.hash() == loaded.hash(), f"the masks of the {role} come back otherwise")
    require(dict(saved.budgets) == dict(loaded.budgets), f"the budgets of the {role} come back otherwise")
    require(saved.updates == loaded.updates, f"the updates of the {role} come back as {loaded.updates}")
    require(
        saved.memory.keys() == loaded.memory.keys(),
        f"the memory of the {role} holds {', '.join(map(repr, saved.memory))}, of which came back "
        f"{', '.join(map(repr, loaded.memory)) or 'nothing'}",
    )
    for key, value in saved.memory.items():
        require(
            _same_value(value, loaded.memory[key]),
            f"{key!r} in the memory of the {role} was {value!r} and comes back as {loaded.memory[key]!r}",
        )


def _same_value(a: Tensor | int | float, b: Tensor | int | float) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        bits = [x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    return type(a) is type(b) and repr(a) == repr(b)
