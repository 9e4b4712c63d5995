# ruff: noqa: D103 - a claim's name is what it says
"""Claims about what durable runs keep: steps, signals, the handle."""

from __future__ import annotations

from operators.errors import LeaseLost, StepDivergence

from .claiming import IDS, VALUES, claim, overdue, owned, raises
from .place import Place


@claim
async def steps_are_begun_ended_and_tried_again(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence
    step = await store.begin_step("r", fence, 0, intent="a", kind="llm", input_hash="1")
    assert (step.index, step.intent, step.kind, step.input_hash) == (0, "a", "llm", "1")
    assert (step.status, step.attempts) == ("running", 1)
    assert (step.result, step.error, step.ended_at) == (None, None, None)
    error = {"message": "\ud800", "code": "c"}
    failed = await store.end_step("r", fence, 0, error=error)
    assert (failed.status, failed.error, failed.attempts) == ("failed", error, 1)
    assert failed.ended_at is not None
    again = await store.begin_step("r", fence, 0, intent="a", kind="llm")
    assert (again.attempts, again.status, again.error) == (2, "running", None)
    assert (again.input_hash, again.ended_at) == ("1", None)
    done = await store.end_step("r", fence, 0, result={"x": 1})
    assert (done.status, done.result, done.error) == ("completed", {"x": 1}, None)
    assert done.started_at <= (done.ended_at or 0)
    assert list(await other.steps("r")) == [done]


@claim
async def steps_are_listed_by_index_in_whatever_order_they_began(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    for index in (10, 0, 2, 1):
        await store.begin_step("r", fence, index, intent=f"i{index}", kind="tool")
    await owned(store, "other")
    await store.begin_step("other", 1, 0, intent="x", kind="logic")
    found = await store.steps("r")
    assert [(step.index, step.intent) for step in found] == [
        (k, f"i{k}") for k in (0, 1, 2, 10)
    ]


@claim
async def steps_keep_any_words_and_values(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    for k, intent in enumerate(IDS):
        await store.begin_step(
            "r", fence, k, intent=intent, kind=intent, input_hash=intent
        )
    for k, value in enumerate(VALUES):
        await store.begin_step("r", fence, 100 + k, intent="i", kind="logic")
        ended = await store.end_step("r", fence, 100 + k, result=value)
        assert (ended.status, ended.result) == ("completed", value)
    found = await store.steps("r")
    assert [s.intent for s in found[: len(IDS)]] == list(IDS)
    assert [s.kind for s in found[: len(IDS)]] == list(IDS)
    results = [step.result for step in found[len(IDS) :]]
    assert results == list(VALUES)
    assert [type(one) for one in results] == [type(one) for one in VALUES]


@claim
async def ending_a_step_again_leaves_it_as_it_is(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await store.begin_step("r", fence, 0, intent="a", kind="llm")
    for _ in range(2):
        done = await store.end_step("r", fence, 0, result=[1])
        assert (done.status, done.result, done.attempts) == ("completed", [1], 1)
    await store.begin_step("r", fence, 1, intent="b", kind="llm")
    for _ in range(2):
        done = await store.end_step("r", fence, 1, error={"message": "m"})
        assert (done.status, done.error) == ("failed", {"message": "m"})


@claim
async def a_step_that_was_completed_may_begin_again_and_fail(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await store.begin_step("r", fence, 0, intent="a", kind="llm")
    await store.end_step("r", fence, 0, result="first")
    again = await store.begin_step("r", fence, 0, intent="a", kind="llm")
    assert (again.status, again.attempts) == ("running", 2)
    await store.end_step("r", fence, 0, error={"message": "m"})
    await store.begin_step("r", fence, 0, intent="a", kind="llm")
    ended = await store.end_step("r", fence, 0, result="third")
    assert (ended.status, ended.result, ended.error) == ("completed", "third", None)
    assert ended.attempts == 3


@claim
async def another_step_in_the_same_place_diverges(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    before = await store.begin_step(
        "r", fence, 0, intent="a", kind="llm", input_hash="1"
    )
    for intent, input_hash in (("b", "1"), ("b", ""), ("a", "2"), ("A", "1")):
        begun = store.begin_step(
            "r", fence, 0, intent=intent, kind="llm", input_hash=input_hash
        )
        error = await raises(StepDivergence, begun)
        assert (error.execution_id, error.index) == ("r", 0)
    assert list(await store.steps("r")) == [before]
    await store.begin_step("r", fence, 1, intent="unchecked", kind="llm")
    begun = store.begin_step(
        "r", fence, 1, intent="unchecked", kind="llm", input_hash="2"
    )
    assert (await begun).attempts == 2
    await raises(LookupError, store.end_step("r", fence, 7))
    assert [step.index for step in await store.steps("r")] == [0, 1]


@claim
async def steps_outlive_their_worker(place: Place) -> None:
    store, other = place.store(), place.store()
    first = (await owned(store)).fence
    await store.begin_step("r", first, 0, intent="a", kind="llm")
    await store.end_step("r", first, 0, result="kept")
    await store.begin_step("r", first, 1, intent="b", kind="llm")
    await overdue(place, store)
    second = (await owned(other, worker="w2")).fence
    assert [(s.status, s.result) for s in await other.steps("r")] == [
        ("completed", "kept"),
        ("running", None),
    ]
    again = await other.begin_step("r", second, 1, intent="b", kind="llm")
    assert again.attempts == 2
    await raises(LeaseLost, store.end_step("r", first, 1, result="late"))
    ended = await other.end_step("r", second, 1, result="by the second")
    assert ended.result == "by the second"


@claim
async def the_first_signal_under_a_key_wins_for_good(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence
    assert await store.signal("r", "k") is None
    first = await store.emit("r", "k", {"by": 1})
    assert (first.key, first.payload, first.accepted) == ("k", {"by": 1}, True)
    for payload in ({"by": 1}, {"by": 2}, None):
        again = await other.emit("r", "k", payload)
        assert (again.payload, again.accepted) == ({"by": 1}, False)
        assert again.emitted_at == first.emitted_at
    assert await other.signal("r", "k") == first
    await owned(store, "r2")
    assert await store.signal("r2", "k") is None
    assert (await store.emit("r2", "k", "another run's")).accepted
    assert (await store.emit("r", "K", "another key's", fence=fence)).accepted
    await raises(LeaseLost, store.emit("r", "k", 1, fence=fence + 1))
    await raises(LeaseLost, store.emit("r", "new", 1, fence=fence + 1))
    assert await store.signal("r", "new") is None


@claim
async def signals_keep_any_key_and_value(place: Place) -> None:
    store = place.store()
    await owned(store)
    for key in IDS:
        assert (await store.emit("r", key, key)).accepted
    for key in IDS:
        signal = await store.signal("r", key)
        assert signal is not None
        assert signal.payload == key
    for k, value in enumerate(VALUES):
        emitted = await store.emit("r", f"value {k}", value)
        signal = await store.signal("r", f"value {k}")
        assert signal == emitted, "a payload of None is a signal, too"
        assert signal is not None
        assert (signal.payload, type(signal.payload)) == (value, type(value))


@claim
async def anyone_may_emit_to_a_run_whether_its_lease_lives_or_it_has_ended(
    place: Place,
) -> None:
    store = place.store()
    fence = await overdue(place, store)
    assert (await store.emit("r", "lapsed", 1)).accepted
    await raises(LeaseLost, store.emit("r", "owner's", 1, fence=fence))
    fence = (await owned(store)).fence
    await store.settle("r", fence, status="completed", outcome={})
    assert (await store.emit("r", "ended", 1)).accepted
    await raises(LeaseLost, store.emit("r", "owner's", 1, fence=fence))


@claim
async def the_handle_is_kept_and_taken_back(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence
    for handle in ({"box": list(VALUES)}, {}, {"": None}, None, {"box": 2}):
        for _ in range(2):
            await store.set_handle("r", fence, handle)
            assert (await other.status("r")).handle == handle
    await raises(LeaseLost, store.set_handle("r", fence + 1, {}))
    await store.release("r", fence)
    taken = await owned(other, worker="w2")
    assert taken.run.handle == {"box": 2}
    await store.settle("r", taken.fence, status="failed", outcome={})
    assert (await store.status("r")).handle == {"box": 2}
