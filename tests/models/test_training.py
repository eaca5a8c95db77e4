"""Pre-training and autoencoders as stages: the reference's whole step (golden k), and its traps 2, 10 and 11."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_pretrain
from torch import nn
from torch.testing import assert_close

from monosem.core.device import seeded
from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.data.digits import Digits
from monosem.learning.encoders import Network, Projector, ResNet, SmallConv
from monosem.learning.objectives import Contrastive, NonNegative, OnlineClassifier
from monosem.learning.optimizers import LARS, SGD, WarmupCosine
from monosem.learning.sparse import Autoencoder, TopK
from monosem.models import training
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Embedding, Projection, backbone_of


def tiny_sae(encoder=None, **fields):
    pretrain = encoder or Embedding(tiny_pretrain(objective=Contrastive()))
    standard = {
        "data": Digits(size=8), "encoder": pretrain, "sparsity": TopK(4), "latents": 32, "optimizer": SGD(lr=0.05),
        "schedule": WarmupCosine(1.0), "epochs": 2, "batch_size": 256, "views": pretrain.encoder.views,
    }  # fmt: skip
    return SparseAutoencoder(**{**standard, **fields})


def filled_network(golden) -> Network:
    """The reference model with the weights of golden/README.md's rule."""
    encoder = ResNet(18, "cifar", stem_padding=2)
    network = Network(
        encoder.build((3, 32, 32)), Projector(32, 16).build(512), nn.Linear(512, 100)
    ).double()
    ours = network.state_dict()
    for i, name in enumerate(n for n in golden("l_state_dict_shapes.json")):
        tensor = ours[name]
        if not tensor.is_floating_point():
            continue
        r = torch.from_numpy(np.random.default_rng(1000 + i).standard_normal(tensor.shape))
        if name.endswith("running_var"):
            r = 1 + 0.1 * r.abs()
        elif name.endswith(("running_mean", "bias")):
            r = 0.1 * r
        else:
            r = 1 + 0.1 * r if tensor.ndim == 1 else r / np.sqrt(np.prod(tensor.shape[1:]))
        tensor.copy_(r)
    return network


def test_a_resnet_s_parameters_are_named_and_shaped_as_in_the_reference_s_checkpoints(golden):
    shapes = golden("l_state_dict_shapes.json")
    encoder = ResNet(18, "cifar", stem_padding=2)
    with torch.device("meta"):
        network = Network(
            encoder.build((3, 32, 32)),
            Projector(16384, 2048).build(encoder.width),
            nn.Linear(512, 100),
        )
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == shapes


