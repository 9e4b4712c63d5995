"""Durable runs: steps run once, on every store, whoever dies and whoever comes next."""

import asyncio
import gc
import traceback

import pytest

from operators.errors import (
    AwaitEventTimeout,
    DurableError,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
    StepDivergence,
    StoreBusy,
    TurnMisuse,
)
from pipeline.durable.runs import run_durable
from pipeline.execution import manifest_hash

from .durable_support import (
    MANIFEST,
    OTHER,
    InMemory,
    Line,
    Moments,
    Sudden,
    bury,
    run,
    take_away,
)


class Calls(list):
    """Functions for steps, and how often each was called."""

    def gives(self, name, value=None):
        async def fn():
            self.append(name)
            await asyncio.sleep(0)
            return name if value is None else value

        return fn

    def fails(self, name, times=1):
        async def fn():
            self.append(name)
            if self.count(name) <= times:
                raise Sudden(name)
            return name

        return fn


# -- what the original asserts


def test_a_run_gives_its_results_and_the_steps_their_status(backend):
    async def test():
        calls = Calls()

        async def task(ctx):
            assert (ctx.run_id, ctx.project_id, ctx.scenario_id) == ("r", "ws-1", None)
            return [
                await ctx.step("a", calls.gives("a"), kind="llm"),
                await ctx.step("b", lambda: {"sync": True}),
            ]

        done = await run_durable(
            "r", MANIFEST, backend.open(), task, default_outcome={"pass": True}
        )
        assert done.result == ["a", {"sync": True}]
        assert done.record.status == "completed"
        assert done.record.owner is None
        assert done.record.outcome == {"pass": True, "metadata": {"steps": 2}}
        assert done.record.manifest_hash == manifest_hash(MANIFEST)
        assert done.record.meta["manifest"]["input"] == MANIFEST["input"]
        assert [
            (s.index, s.intent, s.kind, s.status, s.attempts) for s in done.steps
        ] == [
            (0, "a", "llm", "completed", 1),
            (1, "b", "logic", "completed", 1),
        ]

    run(backend, test)


def test_after_a_failing_second_step_the_first_is_not_run_again(backend):
    async def test():
        store, calls = backend.open(), Calls()

        async def task(ctx):
            first = await ctx.step("a", calls.gives("a"))
            return first + await ctx.step("b", calls.fails("b"))

        with pytest.raises(Sudden):
            await run_durable("r", MANIFEST, store, task, default_outcome={"score": 0})
        failed = await store.status("r")
        assert failed.status == "failed"
        assert failed.outcome == {"score": 0, "notes": "b", "code": "Sudden"}
        assert failed.owner is None
        a, b = await store.steps("r")
        assert (a.status, b.status) == ("completed", "failed")
        assert b.error == {"message": "b", "code": "Sudden"}
        done = await run_durable("r", MANIFEST, backend.open(), task)
        assert done.result == "ab"
        assert calls == ["a", "b", "b"]
        assert [step.attempts for step in done.steps] == [1, 2]
        assert done.steps[1].error is None

    run(backend, test)


def test_another_input_is_refused_before_the_lease_is_looked_at(backend):
    async def test():
        store = backend.open()
        inside, leave = asyncio.Event(), asyncio.Event()

        async def task(ctx):
            inside.set()
            await leave.wait()

        first = asyncio.create_task(run_durable("r", MANIFEST, store, task))
        await inside.wait()
        with pytest.raises(InputMismatch):
            await run_durable("r", OTHER, store, task)
        with pytest.raises(LeaseHeld):
            await run_durable("r", MANIFEST, store, task)
        leave.set()
        await first

    run(backend, test)


def test_the_order_of_a_manifests_keys_does_not_matter(backend):
    async def test():
        async def task(ctx):
            return 1

        turned = dict(reversed(MANIFEST.items()))
        turned["tags"] = {"not": "part", "of": object()}
        await run_durable("r", MANIFEST, backend.open(), task)
        assert (await run_durable("r", turned, backend.open(), task)).result == 1

    run(backend, test)


