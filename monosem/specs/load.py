"""From Gin text to an Experiment, checked as far as it can be before anything runs."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

import gin

from monosem import (
    autoencoders,
    classifiers,
    code_losses,
    common_corruptions,
    corruptions,
    data,
    datasets,
    evaluation,
    language,
    learning,
    metrics,
    models,
    pretrained,
    probes,
    questions,
    robustness,
    shifts,
    toys,
)
from monosem.core.fields import FieldError, Part, parts_in, raise_together
from monosem.core.stage import closure, key
from monosem.evaluation.experiment import Experiment
from monosem.specs import gin_state
from monosem.specs.bindings import Bindings, Unread
from monosem.specs.errors import SpecError
from monosem.specs.gin_reader import GinReader
from monosem.specs.gin_state import MACRO, Address, Reference, references
from monosem.specs.sweep import Sweep

Kind = TypeVar("Kind", bound=Part)
# Where these do not go together, more is refused that follows from it: the first is told alone.
WITH_CONSEQUENCES = ("data", "encoder", "reference_encoder")


class Spec(NamedTuple):
    """What Gin files describe.

    experiment: plain data, that knows no Gin.
    config: the same as one resolved Gin file, defaults included.
    """

    experiment: Experiment
    config: str

    @property
    def name(self) -> str:
        return self.experiment.name

    @property
    def experiments(self) -> dict[str, Experiment]:
        """By the name of the cell, as of a Study; a single experiment is no cell."""
        return {"": self.experiment}


def register(*folders: ModuleType) -> None:
    """Import every file of the folders, which registers what it holds: a new file needs no list."""
    for folder in folders:
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            importlib.import_module(module.name)


register(
    data,
    learning,
    autoencoders,
    code_losses,
    metrics,
    questions,
    datasets,
    corruptions,
    common_corruptions,
    models,
    pretrained,
    probes,
    shifts,
    classifiers,
    robustness,
    toys,
    language,
    evaluation,
)


def load(files: str | Path | Sequence[str | Path], bindings: str | Sequence[str] = ()) -> Spec:
    """The Experiment that Gin files describe, and then single bindings; later ones win.

    files: paths, or names of files that come with monosem: "ncl.gin"; one or several.
    bindings: "Pretrain.epochs = 20"; one or several.
    Raises SpecError for everything that can be known to be wrong before work begins. A sweep is
    wrong here: the command line runs it; in Python it is a loop over `load` with bindings.
    """
    names = [files] if isinstance(files, str | Path) else files
    reader = GinReader()
    reader.read(list(map(str, names)), [bindings] if isinstance(bindings, str) else bindings)
    return spec_of(reader)


def spec_of(reader: GinReader) -> Spec:
    """The single experiment that was read. Raises SpecError as `load` does."""
    if reader.bindings.have(Sweep):
        raise SpecError(
            "these files describe a sweep, which holds many experiments: run it with "
            "monosem --gin FILE, or load its specs one by one"
        )
    spec, _ = experiment_of(reader, checked=set())
    return spec


def experiment_of(reader: GinReader, checked: set[object]) -> tuple[Spec, dict[Address, Unread]]:
    """The experiment that was read, and the shared bindings that it leaves unread.

    checked: parts whose files, and keys of stages whose data, need no second look; those that are
        looked at are added.
    """
    reader.check_macros()
    bindings = reader.bindings
    _bind_defaults(bindings)
    _name_curves(bindings)
    experiment = build(Experiment, bindings)
    unread = bindings.drop_unread()
    try:
        _check(experiment, checked)
    except FieldError as error:
        raise SpecError(bindings.explain(error)) from None
    return Spec(experiment, bindings.resolved(reader.imports)), unread


def _check(experiment: Experiment, checked: set[object]) -> None:
    """Raises FieldError with all that is wrong, first of the files, and then of what goes together.

    checked: as of `experiment_of`.
    """
    parts = [part for part in parts_in(experiment) if part not in checked]
    raise_together(list(_refusals(part.content for part in parts)))
    stages = [stage for stage in closure(experiment.stages) if key(stage) not in checked]
    checks = [*(stage.preflight for stage in stages), experiment.preflight]
    refusals = list(_refusals(checks))
    mismatches = [error for error in refusals if error.field in WITH_CONSEQUENCES]
    raise_together(mismatches[:1] or refusals)
    checked.update(parts)
    checked.update(map(key, stages))


def _refusals(checks: Iterable[Callable[[], object]]) -> Iterator[FieldError]:
    for check in checks:
        try:
            check()
        except FieldError as error:
            yield error


def build(kind: type[Kind], bindings: Bindings) -> Kind:
    """The object that the bindings describe. Raises SpecError where they do not go together."""
    try:
        built: Kind = gin.get_configurable(kind)()
        return built
    except FieldError as error:
        raise SpecError(bindings.explain(error)) from None
    except RecursionError:
        raise SpecError(
            "the bindings refer to one another in a circle: some @Name() or %macro holds itself"
        ) from None
    except TypeError as error:
        message, *calls = str(error).splitlines()  # Gin adds lines about what it was building
        missing = re.match(r"(\w+)\.__init__\(\) missing .*?: (.*)", message)
        if missing is None:
            raise
        reference = gin_state.innermost_call(calls) or Reference("", missing[1])
        names = re.findall(r"'(\w+)'", missing[2])
        raise SpecError(_must_be_set(reference, names, bindings)) from None


def _must_be_set(built: Reference, names: Sequence[str], bindings: Bindings) -> str:
    """What to say of parameters that have no value, and for which other scopes they have one.

    built: what lacks them, with the short name of its class.
    """
    wanted = [str(Address(built.scope, built.selector, name)) for name in names]
    pronoun = "it" if len(names) == 1 else "them"
    message = f"{' and '.join(wanted)} must be set: no file and no --set binds {pronoun}"
    unscoped = {f"{built.selector}.{name}" for name in names}
    typed = [a for a in bindings.typed if str(a._replace(scope="")) in unscoped]
    others = sorted({a.scope for a in typed if a.scope})
    return f"{message}; they are bound in the scopes {', '.join(others)}" if others else message


def _bind_defaults(bindings: Bindings) -> None:
    """Bind the parts that an Experiment has by default, as if somebody had typed them.

    So `Gallery.rows = 4` alone has an effect, and a resolved file names every metric.
    """
    for field in fields(Experiment):
        if text := default_reference(field.default):
            address = gin_state.parse_address(f"Experiment.{field.name}")
            bindings.add_default(address, gin.config.parse_value(text))


def default_reference(default: object) -> str:
    """How Gin writes the default of a field: @Gallery(), (@Sparsity(),); '' where it is no part."""
    if isinstance(default, Part):
        return f"@{type(default).__name__}()"
    if isinstance(default, tuple) and default:
        references = [default_reference(part) for part in default]
        return f"({', '.join(references)},)" if all(references) else ""
    return ""


def _name_curves(bindings: Bindings) -> None:
    """@label_noise/Curve() is called 'label_noise' unless a binding names it otherwise."""
    for reference in _curves(bindings):
        if "name" not in (gin_state.parameters(reference.selector) or ()):
            continue
        address = Address(reference.scope, reference.selector, "name")
        if not {address, address._replace(scope="")} & bindings.typed.keys():
            gin_state.bind(address, reference.scope.replace("/", "_") or "curve")


def _curves(bindings: Bindings) -> list[Reference]:
    """What Experiment.curves refers to, through macros too."""
    curves: list[Reference] = []
    pending = [gin_state.parse_address("Experiment.curves")]
    while pending:
        binding = bindings.typed.get(pending.pop())
        for reference in references(binding.value if binding is not None else None):
            if reference.selector == MACRO:
                pending.append(Address(reference.scope, MACRO, "value"))
            else:
                curves.append(reference)
    return curves
