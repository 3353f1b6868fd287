"""The suite's rivals, all of them fakes: some are not there, some fail, and some are asked for one figure alone."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

#: CPU seconds of a turn of each
SPEEDS = {"ours 0.1": 2.0, "ours 0.2": 4.0, "other 0.1": 1.0, "int8": 3.0, "sparse 0.1": 5.0, "sparse 0.2": 6.0}


class Fake:
    """An engine of another process that says how long it took."""

    made: ClassVar[list[str]] = []

    def __init__(self, name: str, ran: str = "") -> None:
        Fake.made.append(name)
        self.seconds, self.ran = SPEEDS[name], ran

    def __call__(self) -> None:
        pass

    def turn(self, calls: int) -> tuple[float, float]:
        return self.seconds * calls, self.seconds * calls


@pytest.fixture
def suite(benchmarks, monkeypatch):
    entries, rivals = importlib.import_module("entries"), importlib.import_module("rivals")
    monkeypatch.setattr(entries, "NARROWED", entries.Narrowing())
    monkeypatch.delitem(sys.modules, "suite", raising=False)  # which holds the one of another test
    monkeypatch.setattr("gancompress.bench.timing.gc.collect", lambda: 0)  # which takes a second after so many imports
    entries.LEFT_OUT.clear()
    Fake.made = []
    yield SimpleNamespace(entries=entries, rivals=rivals)
    entries.LEFT_OUT.clear()


def missing():
    raise ModuleNotFoundError("none", name="nncf")


def fails():
    raise RuntimeError("no such operation")


def measured(suite):
    own = {("float32", d): lambda d=d: Fake(f"ours {d}", "f32") for d in (0.1, 0.2)}
    own["int8", 0.1] = lambda: Fake("other 0.1", "u8")
    rivals = {("int8", None): lambda: Fake("int8", "u8 13 of 14")}
    rivals |= {("sparse", d): lambda d=d: Fake(f"sparse {d}") for d in (0.1, 0.2)}
    return list(suite.rivals.compared("64 channels, batch 16", own, rivals, 2, 3))


def test_every_rival_stands_against_every_variant_of_ours(suite):
    rows = {(row.case.partition(": ")[2], row.at): (row.value, row.ran) for row in measured(suite)}
    assert rows == {
        ("int8 over our float32", "density 0.1"): (1.5, "u8 13 of 14"),
        ("int8 over our float32", "density 0.2"): (0.75, "u8 13 of 14"),
        ("int8 over our int8", "density 0.1"): (3.0, "u8 13 of 14"),
        ("sparse over our float32", "density 0.1"): (2.5, ""),
        ("sparse over our float32", "density 0.2"): (1.5, ""),
        ("sparse over our int8", "density 0.1"): (5.0, ""),
    }
    assert sorted(Fake.made) == sorted(SPEEDS)  # each once


def test_what_is_missing_or_fails_leaves_its_cells_empty_and_says_why_once(suite, capsys):
    rows = list(
        suite.rivals.compared(
            "256 channels, batch 1",
            {("float32", 0.1): lambda: Fake("ours 0.1"), ("broken", 0.1): fails},
            {("gone", None): missing, ("sparse", 0.1): fails, ("int8", None): lambda: Fake("int8")},
            2,
            1,
        )
    )
    found = {row.case.partition(": ")[2]: row.value for row in rows}
    assert found == {
        "gone over our float32": None,
        "gone over our broken": None,
        "sparse over our float32": None,
        "sparse over our broken": None,
        "int8 over our float32": 1.5,
        "int8 over our broken": None,
    }
    ours = {("float32", 0.1): lambda: Fake("ours 0.1")}
    assert [row.value for row in suite.rivals.compared("8 channels", ours, {("gone", None): missing}, 2, 1)] == [None]
    said = capsys.readouterr().out
    assert said.count("nncf is not installed") == 1
    assert suite.entries.LEFT_OUT["gone"].startswith("nncf is not installed: pip install")
    for name in ("sparse", "our broken"):
        assert suite.entries.LEFT_OUT[name] == "RuntimeError: no such operation"


def test_an_engine_that_dies_between_its_turns_loses_its_own_figures(suite):
    class Dying(Fake):
        def turn(self, calls):
            if len(Fake.made) == 3:  # all are made: it is being timed
                raise BrokenPipeError("killed")
            return super().turn(calls)

    ours = {("float32", 0.1): lambda: Fake("ours 0.1")}
    rivals = {("dies", None): lambda: Dying("sparse 0.1"), ("int8", None): lambda: Fake("int8")}
    rows = list(suite.rivals.compared("64 channels, batch 16", ours, rivals, 3, 1))
    assert [row.value for row in rows] == [None, 1.5]
    assert suite.entries.LEFT_OUT == {"dies": "BrokenPipeError: killed"}


def test_a_narrowed_comparison_makes_what_it_needs(suite):
    suite.entries.NARROWED.where = ("int8 over our float32", "density 0.1")
    (row,) = measured(suite)
    assert (row.at, row.value) == ("density 0.1", 1.5)
    assert sorted(Fake.made) == ["int8", "ours 0.1"]
    suite.entries.NARROWED.where = ("batch 1",)  # which is not batch 16
    assert measured(suite) == []


def test_words_name_what_is_measured(suite):
    entries = suite.entries
    assert entries.narrowed(entries.PAIRS, entries.at_pair) == entries.PAIRS
    entries.NARROWED.where = ("0.05/0.3",)
    assert entries.narrowed(entries.PAIRS, entries.at_pair) == ((0.05, 0.3),)
    assert entries.narrowed((0.05, 0.1), entries.at_density) == (0.05, 0.1)  # no word is about these
    entries.NARROWED.where = ("batch 16", "density 0.1")
    assert entries.narrowed(((256, 1), (256, 16), (64, 16)), entries.of_setup) == ((256, 16), (64, 16))
    assert entries.narrowed((0.05, 0.1), entries.at_density) == (0.1,)
    assert entries.wanted("64 channels, batch 16: int8", "density 0.1")
    assert not entries.wanted("64 channels, batch 16: int8", "density 0.2")


def test_one_training_step_can_be_timed_alone(suite, monkeypatch, tmp_path, capsys):
    asked = []

    def bench_train(recipe, pairs, **settings):
        asked.append((recipe.model.channels, pairs, settings["bf16"]))
        ratio = SimpleNamespace(faster=3.0, quartiles=(2.9, 3.1))
        rows = {f"sparse {g:g}/{d:g}": ratio for g, d in pairs}
        return SimpleNamespace(against_plain=rows, against=lambda _: rows)

    monkeypatch.setattr(suite.entries, "bench_train", bench_train)
    suite.entries._training.cache_clear()
    file = tmp_path / "a.json"
    command = ["suite.py", "--only", "S3,S6", "--where", "0.05/0.3", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", command)
    importlib.import_module("suite").main()
    suite.entries._training.cache_clear()
    assert asked == [(256, ((0.05, 0.3),), True)]
    rows = [(row["id"], row["at"], row["value"]) for row in json.loads(file.read_text())["rows"]]
    assert rows == [(name, "G/D 0.05/0.3", 3.0) for name in ("S3", "S6")]
    monkeypatch.setattr(sys, "argv", ["suite.py", "--only", "S3", "--where", "0.1/0.1"])
    importlib.import_module("suite").main()
    suite.entries._training.cache_clear()
    assert asked[1:] == [(256, ((0.1, 0.1),), False)]  # bf16 takes minutes, and S3 has no use for it


WORKER = """
import sys, time, numpy
engine, folder = sys.argv[1:3]
print("converting", file=sys.stderr)
if engine == "broken":
    raise SystemExit("no kernel for this")
