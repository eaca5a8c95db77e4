"""What the cells of a sweep must agree in, and what the sweep may say of them."""

from __future__ import annotations

import pytest

from monosem.specs.errors import SpecError

pytestmark = pytest.mark.usefixtures("in_root")

WRONG = [  # what is typed, and what is said
    (
        "Experiment.name = 'one'",
        "Sweep.specs: gin/simclr.gin and gin/sae.gin are both called one; Experiment.name is set "
        "for every cell (",
    ),
    (
        "Sweep.baseline = 'sea'",
        "Sweep.baseline must be one of simclr, sae, got 'sea'; did you mean sae?",
    ),
    (
        "Sweep.goal = @Goal()\nGoal.curve = 'labels'",
        "Sweep.goal: there is no top1 of labels at 0; did you mean",
    ),
    (
        "Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\nGoal.severity = 0.33",
        "there is no top1 of label_noise at 0.33",
    ),
    (
        "Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\nGoal.metric = 'top7'",
        "there is no top7 of label_noise at 0; did you mean top",
    ),
    (
        "Sweep.goal = @Goal()\n"
        "Goal.curve = 'label_noise'\n"
        "Goal.bounds = (@Bound(),)\n"
        "Bound.metric = 'L0'\n"
        "Bound.at_most = 3",
        "Bound.metric must be one of activity, class_consistency, ",
    ),
    (
        "Sweep.specs = ('gin/ncl.gin',)\nExperiment.name = 'curves.csv'",
        "curves.csv is what a sweep calls a file of its own",
    ),
    (
        "Sweep.specs = ('gin/ncl.gin',)\nExperiment.name = 'gallery.html'",
        "gallery.html is what a sweep calls a file of its own",
    ),
    (
        "Sweep.specs = ('gin/ncl.gin',)\nExperiment.name = 'curves.png'",
        "curves.png is what a sweep calls a file of its own",
    ),
    (
        "Sweep.resources = {'Pretrian': {'cpu': 1}}",
        "Sweep.resources must be of kinds of stages in this sweep",
    ),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_what_no_cell_has_is_one_line_with_the_nearest_name(read_sweep, typed, said):
    with pytest.raises(SpecError) as info:
        read_sweep(typed)
    assert said in str(info.value)
    assert "\n" not in str(info.value)


NAMED = "Sweep.specs = ('gin/ncl.gin', 'gin/common_corruptions/simclr.gin')\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "Goal.point = 'shot_nose'\nGoal.severity = 3",
            "did you mean top1 of common at shot_noise 3",
        ),
        ("Goal.point = 'shot_noise'", "there is no top1 of common at shot_noise; did you mean"),
    ],
)
def test_a_named_point_that_no_cell_has_is_one_line_with_the_nearest_one(read_sweep, typed, said):
    with pytest.raises(SpecError) as info:
        read_sweep(f"{NAMED}Sweep.goal = @Goal()\nGoal.curve = 'common'\n{typed}")
    assert said in str(info.value)


def test_goals_and_claims_may_be_of_named_points(read_sweep):
    goal = "Sweep.goal = @Goal()\nGoal.curve = 'common'\nGoal.point = 'shot_noise'"
    assert read_sweep(f"{NAMED}{goal}\nGoal.severity = 3").sweep.goal.point == "shot_noise"
    assert read_sweep(f"{NAMED}Sweep.claim = @Claim()\nClaim.curves = ('common',)").sweep.claim


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("measure", "'selectivity'", "Claim.measure must be one of "),
        ("controls", "('l7',)", "Claim.controls must be one of "),
        ("curves", "('labels',)", "Claim.curves must be one of gaussian, label_noise, uniform"),
    ],
)
def test_a_claim_asks_for_what_the_table_has(read_sweep, field, value, said):
    claim = {"curves": "('gaussian',)", field: value}
    lines = [f"Claim.{name} = {text}" for name, text in claim.items()]
    with pytest.raises(SpecError, match=f"Sweep.claim: {said}"):
        read_sweep("\n".join(["Sweep.claim = @Claim()", *lines]))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("pairs", "(('ncl', 'ncl_rotatd'),)", "AxisGains.pairs must be one of .*ncl_rotated"),
        ("learner", "'Curve.prob'", "AxisGains.learner must be one of Curve.probe"),
        ("curves", "('labels',)", "AxisGains.curves must be one of "),
    ],
)
def test_axis_gains_ask_for_what_the_sweep_has(read_sweep, field, value, said):
    asked = {"pairs": "(('ncl', 'ncl_rotated'),)", "curves": "('gaussian',)", field: value}
    lines = [
        "Sweep.specs = ('gin/ncl.gin', 'gin/axes/ncl_rotated.gin')",
        "Sweep.grid = {'Curve.probe': (@LinearProbe(), @Ridge())}",
        "Sweep.axis_gains = @AxisGains()",
        *(f"AxisGains.{name} = {text}" for name, text in asked.items()),
    ]
    with pytest.raises(SpecError, match=f"Sweep.axis_gains: {said}"):
        read_sweep("\n".join(lines))


def test_two_files_of_one_name_are_told_to_take_names_of_their_own(read_sweep, tmp_path):
    for name in ("one", "other"):
        (tmp_path / f"{name}.gin").write_text("include 'gin/ncl.gin'\n")
    files = tuple(str(tmp_path / f"{name}.gin") for name in ("one", "other"))
    reason = "are both called ncl; give each an Experiment.name of its own"
    with pytest.raises(SpecError, match=reason):
        read_sweep(f"Sweep.specs = {files}")
