"""Label noise that is not symmetric: exact, nested, and as plain loops and published files say."""

from __future__ import annotations

import collections
import io
import itertools
import math
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from samples import Classes
from torch.testing import assert_close

from monosem.checkpoints.array_file import load_columns
from monosem.checkpoints.safe_load import WeightsError
from monosem.core.fields import FieldError
from monosem.core.identity import digest, generator
from monosem.corruptions.base import training_set
from monosem.corruptions.human_noise import HumanNoise
from monosem.corruptions.instance_noise import (
    InstanceNoise,
    MarginNoise,
    flip_order,
    ridge_scores,
    truncated_normal,
)
from monosem.corruptions.label_noise import (
    LabelNoise,
    PairFlip,
    SuperclassNoise,
    TransitionNoise,
    largest_remainder,
)
from monosem.corruptions.label_record import label_record
from monosem.datasets.cifar import CIFAR100
from monosem.datasets.digits import Digits
from monosem.datasets.shapes import CLASSES, Shapes

SIX = Classes(6, groups=(0, 0, 1, 1, 1, 0))
LABELS = SIX.split("train").labels
MATRIX = (
    (0.5, 0.3, 0.2, 0, 0, 0),
    (0, 1, 0, 0, 0, 0),
    (0.1, 0.1, 0.1, 0.1, 0.1, 0.5),
    (0, 0, 0, 0, 1, 0),
    (0, 0.015, 0, 0, 0.985, 0),
    (0, 0, 0.25, 0.25, 0.25, 0.25),
)
BY_SHARE = [PairFlip(), SuperclassNoise("mine"), InstanceNoise(), MarginNoise()]
ALL = [LabelNoise(), *BY_SHARE, TransitionNoise(MATRIX)]


def seen(corruption, severity, data=SIX, repeat=0):
    return training_set(data, corruption, severity, repeat).labels


def confusion(clean, noisy, classes):
    """Counted one by one."""
    table = torch.zeros(classes, classes, dtype=torch.int32)
    for row, column in zip(clean.tolist(), noisy.tolist(), strict=True):
        table[row, column] += 1
    return table


# Of all of them


@pytest.mark.parametrize("corruption", BY_SHARE, ids=repr)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.4567, 1.0])
def test_exactly_the_given_share_is_wrong(corruption, share):
    assert (seen(corruption, share) != LABELS).sum() == round(share * 1000)


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_what_is_wrong_at_a_severity_is_wrong_in_the_same_way_at_every_larger_one(corruption):
    severities = [0.0, 0.05, 0.2, 0.4, 0.41, 0.7, 1.0]
    noisy = [seen(corruption, severity) for severity in severities]
    for less, more in itertools.pairwise(noisy):
        wrong = less != LABELS
        assert torch.equal(less[wrong], more[wrong])
        assert wrong.sum() <= (more != LABELS).sum()


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_a_repeat_has_its_own_noise_unless_nothing_is_random(corruption):
    again = seen(corruption, 0.3)
    assert torch.equal(again, seen(corruption, 0.3))
    is_same = torch.equal(again, seen(corruption, 0.3, repeat=1))
    assert is_same == isinstance(corruption, MarginNoise)


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_severity_0_leaves_the_labels_and_none_touches_inputs(corruption):
    assert torch.equal(seen(corruption, 0.0), LABELS)
    assert corruption.touches_labels(0.1) and not corruption.touches_inputs(0.1)
    with pytest.raises(ValueError, match="between 0 and 1, got 1.5"):
        corruption.check_severity(1.5, LABELS)


@pytest.mark.parametrize("corruption", ALL[1:5], ids=repr)
def test_data_of_one_class_are_refused(corruption):
    assert corruption.incompatibility(Classes(1, groups=(0,)))
    assert corruption.incompatibility(SIX) is None


# Each of them


