"""From Gin text to an Experiment, or to the cells of a sweep: the only place where Gin is parsed.

Gin says nothing when a scope, a macro or a binding to an unused class is misspelt, and does not check types. So files are
read statement by statement here, with the place of every binding remembered, and whatever is wrong is said in the words
that were typed.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
import sys
import tokenize
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gin
from gin import config_parser

from monosem import (  # noqa: F401, they register
    arrays,
    augment,
    checkpoint,
    cifar,
    corruptions,
    data,
    encoders,
    evaluation,
    finetune,
    fit,
    folders,
    metrics,
    objectives,
    probes,
    projections,
    shapes,
    sparse,
    toy,
    training,
)
from monosem.curves import MONOSEMANTICITY, Swept, cell_name
from monosem.evaluation import Experiment
from monosem.stage import FieldError, Part, closure, key
from monosem.sweep import Assignment, Sweep

ROOT = Path(__file__).resolve().parent.parent  # includes are looked for here, after the working directory

Address = tuple[str, str, str]  # scope, complete selector of the configurable, parameter


Unread = dict[Address, Callable[[], "SpecError"]]  # what nothing reads, and what to say of it


class SpecError(ValueError):
    """A spec that cannot be meant. The message is one line for the person who typed it."""


class Typed(NamedTuple):
    """A binding as it was typed: `text`, at `where`, of `value`, the `order`-th of all. `beside`: said of all cells of a sweep
    at once, so that one may leave it unread which has no such thing."""

    text: str
    where: str
    value: object
    order: int
    beside: bool

    def __str__(self) -> str:
        return f"({self.where}: {self.text})" if self.where != "--set" else f"(--set '{self.text}')"


class Spec(NamedTuple):
    """experiment: what was asked for. config: the same as one resolved Gin file, defaults included."""

    experiment: Experiment
    config: str

    @property
    def name(self) -> str:
        return self.experiment.name


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


def load(files: Sequence[str], bindings: Sequence[str] = ()) -> Spec:
    """Read Gin files and then single bindings, later ones winning, and make the Experiment they describe.

    Raises SpecError for everything that can be known to be wrong before work begins.
    """
    reader = _Reader()
    reader.read(files, bindings)
    return _experiment(reader, checked=set())[0]


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
    for file, assignment in ((file, assignment) for file in sweep.specs for assignment in sweep.assignments()):
        values = [(name, value if isinstance(value, str) else repr(value)) for axis, value in assignment for name in axis.names]
        if any(of == file and set(values) >= set(read) for of, read in cells):
            continue  # it differs from a cell in what that leaves unread: it is that cell
        try:
            reader = _Reader()
            reader.read_file(file, "Sweep.specs")
            if any(selector == _selector(Sweep) for _, selector, _ in reader.typed):
                raise SpecError(f"Sweep.specs {file} is a sweep itself; it must be the Gin file of an experiment")
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
        spared = any(address in axis and not axis <= nowhere for axis in axes)  # another of its axis is read: that is enough
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
            raise SpecError(f"Sweep.grid: {name} is of the sweep itself; an axis is a binding of its specs")
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
        if cell.name in ("curves.csv", "summary.md", "stopped.json", "cells.txt", "logs") or cell.name.endswith(".png"):
            raise SpecError(f"Experiment.name: {cell.name} is what a sweep calls a file of its own; another name, please")
    if len({cell.name for cell in found}) < len(found):
        raise SpecError("Sweep.grid: two cells would share a folder, as their values differ only in signs that a folder's name cannot hold")
    if sweep.baseline is not None and sweep.baseline not in owners:
        raise SpecError(
            f"Sweep.baseline must be one of {', '.join(owners)}, got {sweep.baseline!r}"
            + _nearest(sweep.baseline, owners, "; did you mean {}?")
        )
    kinds = {type(stage).__name__ for cell in found for stage in closure(cell.experiment.stages)}
    for kind, _ in sweep.resources:
        if kind not in kinds:
            raise SpecError(f"Sweep.resources must be of kinds of stages in this sweep, {', '.join(sorted(kinds))}, got {kind!r}")
    _check_words(sweep, found)
    return tuple(sorted(found, key=lambda cell: cell.experiment.name != (sweep.baseline or next(iter(owners)))))


def _check_words(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """SpecError where the goal or the claim of a sweep names what curves.csv will not have."""
    clean = {name for measure in {m for cell in cells for m in cell.experiment.measures} for name in measure.names()}
    curves = {curve for cell in cells for curve in cell.experiment.curves}

    def check(field: str, word: str, words: Iterable[str]) -> None:
        if word not in words:
            raise SpecError(
                f"{field} must be one of {', '.join(sorted(words))}, got {word!r}" + _nearest(word, words, "; did you mean {}?")
            )

    if goal := sweep.goal:
        points = {(curve.name, severity, metric) for curve in curves for severity in curve.severities for metric in curve.metrics}
        points |= {(MONOSEMANTICITY, 0.0, name) for name in clean}
        if (goal.curve, goal.severity, goal.metric) not in points:
            asked, known = f"{goal.metric} of {goal.curve} at {goal.severity:g}", [f"{m} of {c} at {s:g}" for c, s, m in sorted(points)]
            raise SpecError(f"Sweep.goal: there is no {asked}" + (_nearest(asked, known, "; did you mean {}?") or f"; there is {known[0]}"))
        for bound in goal.bounds:
            check("Sweep.goal: Bound.metric", bound.metric, clean)
    if claim := sweep.claim:
        for name in (claim.measure, *claim.controls):
            check(f"Sweep.claim: Claim.{'measure' if name == claim.measure else 'controls'}", name, clean)
        for name in claim.curves:
            check(
                "Sweep.claim: Claim.curves", name, {curve.name for curve in curves if len(curve.severities) > 1 and 0.0 in curve.severities}
            )


def _experiment(reader: _Reader, checked: set[str]) -> tuple[Spec, Unread]:
    """The experiment of what was read, and of what was said beside it what it leaves unread. checked: keys of stages that need
    no second look at their data."""
    reader.check_macros()
    _name_curves(reader.typed)
    experiment: Experiment = _build(Experiment, reader.typed)
    unread = _drop_unread(reader)
    try:
        for stage in closure(experiment.stages):
            if key(stage) not in checked:
                stage.preflight()
                checked.add(key(stage))
        experiment.preflight()
    except FieldError as error:
        raise SpecError(_explain(error, reader.typed)) from None
    return Spec(experiment, _resolved(reader.imports)), unread


# ------------------------------------------------------------------------------------------------ reading


class _Reader(config_parser.ParserDelegate):
    """Reads statements into Gin's state and remembers where each binding came from."""

    def __init__(self) -> None:
        gin.clear_config()
        self.typed: dict[Address, Typed] = {}
        self.imports: list[str] = []
        self.modules: list[str] = []
        self.beside = False  # whether what is read now is said of all cells of a sweep
        self.replaced: list[tuple[int, object]] = []  # when a binding was replaced by a later one of its name, and its value
        self.count = 0
        self.macros_used: dict[str, str] = {}
        self.open_files: list[Path] = []
        self.gin = gin.config.ParserDelegate()
        self.place: Callable[[], str] = str  # where the parser is; references are met before their statement is whole

    def read(self, files: Sequence[str], bindings: Sequence[str], assignment: Assignment = ()) -> None:
        for file in files:
            self.read_file(file, "--gin")
        for binding in bindings:
            if not self.read_text(binding, "--set"):
                raise SpecError(f"--set {binding!r} holds no binding")
        for axis, value in assignment:
            for name in axis.names:
                self.read_text(f"{name} = {value!r}", "Sweep.grid")

    def read_file(self, name: str, asked_by: str) -> None:
        near = [self.open_files[-1].parent] if self.open_files else []
        path = next((place / name for place in (Path(), *near, ROOT) if (place / name).is_file()), None)
        if path is None:
            kind = "is a folder, not a Gin file" if name and Path(name).is_dir() else "does not exist"
            raise SpecError(f"{asked_by} {name or repr(name)}: the file {kind}" + _nearest(name, _gin_files(), "; did you mean {}?"))
        if path.resolve() in self.open_files:
            raise SpecError(f"{asked_by}: {name} includes itself")
        self.open_files.append(path.resolve())
        try:
            self.read_text(path.read_text(encoding="utf-8-sig"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"{name} cannot be read: {error}") from None
        self.open_files.pop()

    def read_text(self, text: str, source: str) -> int:
        """The number of statements."""
        lines, outer, count = text.split("\n"), self.place, 0
        try:
            parser = config_parser.ConfigParser(text, self)
            single = source in ("--set", "Sweep.grid")
            self.place = lambda: source if single else f"{source}:{parser.current_token.start[0]}"
            for statement in parser:
                number = statement.location.line_num
                where = source if single else f"{source}:{number}"
                first, last = lines[number - 1].strip(), parser.current_token.start[0]
                more = any(line.strip() and not line.strip().startswith("#") for line in lines[number : last - 1])
                self._take(statement, where, f"{first} ..." if more else first)
                count += 1
            self.place = outer
            return count
        except SpecError as error:  # Gin adds lines about where it was
            raise SpecError(str(error).splitlines()[0]) from None
        except (SyntaxError, tokenize.TokenError) as error:
            line = getattr(error, "lineno", None)
            reason = str(error.args[0]).splitlines()[0].strip().rstrip(".")
            place = f"{source} '{text}'" if single else f"{source}:{line}" if line else source
            raise SpecError(f"{place} is not Gin: {reason}. A binding reads NAME.parameter = value") from None

    def _take(self, statement: Any, where: str, line: str) -> None:
        if isinstance(statement, config_parser.IncludeStatement):
            self.read_file(statement.filename, f"include in {where}")
        elif isinstance(statement, config_parser.ImportStatement):
            self._import(statement.module, where)
            self.imports.append(statement.format())
            self.modules.append(statement.module)
        elif isinstance(statement, config_parser.BlockDeclaration):
            _known(statement.selector, where)
        elif statement.arg_name:
            self._bind(
                statement.scope, statement.selector, statement.arg_name, Typed(line, where, statement.value, self.count, self.beside)
            )
        else:  # a macro: name = value
            name = "/".join(part for part in (statement.scope, statement.selector) if part)
            self._bind(name, "gin.macro", "value", Typed(line, where, statement.value, self.count, self.beside))

    def _import(self, module: str, where: str) -> None:
        """Import a module of the user's, which may lie where they are or beside their Gin file."""
        places = [str(Path.cwd()), *(str(file.parent) for file in self.open_files[-1:])]
        sys.path[:0] = [place for place in places if place not in sys.path]
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever it raises is told in one line
            frames = traceback.extract_tb(error.__traceback__)
            last = f", {frames[-1].filename}:{frames[-1].lineno}" if frames and "importlib" not in frames[-1].filename else ""
            raise SpecError(f"{where}: import {module} failed: {type(error).__name__}: {error}{last}".replace("\n", " ")) from None

    def _bind(self, scope: str, selector: str, parameter: str, typed: Typed) -> None:
        names = _known(selector, typed.where)
        if names is not None and parameter not in names:
            hint = _nearest(parameter, names, "; did you mean {}?") or f"; it has {', '.join(sorted(names)) or 'none'}"
            raise SpecError(f"{selector} has no parameter {parameter!r} {typed}{hint}")
        binding = gin.config.ParsedBindingKey.parse((scope, selector, parameter))
        gin.bind_parameter(binding, typed.value)
        if binding.scope_selector_arg in self.typed:
            self.replaced.append((self.count, self.typed[binding.scope_selector_arg].value))
        self.typed[binding.scope_selector_arg] = typed
        self.count += 1

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> object:
        _known(scoped_selector.rsplit("/", 1)[-1], self.place(), "@")
        return self.gin.configurable_reference(scoped_selector, evaluate)

    def macro(self, name: str) -> object:
        self.macros_used.setdefault(name, self.place())
        return self.gin.macro(name)

    def check_macros(self) -> None:
        defined = [scope for scope, selector, _ in self.typed if selector == "gin.macro"]
        for name, where in self.macros_used.items():
            if name not in defined:
                hint = _nearest(name, defined, "; did you mean %{}?")
                raise SpecError(f"%{name} is used but never defined ({where}){hint}")


def _known(selector: str, where: str, sigil: str = "") -> list[str] | None:
    """The parameters of a configurable (None if they cannot be told), or SpecError if there is none of that name."""
    try:
        target = gin.get_configurable(selector)
    except ValueError:
        raise SpecError(
            f"there is nothing called {sigil}{selector} ({where})" + _nearest(selector, _configurables(), "; did you mean {}?")
        ) from None
    return [field.name for field in fields(target)] if is_dataclass(target) else None


def _configurables() -> list[str]:
    """The names of everything that was registered."""
    return sorted({selector.split(".")[-1] for selector, _ in gin.config._REGISTRY.items() if not selector.startswith("gin.")})


def _nearest(word: str, candidates: Iterable[str], phrase: str) -> str:
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return phrase.format(found[0]) if found else ""


def _gin_files() -> list[str]:
    return [str(path.relative_to(ROOT)) for folder in ("gin", "sweeps") for path in sorted((ROOT / folder).rglob("*.gin"))]


# ------------------------------------------------------------------------------------------------ building


def _name_curves(typed: dict[Address, Typed]) -> None:
    """A curve is called by its scope (@label_noise/Curve() is 'label_noise') unless a binding names it otherwise."""
    bound = typed.get(_address("Experiment.curves"))
    pending = [*_references(bound.value)] if bound is not None else []
    while pending:
        scope, selector = pending.pop()
        name = (scope, selector, "name")
        if selector == "gin.macro" and (scope, selector, "value") in typed:
            pending += _references(typed[scope, selector, "value"].value)
        elif "name" in (_known(selector, "") or ()) and not {name, ("", selector, "name")} & typed.keys():
            gin.bind_parameter(name, scope.replace("/", "_") or "curve")


def _build(what: type[Part], typed: dict[Address, Typed]) -> Any:
    try:
        return gin.get_configurable(what)()
    except FieldError as error:
        raise SpecError(_explain(error, typed)) from None
    except RecursionError:
        raise SpecError("the bindings refer to one another in a circle: some @Name() or %macro holds itself") from None
    except TypeError as error:
        missing = re.match(r"(\w+)\.__init__\(\) missing .*?: (.*)", str(error))
        if missing is None:
            raise
        names = re.findall(r"'(\w+)'", missing[2])
        wants = " and ".join(f"{missing[1]}.{name}" for name in names)
        raise SpecError(f"{wants} must be set: no file and no --set binds {'it' if len(names) == 1 else 'them'}") from None


def _explain(error: FieldError, typed: dict[Address, Typed]) -> str:
    """What a field refused, with the binding that put it there. Proxied by Gin, the message goes on for lines: the first counts."""
    message = str(error).splitlines()[0]
    bindings = [t for (_, selector, name), t in typed.items() if selector.split(".")[-1] == error.owner and name == error.field]
    exact = [t for t in bindings if repr(_plain(t.value)) == repr(_plain(error.value))]  # 256 is not 256.0
    culprit = (exact or bindings)[-1:] if len(bindings) == 1 or exact else []
    return " ".join([message, *map(str, culprit)])


def _plain(value: object) -> object:
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else value


def _address(binding: str) -> Address:
    """Of a binding's name as it is typed: pretrain/Adam.lr; or the name of a macro."""
    if "." not in binding:
        return binding, "gin.macro", "value"
    key: Address = gin.config.ParsedBindingKey.parse(binding).scope_selector_arg
    return key


def _selector(what: type[Part]) -> str:
    selector: str = gin.config.ParsedBindingKey.parse(("", what.__name__, "name")).complete_selector
    return selector


def _deciding(address: Address, bound: Container[Address]) -> Address | None:
    """The binding that decides what `address` reads: that of the narrowest scope around it, if there is one."""
    scope, selector, name = address
    parts = scope.split("/") if scope else []
    around = (("/".join(parts[:n]), selector, name) for n in range(len(parts), -1, -1))
    return next((candidate for candidate in around if candidate in bound), None)


def _read() -> list[Address]:
    """All that was looked up while building, bound or not. Gin keeps it, by scope and selector, in its operative config."""
    return [(*place, name) for place, values in gin.config._OPERATIVE_CONFIG.items() for name in values]


def _drop_unread(reader: _Reader) -> Unread:
    """A binding that decides nothing is a mistake, unless a later binding has replaced what would have read it: then it is
    dropped. So `Experiment.curves = (@gaussian/Curve(),)` after a setting may leave out what that says of other curves.
    What was said beside a spec is dropped too, and answered with what is wrong about it if no other spec reads it either."""
    typed, read = reader.typed, _read()
    deciding = {_deciding(address, typed) for address in read}
    superseded = _superseded(reader)
    unread: Unread = {}
    for address, binding in typed.items():
        if address in deciding:
            continue
        if address not in superseded:
            problem = functools.partial(_no_effect, address, binding, deciding, read)
            if not binding.beside:
                raise problem()
            unread[address] = problem
        bound = gin.config._CONFIG[address[:2]]
        del bound[address[2]]
        if not bound:
            del gin.config._CONFIG[address[:2]]
    return unread


def _no_effect(address: Address, binding: Typed, deciding: set[Address | None], read: list[Address]) -> SpecError:
    scope, selector, name = address
    narrower = sorted(_spell(*other) for other in deciding if other and other[1:] == (selector, name))
    if selector == "gin.macro":
        return SpecError(f"{binding.text} has no effect: it names no parameter, and nothing uses %{scope} as a macro {binding}")
    if any(_deciding((*place, name), (address,)) for place in (each[:2] for each in read) if place[1] == selector):
        return SpecError(f"{binding.text} has no effect: {', '.join(narrower)} decide instead {binding}")
    possible = {_spell(*each) for each in read} | {_spell("", *each[1:]) for each in read}
    hint = _nearest(_spell(*address), possible, ". Did you mean {}?")
    return SpecError(f"{binding.text} has no effect: nothing in this experiment reads it {binding}{hint}")


def _references(value: object) -> Iterator[tuple[str, str]]:
    """Scope and selector of every @Name() in a value."""
    if isinstance(value, gin.config.ConfigurableReference):
        yield "/".join(value.scopes), value.configurable.selector
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _references(item)


def _superseded(reader: _Reader) -> set[Address]:
    """The bindings, typed before a value was replaced, that it would have read, itself or through what it refers to."""
    found: set[Address] = set()
    pending = [(when, *reference) for when, value in reader.replaced for reference in _references(value)]
    while pending:
        when, scope, selector = pending.pop()
        for address, binding in reader.typed.items():
            if address not in found and binding.order < when and _deciding((scope, selector, address[2]), (address,)):
                found.add(address)
                inner = _references(binding.value)
                pending += [(when, narrower or scope, name) for narrower, name in inner]  # a bare @Name() stays in scope
    return found


def _spell(scope: str, selector: str, parameter: str) -> str:
    return f"{scope}/{selector.split('.')[-1]}.{parameter}".removeprefix("/")


def _resolved(imports: list[str]) -> str:
    """All bindings as one Gin file, with the defaults that were used, so that a default that changes later changes nothing."""
    bound = {(*place, name) for place, values in gin.config._CONFIG.items() for name in values}
    for scope, selector, name in _read():
        if _deciding((scope, selector, name), bound) is None:
            gin.bind_parameter(("", selector, name), gin.config._OPERATIVE_CONFIG[scope, selector][name])
            bound.add(("", selector, name))
    return "\n".join([*dict.fromkeys(imports), gin.config_str(max_line_length=120)])
