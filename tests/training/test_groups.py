from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import pytest
import torch

from gancompress.errors import GancompressError, InvariantError, RunError
from gancompress.training.groups import Group


def test_alone_everything_is_a_no_op():
    group = Group()
    x = torch.tensor([1.0, 3.0])
    group.mean_([x])
    assert x.tolist() == [1, 3]
    assert group.mean(x) is x
    assert group.broadcast(x) is x
    assert group.share({"a": 1}, {"x": x}) == ({"a": 1}, {"x": x})
    group.assert_same("anything", "nothing")
    group.barrier()
    group.close()
    assert group.is_main
    assert (group.world, group.rank) == (1, 0)
    assert not torch.distributed.is_initialized()


def test_without_torchrun_the_environment_describes_a_group_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Group.from_environment() == Group()


def test_every_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch):
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    joined, chosen = [], []
    with monkeypatch.context() as patched:
        patched.setattr(Group, "join", lambda where, **how: joined.append((where, how)))
        Group.from_environment("cuda")
        Group.from_environment("cuda:3")
        Group.from_environment("cpu")
    how = {"rank": 5, "world": 8}
    assert joined == [(torch.device("cuda", 1), how), (torch.device("cuda", 3), how), (torch.device("cpu"), how)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    Group.join("cuda:1", rank=0, world=1)
    assert chosen == [torch.device("cuda", 1)]
    with pytest.raises(RunError, match=r"rank 2 wants GPU 2, this machine has 2: start at most as many processes"):
        Group.join("cuda:2", rank=2, world=3)


# ---------------------------------------------------------------- two processes


def collectives(group: Group) -> dict[str, object]:
    rank = group.rank
    a, b, c = torch.full((2, 3), float(rank)), torch.tensor([rank * 4.0]), torch.tensor(2.0 * rank, dtype=torch.float64)
    group.mean_([a, b, c])
    network = torch.nn.Linear(2, 1, bias=True)
    network.weight.grad = torch.full((1, 2), float(rank))
    group.mean_gradients(network.parameters())
    flags = torch.tensor([rank == 0, rank == 1])
    mine = {"mask": flags, "scalar": torch.tensor(0.1, dtype=torch.float64), "empty": torch.zeros(0)}
    scalars, tensors = group.share(*(({"text": "ä", "rate": 0.1}, mine) if rank == 0 else ({}, {})))
    group.assert_same("equal", "the same")
    try:
        group.assert_same(f"rank {rank}", "the names")
        disagreement = ""
    except InvariantError as error:
        disagreement = str(error)
    return {
        "means": [a.tolist(), b.tolist(), c.tolist(), network.weight.grad.tolist()],
        "mean": group.mean(torch.tensor(float(rank))).item(),
        "broadcast": [group.broadcast(flags).tolist(), group.broadcast(torch.tensor(rank)).item()],
        "share": [scalars, {n: (str(t.dtype), list(t.shape), t.tolist()) for n, t in tensors.items()}],
        "disagreement": disagreement,
    }


def training(group: Group) -> dict[str, object]:
    sys.path.insert(0, str(Path(__file__).parent))
    from engine_toys import ROLES, Toy, ToyConfig, make

    class RankBlind(Toy):
        """A method whose answer depends on the rank: only rank 0's may count."""

        def init(self, net, budget, rng):
            rng.manual_seed(group.rank)
            return super().init(net, budget, rng)

        def update(self, state, net, rng):
            if net.step == 9:
                raise ValueError("no idea")
            rng.manual_seed(group.rank)
            return super().update(state, net, rng)

    toys = make(RankBlind(ToyConfig(window=2)), group=group)
    backward = toys.backward

    def averaged(role, step, k=0):
        backward(role, 2 * step + group.rank, k)  # every rank sees other data
        group.mean_gradients(toys.networks[role].parameters())

    toys.backward = averaged
    for step in range(1, 8):
        value = torch.tensor(float(group.rank))
        toys.engine.record(d_real=value, d_fake=value, d_fake_after=value)
        toys.step(step)
    toys.engine.check()
    hashes = {role: toys.engine.state(role).hash() for role in ROLES}
    weights = [p.detach().double().sum().item() for role in ROLES for p in toys.networks[role].parameters()]
    toys.step(8)
    try:
        toys.step(9)
        failure = ""
    except (ValueError, GancompressError) as error:
        failure = f"{type(error).__name__}: {error}"
    return {
        "hashes": hashes,
        "weights": weights,
        "memory": toys.engine.state("generator").memory["trace"].tolist(),
        "signals": toys.engine._signals.read(group)["d_real"].tolist(),
        "failure": failure,
    }


def member(rank: int, folder: str) -> None:
    """One process of a group of two; leaves its results, or its traceback, in a file."""
    torch.set_num_threads(1)
    target = Path(folder, f"{rank}.json")
    try:
        group = Group.join("cpu", rank=rank, world=2, init_method=f"file://{folder}/meet")
        result = {"collectives": collectives(group), "training": training(group)}
        group.close()
    except BaseException:
        result = {"traceback": traceback.format_exc()}
    target.write_text(json.dumps(result))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The results of two processes; starting them is what costs, so they do everything in one go."""
    folder = tmp_path_factory.mktemp("group")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gancompress.experiment.run"])  # imported once, not by every process
    members = [context.Process(target=member, args=(rank, str(folder))) for rank in range(2)]
    for process in members:
        process.start()
    for process in members:
        process.join(300)
        if process.is_alive():
            process.kill()
            pytest.fail("a process of the group hangs")
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    for result in results:
        assert "traceback" not in result, result.get("traceback")
    return results


def test_collectives_of_two_processes(both):
    for result in (both[0]["collectives"], both[1]["collectives"]):
        assert result["means"] == [[[0.5] * 3] * 2, [2.0], 1.0, [[0.5, 0.5]]]
        assert result["mean"] == 0.5
        assert result["broadcast"] == [[True, False], 0]
        assert result["share"] == [
            {"text": "ä", "rate": 0.1},
            {
                "mask": ["torch.bool", [2], [True, False]],
                "scalar": ["torch.float64", [], 0.1],
                "empty": ["torch.float32", [0], []],
            },
        ]
        assert "disagree about the names" in result["disagreement"]


def test_two_processes_keep_the_same_masks_and_weights_and_fail_together(both):
    first, second = both[0]["training"], both[1]["training"]
    assert first["failure"].startswith("MethodError: method RankBlind failed, asked about the generator at step 9")
    assert "ValueError: no idea" in first["failure"]
    assert "could not choose the masks of the generator: method RankBlind failed" in second["failure"]
    for key in ("hashes", "weights", "memory", "signals"):
        assert first[key] == second[key], key
    assert first["signals"] == [0.5, 0.5]
    assert len(set(first["hashes"].values())) == 2