def test_a_pair_flip_makes_a_class_the_next_one():
    noisy = seen(PairFlip(), 0.4)
    wrong = noisy != LABELS
    assert torch.equal(noisy[wrong], (LABELS[wrong] + 1) % 6)


@pytest.mark.parametrize("groups", ["mine", ((0, 1, 5), (3, 4, 2))], ids=str)
def test_a_wrong_label_stays_in_its_superclass_and_is_uniform_there(groups):
    noisy = seen(SuperclassNoise(groups), 1.0)
    table = confusion(LABELS, noisy, 6)
    for label in range(6):
        group = [other for other in range(6) if SIX.groups[other] == SIX.groups[label]]
        hit = [other for other in range(6) if table[label, other]]
        assert hit == [other for other in group if other != label]
        members = int(table[label].sum())
        assert all(abs(int(table[label, other]) - members / 2) < 35 for other in hit)


def test_shapes_are_grouped_by_what_their_names_say():
    names = [name.split() for name in CLASSES]
    for position, grouping in ((1, "shape"), (0, "texture")):
        groups = Shapes().groupings[grouping]
        pairs = {(words[position], group) for words, group in zip(names, groups, strict=True)}
        assert len(pairs) == 10 and set(groups) == set(range(10))
        assert SuperclassNoise(grouping).incompatibility(Shapes(train=100, test=100)) is None


def test_the_superclasses_of_cifar_100_are_those_that_everybody_lists_by_number():
    coarse = (
        "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 "
        "9 11 5 5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 "
        "0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
    )
    assert CIFAR100().groupings["superclass"] == tuple(map(int, coarse.split()))


def test_a_transition_matrix_holds_exactly_by_largest_remainders_at_severity_1():
    table = confusion(LABELS, seen(TransitionNoise(MATRIX), 1.0), 6)
    for row, counts in zip(MATRIX, table.tolist(), strict=True):
        exact = [share * sum(counts) for share in row]
        expected = [math.floor(value + 1e-9) for value in exact]
        by_rest = sorted(range(6), key=lambda j: expected[j] - exact[j])
        for j in by_rest[: sum(counts) - sum(expected)]:
            expected[j] += 1
        assert counts == expected


@pytest.mark.parametrize("severity", [0.03, 0.2, 0.5, 0.77])
def test_a_transition_matrix_is_scaled_by_the_severity_within_a_label_or_two(severity):
    whole = confusion(LABELS, seen(TransitionNoise(MATRIX), 1.0), 6).double()
    table = confusion(LABELS, seen(TransitionNoise(MATRIX), severity), 6).double()
    off = 1 - torch.eye(6).double()
    assert (table * off).sum() == round(severity * int((whole * off).sum()))
    assert ((table - severity * whole) * off).sum(1).abs().max() <= 1
    assert ((table - severity * whole) * off).abs().max() <= 2


@pytest.mark.parametrize("total", [0, 1, 7, 100])
def test_largest_remainders_sum_up_and_differ_by_less_than_one(total):
    shares = torch.tensor([0.1, 0.25, 0.05, 0.6]).double()
    counts = largest_remainder(shares, total)
    assert counts.sum() == total and (counts - shares * total).abs().max() < 1


def test_the_wrong_label_of_an_instance_is_drawn_by_its_projection():
    data = Classes(4, n=4000, width=2)
    noisy = seen(InstanceNoise(), 1.0, data)
    inputs, labels = data.split("train")[:2]
    # Inputs of one class that are near each other mostly become the same class ...
    agree, anywhere = [], []
    for label in range(4):
        rows, targets = inputs[labels == label], noisy[labels == label]
        nearest = torch.cdist(rows, rows).fill_diagonal_(torch.inf).argmin(1)
        agree.append((targets == targets[nearest]).double().mean())
        anywhere.append((targets == targets.roll(1)).double().mean())
    # ... more often than two of the class at random.
    assert sum(agree) / 4 > sum(anywhere) / 4 + 0.1
    assert set(noisy[labels == 0].tolist()) == {1, 2, 3}


