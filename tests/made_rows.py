"""Rows for the tests of results: one, or a small study with known effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monosem.results.rows import MONOSEMANTICITY, Row

SEEDS = ("0", "1", "2")
REPEATS = range(3)


def row(value: float = 90.0, swept: Mapping[str, str] | None = None, **fields: object) -> Row:
    """A number of the experiment `a` at severity 0.5 of `gaussian`, unless told otherwise."""
    usual = {
        "experiment": "a",
        "curve": "gaussian",
        "severity": 0.5,
        "repeat": 0,
        "metric": "top1",
        "n": 360,
        "axis": "x (units)",
    }
    return Row(value=value, swept=tuple((swept or {}).items()), **{**usual, **fields})


def study(
    experiment: str,
    shift: float = 0.0,
    values: Mapping[str, str] | None = None,
    seeds: Sequence[str] = SEEDS,
    seed_bindings: Sequence[str] = ("Pretrain.seed",),
) -> list[Row]:
    """Two severities, three repeats and seeds, with effects of both that all experiments share.

    shift: how much better than an experiment without one; a little more with seed and repeat, so
        that differences have a spread.
    """
    rows = []
    for seed in seeds:
        for severity in (0.0, 0.5):
            for repeat in REPEATS:
                better = shift * (1 + 0.1 * int(seed) + 0.01 * repeat)
                value = 80 + better - 10 * severity + 3 * int(seed) + repeat
                swept = {**(values or {}), **dict.fromkeys(seed_bindings, seed)}
                rows.append(
                    row(value, swept, experiment=experiment, severity=severity, repeat=repeat)
                )
    return rows


SINGLE_RUN = [
    row(value, severity=severity, repeat=repeat, metric=metric)
    for severity in (0.0, 0.1)
    for repeat, value, metric in (
        (0, 90.0, "top1"),
        (0, 90.0, "top5"),
        (1, 91.5, "top1"),
        (1, 91.5, "top5"),
        (2, 1 / 3, "top1"),
        (2, 1 / 3, "top5"),
    )
]
MEASURED = row(0.25, curve=MONOSEMANTICITY, severity=0.0, metric="class_consistency")


PLACES = (("clean", 0.0), *((name, s) for name in ("snow", "fog") for s in (1.0, 5.0)))


def named_study(
    experiment: str, shift: float = 0.0, seeds: Sequence[str] = SEEDS, curve: str = "common"
) -> list[Row]:
    """Named points: clean, then snow and fog at two severities; better by `shift` but for clean.

    Snow loses 4 a severity and fog 6; differences grow a little with seed and repeat, as in
    `study`.
    """
    lost = {"clean": 0.0, "snow": 4.0, "fog": 6.0}
    rows = []
    for seed in seeds:
        for name, severity in PLACES:
            for repeat in REPEATS:
                better = shift * (1 + 0.1 * int(seed) + 0.01 * repeat) * (name != "clean")
                value = 90 + better - lost[name] * severity + int(seed) + repeat / 2
                where = {"curve": curve, "point": name, "severity": severity, "repeat": repeat}
                rows.append(row(value, {"Pretrain.seed": seed}, experiment=experiment, **where))
    return rows
