"""Texts in the events of a turn, edited as they pass: what redact and restore share.

Each part has a text of its own for its deltas, and one for its snapshots. Deltas of text
and reasoning parts pass each other; before anything else passes, held text is let out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from ..event import PART_UPDATED, Event
from .json_text import JsonText
from .places import PART_KEPT, Scope, Whole, edit, edit_dict, edit_event, edit_part
from .texts import OpenEditing, Text

_TEXTUAL: Final = ("text", "reasoning")
_DELTA_KEYS: Final = frozenset({"part", "delta"})
_NO_MORE: Final[dict[str, Any]] = {}


class _Deltas:
    """The deltas of one part: its text, and the event to let out held text with."""

    __slots__ = ("event", "feed", "part", "shown", "text", "textual")

    def __init__(
        self, text: Text, feed: Callable[[str], str], *, textual: bool
    ) -> None:
        self.text = text
        self.feed = feed
        self.textual = textual
        self.event: Event = {}
        self.part: object = None
        self.shown: object = None


class _Snapshots:
    """The whole text of one part, again and again, as it grows."""

    __slots__ = ("begun", "open", "out", "seen", "show", "text")

    def __init__(self, open_text: Callable[[], Text]) -> None:
        self.open = open_text
        self.text = open_text()
        self.seen = ""
        self.out = ""
        self.begun = False
        self.show: Callable[[str], Event] | None = None

    def edited(self, whole: str) -> str:
        """Take the text as it is now; return what is decided of it."""
        if not whole.startswith(self.seen):
            self.text = self.open()
            self.seen = self.out = ""
        self.out += self.text.feed(whole[len(self.seen) :])
        self.seen = whole
        return self.out

    def flush(self, *, last: bool) -> str | None:
        """Return the whole with what was held, if anything was."""
        if not self.text.held:
            return None
        more = self.text.flush(last=last)
        self.out += more
        return self.out if more else None


class Editor:
    """The texts of one turn: `on_event` is a flat_map, `finish` gives what is held."""

    __slots__ = (
        "_feed",
        "_held",
        "_last",
        "_open",
        "_part",
        "_scopes",
        "_shown",
        "_snapshots",
        "_texts",
        "_whole",
    )

    def __init__(
        self,
        open_editing: Callable[[Scope], Callable[[str], Any]],
        whole: Whole,
        scopes: frozenset[str],
        *,
        held: dict[int, int] | None = None,
    ) -> None:
        """Begin a turn; `held[n]` counts the deltas after which n characters are held."""
        self._open = open_editing
        self._scopes = scopes
        self._whole: Whole = whole
        self._held = held
        self._texts: dict[object, _Deltas] = {}
        self._snapshots: dict[object, _Snapshots] = {}
        self._last: _Deltas | None = None
        # The part that came last: its deltas take the short way, known by identity.
        self._part: object = self
        self._shown: object = None
        self._feed: Callable[[str], str] = str

    def on_event(self, event: Event) -> Iterable[Event]:
        """Edit one event; return what may pass."""
        text: Any
        try:
            data = event["data"]
            text = data["delta"]
            if (
                data["part"] is not self._part
                or text.__class__ is not str
                or not text
                or len(data) != 2
                or len(event) != 2
                or event["type"] != PART_UPDATED
            ):
                text = None
        except (AttributeError, KeyError, TypeError):
            text = None
        if text is None:
            return self._other(event)
        feed = self._feed  # called as `self._feed(...)` it would be looked up slowly
        out = feed(text)
        if not out:
            return ()
        part = self._shown
        if out is text and part is self._part:
            return (event,)
        return ({"type": PART_UPDATED, "data": {"part": part, "delta": out}},)

    def finish(self) -> list[Event]:
        """Let out what is held."""
        return self._flush(last=True)

    # -- the long way

    def _other(self, event: Event) -> list[Event]:
        data = event.get("data")
        if event.get("type") == PART_UPDATED and isinstance(data, dict):
            shown = cast("dict[str, Any]", data)
            part: Any = shown.get("part")
            known = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
            kind = known.get("type", "text")
            delta = shown.get("delta")
            if isinstance(delta, str) and delta:
                return self._delta(event, shown, known, kind, delta)
            if kind in _TEXTUAL:
                if not isinstance(known.get("text"), str):
                    return [self._rest(event, known, {})]
                return self._snapshot(event, known, kind)
            state = known.get("state")
            if (
                kind == "tool"
                and "tool_input" in self._scopes
                and isinstance(state, dict)
                and isinstance(cast("dict[str, Any]", state).get("inputText"), str)
            ):
                return self._input(event, known)
        return [*self._flush(), edit_event(event, self._whole)]

    def _delta(
        self,
        event: Event,
        data: dict[str, Any],
        part: dict[str, Any],
        kind: object,
        text: str,
    ) -> list[Event]:
        textual = kind in _TEXTUAL
        out: list[Event] = []
        if self._last is not None and self._last.textual != textual:
            out = self._flush()
        deltas = self._deltas_of(part, kind, textual=textual)
        self._last = deltas
        decided = deltas.feed(text)
        given = data.get("part")
        shown: dict[str, Any] = {}
        snapshot = part.get("text") if textual else None
        if isinstance(snapshot, str):
            shown["text"] = self._snapshots_of(part, kind).edited(snapshot)
        elif given is not deltas.part:
            deltas.part = given
            deltas.shown = edit_part(part, self._whole) if part else given
        if not shown and deltas.part is given and part:
            changed = cast("dict[str, Any]", deltas.shown)
        else:
            changed = self._part_with(part, shown)
        simple = len(data) == len(event) == 2
        rest = edited = outer = around = _NO_MORE
        if not (simple and part):  # else there is the part and the delta, no more
            rest = {key: value for key, value in data.items() if key not in _DELTA_KEYS}
            edited = edit_dict(rest, self._whole, "other", frozenset())
            outer = {k: v for k, v in event.items() if k not in ("type", "data")}
            around = edit_dict(outer, self._whole, "other", frozenset())
        deltas.event = {
            **around,
            "type": PART_UPDATED,
            "data": {**edited, **({"part": changed} if part else {}), "delta": ""},
        }
        if not part and "part" in data:
            deltas.event["data"]["part"] = edit(given, self._whole, "other")
        self._short_way(deltas, given, part, simple=simple)
        same = (
            decided is text and changed is given and edited is rest and around is outer
        )
        if same and not shown:
            out.append(event)
        elif decided:
            event_data = {**deltas.event["data"], "delta": decided}
            out.append({**deltas.event, "data": event_data})
        return out

    def _short_way(
        self, deltas: _Deltas, given: object, part: dict[str, Any], *, simple: bool
    ) -> None:
        """Let the next deltas of the same part pass without another look at it."""
        if simple and part.keys() <= PART_KEPT:
            self._part = given
            self._shown = deltas.shown
            self._feed = deltas.feed
        else:
            self._part = self

    def _snapshot(
        self, event: Event, part: dict[str, Any], kind: object
    ) -> list[Event]:
        out = self._flush() if self._last and not self._last.textual else []
        snapshots = self._snapshots_of(part, kind)

        def show(text: str) -> Event:
            return self._rest(event, part, {"text": text})

        decided = snapshots.edited(part["text"])
        snapshots.show = show
        return [*out, show(decided)]

    def _input(self, event: Event, part: dict[str, Any]) -> list[Event]:
        """Edit a tool call that shows its arguments as the JSON text so far."""
        state = cast("dict[str, Any]", part["state"])
        snapshots = self._snapshots_of(part, "tool")
        out = self._flush(but=snapshots)
        decided = snapshots.edited(state["inputText"])
        if cast("JsonText", snapshots.text).complete:
            decided = snapshots.flush(last=True) or decided
        rest = {key: value for key, value in state.items() if key != "inputText"}
        bare = edit_part({**part, "state": rest}, self._whole)

        def show(text: str) -> Event:
            shown = {**bare, "state": {**bare["state"], "inputText": text}}
            return self._rest(event, part, {}, shown)

        snapshots.show = show
        out.append(show(decided))
        return out

    def _rest(
        self,
        event: Event,
        part: dict[str, Any],
        shown: dict[str, Any],
        edited: dict[str, Any] | None = None,
    ) -> Event:
        """Edit what else an event has, beside the texts that are `shown` already."""
        changed = edited or self._part_with(part, shown)
        data = cast("dict[str, Any]", event["data"])
        given = data.get("part")
        bare = {**event, "data": {k: v for k, v in data.items() if k != "part"}}
        made = edit_event(bare, self._whole)
        if not part:
            return edit_event(event, self._whole)
        if made is bare and changed is given:
            return event
        return {**made, "data": {**made["data"], "part": changed}}

    def _part_with(self, part: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
        if not shown:
            return edit_part(part, self._whole)
        bare = {key: value for key, value in part.items() if key not in shown}
        return {**edit_part(bare, self._whole), **shown}

    # -- the texts

    def _deltas_of(
        self, part: dict[str, Any], kind: object, *, textual: bool
    ) -> _Deltas:
        key = _key(part, kind)
        deltas = self._texts.get(key)
        if deltas is None:
            text = self._text("text" if textual and kind == "text" else kind)
            feed = text.feed if self._held is None else _counting(text, self._held)
            deltas = self._texts[key] = _Deltas(text, feed, textual=textual)
        return deltas

    def _snapshots_of(self, part: dict[str, Any], kind: object) -> _Snapshots:
        key = _key(part, kind)
        snapshots = self._snapshots.get(key)
        if snapshots is None:
            snapshots = _Snapshots(lambda: self._text(kind))
            self._snapshots[key] = snapshots
        return snapshots

    def _text(self, kind: object) -> Text:
        """Begin a text of a part of this kind."""
        scope: Scope = "other"
        if kind == "text":
            scope = "text"
        elif kind == "reasoning":
            scope = "reasoning"
        elif kind == "tool":
            scope = "tool_input"
        if scope not in self._scopes:
            return _Untouched()
        open_editing: OpenEditing = self._open(scope)
        return JsonText(open_editing) if kind == "tool" else open_editing("")

    def _flush(
        self, *, last: bool = False, but: _Snapshots | None = None
    ) -> list[Event]:
        out: list[Event] = []
        for key, deltas in self._texts.items():
            if deltas.text.held:
                text = deltas.text.flush(last=last)
                data = {**deltas.event["data"], "delta": text}
                beside = self._snapshots.get(key)
                if beside is not None and isinstance(data.get("part"), dict):
                    beside.flush(last=last)
                    part = cast("dict[str, Any]", data["part"])
                    data["part"] = {**part, "text": beside.out}
                if text:
                    out.append({**deltas.event, "data": data})
        for snapshots in self._snapshots.values():
            if snapshots is but:
                continue
            whole = snapshots.flush(last=last)
            if whole is not None and snapshots.show is not None:
                out.append(snapshots.show(whole))
        return out


class _Untouched:
    """A text of a scope that is left alone."""

    held = 0
    complete = True

    def feed(self, text: str, /) -> str:
        return text

    def flush(self, *, last: bool = False) -> str:
        return ""


def _counting(text: Text, counts: dict[int, int]) -> Callable[[str], str]:
    """Feed a text, and count what is held after it."""

    def feed(more: str) -> str:
        out = text.feed(more)
        held = text.held
        counts[held] = counts.get(held, 0) + 1
        return out

    return feed


def _key(part: dict[str, Any], kind: object) -> object:
    """Tell parts apart, as `accumulate` does."""
    key = part.get("id")
    if key is None:
        return (kind if isinstance(kind, str) else repr(kind),)
    return key if isinstance(key, (str, int)) else repr(key)
