"""Packed files: the same weights bit for bit, and a damaged file is one clear error."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from export_toys import CLASSES, TINY, images, make, mask, tiny
from safetensors.torch import load, save_file

import gancompress
from gancompress.backbones.base import prunable_weights
from gancompress.data.base import ImageSpec
from gancompress.errors import ComponentError, ExportError
from gancompress.export.coding import encode_mask, in_units
from gancompress.export.container import read_container, write_container
from gancompress.export.packed import FORMAT, KIND, export_packed, load_packed
from gancompress.export.plain import plain_copy
from gancompress.export.tensors import decode_tensor, encode_tensor, format_of
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "generator.safetensors"


@pytest.fixture
def written(path: Path) -> Path:
    generator, masks = tiny()
    export_packed(generator, path, model=TINY, masks=masks)
    return path


BACKBONES: list[tuple[ImageSpec, dict[str, Any]]] = [
    (ImageSpec(1, 16), {"name": "dcgan", "channels": 4}),
    (ImageSpec(3, 32, CLASSES), {"name": "dcgan", "channels": 4, "conditional": True}),
    (ImageSpec(3, 32), {"name": "sngan", "channels": 8}),
    (ImageSpec(3, 32, CLASSES), {"name": "sngan", "channels": 8, "conditional": True, "generator_spectral_norm": True}),
    (ImageSpec(3, 32, CLASSES), {"name": "biggan", "channels": 4}),
    (ImageSpec(3, 64, CLASSES), {"name": "biggan", "channels": 8}),
]


@pytest.mark.parametrize(("image", "model"), BACKBONES, ids=[f"{m['name']}-{i.resolution}" for i, m in BACKBONES])
def test_the_same_weights_come_back_bit_for_bit(path: Path, image: ImageSpec, model: dict[str, Any]) -> None:
    generator = make(**{**model, "image": image})
    masks = mask(generator)
    want = plain_copy(generator).state_dict()
    export_packed(generator, path, model=model, masks=masks)
    packed = load_packed(path)
    found = packed.generator()
    state = found.state_dict()
    assert state.keys() == want.keys()
    for name, tensor in want.items():
        assert state[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert packed.image == image
    assert packed.masks.keys() == masks.keys()
    assert all(torch.equal(packed.masks[name], own) for name, own in masks.items())
    assert not found.training
    torch.testing.assert_close(images(found, 3), images(generator, 3), rtol=0, atol=1e-6)


def test_the_original_keeps_its_spectral_norm(path: Path) -> None:
    image, model = BACKBONES[3]
    generator = make(**{**model, "image": image})
    before, keys = images(generator, 2), set(generator.state_dict())
    export_packed(generator, path, model=model)
    assert torch.equal(images(generator, 2), before)
    assert set(generator.state_dict()) == keys


def test_a_kept_weight_that_is_0_stays_kept(path: Path) -> None:
    generator, masks = tiny()
    name, weight = next(iter(prunable_weights(generator).items()))
    position = tuple(int(index) for index in masks[name].nonzero()[0])
    with torch.no_grad():
        weight.parameter[position] = -0.0
    export_packed(generator, path, model=TINY, masks=masks)
    packed = load_packed(path)
    assert packed.masks[name][position]
    assert torch.signbit(packed.state[name][position])


@pytest.mark.parametrize("kept", ["none", "one", "all"])
def test_extreme_masks(path: Path, kept: str) -> None:
    generator, masks = tiny()
    for name, weight in prunable_weights(generator).items():
        masks[name] = torch.full_like(masks[name], kept == "all")
        if kept == "one":
            masks[name].view(-1)[-1] = True
        with torch.no_grad():
            weight.parameter.normal_().masked_fill_(~masks[name], 0)
    export_packed(generator, path, model=TINY, masks=masks)
    packed = load_packed(path)
    for name, tensor in generator.state_dict().items():
        assert torch.equal(packed.state[name], tensor)


def test_bf16_rounds_prunable_weights_and_nothing_else(path: Path) -> None:
    generator, masks = tiny()
    export_packed(generator, path, model=TINY, masks=masks, values="bf16")
    state, prunable = load_packed(path).state, prunable_weights(generator)
    for name, tensor in generator.state_dict().items():
        want = tensor.bfloat16().float() if name in prunable else tensor
        assert torch.equal(state[name], want), name


def test_equal_generators_give_equal_files(path: Path) -> None:
    generator, masks = tiny()
    contents = set()
    for _ in range(3):
        export_packed(generator, path, model=TINY, masks=masks)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_sizes_are_bytes_of_the_file(path: Path) -> None:
    generator, masks = tiny()
    sizes = export_packed(generator, path, model=TINY, masks=masks)
    parts = load(path.read_bytes())
    assert sum(size.packed for size in sizes.values()) == sum(t.numel() * t.element_size() for t in parts.values())
    assert sum(size.kept for size in sizes.values() if size.kind != "other") == sum(
        int(m.sum()) for m in masks.values()
    )
    assert load_packed(path).bytes == path.stat().st_size
    assert load_packed(path).source["values"] == "float32"


# --------------------------------------------------------------------------------------------- formats


def blocks(generator: Any, outputs: int, inputs: int, density: float = 0.2) -> dict[str, torch.Tensor]:
    """Mask every prunable weight in place, in blocks where they fit, and return the masks."""
    masks, rng = {}, torch.Generator().manual_seed(2)
    for name, weight in prunable_weights(generator).items():
        shape = weight.layer.shape
        units = Units(shape, weight.layer.box(outputs, inputs) or (1,) * len(shape))
        masks[name] = units.expand(torch.rand(units.grid, generator=rng) < density)
        with torch.no_grad():
            weight.parameter.masked_fill_(~masks[name], 0)
    return masks


def format_in(path: Path) -> int:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return int(json.loads(header["__metadata__"]["gancompress"])["format"])


@pytest.mark.parametrize("values", ["float32", "bf16"])
@pytest.mark.parametrize(("image", "model"), [BACKBONES[0], BACKBONES[2], BACKBONES[4]])
def test_masks_in_units_come_back_and_need_format_3(
    path: Path, tmp_path: Path, values: Any, image: ImageSpec, model: dict[str, Any]
) -> None:
    generator = make(**{**model, "channels": 16, "image": image})
    masks = blocks(generator, 2, 4)
    sizes = export_packed(generator, path, model={**model, "channels": 16}, masks=masks, values=values)
    parts, _ = read_container(path, kind=KIND, format=FORMAT)
    units = {name for name in masks if in_units(parts[f"{name}:mask"])}
    assert len(units) >= 2
    assert format_in(path) == 3
    with pytest.raises(ExportError, match=rf"{KIND} of format 3, this gancompress reads up to 2; upgrade"):
        read_container(path, kind=KIND, format=2)  # what an older version does
    packed, want = load_packed(path), plain_copy(generator).state_dict()
    assert packed.masks.keys() == masks.keys()
    for name, own in masks.items():
        weight = want[name].bfloat16().float() if values == "bf16" else want[name]
        assert torch.equal(packed.masks[name], own), name
        assert torch.equal(packed.state[name], weight), name
        if name in units:  # a bit for each unit, and extents
            assert parts[f"{name}:mask"].numel() <= own.numel() / 64 + 20
        assert sizes[name].kept == int(own.sum())
    # the pattern is known nowhere else: what was loaded is written to the byte
    again = tmp_path / "again.safetensors"
    named = {**model, "channels": 16}
    export_packed(packed.generator(), again, model=named, masks=packed.masks, values=values)
    assert again.read_bytes() == path.read_bytes()


def test_files_that_older_versions_can_read_say_so(path: Path) -> None:
    generator, masks = tiny()
    export_packed(generator, path, model=TINY, masks=masks)
    assert format_in(path) == 1
    packed = load_packed(path)
    assert all(torch.equal(packed.masks[name], mask) for name, mask in masks.items())
    export_packed(generator, path, model=TINY)
    assert format_in(path) == 1
    assert FORMAT == 3  # the newest that is written, below
    one = torch.ones(2, dtype=torch.uint8)
    units = encode_mask(torch.tensor([1, 0, 1, 1, 0]).repeat_interleave(64).bool())
    assert [format_of({"w:mask": one}, int8=int8) for int8 in (False, True)] == [1, 2]
    assert [format_of({"w:mask": units}, int8=int8) for int8 in (False, True)] == [3, 3]
    assert format_of({"w:values": units, "mask": units}, int8=False) == 1  # neither is a mask


def test_a_file_of_an_older_version_opens(path: Path) -> None:
    """Its masks are of blocks, coded weight by weight."""
    generator = make("dcgan", ImageSpec(1, 16), channels=16)
    model, masks = {"name": "dcgan", "channels": 16}, blocks(generator, 1, 4)
    export_packed(generator, path, model=model, masks=masks)
    old = {}
    for name, own in masks.items():
        flat = own.reshape(-1).numpy()
        bits = b"B\0" + np.packbits(flat, bitorder="little").tobytes()
        old[f"{name}:mask"] = torch.tensor(list(bits), dtype=torch.uint8)
    forge(path, lambda document, tensors: tensors.update(old), format=1)
    assert format_in(path) == 1
    packed = load_packed(path)
    for name, own in masks.items():
        assert torch.equal(packed.masks[name], own)
        assert torch.equal(packed.state[name], prunable_weights(generator)[name].parameter.detach())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"U\0\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0B\0\0", r"units of \[0, 1, 1, 1\], which do not fill \["),
        (b"U\3\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0B\0\0", r"units of \[3, 1, 1, 1\], which do not fill \["),
        (b"U\1\0\0\0", "do not fill"),
        (b"U\2\0\0\0\2\0\0\0\1\0\0\0\1\0\0\0B\0\0", "bits for"),
        (b"U\2\0\0\0\2\0\0\0\1\0\0\0\1\0\0\0V\0\0", "unknown way"),
        (b"U\2\0\0\0\2\0\0\0\1\0\0\0\1\0\0\0G\0\0", "mask keeps 4 weights, the table says"),
    ],
)
def test_forged_units_are_refused_in_a_line(written: Path, code: bytes, reason: str) -> None:
    forged = torch.tensor(list(code), dtype=torch.uint8)
    forge(written, lambda document, tensors: tensors.update({f"{WEIGHT}:mask": forged}))
    with pytest.raises(ExportError, match=rf"tensor {WEIGHT}: .*{reason}") as error:
        load_packed(written)
    assert "\n" not in str(error.value)
    assert str(written) in str(error.value)


# --------------------------------------------------------------------------------------------- bad input


def test_a_truncated_file(written: Path) -> None:
    content = written.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        written.write_bytes(content[:length])
        with pytest.raises(ExportError, match=r"generator\.safetensors: (truncated|not a packed)"):
            load_packed(written)


def test_no_altered_byte_goes_unnoticed(written: Path) -> None:
    content = written.read_bytes()
    for position in [*range(64), *range(64, len(content), 37), len(content) - 1]:
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        written.write_bytes(altered)
        with pytest.raises(ExportError):
            load_packed(written)
    written.write_bytes(content + b"\0")
    with pytest.raises(ExportError, match="altered"):
        load_packed(written)


def test_offsets_that_are_text_are_an_alteration(written: Path) -> None:
    content = written.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header[next(name for name in header if name != "__metadata__")]["data_offsets"] = "0"
    changed = json.dumps(header).encode()
    written.write_bytes(len(changed).to_bytes(8, "little") + changed + content[end:])
    with pytest.raises(ExportError, match=r"generator\.safetensors: altered"):
        load_packed(written)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95pickle", bytes(200), b'{"a": 1}', b"PK\x03\x04" * 9])
def test_a_file_that_is_something_else(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ExportError, match="not a packed generator"):
        load_packed(path)


def test_a_safetensors_file_of_someone_else(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ExportError, match="not a packed generator: give a file"):
        load_packed(path)


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read: No such file"):
        load_packed(path)


def forge(path: Path, change: Any, *, format: int = FORMAT) -> None:
    """Write a file with a good hash and wrong contents."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"]["gancompress"])
    tensors = dict(load(content))
    change(document, tensors)
    write_container(path, tensors, document, kind=document["kind"], format=format)


