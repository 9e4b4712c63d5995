"""smooth: whole units, at an even pace, in order, and nothing is ever lost."""

import asyncio
from contextlib import aclosing
from itertools import pairwise

import aiostream
import pytest

import operators as ops
from operators import TurnContext, TurnIdentity
from operators import event as ev
from operators.backlog import Backlog
from operators.grapheme import is_boundary
from operators.smooth import smooth
from operators.testing import deltas, feed
from operators.units import LONGEST, cut_graphemes, cut_lines, cut_words
from pipeline import Pipeline
from pipeline.testing import check_exit_matrix, loop_clock, run_virtual

IDENTITY = TurnIdentity(session_id="s-1", turn_index=0)
NOTE = {"type": "note"}


def shown(events):
    return [
        event["data"].get("delta")
        if event["type"] == ev.PART_UPDATED
        else event["type"]
        for event in events
    ]


def timed(operator, source):
    """Run it in virtual time: (when, what) of all that comes out."""
    seen = []

    async def run():
        turn = TurnContext(identity=IDENTITY, clock=loop_clock)

        def see(event):
            seen.append((round(loop_clock(), 3), *shown([event])))

        await feed(operator | ops.tap(see), source, turn=turn)

    run_virtual(run())
    return seen


async def slowly(*steps):
    """Give events; a number among them is a pause in seconds."""
    for step in steps:
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            yield step


def whole(text):
    """Cut with the graphemes of `text`."""
    units, rest = cut_graphemes(text)
    return [*units, rest]


# -- the units


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",  # a combining mark
        "\r\n",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family, by joiners
        "\U0001f44d\U0001f3fd",  # a skin tone
        "\u2764\ufe0f",  # a variation selector
        "1\ufe0f\u20e3",  # a keycap
        "\U0001f1e9\U0001f1ea",  # a flag
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",  # a flag by tags
        "\u1112\u1161\u11ab",  # Hangul letters
        "\uac00\u11a8",  # a syllable and a trailing letter
        "\u0915\u094d\u0937",  # an Indic conjunct
        "\u0e19\u0e49\u0e33",  # Thai
        "\u0600\u0661",  # a prepended sign
        "\u0928\u093f",  # a spacing mark
    ],
)
def test_a_grapheme_is_one_unit(cluster):
    assert whole(f"a{cluster}b{cluster}") == ["a", cluster, "b", cluster]


def test_what_only_looks_joined_is_not():
    german, french = "\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"
    assert whole(german + french + "\U0001f1e9") == [german, french, "\U0001f1e9"]
    assert whole("\uac01\uac00") == ["\uac01", "\uac00"]
    assert whole("\n\u0301a\r\rb") == ["\n", "\u0301", "a", "\r", "\r", "b"]
    assert whole("a\u200d b\u200dc") == ["a\u200d", " ", "b\u200dc"]
    assert is_boundary("\U0001f1e9\U0001f1ea\U0001f1eb", 2, 0)
    assert not is_boundary("\U0001f1e9\U0001f1ea\U0001f1eb", 2, 1)


def test_words_have_the_space_before_them_and_the_last_may_go_on():
    assert cut_words("one  two\nthree") == (["one", "  two"], "\nthree")
    assert cut_words("one ") == (["one"], " ")
    assert cut_words("") == ([], "")


def test_without_spaces_each_character_is_a_word():
    assert cut_words("我们 go去。ok") == (["我", "们", " go", "去", "。"], "ok")
    assert cut_words("น้ำดี") == (["น้ำ"], "ดี")
    assert cut_words("한국 말") == (["한국"], " 말")


def test_lines_have_their_newline():
    assert cut_lines("a\r\n\nb") == (["a\r\n", "\n"], "b")


@pytest.mark.parametrize("cut", [cut_words, cut_graphemes, cut_lines])
def test_a_unit_is_bounded_and_cut_between_graphemes(cut):
    text = "e\u0301" * LONGEST if cut is not cut_graphemes else "e" + "\u0301" * 9000
    units, rest = cut(text)
    assert "".join([*units, rest]) == text
    assert max(map(len, [*units, rest])) <= LONGEST
    if cut is not cut_graphemes:
        assert all(unit.startswith("e") for unit in units)
    odd = "x" * (LONGEST - 1) + "e\u0301" + "y"
    assert cut(odd + "\n")[0][0] == (
        "x" if cut is cut_graphemes else odd[: LONGEST - 1]
    )


# -- the pace


def test_words_come_whole_one_a_delay():
    given = deltas("Hel", "lo wor", "ld, how are", " you?\n", "fine")
    assert timed(smooth(delay=0.1, max_lag=10.0), slowly(*given)) == [
        (0.0, "Hello"),
        (0.1, " world,"),
        (0.2, " how"),
        (0.3, " are"),
        (0.4, " you?"),
        (0.5, "\nfine"),
    ]


