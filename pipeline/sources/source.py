"""What a source is: the one thing a Pipeline asks of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from operators.errors import SourceError

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext

Source: TypeAlias = "Callable[[TurnContext], AsyncGenerator[list[Event], None]]"
"""Called once per turn; each list holds the events of one read."""


def messages_of(request: Any) -> list[Any]:
    """Tell the chat messages that a turn's request asks with.

    It is `{"messages": [...]}`, `{"message": "text"}` or the text itself.

    Raises:
        SourceError: it is none of these; code `source.request`.
    """
    asked: Any = request
    if isinstance(asked, dict):
        asked = asked.get("messages") or asked.get("message")  # type: ignore[redundant-expr]
    if isinstance(asked, str) and asked:
        return [{"role": "user", "content": asked}]
    if isinstance(asked, (list, tuple)) and asked:
        return list(asked)
    raise SourceError(
        "the turn's request holds no question: start the turn with "
        'request={"messages": [...]}, {"message": "text"} or the text itself, not '
        f"{request.__class__.__name__}"
        + (f" with {sorted(map(str, request))}" if isinstance(request, dict) else ""),
        code="source.request",
    )
