"""Bindings typed by a person: which were overwritten, had an effect, or must be refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from monosem.core.fields import FieldError, conform, nearest
from monosem.specs import gin_state
from monosem.specs.errors import SpecError
from monosem.specs.gin_state import MACRO, Address, Reference, deciding, references

MOST_CHOICES = 10  # that a message lists
FLAGS = ("--set", "--grid")  # whose text is quoted as it was typed


class Binding(NamedTuple):
    """A binding as it was typed.

    text: the statement; its first line if it has several.
    where: `gin/ncl.gin:4`, `--set` or `Sweep.grid`.
    value: as Gin reads it, with references unresolved.
    order: how many bindings were typed before it.
    """

    text: str
    where: str
    value: object
    order: int

    def __str__(self) -> str:
        return as_typed(self.text, self.where)


def as_typed(text: str, where: str) -> str:
    """A statement and its place, as messages end with them."""
    return f"({where} '{text}')" if where in FLAGS else f"({where}: {text})"


class Replaced(NamedTuple):
    """A value that a later binding of the same address took the place of."""

    value: object
    order: int  # of the later binding


class Lookups:
    """What building looked up, and which of the typed bindings decided it."""

    def __init__(self, addresses: Iterable[Address], typed: Iterable[Address]):
        bound = set(typed)
        self.addresses = list(addresses)
        self.deciding: set[Address] = set()
        for address in self.addresses:
            decider = deciding(address, bound)
            if decider is not None:
                self.deciding.add(decider)

    def would_read(self, address: Address) -> bool:
        """Whether something was built that reads `address` if no narrower scope binds it."""
        places = {Reference(lookup.scope, lookup.selector) for lookup in self.addresses}
        return any(place.reads(address) for place in places)

    def narrower(self, address: Address) -> list[str]:
        """The bindings of other scopes that decide the same parameter."""
        same = [other for other in self.deciding if other[1:] == address[1:]]
        return sorted(map(str, same))

    def names(self) -> set[str]:
        """Every name that a binding could have here, with and without its scope."""
        scoped = {str(address) for address in self.addresses}
        return scoped | {str(address._replace(scope="")) for address in self.addresses}


class Unread(NamedTuple):
    """A binding that decides nothing in an experiment."""

    address: Address
    binding: Binding
    lookups: Lookups

    def message(self, scope: str = "this experiment") -> str:
        """What to say of it. scope: where it has no effect, in words."""
        start = f"{self.binding.text} has no effect:"
        if self.address.selector == MACRO:
            macro = self.address.scope
            reason = f"it names no parameter, and nothing uses %{macro} as a macro"
            return f"{start} {reason} {self.binding}"
        if self.lookups.would_read(self.address):
            others = self.lookups.narrower(self.address)
            verb = "decides" if len(others) == 1 else "decide"
            return f"{start} {', '.join(others)} {verb} instead {self.binding}"
        hint = nearest(str(self.address), self.lookups.names(), ". Did you mean {}?")
        return f"{start} nothing in {scope} reads it {self.binding}{hint}"


class Bindings:
    """All bindings of one load.

    They are Gin's too, whose state is global: making a second Bindings clears the first.
    typed: the last binding of every address.
    replaced: the values of the earlier ones.
    """

    def __init__(self) -> None:
        gin_state.clear()
        self.typed: dict[Address, Binding] = {}
        self.replaced: list[Replaced] = []
        self._count = 0
        self._count_before_shared: int | None = None  # before `share_from_here`

    def add(self, address: Address, text: str, where: str, value: object) -> None:
        """Bind a value; later ones win."""
        gin_state.bind(address, value)
        earlier = self.typed.get(address)
        if earlier is not None:
            self.replaced.append(Replaced(earlier.value, self._count))
        self.typed[address] = Binding(text, where, value, self._count)
        self._count += 1

    def add_default(self, address: Address, value: object) -> None:
        """Bind unless it was typed; then only note the default as replaced."""
        typed = self.typed.get(address)
        if typed is None:
            gin_state.bind(address, value)
        else:
            self.replaced.append(Replaced(value, typed.order))

    def share_from_here(self) -> None:
        """What is added from now on is for all cells of a sweep: one may leave it unread.

        For all sweeps of a report likewise.
        """
        self._count_before_shared = self._count

    def is_shared(self, binding: Binding) -> bool:
        before = self._count_before_shared
        return before is not None and binding.order >= before

    def have(self, configurable: type) -> bool:
        """Whether any binding is of this class."""
        selector = gin_state.selector_of(configurable)
        return any(address.selector == selector for address in self.typed)

    def lookups(self) -> Lookups:
        """What was looked up up to now."""
        return Lookups(gin_state.lookups(), self.typed)

    def superseded(self) -> set[Address]:
        """The bindings that a replaced value would have read, itself or through what it refers to.

        After `Experiment.curves = (@gaussian/Curve(),)` they are those of the other curves, such
        as `few_shot/Curve.repeats`. One that is typed after the replacement is not among them: it
        is not meant for the value that was replaced.
        """
        addresses: set[Address] = set()
        for replaced in self.replaced:
            addresses |= self._reached(references(replaced.value), replaced.order)
        return addresses

    def _reached(self, start: Iterable[Reference], before: int) -> set[Address]:
        """The bindings, typed before the `before`-th, that building these references would read."""
        reached: set[Address] = set()
        pending = list(start)
        while pending:
            reference = pending.pop()
            for address, binding in self.typed.items():
                if address in reached or binding.order >= before or not reference.reads(address):
                    continue
                reached.add(address)
                for inner in references(binding.value):
                    scope = inner.scope or reference.scope  # a bare @Name() stays in scope
                    pending.append(inner._replace(scope=scope))
        return reached

    def drop_unread(self, scope: str = "this experiment") -> dict[Address, Unread]:
        """Unbind what decided nothing; returns those of them that are shared.

        scope: what was built, in words.

        Raises SpecError for one that is neither shared nor superseded. So after a setting
        `Experiment.curves = (@gaussian/Curve(),)` may leave out what that says of other curves.
        """
        lookups, superseded = self.lookups(), self.superseded()
        shared: dict[Address, Unread] = {}
        for address, binding in self.typed.items():
            if address in lookups.deciding:
                continue
            if address not in superseded:
                unread = Unread(address, binding, lookups)
                if not self.is_shared(binding):
                    raise SpecError(unread.message(scope))
                shared[address] = unread
            gin_state.unbind(address)
        return shared

    def explain(self, error: FieldError) -> str:
        """What a field refused, with the binding that put it there, or all that may have.

        A line for it, and one for each other error that was found with it.
        """
        message, *calls = str(error).splitlines()  # Gin adds lines about what it was building
        built = gin_state.innermost_call(calls)
        lines = [self._explain_one(error, message, built)]
        lines += [self._explain_one(other, str(other), built) for other in error.others]
        return "\n".join(dict.fromkeys(lines))

    def _explain_one(self, error: FieldError, message: str, built: Reference | None) -> str:
        hint = _choices(error)
        addresses = self._refused_addresses(error, built)
        if len(addresses) == 1:
            parameter = f"{error.owner}.{error.field}"
            message = message.replace(parameter, str(addresses[0]), 1)
        places = " or ".join(str(self.typed[address]) for address in addresses)
        return f"{message} {places}{hint}" if places else f"{message}{hint}"

    def _refused_addresses(self, error: FieldError, built: Reference | None) -> list[Address]:
        """The bindings that may have put what a field refused there.

        built: what Gin was building; None if the field was refused later.
        """
        if built is None or built.selector != error.owner:
            return self._with_refused_value(error)
        for address in self._of_field(error):
            lookup = address._replace(scope=built.scope)
            if decider := deciding(lookup, self.typed):
                return [decider]
        return []

    def _with_refused_value(self, error: FieldError) -> list[Address]:
        """The bindings of the field that hold the refused value, or else its only binding."""
        candidates = self._of_field(error)
        refused = repr(_as_tuples(error.value))  # by its text, as 256 is not 256.0
        fitting = [address for address in candidates if refused in self._texts(address)]
        if not fitting and len(candidates) == 1:
            return candidates
        return fitting

    def _of_field(self, error: FieldError) -> list[Address]:
        """The addresses of what was typed for a field, in any scope."""
        return [
            address
            for address in self.typed
            if address.selector.rpartition(".")[2] == error.owner
            and address.parameter == error.field
        ]

    def _texts(self, address: Address) -> set[str]:
        """What a bound value looks like, as it was typed and as the field holds it."""
        value = self.typed[address].value
        texts = {repr(_as_tuples(value))}
        annotation = gin_state.annotation(address)
        with contextlib.suppress(ValueError):
            texts.add(repr(conform(value, annotation)))
        return texts

    def resolved(self, imports: Iterable[str]) -> str:
        """All bindings as one Gin file, with the defaults that were used.

        So the file means the same when a later version of the code has other defaults.
        """
        bound = gin_state.bound()
        for address, value in gin_state.lookups().items():
            if deciding(address, bound) is None:
                default = address._replace(scope="")
                gin_state.bind(default, value)
                bound.add(default)
        return "\n".join([*dict.fromkeys(imports), gin_state.text()])


def _as_tuples(value: object) -> object:
    """A value with its lists turned into tuples, as fields do."""
    return tuple(map(_as_tuples, value)) if isinstance(value, tuple | list) else value


def _choices(error: FieldError) -> str:
    """The objects that a field takes, where another kind was refused and they are few."""
    wanted = re.search(r" must be an? (\w+), got (?!the class)", str(error))
    names = gin_state.registered_subclasses(wanted[1]) if wanted else []
    return f"; it takes {', '.join(names)}" if 0 < len(names) <= MOST_CHOICES else ""