@pytest.mark.parametrize("completed", [True, False])
def test_a_changed_intent_diverges(backend, completed):
    async def test():
        calls = Calls()

        async def task(ctx):
            return await ctx.step(
                "a", calls.gives("a") if completed else calls.fails("a")
            )

        async def changed(ctx):
            return await ctx.step("z", calls.gives("z"))

        store = backend.open()
        if completed:
            await run_durable("r", MANIFEST, store, task)
        else:
            with pytest.raises(Sudden):
                await run_durable("r", MANIFEST, store, task)
        with pytest.raises(StepDivergence, match=r"'a'.*'z'"):
            await run_durable("r", MANIFEST, store, changed)
        assert calls == ["a"]
        after = await store.status("r")
        assert after.status == ("completed" if completed else "failed")
        assert after.outcome.get("code") == (None if completed else "step_divergence")

    run(backend, test)


def test_another_worker_is_admitted_once_the_lease_has_lapsed(backend):
    async def test():
        line, calls = Line(backend.open()), Calls()
        inside = asyncio.Event()

        async def stuck():
            calls.append("b")
            if calls.count("b") == 1:
                inside.set()
                await asyncio.Event().wait()
            return "b"

        async def task(ctx):
            return await ctx.step("a", calls.gives("a")) + await ctx.step("b", stuck)

        dead = asyncio.create_task(
            run_durable("r", MANIFEST, line, task, lease=backend.lease)
        )
        await inside.wait()
        line.cut = True
        with pytest.raises(LeaseHeld) as held:
            await run_durable("r", MANIFEST, backend.open(), task, lease=backend.lease)
        assert 0 < held.value.expires_in <= backend.lease
        await backend.lapse("r")
        done = await run_durable(
            "r", MANIFEST, backend.open(), task, lease=backend.lease
        )
        assert done.result == "ab"
        assert calls == ["a", "b", "b"]
        assert [step.attempts for step in done.steps] == [1, 2]
        assert done.record.fence == 2
        await bury(dead)

    run(backend, test)


def test_an_event_that_is_emitted_during_the_wait_is_received_and_replayed(backend):
    async def test():
        store = backend.open()

        async def task(ctx):
            return await ctx.await_event("approved", timeout=10)

        waiting = asyncio.create_task(run_durable("r", MANIFEST, store, task))
        while not await store.steps("r"):
            await asyncio.sleep(0.005)
        assert not waiting.done()
        assert (await backend.open().emit("r", "approved", {"by": "me"})).accepted
        done = await waiting
        assert done.result == {"by": "me"}
        assert [(s.intent, s.kind) for s in done.steps] == [("event:approved", "event")]
        again = await run_durable("r", MANIFEST, store, task)
        assert again.result == {"by": "me"}
        assert again.steps[0].attempts == 1

        async def other(ctx):
            return await ctx.await_event("refused")

        with pytest.raises(StepDivergence):
            await run_durable("r", MANIFEST, store, other)

    run(backend, test)


@pytest.mark.parametrize("payload", [None, 0, "", [], {"a": None}])
def test_an_event_may_be_anything_that_json_has(backend, payload):
    async def test():
        async def task(ctx):
            await ctx.emit_event("k", payload)
            return [
                await ctx.await_event("k"),
                await ctx.await_event("k", timeout=None),
            ]

        done = await run_durable("r", MANIFEST, backend.open(), task)
        assert done.result == [payload, payload]

    run(backend, test)


def test_an_event_that_does_not_come_in_time_raises_and_may_be_awaited_again(backend):
    async def test():
        store = backend.open()

        async def task(ctx):
            return await ctx.await_event("k", timeout=0.05, poll=0.01)

        with pytest.raises(AwaitEventTimeout, match=r"no event 'k' within 0.05 s"):
            await run_durable("r", MANIFEST, store, task)
        (step,) = await store.steps("r")
        assert step.status == "failed"
        assert step.error["code"] == "await_event_timeout"
        await store.emit("r", "k", 1)
        assert (await run_durable("r", MANIFEST, store, task)).result == 1

    run(backend, test)


