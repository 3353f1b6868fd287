"""What a channel is worth, by hand."""

from __future__ import annotations

import pytest
import torch
from channel_networks import found, images, latents, settled, shuffled, unflattened
from torch import nn

from gancompress.channels.scores import IMPORTANCES, best_channels, channel_scores
from gancompress.errors import ChannelError
from gancompress.seeds import generator


def test_magnitude_is_that_of_all_that_makes_and_reads_a_channel() -> None:
    module = settled(unflattened())
    network, channels = found(module, latents())
    first, norm, last = (network.state_dict()[f"{path}.weight"] for path in ("0", "2", "4"))
    squares = first.view(8, -1).square().sum(1) + norm.square() + last.flatten(1).square().sum(1)
    score = channel_scores(network, channels, "magnitude")["0"]
    torch.testing.assert_close(score / score.sum(), (squares / squares.sum()).double(), rtol=1e-5, atol=1e-7)
    scale = channel_scores(network, channels, "bn-scale")["0"]
    torch.testing.assert_close(scale / scale.sum(), (norm.abs() / norm.abs().sum()).double(), rtol=1e-5, atol=1e-7)
    lamp = channel_scores(network, channels, "lamp")["0"]
    assert torch.equal(lamp.argsort(), score.argsort())  # over all that is no smaller: the order stays
    assert float(lamp.max()) == pytest.approx(1, abs=1e-5)


def test_what_moves_the_outputs_most_is_worth_most() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    inputs = [(torch.randn(1, 4),) for _ in range(3)]
    network, channels = found(module, (torch.randn(2, 4),))
    with torch.no_grad():
        changes = [(module[:2](x) * module[2].weight).flatten().double().square() for (x,) in inputs]
    score = channel_scores(network, channels, "outputs", inputs)["0"]
    torch.testing.assert_close(score, torch.stack(changes).mean(0))
    assert not any(one.requires_grad for one in network.parameters())


def test_a_loss_decides_what_taylor_keeps() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    network, channels = found(module, (torch.randn(2, 4),))
    calls = [(torch.randn(8, 4),)]
    score = channel_scores(network, channels, "taylor", calls, loss=lambda outputs: outputs[0].square().sum())["0"]
    own = [nn.Parameter(one.detach().clone()) for one in (module[0].weight, module[1].weight)]
    h = calls[0][0] @ own[0].T + module[0].bias.detach()
    (h @ own[1].T + module[1].bias.detach()).square().sum().backward()
    made, read = ((one * one.grad).abs().detach() for one in own)
    wanted = (made.sum(1) + read.sum(0)).double()
    torch.testing.assert_close(score / score.sum(), wanted / wanted.sum(), rtol=1e-4, atol=1e-6)
    assert all(one.grad is None for one in network.parameters())


def test_taylor_sees_batch_norms() -> None:
    module = settled(unflattened())
    network, channels = found(module, latents())
    made, norm, read = (f"{path}.weight" for path in ("0", "2", "4"))
    score = channel_scores(network, channels, "taylor", [latents()], seed=3)["0"]
    own = {name: parameter.detach().clone().requires_grad_() for name, parameter in network.named_parameters()}
    outputs = torch.func.functional_call(network, own, latents())
    signs = torch.randint(0, 2, outputs.shape, generator=generator(3, "channels", "signs", 0)) * 2 - 1
    (outputs * signs).sum().backward()
    terms = {name: (own[name] * own[name].grad).abs().detach() for name in (made, norm, read)}
    wanted = terms[made].view(8, -1).sum(1) + terms[norm] + terms[read].flatten(1).sum(1)
    assert float(terms[norm].sum()) > 0.01 * float(wanted.sum())
    torch.testing.assert_close(score / score.sum(), (wanted / wanted.sum()).double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("importance", ["magnitude", "lamp", "taylor", "outputs"])
def test_channels_of_several_rows_have_one_score(importance: str) -> None:
    network, channels = found(settled(shuffled()), images())
    scores = channel_scores(network, channels, importance, [images()])
    assert {name: len(score) for name, score in scores.items()} == {"0": 6, "3": 12}
    assert all(bool((score > 0).all()) for score in scores.values())


def test_bad_input_is_one_line() -> None:
    network, channels = found(settled(shuffled()), images())
    with pytest.raises(ChannelError, match="known: magnitude, taylor"):
        channel_scores(network, channels, "size")
    with pytest.raises(ChannelError, match="needs calibration inputs"):
        channel_scores(network, channels, "outputs")
    with pytest.raises(ChannelError, match="batch norm with a scale"):
        channel_scores(network, channels, "bn-scale")
    assert len(IMPORTANCES) == 5
    with torch.no_grad():
        network.get_parameter("3.weight")[0] = torch.nan
    with pytest.raises(ChannelError, match="no finite magnitude"):
        channel_scores(network, channels, "magnitude")


def test_the_best_are_kept_and_of_equal_ones_the_first() -> None:
    scores = {"a": torch.tensor([1.0, 3.0, 2.0, 3.0]), "b": torch.ones(3)}
    kept = best_channels(scores, {"a": 2, "b": 2})
    assert kept["a"].tolist() == [False, True, False, True]
    assert kept["b"].tolist() == [True, True, False]
    with pytest.raises(ChannelError, match="group a has 4 channels and was to keep 0; it can keep 1 to 4"):
        best_channels(scores, {"a": 0})
    with pytest.raises(ChannelError, match="no group 'c'; known: a, b"):
        best_channels(scores, {"c": 1})
