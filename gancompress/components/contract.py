"""Whether a class is what its base class asks for, found without making an instance."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["why_unusable"]


def why_unusable(component: Any, base: type, *, makes_itself: bool = False) -> str:
    """Return why ``component`` cannot stand in for ``base``; empty when nothing is wrong.

    Looked at are the base class, abstract methods, ``Config``, properties, and whether every method takes the
    arguments that those of the base class take.

    Args:
        component: what an entry point names.
        base: abstract base class of its kind.
        makes_itself: instances come from a class method, so the constructor may take anything.
    """
    if not inspect.isclass(component):
        return f"is of type {type(component).__name__}, not a class"
    if not issubclass(component, base):
        return f"does not subclass {base.__module__}.{base.__qualname__}"
    missing = sorted(getattr(component, "__abstractmethods__", ()))
    if missing:
        return f"does not define {', '.join(missing)}"
    wanted = getattr(base, "Config", None)
    if wanted is not None:
        config = getattr(component, "Config", None)
        if not (inspect.isclass(config) and issubclass(config, wanted)):
            return f"has a Config that does not derive from {wanted.__name__}"
    for name in _public(base)[int(makes_itself) :]:
        wrong = _wrong(name, component, base)
        if wrong:
            return wrong
    return ""


def _public(base: type) -> list[str]:
    """Return the names that a subclass may override, the constructor first, then as they are declared."""
    names = [name for kind in reversed(base.__mro__[:-1]) for name in vars(kind) if not name.startswith("_")]
    # a class without a constructor of its own is made without arguments
    return ["__init__", *dict.fromkeys(names)]


def _wrong(name: str, component: type, base: type) -> str:
    theirs, ours = inspect.getattr_static(base, name), inspect.getattr_static(component, name)
    if ours is theirs or inspect.isclass(theirs):
        return ""
    if isinstance(theirs, property):
        return f"defines {name} as a method, it must be a property" if inspect.isfunction(ours) else ""
    if not callable(getattr(base, name)):
        return ""
    if not callable(getattr(component, name)):
        return f"has {name} as a {type(ours).__name__}, it must be a method"
    try:
        asked = inspect.signature(getattr(base, name))
        given = inspect.signature(getattr(component, name))
    except (TypeError, ValueError):  # written in C
        return ""
    # `object.__init__` claims to take anything; a class without a constructor is made without arguments
    positional = [p.name for p in asked.parameters.values() if p.kind in _POSITIONAL]
    keywords = {p.name: None for p in asked.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    # what the base class takes as `*name`, a class may ask for by that name: `Loss.generator` has such real logits
    optional = [p.name for p in asked.parameters.values() if p.kind is inspect.Parameter.VAR_POSITIONAL]
    if optional and name != "__init__" and _takes(given, [*positional, *optional], keywords):
        return ""
    try:
        given.bind(*positional, **keywords)
    except TypeError as error:
        shown = ", ".join([p for p in positional if p not in ("self", "cls")] + [f"{key}=" for key in keywords])
        return f"defines {name}{given}, it is called as {name}({shown}): {error}"
    return ""


def _takes(given: inspect.Signature, positional: list[str], keywords: dict[str, None]) -> bool:
    try:
        given.bind(*positional, **keywords)
    except TypeError:
        return False
    return True


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