def test_the_first_emit_wins(backend):
    async def test():
        async def task(ctx):
            first = await ctx.emit_event("k", 1)
            second = await ctx.emit_event("k", 2)
            return first.accepted, second.accepted, second.payload

        done = await run_durable("r", MANIFEST, backend.open(), task)
        assert done.result == (True, False, 1)
        assert done.steps == []

    run(backend, test)


def test_time_and_ids_stay_also_when_the_run_has_completed(backend):
    async def test():
        async def task(ctx):
            return [
                await ctx.now(),
                await ctx.uuid(),
                await ctx.uuid(),
                await ctx.now(),
            ]

        first = await run_durable("r", MANIFEST, backend.open(), task)
        again = await run_durable("r", MANIFEST, backend.open(), task)
        assert first.result == again.result
        assert first.result[1] != first.result[2]
        assert [s.intent for s in first.steps][:2] == [
            "deterministic:now",
            "deterministic:uuid",
        ]
        assert {s.kind for s in first.steps} == {"deterministic"}

    run(backend, test)


# -- fingerprints, results


def test_a_fingerprint_that_differs_diverges_on_replay(backend):
    async def test():
        store, calls = backend.open(), Calls()

        def task(prompt):
            async def asked(ctx):
                return await ctx.step("a", calls.gives("a"), fingerprint=prompt)

            return asked

        await run_durable("r", MANIFEST, store, task({"p": 1, "q": 2}))
        same = await run_durable("r", MANIFEST, store, task({"q": 2, "p": 1}))
        assert same.result == "a"
        assert (await run_durable("r", MANIFEST, store, task(None))).result == "a"
        with pytest.raises(StepDivergence, match="given input"):
            await run_durable("r", MANIFEST, store, task({"p": 2}))
        assert calls == ["a"]

    run(backend, test)


def test_a_result_is_the_same_the_first_time_as_when_replayed(backend):
    odd = {"t": (1, 2), "n": None, "f": 1.5, "big": 2**70, "s": "\ud800 \u2028 ✓"}

    async def test():
        async def task(ctx):
            return await ctx.step("a", lambda: odd)

        first = await run_durable("r", MANIFEST, backend.open(), task)
        again = await run_durable("r", MANIFEST, backend.open(), task)
        assert first.result == again.result == {**odd, "t": [1, 2]}
        assert first.result is not odd

    run(backend, test)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {1, 2}}, b"bytes"])
def test_a_result_that_is_not_json_is_refused_with_its_mend(backend, value):
    async def test():
        async def task(ctx):
            return await ctx.step("load it", lambda: value)

        with pytest.raises(TypeError, match=r"'load it' returned is not JSON.*outside"):
            await run_durable("r", MANIFEST, backend.open(), task)

        async def emitting(ctx):
            await ctx.emit_event("k", value)

        with pytest.raises(TypeError, match="the event 'k' is not JSON"):
            await run_durable("r2", MANIFEST, backend.open(), emitting)

    run(backend, test)


# -- parallel steps


def test_steps_side_by_side_keep_the_places_of_their_calls(backend):
    async def test():
        store, calls = backend.open(), Calls()
        order = asyncio.Event()

        async def late():
            calls.append("late")
            await order.wait()
            return "late"

        async def early():
            calls.append("early")
            order.set()
            return "early"

        async def task(ctx):
            both = await asyncio.gather(ctx.step("x", late), ctx.step("x", early))
            async with asyncio.TaskGroup() as group:
                third = group.create_task(ctx.step("y", calls.gives("third")))
                fourth = group.create_task(ctx.step("y", calls.gives("fourth")))
            return [*both, third.result(), fourth.result()]

        first = await run_durable("r", MANIFEST, store, task)
        again = await run_durable("r", MANIFEST, store, task)
        assert first.result == again.result == ["late", "early", "third", "fourth"]
        assert len(calls) == 4

    run(backend, test)


