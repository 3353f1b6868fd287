from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from evaluation_toys import Blobs, Generator, Pixels
from test_sandbox import assert_same, draws, snapshot

from gancompress.data.transform import to_float
from gancompress.errors import ComponentError, EvaluationError
from gancompress.evaluation import Metric, MetricResult, build_metrics, evaluate
from gancompress.evaluation.protocol import Protocol
from gancompress.evaluation.sampler import Sampler


def run(network=None, **given):
    defaults = {
        "dataset": Blobs(),
        "extractor": Pixels(),
        "samples": 120,
        "batch_size": 30,
    }
    return evaluate(network or Generator(), **{**defaults, **given})


def values(evaluation):
    return {result.key: result.value for result in evaluation.results}


def test_all_built_in_metrics_under_one_protocol():
    found = run()
    assert [result.key for result in found.results] == ["fd", "kd", "is", "precision", "recall"]
    assert [result.name for result in found.results][:2] == ["FD[pixels-0]", "KD[pixels-0]"]
    for result in found.results:
        assert result.protocol == found.protocol.for_metric(result.settings)
    assert found["fd"].value > 0
    assert found.seconds > 0
    with pytest.raises(KeyError):
        found["ppl"]


def test_the_same_again_whatever_the_random_state_and_the_batch_size():
    first = values(run())
    torch.manual_seed(77)
    assert values(run()) == first
    assert values(run(batch_size=7)) == pytest.approx(first, rel=2e-2)
    assert values(run(seed=1)) != first


@pytest.mark.parametrize("mode", ["running", "batch", "standing"])
def test_nothing_about_the_training_changes(mode):
    network = Generator().train()
    before, rng = snapshot(network), draws()
    run(network, batch_norm=mode)
    assert_same(before, snapshot(network))
    assert draws() == rng


def test_nothing_changes_when_the_generator_the_extractor_or_a_metric_fails():
    class Broken(Metric):
        def compute(self, real, fake):
            torch.rand(3)
            raise ZeroDivisionError

    class Blind(Pixels):
        def features(self, images):
            torch.rand(3)
            if images.float().mean() > 0 and self.calls > 2:
                raise ZeroDivisionError
            return super().features(images)

    network = Generator().train()
    before, rng = snapshot(network), draws()
    for given in ({"metrics": [Broken()]}, {"extractor": Blind()}):
        with pytest.raises(ZeroDivisionError):
            run(network, batch_norm="standing", **given)
    network.linear.bias.data.fill_(float("nan"))
    before[0]["linear.bias"].fill_(0)
    with pytest.raises(EvaluationError, match="NaN"):
        run(network, batch_norm="batch")
    network.linear.bias.data.fill_(0)
    assert_same(before, snapshot(network))
    assert draws() == rng


def test_the_protocol_holds_everything_that_fixes_a_metric():
    base = run().protocol
    others = [
        run(samples=100),
        run(seed=1),
        run(weights_label="live"),
        run(norms="divided by their own spectral norms"),
        run(batch_norm="batch"),
        run(batch_norm="standing"),
        run(batch_norm="batch", batch_size=10),
        run(reference_count=200),
        run(dataset=Blobs(seed=1)),
        run(extractor=Pixels(seed=1)),
        run(Generator(classes=0)),
    ]
    hashes = [base.hash, *(other.protocol.hash for other in others)]
    assert len(set(hashes)) == len(hashes)
    assert run(batch_size=11).protocol == base


def test_a_protocol_reads_as_one_line():
    protocol = run().protocol.for_metric("3 neighbours")
    assert str(protocol) == (
        "pixels-0, 120 generated against 240 real, balanced classes, EMA weights, batch norm: running averages, "
        f"seed 0, 3 neighbours [{protocol.hash}]"
    )
    noted = dataclasses.replace(protocol, notes=("99 % right",))
    assert noted.hash == protocol.hash
    assert "pixels-0 (99 % right)" in str(noted)
    assert "torch-fidelity" in protocol.libraries
    normed = dataclasses.replace(protocol, norms="divided by their own spectral norms")
    assert "EMA weights, divided by their own spectral norms, batch norm" in str(normed)


def test_a_protocol_that_says_nothing_of_norms_has_the_hash_it_always_had():
    fields = {name: name for name in ("extractor", "weights_hash", "resize", "reference", "weights", "batch_norm")}
    fields |= {"labels": "balanced", "libraries": "libraries", "reference_count": 2, "samples": 3, "seed": 4}
    protocol = Protocol(**fields, metric="of means")
    assert protocol.hash == "87229552a713"
    assert "norms" not in protocol.to_json()


def test_a_protocol_is_json():
    protocol = run().protocol
    record = json.loads(json.dumps(protocol.to_json(), allow_nan=False))
    assert (record["hash"], record["text"], record["samples"]) == (protocol.hash, str(protocol), 120)


def test_a_metric_of_ones_own():
    from gancompress.components.registry import METRICS

    class MeanGap(Metric):
        def compute(self, real, fake):
            gap = (real.values.mean() - fake.values.mean()).abs().item()
            return [MetricResult("gap", fake.name("gap", "gap"), gap, "lower", settings="of means")]

    with METRICS.registered("gap", MeanGap):
        found = run(metrics=("gap", "fd"))
    assert [result.name for result in found.results] == ["gap[pixels-0]", "FD[pixels-0]"]
    assert str(found["gap"].protocol).endswith(f"of means [{found['gap'].protocol.hash}]")


