"""What hooks raise that is no Exception, and other answers that nobody expects."""

import asyncio
import logging
import threading

import pytest
from _pytest.outcomes import Failed

import operators as ops
from operators.errors import CompositionError
from pipeline import ChatTurnHooks, Pipeline

from .support import HANG_S, IDENTITY, A, B, kinds, read, seven


def cancelled_future():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


def raises_cancelled(*args):
    cancelled_future().result()


def raises_exit(*args):
    raise GeneratorExit


def raises_failed(*args):
    pytest.fail("wrong text")


def raises_group(*args):
    raise BaseExceptionGroup("several", [Failed("one")])


ODD = [raises_cancelled, raises_exit, raises_failed, raises_group]


def later(function):
    async def awaited(*args):
        await asyncio.sleep(0)
        function(*args)

    return awaited


def both_ways():
    return [
        pytest.param(made, id=f"{function.__name__}-{way}")
        for function in ODD
        for way, made in (("sync", function), ("async", later(function)))
    ]


async def ended(seen, run):
    async with asyncio.timeout(HANG_S):
        got = await read(run.events())
        outcome = await run.outcome()
    seen.one_terminal()
    assert sum(kind.startswith("session.run.") for kind in kinds(got)) == 2
    return outcome


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("flush", both_ways())
async def test_a_flush_that_raises_no_exception_changes_nothing(seen, flush, mode):
    run = seven(seen, seen.source(A), flush=flush).start(
        IDENTITY, log=seen.log, on_disconnect=mode
    )
    assert (await ended(seen, run)).status == "completed"
    assert seen.messages == [f"trace_flush({flush.__name__}) raised"]


@pytest.mark.parametrize("save", both_ways())
async def test_a_save_that_raises_no_exception_fails_the_turn_at_once(seen, save):
    run = seven(seen, seen.source(A), save=save).start(
        IDENTITY, log=seen.log, settle_timeout=HANG_S
    )
    outcome = await ended(seen, run)
    assert (outcome.status, outcome.code) == ("failed", "persist_failed")
    assert outcome.error is not None


@pytest.mark.parametrize("complete", both_ways())
async def test_a_completion_that_raises_no_exception_is_logged(seen, complete):
    run = seven(seen, seen.source(A), complete=complete).start(IDENTITY, log=seen.log)
    outcome = await ended(seen, run)
    assert (outcome.status, outcome.persisted) == ("completed", True)
    assert len(seen.logs) == 1


@pytest.mark.parametrize("tap", both_ways())
async def test_a_tap_that_raises_no_exception_at_the_terminal_is_logged(seen, tap):
    chat = seven(
        seen, seen.source(A), after=ops.tap(tap, types=["session.run.completed"])
    )
    assert (await ended(seen, chat.start(IDENTITY, log=seen.log))).status == "completed"
    assert len(seen.logs) == 1


async def test_a_guard_that_fails_at_the_terminal_takes_its_text_out(seen):
    stage = ops.Stage(raises_failed, types=frozenset({"session.run.failed"}))
    guard = ops.Operator("guard", lambda turn: stage, guards=True)
    source = seen.source(A, error=ValueError("a secret"))
    chat = Pipeline(source) | ops.lifecycle(errors="message") | guard
    run = (chat | ops.tap(seen.tap)).start(IDENTITY, log=seen.log)
    got = await read(run.events())
    assert got[-2]["data"]["message"] == "a secret"
    assert got[-1]["type"] == "session.run.failed"
    assert got[-1]["data"]["message"] == ""
    assert got[-1] == seen.events[-1]


@pytest.mark.parametrize("on_error", ["log", "fail"])
async def test_a_tap_that_raises_generator_exit_in_mid_stream_fails_the_turn(
    seen, on_error
):
    tap = ops.tap(raises_exit, types=[A["type"]], on_error=on_error)
    run = seven(seen, seen.source(A), after=tap).start(IDENTITY, log=seen.log)
    assert (await ended(seen, run)).status == "failed"


async def test_debug_mode_passes_over_what_cannot_be_copied(seen):
    asyncio.get_running_loop().set_debug(True)
    bad = {"type": "x", "data": {"lock": threading.Lock()}}
    looked = []
    chat = seven(seen, seen.source(bad), after=ops.tap(looked.append, types=["x"]))
    await read(chat.start(IDENTITY, log=seen.log).body())
    assert looked == [bad]


async def test_a_filter_may_not_answer_with_a_future(seen):
    def asks(event):
        return asyncio.get_running_loop().create_future()

    chat = seven(seen, seen.source(A), first=ops.filter(asks))
    outcome = await chat.start(IDENTITY, log=seen.log).outcome()
    assert "declare the function with `async def`" in str(outcome.error)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_the_end_of_the_process_goes_on_once_the_turn_has_ended(seen, error):
    def save(record):
        raise error

    async def main():
        run = seven(seen, seen.source(A), save=save).start(IDENTITY, log=seen.log)
        await read(run.events())
        await run.outcome()
        await asyncio.sleep(HANG_S)  # as a server does, which has other turns

    with pytest.raises(type(error)):
        asyncio.run(main())
    assert seen.one_terminal() == "session.run.failed"
    assert seen.flushed == 1


async def test_a_drained_source_whose_aclose_raises_cancelled_is_logged(seen):
    class Source:
        def __init__(self):
            self.left = [A]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.left:
                return self.left.pop()
            raise StopAsyncIteration

        async def aclose(self):
            await cancelled_future()

    run = seven(seen, Source).start(IDENTITY, log=seen.log)
    assert (await ended(seen, run)).status == "completed"
    assert seen.messages == ["closing the source raised"]


