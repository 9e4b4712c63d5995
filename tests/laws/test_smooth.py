import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import event as ev
from operators.grapheme import is_boundary
from operators.smooth import smooth
from operators.testing import chop, deltas, feed
from operators.units import CUTS

UNITS = pytest.mark.parametrize("unit", CUTS)
TEXT = st.text(
    "ab \n\r.\u0301\u200d\ufe0f\U0001f1e9\U0001f1ea\U0001f44d\U0001f3fd"
    "\u1112\u1161\u11ab\uac00\u4f60\u0e33\u0915\u094d",
    max_size=40,
)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=5)
DELTAS = st.builds(
    lambda part_id, text: ev.delta(ev.text_part(part_id), text),
    st.sampled_from(["p1", "p2"]),
    st.text("ab \u0301", min_size=1, max_size=6),
)
OTHERS = st.builds(lambda n: {"type": "other", "n": n}, st.integers(0, 3))


def cut_up(unit, texts):
    """Cut a text that comes in pieces, as a backlog does."""
    made, rest = [], ""
    for text in texts:
        units, rest = CUTS[unit](rest + text)
        made += units
    return [*made, rest]


@UNITS
@given(text=TEXT, sizes=SIZES)
def test_the_units_do_not_depend_on_how_the_text_is_cut(unit, text, sizes):
    units = cut_up(unit, chop(text, sizes))
    assert units == cut_up(unit, [text])
    assert "".join(units) == text
    assert all(units[:-1])


@UNITS
@given(text=TEXT, sizes=SIZES)
def test_no_grapheme_is_ever_split(unit, text, sizes):
    at = 0
    for piece in cut_up(unit, chop(text, sizes))[:-1]:
        at += len(piece)
        assert at == len(text) or is_boundary(text, at)


@UNITS
@given(events=st.lists(DELTAS | DELTAS | OTHERS, max_size=15))
def test_text_and_order_stay(unit, events):
    def said(events):
        """Adjacent deltas of a part joined."""
        made = []
        for event in events:
            part = event["data"]["part"]["id"] if "data" in event else None
            if part and made and made[-1][0] == part:
                made[-1] = (part, made[-1][1] + event["data"]["delta"])
            else:
                made.append((part, event["data"]["delta"] if part else event))
        return made

    fast = {"delay": 1e-6, "max_lag": 1e-6}
    assert said(asyncio.run(feed(smooth(unit, **fast), events))) == said(events)


@given(text=TEXT, sizes=SIZES)
def test_the_text_of_a_part_is_the_same_however_it_is_cut(text, sizes):
    made = asyncio.run(
        feed(smooth(delay=1e-6, max_lag=1e-6), deltas(*chop(text, sizes)))
    )
    assert "".join(event["data"]["delta"] for event in made) == text
