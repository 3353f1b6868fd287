"""Checks, their outcomes, and the report that lists them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import unittest
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar, get_args, overload

from pydantic import BaseModel, ValidationError

from gancompress.errors import GancompressError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from gancompress.components.registry import Registry

__all__ = [
    "Check",
    "ConfiguredSuite",
    "Conformance",
    "ConformanceError",
    "Once",
    "Outcome",
    "Suite",
    "chosen",
    "is_promise",
    "promise",
    "require",
    "run_checks",
    "skip_check",
]

State: TypeAlias = Literal["passed", "failed", "skipped"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise and the code that holds a component to it.

    Call it, or give a list of them to ``pytest.mark.parametrize`` with ``ids=str``. It raises when the promise is
    broken, and :class:`unittest.SkipTest`, which pytest knows, when it says nothing about this component.

    Attributes:
        name: short and stable, for ``skip=`` and ``--skip``.
        promise: what holds, in one sentence.
        run: raises when it does not hold.
        slow: takes many seconds, so it is left out unless asked for.
    """

    name: str
    promise: str
    run: Callable[[], None]
    slow: bool = False

    def __call__(self) -> None:
        """Run the check."""
        self.run()

    def __str__(self) -> str:
        return self.name

    def outcome(self) -> Outcome:
        """Run the check and say how it went; nothing is raised but what is meant for the program, such as Ctrl-C."""
        try:
            self.run()
        except unittest.SkipTest as reason:
            return Outcome(self.name, self.promise, "skipped", str(reason))
        except Exception as error:
            return Outcome(self.name, self.promise, "failed", _reason(error))
        return Outcome(self.name, self.promise, "passed")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one check went.

    Attributes:
        name: the check.
        promise: what it holds a component to.
        state: ``passed``, ``failed`` or ``skipped``.
        reason: why it failed or was skipped; empty when it passed.
    """

    name: str
    promise: str
    state: State
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Conformance:
    """What the kit found about one component.

    Attributes:
        component: kind and name.
        outcomes: one per check, in order.
    """

    component: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "failed")

    def require(self) -> Conformance:
        """Return this report.

        Raises:
            ConformanceError: a check failed; the message lists all that did.
        """
        if self.failures:
            raise ConformanceError(self)
        return self

    def __str__(self) -> str:
        counts = {state: sum(outcome.state == state for outcome in self.outcomes) for state in get_args(State)}
        lines = [f"{self.component}: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}"]
        width = max((len(outcome.name) for outcome in self.outcomes), default=0)
        for outcome in self.outcomes:
            lines.append(f"  {outcome.state:<7}  {outcome.name:<{width}}  {outcome.promise}")
            if outcome.reason:
                lines.append(f"{'':{width + 13}}{outcome.reason}")
        return "\n".join(lines)


class ConformanceError(AssertionError):
    """A component broke at least one promise.

    Attributes:
        report: everything that the kit found.
    """

    def __init__(self, report: Conformance) -> None:
        self.report = report
        lines = [f"{outcome.name}: {outcome.promise}\n    {outcome.reason}" for outcome in report.failures]
        count = len(report.failures)
        super().__init__(f"{report.component} fails {count} check{'s' if count > 1 else ''}\n" + "\n".join(lines))


def run_checks(component: str, checks: Iterable[Check]) -> Conformance:
    """Run every check, whatever the others say."""
    return Conformance(component, tuple(check.outcome() for check in checks))


def chosen(checks: Sequence[Check], skip: Collection[str], slow: bool) -> list[Check]:
    """Return the checks that are wanted: none in ``skip``, and slow ones only if ``slow``.

    Raises:
        ValueError: a name in ``skip`` is no check.
    """
    unknown = sorted(set(skip) - {check.name for check in checks})
    if unknown:
        known = ", ".join(check.name for check in checks)
        raise ValueError(f"there is no check {unknown[0]!r} to skip; there are: {known}")
    return [check for check in checks if check.name not in skip and (slow or not check.slow)]


def require(condition: object, reason: str) -> None:
    """Raise an ``AssertionError`` that says ``reason``; unlike ``assert`` it stays under ``python -O``."""
    if not condition:
        raise AssertionError(reason)


def skip_check(reason: str) -> None:
    """Say that a check has nothing to say about this component."""
    raise unittest.SkipTest(reason)


class Once(Generic[T]):
    """A value that several checks look at, computed when the first of them asks.

    Args:
        compute: makes the value; whatever it raises is raised again to everyone who asks.
    """

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self._value: list[T] = []
        self._error: Exception | None = None

    def get(self) -> T:
        """Return the value."""
        if self._error is not None:
            raise self._error
        if not self._value:
            try:
                self._value.append(self._compute())
            except Exception as error:
                self._error = error
                raise
        return self._value[0]

    def need(self, check: str) -> T:
        """Return the value; skip when it cannot be had, for ``check`` says why already."""
        try:
            return self.get()
        except unittest.SkipTest:
            raise
        except Exception:
            raise unittest.SkipTest(f"{check!r} fails, see there") from None


_COUNTER: Final = itertools.count()
_SLOW: Final = "conformance_slow"

F = TypeVar("F", bound="Callable[..., None]")


@overload
def promise(check: F) -> F: ...


@overload
def promise(*, slow: bool) -> Callable[[F], F]: ...


def promise(check: Any = None, *, slow: bool = False) -> Any:
    """Make a method of a :class:`Suite` a check; its name and docstring are those of the check.

    Args:
        check: raises when the promise of its docstring does not hold.
        slow: takes many seconds, so it is left out unless asked for.
    """
    if check is None:
        return functools.partial(promise, slow=slow)
    setattr(check, _SLOW, slow)
    return check


def is_promise(value: Any) -> bool:
    """Whether something stands under :func:`promise`."""
    return hasattr(value, _SLOW)


class Suite:
    """All checks of one component, each a method under :func:`promise`.

    Nothing is computed, and a component given by name is not even imported, before the first check is called.

    Args:
        component: a registered name, or the class itself.
        settings: of its ``Config``.
    """

    #: registry of the kind
    registry: ClassVar[Registry[Any]]
    #: settings that are used where the component has them and the caller chose none
    quick: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, component: str | type, settings: Mapping[str, Any] | None = None) -> None:
        self.component = component
        self.given = dict(settings or {})

    @functools.cached_property
    def target(self) -> Any:
        """The class.

        Raises:
            ComponentError: it cannot be loaded.
        """
        return self.registry.get(self.component) if isinstance(self.component, str) else self.component

    @property
    def label(self) -> str:
        """Kind and name, for reports."""
        name = self.component if isinstance(self.component, str) else self.component.__name__
        return f"{self.registry.kind} {name}"

    @property
    def settings(self) -> dict[str, Any]:
        """What its ``Config`` is made of."""
        quick = {key: value for key, value in self.quick.items() if key in self.target.Config.model_fields}
        return {**quick, **self.given}

    def config(self, **more: Any) -> Any:
        """Return a ``Config`` of the settings and ``more``."""
        return self.target.Config(**{**self.settings, **more})

    @contextlib.contextmanager
    def registered(self) -> Iterator[str]:
        """Give the class a name that recipes can use, for the length of a ``with`` block."""
        if isinstance(self.component, str):
            yield self.component
            return
        # A new name each time: what is cached by a recipe's words must not be taken for another class.
        name = f"{self.component.__name__}-{next(_COUNTER)}"
        with self.registry.registered(name, self.component):
            yield name

    def checks(self) -> list[Check]:
        """Return every check, those of the base classes first, in the order in which they are written."""
        names = dict.fromkeys(name for base in reversed(type(self).__mro__) for name in vars(base))
        found = [getattr(type(self), name) for name in names]
        return [self.bound(check) for check in found if is_promise(check)]

    def bound(self, check: Any) -> Check:
        """Return one promise of this suite, to be run by itself."""
        said = " ".join((check.__doc__ or "").split()).removesuffix(".")
        name, said = check.__name__.replace("_", "-"), said[:1].lower() + said[1:]
        return Check(name, said, functools.partial(check, self), getattr(check, _SLOW))

    @promise
    def documented(self) -> None:
        """The class and every setting say what they are."""
        require(_own_docstring(self.target), f"{self.target.__name__} has no docstring")
        config = getattr(self.target, "Config", None)
        if config is not None:
            require(_own_docstring(config), f"{config.__qualname__} has no docstring")
            bare = [path for path, described in _fields(config) if not described]
            require(not bare, f"no description: Field(..., description=...) is missing on {', '.join(bare)}")


class ConfiguredSuite(Suite):
    """All checks of a component that has settings."""

    @promise
    def strict_settings(self) -> None:
        """Unknown settings are errors, known ones never change."""
        config = self.config()
        try:
            self.config(**{"no-such-setting": 1})
        except ValidationError:
            pass
        else:
            raise AssertionError(
                "Config takes a setting that it does not have: derive it from the Config of the base class"
            )
        require(type(config).model_config.get("frozen"), "Config can be changed after validation: set frozen=True")
        require("name" not in type(config).model_fields, "Config has a setting 'name', which recipes need themselves")


def _fields(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    for name, field in config.model_fields.items():
        yield f"{prefix}{name}", bool(field.description)
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name}.")


def _own_docstring(kind: type) -> bool:
    # pydantic and abc leave __doc__ alone; a subclass without a docstring has None in its own dictionary
    return bool((kind.__dict__.get("__doc__") or "").strip())


def _reason(error: Exception) -> str:
    """Return one line: the words of an assertion or of our own errors, the kind too of all others."""
    if isinstance(error, ValidationError):
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        return f"its settings are refused: {'; '.join(wrong)}"
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError | GancompressError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
