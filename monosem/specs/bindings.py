"""Bindings: what was typed, what was replaced, what building read, and what decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from monosem.core.fields import FieldError
from monosem.specs import gin_state
from monosem.specs.errors import SpecError, nearest
from monosem.specs.gin_state import MACRO, Address, Reference, deciding, references


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
    return f"(--set '{text}')" if where == "--set" else f"({where}: {text})"


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
        """Whether something was built that reads `address`, unless a narrower binding is there."""
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
            others = ", ".join(self.lookups.narrower(self.address))
            return f"{start} {others} decide instead {self.binding}"
        hint = nearest(str(self.address), self.lookups.names(), ". Did you mean {}?")
        return f"{start} nothing in {scope} reads it {self.binding}{hint}"


class Bindings:
    """All bindings of one load.

    They are Gin's too, whose state is global: new ones end the old.
    typed: the last binding of every address.
    replaced: the values of the earlier ones.
    """

    def __init__(self) -> None:
        gin_state.clear()
        self.typed: dict[Address, Binding] = {}
        self.replaced: list[Replaced] = []
        self._count = 0
        self._own: int | None = None  # how many were typed before `share_from_here`

    def add(self, address: Address, text: str, where: str, value: object) -> None:
        """Bind a value; later ones win."""
        gin_state.bind(address, value)
        earlier = self.typed.get(address)
        if earlier is not None:
            self.replaced.append(Replaced(earlier.value, self._count))
        self.typed[address] = Binding(text, where, value, self._count)
        self._count += 1

    def add_default(self, address: Address, value: object) -> None:
        """Bind what holds where nothing was typed. What was typed has replaced it."""
        typed = self.typed.get(address)
        if typed is None:
            gin_state.bind(address, value)
        else:
            self.replaced.append(Replaced(value, typed.order))

    def share_from_here(self) -> None:
        """What is added from now on is meant for all cells of a sweep: one may leave it unread."""
        self._own = self._count

    def is_shared(self, binding: Binding) -> bool:
        return self._own is not None and binding.order >= self._own

    def have(self, configurable: type) -> bool:
        """Whether any binding is of this class."""
        selector = gin_state.selector_of(configurable)
        return any(address.selector == selector for address in self.typed)

    def lookups(self) -> Lookups:
        """What was looked up up to now."""
        return Lookups(gin_state.lookups(), self.typed)

    def superseded(self) -> set[Address]:
        """The bindings that a replaced value would have read, itself or through what it refers to.

        What is typed after the replacement is not meant for the value that was replaced.
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

    def drop_unread(self) -> dict[Address, Unread]:
        """Unbind what decided nothing; returns those of them that are shared.

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
                    raise SpecError(unread.message())
                shared[address] = unread
            gin_state.unbind(address)
        return shared

    def explain(self, error: FieldError) -> str:
        """What a field refused, with the binding that put it there where that can be told."""
        message = str(error).splitlines()[0]  # Gin adds lines about where it was
        candidates = [
            binding
            for address, binding in self.typed.items()
            if address.selector.rpartition(".")[2] == error.owner
            and address.parameter == error.field
        ]
        typed = repr(_as_tuples(error.value))  # by its text, as 256 is not 256.0
        exact = [binding for binding in candidates if repr(_as_tuples(binding.value)) == typed]
        if exact:
            return f"{message} {exact[-1]}"
        return f"{message} {candidates[0]}" if len(candidates) == 1 else message

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
