"""A dataset whose inputs are no images: tokens, with views and an encoder of their own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from conftest import tiny_curve, tiny_pretrain
from torch import nn

from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.core.store import Store
from monosem.corruptions.input_noise import GaussianNoise
from monosem.data.augment import RandomResizedCrop
from monosem.data.dataset import Augmentation, Dataset, Examples
from monosem.datasets.digits import Digits
from monosem.learning.encoders import Encoder, SmallConv
from monosem.learning.optimizers import SGD, Constant
from monosem.models.representation import Embedding
from monosem.probes.linear import LinearProbe

VOCABULARY = 21  # token 0 stands for nothing


@dataclass(frozen=True)
class DropTokens(Augmentation):
    """Each token becomes 0 with a probability of one half."""

    def __call__(self, inputs, generator):
        is_dropped = torch.rand(inputs.shape, generator=generator, device=inputs.device) < 0.5
        return inputs.masked_fill(is_dropped, 0)


@dataclass(frozen=True)
class Sentences(Dataset):
    """Twelve sentences of five tokens in three classes; a network takes them one-hot."""

    def load(self, split):
        tokens = torch.randint(1, VOCABULARY, (12, 5), generator=generator("sentences", split))
        return Examples(tokens, torch.arange(12) % 3)

    def prepare(self, inputs):
        return nn.functional.one_hot(inputs, VOCABULARY).float()

    def augment(self, inputs, views, generator):
        for view in views:
            inputs = view(inputs, generator)
        return self.prepare(inputs)

    def show(self, indices):
        sentences = self.split("test").inputs[list(indices)]
        return [" ".join(map(str, tokens)) for tokens in sentences.tolist()]


@dataclass(frozen=True)
class BagOfTokens(Encoder):
    """One linear layer."""

    @property
    def width(self):
        return 16

    def build(self, sample_shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(VOCABULARY * sample_shape[0], self.width))


def test_a_dataset_of_tokens_has_no_problem():
    data = Sentences()
    assert data.problem() is None
    assert data.classes == 3
    assert data.class_names == ("0", "1", "2")
    assert data.sample_shape == (5,)


def test_tokens_are_prepared_and_shown_as_their_dataset_says():
    data = Sentences()
    tokens = data.split("test").inputs
    assert torch.equal(data.prepare(tokens).argmax(-1), tokens)
    assert data.show([3, 0])[1].split() == [str(token) for token in tokens[0].tolist()]


def test_views_of_tokens_are_applied_in_turn_and_seeded():
    data = Sentences()
    tokens = data.split("train").inputs
    views = (DropTokens(), DropTokens())
    augmented = data.augment(tokens, views, generator("a"))
    assert torch.equal(augmented, data.augment(tokens, views, generator("a")))
    assert not torch.equal(augmented, data.augment(tokens, views, generator("b")))
    is_present = augmented[..., 0] == 0
    assert torch.equal(augmented[is_present].argmax(-1), tokens[is_present])
    assert 0 < is_present.float().mean() < 0.5


def test_inputs_of_another_kind_are_refused_by_name():
    assert Sentences().mismatch(Sentences()) is None
    message = "must be Sentences, as the encoder was made for, got Digits"
    assert Sentences().mismatch(Digits()) == message
    message = "must be images, as the encoder takes them, got Sentences"
    assert Digits().mismatch(Sentences()) == message


def curve_of_sentences(**fields):
    encoder = tiny_pretrain(
        data=Sentences(), views=(DropTokens(),), encoder=BagOfTokens(), epochs=1, batch_size=6
    )
    probe = LinearProbe(SGD(lr=1.0), Constant(), epochs=1, batch_size=6)
    standard = {"encoder": Embedding(encoder), "data": Sentences(), "probe": probe}
    return tiny_curve(**{**standard, **fields})


def test_a_curve_of_tokens_needs_a_dataset_views_and_an_encoder_only(tmp_path):
    curve = curve_of_sentences()
    curve.preflight()
    accuracy = Store(tmp_path).get(curve)["top1"]
    assert accuracy.shape == (2, 2)
    assert (accuracy >= 0).all()
    assert (accuracy <= 100).all()


def test_a_corruption_of_pixels_is_refused_for_tokens():
    with pytest.raises(FieldError, match="images"):
        curve_of_sentences(corruption=GaussianNoise()).preflight()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"views": (RandomResizedCrop(),)}, "which RandomResizedCrop changes, got Sentences"),
        ({"encoder": SmallConv()}, r"which SmallConv takes, got inputs of the shape \(5,\)"),
    ],
    ids=["views", "encoder"],
)
def test_views_and_encoders_of_images_are_refused_for_tokens(fields, reason):
    sound = {"data": Sentences(), "views": (DropTokens(),), "encoder": BagOfTokens()}
    sound["batch_size"] = 6
    with pytest.raises(FieldError, match=f"Pretrain.data must be of images, {reason}"):
        tiny_pretrain(**{**sound, **fields}).preflight()


def test_a_probe_s_views_of_images_are_refused_for_tokens():
    probe = LinearProbe(SGD(), Constant(), views=(RandomResizedCrop(),))
    with pytest.raises(
        FieldError, match="LinearProbe.views do not fit the data of the probe, which must be"
    ):
        curve_of_sentences(probe=probe).preflight()