def test_instances_are_wrong_with_the_published_probabilities(monkeypatch):
    """Frequencies over many draws against softmax(x W_y) without y, computed in a plain loop."""
    data = Classes(3, n=6, width=2)
    inputs, labels = data.split("train")[:2]
    weight = torch.tensor([[0.5, -1.0, 0.3], [1.0, 0.2, -0.4]])
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: weight)
    counts = torch.zeros(6, 3)
    for repeat in range(600):
        noisy = InstanceNoise().labels(labels, data, 1.0, generator(repeat))
        counts[torch.arange(6), noisy] += 1
    for row, label, count in zip(inputs, labels.tolist(), counts / 600, strict=True):
        scores = (row @ weight).exp()
        scores[label] = 0
        assert_close(count, scores / scores.sum(), atol=0.08, rtol=0)


def test_flip_rates_are_a_truncated_normal_as_scipy_has_it():
    stats = pytest.importorskip("scipy.stats")
    quantile = torch.linspace(0.01, 0.99, 21).double()
    for mean in (0.0, 0.05, 0.4, 1.0):
        ours = truncated_normal(quantile, torch.full_like(quantile, mean), 0.1)
        theirs = stats.truncnorm.ppf(quantile.numpy(), -mean / 0.1, (1 - mean) / 0.1, mean, 0.1)
        assert_close(ours, torch.from_numpy(theirs), atol=1e-9, rtol=0)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.8])
def test_instances_flip_where_a_growing_rate_passes_their_draw(rate):
    quantile, uniform = torch.rand(2, 500, generator=generator("x"), dtype=torch.float64)
    flips = truncated_normal(quantile, torch.full_like(quantile, rate), 0.1) > uniform
    first = flip_order(quantile, uniform, 0.1)[: int(flips.sum())]
    assert set(first.tolist()) == set(flips.nonzero()[:, 0].tolist())


def test_the_linear_classifier_of_margins_is_ridge_regression_as_sklearn_has_it():
    linear_model = pytest.importorskip("sklearn.linear_model")
    inputs, labels = SIX.split("train")[:2]
    rows = inputs.double().numpy()
    variance = ((rows - rows.mean(0)) ** 2).sum() / rows.shape[1]
    ridge = linear_model.Ridge(alpha=0.01 * variance)
    ridge.fit(rows, np.eye(6)[labels.numpy()])
    ours = ridge_scores(SIX, 0.01) + torch.eye(6)[labels].double().mean(0)
    assert_close(ours, torch.from_numpy(ridge.predict(rows)), atol=1e-9, rtol=0)


def test_the_smallest_margins_become_the_runner_up():
    scores, noisy = ridge_scores(SIX, 0.01), seen(MarginNoise(), 0.3)
    margins, runners_up = [], []
    for row, label in zip(scores.tolist(), LABELS.tolist(), strict=True):
        others = {score: other for other, score in enumerate(row) if other != label}
        margins.append(row[label] - max(others))
        runners_up.append(others[max(others)])
    smallest = sorted(range(1000), key=margins.__getitem__)[:300]
    assert set((noisy != LABELS).nonzero()[:, 0].tolist()) == set(smallest)
    assert all(noisy[example] == runners_up[example] for example in smallest)


def test_the_chunks_that_inputs_come_in_change_no_label(monkeypatch):
    digits = Digits(size=8)
    whole = [seen(noise, 0.3, digits) for noise in (InstanceNoise(0.11), MarginNoise(0.02))]
    monkeypatch.setattr("monosem.corruptions.instance_noise.CHUNK", 100)
    others = (InstanceNoise(0.11 + 1e-12), MarginNoise(0.02 + 1e-12))  # not in the caches
    parts = [seen(noise, 0.3, digits) for noise in others]
    assert all(map(torch.equal, whole, parts))


