"""guard: what is blocked does not go out, or no further, and the turn says so."""

import asyncio
from contextlib import aclosing
from itertools import product

import aiostream
import pytest

import operators as ops
from operators import TurnIdentity
from operators import event as ev
from operators.errors import TurnBlocked
from operators.guard import MODES, guard
from operators.source import ChatTurnProducer
from operators.testing import deltas, feed
from operators.verdict import Blocked
from operators.watching import _WINDOWS
from pipeline import Pipeline
from pipeline.testing import check_exit_matrix, loop_clock, run_virtual

IDENTITY = TurnIdentity(session_id="s-1", turn_index=0)
NOTE = {"type": "note"}
PING = {"type": "ping"}
modes = pytest.mark.parametrize("mode", MODES)
kinds = pytest.mark.parametrize("kind", ["sync", "async"])


class Check:
    """A check that blocks the word `bad`, and remembers what it was given."""

    def __init__(self, word="bad", verdict=False):
        self.word = word
        self.verdict = verdict
        self.seen = []

    def judge(self, text):
        self.seen.append(text)
        return self.verdict if self.word in text else None

    def of(self, kind):
        async def later(text):
            await asyncio.sleep(0)
            return self.judge(text)

        return self.judge if kind == "sync" else later


class Ran:
    """A turn under a guard: what it sent, stored and closed."""

    def __init__(self, operator, *events, hang=False, error=None):
        self.sent = []
        self.saved = []
        self.whole = []
        self.pulled = 0
        self.closed = 0
        self.logged = []

        async def source():
            try:
                for event in events:
                    self.pulled += 1
                    yield event
                    await asyncio.sleep(0)
                if hang:
                    await asyncio.get_running_loop().create_future()
                if error is not None:
                    raise error
            finally:
                self.closed += 1

        self.chat = (
            Pipeline(source)
            | ops.lifecycle()
            | operator
            | ops.tap(self.sent.append)
            | ops.accumulate()
            | ops.persist(self.saved.append, partial=True, name="partial")
            | ops.persist(self.whole.append, name="whole")
        )

    def start(self, **options):
        return self.chat.start(
            IDENTITY,
            log=lambda message, meta: self.logged.append((message, meta)),
            **options,
        )

    async def run(self):
        self.outcome = await self.start().outcome()
        return self

    @property
    def said(self):
        return "".join(
            e["data"]["delta"] for e in self.sent if e["type"] == ev.PART_UPDATED
        )

    @property
    def types(self):
        return [e["type"] for e in self.sent if e["type"] != ev.PART_UPDATED]

    def check_blocked(self, text):
        """Check that the turn ended as blocked, and stored what it had sent."""
        assert (self.outcome.status, self.outcome.code) == ("failed", "blocked")
        assert isinstance(self.outcome.error, TurnBlocked)
        assert self.said == self.outcome.text == text
        assert [record.text for record in self.saved] == [text]
        assert [record.status for record in self.saved] == ["failed"]
        assert self.whole == []
        assert [e["type"] for e in self.sent[-2:]] == [ev.ERROR, ev.RUN_FAILED]
        assert self.sent[-2]["data"]["code"] == "blocked"
        assert self.closed == 1


# -- what passes


@modes
@kinds
async def test_what_passes_comes_out_as_the_objects_that_came_in(mode, kind):
    check = Check()
    given = [*deltas("One.", " Two", " three"), PING, NOTE, *deltas("four")]
    made = await feed(guard(check.of(kind), mode=mode, window=8), given)
    order = [e for e in made if e is not PING]
    assert all(a is b for a, b in zip(order, [*given[:3], *given[4:]], strict=True))
    assert PING in made
    assert check.seen


async def test_hold_lets_text_out_when_a_sentence_ends_or_the_window_is_full():
    check = Check()
    went = []

    async def source():
        for event in deltas("One", " two.", " Three", " four five six", " x", "。"):
            yield event
            went.append(list(check.seen))

    await feed(guard(check.judge, window=16), source())
    assert went[:2] == [[], []]
    assert check.seen == [
        "One two. Three",
        "One two. Three" + " four five six x",
        " four five six x" + "。",
    ]


@pytest.mark.parametrize(
    ("before", "text", "ends"),
    [
        ("a.", " b", True),
        ("a", ". ", True),
        ("a", '?" b', True),
        ('a!"', " ", True),
        ("a", "\n", True),
        ("a", "。", True),
        ("a", ".5", False),
        ("a. ", "b", False),
        ("a", " b", False),
    ],
)
async def test_what_ends_a_sentence(before, text, ends):
    check = Check()
    looked = []

    async def source():
        for event in deltas(before, text):
            seen = len(check.seen)
            yield event
            looked.append(len(check.seen) > seen)

    await feed(guard(check.judge), source())
    assert looked[1] is ends


