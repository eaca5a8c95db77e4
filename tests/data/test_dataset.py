"""What every dataset does, and what is said of one that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from monosem.core.identity import generator
from monosem.data.dataset import Examples, load_once, stratified
from monosem.data.images import ImageDataset

SPLITS: dict[str, Examples] = {}


@dataclass(frozen=True)
class Given(ImageDataset):
    """What SPLITS holds."""

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def load(self, split):
        return SPLITS[split]


def test_a_process_loads_a_split_once():
    loads = []

    @dataclass(frozen=True)
    class Counted(Given):
        def load(self, split):
            loads.append(split)
            return GOOD

    data = Counted()
    assert data.problem() is None
    assert data.classes == 3
    assert Counted().split("test") is data.split("test")
    assert sorted(loads) == ["test", "train"]


def test_every_beginning_of_a_stratified_order_is_stratified():
    labels = torch.arange(4).repeat_interleave(torch.tensor([5, 50, 100, 45]))
    order = stratified(labels, generator("x"))
    assert sorted(order.tolist()) == list(range(200))
    for count in (20, 77, 150):
        of_each_class = labels[order[:count]].bincount(minlength=4)
        assert (of_each_class - labels.bincount() * count / 200).abs().max() <= 1


PIXELS, LABELS = torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6) % 3
GOOD = Examples(PIXELS, LABELS)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (Examples(PIXELS.float(), LABELS), GOOD, "must hold uint8 images"),
        (Examples(PIXELS[:, 0], LABELS), GOOD, "must hold uint8 images"),
        (GOOD, Examples(PIXELS.expand(-1, 3, -1, -1), LABELS), "a channel for each mean"),
        (GOOD, Examples(PIXELS[..., 1:], LABELS), "one size in both splits, got (1, 4, 4)"),
        (Examples(PIXELS, LABELS.int()), GOOD, "int64 labels"),
        (Examples(PIXELS.numpy(), LABELS), GOOD, "must load torch tensors"),
        (Examples(PIXELS, LABELS[:5]), GOOD, "a label for every input"),
        (Examples(PIXELS[:0], LABELS[:0]), GOOD, "some of them"),
        (Examples(PIXELS, LABELS, {"hue": LABELS[:5]}), GOOD, "and below 10000; not so hue"),
        (Examples(PIXELS, LABELS, {"hue": LABELS * 10**6}), GOOD, "from 0 on, like labels"),
        (Examples(PIXELS, LABELS, None), GOOD, "must load Examples(inputs, labels, factors), the"),
        ((PIXELS, LABELS), GOOD, "the factors a dictionary; the train split has tuple"),
        (Examples(PIXELS, LABELS - 1), GOOD, "0 to 1; not so the train split"),
        (GOOD, Examples(PIXELS, LABELS + 1), "0 to 2; not so the test split"),
        (Examples(PIXELS, LABELS * 2), GOOD, "none of [1, 3]"),
    ],
)  # fmt: skip
def test_a_dataset_that_cannot_be_used_is_described(monkeypatch, train, test, message):
    monkeypatch.setitem(SPLITS, "train", train)
    monkeypatch.setitem(SPLITS, "test", test)
    load_once.cache_clear()
    assert message in Given().problem()
