"""What holds of every turn, however it ends: `broken_laws` of one run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from operators import event as ev

from .case import SETTLE_S, Seen

Law: TypeAlias = Literal[
    "terminal",
    "raises",
    "ends",
    "status",
    "source",
    "hooks",
    "cancellation",
    "leaks",
    "text",
    "kept",
    "logs",
    "mutation",
    "independent",
]
LAWS: dict[Law, str] = {
    "terminal": "exactly one terminal event, and it is the last",
    "raises": "the reader never sees a turn's failure raised",
    "ends": "every reader and every outcome() comes to an end in time",
    "status": "the turn ends as its row says",
    "source": "the source is closed when the turn is over",
    "hooks": "finish and close run once, settle at most once",
    "cancellation": "a cancellation is never swallowed",
    "leaks": "no task, async generator or timer is left",
    "text": "what was sent is the beginning of what a whole turn sends",
    "kept": "what the operators hold back is sent in the end, never lost",
    "logs": "nothing raises while the turn is closed",
    "mutation": "the events of the source are not written into",
    "independent": "turns of one pipeline know nothing of each other",
}
"""The laws, by the name that `waive=` takes."""

_ENVELOPE = ev.TERMINALS | {ev.RUN_STARTED, ev.ERROR}


@dataclass(frozen=True, slots=True)
class Breach:
    """A law that a run broke; `operator` names the one at fault where that shows."""

    law: Law
    told: str
    seen: Seen
    operator: str | None = None


def broken_laws(seen: Seen, normal: Seen | None) -> Iterator[Breach]:
    """Give the laws that a run broke; `normal` is an undisturbed one to compare with."""
    for law, told, operator in _broken(seen, normal):
        yield Breach(law, told, seen, operator)


Found: TypeAlias = "tuple[Law, str, str | None]"


def _broken(seen: Seen, normal: Seen | None) -> Iterator[Found]:
    if seen.stuck is not None:
        yield "ends", seen.stuck + _hanging(seen), _hangs(seen)
        return
    yield from _terminal(seen)
    yield from _reader(seen)
    yield from _ending(seen)
    if seen.source_open and not seen.case.script.get("finally_hangs"):
        yield (
            "source",
            "the source was opened and not closed: aclose() what you read",
            None,
        )
    yield from _hooks(seen)
    if seen.left:
        yield "leaks", "; ".join(seen.left), None
    if seen.complaints:
        yield "leaks", "the event loop complains: " + "; ".join(seen.complaints), None
    yield from _logs(seen)
    if normal is not None:
        yield from _text(seen, normal)
    for was, now in seen.script.changed():
        yield "mutation", f"the source gave {was!r}, which became {now!r}", None
        break


def _terminal(seen: Seen) -> Iterator[Found]:
    if not seen.enveloped or not seen.events:
        return
    for where, events in (("taps", seen.events), ("the reader", seen.got)):
        if where == "the reader" and (
            not seen.read_all
            or seen.case.reading != "events"
            or seen.case.action in ("aclose", "detach")
            or seen.cancelled
        ):
            continue
        kinds = [event.get("type") for event in events]
        ends = [at for at, kind in enumerate(kinds) if kind in ev.TERMINALS]
        if len(ends) == 1 and ends[0] == len(kinds) - 1:
            continue
        if not ends:
            told = (
                f"{where} saw none: an operator after the lifecycle held or dropped it"
            )
        elif len(ends) > 1:
            told = f"{where} saw {len(ends)}: {[kinds[at] for at in ends]}"
        else:
            told = f"{where} saw more after it: {kinds[ends[0] + 1 :]}"
        yield "terminal", told, None
        return


def _reader(seen: Seen) -> Iterator[Found]:
    case = seen.case
    asked = (case.action == "task" and seen.acted) or seen.cancelled
    raised = seen.raised
    if isinstance(raised, asyncio.CancelledError):
        if not asked:
            yield "raises", "the reader's task was cancelled by nobody outside", None
    elif raised is not None:
        if seen.enveloped or not case.faulty:
            yield "raises", f"the reader got {raised!r}", None
    elif asked:
        yield (
            "cancellation",
            "the reader's task was cancelled and ended as if it were not: see that "
            "`except` and `finally` blocks let CancelledError pass",
            None,
        )


def _ending(seen: Seen) -> Iterator[Found]:
    case, outcome = seen.case, seen.outcome
    if outcome is None:
        yield "ends", "outcome() raised", None
        return
    if (
        seen.took > 3 * SETTLE_S
        and case.reading != "headless"
        and not case.second
        and case.mode == "cancel"
    ):
        yield "ends", f"outcome() took {seen.took:g} s", _hangs(seen)
    if outcome.code == "settle_timeout" and case.code != "settle_timeout":
        yield (
            "ends",
            f"settling took more than {SETTLE_S:g} s{_hanging(seen)}",
            _hangs(seen),
        )
        return
    expected = case.expect
    if not seen.injected and case.inject is not None:
        expected = frozenset({"completed"})
    if not seen.enveloped and case.row.startswith("in-band"):
        return  # without a lifecycle nobody reads reports
    if outcome.status not in expected:
        why = f": {outcome.error!r}" if outcome.error is not None else ""
        yield (
            "status",
            f"it ended {outcome.status}, not {' or '.join(sorted(expected))}{why}",
            None,
        )
    elif (
        case.code is not None
        and outcome.status == "failed"
        and outcome.code != case.code
    ):
        yield "status", f"its code is {outcome.code!r}, not {case.code!r}", None


def _hanging(seen: Seen) -> str:
    hung = [
        f"{part} of operator {k + 1}, {seen.names[k]}"
        for (k, part), count in seen.begun.items()
        if count > seen.ended[k, part]
    ]
    return f": {', '.join(hung)} did not end" if hung else ""


def _hangs(seen: Seen) -> str | None:
    for (k, part), count in seen.begun.items():
        if count > seen.ended[k, part]:
            return seen.names[k]
    return None


def _hooks(seen: Seen) -> Iterator[Found]:
    outcome = seen.outcome
    failed = outcome is None or outcome.status == "failed" or seen.injected
    for k, stage in seen.stages.items():
        name = seen.names[k]
        for part in ("finish", "settle", "close"):
            if getattr(stage, part) is None:
                continue
            count = seen.begun[k, part]
            least = 0 if part == "settle" or (failed and part == "finish") else 1
            if part == "settle" and not failed and outcome is not None:
                least = int(stage.when == "always" or outcome.status == "completed")
            if not least <= count <= 1:
                yield "hooks", f"{part} of {name} ran {count} times", name


def _logs(seen: Seen) -> Iterator[Found]:
    if seen.case.faulty:
        return
    for message, meta in seen.logs:
        if "error" in meta and seen.outcome is not None and seen.outcome.error is None:
            at = meta.get("operator")
            name = at if isinstance(at, str) else None
            yield "logs", f"{message}: {meta['error']}", name


def _text(seen: Seen, normal: Seen) -> Iterator[Found]:
    sent, whole = texts_of(seen.events), texts_of(normal.events)
    for part, text in sent.items():
        if not whole.get(part, "").startswith(text):
            yield (
                "text",
                f"part {part} is {text!r}, which is not how {whole.get(part, '')!r} "
                f"begins",
                None,
            )
            return
    known = [event for event in flat(seen.script.events) if _is_other(event)]
    others = [event for event in seen.events if event in known]
    expected = [event for event in normal.events if event in known]
    if others != expected[: len(others)]:
        yield "text", f"events came as {others!r}, in a whole turn {expected!r}", None
        return
    if seen.case.drained and sent != whole:
        yield "kept", f"the source ended, and of {whole!r} came {sent!r} alone", None
    elif seen.case.action == "cancel" and seen.acted and _plain(normal, whole):
        played = seen.script.turns
        passed = played[0].pulled - 1 if played else 0
        least = texts_of(flat(seen.script.events[: max(passed, 0)]))
        lost = {
            part: text
            for part, text in least.items()
            if not sent.get(part, "").startswith(text)
        }
        if lost:
            yield "kept", f"cancelled after {lost!r} was read, {sent!r} was sent", None


def _plain(normal: Seen, whole: dict[Any, str]) -> bool:
    """Tell whether the operators let the text of the source pass as it is."""
    return whole == texts_of(flat(normal.script.events))


def texts_of(events: list[Any]) -> dict[Any, str]:
    """Join the deltas of each part."""
    texts: dict[Any, str] = {}
    for event in events:
        if not isinstance(event, dict):
            continue
        known = cast("dict[str, Any]", event)
        data: Any = known.get("data")
        if known.get("type") != ev.PART_UPDATED or not isinstance(data, dict):
            continue
        told = cast("dict[str, Any]", data)
        part, text = told.get("part"), told.get("delta")
        if isinstance(text, str) and isinstance(part, dict):
            named = cast("dict[str, Any]", part)
            key = f"{named.get('type')} {named.get('id')}"
            texts[key] = texts.get(key, "") + text
    return texts


def flat(items: Any) -> list[Any]:
    """Take the lists among the items apart."""
    flat: list[Any] = []
    for item in items:
        if isinstance(item, list):
            flat += cast("list[Any]", item)
        else:
            flat.append(item)
    return flat


def _is_other(event: Any) -> bool:
    """Tell whether it is an event of the source that is neither text nor envelope."""
    return (
        isinstance(event, dict)
        and cast("dict[str, Any]", event).get("type") not in _ENVELOPE
        and not texts_of([event])
    )
