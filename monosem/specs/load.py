"""From Gin text to an Experiment, or to the cells of a sweep: the only place where Gin is parsed.

Gin says nothing when a scope, a macro or a binding to an unused class is misspelt, and does not check types. So files are
read statement by statement here, with the place of every binding remembered, and whatever is wrong is said in the words
that were typed.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import gin

from monosem import data, evaluation, learning, metrics, models
from monosem.core.fields import FieldError, Part
from monosem.core.stage import closure, key
from monosem.evaluation.experiment import Experiment
from monosem.specs.bindings import _address, _drop_unread, _plain, _references, _resolved
from monosem.specs.errors import Address, Binding, SpecError, Unread
from monosem.specs.gin_reader import _known, _Reader


class Spec(NamedTuple):
    """experiment: what was asked for. config: the same as one resolved Gin file, defaults included."""

    experiment: Experiment
    config: str

    @property
    def name(self) -> str:
        return self.experiment.name


def register() -> None:
    """Import every file of the folders that hold what Gin can bind, so that it is registered: a new file needs no list."""
    for folder in (data, learning, metrics, models, evaluation):
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            importlib.import_module(module.name)


register()


def load(files: Sequence[str], bindings: Sequence[str] = ()) -> Spec:
    """Read Gin files and then single bindings, later ones winning, and make the Experiment they describe.

    Raises SpecError for everything that can be known to be wrong before work begins.
    """
    reader = _Reader()
    reader.read(files, bindings)
    return _experiment(reader, checked=set())[0]


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


# ------------------------------------------------------------------------------------------------ building


def _name_curves(typed: dict[Address, Binding]) -> None:
    """A curve is called by its scope (@label_noise/Curve() is 'label_noise') unless a binding names it otherwise."""
    bound = typed.get(_address("Experiment.curves"))
    pending = [*_references(bound.value)] if bound is not None else []
    while pending:
        scope, selector = pending.pop()
        name = (scope, selector, "name")
        if selector == "gin.macro" and (scope, selector, "value") in typed:
            pending += _references(typed[scope, selector, "value"].value)
        elif (
            "name" in (_known(selector, "") or ())
            and not {name, ("", selector, "name")} & typed.keys()
        ):
            gin.bind_parameter(name, scope.replace("/", "_") or "curve")


def _build(what: type[Part], typed: dict[Address, Binding]) -> Any:
    try:
        return gin.get_configurable(what)()
    except FieldError as error:
        raise SpecError(_explain(error, typed)) from None
    except RecursionError:
        raise SpecError(
            "the bindings refer to one another in a circle: some @Name() or %macro holds itself"
        ) from None
    except TypeError as error:
        missing = re.match(r"(\w+)\.__init__\(\) missing .*?: (.*)", str(error))
        if missing is None:
            raise
        names = re.findall(r"'(\w+)'", missing[2])
        wants = " and ".join(f"{missing[1]}.{name}" for name in names)
        raise SpecError(
            f"{wants} must be set: no file and no --set binds {'it' if len(names) == 1 else 'them'}"
        ) from None


def _explain(error: FieldError, typed: dict[Address, Binding]) -> str:
    """What a field refused, with the binding that put it there. Proxied by Gin, the message goes on for lines: the first counts."""
    message = str(error).splitlines()[0]
    bindings = [
        t
        for (_, selector, name), t in typed.items()
        if selector.split(".")[-1] == error.owner and name == error.field
    ]
    exact = [
        t for t in bindings if repr(_plain(t.value)) == repr(_plain(error.value))
    ]  # 256 is not 256.0
    culprit = (exact or bindings)[-1:] if len(bindings) == 1 or exact else []
    return " ".join([message, *map(str, culprit)])
