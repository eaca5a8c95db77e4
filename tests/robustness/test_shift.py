"""Out of domain: accuracies against plain loops, what is left out, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from conftest import tiny_pretrain

from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.corruptions.label_noise import LabelNoise
from monosem.data.dataset import Examples
from monosem.datasets.digits import Digits
from monosem.learning.optimizers import SGD, Constant
from monosem.models.features import encode
from monosem.models.representation import Embedding
from monosem.probes.finetune import FineTune
from monosem.probes.linear import LinearProbe
from monosem.robustness.curves import Curve
from monosem.robustness.shift import Shift
from monosem.shifts.base import OtherSet
from monosem.shifts.cifar_shifts import CIFAR10C, CIFAR101
from monosem.shifts.imagenet_shifts import ImageNetSketch

DATA = Digits(size=8)
PROBE = LinearProbe(SGD(lr=1.0), Constant(), epochs=2)
SHARED = {"encoder": Embedding(tiny_pretrain(epochs=1)), "data": DATA, "probe": PROBE, "repeats": 2}


@dataclass(frozen=True)
class Faint(Digits):
    """The digits at half their brightness, normalised by constants that must not matter."""

    size: int = 8
    mean: tuple[float, ...] = (0.9,)

    def load(self, split):
        images, labels, _ = super().load(split)
        return Examples(images // 2, labels)


@dataclass(frozen=True)
class Animals(Faint):
    """The same with other names, of which the probe knows three by a map."""

    @property
    def class_names(self):
        return ("eel", "two", "cat", "four", "dog", "owl", "bat", "six", "ape", "fox")


FAINT = OtherSet(name="faint", data=Faint())
ANIMALS = OtherSet(
    name="animals", data=Animals(), classes=(("two", "2"), ("four", "4"), ("six", "6"))
)


def a_shift(**fields):
    return Shift(**{**SHARED, "sets": (FAINT, ANIMALS), **fields})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def values_of(shift, store, metric):
    """By the name of the point: the values of the repeats."""
    values = {}
    for result in shift.results(store.get(shift)):
        if result.metric == metric:
            values.setdefault(result.point, []).append(result.value)
    return values


def test_clean_is_the_accuracy_of_a_clean_curve(store):
    curve = Curve(corruption=LabelNoise(), severities=(0.0,), **SHARED)
    expected = store.get(curve)
    for metric in ("top1", "top5"):
        clean = values_of(a_shift(), store, metric)["clean"]
        assert clean == expected[metric][0].tolist()


def test_accuracies_are_those_of_a_plain_loop_over_the_images_that_match(store):
    shift = a_shift()
    network = shift.encoder.network(store.get)
    pixels, labels, _ = Faint().load("test")
    features = encode(network, DATA, pixels).cpu()
    label_of = {1: 2, 3: 4, 7: 6}
    for repeat, classifier in enumerate(PROBE.classifiers(shift.task, store)):
        logits = (features @ classifier.weight.cpu() + classifier.bias.cpu()).tolist()
        right, among, faint, count = 0, 0, 0, 0
        for row, label in zip(logits, labels.tolist(), strict=True):
            faint += row.index(max(row)) == label
            if label in label_of:
                count += 1
                right += row.index(max(row)) == label_of[label]
                among += max((2, 4, 6), key=row.__getitem__) == label_of[label]
        top1 = values_of(shift, store, "top1")
        assert top1["faint"][repeat] == pytest.approx(100 * faint / len(labels))
        assert top1["animals"][repeat] == pytest.approx(100 * right / count)
        among_present = values_of(shift, store, "top1_among_present")["animals"][repeat]
        assert among_present == pytest.approx(100 * among / count)
    assert store.get(shift)["images"].tolist() == [360, 360, count]


def test_results_have_the_points_and_count_the_images_that_match(store):
    shift = a_shift()
    results = [r for r in shift.results(store.get(shift)) if r.metric == "top1" and not r.repeat]
    assert [(r.point, r.severity) for r in results] == list(shift.points)
    assert [r.n for r in results] == store.get(shift)["images"].tolist()


def test_where_all_classes_are_present_the_choice_among_them_is_top1(store):
    for name in ("clean", "faint"):
        top1 = values_of(a_shift(), store, "top1")[name]
        assert values_of(a_shift(), store, "top1_among_present")[name] == top1


def test_a_fine_tuned_network_is_tested_on_the_sets_as_well(store):
    probe = FineTune(SGD(lr=0.1), Constant(), epochs=1)
    shift = a_shift(probe=probe, repeats=1)
    assert store.get(shift)["top1"].shape == (3, 1)


def test_the_name_of_a_set_is_not_in_the_key_but_its_data_are():
    key_of = key(a_shift(sets=(FAINT,)))
    assert key(a_shift(sets=(replace(FAINT, name="other"),))) == key_of
    assert key(a_shift(sets=(replace(FAINT, data=Animals()),))) != key_of


def test_a_set_that_lacks_classes_has_a_remark_with_the_accuracy_among_those_it_has(store):
    shift = a_shift()
    (remark,) = shift.remarks(store.get(shift))
    assert "animals has 3 of the 10 classes of the probe (2, 4, 6)" in remark
    values = values_of(shift, store, "top1_among_present")["animals"]
    assert f"top-1 is {sum(values) / 2:.1f} % (top1_among_present, 2 draws)" in remark


def test_a_linear_probe_reads_the_features_of_a_set_once_for_all_repeats(store):
    asked = []

    class Reading:
        """A job that counts what is read."""

        def get(self, stage):
            asked.append(stage)
            return store.get(stage)

        def log(self, *step, **scalars):
            pass

    shift = a_shift(repeats=5)
    store.get(shift)
    shift.run(Reading())
    assert len(asked) == 4 and len(set(asked)) == 4  # to train, and of three points


def test_all_sets_whose_files_are_absent_are_named_at_once(tmp_path):
    (tmp_path / "C").mkdir()
    sets = (
        CIFAR10C(folder=str(tmp_path / "C")),
        CIFAR101(folder=str(tmp_path / "10.1")),
        ImageNetSketch(folder=str(tmp_path / "sketch")),
    )
    with pytest.raises(FieldError) as refusal:
        key(a_shift(sets=sets))
    (line,) = str(refusal.value).splitlines()
    assert line.startswith("Shift.sets needs files that are not there: CIFAR101.folder")
    assert f"ImageNetSketch.folder {tmp_path / 'sketch'}" in line and "CIFAR10C" not in line
    assert "published at https://github.com/HaohanWang/ImageNet-Sketch" in line


def test_what_is_left_out_is_said(capsys):
    a_shift().preflight()
    said = capsys.readouterr().err
    assert "animals has 3 of the 10 classes of the probe (2, 4, 6)" in said
    assert "of its 360 images are of others and are left out" in said and "faint" not in said


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ((), "Shift.sets must hold at least one set"),
        ((FAINT, FAINT), "Shift.sets must have points that differ, got faint 0 more than once"),
        ((replace(FAINT, data=Digits(size=9)),), "Shift.sets holds faint, which must have inputs"),
        ((replace(ANIMALS, classes=()),), "Shift.sets holds animals, which has no class that the"),
    ],
)
def test_impossible_shifts_are_refused(sets, message):
    with pytest.raises(FieldError, match=message):
        a_shift(sets=sets).preflight()


def test_a_set_that_can_only_be_tested_on_is_no_data_of_a_probe():
    class Untrained(Digits):
        splits = ("test",)

    with pytest.raises(FieldError, match="Shift.data has no training split: it can only be a set"):
        a_shift(data=Untrained()).preflight()


def test_features_of_a_set_are_computed_once_for_all_repeats(store):
    shift = a_shift(repeats=5)
    assert len(shift.upstream()) == len(a_shift(repeats=1).upstream())
    assert torch.equal(store.get(shift)["top1"][:, :2], store.get(a_shift())["top1"])