def test_a_slow_source_is_not_slowed_further():
    a, b, c = deltas("one ", "two ", "three ")
    seen = timed(smooth(delay=0.1), slowly(a, 0.2, b, 0.2, c))
    assert seen == [(0.0, "one"), (0.2, " two"), (0.4, " three"), (0.5, " ")]


@pytest.mark.parametrize("words", [50, 500, 5000])
def test_text_is_never_later_than_max_lag(words):
    text = "".join(f" w{n}" for n in range(words))
    seen = timed(smooth(delay=0.02, max_lag=0.4), slowly(*deltas(text)))
    assert "".join(said for _, said in seen) == text
    assert seen[-1][0] <= 0.4 + 0.02
    assert all(b - a >= 0.0199 for (a, _), (b, _) in pairwise(seen))


def test_a_fast_source_is_followed_at_max_lag():
    steps = []
    for delta in deltas(*[" w"] * 500):
        steps += [delta, 0.002]  # ten words a delay
    seen = timed(smooth(delay=0.02, max_lag=0.2), slowly(*steps))
    assert seen[-1][0] <= 1.0 + 0.2 + 0.04
    assert len(seen) <= 1.2 / 0.02


def test_once_it_has_caught_up_it_is_even_again():
    burst = deltas("".join(f" w{n}" for n in range(100)))
    calm = deltas(" a b c d")
    seen = timed(smooth(delay=0.1, max_lag=1.0), slowly(*burst, 2.0, *calm))
    assert [said for _, said in seen[-4:]] == [" a", " b", " c", " d"]


def test_another_event_lets_out_at_once_what_is_held_before_it():
    given = [*deltas("one two three"), 0.05, NOTE, *deltas(" four")]
    assert timed(smooth(delay=0.1), slowly(*given)) == [
        (0.0, "one"),
        (0.05, " two three"),
        (0.05, "note"),
        (0.1, " four"),
    ]


def test_an_unfinished_unit_leaves_after_max_hold():
    a, b = deltas("wo", "rd")
    seen = timed(smooth(max_hold=0.5), slowly(a, 0.3, b, 2.0, *deltas("s")))
    assert seen == [(0.8, "word"), (2.3, "s")]


def test_an_error_of_the_source_comes_after_the_text_at_its_pace():
    async def source():
        for delta in deltas("one two three"):
            yield delta
        raise ValueError("boom")

    seen = []
    operator = smooth(delay=0.1) | ops.tap(
        lambda event: seen.append((round(loop_clock(), 3), *shown([event])))
    )

    async def run():
        turn = TurnContext(identity=IDENTITY, clock=loop_clock)
        with pytest.raises(ValueError, match="boom"):
            await feed(operator, source(), turn=turn)

    run_virtual(run())
    assert seen == [(0.0, "one"), (0.1, " two"), (0.2, " three")]


# -- what is paced, and what is not


async def test_parts_and_differing_events_are_never_mixed():
    one, two = deltas("on", "e"), deltas("tw", "o", part_id="p2")
    numbered = [{**event, "seq": n} for n, event in enumerate(deltas("a", "b"))]
    made = await feed(smooth(delay=0.001), [*one, *two, *numbered])
    assert [(e["data"]["part"]["id"], e["data"]["delta"]) for e in made] == [
        ("p1", "one"),
        ("p2", "two"),
        ("p1", "a"),
        ("p1", "b"),
    ]
    assert [e.get("seq") for e in made] == [None, None, 0, 1]
    equal = [ev.delta(ev.reasoning_part("r"), text) for text in ("th", "ink")]
    assert shown(await feed(smooth(delay=0.001), equal)) == ["think"]


@pytest.mark.parametrize(
    "event",
    [
        NOTE,
        {"data": 1},
        {"type": ev.PART_UPDATED},
        {"type": ev.PART_UPDATED, "data": {"delta": ""}},
        {"type": ev.PART_UPDATED, "data": {"delta": "x", "part": "p"}},
        {"type": ev.PART_UPDATED, "data": {"delta": "{}", "part": {"type": "tool"}}},
        {"type": ev.PART_UPDATED, "data": {"delta": "x y", "part": {"text": "x y"}}},
        deltas("word")[0],
    ],
)
async def test_an_event_that_is_not_cut_passes_as_the_object_it_is(event):
    (made,) = await feed(smooth(), [event])
    assert made is event


async def test_a_delta_without_a_part_is_paced():
    given = [{"type": ev.PART_UPDATED, "data": {"delta": "one two"}}]
    assert shown(await feed(smooth(delay=0.001), given)) == ["one", " two"]


async def test_events_are_not_written_into():
    given = deltas("one two", " three")
    await feed(smooth(delay=0.001), given)
    assert given == deltas("one two", " three")


