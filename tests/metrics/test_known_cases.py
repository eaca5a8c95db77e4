"""What the audit of the measures, benchmarks/measures.py, rests on: features of known meaning."""

from __future__ import annotations

import pytest
import torch
from sample_features import draw
from torch.testing import assert_close

from benchmarks.measures import (
    ATOMS,
    BETTER,
    SPARSITY,
    cases,
    encoders,
    pairs,
    purity,
    rotation,
    world,
)
from monosem.metrics import ALL_METRICS
from monosem.metrics.base import declared

WORLD = world(300, draw(0))


def test_every_measure_with_an_end_that_is_better_is_audited():
    declarations = declared(ALL_METRICS, tuple(WORLD.batch.factors))
    by_end = {result.name: result.better for result in declarations if result.better}
    assert set(by_end) <= set(BETTER) <= {result.name for result in declarations}
    for name, better in by_end.items():
        assert BETTER[name] == {"high": 1, "low": -1}[better]


def test_a_class_turns_on_its_atom_and_one_below_it():
    on = WORLD.atoms > 0
    assert on[:, :24].sum(1).tolist() == [2] * 300
    for row, label, child in zip(
        on, WORLD.batch.labels, WORLD.batch.factors["subclass"], strict=True
    ):
        assert row[label] and row[8 + child] and child // 2 == label
    free = torch.stack([WORLD.batch.factors[f"free_{number}"] for number in range(6)]).double()
    correlation = torch.corrcoef(free)
    assert correlation[~torch.eye(6, dtype=torch.bool)].mean() > 0.1


def test_the_known_cases_are_what_they_are_called():
    made = cases(WORLD.atoms, draw(1))
    assert_close(made["rotated"] @ made["rotated"].T, WORLD.atoms @ WORLD.atoms.T)
    assert_close(made["shuffled"].sort(0).values, WORLD.atoms.sort(0).values)
    assert not torch.equal(made["shuffled"], WORLD.atoms)
    assert (made["rectified"] >= 0).all()
    weights = pairs(draw(2))
    assert (weights.sum(1) == 2).all() and (weights.diagonal() == 1).all()


def test_purity_is_1_of_atoms_and_little_of_their_rotation():
    assert purity(WORLD.atoms, torch.eye(ATOMS)) == pytest.approx(1)
    assert purity(WORLD.atoms, 3 * torch.eye(ATOMS).flip(0)) == pytest.approx(1)
    assert 0.5 < purity(WORLD.atoms, pairs(draw(2))) < 0.8
    assert purity(WORLD.atoms, rotation(draw(3))) < 0.4


def test_encoders_go_from_pure_to_mixed_in_every_kind_of_sparsity():
    made = encoders(WORLD.atoms, draw(4))
    assert len(made) == 6 * len(SPARSITY)
    shares = [made[index][0] for index in range(0, 30, 5)]
    assert shares == sorted(shares, reverse=True) and shares[0] == pytest.approx(1)
    assert ((made[-1][1] > 0).sum(1) <= 3).all()
    assert ((made[-2][1] > 0).sum(1) <= 8).all()
