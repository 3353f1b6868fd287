from __future__ import annotations

import unittest

import pytest

from gancompress.components.registry import BACKBONES, LOSSES
from gancompress.errors import ComponentError, RunError
from gancompress.objectives.losses import Hinge
from gancompress.testing import Check, ConformanceError, check, checks, run_checks
from gancompress.testing.conformance import Once, Suite, chosen, promise, require, skip_check
from gancompress.testing.ranks import forked, in_two_processes


def fail(error: BaseException) -> None:
    raise error


CHECKS = [
    Check("good", "it is good", lambda: None),
    Check("bad", "it is not bad", lambda: require(1 > 2, "1 is not\nmore than 2")),
    Check("odd", "it raises nothing else", lambda: fail(KeyError("layer"))),
    Check("ours", "it raises nothing of ours", lambda: fail(RunError("no such run"))),
    Check("beside", "it is the point", lambda: skip_check("it is beside it")),
    Check("long", "it is fast", lambda: None, slow=True),
]


def test_a_report_says_what_each_check_found() -> None:
    report = run_checks("thing x", CHECKS)
    assert [(o.name, o.state, o.reason) for o in report.outcomes] == [
        ("good", "passed", ""),
        ("bad", "failed", "1 is not more than 2"),
        ("odd", "failed", "KeyError: 'layer'"),
        ("ours", "failed", "no such run"),
        ("beside", "skipped", "it is beside it"),
        ("long", "passed", ""),
    ]
    assert not report.passed
    assert str(report).splitlines()[:3] == [
        "thing x: 2 passed, 3 failed, 1 skipped",
        "  passed   good    it is good",
        "  failed   bad     it is not bad",
    ]


def test_the_error_lists_every_failure() -> None:
    with pytest.raises(ConformanceError) as caught:
        run_checks("thing x", CHECKS).require()
    lines = str(caught.value).splitlines()
    assert lines[0] == "thing x fails 3 checks"
    assert lines[1:3] == ["bad: it is not bad", "    1 is not more than 2"]
    assert isinstance(caught.value, AssertionError)
    assert len(caught.value.report.failures) == 3
    assert run_checks("thing x", CHECKS[:1]).require().passed


def test_checks_are_left_out_by_name_and_when_slow() -> None:
    assert [c.name for c in chosen(CHECKS, ("bad", "odd"), slow=False)] == ["good", "ours", "beside"]
    assert [str(c) for c in chosen(CHECKS, (), slow=True)][-1] == "long"
    with pytest.raises(ValueError, match="there is no check 'god' to skip; there are: good, bad"):
        chosen(CHECKS, ("god",), slow=False)


def test_a_check_called_by_pytest_raises() -> None:
    CHECKS[0]()
    with pytest.raises(AssertionError, match="1 is not"):
        CHECKS[1]()
    with pytest.raises(unittest.SkipTest):
        CHECKS[4]()


def test_what_several_checks_need_is_computed_once() -> None:
    calls = []
    good = Once(lambda: calls.append(1) or 7)
    assert (good.get(), good.need("x"), calls) == (7, 7, [1])
    bad = Once(lambda: calls.append(2) or fail(ValueError("no")))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            bad.get()
    with pytest.raises(unittest.SkipTest, match="'trains' fails, see there"):
        bad.need("trains")
    assert calls == [1, 2]


def test_forked_work_comes_back_and_its_failure_too() -> None:
    local = 5
    assert forked(lambda: {"sum": local + 1}) == {"sum": 6}
    with pytest.raises(AssertionError, match=r"rank 0 failed: ValueError: no \(test_conformance.py:\d+\)"):
        forked(lambda: fail(ValueError("no")))


def test_two_processes_are_a_group() -> None:
    def work(group, folder):
        (folder / str(group.rank)).touch()
        group.barrier()
        return [group.rank, group.world, sorted(path.name for path in folder.iterdir() if path.name in "01")]

    assert in_two_processes(work) == [[0, 2, ["0", "1"]], [1, 2, ["0", "1"]]]


def test_processes_that_wait_for_each_other_are_given_up() -> None:
    def work(group, folder):
        if group.rank == 0:
            group.barrier()
        else:
            while not (folder / "never").exists():
                pass

    with pytest.raises(AssertionError, match="the processes wait for each other"):
        in_two_processes(work, patience=2)


class Toy(Suite):
    """A kind with one promise of its own."""

    registry = LOSSES

    @promise
    def is_a_class(self) -> None:
        """It is a class, and nothing
        else."""
        require(isinstance(self.target, type), "no class")

    @promise(slow=True)
    def dear(self) -> None:
        """Takes long."""


def test_a_suite_is_its_promises_in_the_order_in_which_they_are_written() -> None:
    found = Toy(Hinge).checks()
    assert [(one.name, one.promise, one.slow) for one in found] == [
        ("documented", "the class and every setting say what they are", False),
        ("is-a-class", "it is a class, and nothing else", False),
        ("dear", "takes long", True),
    ]
    assert run_checks("x", found).passed
    assert Toy(Hinge).label == "loss Hinge"


def test_the_kind_of_a_component_is_found_or_asked_for() -> None:
    assert [one.name for one in checks("hinge")] == [one.name for one in checks(Hinge, kind="loss")]
    assert "direction" in [one.name for one in checks(Hinge, {}, skip=("mean",))]
    assert check(Hinge, skip=("penalty",)).component == "loss Hinge"
    with pytest.raises(ComponentError, match="'Toy' is no component: say of which kind"):
        checks(Toy)
    with BACKBONES.registered("hinge", Hinge), pytest.raises(ComponentError, match="'hinge' is backbone and loss"):  # type: ignore[arg-type]
        checks("hinge")


def test_patterns_have_a_kit() -> None:
    report = run_checks("x", checks("block", kind="pattern"))
    assert report.passed
    assert [one.name for one in report.outcomes][:3] == ["documented", "strict-settings", "answers"]
