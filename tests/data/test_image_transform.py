from __future__ import annotations

import torch

from gancompress.data import mirror, to_float, to_uint8


def test_ends_and_middle_of_the_range():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_float(images), torch.tensor([-1.0, -0.6, 1.0]))
    assert to_uint8(torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


def test_every_value_survives_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert to_uint8(to_float(values)).equal(values)


def test_arguments_are_left_alone():
    floats = torch.rand(2, 3, 4, 4)
    copy = floats.clone()
    to_uint8(floats)
    assert floats.equal(copy)
    stored = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    mirror(to_float(stored), torch.tensor([True]))
    assert stored.flatten().tolist() == list(range(48))


def test_only_the_images_asked_for_are_mirrored_left_to_right():
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(2, 1, 2, 2)
    out = mirror(images, torch.tensor([True, False]))
    assert out[0, 0].tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert out[1, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
