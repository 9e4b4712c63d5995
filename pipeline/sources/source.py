"""What a source is: the one thing a Pipeline asks of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from operators.errors import SourceError

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext

Source: TypeAlias = "Callable[[TurnContext], AsyncGenerator[list[Event], None]]"
"""Called once per turn; each list holds the events of one read."""


def messages_of(request: object, where: str) -> list[Any]:
    """Tell the chat messages that a request asks with; `where` names it.

    It is `{"messages": [...]}`, `{"message": "text"}`, the messages or the text itself.

    Raises:
        SourceError: it is none of these; code `source.request`.
    """
    asked = request
    if isinstance(request, dict):
        known = cast("dict[str, object]", request)
        asked = known.get("messages") or known.get("message")
        request = known
    if isinstance(asked, str) and asked:
        return [{"role": "user", "content": asked}]
    if isinstance(asked, (list, tuple)) and asked:
        return list(cast("list[object]", asked))
    raise SourceError(
        f"{where} asks nothing: it must be "
        '{"messages": [...]}, {"message": "text"} or the text itself, not '
        f"{type(request).__name__}",
        code="source.request",
    )
