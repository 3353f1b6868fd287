"""Engines of others: one that is missing or fails costs itself alone, and what really ran is counted."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from gancompress.bench.engines import Engine, counted, onnx_bytes, openvino_model, ready
from gancompress.bench.infer import bench_infer
from gancompress.bench.timing import alternate, machine
from gancompress.kernels.measured import processor_key
from gancompress.recipe.load import load_recipe


def test_an_engine_that_is_missing_or_fails_costs_itself_alone():
    def missing():
        import no_such_engine  # noqa: F401

    def refuses():
        raise RuntimeError("unsupported\n  operation")

    def fails_when_called():
        return lambda: 1 / 0

    makers = {"gone": missing, "first": refuses, "works": lambda: lambda: 3, "later": fails_when_called}
    steps, left_out = ready(makers)
    assert [(name, step()) for name, step in steps.items()] == [("works", 3)]
    assert left_out == {
        "gone": "no_such_engine is not installed: pip install 'gancompress[bench]'",
        "first": "RuntimeError: unsupported operation",
        "later": "ZeroDivisionError: division by zero",
    }


def test_a_generator_is_timed_beside_the_engines_that_can_be_imported(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)  # installed, as far as one can see, and not to be imported
    small = ("data=shapes", "data.resolution=32", "model.channels=4", "model.discriminator_channels=4")
    result = bench_infer(load_recipe("sngan_cifar10", overrides=small).recipe, (0.5,), (2,), rounds=2)
    assert {"onnxruntime", "onnxruntime, folded", "sparse 0.5"} < set(result.batches[2])
    assert set(result.missing) == {"openvino", "openvino bf16", "openvino, folded", "openvino bf16, folded"}
    assert len(set(result.missing.values())) == 1


def test_precisions_are_counted():
    assert counted(["u8", "f32", "u8"]) == "u8 2 of 3, f32 1 of 3"
    assert counted(["f32", "f32"]) == "f32"
    assert counted([]) == ""


def test_openvino_says_which_precision_ran():
    pytest.importorskip("openvino")
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)).eval()
    x = (torch.rand(2, 3, 8, 8),)
    engine = openvino_model(onnx_bytes(network, x), x, 1, "f32")
    assert engine.ran == "f32"
    torch.testing.assert_close(torch.from_numpy(engine()), network(*x).detach(), rtol=1e-4, atol=1e-5)


def test_a_step_of_another_process_is_timed_by_that_process():
    class Elsewhere(Engine):
        def turn(self, calls):
            return 5.0 * calls, 7.0 * calls

    times = alternate({"here": lambda: None, "there": Elsewhere(lambda: None)}, 2, calls=3)
    assert times["there"] == [(5.0, 7.0)] * 2
    assert all(cpu < 1 for cpu, _ in times["here"])


def test_the_machine_is_named_with_its_generation():
    assert machine()["processor"] == processor_key()
