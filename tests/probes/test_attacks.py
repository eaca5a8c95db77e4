"""Attacks: laws, what is known of linear networks, and two judges: foolbox and torchattacks."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_curve, tiny_pretrain
from torch import nn

from monosem.core.fields import FieldError
from monosem.core.stage import StageError
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Constant
from monosem.probes.attacks import FGSM, PGD, LeakingRectifiers, PixelScale, look
from monosem.probes.finetune import FineTune
from monosem.robustness.adversarial import pixel_scale

DATA = Digits(size=8)
SCALE = pixel_scale(DATA)
IMAGES, LABELS, _ = DATA.split("test")
INPUTS = DATA.prepare(IMAGES)
ATTACKS = [FGSM(), PGD(steps=5), PGD("l2", steps=5)]


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network that gets nine digits in ten right."""
    tuned = FineTune(optimizer=SGD(lr=0.1), schedule=Constant(), epochs=5, batch_size=64)
    encoder = tiny_pretrain(objective=Contrastive(), epochs=1)
    curve = tiny_curve(encoder=encoder, probe=tuned, severities=(0.0,), repeats=1)
    store = Store(tmp_path_factory.mktemp("store"))
    store.get(curve)
    (classifier,) = curve.probe.classifiers(curve.task, store)
    return classifier.network(store)


def accuracy(network, inputs):
    with torch.no_grad():
        return 100 * (network(inputs).argmax(1) == LABELS).double().mean().item()


def as_pixels(inputs):
    return inputs * DATA.std[0] + DATA.mean[0]