async def test_text_before_another_event_is_checked_before_that_passes():
    ran = await Ran(guard(Check().judge), *deltas("so b", "ad"), NOTE).run()
    ran.check_blocked("[blocked]")
    assert "note" not in ran.types


async def test_heartbeats_overtake_held_text():
    made = await feed(guard(Check().judge), [*deltas("a"), PING, *deltas("b")])
    assert made[0] is PING


async def test_interleaved_parts_are_texts_of_their_own():
    check = Check()
    one, two = deltas(*["ba", "d"]), deltas(*["xx", "yy"], part_id="p2")
    given = [one[0], two[0], one[1], two[1]]
    with pytest.raises(TurnBlocked):
        await feed(guard(check.judge), given)
    assert check.seen == ["bad"]
    check = Check("nothing")
    await feed(guard(check.judge), given)
    assert sorted(check.seen) == ["bad", "xxyy"]


@modes
async def test_snapshots_and_results_are_checked_too(mode):
    part = {"type": "text", "id": "p"}
    grown = [
        {"type": ev.PART_UPDATED, "data": {"part": {**part, "text": text}}}
        for text in ("so", "so b", "so bad", "so bad!")
    ]
    beside = ev.delta({**part, "text": "all bad"}, "fine")
    bare = {"type": ev.PART_UPDATED, "data": {"delta": "bad"}}
    for given in (
        grown,
        [beside],
        [ev.result("so bad")],
        [bare],
        [ev.delta(part, "bad")],
    ):
        check = Check()
        with pytest.raises(TurnBlocked):
            await feed(guard(check.judge, mode=mode), given)
        check = Check("other")
        await feed(guard(check.judge, mode=mode), given)
    check = Check("nothing")
    await feed(guard(check.judge, window=4), grown)
    assert check.seen == ["so b", "so bad!"] or check.seen[-1].endswith("bad!")


async def test_a_snapshot_after_deltas_is_checked_whole():
    check = Check()
    part = {"type": "text", "id": "p1"}
    same = {"type": ev.PART_UPDATED, "data": {"part": {**part, "text": "one"}}}
    empty = {"type": ev.PART_UPDATED, "data": {"part": {**part, "text": ""}}}
    other = {"type": ev.PART_UPDATED, "data": {"part": {**part, "text": "new one"}}}
    given = [*deltas("on", "e"), same, same, empty, NOTE, other]
    for kind in ("sync", "async"):
        assert await feed(guard(check.of(kind)), given) == given
    assert check.seen == ["one\none", "one\none\nnew one"] * 2


@modes
async def test_an_error_with_a_code_of_its_own_keeps_it(mode):
    def check(text):
        raise ops.PublicError("moderation is down", code="moderation")

    async def later(text):
        check(text)

    for one in (check, later):
        given = deltas("a.\n", "b", "c.\n")
        ran = await Ran(guard(one, mode=mode), *given).run()
        assert isinstance(ran.outcome.error, ops.PublicError)
        assert ran.sent[-2]["data"]["message"] == "moderation is down"


@modes
async def test_tools_and_odd_events_are_not_its_affair(mode):
    tool = ev.tool_part(
        "t", tool="x", call_id="c", status="running", input={"a": "bad"}
    )
    odd = [
        tool,
        {"data": 1},
        {"type": ev.PART_UPDATED},
        {"type": ev.RESULT, "data": {}},
    ]
    odd.append({"type": ev.PART_UPDATED, "data": {"part": "p", "x": "bad"}})
    check = Check()
    assert await feed(guard(check.judge, mode=mode), odd) == odd
    assert check.seen == []


# -- what is blocked


@kinds
async def test_hold_shows_nothing_of_a_window_that_is_blocked(kind):
    check = Check()
    events = deltas("Good.", " So", " bad", " it.", " is")
    ran = await Ran(guard(check.of(kind)), *events, *deltas("never"), hang=True).run()
    ran.check_blocked("Good. So[blocked]")
    assert ran.pulled == 5


@kinds
async def test_a_violation_over_two_windows_is_seen(kind):
    check = Check("kill all")
    ran = await Ran(
        guard(check.of(kind), window=8), *deltas("xxxx kill", " all xxx")
    ).run()
    ran.check_blocked("xxxx kill[blocked]")


@kinds
@modes
async def test_a_block_at_the_very_end_fails_the_turn(mode, kind):
    check = Check()
    ran = await Ran(guard(check.of(kind), mode=mode), *deltas("all ", "bad")).run()
    ran.check_blocked("all bad[blocked]" if mode == "stream_first" else "[blocked]")


