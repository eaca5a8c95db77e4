"""Finds Gin files by their names and reads them, statement by statement, into bindings.

Gin's own reading forgets the line and accepts misspelt scopes and names. It knows no experiment.
"""

from __future__ import annotations

import contextvars
import importlib
import re
import sys
import tokenize
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gin
from gin import config_parser

from monosem.core.fields import nearest
from monosem.specs import gin_state
from monosem.specs.bindings import Bindings, as_typed
from monosem.specs.errors import SpecError
from monosem.specs.gin_state import MACRO

PACKAGE = Path(__file__).resolve().parent.parent
SHIPPED = PACKAGE / "library"  # only an installed monosem has it
LIBRARY = SHIPPED if SHIPPED.is_dir() else PACKAGE.parent  # holds the folders gin and sweeps
FOLDERS = ("gin", "sweeps")
SAFE = ("math", "monosem", "numpy", "torch", "torchvision")  # what a Gin file may import by --safe
_only_safe = contextvars.ContextVar("only safe imports", default=False)


@contextmanager
def safe_imports() -> Iterator[None]:
    """As long as the block lasts, Gin files import nothing but what is in SAFE.

    An import runs what is at the top of a module, which may be anything.
    """
    token = _only_safe.set(True)
    try:
        yield
    finally:
        _only_safe.reset(token)


class Source(NamedTuple):
    """Where text comes from.

    name: of a file, or `--set` or `Sweep.grid`.
    is_file: a file has lines to name.
    """

    name: str
    is_file: bool

    def at(self, line: int | None) -> str:
        return f"{self.name}:{line}" if self.is_file and line else self.name


