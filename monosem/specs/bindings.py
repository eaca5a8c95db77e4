"""TODO."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator

import gin

from monosem.core.fields import Part
from monosem.specs.errors import Address, Binding, SpecError, Unread, _nearest
from monosem.specs.gin_reader import _Reader


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
    return [
        (*place, name) for place, values in gin.config._OPERATIVE_CONFIG.items() for name in values
    ]


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


def _no_effect(
    address: Address, binding: Binding, deciding: set[Address | None], read: list[Address]
) -> SpecError:
    scope, selector, name = address
    narrower = sorted(
        _spell(*other) for other in deciding if other and other[1:] == (selector, name)
    )
    if selector == "gin.macro":
        return SpecError(
            f"{binding.text} has no effect: it names no parameter, and nothing uses %{scope} as a macro {binding}"
        )
    if any(
        _deciding((*place, name), (address,))
        for place in (each[:2] for each in read)
        if place[1] == selector
    ):
        return SpecError(
            f"{binding.text} has no effect: {', '.join(narrower)} decide instead {binding}"
        )
    possible = {_spell(*each) for each in read} | {_spell("", *each[1:]) for each in read}
    hint = _nearest(_spell(*address), possible, ". Did you mean {}?")
    return SpecError(
        f"{binding.text} has no effect: nothing in this experiment reads it {binding}{hint}"
    )


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
    pending = [
        (when, *reference) for when, value in reader.replaced for reference in _references(value)
    ]
    while pending:
        when, scope, selector = pending.pop()
        for address, binding in reader.typed.items():
            if (
                address not in found
                and binding.order < when
                and _deciding((scope, selector, address[2]), (address,))
            ):
                found.add(address)
                inner = _references(binding.value)
                pending += [
                    (when, narrower or scope, name) for narrower, name in inner
                ]  # a bare @Name() stays in scope
    return found


def _spell(scope: str, selector: str, parameter: str) -> str:
    return f"{scope}/{selector.split('.')[-1]}.{parameter}".removeprefix("/")


def _resolved(imports: list[str]) -> str:
    """All bindings as one Gin file, with the defaults that were used, so that a default that changes later changes nothing."""
    bound = {(*place, name) for place, values in gin.config._CONFIG.items() for name in values}
    for scope, selector, name in _read():
        if _deciding((scope, selector, name), bound) is None:
            gin.bind_parameter(
                ("", selector, name), gin.config._OPERATIVE_CONFIG[scope, selector][name]
            )
            bound.add(("", selector, name))
    return "\n".join([*dict.fromkeys(imports), gin.config_str(max_line_length=120)])
