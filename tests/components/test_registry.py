from __future__ import annotations

import ast
import dataclasses
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import gancompress
from gancompress.components.declared import declared
from gancompress.components.registry import REGISTRIES, Registry
from gancompress.errors import ComponentError


@dataclasses.dataclass
class Distribution:
    name: str
    version: str = "1.0"


@dataclasses.dataclass
class Point:
    name: str
    value: str
    dist: Distribution | None
    group: str = "gancompress.things"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """The entry points that seem to be installed; tests fill it."""
    points: list[Point] = []

    def distributions(*, path: list[str]) -> list[Any]:
        names = dict.fromkeys(point.dist.name if point.dist else None for point in points)
        return [
            types.SimpleNamespace(
                name=name, entry_points=[one for one in points if (one.dist.name if one.dist else None) == name]
            )
            for name in names
        ]

    monkeypatch.setattr(metadata, "distributions", distributions)
    monkeypatch.delenv("GANCOMPRESS_PLUGINS", raising=False)
    module = types.ModuleType("fake_plugin")
    module.Thing = type("Thing", (), {})  # type: ignore[attr-defined]
    module.Outer = type("Outer", (), {"Inner": 5})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_plugin", module)
    return points


def make() -> Registry[Any]:
    builtins = {"loads": "json:loads", "gone": "no_such_module_at_all:X"}
    return Registry("thing", "gancompress.things", lambda: builtins)


def refusal(registry: Registry[Any], name: str) -> str:
    with pytest.raises(ComponentError) as caught:
        registry.get(name)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_builtin_is_imported_when_asked_for(installed: list[Point]) -> None:
    import json

    registry = make()
    assert registry.get("loads") is json.loads
    assert registry.names() == ["gone", "loads"]
    assert "loads" in registry
    assert "load" not in registry


def test_unknown_names_suggest(installed: list[Point]) -> None:
    assert refusal(make(), "load") == "unknown thing 'load'; did you mean 'loads'?"
    assert refusal(make(), "zzzzz") == "unknown thing 'zzzzz'; known: gone, loads"


def test_what_cannot_be_imported_is_named_and_breaks_nothing_else(installed: list[Point]) -> None:
    from gancompress import __version__

    registry = make()
    assert refusal(registry, "gone") == (
        f"thing 'gone' of gancompress {__version__} cannot be loaded from no_such_module_at_all:X: "
        "ModuleNotFoundError: No module named 'no_such_module_at_all'"
    )
    assert registry.get("loads")


def test_plugins_come_with_their_origin(installed: list[Point]) -> None:
    installed += [
        Point("mine", "fake_plugin:Thing", Distribution("Nice_Plugin", "2.1")),
        Point("deep", "fake_plugin : Outer.Inner", Distribution("other")),
        Point("elsewhere", "fake_plugin:Thing", Distribution("other"), group="gancompress.other"),
    ]
    registry = make()
    assert registry.names() == ["deep", "gone", "loads", "mine"]
    entry = next(entry for entry in registry.entries() if entry.name == "mine")
    assert (entry.kind, entry.target, entry.distribution, entry.version, entry.problem) == (
        "thing",
        "fake_plugin:Thing",
        "Nice_Plugin",
        "2.1",
        "",
    )
    assert registry.get("mine") is sys.modules["fake_plugin"].Thing
    assert registry.get("deep") == 5


def test_listing_imports_nothing(installed: list[Point]) -> None:
    installed.append(Point("bad", "a_module_that_is_not_there:X", Distribution("bad-plugin")))
    registry = make()
    assert [entry.name for entry in registry.entries()] == ["loads", "gone", "bad"]
    assert "a_module_that_is_not_there" not in sys.modules


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: "),
        ("X = 1", "AttributeError: module 'trouble' has no attribute 'Thing'"),
        ("raise KeyError", "KeyError: no reason given"),
    ],
)
def test_a_plugin_may_fail_in_any_way(
    installed: list[Point], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    (tmp_path / "trouble.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trouble", raising=False)
    installed += [
        Point("bad", "trouble:Thing", Distribution("bad-plugin", "0.3")),
        Point("good", "fake_plugin:Thing", Distribution("good-plugin")),
    ]
    registry = make()
    text = refusal(registry, "bad")
    assert text.startswith(f"thing 'bad' of bad-plugin 0.3 cannot be loaded from trouble:Thing: {reason}")
    assert "\n" not in text
    assert registry.get("good")


def test_a_plugin_that_takes_the_name_of_a_builtin_is_an_error_for_both(installed: list[Point]) -> None:
    installed.append(Point("loads", "fake_plugin:Thing", Distribution("thief", "6.6")))
    registry = make()
    assert refusal(registry, "loads") == (
        "thing 'loads' of thief 6.6 has the same name as one of gancompress itself; "
        "uninstall one, or name the wanted plugins in GANCOMPRESS_PLUGINS"
    )
    problems = {entry.origin: entry.problem for entry in registry.entries() if entry.name == "loads"}
    assert len(problems) == 2
    assert [text.partition(";")[0] for text in problems.values()] == [
        "has the same name as one of thief 6.6",
        "has the same name as one of gancompress itself",
    ]


def test_two_plugins_with_one_name_are_an_error(installed: list[Point]) -> None:
    installed += [Point("x", "fake_plugin:Thing", Distribution(name)) for name in ("first", "second")]
    text = refusal(make(), "x")
    assert "first 1.0" in text
    assert "second 1.0" in text


def test_one_plugin_seen_twice_is_one_plugin(installed: list[Point]) -> None:
    installed += [Point("x", "fake_plugin:Thing", Distribution("first"))] * 2
    assert make().get("x")


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (None, ["a", "b", "gone", "loads"]),
        ("", ["gone", "loads"]),
        ("plugin.A", ["a", "gone", "loads"]),
        ("plugin-b, PLUGIN_A,", ["a", "b", "gone", "loads"]),
    ],
)
def test_the_environment_limits_plugins(
    installed: list[Point], monkeypatch: pytest.MonkeyPatch, allowed: str | None, names: list[str]
) -> None:
    installed += [Point(letter, "fake_plugin:Thing", Distribution(f"plugin_{letter}")) for letter in "ab"]
    if allowed is not None:
        monkeypatch.setenv("GANCOMPRESS_PLUGINS", allowed)
    registry = make()
    assert registry.names() == names
    assert len(registry.entries()) == 4
    if "a" not in names:
        assert refusal(registry, "a") == (
            "thing 'a' of plugin_a 1.0 is left out by GANCOMPRESS_PLUGINS; "
            "add its distribution there, or unset the variable"
        )