def test_a_newer_version(written: Path) -> None:
    forge(written, lambda document, tensors: None, format=FORMAT + 1)
    with pytest.raises(ExportError, match=rf"{KIND} of format {FORMAT + 1}.*upgrade gancompress"):
        load_packed(written)


WEIGHT = "convs.0.weight"


def reshape(document: Any, tensors: Any) -> None:
    document["tensors"][WEIGHT]["shape"][0] += 1


def flatten(document: Any, tensors: Any) -> None:
    shape = document["tensors"][WEIGHT]["shape"]
    shape[:] = [shape[1], shape[0], *shape[2:]]


CHANGES: dict[str, tuple[Any, str]] = {
    "wrong shape, bits too few": (reshape, "."),
    "wrong shape, same size": (flatten, f"{WEIGHT} is"),
    "another width": (lambda d, t: d["model"].update(channels=8), "backbone 'dcgan' has"),
    "a tensor less": (lambda d, t: d["tensors"].pop("output.bias"), "output.bias"),
    "a part less": (lambda d, t: t.pop(f"{WEIGHT}:mask"), "parts"),
    "a part more": (lambda d, t: t.update(more=torch.zeros(2)), "more belongs to no tensor"),
    "another count": (lambda d, t: d["tensors"][WEIGHT].update(kept=1), "keeps"),
    "an unknown dtype": (lambda d, t: d["tensors"][WEIGHT].update(dtype="float4"), "not a packed generator"),
    "a huge shape": (lambda d, t: d["tensors"][WEIGHT].update(shape=[2**40, 2**40]), "not a packed|keeps|bits"),
    "a shape that fills the memory": (
        lambda d, t: d["tensors"][WEIGHT].update(shape=[2**17, 2**17]),
        rf"{WEIGHT} is \(131072, 131072\) .*backbone 'dcgan' has",
    ),
    "a width that fills the memory": (lambda d, t: d["model"].update(channels=2**20), "backbone 'dcgan' has"),
    "a width that nothing can hold": (lambda d, t: d["model"].update(channels=2**60), "cannot be built"),
    "images of less than no channels": (lambda d, t: d["image"].update(channels=-3), "cannot be built"),
    "a negative shape": (lambda d, t: d["tensors"][WEIGHT].update(shape=[-1, -4]), "impossible"),
    "values that are no code": (lambda d, t: t.update({f"{WEIGHT}:values": torch.zeros(9)}), "parts"),
    "no table": (lambda d, t: d.pop("tensors"), "not a packed generator"),
    "no image": (lambda d, t: d.update(image=[]), "not a packed generator"),
    "a size it cannot make": (lambda d, t: d["image"].update(resolution=17), "17"),
    "an unknown setting": (lambda d, t: d["model"].update(depth=3), "depth"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_contents_that_do_not_fit(written: Path, name: str) -> None:
    change, match = CHANGES[name]
    forge(written, change)
    from gancompress.errors import BackboneError

    with pytest.raises((ExportError, BackboneError), match=match):
        load_packed(written).generator()


def test_a_backbone_that_is_not_installed(written: Path) -> None:
    forge(written, lambda document, tensors: document["model"].update(name="dcgann"))
    with pytest.raises(ComponentError, match="did you mean 'dcgan'"):
        load_packed(written).generator()
    with pytest.raises(ComponentError, match=rf"^{re.escape(str(written))}: "):
        gancompress.load(written)


def test_masks_that_do_not_fit_are_refused(path: Path) -> None:
    generator, masks = tiny()
    with pytest.raises(ExportError, match="does not have"):
        export_packed(generator, path, model=TINY, masks={"nothing.weight": masks[WEIGHT]})
    with pytest.raises(ExportError, match=r"mask of convs\.0\.weight is"):
        export_packed(generator, path, model=TINY, masks={WEIGHT: masks[WEIGHT][:1]})
    with pytest.raises(ExportError, match="not 0 at"):
        export_packed(generator, path, model=TINY, masks={WEIGHT: ~masks[WEIGHT]})
    with pytest.raises(ExportError, match="bf16"):
        export_packed(generator, path, model=TINY, masks=masks, values="int4")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="backbone 'dcgan' has"):
        export_packed(generator, path, model={**TINY, "channels": 8}, masks=masks)
    assert not path.exists()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    generator, masks = tiny()
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_packed(generator, tmp_path / "file" / "g.safetensors", model=TINY, masks=masks)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_values_are_rounded_to_the_nearest_of_fewer_bits() -> None:
    # 4 bits of mantissa: steps of 1/16 between 1 and 2; ties go to even, exponents and what is not finite stay
    given = [1.03, 1.04, 1 + 1 / 32, 1 + 3 / 32, -1.04, 1.98, 0.0, -0.0, 3e38, math.inf, math.nan]
    wanted = [1.0, 1.0625, 1.0, 1.125, -1.0625, 2.0, 0.0, -0.0, 3.0e38, math.inf, math.nan]
    parts, entry = encode_tensor(torch.tensor(given), None, 4)
    found, _ = decode_tensor("w", {f"w{suffix}": part for suffix, part in parts.items()}, entry)
    assert torch.allclose(found, torch.tensor(wanted), rtol=0.032, atol=0, equal_nan=True)
    assert torch.equal(found[:8], torch.tensor(wanted[:8]))
    assert found.signbit().tolist()[7]
    x = torch.randn(4000)
    both = [encode_tensor(x, None, bits) for bits in (7, 4)]
    assert torch.equal(_values(both[0]), x.to(torch.bfloat16).float())  # 7 bits are what bfloat16 has
    assert float(((_values(both[1]) - x) / x).abs().max()) <= 2**-5
    assert sum(part.numel() for part in both[1][0].values()) < 4000 * 1.15  # near 8 of 16 bits each


def _values(encoded: tuple[dict[str, torch.Tensor], dict[str, Any]]) -> torch.Tensor:
    parts, entry = encoded
    return decode_tensor("w", {f"w{suffix}": part for suffix, part in parts.items()}, entry)[0]