async def test_final_checks_all_texts_once_and_keeps_what_is_no_text():
    check = Check()
    reasoning = ev.delta(ev.reasoning_part("r"), "why")
    given = [NOTE, *deltas("a.\n", "b"), NOTE, reasoning, *deltas("bad")]
    ran = await Ran(guard(check.judge, mode="final"), *given).run()
    assert check.seen == ["a.\nbbad\n\nwhy"]
    ran.check_blocked("[blocked]")
    assert ran.types == [ev.RUN_STARTED, "note", "note", ev.ERROR, ev.RUN_FAILED]
    passing = Check("nothing")
    assert await feed(guard(passing.judge, mode="final"), given) == given


async def test_final_without_text_checks_nothing():
    check = Check("")
    assert await feed(guard(check.judge, mode="final"), [NOTE]) == [NOTE]
    assert check.seen == []


def test_stream_first_stops_the_turn_as_soon_as_the_verdict_is_there():
    async def check(text):
        await asyncio.sleep(0.3)
        return Blocked("rude", "[sorry]") if "bad" in text else None

    async def run():
        ran = Ran(
            guard(check, mode="stream_first"), *deltas("so bad.\n", "more"), hang=True
        )
        reading = ran.start(clock=loop_clock)
        got = [(round(loop_clock(), 3), event) async for event in reading.events()]
        ran.outcome = await reading.outcome()
        ran.check_blocked("so bad.\nmore[sorry]")
        assert ran.outcome.error.reason == "rude"
        assert [at for at, event in got if event["type"] == ev.PART_UPDATED] == [
            0.0,
            0.0,
            0.3,
        ]

    run_virtual(run())


def test_stream_first_waits_where_it_is_too_far_ahead():
    gate = []
    texts = []

    async def check(text):
        texts.append(text)
        gate.append(asyncio.get_running_loop().create_future())
        await gate[-1]

    async def run():
        ran = Ran(guard(check, mode="stream_first", window=4), *deltas(*["1234"] * 100))
        turn = ran.start()
        ending = asyncio.create_task(turn.outcome())
        await asyncio.sleep(1)
        assert ran.pulled == _WINDOWS + 1
        while not ending.done():
            for one in gate:
                if not one.done():
                    one.set_result(None)
            await asyncio.sleep(0)
        assert (await ending).status == "completed"
        assert ran.said == "1234" * 100
        assert texts[:2] == ["1234", "1234" * (_WINDOWS + 1)]

    run_virtual(run())


async def test_the_replacement_is_the_blocks_own_or_the_guards_or_none():
    for verdict, replacement, shown in (
        (False, "[no]", "[no]"),
        (Blocked("x"), "[no]", "[no]"),
        (Blocked("x", "[mine]"), "[no]", "[mine]"),
        (Blocked("x", ""), "[no]", ""),
        (False, "", ""),
    ):
        for mode in ("hold", "final"):
            check = Check(verdict=verdict)
            operator = guard(check.judge, replacement=replacement, mode=mode)
            (await Ran(operator, *deltas("bad")).run()).check_blocked(shown)


async def test_a_blocked_result_is_replaced_as_a_result():
    ran = Ran(guard(Check().judge), *deltas("fine"), ev.result("bad"))
    outcome = await ran.start().outcome()
    assert (outcome.code, outcome.text) == ("blocked", "[blocked]")


async def test_text_that_passed_goes_out_although_another_is_blocked():
    given = [*deltas("fine"), ev.delta(ev.text_part("p2"), "bad"), NOTE]
    ran = await Ran(guard(Check().judge), *given).run()
    assert ran.said == "fine[blocked]"
    assert ran.outcome.code == "blocked"


@kinds
async def test_the_final_text_of_a_producer_is_checked(kind):
    saved = []
    for final, stored in (("bad", []), ("good", ["good"]), ("said", ["said"])):
        check = Check()

        def produce(final=final):
            async def stream():
                for event in deltas("said"):
                    yield event

            return ChatTurnProducer(stream=stream(), final_text=lambda: final)

        saved.clear()
        chat = Pipeline(produce) | ops.lifecycle() | guard(check.of(kind))
        chat |= ops.accumulate() | ops.persist(saved.append, partial=True)
        outcome = await chat.start(IDENTITY, log=lambda *_: None).outcome()
        assert [record.text for record in saved] == stored
        assert outcome.code == (None if stored else "blocked")
        assert len(check.seen) == (1 if final == "said" else 2)


# -- a check that raises


