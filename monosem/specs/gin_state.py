"""Gin's own state: what is registered, bound and looked up, and which binding decides.

The only file that reads what Gin keeps for itself (`gin.config._CONFIG` and the like).
That state is global to a process: a second load clears the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import gin

from monosem.core.fields import annotations_of

MACRO = "gin.macro"  # the selector under which Gin keeps macros: scope is their name


class Address(NamedTuple):
    """What a binding binds.

    scope: `pretrain` of `pretrain/Adam.lr`; '' if there is none.
    selector: the complete name of the class, such as monosem.learning.optimizers.Adam.
    parameter: `lr`.
    """

    scope: str
    selector: str
    parameter: str

    def __str__(self) -> str:
        scope = f"{self.scope}/" if self.scope else ""
        return f"{scope}{self.selector.rpartition('.')[2]}.{self.parameter}"

    def enclosing(self) -> Iterator[Address]:
        """The same parameter in this scope and in those around it, the narrowest first."""
        scopes = self.scope.split("/") if self.scope else []
        for depth in range(len(scopes), -1, -1):
            yield self._replace(scope="/".join(scopes[:depth]))


class Reference(NamedTuple):
    """A @scope/Name() inside a value."""

    scope: str
    selector: str

    def reads(self, address: Address) -> bool:
        """Whether building what is referred to would look at a binding of `address`."""
        return address in Address(self.scope, self.selector, address.parameter).enclosing()


def deciding(lookup: Address, bound: Container[Address]) -> Address | None:
    """The binding among `bound` that decides a lookup: Gin takes that of the narrowest scope."""
    for address in lookup.enclosing():
        if address in bound:
            return address
    return None


def parse_address(name: str) -> Address:
    """The address of a name as it is typed: `pretrain/Adam.lr`, or `epochs` of a macro.

    Raises ValueError if there is nothing of that name.
    """
    if "." not in name:
        return Address(name, MACRO, "value")
    return Address(*gin.config.ParsedBindingKey.parse(name).scope_selector_arg)


def complete_address(scope: str, selector: str, parameter: str) -> Address:
    """The address of a statement's parts, with the selector as it was typed."""
    key = gin.config.ParsedBindingKey.parse((scope, selector, parameter))
    return Address(*key.scope_selector_arg)


def selector_of(configurable: type) -> str:
    """The complete name under which a class is registered."""
    selector: str = gin.config._INVERSE_REGISTRY[configurable].selector
    return selector


def references(value: object) -> Iterator[Reference]:
    """Every @Name() in a value, tuples inside tuples included."""
    if isinstance(value, gin.config.ConfigurableReference):
        yield Reference("/".join(value.scopes), value.configurable.selector)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from references(item)


def replace_objects(value: object, replacement: Callable[[type, str], object]) -> object:
    """A value with other values for its @Name(), inside tuples and dictionaries too.

    replacement: what stands for an object of a class that is typed so; None leaves it.
    """
    if isinstance(value, dict):
        return {key: replace_objects(item, replacement) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(replace_objects(item, replacement) for item in value)
    if isinstance(value, gin.config.ConfigurableReference) and value.evaluate:
        target: Any = gin.get_configurable(value.configurable.selector)
        if isinstance(target, type):  # a macro is none
            return replacement(target, repr(value)) or value
    return value


def parameters(selector: str) -> list[str] | None:
    """The parameters of a configurable, None if they cannot be told.

    Raises ValueError if there is none of that name, or more than one.
    """
    target: Any = gin.get_configurable(selector)
    return [field.name for field in fields(target)] if is_dataclass(target) else None


def annotation(address: Address) -> Any:
    """What a dataclass says of a parameter; Any of another configurable."""
    target: Any = gin.get_configurable(address.selector)
    return annotations_of(target)[address.parameter] if is_dataclass(target) else Any


def registered_classes() -> list[type]:
    """All classes that Gin can bind."""
    return [target for target in gin.config._INVERSE_REGISTRY if isinstance(target, type)]


def registered_subclasses(name: str) -> list[str]:
    """The registered classes that are a `name`, as they are typed: @NonNegative()."""
    classes = registered_classes()
    subclasses = [kind for kind in classes if name in {base.__name__ for base in kind.__mro__}]
    return sorted(f"@{kind.__name__}()" for kind in subclasses)


def innermost_call(lines: Iterable[str]) -> Reference | None:
    """What Gin was building when something was raised, by the lines that it adds to a message.

    Its selector is the short name of the class.
    """
    for line in lines:
        called = re.search(r"In call to configurable '(\w+)'.*?(?: in scope '(.*)')?$", line)
        if called:
            return Reference(called[2] or "", called[1])
    return None


def registered_names() -> list[str]:
    """The short names of everything that can be bound."""
    selectors = [selector for selector, _ in gin.config._REGISTRY.items()]
    own = {selector.rpartition(".")[2] for selector in selectors if not selector.startswith("gin.")}
    return sorted(own)


def clear() -> None:
    """Forget all bindings and lookups."""
    gin.clear_config()


def bind(address: Address, value: object) -> None:
    gin.bind_parameter(tuple(address), value)


def unbind(address: Address) -> None:
    values = gin.config._CONFIG[address.scope, address.selector]
    del values[address.parameter]
    if not values:
        del gin.config._CONFIG[address.scope, address.selector]


def bound() -> set[Address]:
    """Every address that is bound now."""
    return {
        Address(scope, selector, parameter)
        for (scope, selector), values in gin.config._CONFIG.items()
        for parameter in values
    }


def lookups() -> dict[Address, object]:
    """Every parameter that was looked up while building, bound or not, with the value it got."""
    return {
        Address(scope, selector, parameter): value
        for (scope, selector), values in gin.config._OPERATIVE_CONFIG.items()
        for parameter, value in values.items()
    }


def text() -> str:
    """All bindings as a Gin file."""
    config: str = gin.config_str(max_line_length=120)
    return config