@pytest.mark.parametrize("tag", ["None", "relu"])
@pytest.mark.parametrize("joint", [True, False])
def test_a_whole_training_step_equals_the_reference_with_either_classifier(golden, tag, joint):
    g, network = golden("k_encoder_and_step"), filled_network(golden)
    views = g["X"].flatten(0, 1)
    with torch.no_grad():
        assert_close(
            network.eval().backbone(g["X"][0]), g[f"{tag}_eval_feats_view0"], rtol=1e-10, atol=1e-12
        )
    objective = Contrastive() if tag == "None" else NonNegative()
    stage = tiny_pretrain(objective=objective, classifier=OnlineClassifier(joint=joint))
    scalars = stage.losses(
        network.train(), views, g["img_indexes"].repeat(2), g["targets"].repeat(2)
    )
    scalars["loss"].backward()
    regulariser = float(g[f"{tag}_var"]) if tag == "relu" else 0.0
    assert_close(
        scalars["objective"].item(), float(g[f"{tag}_nce"]) + regulariser, rtol=1e-10, atol=0
    )
    assert_close(scalars["loss"].item(), float(g[f"{tag}_total_loss"]), rtol=1e-10, atol=0)
    norm = torch.stack([p.grad.norm() for p in network.backbone.parameters()]).norm()
    assert_close(
        norm.item(),
        float(g[f"{tag}_{'' if joint else 'detached_'}backbone_grad_norm"]),
        rtol=1e-9,
        atol=0,
    )
    if joint:
        gradients = dict(network.named_parameters())
        ours = torch.stack([gradients[str(name)].grad.norm() for name in g[f"{tag}_param_names"]])
        assert_close(ours, g[f"{tag}_grad_norms"], rtol=1e-8, atol=1e-12)
        before = {
            name: parameter.detach().clone() for name, parameter in network.named_parameters()
        }
        groups = [{"params": [*network.backbone.parameters(), *network.projector.parameters()]}]
        groups.append(
            {"params": [*network.classifier.parameters()], "lr": 0.1, "weight_decay": 0.0}
        )
        LARS(weight_decay=1e-4).build(groups).step()
        moved = torch.stack(
            [
                (gradients[str(name)].detach() - before[str(name)]).norm()
                for name in g[f"{tag}_param_names"]
            ]
        )
        assert_close(moved, g[f"{tag}_update_norms"], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (SmallConv(), (2, 1, 16, 16)),
        (ResNet(34), (2, 3, 32, 32)),
        (ResNet(50, "imagenet"), (2, 3, 64, 64)),
        (ResNet(18, "imagenet"), (2, 1, 64, 64)),
    ],
    ids=repr,
)
def test_encoders_have_the_width_they_say(encoder, shape):
    with seeded("x"):
        network = encoder.build(shape[1:]).eval()
    assert network(torch.zeros(shape)).shape == (2, encoder.width)


def test_the_reference_s_stem_makes_34_pixels_of_32():
    images = torch.zeros(1, 3, 32, 32)
    assert ResNet(18, stem_padding=2).build((3, 32, 32)).conv1(images).shape[-1] == 34
    assert ResNet(18).build((3, 32, 32)).conv1(images).shape[-1] == 32


def test_a_detached_classifier_leaves_the_encoder_as_it_is_and_a_joint_one_does_not(tmp_path):
    store = Store(tmp_path)
    without, watching, joint = (
        store.get(tiny_pretrain(classifier=each))
        for each in (None, OnlineClassifier(), OnlineClassifier(joint=True))
    )
    assert all(torch.equal(without[name], watching[name]) for name in without)
    assert not all(torch.equal(without[name], joint[name]) for name in without)
    assert set(watching) - set(without) == {"classifier.weight", "classifier.bias"}


def test_two_objectives_with_one_seed_start_from_the_same_weights():
    first, second = (
        tiny_pretrain(objective=each).build().state_dict()
        for each in (Contrastive(), NonNegative())
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = tiny_pretrain(seed=1).build().state_dict()
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])