def test_the_source_is_not_pulled_without_end():
    pulled = 0

    async def source():
        nonlocal pulled
        for delta in deltas(*["four "] * 20_000):
            pulled += 1
            yield delta

    async def run():
        turn = TurnContext(identity=IDENTITY, clock=loop_clock)
        stage = smooth().open(turn)
        async with aclosing(stage.through(source())) as out:
            read = len((await anext(out))["data"]["delta"])
            for _ in range(20_000):
                await asyncio.sleep(0)
        assert pulled * 5 <= 16_384 + read + 5
        (rest,) = stage.finish()
        assert read + len(rest["data"]["delta"]) == pulled * 5
        assert stage.finish() == []

    run_virtual(run())


def test_a_backlog_gives_its_weight_back():
    backlog = Backlog(cut_words, 10)
    came = sum(backlog.push(e) for e in [*deltas("one two", " x"), NOTE, *deltas("y")])
    assert came == len("one two x") + 1 + 1
    assert backlog.pop()[1] == len("one two x") + 1
    assert backlog.pop() == ([], 0)
    assert shown(backlog.rest()) == ["y"]


async def test_a_reader_that_leaves_between_two_events_loses_neither(turn):
    stage = smooth().open(turn)
    async with aclosing(stage.through(slowly([*deltas("one two"), NOTE]))) as out:
        assert shown([await anext(out)]) == ["one two"]
    assert stage.finish() == [NOTE]


async def test_it_works_in_an_aiostream_expression():
    xs = aiostream.stream.iterate(deltas("one two", " three"))
    xs = xs | smooth(delay=0.001) | aiostream.pipe.take(2)
    assert shown(await aiostream.stream.list(xs)) == ["one", " two"]


# -- how a turn ends


def turn_of(source, *more, **options):
    saved = []
    chat = Pipeline(source) | ops.lifecycle() | smooth(**options)
    for operator in more:
        chat |= operator
    chat = chat | ops.accumulate() | ops.persist(saved.append, partial=True)
    return chat, saved


@pytest.mark.parametrize("ends", ["cancel", "stop", "close", "reader"])
def test_what_is_held_leaves_at_once_however_the_turn_is_stopped(ends):
    closed = []

    async def source():
        try:
            for delta in deltas("one two thr", "ee fo"):
                yield delta
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(True)

    async def run():
        chat, saved = turn_of(source, delay=10.0, max_lag=100.0, max_hold=1000.0)
        turn = chat.start(IDENTITY, clock=loop_clock, log=lambda *_: None)
        got = []

        async def read():
            async with aclosing(turn.events()) as events:
                async for event in events:
                    got.append(event)
                    if ends == "close" and len(got) == 2:
                        return

        reader = asyncio.create_task(read())
        await asyncio.sleep(1.0)
        if ends == "cancel":
            turn.cancel()
        elif ends == "stop":
            turn.context.stop(ValueError("boom"))
        elif ends == "reader":
            reader.cancel()
        await asyncio.wait((reader,))
        outcome = await turn.outcome()
        assert loop_clock() < 2.0
        assert outcome.status == ("failed" if ends == "stop" else "cancelled")
        assert outcome.text == "one two three fo"
        assert [record.text for record in saved] == ["one two three fo"]
        if ends in ("cancel", "stop"):
            assert shown(got)[1:3] == ["one", " two three fo"]
        assert closed == [True]

    run_virtual(run())


def test_a_detached_turn_goes_on_to_its_end():
    async def source():
        for delta in deltas("one two", " three"):
            yield delta

    async def run():
        chat, saved = turn_of(source, delay=0.1)
        turn = chat.start(IDENTITY, clock=loop_clock, on_disconnect="detach")
        async with aclosing(turn.events()) as events:
            await anext(events)
        assert (await turn.outcome()).status == "completed"
        assert [record.text for record in saved] == ["one two three"]

    run_virtual(run())


def test_every_way_in_which_a_turn_may_end():
    # An operator behind it that raises loses the text that it raised on, and what was
    # held is sent after that gap: "text" holds for lines, which leave in one piece.
    assert check_exit_matrix(smooth("line")) > 500
    assert check_exit_matrix(smooth("word"), waive=("text",)) > 500


# -- composing


def test_what_makes_no_sense_is_refused_with_the_mend():
    with pytest.raises(ops.CompositionError, match="word, grapheme, line"):
        smooth("sentence")
    for name in ("delay", "max_lag", "max_hold"):
        for wrong in (0, -1, float("nan"), float("inf"), True, "1", None):
            with pytest.raises(ops.CompositionError, match=f"{name}=.*positive"):
                smooth(**{name: wrong})
    with pytest.raises(ops.CompositionError, match="below its delay"):
        smooth(delay=2.0)
    assert smooth("line").detail == {
        "kind": "smooth",
        "unit": "line",
        "delay": 0.02,
        "max_lag": 1.0,
        "max_hold": 0.5,
    }