@pytest.mark.parametrize("wire", ["events", "body"])
async def test_a_filter_that_forgets_to_await_fails_the_turn(seen, wire):
    async def blocked(event):
        return False

    chat = seven(seen, seen.source(A), first=ops.filter(lambda event: blocked(event)))
    run = chat.start(IDENTITY, log=seen.log)
    await read(run.events() if wire == "events" else run.body())
    outcome = await run.outcome()
    assert outcome.code == "operator_failed"
    assert "declare the function with `async def`" in str(outcome.error)
    assert outcome.events == 0


@pytest.mark.parametrize("answer", [1, "yes", [0]])
async def test_a_filter_may_answer_with_anything_true(seen, answer):
    chat = seven(seen, seen.source(A, B), first=ops.filter(lambda event: answer))
    assert (await ended(seen, chat.start(IDENTITY, log=seen.log))).text == "ab"


async def test_an_async_log_is_waited_for_when_the_turn_closes():
    said = []

    async def log(message, meta):
        for _ in range(20):
            await asyncio.sleep(0)
        said.append(message)
        raise ValueError("the log itself")

    def tap(event):
        raise ValueError

    chat = Pipeline(lambda: [A]) | ops.tap(tap) | ops.trace_flush(lambda: 1 / 0)
    outcome = await chat.start(IDENTITY, log=log).outcome()
    assert outcome.status == "completed"
    assert said == ["tap(tap) raised", "trace_flush(lambda) raised"]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_flush_is_awaited_where_it_cannot_be_handed_over(seen, how):
    flushed = []

    async def flush():
        for _ in range(5):
            await asyncio.sleep(0)
        flushed.append(1)

    def refuses(pending):
        raise RuntimeError("no more work taken")

    chat = seven(seen, seen.source(A), flush=flush)
    wait_until = refuses if how == "sync" else later(refuses)
    run = chat.start(IDENTITY, log=seen.log, wait_until=wait_until)
    assert (await ended(seen, run)).status == "completed"
    assert flushed == [1]
    assert seen.messages == ["trace_flush(flush) raised"]


def mutates(event):
    event["seen"] = True


async def mutates_later(event):
    await asyncio.sleep(0)
    event["data"]["seen"] = True


@pytest.mark.parametrize("tap", [mutates, mutates_later])
async def test_debug_mode_names_a_tap_that_changes_an_event(seen, tap):
    asyncio.get_running_loop().set_debug(True)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    one = {"type": "x", "data": {}}
    chat = seven(seen, seen.source(one), after=ops.tap(tap, types=["x"], name="sly"))
    run = chat.start(IDENTITY, log=seen.log)
    assert (await ended(seen, run)).status == "completed"
    assert [m for m in seen.messages if m.startswith("sly changed the event")]
    assert len(seen.logs) == 1


async def test_a_failure_reported_without_data_still_has_a_message(seen):
    chat = seven(seen, seen.source({"type": "session.run.failed"}), errors="masked")
    run = chat.start(IDENTITY, log=seen.log)
    got = await read(run.events())
    assert got[-1]["data"] == {"message": "The turn failed.", "sessionId": "s-1"}
    seen.__init__()
    chat = seven(seen, seen.source({"type": "error", "data": "no tokens left"}))
    got = await read(chat.start(IDENTITY, log=seen.log).events())
    assert got[-1]["data"] == {"message": "no tokens left", "sessionId": "s-1"}


async def test_a_reported_error_and_a_raise_give_the_client_one_code(seen):
    reported = {"type": "error", "data": {"message": "overloaded", "code": "busy"}}
    chat = seven(seen, seen.source(reported, error=ValueError("x")), errors="masked")
    run = chat.start(IDENTITY, log=seen.log)
    got = await read(run.events())
    assert got[-2] == reported
    shown = got[-1]["data"]
    assert (shown["message"], shown["code"]) == ("overloaded", "busy")
    assert (await run.outcome()).code == "source_failed"


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"clock": 3}, TypeError),
        ({"clock": later(print)}, TypeError),
        ({"log": 3}, TypeError),
        ({"wait_until": "x"}, TypeError),
        ({"execution_id": ""}, TypeError),
        ({"execution_id": 5}, TypeError),
        ({"settle_timeout": "3"}, TypeError),
        ({"settle_timeout": True}, TypeError),
        ({"detach_timeout": 0}, ValueError),
        ({"settle_timeout": float("nan")}, ValueError),
    ],
)
def test_bad_options_are_refused_by_name(option, error):
    with pytest.raises(error, match=next(iter(option))):
        Pipeline(list).start(IDENTITY, **option)


def test_bad_parts_are_refused_where_they_are_composed():
    import aiostream

    class Two:
        def __init__(self, a, b): ...

        def on_event(self, event): ...

    class Misspelt:
        shape = "tapp"

        def on_event(self, event): ...

    for make, mend in (
        (lambda: ops.tap(print, queue=True), "queue must be an int"),
        (lambda: ops.tap(print, queue=1.5), "queue must be an int"),
        (lambda: ops.tap(print, types=[1]), "types must be event types"),
        (lambda: ops.through(aiostream.pipe.take), "was not called"),
        (lambda: ops.operator(Two), "has 2 required parameters"),
        (lambda: ops.operator(Misspelt), "shape 'tapp' is not one of"),
        (lambda: Pipeline(list) | aiostream.pipe.take(1), "through ops.through"),
        (
            lambda: ChatTurnHooks(produce=None, persist_assistant_message=print),
            "produce",
        ),
        (
            lambda: ChatTurnHooks(
                produce=list, persist_assistant_message=print, on_event=3
            ),
            "on_event",
        ),
    ):
        with pytest.raises(CompositionError, match=mend):
            make()