class GinReader(config_parser.ParserDelegate):
    """Reads files and single bindings; makes fresh `Bindings` of them.

    bindings: all that was read.
    imports: the import statements.
    modules: what they import.
    """

    def __init__(self) -> None:
        self.bindings = Bindings()
        self.imports: list[str] = []
        self.modules: list[str] = []
        self._macros_used: dict[str, str] = {}  # and where first
        self._open_files: list[Path] = []
        # references are met before their statement is whole
        self._typed_here: Callable[[], str] = str
        self._gin = gin.config.ParserDelegate()

    # what is read

    def read(self, files: Sequence[str], bindings: Sequence[str]) -> None:
        """Files and then single bindings, as --gin and --set give them; later ones win."""
        for name in files:
            self.read_file(name, "--gin")
        for binding in bindings:
            if not self.read_text(binding, Source("--set", is_file=False)):
                raise SpecError(f"--set {binding!r} holds no binding")

    def read_file(self, name: str, asked_by: str) -> None:
        including = self._open_files[-1] if self._open_files else None
        path = find_file(name, asked_by, including)
        if path.resolve() in self._open_files:
            raise SpecError(f"{asked_by}: {name} includes itself")
        text = _text_of(path, f"{asked_by} {name}")
        self._open_files.append(path.resolve())
        count = self.read_text(text, Source(name, is_file=True))
        self._open_files.pop()
        if count == 0 and including is None:
            advice = "begin with include 'gin/digits.gin'"
            raise SpecError(f"{asked_by} {name}: the file binds nothing; {advice}")

    def read_text(self, text: str, source: Source) -> int:
        """Returns the number of statements."""
        count = 0
        with _syntax_errors(text, source):
            parser = config_parser.ConfigParser(text, self)
            outer = self._typed_here
            self._typed_here = lambda: _line_as_typed(text, source, parser.current_token.start[0])
            for statement in parser:
                line, end = statement.location.line_num, parser.current_token.start[0]
                self._take(statement, source.at(line), _statement_text(text, line, end))
                count += 1
            self._typed_here = outer
        return count

    def read_value(self, text: str, source: Source) -> object:
        """A value alone, such as (2, 4, 8) or (@TopK(), @L1())."""
        with _syntax_errors(text, source):
            parser = config_parser.ConfigParser(text.strip(), self)
            outer, self._typed_here = self._typed_here, lambda: as_typed(text, source.name)
            value = parser.parse_value()
            self._typed_here = outer
            if parser.current_token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER):
                raise SyntaxError("there is more behind the value")
            return value

    def _take(self, statement: Any, where: str, typed: str) -> None:
        if isinstance(statement, config_parser.IncludeStatement):
            self.read_file(statement.filename, f"include in {where}")
        elif isinstance(statement, config_parser.ImportStatement):
            self._import(statement.module, where)
            self.imports.append(statement.format())
            self.modules.append(statement.module)
        elif isinstance(statement, config_parser.BlockDeclaration):
            self._known_parameters(statement.selector, as_typed(typed, where))
        elif statement.arg_name:
            self._bind(statement, where, typed)
        else:
            self._define_macro(statement, where, typed)

    def _bind(self, statement: config_parser.BindingStatement, where: str, typed: str) -> None:
        scope, selector, parameter, value, _ = statement
        place = as_typed(typed, where)
        parameters = self._known_parameters(selector, place)
        if parameters is not None and parameter not in parameters:
            choices = ", ".join(sorted(parameters)) or "none"
            hint = nearest(parameter, parameters, "; did you mean {}?") or f"; it has {choices}"
            raise SpecError(f"{selector} has no parameter {parameter!r} {place}{hint}")
        address = gin_state.complete_address(scope, selector, parameter)
        self.bindings.add(address, typed, where, value)

    def _define_macro(
        self, statement: config_parser.BindingStatement, where: str, typed: str
    ) -> None:
        name = "/".join(part for part in (statement.scope, statement.selector) if part)
        address = gin_state.complete_address(name, MACRO, "value")
        self.bindings.add(address, typed, where, statement.value)

    def _import(self, module: str, where: str) -> None:
        """Import a module of the user's, which may lie where they are or beside their Gin file."""
        if _only_safe.get() and module.partition(".")[0] not in SAFE:
            raise SpecError(
                f"{where}: import {module} is refused by --safe, as it would run code of its own; "
                f"allowed are {', '.join(SAFE)}"
            )
        folders = [str(Path.cwd()), *(str(path.parent) for path in self._open_files[-1:])]
        sys.path[:0] = [folder for folder in folders if folder not in sys.path]
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a module may raise anything
            reason = f"{type(error).__name__}: {error}{_raised_at(error)}"
            if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
                looked_in = " and ".join(dict.fromkeys(folders))
                reason += f"; it is neither installed nor in {looked_in}"
            message = f"{where}: import {module} failed: {reason}".replace("\n", " ")
            raise SpecError(message) from None

    # what Gin's parser calls where it meets @Name and %name

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> object:
        self._known_parameters(scoped_selector.rpartition("/")[2], self._typed_here(), "@")
        return self._gin.configurable_reference(scoped_selector, evaluate)

    def macro(self, name: str) -> object:
        self._macros_used.setdefault(name, self._typed_here())
        return self._gin.macro(name)

    def _known_parameters(self, selector: str, place: str, sigil: str = "") -> list[str] | None:
        """The parameters of a configurable; None if they cannot be told.

        place: the statement and where it is, in brackets, for the message.
        Raises SpecError if there is none of that name.
        """
        try:
            return gin_state.parameters(selector)
        except ValueError:
            unregistered = self._unregistered(selector)
            if unregistered:
                raise SpecError(f"{unregistered} lacks @gin.register {place}") from None
            hint = nearest(selector, gin_state.registered_names(), "; did you mean {}?")
            raise SpecError(f"there is nothing called {sigil}{selector} {place}{hint}") from None

    def _unregistered(self, selector: str) -> str:
        """The class of that name in a module that a file imports; '' if there is none."""
        name = selector.rpartition(".")[2]
        for module in self.modules:
            if isinstance(getattr(sys.modules.get(module), name, None), type):
                return f"{module}.{name}"
        return ""

    def check_macros(self) -> None:
        """Raises SpecError for a %name that nothing defines."""
        defined = [a.scope for a in self.bindings.typed if a.selector == MACRO]
        for name, place in self._macros_used.items():
            if name not in defined:
                hint = nearest(name, defined, "; did you mean %{}?")
                raise SpecError(f"%{name} is used but never defined {place}{hint}")


