from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from evaluation_toys import Generator
from PIL import Image

from gancompress.data.base import ImageSpec
from gancompress.errors import EvaluationError
from gancompress.evaluation.sampler import Sampler, open_sampler
from gancompress.evaluation.samples import grid_scale, sample_grid, save_images, tile


def sampler(network=None, **given):
    return Sampler(network or Generator().eval(), **{"seed": 0, **given})


class Drawn(torch.nn.Module):
    """A generator without weights that draws with a function."""

    latent_dim, num_classes = 6, 4

    def __init__(self, draw):
        super().__init__()
        self.forward = draw


def pixels_of(file):
    with Image.open(file) as image:
        return np.array(image)


def test_latents_depend_on_the_index_and_the_seed_alone():
    whole = sampler().latents(0, 2500)
    assert whole.shape == (2500, 6)
    parts = sampler()
    assert torch.equal(torch.cat([parts.latents(a, b) for a, b in ((0, 7), (7, 1203), (1203, 2500))]), whole)
    assert torch.equal(sampler().latents(999, 1001), whole[999:1001])
    assert not torch.equal(sampler(seed=1).latents(0, 10), whole[:10])
    assert not torch.equal(sampler(stream="grid").latents(0, 10), whole[:10])
    assert abs(whole.mean().item()) < 0.05
    assert whole.std().item() == pytest.approx(1, abs=0.05)


def test_classes_take_turns():
    assert sampler().labels(3, 9).tolist() == [3, 0, 1, 2, 3, 0]
    assert sampler(Generator(classes=0)).labels(0, 5) is None


@pytest.mark.parametrize("batch_size", [1, 7, 50, 100])
def test_exactly_as_many_images_as_asked_for_whatever_the_batch_size(batch_size):
    made = torch.cat(list(sampler().batches(50, batch_size)))
    whole = torch.cat(list(sampler().batches(50, 50)))
    assert made.dtype == torch.uint8
    assert made.shape == (50, 1, 8, 8)
    # a sum in another order may fall on the other side of a half
    assert (made.int() - whole.int()).abs().max() <= 1


def test_full_batches_show_batch_norm_whole_batches():
    seen = []

    def network(z, labels):
        seen.append(len(z))
        return torch.zeros(len(z), 1, 8, 8)

    assert sum(len(batch) for batch in sampler(Drawn(network)).batches(25, 10, full=True)) == 25
    assert seen == [10, 10, 10]


def test_pixels_are_rounded_not_cut_off():
    def network(z, labels):
        return torch.full((len(z), 1, 8, 8), 2 * 200.6 / 255 - 1)

    assert next(sampler(Drawn(network)).batches(1, 1)).unique().tolist() == [201]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_name_the_images(bad):
    def network(z, labels):
        images = torch.zeros(len(z), 1, 8, 8)
        images[0, 0, 0, 0] = bad
        return images

    with pytest.raises(EvaluationError, match="images 0 to 9"):
        list(sampler(Drawn(network)).batches(20, 10))


def test_a_generator_that_makes_something_else_is_refused():
    with pytest.raises(EvaluationError, match=r"shape \(4, 3\) for 4 images"):
        sampler(Drawn(lambda z, labels: torch.zeros(4, 3))).images(0, 4)


def test_tile_by_hand():
    images = torch.tensor([[[[0]]], [[[50]]], [[[100]]]], dtype=torch.uint8)
    w = 255
    expected = [
        [w, w, w, w, w, w, w],
        [w, w, w, w, w, w, w],
        [w, w, 0, w, w, 50, w],
        [w, w, w, w, w, w, w],
        [w, w, w, w, w, w, w],
        [w, w, 100, w, w, w, w],
        [w, w, w, w, w, w, w],
    ]
    found = tile(images, columns=2)[0]
    assert found.shape == (8, 8)
    assert found[:7, :7].tolist() == expected
    assert tile(images[:1], 1, scale=3)[0, 2:5, 2:5].unique().tolist() == [0]


def test_small_images_are_enlarged_by_whole_factors():
    assert [grid_scale(r) for r in (8, 16, 28, 32, 48, 64, 256)] == [8, 4, 2, 2, 1, 1, 1]


