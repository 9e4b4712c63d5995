"""`guard`: text that is checked before, or while, it goes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .errors import CompositionError
from .holding import Holding
from .holding_all import HoldingAll
from .operator import Operator, Stage, bind_turn, is_async, name_of
from .verdict import Blocked, Checker
from .watching import Watching

if TYPE_CHECKING:
    from .turn import TurnContext

Mode: TypeAlias = Literal["hold", "stream_first", "final"]
Verdict: TypeAlias = "bool | Blocked | None"

MODES: Final[tuple[Mode, ...]] = ("hold", "stream_first", "final")


def guard(
    check: Callable[..., Verdict | Awaitable[Verdict]],
    *,
    window: int = 256,
    mode: Mode = "hold",
    replacement: str = "[blocked]",
    on_verdict: Callable[..., object] | None = None,
) -> Operator:
    """End the turn, in its stream, where `check(text)` blocks what it says.

    The check passes a text with True or None, and blocks it with False or
    `Blocked(reason, replacement)`. It may be async; with a second required positional
    parameter it gets the turn. It is given the text of each text and reasoning part by
    itself, deltas and snapshots, and that of `result`: when a sentence ends, or there
    are `window` new characters, with the `window` characters before them. So each
    stretch of `window` characters is seen in one piece by some check, however the text
    is cut. Tool calls and other events are not checked.

    `"hold"`: only checked text goes out. The stream waits while a check runs. Before
    any event that is no text what is held is checked; heartbeats overtake it. Deltas
    are never cut: the one in which a sentence ends is checked and goes out whole. What
    was checked before has gone out when the next check blocks.

    `"stream_first"`: everything passes at once, and a task of its own checks, one text
    at a time; a block stops the turn as soon as it is known. The stream waits where it
    is more than 16 windows ahead. The end of the turn waits for the last verdict.

    `"final"`: the texts are checked together, once, at the end, parted by a blank line.
    From the first of them on every event waits, heartbeats excepted: memory for it all.

    `on_verdict(blocked, text)` is told of each verdict, None for a pass; with a third
    required parameter it gets the turn. What it raises is logged.

    Emits: what comes in; on a block, a delta with the `replacement` (none where it is
        empty) in the part that was blocked.
    Holds back: as said. What is held when the turn is cancelled or fails is checked
        then, within `settle_timeout`, and goes out where it passes.
    Raises: (failing the turn) TurnBlocked, code `blocked`: the source is closed, and
        the partial text is what went out, with the replacement. What the check raises,
        or TypeError where it gives no verdict, code `operator_failed` unless it has its
        own: what it was to check does not go out; in `"stream_first"`, where it has,
        as the cause of a TurnError, unless it is one. A
        producer's `final_text()` that differs is checked while settling: a block then
        stores nothing. CompositionError: bad arguments.
    Order: after `redact`, before every tap and `accumulate`. Before `lifecycle` or
        after it; the envelope's own messages are not checked.
    """
    bind = bind_turn(check)
    told = None if on_verdict is None else bind_turn(on_verdict, 2)
    _checked(window, mode, replacement, on_verdict)
    awaits = is_async(check)
    label = f"guard({name_of(check)})"

    def open_(turn: TurnContext) -> Stage:
        checker = Checker(
            check if bind is None else bind(turn),
            on_verdict if told is None else told(turn),
            replacement,
            turn,
            label,
        )

        async def settle() -> None:
            text = turn.produced
            if text and not checker.shut and text != turn.text():
                blocked = await checker.look(text)
                if blocked is not None:
                    raise checker.error(blocked)

        if mode == "stream_first":
            watching = Watching(checker, window, turn, label)
            return Stage(
                watching.on_event,
                awaits=False,
                finish=watching.finish,
                settle=settle,
                when="needed",
                close=watching.close,
            )
        on_event: Callable[..., Any]
        if mode == "final":
            holding_all = HoldingAll(checker, turn)
            on_event, finish = holding_all.on_event, holding_all.finish
        else:
            holding = Holding(checker, window, turn)
            on_event = holding.on_event_async if awaits else holding.on_event
            finish = holding.finish
        return Stage(
            on_event,
            shape="flat_map",
            awaits=mode == "hold" and awaits,
            finish=finish,
            settle=settle,
            when="needed",
        )

    detail = {"kind": "guard", "mode": mode, "window": window}
    return Operator(label, open_, detail=detail, guards=True, fixed=True)


def _checked(window: Any, mode: object, replacement: object, on_verdict: Any) -> None:
    if mode not in MODES:
        raise CompositionError(f"guard(mode={mode!r}): it is one of {', '.join(MODES)}")
    if window.__class__ is not int or window < 1:
        raise CompositionError(
            f"guard(window={window!r}): it must be a whole number of characters, 1 or "
            f"more"
        )
    if not isinstance(replacement, str):
        raise CompositionError(
            f'guard(replacement={replacement!r}): it must be text; "" for none'
        )
    if on_verdict is not None and is_async(on_verdict):
        raise CompositionError(
            f"on_verdict={name_of(on_verdict)} is async, and nobody would await it: "
            f"make it a plain function, or do it in the check"
        )
