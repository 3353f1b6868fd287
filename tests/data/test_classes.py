"""Classes are asked for as often as the data have them."""

from __future__ import annotations

import pytest
import torch

from gancompress.data.base import ImageSpec
from gancompress.data.classes import check_class_number, class_cycle, class_warnings
from gancompress.errors import DataError


@pytest.mark.parametrize(
    ("counts", "cycle"),
    [
        ((7, 7, 7), [0, 1, 2]),  # equally many: in turn, however many
        ((0, 5, 5), [1, 2]),
        ((4, 2), [0, 1, 0]),
        ((1, 3), [1, 0, 1, 1]),
        ((0, 0, 9), [2]),
        ((), []),
    ],
)
def test_a_cycle_has_each_class_as_often_as_the_data(counts, cycle):
    assert class_cycle(counts).tolist() == cycle


def test_every_beginning_of_a_cycle_has_each_class_in_proportion():
    counts = torch.tensor([700, 0, 13, 211, 1])
    cycle = class_cycle(counts.tolist())
    assert torch.bincount(cycle, minlength=5).equal(counts)
    made = torch.nn.functional.one_hot(cycle, 5).cumsum(0)
    wanted = torch.arange(1, len(cycle) + 1)[:, None] * counts / counts.sum()
    assert (made - wanted).abs().max() < 1.5


def test_empty_and_rare_classes_are_named():
    spec = ImageSpec(3, 8, ("0", "cat", "dog", "eel"))
    empty, rare = class_warnings(spec, (0, 500, 480, 3))
    assert empty.startswith("class 0 has no images (labels count from 0)")
    assert rare.startswith("class 3 (eel) has few images, 3 at the fewest")
    assert class_warnings(spec, (40, 50, 60, 50)) == []
    many = ImageSpec(3, 8, tuple(map(str, range(40))))
    (line,) = class_warnings(many, (10,) * 20 + (0,) * 20)
    assert line.startswith("20 classes (20, 21, 22, 23, 24 and 15 more) have no images:")


def test_far_more_classes_than_images_are_refused():
    check_class_number(40, 4, "here")
    with pytest.raises(DataError, match=r"here: 41 classes for 4 images: number the classes from 0 without gaps"):
        check_class_number(41, 4, "here")


def test_counts_travel_with_the_images_only_where_they_differ():
    plain = ImageSpec(1, 8, ("a", "b"))
    assert plain.to_json() == {"channels": 1, "resolution": 8, "classes": ["a", "b"]}
    uneven = ImageSpec(1, 8, ("a", "b"), (3, 1))
    assert ImageSpec.from_json(uneven.to_json()).counts == (3, 1)
    for counts in ([3], [0, 0], [-1, 2]):
        with pytest.raises(ValueError, match="counts"):
            ImageSpec.from_json({**plain.to_json(), "counts": counts})