def test_unknown_metrics_and_things_that_are_none():
    from gancompress.components.registry import METRICS

    with pytest.raises(ComponentError, match="fd"):
        build_metrics(["fdd"])
    with METRICS.registered("nothing", dict), pytest.raises(EvaluationError, match="no Metric"):
        build_metrics(["nothing"])


def test_a_result_that_is_not_finite_is_refused():
    class Nothing(Metric):
        def compute(self, real, fake):
            return [MetricResult("none", "none", float("nan"), "lower")]

    with pytest.raises(EvaluationError, match="none is nan"):
        run(metrics=[Nothing()])


def test_a_generator_without_classes_and_batch_statistics_of_whole_batches():
    found = run(Generator(classes=0), batch_norm="batch", samples=50)
    assert found.protocol.labels == "none"
    assert found.protocol.batch_norm == "each batch of 30"


def test_torch_fidelitys_calculate_metrics_gives_the_same_numbers(blobs):
    """One image set, two roads: ours, and the whole of torch-fidelity with our features registered there."""
    import torch_fidelity
    from torch.utils.data import Dataset
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    ours = Pixels()

    class Theirs(FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)

        def forward(self, images):
            values, logits = ours.features(images)
            return tuple({"pool": values, "logits": logits}[name] for name in self.features_list)

        @staticmethod
        def get_provided_features_list():
            return "pool", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "pool"

        @staticmethod
        def can_be_compiled():
            return False

        @staticmethod
        def get_dummy_input_for_compile():
            return torch.zeros(1, 1, 8, 8, dtype=torch.uint8)

    class Images(Dataset):
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index]

    network = Generator().eval()
    with torch.no_grad():
        fake = torch.cat(list(Sampler(network, seed=0).batches(240, 30)))
    torch_fidelity.register_feature_extractor("pixels-of-this-test", Theirs)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(fake),
        input2=Images(blobs.images),
        feature_extractor="pixels-of-this-test",
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=120,
        isc_splits=1,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    found = run(network, samples=240)
    assert found["fd"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert found["kd"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert found["is"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert found["precision"].value == pytest.approx(theirs["precision"], abs=1e-9)
    assert found["recall"].value == pytest.approx(theirs["recall"], abs=1e-9)


class Perfect(torch.nn.Module):
    """Makes a real image of the class that it is asked for, any of them; noise where there is none."""

    latent_dim = 6

    def __init__(self, dataset, conditional=True):
        super().__init__()
        self.dataset, self.image = dataset, dataset.spec
        self.num_classes = dataset.spec.num_classes if conditional else 0

    def forward(self, z, labels):
        draw = (torch.special.ndtr(z[:, 0]) * 1e6).long()
        if labels is None:
            return to_float(self.dataset.images[draw % len(self.dataset)])
        made = torch.empty(len(z), *self.dataset.images.shape[1:])
        for index, label in enumerate(labels.tolist()):
            own = self.dataset.images[self.dataset.stored == label]
            made[index] = to_float(own[draw[index] % len(own)][None])[0] if len(own) else 1.0
        return made


class Uneven(Blobs):
    """Class 0 is empty, and class 1 comes nine times as often as class 2."""

    def __init__(self):
        super().__init__(classes=3)
        self.stored = 1 + (torch.arange(240) % 10 == 9).long()
        self.images = self.images // 8 + (self.stored == 1)[:, None, None, None].to(torch.uint8) * 200


def test_a_perfect_conditional_generator_of_uneven_classes_is_as_good_as_an_unconditional_one():
    dataset, measured = Uneven(), {}
    for conditional in (True, False):
        measured[conditional] = run(Perfect(dataset, conditional), dataset=dataset, samples=240)
    assert measured[True]["fd"].value < 1.2 * measured[False]["fd"].value + 0.001
    assert measured[True]["precision"].value > 0.95
    assert measured[True].protocol.labels.startswith("as in the data (")
    assert ", classes as in the data (" in str(measured[True].protocol)
    # every class once in turn is what this guards against
    wrong = run(Perfect(dataset), dataset=Relabelled(dataset), samples=240)
    assert wrong["fd"].value > 0.1


class Relabelled(Uneven):
    """The same images, as if all classes were equally many."""

    def __init__(self, real):
        super().__init__()
        self.images, self.stored = real.images, torch.arange(240) % 3


def test_a_generator_of_other_classes_is_refused():
    with pytest.raises(EvaluationError, match="the generator makes 4 classes, the data has 3"):
        run(Generator(), dataset=Blobs(classes=3))


def test_the_counts_of_the_classes_are_part_of_the_protocol():
    others = [Uneven(), Uneven(), Blobs(classes=3)]
    others[1].stored[:100] = 2
    protocols = [run(Generator(classes=3), dataset=dataset).protocol for dataset in others]
    assert [protocol.labels for protocol in protocols][2] == "balanced"
    assert len({protocol.labels for protocol in protocols}) == 3
