from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from evaluation_toys import Blobs, Pixels

from gancompress.errors import ComponentError, EvaluationError
from gancompress.evaluation import classifier, inception
from gancompress.evaluation.classifier import Classifier, ClassifierSettings
from gancompress.evaluation.extractors import build_extractor, parse_extractor, resolve_extractor
from gancompress.evaluation.inception import Inception
from gancompress.storage.cache import hash_tensors, load_tensors, store_tensors


@pytest.fixture
def trainings(monkeypatch):
    """Count trainings, and make them short."""
    counted = []
    train, sizes = classifier._train, ClassifierSettings.for_dataset.__func__

    def counting(net, settings, dataset, progress):
        counted.append(settings)
        return train(net, settings, dataset, progress)

    def short(cls, dataset, task, seed=0):
        import dataclasses

        return dataclasses.replace(sizes(cls, dataset, task, seed), steps=80, width=4)

    monkeypatch.setattr(classifier, "_train", counting)
    monkeypatch.setattr(ClassifierSettings, "for_dataset", classmethod(short))
    return counted


def test_the_classifier_learns_easy_classes_and_says_how_well(trainings, blobs):
    told = []
    extractor = Classifier.prepare(blobs, progress=lambda *news: told.append(news))
    assert extractor.accuracy > 0.9
    assert extractor.notes == (f"{100 * extractor.accuracy:.1f} % right on held-out images",)
    features, logits = extractor.features(blobs.images[:8])
    assert features.shape == (8, 16)
    assert logits.shape == (8, 4)
    assert features.dtype == logits.dtype == torch.float32
    assert extractor.classes == 4


def test_the_classifier_is_trained_once(trainings, blobs):
    first = Classifier.prepare(blobs)
    second = Classifier.prepare(Blobs())
    assert len(trainings) == 1
    assert second.label == first.label
    assert second.weights_hash == first.weights_hash
    assert second.accuracy == first.accuracy
    assert torch.equal(first.features(blobs.images)[0], second.features(blobs.images)[0])


def test_other_data_means_another_classifier_under_another_name(trainings, blobs):
    labels = {Classifier.prepare(data).label for data in (blobs, Blobs(seed=1), Blobs(count=200))}
    assert len(labels) == len(trainings) == 3
    assert all(label.startswith("classifier-") for label in labels)


def test_another_seed_is_another_classifier_and_the_first_goes_without_saying(trainings, blobs):
    plain, first, second = (Classifier.prepare(blobs, option=option) for option in ("", "seed=0", "seed=1"))
    assert plain.label == first.label != second.label
    assert plain.weights_hash == first.weights_hash != second.weights_hash
    assert [one.seed for one in trainings] == [0, 1]
    turned = Classifier.prepare(blobs, option="rotation,seed=1")
    assert turned.label.startswith("rotation-")
    assert Classifier.knows_classes("seed=1")
    assert not Classifier.knows_classes("rotation,seed=1")
    for wrong in ("seed", "seed=", "seed=-1", "seed=x", "rotation,classes", "seeds=1", "seed=1,"):
        assert "known: classes, rotation, seed=NUMBER" in Classifier.refuses(blobs, wrong)


def test_what_the_first_classifier_is_known_by_stays():
    settings = ClassifierSettings("classes", 1, 16, 16, 10, 1797, 179, 250, 64, 4e-3, False)
    assert settings.described("x") == (
        '{"batch_size": 64, "channels": 1, "data": "x", "flip": false, "held_out": 179, "images": 1797, '
        '"learning_rate": 0.004, "outputs": 10, "resolution": 16, "revision": 1, "steps": 250, "task": "classes", '
        '"width": 16}'
    )


def test_training_is_the_same_again_whatever_threads_and_random_state(trainings, blobs, cache):
    hashes = []
    threads = torch.get_num_threads()
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            torch.set_num_threads(seed)
            for file in cache.rglob("*.safetensors"):
                file.unlink()
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                hashes.append(Classifier.prepare(blobs).weights_hash)
            assert torch.get_num_threads() == seed
    finally:
        torch.set_num_threads(threads)
    assert len(trainings) == 2
    assert hashes[0] == hashes[1]


def test_training_and_loading_leave_random_states_alone(trainings, blobs):
    before = torch.get_rng_state()
    Classifier.prepare(blobs)
    Classifier.prepare(blobs)
    assert torch.equal(torch.get_rng_state(), before)