class OfPixels(nn.Module):
    """The network as judges see it: of pixels in [0, 1]."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        return self.network(DATA.normalise(pixels))


# Laws


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_attacked_images_are_valid_and_within_epsilon(network, attack):
    attacked = attack.perturb(network, INPUTS, LABELS, 0.3, SCALE, draw())
    pixels, clean = as_pixels(attacked), as_pixels(INPUTS)
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    change = (pixels - clean).flatten(1)
    order = 2 if getattr(attack, "norm", "") == "l2" else torch.inf
    assert change.norm(order, dim=1).max() <= 0.3 + 1e-5
    assert (as_pixels(SCALE.low), as_pixels(SCALE.high)) == (pytest.approx(0), pytest.approx(1))


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_an_attack_does_harm_and_is_drawn_from_its_generator_alone(network, attack):
    first, again = (attack.perturb(network, INPUTS, LABELS, 0.2, SCALE, draw()) for _ in range(2))
    assert torch.equal(first, again)
    assert look(network, first, LABELS).losses.mean() > look(network, INPUTS, LABELS).losses.mean()
    assert accuracy(network, first) < accuracy(network, INPUTS)


def test_random_starts_are_shared_over_epsilons():
    pgd, generators = PGD(), [draw(), draw()]
    one, other = (next(pgd.starts(INPUTS, generator)) for generator in generators)
    assert torch.equal(one, other)
    nothing = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
    for generator, epsilon in zip(generators, (0.1, 0.9), strict=True):
        pgd.perturb(nothing, INPUTS[:3], LABELS[:3], epsilon, SCALE, generator)
    assert torch.equal(*(generator.get_state() for generator in generators))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_are_uniform_in_the_ball(norm):
    (start,) = PGD(norm, restarts=1).starts(torch.zeros(4000, 1, 1, 2), draw())
    radius = start.flatten(1).norm(2 if norm == "l2" else torch.inf, dim=1)
    assert radius.max() <= 1 + 1e-6
    assert (radius < 0.5).double().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_all_points_of_all_restarts_the_worst_is_kept_image_by_image(network, norm):
    attack = PGD(norm, steps=3, restarts=3)
    epsilon = 0.15 if norm == "linf" else 0.8
    together = look(
        network, attack.perturb(network, INPUTS, LABELS, epsilon, SCALE, draw()), LABELS
    )
    single = []
    for start in attack.starts(INPUTS, draw()):
        first = SCALE.moved(INPUTS, epsilon * start)
        visited = attack.climb(network, INPUTS, LABELS, epsilon, SCALE, first)
        single += [look(network, points, LABELS) for points, _ in visited]
    assert len(single) == 3 * (3 + 1)
    for image in range(len(LABELS)):
        wrong = [one.losses[image] for one in single if not one.right[image]]
        losses = wrong or [one.losses[image] for one in single]
        assert bool(together.right[image]) is (not wrong)
        assert together.losses[image].item() == pytest.approx(max(losses).item(), rel=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_noise_of_the_same_size_never_breaks_what_pgd_does_not(network, norm):
    attack, epsilon = PGD(norm, steps=2), 0.2 if norm == "linf" else 1.0
    attacked = attack.perturb(network, INPUTS, LABELS, epsilon, SCALE, draw())
    withstands = look(network, attacked, LABELS).right
    for start in attack.starts(INPUTS, draw()):
        noisy = look(network, SCALE.moved(INPUTS, epsilon * start), LABELS)
        assert not (withstands & ~noisy.right).any()
    assert accuracy(network, attacked) < 100 * noisy.right.double().mean() - 5


# Gradient masking


class OneHot(nn.Module):
    """The rectified unit vector of (x, 1): as long as x is below 0 it is constant."""

    def __init__(self, rectify):
        super().__init__()
        self.rectify = rectify

    def forward(self, inputs):
        x = inputs.flatten(1)
        return nn.functional.normalize(self.rectify(torch.cat([x, torch.ones_like(x)], 1)))


@pytest.mark.parametrize(
    "rectify", [torch.relu, nn.functional.relu, torch.Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True)]
)
def test_a_leak_finds_what_silent_rectifiers_hide_from_gradients(rectify):
    network, labels = OneHot(rectify), torch.ones(4, dtype=torch.int64)
    wide = torch.full((1, 1, 1), 100.0)
    scale = PixelScale(wide / 100, -wide, wide)
    inputs = torch.full((4, 1, 1, 1), -4.0)
    right = {
        leak: look(
            network, PGD(leak=leak).perturb(network, inputs, labels, 6.0, scale, draw()), labels
        ).right
        for leak in (0.0, 0.1)
    }
    assert right[0.0].any()  # the random starts break some
    assert not right[0.1].any()


def test_leaking_rectifiers_have_the_values_of_rectifiers_and_a_slope_below_zero():
    x = torch.tensor([-2.0, 3.0], requires_grad=True)
    with LeakingRectifiers(0.25):
        y = nn.ReLU()(x)
    assert y.tolist() == [0, 3]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0.25, 1]
    assert torch.autograd.grad(torch.relu(x).sum(), x)[0].tolist() == [0, 1]


def test_a_leak_changes_nothing_where_there_are_gradients(network):
    plain, leaking = (
        PGD(leak=leak, steps=3).perturb(network, INPUTS, LABELS, 0.1, SCALE, draw())
        for leak in (0.0, 1.0)
    )
    assert torch.equal(plain, leaking)


# Linear networks, of which the best attack is known


def two_classes(weight):
    """Logits (0, w x)."""
    linear = nn.Linear(weight.numel(), 2, bias=False).requires_grad_(False)
    linear.weight[0], linear.weight[1] = 0, weight
    return nn.Sequential(nn.Flatten(), linear)


@pytest.mark.parametrize(
    ("attack", "dual"),
    [(FGSM(), 1), (PGD(restarts=1), 1), (PGD("l2", steps=80, restarts=1), 2)],
    ids=repr,
)
def test_the_best_change_of_a_linear_network_is_the_dual_norm_of_its_weights(attack, dual):
    weight = torch.randn(12, generator=draw())
    wide = torch.full((3, 1, 1), 100.0)
    scale = PixelScale(torch.tensor([1.0, 2.0, 4.0])[:, None, None], -wide, wide)
    inputs = torch.randn(5, 3, 2, 2, generator=draw(1))
    network, labels = two_classes(weight), torch.zeros(5, dtype=torch.int64)
    attacked = attack.perturb(network, inputs, labels, 0.1, scale, draw(2))
    growth = (network(attacked) - network(inputs))[:, 1]
    in_pixels = weight.reshape(3, 2, 2) * scale.unit
    assert growth.tolist() == pytest.approx([0.1 * in_pixels.norm(dual).item()] * 5, rel=2e-3)


def test_gradients_that_are_tiny_have_a_direction_and_none_has_none():
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0, 0] = torch.tensor([[3e-30, 4e-30], [0, 0]])
    direction = PGD("l2").direction(gradient)
    assert direction[0].flatten().tolist() == pytest.approx([0.6, 0.8, 0, 0])
    assert direction[1].count_nonzero() == 0


# Refusals


def test_a_network_that_does_not_depend_on_its_inputs_cannot_be_attacked():
    class Constant(nn.Module):
        def forward(self, inputs):
            return torch.zeros(len(inputs), 10)

    with pytest.raises(StageError, match="^cannot be attacked: the logits have no gradient"):
        FGSM().perturb(Constant(), INPUTS, LABELS, 0.1, SCALE, draw())


@pytest.mark.parametrize(
    "fields", [{"norm": "l1"}, {"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"leak": 1.1}]
)
def test_impossible_attacks_are_refused(fields):
    (name,) = fields
    with pytest.raises(FieldError, match=f"PGD.{name} must be"):
        PGD(**fields)


# Judges


def torchattacks_pgd(norm, network, epsilon, starts):
    torchattacks = pytest.importorskip("torchattacks")
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    settings = {"eps": epsilon, "alpha": 0.2 * epsilon, "steps": 20, "random_start": starts}
    judge = kind(OfPixels(network).eval(), **settings)
    return judge(as_pixels(INPUTS).clamp(0, 1), LABELS)


def foolbox_pgd(norm, network, epsilon, starts):
    foolbox = pytest.importorskip("foolbox")
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    model = foolbox.PyTorchModel(OfPixels(network).eval(), bounds=(0, 1), device="cpu")
    judge = kind(rel_stepsize=0.2, steps=20, random_start=starts)
    _, clipped, _ = judge(model, as_pixels(INPUTS).clamp(0, 1), LABELS, epsilons=epsilon)
    return clipped


EPSILONS = pytest.mark.parametrize(
    ("norm", "epsilon"), [("linf", 0.05), ("linf", 0.12), ("l2", 0.6)]
)
JUDGES = pytest.mark.parametrize("judge", [torchattacks_pgd, foolbox_pgd])


@EPSILONS
@JUDGES
@pytest.mark.filterwarnings("ignore")
def test_from_the_image_itself_pgd_goes_where_the_judge_goes(network, judge, norm, epsilon):
    expected = as_pixels(DATA.normalise(judge(norm, network, epsilon, starts=False)))
    *_, (last, _) = PGD(norm).climb(network, INPUTS, LABELS, epsilon, SCALE, INPUTS)
    own = as_pixels(last)
    is_same = ((own - expected).abs().flatten(1).amax(1) < 1e-3).double().mean().item()
    assert is_same > 0.8  # a sign of nearly nothing is rounding, which later steps multiply
    own_accuracy, judged = (accuracy(network, DATA.normalise(x)) for x in (own, expected))
    assert own_accuracy == pytest.approx(judged, abs=0.6)  # two images of 360


@EPSILONS
@JUDGES
@pytest.mark.filterwarnings("ignore")
def test_pgd_is_not_weaker_than_the_judge_s(network, judge, norm, epsilon):
    own = accuracy(network, PGD(norm).perturb(network, INPUTS, LABELS, epsilon, SCALE, draw()))
    one_start = PGD(norm, restarts=1)
    alone = accuracy(network, one_start.perturb(network, INPUTS, LABELS, epsilon, SCALE, draw()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judged = accuracy(network, DATA.normalise(judge(norm, network, epsilon, starts=True)))
    assert 5 < judged < accuracy(network, INPUTS) - 5
    assert own <= judged + 0.6  # two images of 360, with two starts against one
    assert alone == pytest.approx(judged, abs=2)  # seven images: the starts differ


@pytest.mark.filterwarnings("ignore")
def test_fgsm_is_torchattacks_fgsm(network):
    torchattacks = pytest.importorskip("torchattacks")
    judge = torchattacks.FGSM(OfPixels(network).eval(), eps=0.1)
    expected = judge(as_pixels(INPUTS).clamp(0, 1), LABELS)
    own = as_pixels(FGSM().perturb(network, INPUTS, LABELS, 0.1, SCALE, draw()))
    assert (own - expected).abs().median() < 1e-6
    assert accuracy(network, DATA.normalise(expected)) == pytest.approx(
        accuracy(network, DATA.normalise(own)), abs=0.3
    )
