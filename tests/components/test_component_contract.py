"""What is found out about a class before it is ever used."""

from __future__ import annotations

import abc
from typing import Any

import pytest
from pydantic import BaseModel

from gancompress.components.contract import why_unusable
from gancompress.components.registry import REGISTRIES


class BaseConfig(BaseModel):
    pass


class Base(abc.ABC):
    Config: Any = BaseConfig

    def __init__(self, config: Any, image: Any) -> None:
        self.config, self.image = config, image

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]: ...

    @abc.abstractmethod
    def act(self, state: Any, rng: Any) -> Any: ...

    @classmethod
    def prepare(cls, data: Any, *, option: str = "") -> Any:
        return cls(data, option)


class Good(Base):
    sizes = (1,)

    def act(self, state: Any, rng: Any, more: int = 3) -> Any: ...


def test_a_good_class() -> None:
    assert why_unusable(Good, Base) == ""


def changed(**names: Any) -> type:
    return type("Changed", (Good,), names)


@pytest.mark.parametrize(
    ("component", "reason"),
    [
        (3, "is of type int, not a class"),
        (Good, ""),
        (dict, "does not subclass "),
        (Base, "does not define act, sizes"),
        (changed(Config=dict), "has a Config that does not derive from BaseConfig"),
        (changed(sizes=lambda self: (1,)), "defines sizes as a method, it must be a property"),
        (changed(act=lambda self, state: 0), "it is called as act(state, rng): too many positional arguments"),
        (
            changed(act=lambda self, state, rng, extra: 0),
            "it is called as act(state, rng): missing a required argument",
        ),
        (changed(act=7), "has act as a int, it must be a method"),
        (changed(__init__=lambda self, config: None), "it is called as __init__(config, image)"),
        (changed(prepare=classmethod(lambda cls, data: 0)), "it is called as prepare(data, option=)"),
    ],
)
def test_what_is_wrong_is_named(component: Any, reason: str) -> None:
    assert reason in why_unusable(component, Base)
    assert bool(reason) == bool(why_unusable(component, Base))


def test_a_class_without_a_constructor_is_made_without_arguments() -> None:
    plain = type("Plain", (), {})
    assert why_unusable(type("Good", (plain,), {}), plain) == ""
    needy = type("Needy", (plain,), {"__init__": lambda self, size: None})
    assert "it is called as __init__()" in why_unusable(needy, plain)


@pytest.mark.parametrize(
    ("plural", "name"),
    [(plural, name) for plural, registry in REGISTRIES.items() for name in registry.builtin_names() if name != "hf"],
)
def test_everything_built_in_is_what_plugins_must_be(plural: str, name: str) -> None:
    registry = REGISTRIES[plural]
    assert registry._unusable(registry.get(name)) == ""


def test_what_the_base_class_takes_by_stars_may_be_asked_for_by_name() -> None:
    base = type("Starred", (), {"act": lambda self, state, *rng: 0})
    assert why_unusable(type("One", (base,), {"act": lambda self, state: 0}), base) == ""
    assert why_unusable(type("Two", (base,), {"act": lambda self, state, rng: 0}), base) == ""
    three = type("Three", (base,), {"act": lambda self, state, rng, more: 0})
    assert "it is called as act(state): missing" in why_unusable(three, base)
