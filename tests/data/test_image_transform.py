from __future__ import annotations

import torch

from gancompress.data import random_flip, to_float, to_uint8
from gancompress.seeds import generator


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
    to_float(stored, generator(0, "flip", 0))
    assert stored.flatten().tolist() == list(range(48))


def test_flips_mirror_whole_images_left_to_right_about_half_the_time():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1000, 1, 2, 2)
    out = random_flip(image, generator(0, "flip", 0))
    mirrored = (out[:, 0] == torch.tensor([[2.0, 1.0], [4.0, 3.0]])).all((1, 2))
    same = (out == image).all(3).all(2)[:, 0]
    assert (mirrored ^ same).all()
    assert 440 < mirrored.sum() < 560


def test_flips_are_a_function_of_the_generator():
    images = (torch.arange(64 * 3 * 16) % 256).to(torch.uint8).reshape(64, 3, 4, 4)
    first = to_float(images, generator(0, "flip", 7))
    assert to_float(images, generator(0, "flip", 7)).equal(first)
    assert not to_float(images, generator(0, "flip", 8)).equal(first)
    assert to_float(images).equal(images.float() / 127.5 - 1)