def test_of_steps_side_by_side_only_the_failed_one_runs_again(backend):
    async def test():
        store, calls = backend.open(), Calls()

        async def task(ctx):
            return await asyncio.gather(
                ctx.step("a", calls.gives("a")),
                ctx.step("b", calls.fails("b")),
                ctx.step("c", calls.gives("c")),
                return_exceptions=False,
            )

        with pytest.raises(Sudden):
            await run_durable("r", MANIFEST, store, task)
        done = await run_durable("r", MANIFEST, store, task)
        assert done.result == ["a", "b", "c"]
        assert calls.count("b") == 2
        assert calls.count("a") <= 2

    run(backend, test)


def test_a_step_from_another_asyncio_task_is_refused(backend):
    async def test():
        async def branch(ctx):
            return await ctx.step("a", lambda: 1)

        async def task(ctx):
            return await asyncio.gather(branch(ctx), branch(ctx))

        with pytest.raises(TurnMisuse, match="would depend on timing"):
            await run_durable("r", MANIFEST, backend.open(), task)
        assert await backend.open().steps("r") == []

    run(backend, test)


def test_a_step_inside_of_a_step_is_refused(backend):
    async def test():
        async def task(ctx):
            async def outer():
                return await ctx.step("inner", lambda: 1)

            return await ctx.step("outer", outer)

        with pytest.raises(
            TurnMisuse, match="'inner' was asked for inside of step 'outer'"
        ):
            await run_durable("r", MANIFEST, backend.open(), task)

    run(backend, test)


def test_steps_that_still_run_when_the_task_fails_are_stopped_before_it_ends(backend):
    async def test():
        stopped = []

        async def slow():
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append("slow")

        async def task(ctx):
            await asyncio.gather(ctx.step("slow", slow), ctx.step("bad", _raises))

        with pytest.raises(Sudden):
            await run_durable("r", MANIFEST, backend.open(), task)
        assert stopped == ["slow"]
        slow_step, bad = await backend.open().steps("r")
        assert (slow_step.status, bad.status) == ("running", "failed")

    run(backend, test)


async def _raises():
    raise Sudden("no")


def test_a_step_after_its_run_is_over_does_nothing(backend):
    async def test():
        kept, calls = [], Calls()

        async def task(ctx):
            kept.append(ctx.step("later", calls.gives("later")))
            return 1

        await run_durable("r", MANIFEST, backend.open(), task)
        with pytest.raises(TurnMisuse, match="is over"):
            await kept[0]
        assert calls == []

    run(backend, test)


# -- leases


def test_a_long_step_keeps_its_lease(backend):
    async def test():
        if backend.lease > 1:
            pytest.skip("its lease is too long to wait for")
        store = backend.open()

        enough = asyncio.Event()

        async def task(ctx):
            return await ctx.step("long", enough.wait)

        running = asyncio.create_task(
            run_durable("r", MANIFEST, store, task, lease=backend.lease)
        )
        for _ in range(8):
            await asyncio.wait((running,), timeout=backend.lease / 2)
            with pytest.raises(LeaseHeld):
                await run_durable("r", MANIFEST, backend.open(), task)
        enough.set()
        assert (await running).record.fence == 1

    run(backend, test)


def test_a_lost_lease_interrupts_the_step_and_writes_nothing_more(backend):
    async def test():
        line = Line(backend.open())
        seen = []
        inside = asyncio.Event()

        async def stuck():
            inside.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("interrupted")
                raise
            finally:
                seen.append(len(line.calls))

        async def task(ctx):
            return await ctx.step("stuck", stuck)

        first = asyncio.create_task(
            run_durable("r", MANIFEST, line, task, lease=backend.lease)
        )
        await inside.wait()
        await take_away(backend, "r")
        with pytest.raises(LeaseLost):
            await first
        assert seen[0] == "interrupted"
        assert line.calls[seen[1] :] == []
        now = await backend.open().status("r")
        assert (now.status, now.owner) == ("running", "thief")

    run(backend, test)


