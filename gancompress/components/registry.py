"""Named components: built in, installed by a plugin, or registered by the running program.

A registry knows *where* its components are and imports one only when it is asked for. Plugins announce themselves
with entry points (``[project.entry-points."gancompress.methods"]`` ``mine = "my_package.mine:Mine"``); listing them
imports nothing, and one that cannot be imported, or is not what its kind asks for, is an error for whoever asks for it
and for nobody else.

The environment variable ``GANCOMPRESS_PLUGINS`` limits which distributions are taken: a comma-separated list of
their names, or empty for none at all. Unset, every installed plugin counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from gancompress.components.contract import why_unusable
from gancompress.components.declared import declared
from gancompress.errors import ComponentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from importlib.metadata import EntryPoint

    from gancompress.backbones.base import Backbone
    from gancompress.data.base import Dataset
    from gancompress.methods.base import Method

__all__ = [
    "BACKBONES",
    "DATASETS",
    "EXTRACTORS",
    "LOSSES",
    "METHODS",
    "METRICS",
    "PATTERNS",
    "PLUGINS_VARIABLE",
    "REGISTRIES",
    "TRACKERS",
    "Entry",
    "Registry",
    "installed",
]

#: environment variable that limits the distributions whose entry points count
PLUGINS_VARIABLE: Final = "GANCOMPRESS_PLUGINS"

T = TypeVar("T")
C = TypeVar("C", bound=type)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a component comes from; reading it imports nothing.

    Attributes:
        kind: ``method``, ``backbone``, ….
        name: what recipes call it.
        target: ``module:Attribute``.
        distribution: the installed package that offers it, ``gancompress`` for built-ins, ``(this program)`` for
            what :meth:`Registry.register` added, the file for what a plugin file registered.
        version: version of that distribution, empty when unknown.
        problem: why it cannot be used (another component has the same name, or ``GANCOMPRESS_PLUGINS`` leaves it
            out); empty when nothing is known to be wrong.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str = ""
    problem: str = ""

    @property
    def origin(self) -> str:
        """Distribution and version, as messages name them."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def left_out(self) -> bool:
        """Whether it is ``GANCOMPRESS_PLUGINS`` that keeps it from being used."""
        return self.problem == _LEFT_OUT


