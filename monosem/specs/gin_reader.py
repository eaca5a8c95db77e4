"""TODO."""

from __future__ import annotations

import importlib
import sys
import tokenize
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import gin
from gin import config_parser

from monosem.specs.errors import Address, Binding, SpecError, _nearest
from monosem.specs.sweep import Assignment

ROOT = (
    Path(__file__).resolve().parent.parent
)  # includes are looked for here, after the working directory


# ------------------------------------------------------------------------------------------------ reading


class _Reader(config_parser.ParserDelegate):
    """Reads statements into Gin's state and remembers where each binding came from."""

    def __init__(self) -> None:
        gin.clear_config()
        self.typed: dict[Address, Binding] = {}
        self.imports: list[str] = []
        self.modules: list[str] = []
        self.beside = False  # whether what is read now is said of all cells of a sweep
        self.replaced: list[
            tuple[int, object]
        ] = []  # when a binding was replaced by a later one of its name, and its value
        self.count = 0
        self.macros_used: dict[str, str] = {}
        self.open_files: list[Path] = []
        self.gin = gin.config.ParserDelegate()
        self.place: Callable[[], str] = (
            str  # where the parser is; references are met before their statement is whole
        )

    def read(
        self, files: Sequence[str], bindings: Sequence[str], assignment: Assignment = ()
    ) -> None:
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
        path = next(
            (place / name for place in (Path(), *near, ROOT) if (place / name).is_file()), None
        )
        if path is None:
            kind = (
                "is a folder, not a Gin file" if name and Path(name).is_dir() else "does not exist"
            )
            raise SpecError(
                f"{asked_by} {name or repr(name)}: the file {kind}"
                + _nearest(name, _gin_files(), "; did you mean {}?")
            )
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
                more = any(
                    line.strip() and not line.strip().startswith("#")
                    for line in lines[number : last - 1]
                )
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
            raise SpecError(
                f"{place} is not Gin: {reason}. A binding reads NAME.parameter = value"
            ) from None

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
                statement.scope,
                statement.selector,
                statement.arg_name,
                Binding(line, where, statement.value, self.count, self.beside),
            )
        else:  # a macro: name = value
            name = "/".join(part for part in (statement.scope, statement.selector) if part)
            self._bind(
                name,
                "gin.macro",
                "value",
                Binding(line, where, statement.value, self.count, self.beside),
            )

    def _import(self, module: str, where: str) -> None:
        """Import a module of the user's, which may lie where they are or beside their Gin file."""
        places = [str(Path.cwd()), *(str(file.parent) for file in self.open_files[-1:])]
        sys.path[:0] = [place for place in places if place not in sys.path]
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever it raises is told in one line
            frames = traceback.extract_tb(error.__traceback__)
            last = (
                f", {frames[-1].filename}:{frames[-1].lineno}"
                if frames and "importlib" not in frames[-1].filename
                else ""
            )
            raise SpecError(
                f"{where}: import {module} failed: {type(error).__name__}: {error}{last}".replace(
                    "\n", " "
                )
            ) from None

    def _bind(self, scope: str, selector: str, parameter: str, typed: Binding) -> None:
        names = _known(selector, typed.where)
        if names is not None and parameter not in names:
            hint = (
                _nearest(parameter, names, "; did you mean {}?")
                or f"; it has {', '.join(sorted(names)) or 'none'}"
            )
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
            f"there is nothing called {sigil}{selector} ({where})"
            + _nearest(selector, _configurables(), "; did you mean {}?")
        ) from None
    return [field.name for field in fields(target)] if is_dataclass(target) else None


def _configurables() -> list[str]:
    """The names of everything that was registered."""
    return sorted(
        {
            selector.split(".")[-1]
            for selector, _ in gin.config._REGISTRY.items()
            if not selector.startswith("gin.")
        }
    )


def _gin_files() -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for folder in ("gin", "sweeps")
        for path in sorted((ROOT / folder).rglob("*.gin"))
    ]
