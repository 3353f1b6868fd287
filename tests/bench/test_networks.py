"""Networks from elsewhere, timed: every engine on the same inputs, and none that is beyond them breaks anything."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gancompress.bench.networks import DENSE, ONNXRUNTIME, time_network
from gancompress.foreign.network import capture_module

if TYPE_CHECKING:
    from pathlib import Path

X = torch.rand(1, 3, 12, 14)


def network() -> Any:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)).eval()
    return capture_module(module, (X,), [{0: "n", 2: "h", 3: "w"}])


def test_all_engines_are_timed_on_the_same_inputs() -> None:
    pytest.importorskip("onnxruntime")
    dense, seen = network(), []
    found = time_network(dense, {"sparse": lambda x: seen.append(x.shape)}, (X,), rounds=3)
    assert list(found.rows) == [DENSE, ONNXRUNTIME, "sparse"]
    assert set(seen) == {X.shape}
    assert found.shapes == ((1, 3, 12, 14),)
    assert found.rows[DENSE].faster == 1
    assert found.against("sparse")["sparse"].faster == 1
    assert not found.missing


def test_an_engine_that_cannot_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"none")
    pytest.importorskip("onnxruntime")
    found = time_network(network(), {}, (X,), onnx=tmp_path / "net.onnx", rounds=3)
    assert list(found.rows) == [DENSE]
    assert found.missing[0].startswith("onnxruntime: ")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    assert "pip install" in time_network(network(), {}, (X,), rounds=3).missing[0]
