"""What two networks make of the same inputs, to be looked at and listened to."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gancompress.foreign.examples import RATE, examples
from gancompress.foreign.network import capture_module


class Twice(nn.Module):
    """Enlarges by 2 and adds a constant."""

    def __init__(self, added: float) -> None:
        super().__init__()
        self.added = nn.Parameter(torch.tensor(added))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2) + self.added


def captured(module: nn.Module, example: Tensor, axes: dict[int, str]) -> Any:
    return capture_module(module.eval(), (example,), [axes])


def test_pictures_are_of_pieces_and_the_difference_is_enlarged_as_said() -> None:
    axes = {0: "n", 2: "h", 3: "w"}
    whole, small = (captured(Twice(added), torch.rand(1, 3, 8, 8), axes) for added in (0.0, 0.03))
    given = [(torch.rand(2, 3, 700, 300) * 0.9,), (torch.rand(1, 3, 20, 24) * 0.9,)]
    first, second = examples(whole, small, given, (0.0, 1.0))
    titles = [title for title, _ in first.pictures]
    assert titles == ["input", "dense", "compressed", "difference × 32"]  # 0.03 x 32 = 0.96: 64 would be cut off
    images = [Image.open(io.BytesIO(content)) for _, content in first.pictures]
    assert [image.size for image in images] == [(192, 192), (384, 384), (384, 384), (384, 384)]
    assert np.asarray(images[3]).min() == np.asarray(images[3]).max() == round(0.96 * 255)
    assert Image.open(io.BytesIO(second.pictures[1][1])).size == (48, 40)  # what is smaller is shown whole
    assert examples(whole, whole, given, (0.0, 1.0))[0].pictures[3][0] == "difference × 1"


def test_sound_has_spectrograms_and_is_played_as_loud_as_it_is() -> None:
    axes = {0: "n", 2: "t"}
    networks = []
    for factor in (0.5, 0.25):
        module = nn.Conv1d(4, 1, 1, bias=False)
        module.weight.data.copy_(torch.tensor([factor, 0, 0, 0])[None, :, None])
        networks.append(captured(module, torch.rand(1, 4, 9), axes))
    whole, small = networks
    tone = torch.sin(torch.arange(8 * RATE) * (2 * torch.pi * 1000 / RATE)).expand(1, 4, -1)
    (example,) = examples(whole, small, [(tone,)], (0.0, 1.0))
    assert [title for title, _ in example.pictures] == ["dense", "compressed", "difference, 0 to 40 dB"]
    peaks = []
    for _, content in example.sounds:
        with wave.open(io.BytesIO(content)) as file:
            assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
            assert 4.9 * RATE < file.getnframes() <= 5 * RATE
            peaks.append(np.frombuffer(file.readframes(file.getnframes()), "<i2").max() / 32767)
    assert np.allclose(peaks, [0.5, 0.25], atol=1e-3)
    (slower,) = examples(whole, small, [(tone,)], (0.0, 1.0), 8000)
    with wave.open(io.BytesIO(slower.sounds[0][1])) as file:
        assert file.getframerate() == 8000
    rows = np.asarray(Image.open(io.BytesIO(example.pictures[0][1]))).sum((1, 2))
    place = 1 - rows.argmax() / len(rows)
    assert abs(place - 1000 / (RATE / 2)) < 0.02  # low frequencies are at the bottom


def test_other_outputs_show_nothing() -> None:
    network = captured(nn.Linear(4, 3), torch.rand(2, 4), {0: "n"})
    assert examples(network, network, [(torch.rand(5, 4),)], (0.0, 1.0)) == []