def test_leaving_a_plugin_out_solves_a_clash(installed: list[Point], monkeypatch: pytest.MonkeyPatch) -> None:
    installed += [
        Point("loads", "fake_plugin:Thing", Distribution("thief")),
        Point("x", "fake_plugin:Thing", Distribution("first")),
        Point("x", "fake_plugin:Outer", Distribution("second")),
    ]
    monkeypatch.setenv("GANCOMPRESS_PLUGINS", "second")
    registry = make()
    assert registry.get("loads").__name__ == "loads"
    entries = {entry.origin: entry for entry in registry.entries() if entry.name == "loads"}
    assert [(entry.problem != "", entry.left_out) for entry in entries.values()] == [(False, False), (True, True)]
    assert registry.get("x").__name__ == "Outer"


def test_in_process_components(installed: list[Point]) -> None:
    installed.append(Point("plugged", "fake_plugin:Thing", Distribution("p")))
    registry = make()
    own = object()
    assert registry.register("own", own) is own
    assert registry.get("own") is own
    assert next(entry for entry in registry.entries() if entry.name == "own").distribution == "(this program)"
    for taken in ("own", "loads", "plugged"):
        with pytest.raises(ComponentError, match=f"thing '{taken}' is already there, from "):
            registry.register(taken, own)
    with registry.registered("brief", own):
        assert "brief" in registry
    assert "brief" not in registry


def test_refresh_looks_again(installed: list[Point]) -> None:
    registry = make()
    assert "late" not in registry
    installed.append(Point("late", "fake_plugin:Thing", Distribution("p")))
    assert "late" not in registry
    registry.refresh()
    assert "late" in registry


@pytest.mark.parametrize(
    ("plural", "name"),
    [(plural, name) for plural, registry in REGISTRIES.items() for name in registry.builtin_names()],
)
def test_every_builtin_is_there(plural: str, name: str) -> None:
    assert isinstance(REGISTRIES[plural].get(name), type)


def test_no_declaration_of_a_builtin_is_overlooked() -> None:
    package = Path(gancompress.__file__).parent
    written = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for call in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register":
                    assert isinstance(call.func.value, ast.Name)
                    assert isinstance(call.args[0], ast.Constant)
                    written.append((call.func.value.id, call.args[0].value, node.name))
    found = [
        (plural.upper(), name, registry.entry(name).target.partition(":")[2])
        for plural, registry in REGISTRIES.items()
        for name in registry.builtin_names()
    ]
    assert sorted(written) == sorted(found)
    assert len(found) >= 37


def test_a_file_in_a_room_is_a_builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "ball.py").write_text(
        '@TOYS.register("ball")\n@dataclass(frozen=True)\nclass Ball(Toy):\n    x = 1\n'
    )
    (tmp_path / "toys" / "base.py").write_text('"""As ``TOYS.register("x", X)`` does."""\nclass Toy: ...\n')
    monkeypatch.setattr("gancompress.components.declared._PACKAGE", tmp_path)
    assert declared("TOYS", "toys") == {"ball": f"{tmp_path.name}.toys.ball:Ball"}


def test_a_decorator_registers_and_leaves_a_builtin_alone(installed: list[Point]) -> None:
    registry = make()

    class Mine:
        pass

    assert registry.register("mine")(Mine) is Mine
    assert registry.get("mine") is Mine
    with pytest.raises(ComponentError, match="already there, from \\(this program\\)"):
        registry.register("mine")(Mine)
    loads = Registry("thing", "gancompress.things", lambda: {"mine": f"{Mine.__module__}:{Mine.__qualname__}"})
    assert loads.register("mine")(Mine) is Mine
    assert [entry.distribution for entry in loads.entries()] == ["gancompress"]


def test_an_installed_class_may_carry_the_line_of_a_plugin_file(installed: list[Point]) -> None:
    thing = sys.modules["fake_plugin"].Thing
    thing.__module__ = "fake_plugin"
    installed.append(Point("mine", "fake_plugin:Thing", Distribution("p")))
    registry = make()
    assert registry.register("mine")(thing) is thing
    assert [entry.distribution for entry in registry.entries() if entry.name == "mine"] == ["p"]


def test_the_builtins_are_those_of_the_documentation() -> None:
    names = {plural: set(registry.builtin_names()) for plural, registry in REGISTRIES.items()}
    assert names["methods"] >= {"dense", "static", "dst", "set", "rigl", "stu-gan"}
    assert names["backbones"] >= {"dcgan", "sngan"}
    assert names["datasets"] >= {"digits", "shapes", "zip", "folder", "cifar10", "cifar100", "stl10"}
    assert names["losses"] >= {"hinge", "non-saturating", "least-squares", "relativistic", "wgan-gp"}
    assert names["metrics"] >= {"fd", "kd", "is", "pr"}
    assert names["extractors"] >= {"inception", "classifier"}
