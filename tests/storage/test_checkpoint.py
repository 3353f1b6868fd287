"""Checkpoints: what comes back is what went in, equal states are equal bytes, and nothing altered is ever loaded."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gancompress.errors import CheckpointError, RunError
from gancompress.storage import atomic, checkpoint
from gancompress.storage.checkpoint import Snapshot, checkpoints, clean, latest, load, prune, put_to_use, save
from gancompress.storage.encoding import decode_tensors, encode_tensors

if TYPE_CHECKING:
    from pathlib import Path


def snapshot(step: int = 12, fill: float = 1.0) -> Snapshot:
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[0, 1] = mask[2, 6] = True
    weight = torch.full((3, 7), fill)
    return Snapshot(
        step=step,
        groups={
            "generator": {
                "conv.weight": weight,
                "tied.weight": weight,
                "bn.num_batches_tracked": torch.tensor(step),
                "transposed": torch.arange(6.0).reshape(2, 3).T,
                "empty": torch.zeros(0, 4),
            },
            "masks": {"conv.weight": mask},
            "ema": {"half": torch.tensor([1.5, -0.0, math.inf], dtype=torch.bfloat16)},
            "optimizer_generator": {},
        },
        scalars={
            "position": {"step": step, "round": 0},
            "rate": 0.1,
            "nan": math.nan,
            "names": ["b", "a"],
            "none": None,
        },
    )


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_equal(found: Snapshot, expected: Snapshot) -> None:
    assert found.step == expected.step
    assert json.dumps(found.scalars, sort_keys=True) == json.dumps(expected.scalars, sort_keys=True)
    assert found.groups.keys() == expected.groups.keys()
    for group, tensors in expected.groups.items():
        assert found.groups[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            other = found.groups[group][name]
            assert (other.shape, other.dtype) == (tensor.shape, tensor.dtype)
            assert bits(other) == bits(tensor), f"{group}/{name}"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot())
    assert path == tmp_path / "00000012"
    assert_equal(load(path), snapshot())


def test_files_are_the_groups_the_state_and_the_manifest_and_nothing_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot())
    assert set(contents(path)) == {
        "generator.safetensors",
        "masks.safetensors",
        "ema.safetensors",
        "optimizer_generator.safetensors",
        "state.json",
        "manifest.json",
    }
    assert json.loads((path / "state.json").read_text())["position"] == {"round": 0, "step": 12}
    assert os.listdir(tmp_path) == ["00000012"]


def test_masks_take_one_bit_per_weight() -> None:
    mask = torch.rand(64, 1000, generator=torch.Generator().manual_seed(0)) < 0.1
    content = encode_tensors({"mask": mask})
    assert 8000 <= len(content) < 8000 + 300
    assert torch.equal(decode_tensors(content, where="x")["mask"], mask)
    # 0b00100010: positions 1 and 5, little end first.
    tiny = torch.tensor([False, True, False, False, False, True])
    assert encode_tensors({"m": tiny})[-1] == 0b00100010


@given(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 2**31))
def test_masks_of_any_shape_come_back(shape: list[int], seed: int) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    back = decode_tensors(encode_tensors({"m": mask, "other": torch.ones(2)}), where="x")["m"]
    assert back.dtype is torch.bool
    assert torch.equal(back, mask)


def test_equal_snapshots_are_equal_bytes_whatever_the_order_of_names(tmp_path: Path) -> None:
    first = snapshot()
    reversed_groups = {g: dict(reversed(list(t.items()))) for g, t in reversed(list(first.groups.items()))}
    second = Snapshot(first.step, reversed_groups, dict(reversed(list(first.scalars.items()))))
    a, b = save(tmp_path / "a", first), save(tmp_path / "b", second)
    assert contents(a) == contents(b)


def test_a_loaded_checkpoint_saves_to_the_same_bytes_and_another_value_does_not(tmp_path: Path) -> None:
    a = save(tmp_path / "a", snapshot())
    b = save(tmp_path / "b", load(a))
    assert contents(a) == contents(b)
    c = save(tmp_path / "c", snapshot(fill=math.nextafter(1.0, 2.0)))  # differs in float64, equal in float32
    assert contents(c) == contents(a)
    d = save(tmp_path / "d", snapshot(fill=1.0000001))
    assert contents(d)["generator.safetensors"] != contents(a)["generator.safetensors"]
    assert contents(d)["masks.safetensors"] == contents(a)["masks.safetensors"]


def test_saving_copies(tmp_path: Path) -> None:
    source = snapshot()
    path = save(tmp_path, source)
    source.groups["generator"]["conv.weight"].zero_()
    loaded = load(path)
    assert loaded.groups["generator"]["conv.weight"].eq(1).all()
    loaded.groups["generator"]["conv.weight"].zero_()  # writable and its own
    assert loaded.groups["generator"]["tied.weight"].eq(1).all()


@pytest.mark.parametrize(
    ("scalars", "named"),
    [
        ({"a": {"seen": {1, 2}}}, r"scalars\.a\.seen.*set"),
        ({"a": {1: 2}}, r"scalars\.a: key 1"),
        ({"a": [torch.tensor(1)]}, r"scalars\.a\[0\].*Tensor"),
    ],
)
def test_scalars_that_json_does_not_hold_are_refused(tmp_path: Path, scalars: dict, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        save(tmp_path, Snapshot(1, {}, scalars))
    assert not any(tmp_path.iterdir())


def test_tuples_come_back_as_lists(tmp_path: Path) -> None:
    assert load(save(tmp_path, Snapshot(1, {}, {"betas": (0.0, 0.9)}))).scalars == {"betas": [0.0, 0.9]}


@pytest.mark.parametrize("group", ["../x", "", ".hidden", "a/b"])
def test_groups_that_are_no_file_names_are_refused(tmp_path: Path, group: str) -> None:
    with pytest.raises(TypeError, match="cannot be a file name"):
        save(tmp_path, Snapshot(1, {group: {}}, {}))


# ------------------------------------------------------------------------------------------- damaged ones


FILES = ["generator.safetensors", "masks.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "grow"])
def test_damage_is_refused_and_named(tmp_path: Path, name: str, damage: str) -> None:
    path = save(tmp_path, snapshot())
    file = path / name
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes({"truncate": content[:-1], "empty": b"", "grow": content + b" "}[damage])
    with pytest.raises(CheckpointError, match=name) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, snapshot())
    file = path / name
    content = file.read_bytes()
    stride = max(1, len(content) // 150)
    for index in range(0, len(content), stride):
        altered = bytearray(content)
        altered[index] ^= 1 << (index % 8)
        file.write_bytes(altered)
        with pytest.raises(CheckpointError):
            load(path)
    file.write_bytes(content)
    assert load(path).step == 12


def test_an_extra_file_is_refused_but_not_a_hidden_one(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot())
    (path / ".DS_Store").write_bytes(b"x")
    load(path)
    (path / "weights.pkl").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"weights\.pkl.*does not belong"):
        load(path)


def test_another_format_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    newer = save(tmp_path, snapshot())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"manifest\.json: checkpoint format 2, .*upgrade gancompress"):
        load(newer)
    (newer / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a checkpoint of gancompress"):
        load(newer)


def test_a_renamed_checkpoint_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot(12))
    path.rename(tmp_path / "00000099")
    with pytest.raises(CheckpointError, match=r"step 12.*renamed"):
        load(tmp_path / "00000099")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(tmp_path / "00000001")
    shutil.copytree(tmp_path / "00000099", tmp_path / "best")
    assert load(tmp_path / "best").step == 12  # a copy under a name that is no step is fine


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot())
    files = json.loads((path / "manifest.json").read_text())["files"]
    files["../../secret"] = files["state.json"]
    (path / "manifest.json").write_bytes(checkpoint._manifest(12, files))
    with pytest.raises(CheckpointError, match="impossible files"):
        load(path)


@pytest.mark.parametrize(
    "entry", [None, 7, {}, {"size": 3}, {"size": [3], "blake2b": "x"}, {"size": "3", "blake2b": 1}]
)
def test_a_manifest_with_forged_sizes_is_refused(tmp_path: Path, entry: object) -> None:
    path = save(tmp_path, snapshot())
    files = json.loads((path / "manifest.json").read_text())["files"]
    files["ema.safetensors"] = entry
    (path / "manifest.json").write_bytes(checkpoint._manifest(12, files))
    with pytest.raises(CheckpointError, match=r"manifest\.json: altered"):
        load(path)


@pytest.mark.parametrize("shape", ["7", "[[3], 7]", "[-3, -7]", "[1e300, 7]", "[4294967296, 4294967296]", "{}", '"x"'])
def test_forged_shapes_of_bits_are_refused(shape: str) -> None:
    content = encode_tensors({"m": torch.ones(3, 7, dtype=torch.bool)})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    for forged in (f'{{"m": {shape}}}', shape, "[" * 100_000):
        header["__metadata__"]["bits"] = forged
        text = json.dumps(header).encode()
        with contextlib.suppress(CheckpointError):
            found = decode_tensors(len(text).to_bytes(8, "little") + text + content[end:], where="where")
            assert found["m"].shape == (3,)  # without its shape it is the bytes that it is


@pytest.mark.parametrize(
    "error", [KeyError("ema"), TypeError("no"), RuntimeError("size\nmismatch"), OverflowError("big")]
)
def test_what_a_checkpoint_holds_and_cannot_be_used_names_it(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(CheckpointError, match=rf"^{tmp_path}: does not fit its run \({type(error).__name__}: [^\n]*\)$"),
        put_to_use(tmp_path),
    ):
        raise error
    with pytest.raises(RunError, match=f"^{tmp_path}: odd$"), put_to_use(tmp_path):
        raise RunError("odd")
    with pytest.raises(RunError, match=r"^there: odd$"), put_to_use(tmp_path):
        raise RunError("odd", where="there")


def test_only_what_is_asked_for_is_read_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, snapshot())
    (path / "masks.safetensors").write_bytes(b"damaged")
    read: list[str] = []
    real = checkpoint._read_bytes
    monkeypatch.setattr(checkpoint, "_read_bytes", lambda file: (read.append(file.name), real(file))[1])
    found = load(path, groups=("ema",))
    assert read == ["manifest.json", "ema.safetensors", "state.json"]
    assert_equal(found, Snapshot(12, {"ema": snapshot().groups["ema"]}, snapshot().scalars))
    assert load(path, groups=()).groups == {}
    with pytest.raises(CheckpointError, match=r"masks\.safetensors: truncated"):
        load(path, groups=("ema", "masks"))
    with pytest.raises(CheckpointError, match=r"teacher\.safetensors: missing"):
        load(path, groups=("teacher",))


def test_a_foreign_safetensors_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match="where: not a safetensors"):
        decode_tensors(b"\x80\x04pickle", where="where")
    tampered = encode_tensors({"m": torch.ones(9, dtype=torch.bool)}).replace(b"[9]", b"[99]"[:3])
    with pytest.raises(CheckpointError):
        decode_tensors(tampered, where="where")


# ------------------------------------------------------------------------------------------- choosing and pruning


def test_latest_passes_over_broken_ones_and_names_them(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, snapshot(step))
    (tmp_path / "00000030" / "ema.safetensors").unlink()
    (tmp_path / "00000020" / "state.json").write_text("{}")
    found = latest(tmp_path)
    assert found.path == tmp_path / "00000010"
    assert found.snapshot is not None
    assert found.snapshot.step == 10
    assert [refused.path.name for refused in found.refused] == ["00000030", "00000020"]
    assert "ema.safetensors" in found.refused[0].reason
    assert "state.json" in found.refused[1].reason


def test_latest_of_nothing(tmp_path: Path) -> None:
    assert latest(tmp_path / "missing") == (None, None, [])
    (tmp_path / "notes").mkdir()
    assert latest(tmp_path) == (None, None, [])


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (100_000_000, 99_999_999, 5):
        save(tmp_path, snapshot(step))
    assert [path.name for path in checkpoints(tmp_path)] == ["00000005", "99999999", "100000000"]
    assert latest(tmp_path).path == tmp_path / "100000000"


def test_pruning_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, snapshot(step))
    assert prune(tmp_path, 2, protect=[2]) == [1, 3]
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "4", "5"]
    assert prune(tmp_path, 1, protect={2}) == [4]
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "5"]
    with pytest.raises(ValueError, match="at least 1"):
        prune(tmp_path, 0)


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, snapshot(7, fill=1))
    path = save(tmp_path, snapshot(7, fill=2))
    assert load(path).groups["generator"]["conv.weight"].eq(2).all()
    assert os.listdir(tmp_path) == ["00000007"]


def test_leftovers_are_cleaned_and_a_replaced_one_is_put_back(tmp_path: Path) -> None:
    save(tmp_path, snapshot(7))
    (tmp_path / "00000007").rename(tmp_path / ".replaced-00000007")
    (tmp_path / ".tmp-00000008").mkdir()
    (tmp_path / ".tmp-00000008" / "half.safetensors").write_bytes(b"x")
    assert latest(tmp_path).path is None
    assert clean(tmp_path) == [".replaced-00000007", ".tmp-00000008"]
    assert latest(tmp_path).path == tmp_path / "00000007"
    assert clean(tmp_path) == []


# ------------------------------------------------------------------------------------------- refusing disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("survive", [0, 1, 3, 5])
def test_a_full_disk_is_said_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, survive: int
) -> None:
    save(tmp_path, snapshot(1))
    before = contents(tmp_path / "00000001")
    calls = 0

    def full(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls > survive:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(code, os.strerror(code), str(path))
        path.write_bytes(content)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    big = Snapshot(2, {**snapshot(2).groups, "big": {"w": torch.zeros(1_000_000)}}, {})
    with pytest.raises(CheckpointError, match=r"00000002: .*needs about 4 MB, .* free.*earlier checkpoints are intact"):
        save(tmp_path, big)
    assert os.listdir(tmp_path) == ["00000001"]
    assert contents(tmp_path / "00000001") == before


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file where the directory should be")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save(blocked, snapshot())


def test_an_interrupt_while_saving_leaves_nothing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_synced", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, snapshot())
    assert os.listdir(tmp_path) == []


def test_atomic_files_replace_or_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    atomic.write_json(path, {"b": 1, "a": math.nan, "c": (1, math.inf)})
    assert json.loads(path.read_text()) == {"b": 1, "a": None, "c": [1, None]}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_json(path, {"b": 2})
    assert os.listdir(tmp_path) == ["metrics.json"]
    assert json.loads(path.read_text())["b"] == 1
