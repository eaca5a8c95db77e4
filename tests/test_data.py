"""The embedded digits, and what is said of a dataset that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits

from monosem.data import Dataset, Digits, Images, _loaded, stratified
from monosem.stage import generator


def test_the_digits_are_scikit_learn_s_split_without_overlap_and_stratified():
    scans, labels = load_digits(return_X_y=True)
    digits = Digits(size=8)
    train, test = digits.load("train"), digits.load("test")
    pixels = torch.cat([train.images, test.images]).reshape(1797, 64)
    expected = torch.from_numpy(scans / 16 * 255).round().to(torch.uint8)
    assert sorted(map(bytes, pixels.numpy())) == sorted(map(bytes, expected.numpy()))  # every scan, each once
    assert torch.cat([train.labels, test.labels]).bincount().tolist() == torch.from_numpy(labels).bincount().tolist()
    assert len(test.labels) == 360 and ((test.labels.bincount() - 36).abs() <= 1).all()
    assert digits.classes == 10 and digits.channels == 1


def test_normalised_training_images_have_zero_mean_and_unit_deviation():
    pixels = Digits().normalise(Digits().load("train").images.float() / 255)
    assert abs(pixels.mean()) < 1e-3 and abs(pixels.std() - 1) < 1e-3


def test_a_process_loads_a_split_once():
    loads = []

    @dataclass(frozen=True)
    class Counted(Given):
        def load(self, split):
            loads.append(split)
            return GOOD

    data = Counted()
    assert data.flaw() is None and data.classes == 3 and Counted().split("test") is data.split("test")
    assert sorted(loads) == ["test", "train"]


def test_every_beginning_of_a_stratified_order_is_stratified():
    labels = torch.arange(4).repeat_interleave(torch.tensor([5, 50, 100, 45]))
    order = stratified(labels, generator("x"))
    assert sorted(order.tolist()) == list(range(200))
    for n in (20, 77, 150):
        assert (labels[order[:n]].bincount(minlength=4) - labels.bincount() * n / 200).abs().max() <= 1


@dataclass(frozen=True)
class Given(Dataset):
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def load(self, split):
        return SPLITS[split]


SPLITS: dict[str, Images] = {}
GOOD = Images(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6) % 3)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (GOOD, GOOD, None),
        (Images(GOOD.images.float(), GOOD.labels), GOOD, "must hold uint8 images"),
        (Images(GOOD.images[:, 0], GOOD.labels), GOOD, "must hold uint8 images"),
        (GOOD, Images(GOOD.images.expand(-1, 3, -1, -1), GOOD.labels), "a channel for each mean"),
        (Images(GOOD.images, GOOD.labels.int()), GOOD, "int64 labels"),
        (Images(GOOD.images, GOOD.labels[:5]), GOOD, "a label for every image"),
        (Images(GOOD.images[:0], GOOD.labels[:0]), GOOD, "some of them"),
        (Images(GOOD.images, GOOD.labels - 1), GOOD, "0 to 1; not so the train split"),
        (GOOD, Images(GOOD.images, GOOD.labels + 1), "0 to 2; not so the test split"),
        (Images(GOOD.images, GOOD.labels * 2), GOOD, "none of [1, 3]"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_described(train, test, words):
    SPLITS.update(train=train, test=test)
    _loaded.cache_clear()
    flaw = Given().flaw()
    assert flaw is None if words is None else words in flaw
