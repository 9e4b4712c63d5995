"""Hypothesis strategies: valid streams, almost valid ones, texts and their cuts.

    @given(strategies.valid_turns())
    def test_nothing_is_lost(reads): ...

They need hypothesis: `pip install 'turnpipe[testing]'`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from operators import event as ev

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

    from operators.event import Event

try:
    from hypothesis import strategies as st
except ImportError as missing:
    raise ImportError(
        "pipeline.testing.strategies needs hypothesis: pip install 'turnpipe[testing]'"
    ) from missing

_SPOTS = (
    "\u2028",
    "\u0085",
    "\x0c",
    "\r\n",
    "\0",
    '"',
    "\\",
    "\U0001f469\u200d\U0001f680",
)
"""What streams have been cut at, or escaped wrongly."""


def texts(*, max_size: int = 40) -> SearchStrategy[str]:
    """Make texts, among them separators, escapes and emoji that must not be cut."""
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size)
    spotted = st.lists(
        st.one_of(st.sampled_from(_SPOTS), st.text("ab \n", max_size=4)), max_size=6
    ).map("".join)
    return st.one_of(plain, spotted.map(lambda text: text[:max_size]))


@st.composite
def chunkings(draw: DrawFn, text: str) -> list[str]:
    """Cut `text` in some way; pieces are not empty and join to it."""
    if not text:
        return []
    inner = range(1, len(text))
    cuts = sorted(draw(st.sets(st.sampled_from(inner)))) if len(text) > 1 else []
    ends = [0, *cuts, len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


@st.composite
def deltas_of(
    draw: DrawFn, text: str, *, part_id: str = "p1", kind: str = "text"
) -> list[Event]:
    """Make the deltas of one part that say `text`, cut in some way."""
    part = {"type": kind, "id": part_id}
    return [ev.delta(part, piece) for piece in draw(chunkings(text))]


@st.composite
def valid_turns(draw: DrawFn, *, max_parts: int = 4) -> list[Event | list[Event]]:
    """Make what a source may say in one turn: singles and lists, parts interleaved.

    Texts and reasonings in deltas, tools from pending to their end, events of a
    product's own, and perhaps a usage and a `result` that says the same text.
    """
    count = draw(st.integers(0, max_parts))
    queues: list[list[Event]] = [draw(_part(f"p{n}")) for n in range(count)]
    events: list[Event] = []
    while queues := [queue for queue in queues if queue]:
        queue = draw(st.sampled_from(queues))
        events.append(queue.pop(0))
    if draw(st.booleans()):
        events.append(ev.llm_call(model="m", inputTokens=3, outputTokens=len(events)))
    return draw(_reads(events))


@st.composite
def _part(draw: DrawFn, part_id: str) -> list[Event]:
    kind = draw(st.sampled_from(("text", "reasoning", "tool", "own")))
    if kind == "own":
        return [ev.event("product.note", {"n": draw(st.integers(-(2**53), 2**53))})]
    if kind != "tool":
        return draw(deltas_of(draw(texts()), part_id=part_id, kind=kind))
    tool: dict[str, Any] = {"tool": "look", "call_id": f"c-{part_id}"}
    given = {"q": draw(texts(max_size=8))}
    states: list[Event] = [ev.tool_part(part_id, status="pending", **tool)]
    states.append(ev.tool_part(part_id, status="running", input=given, **tool))
    if draw(st.booleans()):
        states.append(
            ev.tool_part(part_id, status="completed", input=given, output="y", **tool)
        )
    else:
        states.append(
            ev.tool_part(part_id, status="error", input=given, error="no", **tool)
        )
    return states


@st.composite
def _reads(draw: DrawFn, events: list[Event]) -> list[Event | list[Event]]:
    """Put runs of events into lists, as one read delivers them."""
    reads: list[Event | list[Event]] = []
    at = 0
    while at < len(events):
        size = draw(st.integers(0, 4))
        if size:
            reads.append(events[at : at + size])
            at += size
        else:
            reads.append(events[at])
            at += 1
    return reads


@st.composite
def almost_valid_turns(draw: DrawFn) -> list[Any]:
    """Make what a broken source says: a valid turn with one or two things wrong in it.

    Something that is no event, a missing or odd `data`, a delta that is no text, a lone
    surrogate, a number that JSON has not, an envelope of its own in the middle, a tool
    that ends twice.
    """
    reads: list[Any] = list(draw(valid_turns()))
    part = ev.text_part("p0")
    wrong: tuple[Any, ...] = (
        None,
        42,
        "text",
        b"bytes",
        [None],
        {},
        {"data": {}},
        {"type": None},
        {"type": 7, "data": {}},
        {"type": ev.PART_UPDATED},
        {"type": ev.PART_UPDATED, "data": None},
        {"type": ev.PART_UPDATED, "data": {"part": None, "delta": "x"}},
        {"type": ev.PART_UPDATED, "data": {"part": part, "delta": 5}},
        {"type": ev.PART_UPDATED, "data": {"part": {"type": "text"}, "delta": "x"}},
        ev.delta(part, "\ud800"),
        ev.delta(part, ""),
        {"type": "odd", "data": {"x": float("nan")}},
        {"type": "odd", "data": {"x": 2**70}},
        {"type": "odd", "data": {"x": {1, 2}}},
        {"type": "odd", "data": {3: "key"}},
        ev.started("theirs", None, 0),
        ev.completed("theirs"),
        {"type": ev.ERROR, "data": {"message": "no"}},
        {"type": ev.ERROR},
        ev.tool_part("p0", tool="look", call_id="c", status="completed", output=1),
    )
    for _ in range(draw(st.integers(1, 2))):
        reads.insert(draw(st.integers(0, len(reads))), draw(st.sampled_from(wrong)))
    return reads