@modes
@kinds
@pytest.mark.parametrize(
    "wrong", [ValueError("boom"), "unsafe", asyncio.CancelledError()]
)
async def test_it_fails_closed_when_its_check_does(mode, kind, wrong):
    calls = 0

    def check(text):
        nonlocal calls
        calls += 1
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong

    async def later(text):
        return check(text)

    given = deltas("secret.\n", "more.\n", "secret")
    operator = guard(check if kind == "sync" else later, mode=mode, window=4)
    ran = await Ran(operator, *given).run()
    assert (ran.outcome.status, ran.outcome.code) == ("failed", "operator_failed")
    if mode != "stream_first":
        assert ran.said == ran.outcome.text == ""
    assert calls == 1
    assert ran.whole == []
    cause = ran.outcome.error.__cause__ if mode == "stream_first" else ran.outcome.error
    if isinstance(wrong, ValueError):
        assert cause is wrong
    elif isinstance(wrong, str):
        assert "gave str" in str(cause)
    assert ran.closed == 1


async def test_a_plain_function_that_gives_an_awaitable_blocks_everything():
    async def later(text):
        return True

    ran = await Ran(guard(lambda text: later(text)), *deltas("a.\n")).run()
    assert ran.outcome.code == "operator_failed"
    assert "async def" in str(ran.outcome.error)
    future = asyncio.get_running_loop().create_future()
    ran = await Ran(guard(lambda text: future), *deltas("a.\n")).run()
    assert (ran.outcome.code, ran.said) == ("operator_failed", "")


async def test_what_operators_before_it_hold_does_not_slip_past_a_closed_guard():
    class Last:
        shape = "flat_map"

        def on_event(self, event):
            return [event]

        def finish(self):
            return [*deltas("bad"), NOTE]

    for mode, kind in product(MODES, ("sync", "async")):
        chain = ops.operator(Last) | guard(Check().of(kind), mode=mode, window=3)
        ran = await Ran(chain, *deltas("bad."), hang=mode != "final").run()
        assert ran.outcome.code == "blocked"
        assert ran.said == ("bad." if mode == "stream_first" else "") + "[blocked]"
        assert "note" in ran.types


@modes
async def test_it_works_before_the_lifecycle_and_before_a_boundary(mode):
    for chain in (
        guard(Check().judge, mode=mode) | ops.lifecycle(),
        ops.lifecycle() | guard(Check().judge, mode=mode) | ops.coalesce(max_delay=1.0),
    ):

        async def source():
            for event in deltas("so ", "bad"):
                yield event

        saved = []
        chat = Pipeline(source) | chain | ops.accumulate()
        chat |= ops.persist(saved.append, partial=True)
        outcome = await chat.start(IDENTITY, log=lambda *_: None).outcome()
        assert (outcome.status, outcome.code) == ("failed", "blocked")
        text = "so bad[blocked]" if mode == "stream_first" else "[blocked]"
        assert [record.text for record in saved] == [text]


# -- other ends


@pytest.mark.parametrize("mode", ["hold", "final"])
@pytest.mark.parametrize("word", ["bad", "other"])
@pytest.mark.parametrize("how", ["cancel", "error", "close", "detach"])
async def test_what_is_held_is_checked_however_the_turn_ends(mode, word, how):
    check = Check(word)
    error = ValueError("boom") if how == "error" else None
    ran = Ran(
        guard(check.of("async"), mode=mode),
        NOTE,
        *deltas("so ", "bad"),
        hang=how in ("cancel", "close"),
        error=error,
    )
    turn = ran.start(on_disconnect="detach" if how == "detach" else "cancel")
    async with aclosing(turn.events()) as events:
        async for event in events:
            if event is NOTE:
                break
        if how in ("cancel", "error"):
            reading = asyncio.create_task(anext(events))
            while ran.pulled < 3:
                await asyncio.sleep(0)
            if how == "cancel":
                turn.cancel()
            await reading
            async for _ in events:
                pass
    outcome = await turn.outcome()
    if how == "close":  # it was read no further
        assert (outcome.status, ran.said) == ("cancelled", "")
        return
    assert ran.said == ("so bad" if word == "other" else "[blocked]")
    assert ran.saved[0].text == ran.said
    if word == "bad" and how != "error":
        assert outcome.code == "blocked"
    elif how != "detach":
        assert outcome.status == ("failed" if how == "error" else "cancelled")


