"""Autoencoders of which a part stays random, losses of codes in a training, and CSR as a whole."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_sae import groups_in_training, tiny_sae
from torch.testing import assert_close

from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.revival import AuxK
from monosem.autoencoders.starts import (
    FrozenDecoder,
    FrozenEncoder,
    SoftFrozenDecoder,
    TransposedDecoder,
    UnitColumns,
)
from monosem.autoencoders.topk import MultiTopK
from monosem.code_losses.base import Rows
from monosem.code_losses.contrast import CodeContrast
from monosem.code_losses.monosemanticity import MonoLoss
from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.datasets.shapes import Shapes
from monosem.learning.optimizers import LARS, SGD, Adam
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.baselines import Pixels

DATA = Digits(size=8)


def quick(**fields):
    """On pixels, which nothing has to be trained for."""
    return tiny_sae(**{"encoder": Pixels(DATA), "views": (), "optimizer": Adam(lr=0.01), **fields})


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01, weight_decay=0.1), SGD(lr=0.1), LARS(lr=0.1)])
@pytest.mark.parametrize(
    ("control", "stays"),
    [(FrozenEncoder(), "encoder.weight"), (FrozenDecoder(), "decoder.weight")],
    ids=["encoder", "decoder"],
)
def test_what_is_frozen_stays_and_all_else_learns(tmp_path, control, stays, optimizer):
    sae = quick(control=control, decoder_columns=UnitColumns(), optimizer=optimizer)
    before, after = sae.build().state_dict(), Store(tmp_path).get(sae)
    names = ("encoder.weight", "decoder.weight", "latent_bias", "pre_bias")
    assert [name for name in names if torch.equal(before[name], after[name])] == [stays]


def test_a_control_starts_where_the_autoencoder_starts_that_it_is_a_control_of():
    trained, control = quick().build(), quick(control=FrozenDecoder()).build()
    for one, other in zip(trained.parameters(), control.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_is_frozen_is_in_no_group_of_the_optimiser(monkeypatch):
    fields = {"decoder_lr": 0.3, "views": tiny_sae().views}
    others, decoder = groups_in_training(tiny_sae(control=FrozenDecoder(), **fields), monkeypatch)
    assert (len(others["params"]), len(decoder["params"])) == (3, 0)
    others, decoder = groups_in_training(tiny_sae(control=FrozenEncoder(), **fields), monkeypatch)
    assert (len(others["params"]), len(decoder["params"])) == (2, 1)


@pytest.mark.parametrize("columns", [None, UnitColumns()])
def test_columns_of_a_soft_frozen_decoder_turn_so_far_and_no_further(tmp_path, columns):
    sae = quick(
        control=SoftFrozenDecoder(0.9),
        decoder_columns=columns,
        weights=TransposedDecoder(),
        epochs=6,
        optimizer=Adam(lr=0.05),
    )
    first, last = sae.build().decoder.weight, Store(tmp_path).get(sae)["decoder.weight"]
    cosines = torch.cosine_similarity(first, last, dim=0)
    assert cosines.min() > 0.9 - 1e-5
    assert (cosines < 0.9 + 1e-4).any()
    if columns:
        assert_close(last.norm(dim=0), torch.ones(32))


def test_a_turned_back_column_keeps_its_length_and_its_plane():
    model = quick().build()
    first = torch.zeros_like(model.decoder.weight)
    first[0] = 2.0
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.weight[:2, 0] = torch.tensor([0.3, 0.4])
        model.decoder.weight[:2, 1:] = torch.tensor([[0.4], [0.3]])
    SoftFrozenDecoder(0.8).keep(model, first)
    assert_close(model.decoder.weight[:2, 0], torch.tensor([0.4, 0.3]))
    assert_close(model.decoder.weight[:2, 1], torch.tensor([0.4, 0.3]))


def test_a_loss_of_the_code_is_logged_and_falls_where_it_is_trained_for(tmp_path):
    store = Store(tmp_path)
    runs = {
        weight: quick(code_losses=(MonoLoss(weight),), epochs=6, batch_size=128)
        for weight in (0.0, 3.0)
    }
    last = {}
    for weight, sae in runs.items():
        store.get(sae)
        last[weight] = store.history(sae)[-1].scalars["mono_loss"]
    assert last[3.0] < last[0.0]


def test_a_loss_with_coefficient_zero_changes_no_weight(tmp_path):
    store = Store(tmp_path)
    plain, with_zero = quick(), quick(code_losses=(MonoLoss(0.0), CodeContrast(0.0)))
    states = store.get(plain), store.get(with_zero)
    assert key(plain) != key(with_zero)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@torch.no_grad()
def test_csr_is_its_three_parts():
    """L(k) + L(4k) / 8 + beta L_aux + gamma L_cl, eight of 32 latents dead."""
    sae = tiny_sae(
        sparsity=MultiTopK(4),
        revival=AuxK(1 / 32),
        code_losses=(CodeContrast(0.5),),
        error=SquaredError(),
        views=(),
    )
    model = sae.build()
    model.idle[:8] = 10**6
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    code = model(x)
    reconstruction = model.loss(x, code)
    auxiliary = AuxK(1 / 32)(model, x, code, model.idle > 0)
    z = code.latents / code.latents.norm(dim=1, keepdim=True)
    similar = (z @ z.T / 0.2).exp()
    contrast = -sum(math.log(similar[i, i] / similar[i].sum()) for i in range(20)) / 20
    found = sae.losses(model, x)
    assert_close(float(found["code_contrast"]), contrast)
    assert auxiliary > 0
    assert_close(float(found["loss"]), float(reconstruction + auxiliary) + 0.5 * contrast)


def test_losses_of_the_code_are_the_same_where_few_latents_are_kept(monkeypatch):
    sae = quick(code_losses=(MonoLoss(), CodeContrast()))
    x = torch.randn(24, 64, generator=torch.Generator().manual_seed(2))
    gradients = []
    for few in (False, True):
        monkeypatch.setattr("monosem.autoencoders.base.pays", lambda *size, few=few: few)
        model = sae.build()
        sae.losses(model, x)["loss"].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for dense, kept in zip(*gradients, strict=True):
        assert_close(kept, dense, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("views", [(), tiny_sae().views], ids=["kept", "views"])
def test_a_reference_encoder_says_of_the_very_inputs_of_a_batch_how_alike_they_are(
    tmp_path, monkeypatch, views
):
    reference = Pixels(DATA, side=4)
    sae = quick(code_losses=(MonoLoss(),), reference_encoder=reference, views=views)
    told: list[Rows] = []
    losses = SparseAutoencoder.losses

    def recorded(self, autoencoder, inputs, firing, rows):
        told.append(rows)
        return losses(self, autoencoder, inputs, firing, rows)

    monkeypatch.setattr(SparseAutoencoder, "losses", recorded)
    Store(tmp_path).get(sae)
    images = DATA.prepare(DATA.split("train").inputs)
    features = reference.network(lambda stage: {})(images)
    assert len(told) == sae.epochs * (len(images) // sae.batch_size)
    for rows in told:
        assert_close(rows.alike, features[rows.which])
    assert len(told[0].which) == sae.batch_size * (2 if views else 1)


def test_a_reference_encoder_is_needed_for_training_alone():
    reference = Pixels(DATA, side=4)
    sae = quick(code_losses=(MonoLoss(),), reference_encoder=reference)
    (features,) = sae.reference_features
    assert features in sae.upstream() and sae.stages == (sae,)
    assert quick(code_losses=(MonoLoss(),)).upstream() == quick().upstream()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"reference_encoder": Pixels(DATA), "code_losses": (CodeContrast(),)},
            "SparseAutoencoder.reference_encoder has no effect unless "
            "SparseAutoencoder.code_losses holds a loss that compares inputs",
        ),
        (
            {
                "reference_encoder": Pixels(Shapes(train=100, test=100)),
                "code_losses": (MonoLoss(),),
            },
            "SparseAutoencoder.reference_encoder cannot encode the data, which must",
        ),
        ({"code_losses": MonoLoss()}, "SparseAutoencoder.code_losses must be a tuple"),
        ({"control": UnitColumns()}, "SparseAutoencoder.control must be a Control"),
    ],
    ids=["idle", "data", "tuple", "kind"],
)
def test_what_cannot_be_is_refused(fields, complaint):
    with pytest.raises(FieldError, match=complaint):
        quick(**fields)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: MonoLoss(-1.0), "MonoLoss.coefficient must be 0 or more, got -1.0"),
        (lambda: CodeContrast(temperature=0.0), "CodeContrast.temperature must be above 0"),
        (lambda: SoftFrozenDecoder(1.5), "SoftFrozenDecoder.cosine must be between 0 and 1"),
    ],
    ids=["coefficient", "temperature", "cosine"],
)
def test_numbers_out_of_range_are_refused(make, complaint):
    with pytest.raises(FieldError, match=complaint):
        make()
