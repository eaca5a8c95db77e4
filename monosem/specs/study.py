"""Loads what files describe: a sweep with all its cells, or else one experiment.

Every file of a sweep with every assignment of values is a cell; each is checked before any runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from monosem.core.identity import is_seed
from monosem.evaluation.experiment import Experiment
from monosem.results.rows import Swept, cell_name
from monosem.specs import gin_state
from monosem.specs.bindings import Bindings, Unread
from monosem.specs.cells import Cell, check_cells
from monosem.specs.errors import SpecError
from monosem.specs.gin_reader import GinReader, Source
from monosem.specs.gin_state import Address, deciding
from monosem.specs.grid import Space, TypedReference
from monosem.specs.load import Spec, build, experiment_of, spec_of
from monosem.specs.sweep import Assignment, Sweep

LONGEST_NAME = 100

Grid = dict[str | tuple[str, ...], object]  # as it is typed: {'TopK.k': (2, 4)}


class Study(NamedTuple):
    """A sweep with its cells.

    cells: those of the baseline first.
    modules: what its files import, which workers need too.
    config: all that files and flags say of the sweep, as one Gin file.
    """

    sweep: Sweep
    cells: tuple[Cell, ...]
    modules: tuple[str, ...]
    config: str

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def experiments(self) -> dict[str, Experiment]:
        """By the name of the cell."""
        return {cell.name: cell.experiment for cell in self.cells}


def read(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    grids: Sequence[str] = (),
    seeds: int | None = None,
) -> Spec | Study:
    """The sweep that files and flags describe, or else the experiment.

    grids: axes as bindings, "TopK.k = (2, 4)". They make a sweep of experiments; where files
        describe a sweep, its grid gets them.
    seeds: every seed of the specs takes the values 0 to seeds - 1, all of them together.
    """
    return described_by(reader_of(files, bindings), files, bindings, grids, seeds)


def described_by(
    reader: GinReader,
    files: Sequence[str],
    bindings: Sequence[str],
    grids: Sequence[str],
    seeds: int | None,
) -> Spec | Study:
    """As `read`, of a reader that has read the files and bindings."""
    if grids or seeds is not None:
        return _study_of_axes(reader, files, bindings, grids, seeds)
    if reader.bindings.have(Sweep):
        return study_of(reader, files, bindings)
    return spec_of(reader)


def reader_of(files: Sequence[str], bindings: Sequence[str]) -> GinReader:
    """A reader that has read the files and then the bindings."""
    reader = GinReader()
    reader.read(files, bindings)
    return reader


def study_of(reader: GinReader, files: Sequence[str], bindings: Sequence[str]) -> Study:
    """The sweep that was read from these files and bindings.

    Their other bindings go into every cell. They override its spec; the grid's values override
    them.

    Raises SpecError for everything that can be known to be wrong, with the cell named.
    """
    reader.check_macros()
    config = reader.bindings.resolved(reader.imports)
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
    return Study(sweep, cells, tuple(dict.fromkeys(loader.modules)), config)


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


# Axes without a file


def _study_of_axes(
    reader: GinReader,
    files: Sequence[str],
    bindings: Sequence[str],
    grids: Sequence[str],
    seeds: int | None,
) -> Study:
    """The sweep of the experiments that files describe, or their own sweep, with more axes.

    reader: has read the files and bindings.
    """
    specs, name = _typed(reader, "specs"), str(_typed(reader, "name") or "sweep")
    if specs is None:
        specs, name = _specs_among(files)
        files = [file for file in files if file not in specs]
    every_seed = _seeds_of(specs, files, bindings) if seeds is not None else ()
    reader = reader_of(files, bindings)  # Gin's state is global, and seeds were looked for
    typed = [_axis_of(reader, text) for text in grids]
    if seeds is not None:
        typed.append((every_seed, tuple(range(seeds))))
    texts = [*grids, *([f"--seeds {seeds}"] if seeds is not None else [])]
    _bind(reader, "specs", specs, "--gin", repr(specs))
    _bind(reader, "grid", _grown(_typed(reader, "grid"), typed), "--grid", "; ".join(texts))
    if not _is_set_by_flag(reader, "name"):
        _bind(reader, "name", _name_by(name, [names for names, _ in typed]), "--grid", "its name")
    return study_of(reader, files, bindings)


def _typed(reader: GinReader, field: str) -> Any:
    """What was typed for a field of the sweep; None if nothing was."""
    binding = reader.bindings.typed.get(gin_state.parse_address(f"Sweep.{field}"))
    return None if binding is None else binding.value


def _is_set_by_flag(reader: GinReader, field: str) -> bool:
    binding = reader.bindings.typed.get(gin_state.parse_address(f"Sweep.{field}"))
    return binding is not None and binding.where == "--set"


def _bind(reader: GinReader, field: str, value: object, where: str, text: str) -> None:
    reader.bindings.add(gin_state.parse_address(f"Sweep.{field}"), text, where, value)


def _specs_among(files: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The files that describe an experiment by themselves, and the names of these experiments.

    Where none does, the first one is it. The others are laid over each of them.
    """
    names: dict[str, str] = {}
    for file in files:
        typed = reader_of([file], ()).bindings.typed
        name, curves = (gin_state.parse_address(f"Experiment.{f}") for f in ("name", "curves"))
        if name in typed and curves in typed:
            names[file] = str(typed[name].value)
    specs = names or dict.fromkeys(files[:1], "experiment")
    return tuple(specs), "+".join(specs.values())


