"""Curves under attack: what is shared, what counts as broken, and what a reader is warned of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from conftest import tiny_curve, tiny_pretrain

from monosem.autoencoders.topk import TopK
from monosem.core.fields import FieldError
from monosem.core.stage import Stage, StageError
from monosem.core.store import Store
from monosem.data.dataset import Dataset, Examples
from monosem.datasets.digits import Digits
from monosem.evaluation.experiment import Experiment
from monosem.learning.encoders import SmallConv
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.space import Dimensions
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.baselines import Pixels, RandomProjection
from monosem.models.checkpoint import Checkpoint
from monosem.models.fitted import PCA
from monosem.models.representation import Embedding, Projection, Representation
from monosem.probes.attacks import FGSM, PGD, look
from monosem.probes.base import Probe
from monosem.probes.finetune import FineTune
from monosem.probes.linear import LinearProbe
from monosem.robustness.adversarial import Adversarial, has_gradients, pixel_scale
from monosem.running.local import run

DATA = Digits(size=8)
ENCODER = tiny_pretrain(objective=Contrastive())
SAE = SparseAutoencoder(
    data=DATA,
    encoder=Embedding(ENCODER),
    sparsity=TopK(4),
    latents=32,
    optimizer=SGD(lr=0.05),
    schedule=Constant(),
    epochs=1,
    batch_size=256,
)
PROBE = LinearProbe(SGD(lr=1.0), Constant(), epochs=20)
LABELS = DATA.split("test").labels


def attacked(**fields):
    usual = {
        "name": "adversarial",
        "encoder": ENCODER,
        "data": DATA,
        "probe": PROBE,
        "attack": PGD(steps=4, restarts=1),
        "severities": (0.0, 0.05, 0.2),
        "repeats": 2,
    }
    return Adversarial(**{**usual, **fields})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def test_epsilon_zero_is_the_clean_accuracy_of_the_other_curves(store):
    clean = store.get(tiny_curve(encoder=ENCODER, probe=PROBE, severities=(0.0,)))["top1"]
    assert torch.equal(store.get(attacked())["top1"][:1], clean)


def test_larger_epsilons_break_more_and_never_less(store):
    top1 = store.get(attacked())["top1"]
    assert (top1.diff(dim=0) <= 0).all()
    assert (top1[-1] < top1[0] - 5).all()


def test_a_curve_of_fgsm_is_what_a_loop_over_images_and_epsilons_finds(store):
    curve = attacked(attack=FGSM(), severities=(0.3, 0.1), repeats=1)
    (classifier,) = curve.probe.classifiers(curve.task, store)
    network, scale = classifier.network(store), pixel_scale(DATA)
    inputs = DATA.prepare(DATA.split("test").inputs)
    unattacked = look(network, inputs, LABELS)
    looks = {}
    for epsilon in (0.1, 0.3):
        points = inputs + epsilon * scale.unit * unattacked.gradient.sign()
        points = torch.minimum(torch.maximum(points, scale.low), scale.high)
        looks[epsilon] = look(network, points, LABELS)
    expected = {0.1: 0, 0.3: 0}
    for image in range(360):
        small = unattacked.right[image] and looks[0.1].right[image]
        expected[0.1] += int(small)
        expected[0.3] += int(small and looks[0.3].right[image])
    artifact = store.get(curve)
    for row, epsilon in enumerate((0.3, 0.1)):
        top1, loss = (artifact[name][row].item() for name in ("top1", "loss"))
        assert top1 == pytest.approx(100 * expected[epsilon] / 360)
        assert loss == pytest.approx(looks[epsilon].losses.mean().item(), rel=1e-4)


def test_other_severities_and_repeats_leave_a_point_as_it_is(store):
    one = store.get(attacked(severities=(0.2,), repeats=1))
    many = store.get(attacked())
    assert torch.equal(one["loss"][0], many["loss"][2, :1])


def test_what_passes_through_the_encoder_is_counted(store):
    curve = attacked(severities=(0.1,), repeats=1, attack=FGSM())
    assert int(store.get(curve)["passes"]) == 360 * (1 + 2)  # clean; the gradient and its result
    assert store.history(curve)[-1].scalars == {"encoder_passes": 3 * 360}


def test_a_fine_tuned_network_is_attacked_through_what_it_learned(store):
    tuned = FineTune(optimizer=SGD(lr=0.1), schedule=Constant(), epochs=3, batch_size=64)
    artifact = store.get(attacked(probe=tuned, repeats=1, severities=(0.0, 0.2)))
    assert artifact["top1"][1] < artifact["top1"][0]


# What a reader must know


def test_a_loss_that_falls_is_remarked_and_one_that_grows_is_not():
    curve = attacked()
    grows = torch.tensor([[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]])
    flat = torch.zeros(3, 2)
    assert not [*curve.remarks({"loss": grows, "zero_gradient": flat})]
    (remark,) = curve.remarks({"loss": grows.flip(0), "zero_gradient": flat})
    assert remark.startswith("the loss under attack falls from 2 at epsilon 0.05 to 1 at 0.2, so")
    (remark,) = curve.remarks({"loss": grows, "zero_gradient": flat + 7})
    assert remark.startswith("up to 7.0 % of the attacked images have a gradient of exactly 0; the")
    assert "followed leaking rectifiers there" in remark
    (remark,) = attacked(attack=FGSM()).remarks({"loss": grows, "zero_gradient": flat + 7})
    assert "could not move there" in remark


class Silent(torch.nn.Module):
    """A rectifier that every second image leaves silent."""

    def forward(self, inputs):
        pixels = inputs.flatten(1)
        silenced = torch.arange(len(pixels)) % 2 == 1
        return torch.relu(pixels - 1000 * silenced[:, None])


class HalfSilent(Representation):
    width = 64

    def network(self, get):
        return Silent()


@dataclass(frozen=True)
class Unmoved(Representation):
    """Cut from its inputs."""

    width: ClassVar[int] = 64

    def network(self, get):
        return lambda_module(lambda inputs: inputs.detach().flatten(1))


def lambda_module(function):
    module = torch.nn.Module()
    module.forward = function
    return module


def test_images_without_a_gradient_are_counted(store):
    artifact = store.get(attacked(encoder=HalfSilent(), severities=(0.0, 0.1), repeats=1))
    assert artifact["zero_gradient"].flatten().tolist() == [50, 50]


@dataclass(frozen=True)
class SilentStage(Stage, Unmoved):
    """A stage of somebody else, of which nothing is known before it has run."""

    def run(self, job):
        return {}


@dataclass(frozen=True)
class Signs(Unmoved):
    """Differentiable by the letter, and flat everywhere."""

    def network(self, get):
        return lambda_module(lambda inputs: inputs.flatten(1).sign())


@dataclass(frozen=True)
class ByNumpy(Unmoved):
    def network(self, get):
        return lambda_module(lambda inputs: torch.from_numpy(inputs.numpy()).flatten(1))


@pytest.mark.parametrize("encoder", [Unmoved(), Signs(), ByNumpy()])
def test_features_without_a_gradient_are_refused_before_any_work(encoder):
    kind = type(encoder).__name__
    message = f"^Adversarial.encoder must have gradients, [^\n]* {kind} have none for the images$"
    with pytest.raises(FieldError, match=message):
        attacked(encoder=encoder).preflight()


def encoders():
    small = Embedding(ENCODER)
    yield from (ENCODER, small, Projection(ENCODER, "relu"), SAE)
    yield from (Pixels(DATA), HalfSilent(), PCA(encoder=small, features=4, data=DATA))
    yield from (RandomProjection(encoder=Pixels(DATA), features=8, sparsity=TopK(2)),)


@pytest.mark.parametrize("encoder", [*encoders()], ids=lambda encoder: type(encoder).__name__)
def test_what_has_gradients_is_known_without_training(encoder):
    assert has_gradients(encoder, DATA) is True


def test_what_a_checkpoint_holds_is_tried_as_well(tmp_path):
    path = tmp_path / "backbone.pth"
    encoder = SmallConv(channels=4, features=16)
    torch.save(encoder.build((1,)).state_dict(), path)
    assert has_gradients(Checkpoint(path=str(path), encoder=encoder, channels=1), DATA) is True


@pytest.mark.parametrize("encoder", [ENCODER, SAE], ids=["network", "sae"])
def test_a_stand_in_has_the_names_and_shapes_of_what_a_stage_leaves(encoder, store):
    left, stand_in = store.get(encoder), encoder.stand_in()
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in (left, stand_in)]
    assert shapes[0] == shapes[1]


def test_a_stage_of_which_nothing_is_known_passes_and_stops_when_it_runs(store):
    curve = attacked(encoder=SilentStage())
    curve.preflight()
    with pytest.raises(StageError, match="^cannot be attacked: the logits have no gradient"):
        store.get(curve)


@dataclass(frozen=True)
class NoClassifier(Probe):
    """It only predicts."""

    def upstream(self, task):
        return ()


def test_a_probe_without_a_classifier_is_refused():
    with pytest.raises(FieldError, match="^Adversarial.probe must give its classifiers"):
        attacked(probe=NoClassifier()).preflight()


@dataclass(frozen=True)
class Stretched(Digits):
    """Prepared otherwise than its mean and std say."""

    def prepare(self, inputs):
        return 2 * super().prepare(inputs)


def test_data_whose_pixels_lie_elsewhere_are_refused():
    with pytest.raises(FieldError, match="^Adversarial.data must be prepared as its mean and std"):
        attacked(data=Stretched(size=8), encoder=HalfSilent()).preflight()


def test_features_without_a_gradient_stop_the_stage_in_one_line(store):
    with pytest.raises(StageError, match="^cannot be attacked: the logits have no gradient[^\n]*$"):
        store.get(attacked(encoder=Unmoved()))


# Refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"severities": (0.1, 1.5)}, "Adversarial.severities must be between 0 and 1, got 1.5"),
        ({"severities": (-0.1,)}, "Adversarial.severities must be between 0 and 1, got -0.1"),
        (
            {"severities": (-0.1,), "attack": PGD("l2")},
            "Adversarial.severities must be 0 or more",
        ),
    ],
)
def test_impossible_epsilons_are_refused(fields, message):
    with pytest.raises(FieldError, match=message):
        attacked(**fields).preflight()


@dataclass(frozen=True)
class Sounds(Dataset):
    """No images."""

    def load(self, split):
        return Examples(torch.zeros(8, 5), torch.arange(8) % 2)

    def prepare(self, inputs):
        return inputs


def test_data_that_are_no_images_are_refused_before_any_work():
    message = "Adversarial.data must be of images, whose pixels an attack changes"
    with pytest.raises(FieldError, match=message):
        attacked(data=Sounds(), encoder=HalfSilent()).preflight()


def test_what_a_reader_must_know_is_in_the_summary(tmp_path):
    curve = attacked(encoder=HalfSilent(), severities=(0.0, 0.1), repeats=1)
    experiment = Experiment(name="x", curves=(curve,), metrics=(Dimensions(),))
    summary = run(experiment, tmp_path / "store").summary
    assert "- adversarial: up to 50.0 % of the attacked images have a gradient of exactly 0" in (
        summary
    )


def test_an_l2_norm_may_be_above_1():
    attacked(severities=(2.0,), attack=PGD("l2")).preflight()