def batches(stage, epoch):
    """What a stage would be trained on: views, index and labels of the first batch of an epoch."""
    seen = []

    class Enough(Exception):
        pass

    def losses(*batch):
        seen.append(batch)
        if len(seen) > epoch * (1437 // stage.batch_size):
            raise Enough
        return {"loss": weight.sum()}

    weight = nn.Parameter(torch.zeros(1))
    module = nn.Module()
    module.weight = weight

    class Job:
        def restore(self):
            return None

        def log(self, *_, **__):
            pass

        on_step = save = log

    with pytest.raises(Enough):
        stage.train(Job(), module, [{"params": [weight]}], losses, lambda views: views.flatten(1))
    return seen[-1]


def test_training_sees_two_different_views_of_every_image_and_others_in_every_epoch_and_seed():
    stage = tiny_pretrain()
    images, labels, _ = stage.data.load("train")
    views, index, told = batches(stage, 0)
    first, second = views.chunk(2)
    assert (
        torch.equal(index[:256], index[256:])
        and torch.equal(told, labels[index])
        and len(index[:256].unique()) == 256
    )
    clean = stage.data.normalise(images[index[:256]].float() / 255)
    for one, other in ((first, second), (first, clean), (second, clean)):
        assert (one - other).flatten(1).abs().amax(1).gt(0.05).float().mean() > 0.95
    assert torch.equal(views, batches(stage, 0)[0])
    assert not torch.equal(index, batches(stage, 1)[1]) and not torch.equal(
        index, batches(tiny_pretrain(seed=1), 0)[1]
    )
    assert torch.equal(views, batches(tiny_pretrain(objective=Contrastive()), 0)[0])  # paired
    plain, index, _ = batches(tiny_pretrain(views=()), 0)
    assert torch.equal(plain, stage.data.normalise(images[index].float() / 255))


def test_batch_norm_of_the_frozen_encoder_never_moves(tmp_path, monkeypatch):
    store, sae = Store(tmp_path), tiny_sae()
    before = store.get(sae.encoder.encoder)
    seen = []
    network = Embedding.network
    monkeypatch.setattr(
        Embedding, "network", lambda self, get: seen.append(network(self, get)) or seen[-1]
    )
    store.get(sae)
    after = backbone_of(seen[0]).state_dict()
    assert all(torch.equal(before[f"backbone.{name}"], tensor) for name, tensor in after.items())


def test_the_autoencoder_sees_at_probe_time_what_it_was_trained_on(tmp_path, monkeypatch):
    store, sae = Store(tmp_path), tiny_sae()
    inputs = []
    losses = SparseAutoencoder.losses
    monkeypatch.setattr(
        SparseAutoencoder, "losses", lambda self, a, x: inputs.append(x) or losses(self, a, x)
    )
    network = sae.network(store.get)
    assert_close(torch.cat(inputs).norm(dim=1), torch.ones(len(torch.cat(inputs))))
    images = sae.data.normalise(sae.data.load("test").inputs[:9].float() / 255)
    probed = []
    encode = Autoencoder.encode
    monkeypatch.setattr(Autoencoder, "encode", lambda self, x: probed.append(x) or encode(self, x))
    latents = sae.network(store.get)(images)
    assert_close(probed[0], sae.encoder.network(store.get)(images))
    assert_close(latents, network(images))
    assert latents.shape == (9, 32) and (latents >= 0).all() and ((latents > 0).sum(1) <= 4).all()


def test_dead_latents_are_counted_and_logged(tmp_path):
    store, sae = Store(tmp_path), tiny_sae()
    store.get(sae)
    assert set(store.history(sae)[-1].scalars) >= {"lr", "loss", "l0", "dead_latents"}
    autoencoder = sae.build()
    with torch.no_grad():
        autoencoder.latent_bias[:5] = -100.0
    steps_an_epoch = 1437 // sae.batch_size
    inputs = torch.eye(16).repeat(32, 1)
    counts = [sae.losses(autoencoder, inputs)["dead_latents"].item() for _ in range(steps_an_epoch)]
    alive = (autoencoder.encode(inputs) > 0).any(0)
    assert counts[:-1] == [0] * (steps_an_epoch - 1) and counts[-1] == 32 - alive.sum() >= 5


def test_what_is_probed_is_raw_rectified_or_embedded(tmp_path):
    store, pretrain = Store(tmp_path), tiny_pretrain()
    images = pretrain.data.normalise(pretrain.data.load("test").inputs[:9].float() / 255)
    raw, rectified, embedded, features = (
        each.network(store.get)(images)
        for each in (
            Projection(pretrain),
            Projection(pretrain, "relu"),
            Embedding(pretrain),
            pretrain,
        )
    )
    assert (raw < 0).any() and torch.equal(rectified, raw.relu())
    assert_close(embedded, torch.nn.functional.normalize(raw.relu(), dim=1))
    assert features.shape == (9, pretrain.width)


def test_changing_the_autoencoder_reuses_the_encoder():
    one, other = tiny_sae(), tiny_sae(sparsity=TopK(8))
    assert key(one) != key(other) and one.upstream() == other.upstream() == (one.encoder.encoder,)


def test_a_representation_names_all_stages_it_stands_on():
    sae = tiny_sae()
    assert sae.stages == (
        sae,
        sae.encoder.encoder,
    ) and sae.encoder.stages == sae.encoder.encoder.stages == (sae.encoder.encoder,)


def test_impossible_trainings_are_refused():
    with pytest.raises(
        FieldError, match="TopK.k must be at most the number of latents, 32, got 33"
    ):
        tiny_sae(sparsity=TopK(33))
    with pytest.raises(
        FieldError, match="Pretrain.batch_size must be at most 1437, the training images, got 1438"
    ):
        tiny_pretrain(batch_size=1438).preflight()
    with pytest.raises(FieldError, match="Pretrain.objective must be an Objective"):
        tiny_pretrain(objective=Digits())
    with pytest.raises(
        FieldError,
        match=r"Pretrain.encoder must be an Encoder, got the class SmallConv \(write @SmallConv\(\)",
    ):
        tiny_pretrain(encoder=SmallConv)
    with pytest.raises(TypeError):
        Pretrain()


def test_the_decoder_and_the_classifier_have_learning_rates_of_their_own(monkeypatch):
    seen = []

    def build(self, groups):
        seen.append({len(group["params"]): group.get("lr", self.lr) for group in groups})
        raise KeyboardInterrupt

    monkeypatch.setattr(SGD, "build", build)
    encoder = tiny_pretrain(
        objective=Contrastive(),
        optimizer=SGD(lr=0.4, lr_per=512),
        classifier=OnlineClassifier(lr=0.1),
    )
    for stage in (encoder, tiny_sae(decoder_lr=0.3, optimizer=SGD(lr=0.4, lr_per=128)), tiny_sae()):
        monkeypatch.setattr(Embedding, "network", lambda self, get: None)
        with pytest.raises(KeyboardInterrupt):
            stage.run(SimpleNamespace(get=None))
    trained, autoencoder, plain = seen
    assert sorted(trained.values()) == [0.05, 0.2]  # both for batches of 512, of which 256 are half
    assert autoencoder == {3: 0.8, 1: 0.3} and plain == {3: 0.05, 1: 0.05}


def test_compiling_is_asked_for_by_a_flag_and_changes_no_key(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module: asked.append(module) or module)
    plain, stage = key(tiny_pretrain(epochs=1)), tiny_pretrain(epochs=1)
    Store(tmp_path / "plain").get(stage)
    assert not asked
    monkeypatch.setenv("MONOSEM_COMPILE", "1")
    Store(tmp_path / "compiled").get(stage)
    assert len(asked) == 1 and key(stage) == plain


@pytest.mark.parametrize("make", [tiny_pretrain, tiny_sae], ids=["pretrain", "sae"])
def test_monosemanticity_is_logged_at_every_epoch_and_changes_no_weight(
    tmp_path, monkeypatch, make
):
    stage, store, plain = make(), Store(tmp_path / "a"), Store(tmp_path / "b")
    weights = store.get(stage)
    for entry in store.history(stage):
        assert {
            "class_consistency",
            "class_selectivity",
            "sparsity",
            "hoyer",
            "effective_rank",
            "correlation",
        } <= set(entry.scalars)
        assert 0.1 <= entry.scalars["class_consistency"] <= 1
    monkeypatch.setattr(training, "WATCHED", ())
    without = plain.get(stage)
    assert all(torch.equal(weights[name], without[name]) for name in weights)


def test_an_autoencoder_on_images_with_other_channels_than_its_encoder_saw_is_refused():
    with pytest.raises(
        FieldError,
        match=r"SparseAutoencoder.data must have 1 channels like the images of the encoder, got 3",
    ):
        tiny_sae(data=Digits(mean=(0.5, 0.5, 0.5), std=(1, 1, 1)))