def _seeds_of(
    specs: Iterable[str], files: Sequence[str], bindings: Sequence[str]
) -> tuple[str, ...]:
    """The bindings that decide the seeds which any of the specs reads."""
    loader = _CellLoader(files, bindings, ())
    names: dict[str, None] = {}
    for file in specs:
        loader.add(file, ())
        bound = gin_state.bound()
        seeds = [address for address in gin_state.lookups() if is_seed(str(address))]
        names |= dict.fromkeys(str(deciding(address, bound)) for address in seeds)
    if not names:
        raise SpecError("--seeds: nothing in these specs has a seed")
    return tuple(names)


def _axis_of(reader: GinReader, text: str) -> tuple[tuple[str, ...], object]:
    """The names and the values of "TopK.k = (2, 4)", or of "Pretrain.seed, TopK.k = (2, 4)".

    Raises SpecError where it is no axis.
    """
    left, equals, right = text.partition("=")
    names = tuple(re.findall(r"[^\s,'\"()]+", left))
    if not equals or not names or not right.strip():
        raise SpecError(f"--grid '{text}' must read NAME.parameter = (VALUE, VALUE, ...)")
    return names, reader.read_value(right, Source("--grid", is_file=False))


def _grown(grid: object, axes: Sequence[tuple[tuple[str, ...], object]]) -> object:
    """The grid of a file with more axes: one of the same names, or of seeds, is replaced."""
    if grid is not None and not isinstance(grid, Mapping):
        return grid  # it is refused for what it is
    seeds = any(is_seed(name) for names, _ in axes for name in names)
    grown: Grid = {
        key: values
        for key, values in (grid or {}).items()
        if not (seeds and any(map(is_seed, _names(key))))
    }
    for names, values in axes:
        grown[names if len(names) > 1 else names[0]] = values
    return grown


def _names(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _name_by(name: str, axes: Sequence[tuple[str, ...]]) -> str:
    """`sae_by_k_seed`: the experiments, and the last words of the axes unless two share one."""
    words = [names[0].rpartition(".")[2] for names in axes]
    shown = [
        word if words.count(word) == 1 else names[0]
        for word, names in zip(words, axes, strict=True)
    ]
    text = re.sub(r"[^\w.+-]+", "_", f"{name}_by_{'_'.join(shown)}")
    return text.lstrip("_.+-")[:LONGEST_NAME]