def _text_of(path: Path, asked_as: str) -> str:
    """The text of a file. asked_as: what was typed, for the message."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError(f"{asked_as}: the file is not a text file") from None
    except OSError as error:
        raise SpecError(f"{asked_as}: the file cannot be read: {error.strerror}") from None


def _line_as_typed(text: str, source: Source, line: int) -> str:
    """A line of a text and its place, as messages end with them."""
    lines = text.split("\n")
    return as_typed(lines[line - 1].strip() if line <= len(lines) else "", source.at(line))


@contextmanager
def _syntax_errors(text: str, source: Source) -> Iterator[None]:
    """What the parser refuses, in one line with its place."""
    try:
        yield
    except SpecError as error:
        raise SpecError(str(error).splitlines()[0]) from None  # Gin adds lines about where it was
    except (SyntaxError, tokenize.TokenError) as error:
        reason = _syntax_reason(str(error.args[0]))
        line = getattr(error, "lineno", None)
        place = source.at(line) if source.is_file else f"{source.name} '{text}'"
        raise SpecError(f"{place} is not Gin: {reason}") from None


def _syntax_reason(message: str) -> str:
    """What Gin's parser says, and how it is written instead."""
    not_a_value = re.search(r"malformed node.*Failed to parse token '(\w+)'", message, re.DOTALL)
    if not_a_value is None:
        reason = message.splitlines()[0].strip().rstrip(".")
        return f"{reason}. A binding reads NAME.parameter = value"
    word = not_a_value[1]
    if word in gin_state.registered_names():
        return f"{word}() is no value: write @{word}() for an object, quotes for a string"
    if word.capitalize() in ("True", "False", "None"):
        return f"{word} is no value: write {word.capitalize()}, or quotes for a string"
    return f"{word} is no value: write quotes for a string, @Name() for an object"


def _statement_text(text: str, line: int, end: int) -> str:
    """The first line of a statement, with ... if it goes on.

    line: where it begins, counted from 1.
    end: where the next one begins.
    """
    lines = [row.strip() for row in text.split("\n")]
    goes_on = any(more and not more.startswith("#") for more in lines[line : end - 1])
    return f"{lines[line - 1]} ..." if goes_on else lines[line - 1]


def _raised_at(error: BaseException) -> str:
    """Where a module raised, if that is known and not inside Python's own import."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "importlib" in frames[-1].filename:
        return ""
    return f", {frames[-1].filename}:{frames[-1].lineno}"


def find_file(name: str, asked_by: str, including: Path | None = None) -> Path:
    """The file that a name means.

    Looked for in the working directory, then beside the file that includes it and one folder above,
    then among the files that come with monosem: there `gin/` or `sweeps/` may be left out, and a
    bare name is looked for in all folders.

    asked_by: `--gin` or where the name was typed, for the message.
    including: the file that includes it.
    Raises SpecError if there is no such file, or if a bare name stands for several.
    """
    for path in _places(name, including):
        if path.is_file():
            return path
    namesakes = [known for known in shipped_files() if Path(known).name == name]
    if len(namesakes) == 1:
        return LIBRARY / namesakes[0]
    if namesakes:
        raise SpecError(
            f"{asked_by} {name}: several files are called so: {', '.join(namesakes)}; which one?"
        )
    kind = "is a folder, not a Gin file" if name and Path(name).is_dir() else "does not exist"
    raise SpecError(f"{asked_by} {name or repr(name)}: the file {kind}{_nearest_file(name)}")


def _nearest_file(name: str) -> str:
    """A hint at the shipped file that is called most alike; '' if none is.

    Names are compared without folder and .gin, which all have in common: nope.gin is not toy.gin.
    """
    shipped = shipped_files()
    stems = sorted({Path(file).stem for file in shipped})
    alike = nearest(Path(name).stem, stems, "{}", cutoff=0.65)
    namesakes = [file for file in shipped if Path(file).stem == alike]
    return nearest(name, namesakes, "; did you mean {}?", cutoff=0)


def _places(name: str, including: Path | None) -> Iterator[Path]:
    yield Path(name)
    if including is not None:
        yield including.parent / name
        yield including.parent.parent / name
    yield LIBRARY / name
    for folder in FOLDERS:
        yield LIBRARY / folder / name


def shipped_files() -> list[str]:
    """The files that come with monosem, as they are typed: gin/ncl.gin."""
    return [
        str(path.relative_to(LIBRARY))
        for folder in FOLDERS
        for path in sorted((LIBRARY / folder).rglob("*.gin"))
    ]