class Registry(Generic[T]):
    """Components of one kind by name.

    Args:
        kind: what one component is called in messages, such as ``method``.
        group: entry-point group that plugins use, such as ``gancompress.methods``.
        builtins: returns ``module:Attribute`` of every built-in component by name; called when first needed.
        base: ``module:Attribute`` of the class that plugins must subclass; imported with the first of them.
        makes_itself: see :func:`~gancompress.components.contract.why_unusable`.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtins: Callable[[], Mapping[str, str]],
        base: str = "",
        *,
        makes_itself: bool = False,
    ) -> None:
        self.kind = kind
        self.group = group
        self._base, self._makes_itself = base, makes_itself
        self._declared = builtins
        self._registered: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._origin = _PROGRAM
        self._loaded: dict[str, T] = {}
        self._plugins: list[Entry] | None = None

    @property
    def plural(self) -> str:
        """What the entry-point group ends in, such as ``methods``."""
        return self.group.rpartition(".")[2]

    @property
    def _builtins(self) -> Mapping[str, str]:
        return self._declared()

    def base(self) -> type:
        """Import and return the class that components of this kind subclass."""
        module, _, attribute = self._base.partition(":")
        found: type = getattr(importlib.import_module(module), attribute)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self.names())})"

    def names(self) -> list[str]:
        """Return the names that :meth:`get` knows, sorted; nothing is imported."""
        return sorted(self._known())

    def builtin_names(self) -> list[str]:
        """Return the names of the built-in components, in the order they are declared."""
        return list(self._builtins)

    def entries(self) -> list[Entry]:
        """Return where every component comes from, those that cannot be used included; nothing is imported."""
        return [*self._builtin_entries(), *self._plugin_entries(), *self._registered_entries()]

    def get(self, name: str) -> T:
        """Import and return the component called ``name``.

        Raises:
            ComponentError: no component has this name, several have it, it cannot be imported, or it is not what its
                kind asks for.
        """
        if name in self._registered:
            return self._registered[name]
        entry = self.entry(name)
        if name not in self._loaded:
            component, reason = self._load(entry)
            if component is None:
                raise ComponentError(f"{self.kind} {name!r} of {entry.origin} {reason}")
            self._loaded[name] = component
        return self._loaded[name]

    def trouble(self, entry: Entry) -> str:
        """Return why the component at ``entry`` cannot be used, empty when it can; this imports it."""
        if entry.problem or entry.name in self._registered or entry.name in self._loaded:
            return entry.problem
        return self._load(entry)[1]

    @overload
    def register(self, name: str) -> Callable[[C], C]: ...

    @overload
    def register(self, name: str, component: T) -> T: ...

    def register(self, name: str, component: Any = None) -> Any:
        """Add a component of the running program: as ``@METHODS.register("mine")`` above a class, or by a call.

        Above the class of a built-in, or of one that an entry point names, this line changes nothing.

        Args:
            name: what recipes will call it.
            component: the object that :meth:`get` will return; left out, a decorator is returned.

        Returns:
            ``component``.

        Raises:
            ComponentError: the name is taken.
        """
        if component is None:
            return functools.partial(self.register, name)
        target = _target(component)
        if self._builtins.get(name) == target:
            return component
        taken = next((entry for entry in self.entries() if entry.name == name), None)
        if taken is None:
            self._registered[name] = component
            self._origins[name] = self._origin
        elif taken.target != target or name in self._registered:
            raise ComponentError(f"{self.kind} {name!r} is already there, from {taken.origin}; choose another name")
        return component

    def unregister(self, name: str) -> None:
        """Take back what :meth:`register` added; nothing happens when it is not there."""
        self._registered.pop(name, None)
        self._origins.pop(name, None)

    @contextlib.contextmanager
    def registering(self, origin: str) -> Iterator[list[str]]:
        """Say in a ``with`` block where what is registered inside comes from, and hold it to what this kind asks for.

        Args:
            origin: what :class:`Entry` and messages call the place.

        Yields:
            The names that were registered; filled on leaving.

        Raises:
            ComponentError: on leaving, when it is not; nothing of it stays registered then.
        """
        before, self._origin = set(self._registered), origin
        names: list[str] = []
        try:
            yield names
            names += [name for name in self._registered if name not in before]
            for name in names:
                reason = self._unusable(self._registered[name])
                if reason:
                    raise ComponentError(f"{self.kind} {name!r} of {origin} {reason}")
        except BaseException:
            for name in set(self._registered) - before:
                self.unregister(name)
            raise
        finally:
            self._origin = _PROGRAM

    @contextlib.contextmanager
    def registered(self, name: str, component: T) -> Iterator[T]:
        """:meth:`register` a component for the length of a ``with`` block."""
        self.register(name, component)
        try:
            yield component
        finally:
            self.unregister(name)

    def refresh(self) -> None:
        """Forget which plugins are installed and allowed; the next question looks again."""
        self._plugins = None
        self._loaded.clear()

    def _known(self) -> set[str]:
        usable = {entry.name for entry in self._plugin_entries() if not entry.problem}
        return {*self._builtins, *usable, *self._registered}

    def entry(self, name: str, others: Iterable[str] = ()) -> Entry:
        """Return where the component called ``name`` comes from; nothing is imported.

        Args:
            name: what recipes call it.
            others: words that may stand in its place, to suggest them too.

        Raises:
            ComponentError: no component has this name, or none of those that have it can be used.
        """
        builtin = [entry for entry in self._builtin_entries() if entry.name == name]
        plugins = [entry for entry in self._plugin_entries() if entry.name == name]
        # A clash is an error even for the built-in: taking either silently would change what a recipe means.
        for entry in plugins:
            if entry.problem and not entry.left_out:
                raise ComponentError(f"{self.kind} {name!r} of {entry.origin} {entry.problem}")
        for entry in (*builtin, *plugins, *self._registered_entries()):
            if entry.name == name and not entry.problem:
                return entry
        for entry in plugins:
            raise ComponentError(f"{self.kind} {name!r} of {entry.origin} {entry.problem}")
        raise ComponentError(f"unknown {self.kind} {name!r}{did_you_mean(name, {*self._known(), *others})}")

    def _load(self, entry: Entry) -> tuple[T | None, str]:
        """Import a component; return it, or None and why it cannot be used."""
        module, _, attribute = entry.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split(".") if attribute else ():
                found = getattr(found, part)
        # A plugin may fail in any way at all, sys.exit() included, and must not take the program with it.
        except (Exception, SystemExit) as error:
            return None, f"cannot be loaded from {entry.target}: {_words(error, module)}"
        reason = "" if entry.distribution == _OWN else self._unusable(found)
        return (None, f"cannot be used: {entry.target} {reason}") if reason else (cast("T", found), "")

    def _unusable(self, component: Any) -> str:
        return why_unusable(component, self.base(), makes_itself=self._makes_itself) if self._base else ""

    def _builtin_entries(self) -> Iterator[Entry]:
        from gancompress import __version__

        for name, target in self._builtins.items():
            rivals = [entry.origin for entry in self._plugin_entries() if entry.name == name and not entry.left_out]
            yield Entry(self.kind, name, target, _OWN, __version__, _clash(rivals))

    def _registered_entries(self) -> Iterator[Entry]:
        for name, component in self._registered.items():
            yield Entry(self.kind, name, _target(component), self._origins[name])

    def _plugin_entries(self) -> list[Entry]:
        if self._plugins is None:
            self._plugins = self._scan()
        return self._plugins

    def _scan(self) -> list[Entry]:
        found: dict[Entry, bool] = {}  # one installation may be seen twice, through two entries of sys.path
        for point, allowed in installed(self.group):
            distribution = point.dist.name if point.dist is not None else "an unnamed distribution"
            version = point.dist.version if point.dist is not None else ""
            entry = Entry(self.kind, point.name, point.value.replace(" ", ""), distribution, version)
            found.setdefault(entry, allowed)
        return [dataclasses.replace(entry, problem=self._problem(entry, found)) for entry in found]

    def _problem(self, entry: Entry, found: Mapping[Entry, bool]) -> str:
        if not found[entry]:
            return _LEFT_OUT
        own = ["gancompress itself"] if entry.name in self._builtins else []
        taken = [other for other, allowed in found.items() if allowed and other != entry]
        return _clash([*own, *(other.origin for other in taken if other.name == entry.name)])


_OWN: Final = "gancompress"
_PROGRAM: Final = "(this program)"
_LEFT_OUT: Final = f"is left out by {PLUGINS_VARIABLE}; add its distribution there, or unset the variable"


def _clash(rivals: list[str]) -> str:
    """Return the problem of a component whose name ``rivals`` have too; empty when there are none."""
    if not rivals:
        return ""
    return (
        f"has the same name as one of {' and '.join(rivals)}; uninstall one, or name the wanted plugins in "
        f"{PLUGINS_VARIABLE}"
    )


def _target(component: Any) -> str:
    name = getattr(component, "__qualname__", type(component).__qualname__)
    return f"{getattr(component, '__module__', '?')}:{name}"


def installed(group: str) -> list[tuple[EntryPoint, bool]]:
    """Return the entry points of ``group``, and whether ``GANCOMPRESS_PLUGINS`` lets their distributions count."""
    from importlib import metadata

    variable = os.environ.get(PLUGINS_VARIABLE)
    allowed = None if variable is None else {_normal(name) for name in variable.split(",") if name.strip()}
    there = list(metadata.distributions(path=_installations()))
    if not any(point.group == group for distribution in there for point in distribution.entry_points):
        return []  # their names are parsed ten times slower
    first: dict[str, metadata.Distribution] = {}  # the first of a name hides the others, as it does for imports
    for distribution in there:
        first.setdefault(_normal(distribution.name or ""), distribution)
    found = [point for distribution in first.values() for point in distribution.entry_points if point.group == group]
    points = sorted(found, key=lambda point: (point.name, point.value))
    return [
        (point, allowed is None or _normal(point.dist.name if point.dist is not None else "") in allowed)
        for point in points
    ]


def _installations() -> list[str]:
    """Return where Python looks for packages, but for the working directory, unless ``PYTHONPATH`` names it.

    An interpreter puts that directory on its path by itself, and what lies beside a recipe is not installed.
    """
    here = os.getcwd()
    named = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return [path for path in sys.path if here in named or path not in ("", here)]


def _words(error: BaseException, module: str) -> str:
    """Return an error of an import in one line; a package that is missing is called that."""
    own = module.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != own:
        return f"it needs {error.name.partition('.')[0]!r}, which is not installed ({type(error).__name__})"
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"


def _normal(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower().strip()


def _registry(kind: str, plural: str, base: str, *, makes_itself: bool = False) -> Registry[Any]:
    """Return the registry of what subclasses ``base``; the built-ins lie in the folder of its module."""
    builtins = functools.partial(declared, plural.upper(), base.rpartition(".")[0].replace(".", "/"))
    return Registry(kind, f"gancompress.{plural}", builtins, f"gancompress.{base}", makes_itself=makes_itself)


METHODS: Registry[type[Method[Any]]] = _registry("method", "methods", "methods.base:Method")
PATTERNS: Registry[type[Any]] = _registry("pattern", "patterns", "sparsity.patterns.base:Pattern")
BACKBONES: Registry[type[Backbone[Any]]] = _registry("backbone", "backbones", "backbones.base:Backbone")
DATASETS: Registry[type[Dataset[Any]]] = _registry("dataset", "datasets", "data.base:Dataset")
TASKS: Registry[type[Any]] = _registry("task", "tasks", "tasks.base:Task")
LOSSES: Registry[type[Any]] = _registry("loss", "losses", "objectives.base:Loss")
METRICS: Registry[type[Any]] = _registry("metric", "metrics", "evaluation.metrics:Metric")
EXTRACTORS: Registry[type[Any]] = _registry(
    "extractor", "extractors", "evaluation.extractors:Extractor", makes_itself=True
)
TRACKERS: Registry[type[Any]] = _registry("tracker", "trackers", "tracking.base:Tracker")

#: every registry, by the plural that its entry-point group ends in
REGISTRIES: Final[Mapping[str, Registry[Any]]] = {
    registry.plural: registry
    for registry in (METHODS, PATTERNS, BACKBONES, DATASETS, TASKS, LOSSES, METRICS, EXTRACTORS, TRACKERS)
}
