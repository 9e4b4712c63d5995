"""`only` and `drop`: events by their type."""

from __future__ import annotations

from .errors import CompositionError
from .event import ENVELOPE, Event
from .kinds import Kinds, checked_kinds
from .operator import Operator, Stage


def only(*types: str) -> Operator:
    """Let pass the events of these types alone; `"message.*"` is a family of types.

    What says how a turn goes (`session.run.*`, `error`) always passes, so that a turn
    has its terminal wherever this stands. Events without a type are dropped.

    Raises: CompositionError: no types, or what is none.
    """
    kinds = checked_kinds(types, "only")
    wanted = Kinds((*kinds, *ENVELOPE))

    def passes(event: Event) -> bool:
        return event.get("type") in wanted

    stage = Stage(passes, shape="filter", awaits=False)
    detail = {"kind": "only", "types": list(kinds)}
    return Operator(f"only({', '.join(kinds)})", stage=stage, detail=detail)


def drop(*types: str) -> Operator:
    """Drop the events of these types; `"message.*"` is a family of types.

    Raises: CompositionError: no types, what is none, or what says how a turn goes
        (`session.run.*`, `error`): a turn has exactly one terminal. Leave `lifecycle`
        out for a turn without envelope.
    """
    kinds = checked_kinds(types, "drop")
    unwanted = Kinds(kinds)
    for kind in sorted(ENVELOPE):
        if kind in unwanted:
            raise CompositionError(
                f"drop({', '.join(kinds)}) would drop {kind!r}, and a turn has exactly "
                f"one terminal: leave lifecycle() out for a turn without envelope"
            )

    def passes(event: Event) -> bool:
        return event.get("type") not in unwanted

    exact = None if unwanted.prefixes else unwanted.exact
    stage = Stage(passes, shape="filter", awaits=False, types=exact)
    detail = {"kind": "drop", "types": list(kinds)}
    return Operator(f"drop({', '.join(kinds)})", stage=stage, detail=detail)
