"""Whole channels of networks from elsewhere: cut, refitted, distilled, written and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import gancompress
from gancompress.errors import ChannelError, GancompressError, RecipeError
from gancompress.export.network import LoadedNetwork
from gancompress.foreign.agreement import agreement
from gancompress.foreign.channels import ChannelOptions
from gancompress.foreign.compress import compress_network
from gancompress.foreign.distill import Distillation, Length
from gancompress.foreign.network import capture_module

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.graphs.build import CapturedModule


class Upscaler(nn.Module):
    """Its middle has four channels that are mixtures of the other four."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slope = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.PReLU(8)
        self.norm, self.middle = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(torch.relu(self.norm(self.slope(self.first(x)))))
        return nn.functional.pixel_shuffle(self.last(x), 2)


@pytest.fixture(scope="module")
def whole() -> CapturedModule:
    torch.manual_seed(0)
    net = Upscaler()
    with torch.no_grad():
        mixed = torch.randn(4, 4)
        net.middle.weight[4:] = torch.einsum("ab,bchw->achw", mixed, net.middle.weight[:4])
        net.middle.bias[4:] = mixed @ net.middle.bias[:4]
    return capture_module(net, (torch.rand(1, 3, 8, 10),), [{0: "n", 2: "h", 3: "w"}])


@pytest.fixture(scope="module")
def photos() -> list[tuple[Tensor, ...]]:
    return [(torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(index)),) for index in range(6)]


def test_what_reads_the_channels_takes_over_what_is_gone(
    whole: CapturedModule, photos: list[tuple[Tensor, ...]]
) -> None:
    made = compress_network(whole, 0.5, photos, method="channels")
    assert {name: (int(kept.sum()), len(kept)) for name, kept in made.channels.items()} == {
        "first": (4, 8), "middle": (4, 8)
    }  # fmt: skip
    state = made.network.state_dict()
    assert state["middle.weight"].shape == (4, 4, 3, 3)
    assert state["norm.running_mean"].shape == (4,)
    total = 8 * 27 + 8 * 72 + 12 * 72
    kept = 4 * 27 + 4 * 36 + 12 * 36
    assert (made.weights, made.density) == (total, kept / total)
    assert made.dense_bytes == 4 * (total + 8 + 4 * 8 + 8 + 12)
    assert "by channels" in repr(made)
    unfitted = compress_network(whole, 0.5, method="channels")
    (worse,) = agreement(whole, unfitted.network, photos[3:4], (0.0, 1.0))
    assert made.agreement[0].mean > worse.mean + 3


def test_it_is_written_read_and_brought_into_bytes(
    whole: CapturedModule, photos: list[tuple[Tensor, ...]], tmp_path: Path
) -> None:
    made = compress_network(whole, 0.5, photos, method="channels")
    again = gancompress.load(made.save(tmp_path / "narrow.safetensors"))
    assert isinstance(again, LoadedNetwork)
    torch.testing.assert_close(again(*photos[0]), made(*photos[0]), rtol=1e-4, atol=1e-5)
    odd = torch.rand(3, 3, 9, 7)
    assert again(odd).shape == (3, 3, 18, 14)
    small = gancompress.load(made.save(tmp_path / "bytes.safetensors", values="int8"))
    assert isinstance(small, LoadedNetwork)
    assert small.ranges
    assert float((small(odd) - again(odd)).abs().max()) < 0.1 * float(again(odd).abs().max())


def test_distillation_goes_on_with_the_channels_that_were_chosen(
    whole: CapturedModule, photos: list[tuple[Tensor, ...]], tmp_path: Path
) -> None:
    def run(place: str, stop_after: int | None) -> Any:
        said: list[str] = []

        def stop() -> bool:
            return stop_after is not None and sum("distilling" in one for one in said) > stop_after

        # a clock that never says the same: what was chosen is kept, not measured again
        times = iter([(2.0, 0.1), (20.0, 1.0), (9.0, 0.45), *[(10.0, 0.5)] * 20])
        options = ChannelOptions("ms=9", timer=lambda *_: next(times))
        length = Distillation(Length(steps=8), tmp_path / place, stop)
        return compress_network(
            whole, 0.5, photos, method="channels", distillation=length, channels=options, say=said.append
        )

    straight = run("straight", None)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", 3)
    again = run("stopped", None)
    assert {name: kept.tolist() for name, kept in again.channels.items()} == {
        name: kept.tolist() for name, kept in straight.channels.items()
    }
    for name, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_bad_input_is_one_line(whole: CapturedModule, photos: list[tuple[Tensor, ...]]) -> None:
    def refused(kind: type[GancompressError], match: str, *, method: str = "channels", **options: Any) -> None:
        with pytest.raises(kind, match=match):
            compress_network(whole, 0.5, method=method, channels=ChannelOptions(**options))

    refused(RecipeError, "target is for method channels, not magnitude", method="magnitude", target="ms=3")
    refused(RecipeError, "importance is for method channels", method="magnitude", importance="lamp")
    refused(ChannelError, "give ms, macs, parameters or bytes", target="fast")
    refused(ChannelError, "needs calibration inputs", importance="outputs")
    refused(ChannelError, "known: magnitude", importance="size")
    refused(ChannelError, "out of reach", target="parameters=20")
    with pytest.raises(ChannelError, match="keeps every channel"):
        compress_network(whole, 1.0, method="channels")
    with pytest.raises(RecipeError, match="target is for whole channels"):
        gancompress.compress(nn.Conv2d(3, 3, 1), 0.5, example=torch.rand(1, 3, 4, 4), target="ms=3")
