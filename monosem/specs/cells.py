"""The cells of a sweep, and what they must agree in: names, stages, curves and metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from monosem.axes.gains import AxisGains
from monosem.core.fields import nearest
from monosem.core.stage import closure
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.evaluation.reconstruction import Reconstruction
from monosem.results.correlation import Claim
from monosem.results.rows import MONOSEMANTICITY, Swept, place_text
from monosem.results.search import Goal, Quantity
from monosem.results.stats import CLEAN
from monosem.robustness.measurement import Point
from monosem.specs.bindings import Binding
from monosem.specs.errors import SpecError
from monosem.specs.sweep import Sweep

EVENTS = "events.out.tfevents"  # how TensorBoard's files begin
OWN_FILES = (  # of a sweep's folder, beside figures and hidden files
    "curves.csv",
    "summary.md",
    "axis_gains.csv",
    "gallery.json",
    "gallery.html",
    "cells.txt",
    "stopped.json",
    "logs",
    "sweep.gin",
    "index.html",
    "paper",
    "config.gin",  # these two of a single experiment that had the folder before
    "measures.csv",
)


class Cell(NamedTuple):
    """One spec with one assignment of a sweep's values.

    name: of its folder.
    experiment: as of a Spec.
    config: as of a Spec.
    swept: the bindings among its values that it reads, with what was typed.
    """

    name: str
    experiment: Experiment
    config: str
    swept: Swept


def check_cells(
    sweep: Sweep, cells: Mapping[tuple[str, Swept], Cell], name_of_all: Binding | None = None
) -> None:
    """Raises SpecError where cells do not go together, or the sweep names what no cell has.

    cells: by their file and the values that they read.
    name_of_all: the binding that names the experiment of every cell, if there is one.
    """
    names = _experiment_names(cells, name_of_all)
    _check_folders(list(cells.values()))
    if sweep.baseline is not None:
        _check_known("Sweep.baseline", sweep.baseline, names)
    _check_resources(sweep, list(cells.values()))
    if sweep.goal is not None:
        _check_goal(sweep.goal, list(cells.values()))
    if sweep.claim is not None:
        _check_claim(sweep.claim, list(cells.values()))
    if sweep.axis_gains is not None:
        _check_axis_gains(sweep.axis_gains, sweep, list(cells.values()))


def _experiment_names(
    cells: Mapping[tuple[str, Swept], Cell], name_of_all: Binding | None
) -> list[str]:
    """The names of the experiments in the order of Sweep.specs; no two files may share one."""
    files: dict[str, str] = {}
    for (file, _), cell in cells.items():
        name = cell.experiment.name
        other = files.setdefault(name, file)
        if other != file:
            advice = "give each an Experiment.name of its own"
            if name_of_all is not None:
                advice = f"Experiment.name is set for every cell {name_of_all}"
            raise SpecError(f"Sweep.specs: {other} and {file} are both called {name}; {advice}")
    return list(files)


def _check_folders(cells: Sequence[Cell]) -> None:
    """Every cell has a folder of its own beside the files of the sweep."""
    for cell in cells:
        if cell.name in OWN_FILES or cell.name.endswith(".png") or cell.name.startswith(EVENTS):
            raise SpecError(
                f"Experiment.name: {cell.name} is what a sweep calls a file of its own; "
                "another name, please"
            )
    if len({cell.name for cell in cells}) < len(cells):
        raise SpecError(
            "Sweep.grid: two cells would share a folder, as their values differ only in signs "
            "that a folder's name cannot hold"
        )


def _check_resources(sweep: Sweep, cells: Sequence[Cell]) -> None:
    stages = [stage for cell in cells for stage in cell.experiment.stages]
    kinds = sorted({type(stage).__name__ for stage in closure(stages)})
    for kind, _ in sweep.resources:
        if kind not in kinds:
            raise SpecError(
                "Sweep.resources must be of kinds of stages in this sweep, "
                f"{', '.join(kinds)}, got {kind!r}"
            )


def _check_goal(goal: Goal, cells: Sequence[Cell]) -> None:
    clean = _clean_metrics(cells)
    points = _points(cells) | {(MONOSEMANTICITY, "", 0.0, metric) for metric in clean}
    quantity = goal.curve, goal.point, goal.severity, goal.metric
    if quantity not in points:
        wanted = _point(*quantity)
        known = [_point(*point) for point in sorted(points)]
        hint = nearest(wanted, known, "; did you mean {}?") or f"; there is {known[0]}"
        raise SpecError(f"Sweep.goal: there is no {wanted}{hint}")
    for bound in goal.bounds:
        _check_known("Sweep.goal: Bound.metric", bound.metric, sorted(clean))


def _check_claim(claim: Claim, cells: Sequence[Cell]) -> None:
    clean = sorted(_clean_metrics(cells))
    _check_known("Sweep.claim: Claim.measure", claim.measure, clean)
    for control in claim.controls:
        _check_known("Sweep.claim: Claim.controls", control, clean)
    with_area = sorted(_curves_with_area(cells))
    for curve in claim.curves:
        _check_known("Sweep.claim: Claim.curves", curve, with_area)


def _check_axis_gains(asked: AxisGains, sweep: Sweep, cells: Sequence[Cell]) -> None:
    names = list(dict.fromkeys(cell.experiment.name for cell in cells))
    for name in asked.names:
        _check_known("Sweep.axis_gains: AxisGains.pairs", name, names)
    _check_known("Sweep.axis_gains: AxisGains.learner", asked.learner, sweep.swept_names())
    curves = sorted({curve.name for cell in cells for curve in cell.experiment.curves})
    for curve in asked.curves:
        _check_known("Sweep.axis_gains: AxisGains.curves", curve, curves)
    for measure in asked.measures:
        clean = sorted(_clean_metrics(cells))
        _check_known("Sweep.axis_gains: AxisGains.measures", measure, clean)


def _check_known(field: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        hint = nearest(name, known, "; did you mean {}?")
        raise SpecError(f"{field} must be one of {', '.join(known)}, got {name!r}{hint}")


def _clean_metrics(cells: Sequence[Cell]) -> set[str]:
    """The metrics of clean features that curves.csv will have."""
    stages: set[Monosemanticity | Reconstruction] = set()
    for cell in cells:
        stages.update(cell.experiment.monosemanticity, cell.experiment.reconstructions)
    return {metric for stage in stages for metric in stage.names()}


def _points(cells: Sequence[Cell]) -> set[Quantity]:
    """Every (curve, point, severity, metric) that curves.csv will have."""
    points: set[Quantity] = set()
    for curve in {curve for cell in cells for curve in cell.experiment.curves}:
        for point in curve.points:
            points |= {(curve.name, *point, metric) for metric in curve.metrics}
    return points


def _point(curve: str, point: str, severity: float, metric: str) -> str:
    return f"{metric} of {curve} at {place_text(point, severity)}"


def _curves_with_area(cells: Sequence[Cell]) -> set[str]:
    """The curves that are clean somewhere and go on: an area under them can be told."""
    clean = {Point("", 0.0), Point(CLEAN, 0.0)}
    return {
        curve.name
        for cell in cells
        for curve in cell.experiment.curves
        if clean & set(curve.points) and len(curve.points) > 1
    }