numpy.save(folder + "/out.npy", numpy.load(folder + "/z.npy") * len(open(folder + "/model.onnx", "rb").read()))
print("ready", flush=True)
for line in sys.stdin:
    print(0.5 * int(line), 0.75 * int(line), flush=True)
"""


def test_an_engine_of_another_environment_times_itself(suite, monkeypatch, tmp_path):
    elsewhere = importlib.import_module("elsewhere")
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(elsewhere, "WORKER", tmp_path / "worker.py")
    engine = elsewhere.Elsewhere(sys.executable, "works", b"abc", np.ones(2, np.float32))
    assert engine.turn(4) == (2.0, 3.0)
    assert engine().tolist() == [3, 3]
    with pytest.raises(RuntimeError, match=r"^no kernel for this$"):
        elsewhere.Elsewhere(sys.executable, "broken", b"abc", np.ones(2, np.float32))
    with pytest.raises(OSError, match="no/python"):
        elsewhere.Elsewhere("no/python", "works", b"abc", np.ones(2, np.float32))


def test_an_environment_is_given_or_made_once(suite, monkeypatch):
    elsewhere = importlib.import_module("elsewhere")
    monkeypatch.setattr(elsewhere, "_MADE", {})
    tried = []

    def run(command):
        tried.append(command[-1])
        if len(tried) == 2:
            raise RuntimeError("no network")

    monkeypatch.setattr(elsewhere, "_run", run)
    monkeypatch.setenv("THEIR_PYTHON", "/there/python")
    assert elsewhere.python_of("THEIR_PYTHON", ["engine==1"]) == "/there/python"
    monkeypatch.delenv("THEIR_PYTHON")
    with pytest.raises(RuntimeError, match="THEIR_PYTHON is not set"):
        elsewhere.python_of("THEIR_PYTHON")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"no network.*THEIR_PYTHON"):
            elsewhere.python_of("THEIR_PYTHON", ["engine==1"])
    assert tried[1:] == ["engine==1"]
    assert elsewhere.python_of("OTHER_PYTHON", ["engine==1"]) == elsewhere.python_of("OTHER_PYTHON", ["engine==1"])
    assert len(tried) == 4


def test_an_engine_with_other_images_is_refused(suite):
    from gancompress.bench.engines import Engine

    dense = suite.rivals.Dense(suite.entries.recipe_of(4), 1.0, 2)
    with torch.no_grad():
        right = dense.network(dense.z)
    assert dense.checked(Engine(lambda: right.numpy()), 80).ran == ""
    assert dense.checked(Engine(lambda: right.numpy() + 0.02, "u8")).ran == "u8, 40 dB"
    with pytest.raises(RuntimeError, match="40 dB"):
        dense.checked(Engine(lambda: right.numpy() + 0.02), 80)
    with pytest.raises(RuntimeError, match="nan"):
        dense.checked(Engine(lambda: right.numpy() * np.nan))
    assert len(dense.calibration) * 2 == suite.rivals.CALIBRATION
    assert not np.array_equal(dense.calibration[0], dense.z.numpy())


def test_tables_have_a_column_for_what_ran_and_a_list_of_what_did_not(suite, tmp_path):
    from tables import markdown

    rows = [
        ("Q1", suite.entries.Row("int8", "density 0.1", 1.5, ran="u8")),
        ("Q1", suite.entries.Row("gone", "density 0.1", None)),
    ]
    lines = markdown(rows, {"Q1": "rivals"}, {"gone": "nncf is not installed"}).splitlines()
    assert "| id | case | ran in | density 0.1 |" in lines
    assert "| Q1 | int8 | u8 | 1.50 |" in lines
    assert "| Q1 | gone |  | not measured |" in lines
    assert "- gone: nncf is not installed" in lines
    options = argparse.Namespace(json=None, markdown=tmp_path / "a.md", rounds=2)
    importlib.import_module("suite").write(options, "a machine", rows, {"Q1": 1.0})
    assert (tmp_path / "a.md").read_text().startswith("a machine\n")


@pytest.mark.parametrize("variant", ["float32", "float32 kernels", "int8 2x4", "int8 16x4"])
def test_ours_draw_the_images_of_the_masked_generator(suite, variant):
    recipe = suite.entries.recipe_of(16, f"sparsity.pattern={suite.rivals.OURS[variant]}")
    network, masks = suite.rivals.masked_generator(recipe, 0.2)
    engine = suite.rivals.our_engine(16, variant, 0.2, 2)
    with torch.no_grad():
        wanted = network(suite.rivals.latents(2, network.latent_dim))
        error = float((engine() - wanted).abs().max())
    assert error < (1e-5 if variant.startswith("float32") else 0.1)
    assert engine.ran == ("int8" if variant.startswith("int8") else "float32")
    assert any(0 < int(mask.sum()) < mask.numel() for mask in masks.values())


def test_every_target_belongs_to_a_figure_that_is_measured(suite, monkeypatch):
    module = importlib.import_module("suite_inference")
    monkeypatch.setattr(module, "DENSITIES", (0.1,))

    def asked(head, own, rivals, rounds, calls):
        for rival, _ in rivals:
            for variant, density in own:
                yield suite.entries.Row(f"{head}: {rival} over our {variant}", f"density {density:g}", 1.0)

    monkeypatch.setattr(module, "compared", asked)
    rows = [row for name in ("Q1", "Q2", "N1") for row in suite.entries.ENTRIES[name].measure(2)]
    assert {row.case for row in rows if row.target} == set(module.AIMS)
    (row,) = {row for row in rows if row.case in module.AIMS and "batch 1:" in row.case and "1x4" in row.case}
    assert (row.at, row.target, row.stretch) == ("density 0.1", 2.5, 4)
