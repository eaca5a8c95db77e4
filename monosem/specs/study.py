"""Loads what files describe: a sweep with all its cells, or else one experiment.

Every file of a sweep with every assignment of values is a cell; each is checked before any runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from monosem.evaluation.experiment import Experiment
from monosem.results.rows import Swept, cell_name
from monosem.specs import gin_state
from monosem.specs.bindings import Bindings, Unread
from monosem.specs.cells import Cell, check_cells
from monosem.specs.errors import SpecError
from monosem.specs.gin_reader import GinReader, Source
from monosem.specs.gin_state import Address
from monosem.specs.grid import Space, TypedReference
from monosem.specs.load import Spec, build, experiment_of, spec_of
from monosem.specs.sweep import Assignment, Sweep


class Study(NamedTuple):
    """A sweep with its cells.

    cells: those of the baseline first.
    modules: what its files import, which workers need too.
    """

    sweep: Sweep
    cells: tuple[Cell, ...]
    modules: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def experiments(self) -> dict[str, Experiment]:
        """By the name of the cell."""
        return {cell.name: cell.experiment for cell in self.cells}


def read(files: Sequence[str], bindings: Sequence[str] = ()) -> Spec | Study:
    """The sweep that files and bindings describe, or else the experiment."""
    reader = GinReader()
    reader.read(files, bindings)
    if reader.bindings.have(Sweep):
        return study_of(reader, files, bindings)
    return spec_of(reader)


def study_of(reader: GinReader, files: Sequence[str], bindings: Sequence[str]) -> Study:
    """The sweep that was read from these files and bindings.

    Their other bindings go into every cell. They override its spec; the grid's values override
    them.

    Raises SpecError for everything that can be known to be wrong, with the cell named.
    """
    reader.check_macros()
    _leave_objects_to_cells(reader.bindings)
    sweep = build(Sweep, reader.bindings)
    shared = reader.bindings.typed
    own = reader.bindings.lookups().deciding
    _check_axes(sweep, own)
    loader = _CellLoader(files, bindings, reader.modules)
    for file in sweep.specs:
        for assignment in sweep.assignments():
            loader.add(file, assignment)
    loader.check_everything_is_read(sweep, own)
    name = gin_state.parse_address("Experiment.name")
    check_cells(sweep, loader.cells, shared.get(name))
    cells = _baseline_first(sweep, list(loader.cells.values()))
    return Study(sweep, cells, tuple(dict.fromkeys(loader.modules)))


def _leave_objects_to_cells(bindings: Bindings) -> None:
    """The objects of Sweep.grid stay as they are typed; only the spaces are the sweep's own."""
    address = gin_state.parse_address("Sweep.grid")
    if address in bindings.typed:
        grid = bindings.typed[address].value
        gin_state.bind(address, gin_state.replace_objects(grid, _as_typed))


def _as_typed(kind: type, text: str) -> TypedReference | None:
    return None if issubclass(kind, Space) else TypedReference(text)


class _CellLoader:
    """Loads the cells of a sweep one after the other; what it has seen spares the next ones work.

    cells: by their file and by the values that they read.
    modules: what any of their files imports.
    """

    def __init__(self, files: Sequence[str], bindings: Sequence[str], modules: Sequence[str]):
        self._files = files
        self._bindings = bindings
        self._checked: set[object] = set()  # what was looked at, as of `experiment_of`
        self._unread: list[dict[Address, Unread]] = []  # of every cell
        self.cells: dict[tuple[str, Swept], Cell] = {}
        self.modules = list(modules)

    def add(self, file: str, assignment: Assignment) -> None:
        values = _typed_values(assignment)
        if self._is_there(file, values):
            return
        try:
            reader = self._read(file, assignment)
            spec, unread = experiment_of(reader, self._checked)
        except SpecError as error:
            raise SpecError(f"cell {_in_words(file, assignment)}: {error}") from None
        swept = tuple(
            (name, value) for name, value in values if gin_state.parse_address(name) not in unread
        )
        name = cell_name(spec.experiment.name, swept)
        self.cells[file, swept] = Cell(name, spec.experiment, spec.config, swept)
        self._unread.append(unread)
        self.modules += reader.modules

    def _is_there(self, file: str, values: Swept) -> bool:
        """Whether a cell of this file has the same values in all that it reads."""
        return any(other == file and set(swept) <= set(values) for other, swept in self.cells)

    def _read(self, file: str, assignment: Assignment) -> GinReader:
        reader = GinReader()
        reader.read_file(file, "Sweep.specs")
        if reader.bindings.have(Sweep):
            raise SpecError(
                f"Sweep.specs {file} is a sweep itself; it must be the Gin file of an experiment"
            )
        reader.bindings.share_from_here()
        reader.read(self._files, self._bindings)
        for axis, value in assignment:
            for name in axis.names:
                reader.read_text(f"{name} = {value!r}", Source("Sweep.grid", is_file=False))
        return reader

    def check_everything_is_read(self, sweep: Sweep, own: Collection[Address]) -> None:
        """Raises SpecError for a binding that neither the sweep nor any cell reads.

        Of the names of an axis one that is read is enough.
        """
        first, *others = self._unread
        nowhere = {address for address in first if all(address in unread for unread in others)}
        axes = [set(map(gin_state.parse_address, axis.names)) for axis in sweep.grid or ()]
        excused = {address for axis in axes if not axis <= nowhere for address in axis}
        for address, unread in first.items():
            if address in nowhere and address not in own and address not in excused:
                raise SpecError(unread.message("any spec of the sweep"))


def _check_axes(sweep: Sweep, own: Collection[Address]) -> None:
    """Raises SpecError for one binding under two spellings, and for what the sweep itself reads."""
    spellings: dict[Address, str] = {}
    for name in sweep.swept_names():
        try:
            address = gin_state.parse_address(name)
        except ValueError:
            continue  # there is no such thing: the first cell says so
        if address in spellings:
            twice = f"{spellings[address]} and as {name}"
            raise SpecError(f"Sweep.grid names one binding twice, as {twice}")
        if address in own or address.selector == gin_state.selector_of(Sweep):
            raise SpecError(
                f"Sweep.grid: {name} is of the sweep itself; an axis is a binding of its specs"
            )
        spellings[address] = name


def _typed_values(assignment: Assignment) -> Swept:
    """The bindings of an assignment, each with its value as it stands in tables."""
    return tuple(
        (name, str(value) if isinstance(value, str | TypedReference) else repr(value))
        for axis, value in assignment
        for name in axis.names
    )


def _in_words(file: str, assignment: Assignment) -> str:
    values = [f"{name} = {value!r}" for axis, value in assignment for name in axis.names]
    return f"{file} with {', '.join(values)}" if values else file


def _baseline_first(sweep: Sweep, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    baseline = sweep.baseline or cells[0].experiment.name
    return tuple(sorted(cells, key=lambda cell: cell.experiment.name != baseline))