def test_features_of_an_image_do_not_depend_on_its_batch(trainings, blobs):
    extractor = Classifier.prepare(blobs)
    whole = extractor.features(blobs.images[:32])
    for size in (1, 5):
        parts = [extractor.features(part) for part in blobs.images[:32].split(size)]
        for index in (0, 1):
            torch.testing.assert_close(torch.cat([p[index] for p in parts]), whole[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [0, 1])
def test_images_without_labels_are_told_apart_by_rotation(trainings, classes):
    data = Blobs(classes=classes)
    extractor = Classifier.prepare(data)
    assert extractor.label.startswith("rotation-")
    assert extractor.features(data.images[:3])[1].shape == (3, 4)
    assert extractor.classes == 0
    with pytest.raises(EvaluationError, match="classifier:rotation"):
        Classifier.prepare(data, option="classes")


def test_rotation_can_be_asked_for_and_turns_as_it_says(trainings, blobs):
    assert Classifier.prepare(blobs, option="rotation").label.startswith("rotation-")
    corner = torch.tensor([[[[1, 0], [0, 0]]]]).expand(4, 1, 2, 2)
    turned = classifier._turn(corner, torch.tensor([0, 1, 2, 3])).flatten(1).argmax(1)
    assert turned.tolist() == [0, 2, 3, 1]  # counter-clockwise: left below, right below, right above


def test_large_images_are_made_smaller_and_counts_are_bounded():
    data = Blobs(count=24, resolution=96, channels=3)
    settings = ClassifierSettings.for_dataset(data, "classes")
    assert settings.resolution == 64
    assert settings.held_out == 2
    assert settings.batch_size == 22
    assert classifier._shrink(data.images, 64).shape == (24, 3, 64, 64)
    assert classifier._shrink(data.images, 96) is data.images


def test_too_few_images_and_unknown_options_are_clear(blobs):
    with pytest.raises(EvaluationError, match="at least 20"):
        Classifier.prepare(Blobs(count=19))
    with pytest.raises(EvaluationError, match="known: classes, rotation"):
        Classifier.prepare(blobs, option="rotations")


def test_a_damaged_cache_is_thrown_away_and_made_again(trainings, blobs, cache):
    first = Classifier.prepare(blobs)
    (path,) = cache.rglob("*.safetensors")
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"{}"):
        path.write_bytes(damaged)
        assert Classifier.prepare(blobs).weights_hash == first.weights_hash
        assert load_tensors(path)[1]["accuracy"] == repr(first.accuracy)
    assert len(trainings) == 5


def test_a_cache_that_cannot_be_written_only_warns(trainings, blobs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set GANCOMPRESS_CACHE"):
        extractor = Classifier.prepare(blobs)
    assert extractor.accuracy > 0.9


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gancompress.storage.atomic.put_in_place", full)
    with pytest.warns(UserWarning, match="No space left"):
        store_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {})
    assert list(tmp_path.iterdir()) == []
    assert load_tensors(tmp_path / "a.safetensors") is None


def test_cached_tensors_come_back_with_their_metadata(tmp_path):
    tensors = {"a": torch.arange(6).view(2, 3).t(), "empty": torch.zeros(0), "scalar": torch.tensor(3)}
    store_tensors(tmp_path / "deep" / "a.safetensors", tensors, {"who": "me"})
    found, metadata = load_tensors(tmp_path / "deep" / "a.safetensors")
    assert metadata == {"who": "me"}
    assert hash_tensors(found) == hash_tensors(tensors)
    assert hash_tensors({**tensors, "a": tensors["a"].t().contiguous()}) != hash_tensors(tensors)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.safetensors"]


def test_readers_never_see_half_a_file_while_several_write(tmp_path):
    path = tmp_path / "a.safetensors"
    store_tensors(path, {"x": torch.zeros(2000)}, {"writer": "0"})

    def write(writer):
        for _ in range(10):
            store_tensors(path, {"x": torch.full((2000,), float(writer))}, {"writer": str(writer)})

    def read(_):
        found = [load_tensors(path) for _ in range(20)]
        return all(cached and (cached[0]["x"] == float(cached[1]["writer"])).all() for cached in found)

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, writer) for writer in (1, 2, 3)]
        reading = [pool.submit(read, reader) for reader in range(3)]
        assert all(job.result() for job in reading)
        assert [job.result() for job in writing] == [None] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_auto_is_inception_only_for_colour_from_32_pixels_with_weights_at_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("GANCOMPRESS_INCEPTION", str(tmp_path / "weights.pth"))
    colour, grey, small = Blobs(24, 3, 32), Blobs(24, 1, 32), Blobs(24, 3, 16)
    assert resolve_extractor("auto", colour) == "classifier"
    (tmp_path / "weights.pth").write_bytes(b"")
    assert resolve_extractor("auto", colour) == "inception"
    assert resolve_extractor("auto", grey) == resolve_extractor("auto", small) == "classifier"
    assert resolve_extractor("inception:download", grey) == "inception:download"