def test_a_lost_lease_wins_over_what_the_task_makes_of_its_cancellation(backend):
    async def test():
        for stubborn in ("returns", "raises", "goes on"):
            inside = asyncio.Event()

            async def task(ctx, stubborn=stubborn, inside=inside):
                try:
                    inside.set()
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if stubborn == "raises":
                        raise Sudden from None
                if stubborn == "goes on":
                    await ctx.step("more", lambda: 1)
                return 1

            first = asyncio.create_task(
                run_durable(
                    stubborn, MANIFEST, backend.open(), task, lease=backend.lease
                )
            )
            await inside.wait()
            await take_away(backend, stubborn)
            with pytest.raises(LeaseLost):
                await first
            assert first.cancelling() == 0
            assert (await backend.open().status(stubborn)).status == "running"
            assert await backend.open().steps(stubborn) == []

    run(backend, test)


def test_a_store_that_does_not_answer_costs_the_lease():
    backend = InMemory()

    async def test():
        line = Line(backend.open())
        inside = asyncio.Event()
        stopped = []

        async def stuck():
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(1)

        async def task(ctx):
            return await ctx.step("stuck", stuck)

        dead = asyncio.create_task(run_durable("r", MANIFEST, line, task, lease=0.3))
        await inside.wait()
        line.cut = True
        with pytest.raises(LeaseLost):
            await dead
        assert stopped == [1]

    run(backend, test)


# -- cancellation


def test_a_cancelled_caller_stops_the_step_and_gives_the_lease_back(backend):
    async def test():
        calls, inside = Calls(), asyncio.Event()

        async def stuck():
            calls.append("stuck")
            if calls.count("stuck") == 1:
                inside.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    calls.append("stopped")
            return 2

        async def task(ctx):
            return await ctx.step("a", calls.gives("a")), await ctx.step("b", stuck)

        first = asyncio.create_task(run_durable("r", MANIFEST, backend.open(), task))
        await inside.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert calls == ["a", "stuck", "stopped"]
        left = await backend.open().status("r")
        assert (left.status, left.owner) == ("running", None)
        done = await run_durable("r", MANIFEST, backend.open(), task)
        assert done.result == ("a", 2)
        assert [step.attempts for step in done.steps] == [1, 2]

    run(backend, test)


def test_a_caller_may_be_cancelled_anywhere_and_the_run_goes_on_at_once(backend):
    """Cancel at every moment of a run: then another worker completes it.

    The moments are the steps of the loop where the store takes none of its own, else
    what lies before, in and after every call of the store.
    """

    async def test():
        store = backend.open()
        in_process = isinstance(backend, InMemory)
        at = 0
        interrupted = True
        while interrupted:
            run_id = f"r{at}"

            async def task(ctx):
                one = await ctx.step("a", lambda: asyncio.sleep(0, 1))
                two = await asyncio.gather(
                    ctx.step("b", lambda: 2), ctx.step("c", lambda: asyncio.sleep(0, 3))
                )
                return [one, *two]

            if in_process:
                first = asyncio.create_task(run_durable(run_id, MANIFEST, store, task))
                for _ in range(at):
                    await asyncio.sleep(0)
                interrupted = first.cancel()
            else:
                moments = Moments(store, at)
                first = asyncio.create_task(
                    run_durable(run_id, MANIFEST, moments, task)
                )
                moments.reached = first.cancel
                await asyncio.wait((first,))
                interrupted = moments.left < 0
            try:
                assert (await first).result == [1, 2, 3]
            except asyncio.CancelledError:
                assert interrupted
            done = await run_durable(run_id, MANIFEST, store, task)
            assert done.result == [1, 2, 3]
            assert done.record.status == "completed"
            at += 1
        assert at > 12

    run(backend, test)


def test_a_timeout_around_a_step_is_the_tasks_own(backend):
    async def test():
        async def task(ctx):
            try:
                async with asyncio.timeout(0.05):
                    await ctx.step("slow", lambda: asyncio.sleep(10))
            except TimeoutError:
                return await ctx.step("instead", lambda: "instead")

        done = await run_durable("r", MANIFEST, backend.open(), task)
        assert done.result == "instead"
        assert [s.status for s in done.steps] == ["running", "completed"]

    run(backend, test)


def test_a_cancellation_that_a_step_raises_of_itself_is_a_failure(backend):
    async def test():
        async def odd():
            raise asyncio.CancelledError

        async def task(ctx):
            return await ctx.step("odd", odd)

        with pytest.raises(RuntimeError, match="CancelledError of itself"):
            await run_durable("r", MANIFEST, backend.open(), task)
        assert (await backend.open().status("r")).status == "failed"

    run(backend, test)


