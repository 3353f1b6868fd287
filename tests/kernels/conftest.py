from __future__ import annotations

import pytest
import torch

from gancompress.kernels.native_library import ENVIRONMENT, library
from gancompress.kernels.native_library import _find as find_library


def isas() -> list[str]:
    lib = library()
    return list(lib.supported) if lib is not None else []


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch, tmp_path):
    # No measurement decides in a test, and none touches the user's cache.
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "always")
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=isas() or [pytest.param("none", marks=pytest.mark.skip(reason="native kernels are not built"))])
def isa(request, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, request.param)
    assert library().isa == request.param
    return request.param


@pytest.fixture
def native(monkeypatch):
    if find_library() is None:
        pytest.skip("native kernels are not built")
    return library()
