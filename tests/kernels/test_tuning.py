from __future__ import annotations

import json

import pytest
import torch

from gancompress import kernels
from gancompress.errors import KernelError
from gancompress.kernels import tuning
from gancompress.kernels.layer import Layer

LAYER = Layer("conv", (8, 8, 3, 3), 4, 6, 6, padding=1)


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(tuning.FIGURES, "_known", {})


def timed(monkeypatch, dense, low, high):
    calls = []

    def times(layer, training):
        calls.append((layer, training))
        return dense, low, high

    monkeypatch.setattr(tuning, "_times", times)
    return calls


def test_the_lines_cross_where_arithmetic_says(monkeypatch, native):
    # Sparse: 2 ms at 0.1, 8 ms at 0.4, so 20 ms a unit of density; dense 6 ms: they cross at 0.1 + 4/20.
    timed(monkeypatch, 6.0, 2.0, 8.0)
    assert kernels.break_even(LAYER, training=True) == pytest.approx(0.3)
    monkeypatch.setenv(tuning.ENVIRONMENT, "auto")
    assert kernels.choose(LAYER, 0.29, training=True) == "sparse"
    assert kernels.choose(LAYER, 0.31, training=True) == "dense"


@pytest.mark.parametrize(("times", "want"), [((9, 1, 1.1), 1.0), ((1, 2, 3), 0.0), ((5, 1, 1), 1.0), ((1, 2, 2), 0.0)])
def test_break_even_stays_between_none_and_all(monkeypatch, native, times, want):
    timed(monkeypatch, *times)
    assert kernels.break_even(LAYER, training=False) == want


def test_measured_once_then_read_from_the_file(monkeypatch, native):
    calls = timed(monkeypatch, 6.0, 2.0, 8.0)
    kernels.break_even(LAYER, training=True)
    kernels.break_even(LAYER, training=True)
    monkeypatch.setattr(tuning.FIGURES, "_known", {})  # a new process
    assert kernels.break_even(LAYER, training=True) == pytest.approx(0.3)
    assert len(calls) == 1
    kernels.break_even(LAYER, training=False)
    kernels.break_even(Layer("conv", (8, 8, 3, 3), 4, 7, 6, padding=1), training=True)
    assert len(calls) == 3
    (machine,) = json.loads(tuning.FIGURES.file.read_text()).values()
    assert len(machine) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 3}'])
def test_a_damaged_cache_is_an_empty_one(monkeypatch, native, content):
    timed(monkeypatch, 6.0, 2.0, 8.0)
    tuning.FIGURES.file.parent.mkdir(parents=True)
    tuning.FIGURES.file.write_text(content)
    assert kernels.break_even(LAYER, training=True) == pytest.approx(0.3)
    assert json.loads(tuning.FIGURES.file.read_text())


def test_the_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "own"))
    assert tuning.FIGURES.file == tmp_path / "own" / "break-even.json"
    monkeypatch.delenv("GANCOMPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tuning.FIGURES.file == tmp_path / "xdg" / "gancompress" / "break-even.json"


def test_an_unknown_mode_is_refused(monkeypatch):
    monkeypatch.setenv(tuning.ENVIRONMENT, "allways")
    with pytest.raises(KernelError, match=r"did you mean 'always'"):
        kernels.choose(LAYER, 0.1, training=True)


@pytest.mark.parametrize(
    "layer", [LAYER, Layer("transpose", (8, 6, 4, 4), 4, 5, 5, 2, 1), Layer("linear", (8, 6), 4)], ids=lambda v: v.op
)
def test_a_real_measurement_leaves_the_run_alone(native, layer):
    before = torch.get_rng_state()
    for training in (True, False):
        assert 0.0 <= kernels.break_even(layer, training=training) <= 1.0
    assert torch.equal(torch.get_rng_state(), before)
