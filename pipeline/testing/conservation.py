"""Text that is held back must come out in the end."""

from __future__ import annotations

from operators import event as ev

from .case import Seen
from .laws import flat, texts_of
from .trial import Subject


def lost_at_the_end(subject: Subject, normal: Seen) -> str | None:
    """Tell what a whole turn does not give although it was read.

    A text that lacks its end, or one that further events that have no text make longer,
    was held back by an operator whose `finish` does not return it.
    """
    sent = texts_of(normal.events)
    given = texts_of(flat(normal.script.events))
    for part, text in given.items():
        out = sent.get(part, "")
        if out != text and text.startswith(out) and (out or not any(sent.values())):
            return f"the source gave part {part} as {text!r}, and {out!r} came out"
    notes = [ev.event("note", {"n": n}) for n in range(100, 108)]
    longer = texts_of(subject.normal((*subject.events, *notes)).events)
    for part, text in longer.items():
        out = sent.get(part, "")
        if out != text and text.startswith(out):
            return (
                f"part {part} came as {out!r}, and as {text!r} when other events "
                f"followed it"
            )
    return None
