"""The file of a page, byte by byte."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib

import numpy as np
import torch

from gancompress.web.blob import MAGIC, Tensors, gaps_of, write_blob
from gancompress.web.build import shipped

ROOM = {"kernels": 0, "header": 1, "high": 2, "low": 3, "gaps": 4, "whole": 5}


def test_gaps_by_hand() -> None:
    # 296 masked ones before place 300 are 255 without a value and 41 more
    assert gaps_of(np.array([0, 3, 300])).tolist() == [0, 2, 255, 41]
    assert gaps_of(np.array([255])).tolist() == [255, 0]
    assert gaps_of(np.array([254])).tolist() == [254]
    assert gaps_of(np.array([], dtype=np.int64)).tolist() == []


def test_floats_by_hand() -> None:
    tensors = Tensors()
    # 1.0 is 3f800000, -1.5 is bfc00000; turned left by one bit 7f000000 and 7f800001
    assert tensors.add(torch.tensor([1.0, -1.5])) == 0
    assert tensors.entries == [{"n": 2, "as": "f32"}]
    assert tensors.streams() == {"high": b"\x7f\x7f", "low": b"\0\0\0\x01\0\x80", "gaps": b"", "whole": b""}


def test_kept_values_alone_are_written_and_equal_tensors_once() -> None:
    tensors = Tensors()
    mask = torch.tensor([[False, True], [False, True]])
    first = tensors.add(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), mask)
    assert tensors.add(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), mask) == first
    assert tensors.add(torch.tensor([[5.0, 1.0], [0.0, 0.0]]), ~mask) == 1
    assert tensors.add(None) == -1
    assert tensors.entries[0] == {"n": 4, "as": "f32", "kept": 2}  # a kept one may be 0
    assert tensors.streams()["gaps"] == b"\x01\x01" + b"\x00\x01"


def test_eight_bit_weights_by_hand() -> None:
    tensors = Tensors()
    tensors.add(torch.tensor([-127, 0, 3], dtype=torch.int8), torch.tensor([True, False, True]))
    assert tensors.entries == [{"n": 3, "as": "i8", "kept": 2}]
    assert tensors.streams() == {"high": b"", "low": b"", "gaps": b"\0\x01", "whole": b"\x81\x03"}


def test_rounded_weights_are_written_with_a_scale_per_row() -> None:
    rounded = torch.tensor([[1.0, -1.5], [2.0, 4.0]])
    tensors = Tensors()
    place = tensors.add(rounded * torch.tensor([[0.3], [7.0]]), rounded=rounded)
    scale = tensors.entries[tensors.entries[place]["scale"]]
    assert tensors.entries[place] == {"n": 4, "as": "bf16", "scale": place - 1, "inner": 2}
    assert scale == {"n": 2, "as": "f32"}
    # bfc0 turned left by one bit is 7f81
    assert tensors.streams()["high"][2:] == b"\x7f\x7f\x80\x81"
    assert tensors.streams()["low"][6:] == b"\0\x81\0\0"


def test_scales_of_a_transposed_convolution_are_of_the_second_axis() -> None:
    rounded = torch.arange(1.0, 13.0).reshape(2, 3, 2)
    tensors = Tensors()
    place = tensors.add(rounded * torch.tensor([[0.3], [7.0], [-1.0]]), rounded=rounded)
    assert tensors.entries[place]["inner"] == 2
    assert tensors.entries[place]["as"] == "bf16"


def test_what_is_no_multiple_of_the_rounded_weights_stays_whole() -> None:
    rounded = torch.tensor([[1.0, -1.5], [2.0, 4.0]])
    tensors = Tensors()
    tensors.add(torch.tensor([[1.0, -1.6], [2.0, 4.0]]), rounded=rounded)
    tensors.add(torch.tensor([[1.0, 1.0], [2.0, 3.0]]), rounded=torch.tensor([[1.0, 1.0], [2.0, 3.0001]]))  # not bf16
    assert [entry["as"] for entry in tensors.entries] == ["f32", "f32"]


def test_the_file_by_hand() -> None:
    tensors = Tensors()
    tensors.add(torch.tensor([1.0]))
    blob = write_blob({"latent": 3}, tensors)
    assert blob[:8] == MAGIC == b"GCWEB\0\0\1"
    assert blob[8:28] == hashlib.blake2b(blob[28:], digest_size=20).digest()
    sizes = struct.unpack("<12I", blob[28:76])
    at, parts = 76, []
    for packed, whole in zip(sizes[::2], sizes[1::2], strict=True):
        part = blob[at : at + packed]
        parts.append(part if packed == whole else zlib.decompress(part, -15))
        assert len(parts[-1]) == whole
        at += packed
    assert at == len(blob)
    assert parts[ROOM["kernels"]] == shipped().read_bytes()
    assert json.loads(parts[ROOM["header"]]) == {"latent": 3, "tensors": [{"n": 1, "as": "f32"}]}
    assert (parts[ROOM["high"]], parts[ROOM["low"]]) == (b"\x7f", b"\0\0\0")
    assert write_blob({"latent": 3}, tensors) == blob
