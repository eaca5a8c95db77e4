"""The grid of a sweep: its axes, and draws from spaces."""

from __future__ import annotations

import random

import pytest

from monosem.core.fields import FieldError
from monosem.specs.errors import SpecError
from monosem.specs.grid import Axis, Choice, LogUniform, RandInt, Uniform
from monosem.specs.sweep import Sweep

pytestmark = pytest.mark.usefixtures("in_root")

WRONG = [  # what is typed, and what is said
    (
        "Sweep.grid = {}",
        "Sweep.grid must hold bindings and their values, such as {'Pretrain.seed': (0, 1, "
        "2)}, got {} (",
    ),
    (
        "Sweep.grid = ()",
        "Sweep.grid must hold bindings and their values",
    ),
    (
        "Sweep.grid = 3",
        "Sweep.grid must hold bindings and their values",
    ),
    (
        "Sweep.grid = {'TopK.k': ()}",
        "must give 'TopK.k' a tuple of one or more values or a space to draw from, got ()",
    ),
    (
        "Sweep.grid = {'TopK.k': 4}",
        "must give 'TopK.k' a tuple of one or more values",
    ),
    (
        "Sweep.grid = {'TopK.k': (4, 4)}",
        "must give 'TopK.k' different values, got (4, 4)",
    ),
    (
        "Sweep.grid = {'SparseAutoencoder.sparsity': (@TopK,)}",
        "numbers, strings, True, False, None, objects as @Name() or tuples of them, got ",
    ),
    (
        "Sweep.grid = {'SparseAutoencoder.sparsity': (@a/TopK(), @a/L1())}",
        "objects of different scopes, got (@a/TopK(), @a/L1())",
    ),
    (
        "Sweep.grid = {3: (4,)}",
        "must have names of bindings, or tuples of them, as its keys, got 3",
    ),
    (
        "Sweep.grid = {'TopK.k = 3': (4,)}",
        "must have names of bindings",
    ),
    (
        "Sweep.grid = {'TopK.k': (4,), ('TopK.k', 'Pretrain.seed'): (5,)}",
        "must name each binding once, got 'TopK.k' twice",
    ),
    (
        "Sweep.grid = {'L1.penalty': (1, 1.0)}",
        "must give 'L1.penalty' different values",
    ),
    (
        "Sweep.grid = {'Pretrain.seed': (0, 1), 'SparseAutoencoder.seed': (0, 1)}",
        "must have all its seeds in one axis",
    ),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_a_grid_that_cannot_be_meant_is_one_line(read_sweep, typed, said):
    with pytest.raises(SpecError) as info:
        read_sweep(typed)
    assert said in str(info.value)
    assert "\n" not in str(info.value)


def test_a_grid_made_in_python_is_checked_like_one_from_gin():
    with pytest.raises(FieldError, match="must give 'A.b' different values"):
        Sweep(name="s", specs=("a",), grid={"A.b": (1, 1)})


def draws(space, samples, seed=0):
    grid = (Axis(("A.b",), space),)
    sweep = Sweep(name="s", specs=("a",), grid=grid, num_samples=samples, seed=seed)
    return [assignment[0][1] for assignment in sweep.assignments()]


SPACES = [
    (Uniform(0.0, 2.0), lambda value: 0 <= value <= 2),
    (LogUniform(1e-4, 1e-1), lambda value: 1e-4 <= value <= 1e-1),
    (RandInt(3, 6), lambda value: value in (3, 4, 5)),
    (Choice(("a", None, (1, 2))), lambda value: value in ("a", None, (1, 2))),
]
each_space = pytest.mark.parametrize(
    ("space", "is_inside"), SPACES, ids=[type(space).__name__ for space, _ in SPACES]
)


@each_space
def test_draws_are_inside_their_space_and_differ(space, is_inside):
    values = draws(space, 300)
    assert all(map(is_inside, values))
    assert len(set(values)) >= 3


@each_space
def test_more_samples_keep_the_first_and_another_seed_draws_others(space, is_inside):
    many = draws(space, 300)
    assert many[:5] == draws(space, 5)
    assert draws(space, 300, seed=1) != many


def test_rounding_does_not_take_a_draw_out_of_a_narrow_space():
    assert 1.00001 <= Uniform(1.00001, 1.00002).draw(random.Random(0)) <= 1.00002


def test_log_uniform_draws_are_even_on_a_logarithmic_scale():
    values = draws(LogUniform(1e-4, 1.0), 2000)
    low = sum(value < 1e-2 for value in values)
    assert abs(low / 2000 - 0.5) < 0.04
