"""What a turn that is run again says, its log has once, and whole."""

from hypothesis import given
from hypothesis import strategies as st

from operators import event as ev
from pipeline.durable.seam import Seam

from .worker import text_of

TEXT = st.text(alphabet="ab ", max_size=12)


@st.composite
def messages(draw):
    """Make what a turn says: texts of some parts, and other events between them."""
    said = []
    for k in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["text", "reasoning", "tool", "other"]))
        if kind in ("text", "reasoning"):
            said.append((kind, f"p{k}", draw(TEXT)))
        elif kind == "tool":
            said.append((kind, f"p{k}", draw(st.sampled_from(["x", "y"]))))
        else:
            said.append((kind, "", draw(st.sampled_from(["u", "v"]))))
    return said


def events_of(said, draw):
    """Cut the texts into deltas, at random."""
    events = [ev.started("s", None, 0)]
    for kind, name, text in said:
        if kind in ("text", "reasoning"):
            part = {"type": kind, "id": name}
            while text:
                cut = draw(st.integers(1, len(text)))
                events.append(ev.delta(part, text[:cut]))
                text = text[cut:]
        elif kind == "tool":
            events.append(
                ev.tool_part(name, tool=text, call_id=name, status="completed")
            )
        else:
            events.append({"type": text})
    return events


@given(st.data())
def test_the_same_answer_cut_otherwise_goes_on_with_nothing_twice(data):
    said = data.draw(messages())
    first = events_of(said, data.draw)
    logged = first[: data.draw(st.integers(0, len(first)))]
    again = [*events_of(said, data.draw), ev.completed("s")]
    seam = Seam(logged)
    sent = [out for event in again for out in seam.pass_(event)]
    whole = logged + sent
    assert text_of(whole) == text_of(again)
    assert [e for e in whole if not _is_delta(e)] == [
        e for e in again if not _is_delta(e)
    ]
    for name in {e["data"]["part"]["id"] for e in again if _is_delta(e)}:
        deltas = [e["data"]["delta"] for e in whole if _is_delta(e, name)]
        assert "".join(deltas) == text_of([e for e in again if _is_delta(e, name)])


@given(st.data())
def test_another_answer_replaces_the_text_of_the_first(data):
    first = events_of(data.draw(messages()), data.draw)
    logged = first[: data.draw(st.integers(0, len(first)))]
    again = [*events_of(data.draw(messages()), data.draw), ev.completed("s")]
    seam = Seam(logged)
    sent = [out for event in again for out in seam.pass_(event)]
    assert texts_of(logged + sent) == {
        **dict.fromkeys(texts_of(logged), ""),
        **texts_of(again),
    }
    assert sent[-1] == again[-1]


def texts_of(events):
    names = {
        e["data"]["part"]["id"]
        for e in events
        if e["type"] == ev.PART_UPDATED and e["data"]["part"]["type"] != "tool"
    }
    return {
        name: text_of(
            [
                e
                for e in events
                if e["type"] == ev.PART_UPDATED
                and e["data"]["part"]["id"] == name
                and e["data"]["part"]["type"] != "tool"
            ]
        )
        for name in names
    }


def _is_delta(event, name=None):
    return (
        event["type"] == ev.PART_UPDATED
        and "delta" in event["data"]
        and name in (None, event["data"]["part"]["id"])
    )


def test_a_failure_leaves_the_text_as_it_was_logged():
    part = {"type": "text", "id": "p"}
    seam = Seam([ev.delta(part, "as far as it came")])
    assert seam.pass_(ev.delta(part, "as")) == []
    failed = {"type": ev.RUN_FAILED, "data": {"sessionId": "s", "message": "m"}}
    assert seam.pass_(failed) == [failed]


def test_a_call_is_reported_once_however_long_it_took():
    seam = Seam([ev.llm_call(model="m", latencyMs=10)])
    assert seam.pass_(ev.llm_call(model="m", latencyMs=99)) == []
    other = ev.llm_call(model="n", latencyMs=5)
    assert seam.pass_(other) == [other]


def test_a_snapshot_that_says_more_than_the_log_sends_the_rest():
    part = {"type": "text", "id": "p"}
    seam = Seam([ev.delta(part, "abc")])
    whole = {"type": ev.PART_UPDATED, "data": {"part": {**part, "text": "abcdef"}}}
    sent = seam.pass_(whole)
    assert text_of([ev.delta(part, "abc"), *sent]) == "abcdef"
    assert seam.pass_(ev.delta(part, "!")) == [ev.delta(part, "!")]
