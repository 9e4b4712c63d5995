import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators import event as ev
from operators.errors import TurnBlocked
from operators.guard import MODES, guard
from operators.testing import chop, deltas, feed

ALL_MODES = pytest.mark.parametrize("mode", MODES)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
TEXT = st.text("ab. \n!", max_size=60)
DELTAS = st.builds(
    lambda part_id, text: ev.delta(ev.text_part(part_id), text),
    st.sampled_from(["p1", "p2"]),
    st.text("ab. \n", max_size=5),
)
OTHERS = st.builds(lambda n: {"type": "other", "n": n}, st.integers(0, 3))


def guarded(check, events, **options):
    """Tell what came out, and whether it was blocked."""
    out = []
    chain = guard(check, replacement="", **options) | ops.tap(out.append)
    try:
        asyncio.run(feed(chain, events))
    except TurnBlocked:
        return out, True
    return out, False


def text_of(events):
    return "".join(event["data"]["delta"] for event in events)


@ALL_MODES
@given(
    events=st.lists(DELTAS | DELTAS | OTHERS, max_size=25), window=st.integers(1, 12)
)
def test_what_passes_is_the_same_events(mode, events, window):
    seen = []
    out, blocked = guarded(seen.append, events, mode=mode, window=window)
    assert not blocked
    assert len(out) == len(events)
    assert {id(event) for event in out} == {id(event) for event in events}
    for part in ("p1", "p2", None):  # each text in order, and all other events

        def of(events, part=part):
            return [
                event
                for event in events
                if event.get("data", {}).get("part", {}).get("id") == part
            ]

        assert of(out) == of(events)


@ALL_MODES
@given(TEXT, SIZES, st.integers(1, 12), st.data())
def test_no_stretch_of_a_window_goes_unseen_however_the_text_is_cut(
    mode, text, sizes, window, data
):
    at = data.draw(st.integers(0, len(text)))
    secret = data.draw(st.integers(1, window)) * "#"
    whole = text[:at] + secret + text[at:]
    out, blocked = guarded(
        lambda seen: secret not in seen,
        deltas(*chop(whole, sizes)),
        mode=mode,
        window=window,
    )
    assert blocked
    if mode != "stream_first":
        assert secret not in text_of(out)
        assert whole.startswith(text_of(out))


@given(st.lists(st.booleans(), max_size=40), SIZES, st.integers(1, 12))
def test_hold_lets_out_checked_text_alone(lines, sizes, window):
    each = enumerate(lines)  # no character comes twice, but the newlines
    text = "".join([chr(0x400 + n) + ("\n" if ends else "") for n, ends in each])
    checked = 0
    went = ""

    def check(seen):
        nonlocal checked
        checked = text.index(seen) + len(seen)

    def look(event):
        nonlocal went
        went += event["data"]["delta"]
        assert len(went) <= checked

    chain = guard(check, window=window) | ops.tap(look, on_error="fail")
    asyncio.run(feed(chain, deltas(*chop(text, sizes))))
    assert went == text
