"""Going on where a log ends: a turn is run again, and what it logged is not said twice.

A turn that is taken over runs from its start once more: its source is attached to
again, or its model asked again. What it gives passes the `Seam`, which knows what the
log holds. As long as the new run says the same, nothing is sent; then it goes on. Where
it says something else, the part's text is replaced as a whole: `message.part.updated`
with the text and no delta, which every accumulator takes for the new text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from operators import event as ev
from operators.event import Event
from operators.operator import Operator, Stage

from ..wire.ndjson import encode

if TYPE_CHECKING:
    from operators.turn import TurnContext

_TEXTS = ("text", "reasoning")


class Seam:
    """Tells, of the events of a turn that is run again, what its log has not yet.

    Deltas are compared by the text that they make, however it is cut; all other events
    as a whole, `llm_call` by its type alone.
    """

    __slots__ = ("_others", "_parts", "_said", "_texts")

    def __init__(self, logged: Iterable[Event]) -> None:
        """Know `logged`, the events of the log."""
        self._texts: dict[object, str] = {}
        self._said: dict[object, str] = {}
        self._parts: dict[object, dict[str, Any]] = {}
        self._others: Counter[bytes] = Counter()
        pieces: dict[object, list[str]] = {}
        for event in logged:
            said = _text_of(event)
            if said is None:
                self._others[_key(event)] += 1
                continue
            part, text, grows = said
            name = part.get("id")
            self._parts[name] = part
            if grows:
                pieces.setdefault(name, []).append(text)
            else:
                pieces[name] = [text]
        self._texts = {name: "".join(texts) for name, texts in pieces.items()}

    def pass_(self, event: Event) -> list[Event]:
        """Return what is to be sent for the next event of the new run."""
        said = _text_of(event)
        if said is not None:
            return self._pass_text(event, *said)
        key = _key(event)
        if self._others[key] > 0:
            self._others[key] -= 1
            return []
        kind = event.get("type")
        if kind == ev.RUN_COMPLETED:
            return [*self._corrected(self._texts), event]
        if kind in ev.ENVELOPE:
            return [event]
        return [*self._corrected(self._said), event]

    def _pass_text(
        self, event: Event, part: dict[str, Any], text: str, grows: bool
    ) -> list[Event]:
        name = part.get("id")
        logged = self._texts.get(name)
        if logged is None:
            return [event]
        now = self._said.get(name, "") + text if grows else text
        self._said[name] = now
        self._parts[name] = part
        if logged.startswith(now):
            if len(now) == len(logged):
                self._know(name)
            return []
        self._know(name)
        if now.startswith(logged):
            data = {**event["data"], "delta": now[len(logged) :]}
            if not grows:
                data["part"] = {**part}
                data["part"].pop("text")
            return [{**event, "data": data}]
        return [_replaced(part, now)]

    def _know(self, name: object) -> None:
        """Take note that log and new run agree on a part from now on."""
        del self._texts[name]
        self._said.pop(name, None)

    def _corrected(self, names: Iterable[object]) -> list[Event]:
        """Replace the texts that the new run made shorter than they are in the log."""
        behind = [name for name in names if name in self._texts]
        changed = [_replaced(self._parts[n], self._said.get(n, "")) for n in behind]
        for name in behind:
            self._know(name)
        return changed


def seam(logged: Iterable[Event]) -> Operator:
    """Make the operator that lets pass what `logged` has not; it stands last."""
    known = tuple(logged)

    def open_(turn: TurnContext) -> Stage:
        return Stage(Seam(known).pass_, shape="flat_map", awaits=False)

    return Operator("seam", open_, detail={"kind": "seam"}, once=True, fixed=True)


def _replaced(part: dict[str, Any], text: str) -> Event:
    return {"type": ev.PART_UPDATED, "data": {"part": {**part, "text": text}}}


def _text_of(event: Event) -> tuple[dict[str, Any], str, bool] | None:
    """Return the part, the text and whether it is added, where an event says text."""
    if event.get("type") != ev.PART_UPDATED:
        return None
    data = event.get("data")
    part: Any = cast("Any", data).get("part") if isinstance(data, dict) else None
    if not isinstance(part, dict):
        return None
    known = cast("dict[str, Any]", part)
    if known.get("type") not in _TEXTS:
        return None
    delta = cast("Any", data).get("delta")
    if isinstance(delta, str) and delta:
        return known, delta, True
    text = known.get("text")
    return (known, text, False) if isinstance(text, str) else None


def _key(event: Event) -> bytes:
    if event.get("type") == ev.LLM_CALL:
        return b"llm_call"
    return encode(event)