# Refusals


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ((), "must hold a row for every class"),
        (((0.5, 0.5),), "must be square, got 1 rows and 2 values in row 0"),
        (((1.0, 0.0), (0.5, 0.4)), "must have rows that sum to 1, got 0.9 in row 1"),
        (((1.5, -0.5), (0, 1)), "between 0 and 1, got 1.5"),
    ],
)
def test_matrices_that_are_none_of_a_transition_are_refused(matrix, message):
    with pytest.raises(FieldError, match=f"TransitionNoise.matrix.*{message}"):
        TransitionNoise(matrix)


@pytest.mark.parametrize(
    ("corruption", "message"),
    [
        (TransitionNoise(((1, 0), (0, 1))), "must have 2 classes, as many as .* rows, got 6"),
        (SuperclassNoise("kind"), "must know the groups 'kind' of SuperclassNoise, .*: mine"),
        (SuperclassNoise(((0, 1), (2, 3))), "6 classes, but the groups hold"),
        (SuperclassNoise(((0, 1, 2, 3, 4), (4, 5))), "every class in one group"),
        (SuperclassNoise(((0, 1, 2, 3, 4), (5,))), r"2 classes or more in .*, got \(5,\)"),
        (SuperclassNoise(((0, 1, 2, 3, 4, 5), ())), r"2 classes or more in .*, got \(\)"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_in_one_line(corruption, message):
    reason = corruption.incompatibility(SIX)
    assert reason is not None and "\n" not in reason
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(reason)


def test_inputs_too_large_for_a_linear_classifier_are_refused():
    reason = MarginNoise().incompatibility(Classes(2, n=4, width=20_000))
    assert reason == (
        "must have inputs of at most 12288 numbers, for the linear classifier of MarginNoise, "
        "got 20000"
    )


# Human labels


def human_labels():
    clean = LABELS.numpy()
    noisy = np.where(np.arange(1000) % 4 == 0, (clean + 2) % 6, clean)
    return {"clean_label": clean, "worse_label": noisy}


def save(path, table):
    torch.save(table, path)
    return str(path)


def save_as_published(path, table):
    """As older numpy wrote it, whose modules had other names."""
    buffer = io.BytesIO()
    torch.save(table, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member.endswith("data.pkl"):
                assert b"numpy._core" in data
                data = data.replace(b"numpy._core", b"numpy.core")
            new.writestr(member, data)
    return str(path)


@pytest.mark.parametrize("write", [save, save_as_published])
def test_severity_1_is_the_published_labels_and_less_is_a_part_of_the_wrong_ones(tmp_path, write):
    noise = HumanNoise(write(tmp_path / "human.pt", human_labels()), "worse_label")
    assert noise.incompatibility(SIX) is None
    published = torch.from_numpy(human_labels()["worse_label"])
    assert torch.equal(seen(noise, 1.0), published)
    half = seen(noise, 0.5)
    assert (half != LABELS).sum() == 125
    assert torch.equal(half[half != LABELS], published[half != LABELS])


def test_the_columns_of_cifar_100n_are_its_classes_and_lists_of_its_superclasses(tmp_path):
    coarse = [SIX.groups[label] for label in LABELS.tolist()]
    table = {
        "clean_label": LABELS.numpy(),
        "noisy_label": human_labels()["worse_label"],
        "clean_coarse_label": coarse,
        "noisy_coarse_label": coarse,
    }
    path = save_as_published(tmp_path / "CIFAR-100_human.pt", table)
    assert [*load_columns(tmp_path / "CIFAR-100_human.pt")] == [*table]
    assert (seen(HumanNoise(path, "noisy_label"), 1.0) != LABELS).sum() == 250


def test_arrays_tensors_and_lists_are_columns_and_the_rest_is_left_out(tmp_path):
    table = {
        "a": np.arange(3, dtype=np.uint8),
        "b": torch.arange(3),
        "c": [0, 1, 2],
        "d": np.ones(3),
        "e": "a word",
        "f": np.int64(3),
    }
    columns = load_columns(tmp_path / save(tmp_path / "x.pt", table))
    assert [*columns] == ["a", "b", "c"]
    assert all(column.tolist() == [0, 1, 2] for column in columns.values())


def test_the_content_of_the_file_is_in_the_key_and_its_place_is_not(tmp_path):
    one = save(tmp_path / "one.pt", human_labels())
    same = shutil.copy(one, tmp_path / "same.pt")
    other = save(tmp_path / "other.pt", {**human_labels(), "worse_label": LABELS.numpy()})
    keys = [digest(HumanNoise(str(path), "worse_label")) for path in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]


def clean_labels(change):
    table = human_labels()
    table["clean_label"] = change(table["clean_label"].copy())
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (clean_labels(lambda clean: clean[:999]), "999 clean and 1000 worse_label, got 1000"),
        (
            clean_labels(lambda clean: clean[::-1].copy()),
            "in the same order; .* first that of image 0: 0, where the file has 3",
        ),
        ({"clean_label": LABELS.numpy()}, "lacks worse_label: it has clean_label"),
        ({**human_labels(), "worse_label": LABELS.numpy() + 1}, "1 to 6, got 6 classes"),
        ([1, 2], "holds no dictionary of columns but list"),
        ({"clean_label": collections.Counter("ab"), "x": print}, "arrays of numbers alone"),
        ({"clean_label": np.array([print, 1], dtype=object)}, "an array of object"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_what_differs(tmp_path, table, message):
    noise = HumanNoise(save(tmp_path / "human.pt", table), "worse_label")
    with pytest.raises((FieldError, AssertionError), match=message) as info:
        raise AssertionError(noise.incompatibility(SIX))
    assert "\n" not in str(info.value)


def test_a_file_that_is_not_there_or_no_file_of_torch_is_refused(tmp_path):
    with pytest.raises(FieldError, match="HumanNoise.file must be a file, got"):
        HumanNoise(str(tmp_path / "none.pt"), "worse_label").content()
    path = tmp_path / "text.pt"
    path.write_text("labels\n")
    with pytest.raises(FieldError, match="HumanNoise.file cannot be used: .*text.pt is no file"):
        HumanNoise(str(path), "worse_label").incompatibility(SIX)


@pytest.mark.parametrize("length", [None, 6000])
def test_a_file_that_was_damaged_on_its_way_is_refused(tmp_path, length):
    """A flipped bit of a human label would be a label like any other."""
    data = bytearray((tmp_path / save(tmp_path / "whole.pt", human_labels())).read_bytes())
    at = data.index(human_labels()["worse_label"].tobytes())
    data[at + 8 * 100] ^= 1
    (tmp_path / "damaged.pt").write_bytes(data[:length])
    with pytest.raises(WeightsError, match="damaged.pt is truncated"):
        load_columns(tmp_path / "damaged.pt")


class Caller:
    def __reduce__(self):
        return print, ("called",)


@pytest.mark.parametrize("as_zip", [True, False])
def test_no_code_of_a_file_of_columns_is_run(tmp_path, capsys, as_zip):
    path = tmp_path / "x.pt"
    if as_zip:
        torch.save({"a": Caller()}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Caller()}, protocol=2))
    with pytest.raises(WeightsError, match="x.pt is no file of torch.save"):
        load_columns(path)
    assert "called" not in capsys.readouterr().out


# What is kept


def test_the_record_of_labels_counts_as_a_loop_does_and_tells_other_labels_apart():
    noisy = seen(LabelNoise(), 0.3)
    record = label_record(LABELS, noisy, 6)
    assert torch.equal(record["confusion"], confusion(LABELS, noisy, 6))
    assert record["wrong_labels"] == pytest.approx(30)
    assert record["label_digest"].shape == (32,)
    other = label_record(LABELS, seen(LabelNoise(), 0.3, repeat=1), 6)
    assert not torch.equal(record["label_digest"], other["label_digest"])