@modes
@pytest.mark.parametrize("how", ["cancel", "reader"])
def test_a_cancel_while_the_check_runs_leaves_no_task(mode, how):
    cancelled = []
    begun = []

    async def check(text):
        begun.append(text)
        if len(begun) > 1:
            return
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(text)
            raise

    async def run():
        events = deltas("One.\n", "two")
        ran = Ran(guard(check, mode=mode), *events, hang=mode != "final")
        turn = ran.start(settle_timeout=2.0, clock=loop_clock)

        async def read():
            async with aclosing(turn.events()) as events:
                async for _ in events:
                    pass

        reader = asyncio.create_task(read())
        await asyncio.sleep(1.0)
        assert len(begun) == 1
        if how == "cancel":
            turn.cancel()
        else:
            reader.cancel()
        await asyncio.wait((reader,))
        outcome = await turn.outcome()
        assert len(cancelled) == 1
        if mode == "final":  # settlement runs already, and takes what it may
            assert outcome.code == "settle_timeout"
            assert ran.said == ""
        else:
            assert outcome.status == "cancelled"
            assert ran.said == ("One.\ntwo" if mode == "stream_first" else "One.\n")
        assert ran.closed == 1
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "guard(check)" not in names

    run_virtual(run())


def test_a_last_verdict_that_does_not_come_ends_with_settle_timeout():
    async def check(text):
        await asyncio.sleep(1000)

    async def run():
        ran = Ran(guard(check, mode="stream_first"), *deltas("text"))
        outcome = await ran.start(settle_timeout=2.0, clock=loop_clock).outcome()
        assert outcome.code == "settle_timeout"
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "guard(check)" not in names

    run_virtual(run())


def passes(text):
    return True


async def passes_later(text):
    await asyncio.sleep(0.003)


@pytest.mark.parametrize(
    ("mode", "check"), [("hold", passes), *[(mode, passes_later) for mode in MODES]]
)
def test_every_way_in_which_a_turn_may_end(mode, check):
    assert check_exit_matrix(guard(check, mode=mode, window=8)) > 1000


@modes
async def test_it_works_in_an_aiostream_expression(mode):
    xs = aiostream.stream.iterate(deltas("fine. ", "so ", "bad"))
    passing = xs | guard(Check("nothing").judge, mode=mode)
    assert await aiostream.stream.list(passing) == deltas("fine. ", "so ", "bad")
    with pytest.raises(TurnBlocked):
        await aiostream.stream.list(xs | guard(Check().judge, mode=mode))


# -- what it is told, and composing


@modes
async def test_verdicts_are_told_and_what_that_raises_is_logged(mode):
    told = []

    def tell(blocked, text, turn):
        told.append((blocked, text, turn.identity.session_id))
        raise ValueError("boom")

    def check(text, turn):
        assert turn.identity is IDENTITY
        return Blocked("rude") if "bad" in text else True

    operator = guard(check, mode=mode, on_verdict=tell)
    ran = await Ran(operator, *deltas("bad")).run()
    assert told == [(Blocked("rude"), "bad", "s-1")]
    assert ran.outcome.code == "blocked"
    assert any("on_verdict raised" in message for message, _ in ran.logged)
    told.clear()
    await feed(
        guard(Check().judge, mode=mode, on_verdict=lambda *a: told.append(a)),
        deltas("a"),
    )
    assert told == [(None, "a")]


def test_what_makes_no_sense_is_refused_with_the_mend():
    async def later(blocked, text):
        """Nobody awaits it."""

    for wrong, match in (
        ({"mode": "both"}, "hold, stream_first, final"),
        ({"window": 0}, "window=0"),
        ({"window": True}, "window=True"),
        ({"window": 1.5}, "whole number"),
        ({"replacement": None}, '"" for none'),
        ({"on_verdict": later}, "later is async"),
        ({"on_verdict": 3}, "not callable"),
    ):
        with pytest.raises(ops.CompositionError, match=match):
            guard(passes, **wrong)
    with pytest.raises(ops.CompositionError, match="not callable"):
        guard("bad")
    operator = guard(passes)
    assert operator.guards
    assert operator.name == "guard(passes)"
    assert operator.detail == {"kind": "guard", "mode": "hold", "window": 256}
    assert str(TurnBlocked()) == "the guard blocked the answer"
    assert str(TurnBlocked("rude")) == "the guard blocked the answer: rude"


@modes
def test_an_empty_delta_of_the_part_under_check_passes(mode):
    async def run():
        part = ev.text_part("a")
        empty = {"type": ev.PART_UPDATED, "data": {"part": part, "delta": ""}}
        events = [ev.delta(part, "good "), empty, ev.delta(part, "text")]
        return await feed(guard(lambda text: None, mode=mode), events)

    out = asyncio.run(run())
    assert "".join([one["data"]["delta"] for one in out]) == "good text"