def test_a_grid_has_one_row_per_class_and_the_same_latents_every_time(tmp_path, network):
    network.train()
    first = sample_grid(network, tmp_path / "deep" / "a.png", columns=3, scale=1)
    torch.rand(5)
    second = sample_grid(network, tmp_path / "b.png", columns=3, scale=1)
    assert first.read_bytes() == second.read_bytes()
    assert network.training
    pixels = pixels_of(first)
    assert pixels.shape == (4 * 10 + 2, 3 * 10 + 2)
    with open_sampler(network, seed=0, batch_size=4, stream="grid") as opened:
        image = opened.images(4, 5, labels=torch.tensor([1]))[0, 0]  # second row, second column
    shown = pixels[12:20, 12:20] / 127.5 - 1
    assert np.abs(shown - image.numpy()).max() < 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "deep"]


def test_grids_of_colour_without_classes_and_of_many_classes(tmp_path):
    plain = sample_grid(Generator(3, 8, 0), tmp_path / "a.png", columns=4, scale=2)
    assert pixels_of(plain).shape == (4 * 18 + 2, 4 * 18 + 2, 3)
    many = sample_grid(Generator(1, 8, 100), tmp_path / "b.png", columns=2, scale=1)
    assert pixels_of(many).shape == (20 * 10 + 2, 2 * 10 + 2)


def test_a_file_that_cannot_be_written_is_one_clear_message(tmp_path, network):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="cannot be written"):
        sample_grid(network, tmp_path / "file" / "a.png")


def test_a_failing_generator_leaves_the_old_grid_alone(tmp_path):
    path = sample_grid(Generator(), tmp_path / "a.png")
    old = path.read_bytes()
    broken = Generator()
    broken.linear.weight.data.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="NaN"):
        sample_grid(broken, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_samples_as_a_zip_are_a_dataset(tmp_path, network):
    out = save_images(network, tmp_path / "a.zip", count=10, classes=("a", "b", "c", "d"))
    again = save_images(network, tmp_path / "b.zip", count=10, classes=("a", "b", "c", "d"))
    assert out.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(out) as archive:
        record = json.loads(archive.read("dataset.json"))
        assert record["classes"] == ["a", "b", "c", "d"]
        assert record["labels"][5] == ["00000/img00000005.png", 1]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        with archive.open(record["labels"][9][0]) as file:
            image = pixels_of(file)
    expected = torch.cat(list(sampler(network.eval()).batches(10, 10)))[9, 0].numpy()
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_samples_as_a_folder_and_of_one_class(tmp_path, network):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".tmp-img00000007.png-1-2").write_bytes(b"of a process that was killed")
    out = save_images(network, tmp_path / "out", count=3, only_class=2)
    assert sorted(path.name for path in out.iterdir()) == [f"img0000000{i}.png" for i in range(3)]
    with open_sampler(network, seed=0, batch_size=3) as opened:
        images = opened.images(0, 3, labels=torch.full((3,), 2))
    shown = pixels_of(out / "img00000001.png") / 127.5 - 1
    assert np.abs(shown - images[1, 0].numpy()).max() < 0.01
    with pytest.raises(EvaluationError, match="no class 4; known: 0 to 3"):
        save_images(network, tmp_path / "x", count=3, only_class=4)


def test_unlabelled_samples_have_no_labels(tmp_path):
    out = save_images(Generator(1, 8, 0), tmp_path / "a.zip", count=2)
    with zipfile.ZipFile(out) as archive:
        assert json.loads(archive.read("dataset.json"))["labels"] is None


def test_samples_as_a_zip_are_read_back_by_the_dataset(tmp_path, network):
    from gancompress.data.zipped import Zip

    out = save_images(network, tmp_path / "a.zip", count=9, classes=("a", "b", "c", "d"))
    dataset = Zip(Zip.Config(path=str(out)))
    batch = dataset.read(torch.arange(9))
    assert dataset.spec.classes == ("a", "b", "c", "d")
    assert batch.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    expected = torch.cat(list(sampler(network.eval()).batches(9, 9)))
    assert (batch.images.int() - expected.int()).abs().max() <= 1


def test_samples_show_the_classes_that_were_trained_on(tmp_path):
    asked = []

    def network(z, labels):
        asked.extend(labels.tolist())
        return torch.zeros(len(z), 1, 8, 8)

    drawn = Drawn(network)
    drawn.image = ImageSpec(1, 8, ("a", "b", "c", "d"), counts=(0, 30, 0, 10))
    sample_grid(drawn, tmp_path / "grid.png", columns=2)
    assert asked == [1, 1, 3, 3]
    asked.clear()
    save_images(drawn, tmp_path / "images.zip", count=6)
    assert asked == [1, 1, 3, 1, 1, 1]
    asked.clear()
    save_images(drawn, tmp_path / "chosen", count=2, only_class=3)
    assert asked == [3, 3]
