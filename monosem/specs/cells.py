"""TODO."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from monosem.core.stage import closure
from monosem.evaluation.experiment import Experiment
from monosem.results.rows import MONOSEMANTICITY, Swept, cell_name
from monosem.specs.bindings import _address, _deciding, _read, _selector
from monosem.specs.errors import Address, SpecError, Unread, _nearest
from monosem.specs.gin_reader import _Reader
from monosem.specs.load import _build, _experiment
from monosem.specs.sweep import Assignment, Sweep


class Cell(NamedTuple):
    """One spec with one assignment of a sweep's values. name: of its folder. swept: the bindings among its values that it
    reads, with what was typed. experiment, config: as of a Spec."""

    name: str
    experiment: Experiment
    config: str
    swept: Swept


class Study(NamedTuple):
    """A sweep: its cells, those of the baseline first; the modules that its files import, which workers need too."""

    sweep: Sweep
    cells: tuple[Cell, ...]
    modules: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.sweep.name


def study(files: Sequence[str], bindings: Sequence[str] = ()) -> Study | None:
    """The sweep that these files and bindings describe, or None if they say nothing of one.

    What they say besides is said of every cell, after its spec and before its values. Raises SpecError for everything that
    can be known to be wrong, with the cell named.
    """
    reader = _Reader()
    reader.read(files, bindings)
    if not any(selector == _selector(Sweep) for _, selector, _ in reader.typed):
        return None
    reader.check_macros()
    sweep: Sweep = _build(Sweep, reader.typed)
    own = {_deciding(address, reader.typed) for address in _read()}
    _refuse_axes(sweep, own)
    cells: dict[tuple[str, Swept], Cell] = {}
    unread: list[Unread] = []
    modules = list(reader.modules)
    checked: set[str] = set()
    for file, assignment in (
        (file, assignment) for file in sweep.specs for assignment in sweep.assignments()
    ):
        values = [
            (name, value if isinstance(value, str) else repr(value))
            for axis, value in assignment
            for name in axis.names
        ]
        if any(of == file and set(values) >= set(read) for of, read in cells):
            continue  # it differs from a cell in what that leaves unread: it is that cell
        try:
            reader = _Reader()
            reader.read_file(file, "Sweep.specs")
            if any(selector == _selector(Sweep) for _, selector, _ in reader.typed):
                raise SpecError(
                    f"Sweep.specs {file} is a sweep itself; it must be the Gin file of an experiment"
                )
            reader.beside = True
            reader.read(files, bindings, assignment)
            spec, missed = _experiment(reader, checked)
        except SpecError as error:
            raise SpecError(f"cell {_words(file, assignment)}: {error}") from None
        unread.append(missed)
        modules += reader.modules
        swept = tuple((name, value) for name, value in values if _address(name) not in missed)
        cells[file, swept] = Cell(cell_name(spec.experiment.name, swept), *spec, swept)
    nowhere = {address for address in unread[0] if all(address in missed for missed in unread)}
    axes = [{_address(name) for name in axis.names} for axis in sweep.grid or ()]
    for address, problem in unread[0].items():
        spared = any(
            address in axis and not axis <= nowhere for axis in axes
        )  # another of its axis is read: that is enough
        if address in nowhere and address not in own and not spared:
            raise SpecError(str(problem()).replace("this experiment", "any spec of the sweep"))
    return Study(sweep, _ordered(sweep, cells), tuple(dict.fromkeys(modules)))


def _refuse_axes(sweep: Sweep, own: Container[Address | None]) -> None:
    """One binding under two spellings; what the sweep itself reads."""
    seen: dict[Address, str] = {}
    for name in (name for axis in sweep.grid or () for name in axis.names):
        try:
            address = _address(name)
        except ValueError:
            continue  # there is no such thing: the first cell says so
        if address in seen:
            raise SpecError(f"Sweep.grid names one binding twice, as {seen[address]} and as {name}")
        if address in own or address[1] == _selector(Sweep):
            raise SpecError(
                f"Sweep.grid: {name} is of the sweep itself; an axis is a binding of its specs"
            )
        seen[address] = name


def _words(file: str, assignment: Assignment) -> str:
    values = [f"{name} = {value!r}" for axis, value in assignment for name in axis.names]
    return " with ".join([file, ", ".join(values)]) if values else file


def _ordered(sweep: Sweep, cells: dict[tuple[str, Swept], Cell]) -> tuple[Cell, ...]:
    """The cells, those of the baseline first, or SpecError where their names or what the sweep says of them do not go together."""
    owners: dict[str, str] = {}
    for (file, _), cell in cells.items():
        other = owners.setdefault(cell.experiment.name, file)
        if other != file:
            raise SpecError(
                f"Sweep.specs: {other} and {file} are both called {cell.experiment.name}; give each an Experiment.name of its own"
            )
    found = list(cells.values())
    for cell in found:
        if cell.name in (
            "curves.csv",
            "summary.md",
            "stopped.json",
            "cells.txt",
            "logs",
        ) or cell.name.endswith(".png"):
            raise SpecError(
                f"Experiment.name: {cell.name} is what a sweep calls a file of its own; another name, please"
            )
    if len({cell.name for cell in found}) < len(found):
        raise SpecError(
            "Sweep.grid: two cells would share a folder, as their values differ only in signs that a folder's name cannot hold"
        )
    if sweep.baseline is not None and sweep.baseline not in owners:
        raise SpecError(
            f"Sweep.baseline must be one of {', '.join(owners)}, got {sweep.baseline!r}"
            + _nearest(sweep.baseline, owners, "; did you mean {}?")
        )
    kinds = {type(stage).__name__ for cell in found for stage in closure(cell.experiment.stages)}
    for kind, _ in sweep.resources:
        if kind not in kinds:
            raise SpecError(
                f"Sweep.resources must be of kinds of stages in this sweep, {', '.join(sorted(kinds))}, got {kind!r}"
            )
    _check_words(sweep, found)
    return tuple(
        sorted(
            found, key=lambda cell: cell.experiment.name != (sweep.baseline or next(iter(owners)))
        )
    )


def _check_words(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """SpecError where the goal or the claim of a sweep names what curves.csv will not have."""
    clean = {
        name
        for measure in {m for cell in cells for m in cell.experiment.measures}
        for name in measure.names()
    }
    curves = {curve for cell in cells for curve in cell.experiment.curves}

    def check(field: str, word: str, words: Iterable[str]) -> None:
        if word not in words:
            raise SpecError(
                f"{field} must be one of {', '.join(sorted(words))}, got {word!r}"
                + _nearest(word, words, "; did you mean {}?")
            )

    if goal := sweep.goal:
        points = {
            (curve.name, severity, metric)
            for curve in curves
            for severity in curve.severities
            for metric in curve.metrics
        }
        points |= {(MONOSEMANTICITY, 0.0, name) for name in clean}
        if (goal.curve, goal.severity, goal.metric) not in points:
            asked, known = (
                f"{goal.metric} of {goal.curve} at {goal.severity:g}",
                [f"{m} of {c} at {s:g}" for c, s, m in sorted(points)],
            )
            raise SpecError(
                f"Sweep.goal: there is no {asked}"
                + (_nearest(asked, known, "; did you mean {}?") or f"; there is {known[0]}")
            )
        for bound in goal.bounds:
            check("Sweep.goal: Bound.metric", bound.metric, clean)
    if claim := sweep.claim:
        for name in (claim.measure, *claim.controls):
            check(
                f"Sweep.claim: Claim.{'measure' if name == claim.measure else 'controls'}",
                name,
                clean,
            )
        for name in claim.curves:
            check(
                "Sweep.claim: Claim.curves",
                name,
                {
                    curve.name
                    for curve in curves
                    if len(curve.severities) > 1 and 0.0 in curve.severities
                },
            )
