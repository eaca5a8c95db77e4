"""Bindings: later ones win, what is replaced goes with what it read, unread ones are wrong."""

from __future__ import annotations

import pytest

from monosem.specs.errors import SpecError
from monosem.specs.gin_state import Address, Reference, deciding, parse_address
from monosem.specs.load import load

pytestmark = pytest.mark.usefixtures("in_root")

WRONG = [  # what is typed, and what is said
    (
        "label_nosie/Curve.repeats = 9",
        "label_nosie/Curve.repeats = 9 has no effect: nothing in this experiment reads it "
        "(--set 'label_nosie/Curve.repeats = 9'). Did you mean label_noise/Curve.repeats?",
    ),
    (
        "Contrastive.temperature = 0.5",
        "Contrastive.temperature = 0.5 has no effect",
    ),
    (
        "Curve.severities = (0.0, 0.5)",
        "has no effect: few_shot/Curve.severities, gaussian/Curve.severities, "
        "label_noise/Curve.severities, uniform/Curve.severities decide instead",
    ),
    (
        "Adam.lr = 0.1",
        "has no effect: pretrain/Adam.lr decides instead (--set 'Adam.lr = 0.1')",
    ),
    (
        "epochs = 4",
        "epochs = 4 has no effect: it names no parameter, and nothing uses %epochs as a macro",
    ),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_a_binding_that_decides_nothing_is_one_line_in_the_words_that_were_typed(typed, said):
    with pytest.raises(SpecError) as info:
        load(["gin/ncl.gin"], [typed])
    assert said in str(info.value)
    assert "\n" not in str(info.value)


def test_the_narrowest_scope_decides_what_is_looked_up():
    lookup = Address("a/b", "Curve", "repeats")
    everywhere, outer, inner = (Address(scope, "Curve", "repeats") for scope in ("", "a", "a/b"))
    assert deciding(lookup, {everywhere, outer, inner}) == inner
    assert deciding(lookup, {everywhere, outer}) == outer
    assert deciding(lookup, {everywhere, Address("b", "Curve", "repeats")}) == everywhere
    assert deciding(lookup, {Address("a", "Curve", "data")}) is None


def test_a_reference_reads_its_scope_and_those_around_it():
    reference = Reference("a", "Curve")
    assert reference.reads(Address("a", "Curve", "repeats"))
    assert reference.reads(Address("", "Curve", "repeats"))
    assert not reference.reads(Address("b", "Curve", "repeats"))
    assert not reference.reads(Address("a", "Gallery", "rows"))


def test_an_address_is_written_as_it_is_typed():
    for name in ("Pretrain.epochs", "pretrain/Adam.lr"):
        assert str(parse_address(name)) == name


def test_later_files_and_bindings_win(tmp_path):
    (tmp_path / "a.gin").write_text("Pretrain.epochs = 3\nPretrain.seed = 7\n")
    (tmp_path / "b.gin").write_text("Pretrain.epochs = 4\n")
    files = ["gin/simclr.gin", str(tmp_path / "a.gin"), str(tmp_path / "b.gin")]
    spec = load(files, ["Pretrain.epochs = 5", "Pretrain.epochs = 6"])
    pretrain = spec.experiment.curves[0].encoder.encoder
    assert (pretrain.epochs, pretrain.seed) == (6, 7)


def test_replacing_what_a_file_binds_drops_what_only_that_would_have_read(tmp_path):
    curves = "Experiment.curves = (@few_shot/Curve(),)"
    spec = load(["gin/ncl.gin"], [curves, "Pretrain.objective = @Contrastive()"])
    assert [curve.name for curve in spec.experiment.curves] == ["few_shot"]
    (tmp_path / "config.gin").write_text(spec.config)
    assert load([str(tmp_path / "config.gin")]).experiment == spec.experiment


def test_what_is_typed_for_the_replacement_is_read():
    sparsity = ["SparseAutoencoder.sparsity = @L1()", "L1.penalty = 0.1"]
    spec = load(["gin/sae.gin"], ["Pretrain.optimizer = @SGD()", *sparsity])
    assert spec.experiment.curves[0].encoder.sparsity.penalty == 0.1


@pytest.mark.parametrize(
    ("replacing", "late"),
    [
        ("Pretrain.objective = @Contrastive()", "NonNegative.activation = 'gelu'"),
        ("Pretrain.classifier = None", "OnlineClassifier.lr = 0.2"),
        ("Experiment.curves = (@gaussian/Curve(),)", "few_shot/Curve.repeats = 3"),
        ("Experiment.metrics = (@Sparsity(),)", "RetrievalPrecision.k = 5"),
    ],
)
def test_what_is_typed_after_its_reader_was_replaced_is_a_mistake(replacing, late):
    assert load(["gin/ncl.gin"], [late, replacing])
    with pytest.raises(SpecError, match="has no effect"):
        load(["gin/ncl.gin"], [replacing, late])


def test_of_equal_values_in_two_scopes_the_one_that_was_being_built_is_named():
    typed = [f"{scope}/Adam.betas = (0.9, 1.5)" for scope in ("pretrain", "gaussian")]
    with pytest.raises(SpecError) as info:
        load(["gin/ncl.gin"], typed)
    reason = "pretrain/Adam.betas must be between 0 and 1, got 1.5"
    assert str(info.value) == f"{reason} (--set 'pretrain/Adam.betas = (0.9, 1.5)')"


def test_all_bindings_are_named_that_hold_the_refused_value():
    typed = [f"{scope}/Curve.severities = (-1.0,)" for scope in ("gaussian", "uniform")]
    with pytest.raises(SpecError) as info:
        load(["gin/ncl.gin"], typed)
    places = " or ".join(f"(--set '{text}')" for text in typed)
    assert str(info.value) == f"Curve.severities must be 0 or more, got -1.0 {places}"
