"""`map`, `filter`, `flat_map`: a plain function as an operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from .operator import (
    Operator,
    Shape,
    Stage,
    bind_turn,
    is_async,
    name_of,
    only_types,
)

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext

Mapper: TypeAlias = Callable[..., "Event | Awaitable[Event]"]
Predicate: TypeAlias = Callable[..., "object | Awaitable[object]"]
FlatMapper: TypeAlias = Callable[..., "Iterable[Event] | Awaitable[Iterable[Event]]"]


def map(  # noqa: A001 - the field's own word, used as ops.map
    function: Mapper, /, *, types: Iterable[str] | None = None, name: str | None = None
) -> Operator:
    """Replace every event by `function(event)`; with `types`, only those of the types.

    Raises (failing the turn): `invalid_event` where it gives no event; what it raises.
    """
    return _of("map", function, types, name)


def filter(  # noqa: A001 - as map
    function: Predicate,
    /,
    *,
    types: Iterable[str] | None = None,
    name: str | None = None,
) -> Operator:
    """Let an event pass where `function(event)` is true; others than `types` pass."""
    return _of("filter", function, types, name)


def flat_map(
    function: FlatMapper,
    /,
    *,
    types: Iterable[str] | None = None,
    name: str | None = None,
) -> Operator:
    """Replace every event by the events that `function(event)` gives: none, or several.

    A generator function works; an async one is awaited for its iterable.
    """
    return _of("flat_map", function, types, name)


def _of(
    shape: Shape,
    function: Callable[..., Any],
    types: Iterable[str] | None,
    name: str | None,
) -> Operator:
    bind = bind_turn(function, generators="sync" if shape == "flat_map" else "none")
    awaits = is_async(function)
    wanted = only_types(types)
    label = name or f"{shape}({name_of(function)})"
    if bind is None:
        stage = Stage(function, shape=shape, awaits=awaits, types=wanted)
        return Operator(label, stage=stage, detail={"kind": shape})
    bound = bind

    def open_(turn: TurnContext) -> Stage:
        return Stage(bound(turn), shape=shape, awaits=awaits, types=wanted)

    return Operator(label, open_, detail={"kind": shape}, fixed=True)