def test_a_run_that_is_asked_to_stop_settles_as_cancelled(backend):
    async def test():
        store = backend.open()
        inside = asyncio.Event()

        async def stuck():
            inside.set()
            await asyncio.Event().wait()

        async def task(ctx):
            await ctx.step("stuck", stuck)

        first = asyncio.create_task(run_durable("r", MANIFEST, store, task, lease=0.9))
        await inside.wait()
        assert await backend.open().request_cancel("r", "not needed")
        with pytest.raises(DurableError, match="asked to stop: not needed") as stopped:
            await first
        assert stopped.value.code == "cancelled"
        ended = await store.status("r")
        assert ended.status == "cancelled"
        assert ended.outcome["code"] == "cancelled"

    run(backend, test)


# -- errors


def test_an_error_keeps_its_traceback(backend):
    async def test():
        def deep():
            raise Sudden("deep")

        async def task(ctx):
            await ctx.step("a", deep)

        with pytest.raises(Sudden) as raised:
            await run_durable("r", MANIFEST, backend.open(), task)
        names = [f.name for f in traceback.extract_tb(raised.value.__traceback__)]
        assert names[-1] == "deep"
        assert "task" in names
        assert raised.value.__cause__ is None

    run(backend, test)


def test_a_busy_store_is_asked_again(backend):
    async def test():
        store = backend.open()

        class Busy:
            def __init__(self):
                self.seen = set()

            def __getattr__(self, name):
                async def call(*args, **options):
                    if name not in self.seen:
                        self.seen.add(name)
                        raise StoreBusy("locked")
                    return await getattr(store, name)(*args, **options)

                return call

        async def task(ctx):
            await ctx.emit_event("k", 1)
            return await ctx.step("a", lambda: 1) + await ctx.await_event("k")

        assert (await run_durable("r", MANIFEST, Busy(), task)).result == 2

    run(backend, test)


def test_an_error_of_the_task_is_heard_though_the_store_cannot_take_it(backend):
    async def test():
        store = backend.open()

        class Gone:
            gone = False

            def __getattr__(self, name):
                async def call(*args, **options):
                    if self.gone and name != "renew":
                        raise StoreBusy("locked")
                    return await getattr(store, name)(*args, **options)

                return call

        gone = Gone()

        async def task(ctx):
            gone.gone = True
            raise Sudden("mine")

        with pytest.raises(Sudden, match="mine"):
            await run_durable("r", MANIFEST, gone, task, lease=0.5)
        assert (await store.status("r")).status == "running"

    run(backend, test)


def test_a_completed_run_whose_steps_were_forgotten_is_not_run_again(backend):
    async def test():
        store, calls = backend.open(), Calls()

        async def task(ctx):
            return await ctx.step("a", calls.gives("a"))

        await run_durable("r", MANIFEST, store, task)
        await asyncio.sleep(0.01)
        assert await store.forget(older_than=0.0) == 1
        with pytest.raises(DurableError, match="not kept any more") as gone:
            await run_durable("r", MANIFEST, store, task)
        assert gone.value.code == "forgotten"
        assert calls == ["a"]

    run(backend, test)


@pytest.mark.parametrize(
    ("lease", "error"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError)],
)
def test_a_lease_must_be_positive_seconds(lease, error):
    async def task(ctx):
        return None

    with pytest.raises(error, match="lease must be"):
        asyncio.run(run_durable("r", MANIFEST, None, task, lease=lease))


def test_nothing_is_left_of_a_run(backend):
    async def test():
        async def task(ctx):
            return await ctx.step("a", lambda: 1)

        store = backend.open()
        await run_durable("warm", MANIFEST, store, task)
        await run_durable("r", MANIFEST, store, task)
        gc.collect()
        names = [t.get_name() for t in asyncio.all_tasks()]
        assert not [n for n in names if "lease" in n or "write" in n or "claim" in n]

    run(backend, test)
