"""Components: where each comes from, whether it loads, and whether it keeps the contract of its kind."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.components.registry import REGISTRIES
from gancompress.errors import ComponentError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from gancompress.components.registry import Entry, Registry
    from gancompress.testing import Check, Outcome

__all__ = ["ListedComponent", "check_components", "list_components"]


@dataclasses.dataclass(frozen=True)
class ListedComponent:
    """A component that is known.

    Attributes:
        entry: kind, name and where it comes from.
        trouble: why it cannot be used; empty when it can.
    """

    entry: Entry
    trouble: str


def list_components(kind: str | None = None, *, plugins: bool = False) -> list[ListedComponent]:
    """Return every component; as ``gancompress plugins list``. Each is imported to see whether it loads.

    Args:
        kind: of this kind only: ``method``, ``backbone``, ….
        plugins: leave out what is built in.

    Raises:
        ComponentError: there is no such kind.
    """
    return [
        ListedComponent(entry, registry.trouble(entry))
        for registry in _registries(kind)
        for entry in registry.entries()
        if not (plugins and _is_built_in(entry))
    ]


def check_components(
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
) -> Iterator[tuple[Entry, Outcome]]:
    """Run the conformance kit on a component, or on every plugin; as ``gancompress plugins check``.

    Args:
        name: a component; default: every plugin.
        settings: of that component.
        kind: of this kind only: ``method``, ``backbone``, ….
        skip: checks to leave out.
        slow: run the slow checks too.

    Yields:
        The component and the outcome of one check, as soon as it ends; nothing where no plugin is installed.

    Raises:
        ComponentError: there is no such component, or several have the name.
        RecipeError: it has no such setting, or there is no such check.
    """
    if name is None and (settings or skip):
        raise RecipeError("--set and --skip are for one component: give its NAME")
    for registry, entry in _chosen(name, kind):
        yield from _checked(registry, entry, settings or {}, skip, slow, named=name is not None)


def _registries(kind: str | None) -> list[Registry[Any]]:
    found = [registry for registry in REGISTRIES.values() if kind is None or registry.kind == kind]
    if not found:
        known = [registry.kind for registry in REGISTRIES.values()]
        raise ComponentError(f"there are no components of kind {kind!r}{did_you_mean(str(kind), known)}")
    return found


def _is_built_in(entry: Entry) -> bool:
    return entry.distribution == "gancompress"


def _chosen(name: str | None, kind: str | None) -> list[tuple[Registry[Any], Entry]]:
    registries = _registries(kind)
    if name is None:
        return [(r, e) for r in registries for e in r.entries() if not (_is_built_in(e) or e.left_out)]
    found = [(r, e) for r in registries for e in r.entries() if e.name == name]
    kinds = sorted({registry.kind for registry, _ in found})
    if len(kinds) > 1:
        raise ComponentError(f"{name!r} is a {' and a '.join(kinds)}: choose one with --kind")
    if not found:
        known = sorted({known for registry in registries for known in registry.names()})
        raise ComponentError(f"unknown {kind or 'component'} {name!r}{did_you_mean(name, known)}")
    return found[:1]


def _checked(
    registry: Registry[Any],
    entry: Entry,
    settings: Mapping[str, Any],
    skip: Collection[str],
    slow: bool,
    *,
    named: bool,
) -> Iterator[tuple[Entry, Outcome]]:
    from gancompress.testing import Outcome

    loads = "it can be imported, and is what its kind asks for"
    if reason := registry.trouble(entry):
        yield entry, Outcome("loads", loads, "failed", reason)
        return
    unfit = ""
    try:
        checks = _checks(registry, entry, settings, skip, slow)
    except RecipeError as error:
        if named:
            raise
        checks, unfit = [], str(error)  # one that needs settings keeps no other from being checked
    yield entry, Outcome("loads", loads, "passed")
    if unfit:
        yield entry, Outcome("settings", "it can be checked without settings of its own", "skipped", unfit)
    for check in checks:
        yield entry, check.outcome()


def _checks(
    registry: Registry[Any], entry: Entry, settings: Mapping[str, Any], skip: Collection[str], slow: bool
) -> list[Check]:
    from gancompress.testing import checks

    given = []
    if hasattr(registry.base(), "Config"):
        _refuse_settings(registry, entry, settings)
        given.append(settings)
    elif settings:
        raise RecipeError(f"--set: {entry.kind} {entry.name!r} has no settings")
    try:
        return checks(entry.name, *given, kind=entry.kind, skip=skip, slow=slow)
    except ValueError as error:
        raise RecipeError(f"--skip: {error}") from None


def _refuse_settings(registry: Registry[Any], entry: Entry, settings: Mapping[str, Any]) -> None:
    """Refuse settings that the component does not have or cannot take, rather than fail every check for them.

    Raises:
        RecipeError: naming the first one.
    """
    from pydantic import ValidationError

    config = registry.get(entry.name).Config
    try:
        config(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise RecipeError(
                f"{entry.kind} {entry.name!r} needs a setting: give it with --set {where}=VALUE"
            ) from None
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(where, config.model_fields)
            raise RecipeError(f"--set: {entry.kind} {entry.name!r} has no setting {where!r}{hint}") from None
        raise RecipeError(f"--set {where}: {first['msg']}") from None