def test_extractors_are_found_by_name(trainings, blobs):
    from gancompress.components.registry import EXTRACTORS

    assert isinstance(build_extractor("auto", blobs), Classifier)
    assert build_extractor("classifier:rotation", blobs).label.startswith("rotation-")
    with EXTRACTORS.registered("pixels", Pixels):
        assert isinstance(build_extractor("pixels", blobs), Pixels)
    with pytest.raises(ComponentError, match="classifier"):
        build_extractor("clasifier", blobs)
    with EXTRACTORS.registered("no-extractor", dict), pytest.raises(EvaluationError, match="no Extractor"):
        build_extractor("no-extractor", blobs)
    assert parse_extractor("inception:/a/b.pth") == ("inception", "/a/b.pth")


def test_a_file_of_weights_is_looked_at_before_training(tmp_path, blobs):
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"no weights")
    assert Inception.refuses(blobs, str(wrong)) == f"{wrong} does not hold Inception's weights"
    assert Inception.refuses(blobs, str(tmp_path / "nowhere")) == f"there is no file {tmp_path / 'nowhere'}"
    assert Inception.refuses(blobs, "download") is None


def test_missing_inception_weights_say_what_to_do(monkeypatch, tmp_path, blobs):
    monkeypatch.setenv("GANCOMPRESS_INCEPTION", str(tmp_path / "weights.pth"))
    assert "weights.pth" in Inception.available()
    with pytest.raises(EvaluationError, match="'inception:download', or use the extractor 'classifier'"):
        Inception.prepare(blobs)
    monkeypatch.delenv("GANCOMPRESS_INCEPTION")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert inception.weights_path() == tmp_path / "checkpoints" / inception.FILE


def test_a_download_that_fails_says_what_to_do(monkeypatch, tmp_path, blobs):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setenv("GANCOMPRESS_INCEPTION", str(tmp_path / "deep" / "weights.pth"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(EvaluationError, match="cannot be fetched"):
        Inception.prepare(blobs, option="download")
    assert list((tmp_path / "deep").iterdir()) == []


def test_altered_inception_weights_are_refused(tmp_path, blobs, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not the weights")
    with pytest.raises(EvaluationError, match="must start with 6726825d"):
        Inception.prepare(blobs, option=str(path))


def test_inception_weights_are_never_unpickled_freely(tmp_path, blobs, monkeypatch):
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Evil()))
    monkeypatch.setattr(inception, "SHA256_PREFIX", "")
    with pytest.raises(EvaluationError, match="cannot be read as Inception's weights"):
        Inception.prepare(blobs, option=str(path))
    assert not (tmp_path / "pwned").exists()


def test_inception_repeats_grey_to_colour():
    seen = []

    class Net(torch.nn.Linear):
        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 2048), torch.zeros(len(images), 1008)

    extractor = Inception(Net(1, 1), "0" * 16)
    grey = torch.randint(0, 256, (2, 1, 8, 8)).to(torch.uint8)
    extractor.features(grey)
    assert seen[0].shape == (2, 3, 8, 8)
    assert torch.equal(seen[0][:, 2], grey[:, 0])
    extractor.features(grey.expand(-1, 3, -1, -1))
    assert torch.equal(seen[1], seen[0])
    assert extractor.official
    assert extractor.label == "inception"


@pytest.mark.slow
def test_inception_is_torch_fidelitys_own(tmp_path, blobs, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "weights.pth"
    torch.manual_seed(0)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
    with monkeypatch.context() as patched:
        patched.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"])
    monkeypatch.undo()
    torch.save(theirs.state_dict(), path)
    monkeypatch.setattr(inception, "SHA256_PREFIX", "")
    ours = Inception.prepare(blobs, option=str(path))
    images = torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)
    for mine, other in zip(ours.features(images), theirs(images), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
def test_digits_are_learnt_in_a_few_seconds(cache):
    code = (
        "from gancompress.data.digits import Digits\n"
        "from gancompress.evaluation.classifier import Classifier\n"
        "print(Classifier.prepare(Digits(Digits.Config())).accuracy)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(found.stdout) > 0.95
