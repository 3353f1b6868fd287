"""Networks of the shapes that people publish: the outputs of torch, every convolution in a sparse program."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from foreign_generators import GENERATORS, difference

from gancompress.foreign.network import capture_module, open_onnx
from gancompress.lowering.network import SparseNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from gancompress.graphs.build import CapturedModule

#: of the largest number in the output
_TOLERANCE = 1e-5
#: in how many programs, where it is not one
_PROGRAMS = {"grouped": 3}


@functools.cache
def captured(name: str) -> tuple[CapturedModule, dict[str, Tensor]]:
    make, shape, dynamic, _ = GENERATORS[name]
    torch.manual_seed(3)
    module = make().eval()
    for tensor in [*module.buffers()]:
        if tensor.dim() == 1:  # statistics of batch norms that are not those of a fresh one
            tensor.uniform_(0.5, 1.5)
    network = capture_module(module, [torch.randn(shape)], [dynamic])
    masks = {}
    for key, tensor in network.state_dict().items():
        if tensor.dim() >= 3 and key.endswith(".weight"):
            masks[key] = torch.rand(tensor.shape) < 0.4
            tensor.mul_(masks[key])
    return network, masks


@pytest.mark.parametrize("name", GENERATORS)
def test_every_convolution_runs_sparse_and_the_outputs_are_those_of_torch(name: str) -> None:
    network, masks = captured(name)
    _, shape, _, other = GENERATORS[name]
    run = SparseNetwork(network, masks, "always")
    for size in (shape, other, shape):
        x = torch.randn(size)
        before = x.clone()
        assert difference(network(x), run(x)) < _TOLERANCE
        assert torch.equal(x, before)
    profile = run.profile(x)
    assert profile.dense == {}
    assert set(profile.sparse) == set(masks)
    assert profile.programs == _PROGRAMS.get(name, 1)
    assert sum(part.share for part in profile.parts) == pytest.approx(1)
    assert f"{len(masks)} of {len(masks)} convolutions sparse" in str(profile)
    assert f"{len(masks)} of {len(masks)} convolutions sparse" in repr(run)


def test_a_file_of_the_exporter_runs_sparse_too(tmp_path: Path) -> None:
    """In files, norms lie in pieces, borders are computed, and slopes have three axes."""
    make, shape, _, _ = GENERATORS["CycleGAN"]
    file = tmp_path / "generator.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "n"}}
        torch.onnx.export(
            make().eval(), (torch.randn(shape),), file, input_names=["x"], dynamic_axes=axes, dynamo=False
        )
    run, x = SparseNetwork(network := open_onnx(file), {}, "always"), torch.randn(shape)
    assert difference(network(x), run(x)) < _TOLERANCE
    profile = run.profile(x)
    assert (len(profile.sparse), profile.dense, profile.programs) == (8, {}, 1)
