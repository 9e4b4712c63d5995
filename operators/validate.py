"""`validate`: events that are not what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import CompositionError, InvalidEvent
from .grammar import problem_of
from .operator import Operator, Stage, bind_turn, is_async, name_of, only_types

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext

OnInvalid: TypeAlias = Literal["fail", "drop", "log"]


def validate(
    check: Callable[[Event], object] = problem_of,
    /,
    *,
    types: Iterable[str] | None = None,
    on_invalid: OnInvalid = "fail",
    name: str | None = None,
) -> Operator:
    """Check every event; with `types`, only those of the types.

    `check(event)` says what is wrong as a text, gives False, or raises ValueError or
    TypeError (as a schema library does); True and None are right. Left out, the known
    events are checked against `operators.event`, and the place is named:
    `data.part.id: must be a string, not int`.

    An invalid event fails the turn, is dropped and logged, or is logged and passes.

    Raises (failing the turn): code `invalid_event`; what else `check` raises.
        CompositionError: a check that is no plain function, an unknown `on_invalid`.
    """
    if on_invalid not in ("fail", "drop", "log"):
        raise CompositionError(
            f'validate: on_invalid must be "fail", "drop" or "log", not {on_invalid!r}'
        )
    if is_async(check) or bind_turn(check) is not None:
        raise CompositionError(
            f"validate: {check!r} must be a plain function of an event"
        )
    label = name or (
        "validate" if check is problem_of else f"validate({name_of(check)})"
    )
    wanted = only_types(types)

    def open_(turn: TurnContext) -> Stage:
        def passes(event: Event) -> bool:
            problem = _problem(check, event)
            if problem is None:
                return True
            said = f"{event.get('type')!r} is invalid: {problem}"
            if on_invalid == "fail":
                raise InvalidEvent(said)
            turn.log(said, operator=label)
            return on_invalid == "log"

        return Stage(passes, shape="filter", awaits=False, types=wanted)

    detail = {"kind": "validate", "on_invalid": on_invalid}
    return Operator(label, open_, detail=detail, fixed=True)


def _problem(check: Callable[[Any], object], event: Event) -> str | None:
    try:
        said = check(event)
    except (ValueError, TypeError) as exc:
        return f"{exc}" or type(exc).__name__
    if said is None or said is True:
        return None
    if said is False:
        return "it does not pass the check"
    if isinstance(said, str):
        return said
    raise TypeError(
        f"a check gave {type(said).__name__}: it gives None, a bool or what is wrong"
    )
