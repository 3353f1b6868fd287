"""Distillation: what is kept comes nearer to the whole network, and goes on wherever it was interrupted."""

from __future__ import annotations

import math
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import gancompress
from gancompress.api.networks import distilling
from gancompress.errors import RecipeError
from gancompress.export.network import LoadedNetwork
from gancompress.foreign import distill as distill_module
from gancompress.foreign.agreement import agreement
from gancompress.foreign.compress import compress_network
from gancompress.foreign.distill import Distillation, Length, distill, parse_length, spectral_loss
from gancompress.foreign.network import capture_module
from gancompress.progress import Silent
from gancompress.storage import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gancompress.foreign.compress import CompressedNetwork
    from gancompress.graphs.build import CapturedModule
    from gancompress.storage.checkpoint import Snapshot

STEPS = 12


def upscaler() -> CapturedModule:
    """Slopes, a norm with an affine part and statistics of its own, and one convolution that is used twice."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.slope = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.PReLU(8)
            self.norm, self.twice = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
            self.last = nn.Conv2d(8, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.slope(self.first(x)))
            return nn.functional.pixel_shuffle(self.last(self.twice(torch.relu(self.twice(x)))), 2)

    torch.manual_seed(0)
    net = Net()
    for layer in (net.first, net.twice, net.last):
        nn.init.kaiming_normal_(layer.weight)
    net.norm.running_var = torch.full((8,), 0.3)
    return capture_module(net, (torch.rand(1, 3, 8, 10),), [{0: "n", 2: "h", 3: "w"}])


@pytest.fixture(scope="module")
def whole() -> CapturedModule:
    return upscaler()


@pytest.fixture(scope="module")
def pictures() -> list[tuple[Tensor, ...]]:
    rng = torch.Generator().manual_seed(3)
    coarse = torch.rand(6, 3, 5, 6, generator=rng)
    return [(x[None],) for x in nn.functional.interpolate(coarse, size=(40, 52), mode="bicubic")]


def compress(
    whole: CapturedModule, pictures: Any, place: Path, steps: int = STEPS, seed: int = 0, stop: Any = None, **more: Any
) -> CompressedNetwork:
    asked = Distillation(Length(steps=steps), place, stop or (lambda: False))
    return compress_network(whole, 0.4, pictures, method="magnitude", seed=seed, distillation=asked, **more)


def test_what_is_kept_comes_nearer_and_what_is_gone_stays_gone(
    whole: CapturedModule, pictures: Any, tmp_path: Path
) -> None:
    for method, gained in (("magnitude", 2.0), ("reconstruct", 0.2)):
        before = compress_network(whole, 0.4, pictures, method=method)
        asked = Distillation(Length(steps=60), tmp_path / method)
        after = compress_network(whole, 0.4, pictures, method=method, distillation=asked)
        assert after.agreement[0].mean > before.agreement[0].mean + gained
        assert "distilled for 60 steps" in repr(after)
        changed = {
            name
            for name, tensor in after.network.state_dict().items()
            if not torch.equal(tensor, before.network.state_dict()[name])
        }
        # slopes are a raw tensor of the graph; statistics of norms are no weights
        assert {one for one in before.network.state_dict() if "running" not in one} == changed
        for name, mask in after.masks.items():
            assert torch.equal(mask, before.masks[name])
            weight = after.network.state_dict()[name]
            assert not weight[~mask].any()


def test_it_ends_alike_wherever_it_was_interrupted(
    whole: CapturedModule, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(made: CompressedNetwork) -> dict[str, Tensor]:
        return made.network.state_dict()

    once = compress(whole, pictures, tmp_path / "once")
    other = compress(whole, pictures, tmp_path / "other", seed=1)
    assert not torch.equal(state(once)["last.weight"], state(other)["last.weight"])
    said: list[str] = []
    for seen in (1, 6):  # asked to stop, twice
        polls = iter([False] * seen)
        with pytest.raises(KeyboardInterrupt, match="goes on"):
            compress(whole, pictures, tmp_path / "twice", stop=lambda polls=polls: next(polls, True), say=said.append)
    monkeypatch.setattr(distill_module, "_CHECKPOINT_SECONDS", 0.0)
    loss, calls = distill_module._loss, iter(range(1000))

    def dies(*given: Any) -> Tensor:
        if next(calls) == 2:
            raise MemoryError
        return loss(*given)

    monkeypatch.setattr(distill_module, "_loss", dies)
    with pytest.raises(MemoryError):
        compress(whole, pictures, tmp_path / "twice")
    monkeypatch.setattr(distill_module, "_loss", loss)
    twice = compress(whole, pictures, tmp_path / "twice", say=said.append)
    steps = [int(one.split()[4]) for one in said if one.startswith("going on")]
    assert 0 < steps[0] < steps[1] < STEPS
    assert all(torch.equal(tensor, state(once)[name]) for name, tensor in state(twice).items())


def distilled_file(whole: CapturedModule, pictures: Any, place: Path, dies_at: int, say: Callable[[str], None]) -> Path:
    """Distil for 20 seconds where every step takes one and is saved; die when that of ``dies_at`` is."""
    clock, real = iter(range(1000)), checkpoint.save

    def save(directory: Path, snapshot: Snapshot) -> Path:
        path = real(directory, snapshot)
        if snapshot.step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill_module, "_CHECKPOINT_SECONDS", 0.0)
        patch.setattr(distill_module.time, "process_time", lambda: next(clock))
        patch.setattr(distill_module.checkpoint, "save", save)
        with distilling("20s", place, Silent()) as asked:
            made = compress_network(whole, 0.4, pictures, method="magnitude", distillation=asked, say=say)
            return made.save(place / "generator.safetensors")


def dying(pictures: Any, place: Path) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    distilled_file(upscaler(), pictures, place, 8, lambda _: None)


@pytest.mark.slow  # a process that captures a network
def test_killed_midway_it_goes_on_and_time_already_spent_counts(
    whole: CapturedModule, pictures: Any, tmp_path: Path
) -> None:
    said: list[str] = []
    # copies of this process cannot differentiate once it has
    child = torch.multiprocessing.get_context("spawn").Process(target=dying, args=(pictures, tmp_path / "net"))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "net" / "generator.safetensors").exists()
    file = distilled_file(whole, pictures, tmp_path / "net", -1, said.append)
    assert "going on at step 8 of the distillation" in said
    assert any(one.startswith("distilled in 20 steps, 20 s") for one in said)
    once = distilled_file(whole, pictures, tmp_path / "once", -1, said.append)
    (image,) = pictures[0]
    assert torch.equal(gancompress.load(file)(image), gancompress.load(once)(image))
    assert [one.name for one in (tmp_path / "net").iterdir()] == [file.name]


def test_another_call_does_not_go_on_from_it(whole: CapturedModule, pictures: Any, tmp_path: Path) -> None:
    calls = [{"steps": 13}, {"seed": 1}, {"pictures": pictures[:5]}, {"whole": upscaler()}]
    with torch.no_grad():
        calls[-1]["whole"].get_submodule("last").bias[0] += 1
    for index, changes in enumerate(calls):
        said: list[str] = []
        place = tmp_path / str(index)
        compress(whole, pictures, place, steps=1)
        compress(**{"whole": whole, "pictures": pictures, "place": place, "steps": 1, "say": said.append, **changes})
        assert not any(one.startswith("going on") for one in said)
        said.clear()
        compress(**{"whole": whole, "pictures": pictures, "place": place, "steps": 1, "say": said.append, **changes})
        assert any(one.startswith("going on") for one in said)


def test_a_start_that_cannot_be_bettered_is_kept(whole: CapturedModule, pictures: Any) -> None:
    pruned = upscaler()
    before = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}
    masks = {"last.weight": torch.ones(12, 8, 3, 3, dtype=torch.bool)}
    said: list[str] = []
    distill(whole, pruned, masks, pictures, Length(steps=3), say=said.append)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruned.state_dict().items())
    assert "no better" in said[-1]
    assert not any(tensor.requires_grad for tensor in (*pruned.parameters(), *pruned.buffers()))


def test_for_int8_the_rounding_of_bytes_is_trained_with(whole: CapturedModule, pictures: Any, tmp_path: Path) -> None:
    def near(steps: int, **more: Any) -> float:
        place = tmp_path / f"{len(more)}"
        asked = Distillation(Length(steps=steps), place) if steps else None
        made = compress_network(whole, 1.0, pictures, method="magnitude", distillation=asked, **more)
        assert bool(made.ranges) == bool(more)
        file = made.save(tmp_path / "generator.safetensors", values="int8")
        loaded = gancompress.load(file)
        assert isinstance(loaded, LoadedNetwork)
        assert not more or loaded.ranges == made.ranges
        return agreement(whole, loaded, [pictures[3]], (0.0, 1.0))[0].mean

    untrained, before = near(0), near(60)
    assert before == untrained  # in float nothing was lost: there is nothing to gain
    assert near(60, values="int8") > before + 2


def test_for_int8_it_goes_on_with_the_ranges_that_it_began_with(
    whole: CapturedModule, pictures: Any, tmp_path: Path
) -> None:
    once = compress(whole, pictures, tmp_path / "once", values="int8")
    polls, said = iter([False] * 6), list[str]()
    with pytest.raises(KeyboardInterrupt, match="goes on"):
        compress(whole, pictures, tmp_path / "twice", stop=lambda: next(polls, True), values="int8")
    twice = compress(whole, pictures, tmp_path / "twice", say=said.append, values="int8")
    assert any(one.startswith("going on") for one in said)
    assert once.ranges == twice.ranges
    for name, tensor in once.network.state_dict().items():
        assert torch.equal(tensor, twice.network.state_dict()[name]), name
    assert once.save(tmp_path / "one.safetensors").read_bytes() == twice.save(tmp_path / "two.safetensors").read_bytes()
    assert gancompress.load(tmp_path / "one.safetensors").source["values"] == "int8"  # what it is for
    with pytest.raises(RecipeError, match="values 'int7': use float32"):
        compress(whole, pictures, tmp_path / "no", values="int7")


def test_seconds_are_a_length_too(whole: CapturedModule, pictures: Any, tmp_path: Path) -> None:
    said: list[str] = []
    made = compress_network(
        whole, 0.4, pictures, method="magnitude", say=said.append,
        distillation=Distillation(Length(seconds=0.2), tmp_path),
    )  # fmt: skip
    assert made.distilled == "0.2 s"
    assert any(one.startswith("distilled in") for one in said)


def test_spectra_of_known_waves() -> None:
    torch.manual_seed(0)
    wave = torch.randn(2, 1, 4096)
    assert float(spectral_loss(wave, wave)) == 0
    assert float(spectral_loss(wave, 2 * wave)) == pytest.approx(2 / 3 + math.log(2), rel=1e-3)
    assert float(spectral_loss(wave, -wave)) == pytest.approx(2, rel=1e-3)
    # quiet parts count as loud ones do
    assert float(spectral_loss(wave / 10, wave / 5)) == pytest.approx(2 / 3 + math.log(2), rel=1e-3)
    silent = torch.zeros(1, 1, 4096, requires_grad=True)
    spectral_loss(wave[:1], silent).backward()  # type: ignore[no-untyped-call]
    assert silent.grad is not None
    assert bool(silent.grad.isfinite().all())


def test_sound_is_distilled_as_sound(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose1d(6, 6, 8, 8), nn.LeakyReLU(0.1), nn.Conv1d(6, 1, 7, padding=3), nn.Tanh())
    vocoder = capture_module(net, (torch.randn(1, 6, 20),), [{2: "t"}])
    inputs = [(torch.randn(1, 6, 300 + index),) for index in range(4)]
    made = [
        compress_network(vocoder, 0.5, inputs, method="magnitude", distillation=one)
        for one in (None, Distillation(Length(steps=40), tmp_path))
    ]
    for before, after in zip(made[0].agreement, made[1].agreement, strict=True):
        assert (after.mean > before.mean) == before.higher_is_better


@pytest.mark.parametrize("text", ["", "0s", "5 minutes", "1.5 steps", "-3s", "nan s", "s"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError, match="such as '60s' or '500 steps'"):
        parse_length(text)


def test_lengths() -> None:
    assert parse_length("60s") == Length(seconds=60.0)
    assert parse_length("1.5 s") == Length(seconds=1.5)
    assert parse_length("500 steps") == Length(steps=500)
    assert parse_length("1 step") == Length(steps=1)


def test_from_python_nothing_is_left_behind(tmp_path: Path, pictures: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1))
    given: dict[str, Any] = {
        "density": 0.4, "example": torch.rand(1, 3, 8, 8), "dynamic": {0: "n", 2: "h", 3: "w"}, "progress": False,
        "out": tmp_path / "runs",
    }  # fmt: skip
    made = gancompress.compress(net, calibration=[one for (one,) in pictures], distill="2 steps", **given)
    assert made.distilled == "2 steps"
    assert not any(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="needs calibration inputs"):
        gancompress.compress(net, distill="2 steps", **given)
    with pytest.raises(RecipeError, match="such as '60s'"):
        gancompress.compress(net, distill="2 epochs", **given)
    assert not any(tmp_path.iterdir())
