"""`accumulate`: the whole assistant message out of its deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import event as ev
from .errors import CompositionError
from .message import SOURCES, Message, Source
from .operator import Operator, Stage

if TYPE_CHECKING:
    from .turn import TurnContext

_TYPES = frozenset({ev.PART_UPDATED, ev.RESULT, ev.LLM_CALL})


def accumulate(*, source: Source = "auto") -> Operator:
    """Gather the turn's text, the parts of its message, and the reported usage.

    A `message.part.updated` with a non-empty `delta` appends to its part; a text part
    without delta replaces that part's text; `result.finalText` replaces all text; a
    producer's non-empty `final_text()` wins over everything. `source` limits the text
    to one of the three; tools and files are gathered in any case.

    Parts are kept by id, in the order of their first appearance, and make up
    `turn.message`: text and reasoning with what else their events say of them, such as
    `metadata`; tool calls with their last `state`; files, and parts of any other type,
    as their last event shows them. Of a tool call the `input` and, until that is
    decoded, the `inputText` outlive a state that does not repeat them. A call that is
    still `pending` or `running` when the turn settles is stored as `interrupted`,
    however the turn ends: a call without a result never looks like a success.

    A `part` dict that several deltas share must not change between them.

    Holds: O(text) memory, joined once.
    Order: after what changes text (redaction), before `transform` and `persist`.
    """
    if source not in SOURCES:
        raise CompositionError(
            f"source must be one of {', '.join(SOURCES)}, not {source!r}"
        )

    def open_(turn: TurnContext) -> Stage:
        message = Message(source)
        turn.text = message.text
        turn.parts = message.parts
        turn.reported = message.reported

        def settle() -> None:
            if turn.produced:
                message.replace(turn.produced)
            turn.final_text = message.text()

        return Stage(
            message.on_event,
            awaits=False,
            types=_TYPES,
            fold=message,
            settle=settle,
            when="needed",
        )

    return Operator(
        "accumulate", open_, detail={"source": source}, once=True, fixed=True
    )
