"""RedisLog keeps the contract of a delivery log, on a real Valkey."""

import asyncio

import pytest

from operators.errors import LeaseLost, StoreError, StoreFull
from pipeline.stores import RedisLog
from pipeline.stores.contract import Lines

from .redis_support import RUN, append, event, line, lines, opened, run, text, text_of
from .valkey_server import command, fresh_prefix

IDS = [
    "a",
    "",
    "{}",
    "}{",
    "{user}.{run}",
    "tenant:turn/1?x=1&y=2",
    "quotes\"'\\",
    "line\nend\r\x00",
    "🦜 é\ud800",
    "%7B",
    "#",
    "x" * 256,
    "🦜" * 256,
]


def lapsed(log, server, run_id=RUN):
    """Move a lease's end into the past of the server's clock."""
    return command(server, "HSET", log._keys(run_id)[0], "until", "1")


def key_of(log, kind, run_id=RUN):
    return log._keys(run_id)[kind == "log"]


# -- begin


def test_a_run_begins_where_the_store_ends(valkey):
    async def test():
        async with opened(valkey) as log:
            assert await log.begin(RUN, 1, lease=10, lines=0) == 0
            assert await log.begin("other", 3, lease=10, lines=7) == 7
            assert await append(log, lines(8, fence=3, run_id="other")) == [(8, True)]
            assert await log.read("other", after=6) is None
            assert await log.read("other", after=7) == (
                (await log.read("other", after=7))[0],
                8,
            )

    run(test)


def test_begin_tells_how_many_lines_a_run_has(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 5))
            assert await log.begin(RUN, 2, lease=10, lines=3) == 5
            assert await text_of(log) == text(1, 5)
            assert await append(log, lines(6, fence=2)) == [(6, True)]

    run(test)


def test_begin_with_a_lower_fence_is_refused_and_changes_nothing(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 5, lease=10, lines=0)
            with pytest.raises(LeaseLost):
                await log.begin(RUN, 4, lease=10, lines=9)
            assert await append(log, lines(1, fence=4)) == [None]
            assert await append(log, lines(1, fence=5)) == [(1, True)]

    run(test)


def test_begin_may_be_asked_again_and_loses_nothing(valkey):
    """Also when the store archived, and the log was trimmed, in between."""

    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 5), lines(6, 5))
            await log.trim(RUN, upto=5)
            assert await log.begin(RUN, 1, lease=10, lines=0) == 10
            assert await text_of(log, after=5) == text(6, 10)

    run(test)


def test_a_log_that_has_less_than_the_store_goes_on_from_there(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 3), event("e"))
            assert await log.begin(RUN, 2, lease=10, lines=9) == 9
            assert await log.read(RUN, after=2) is None
            assert await log.read(RUN, after=9) == ((), 9)
            batch = (lines(10, fence=2), event("e", fence=2))
            assert await append(log, *batch) == [(10, True), (4, False)]

    run(test)


def test_a_log_with_a_hole_goes_on_from_what_the_store_has(valkey):
    """Its stream was lost: what the store had not archived is gone, and said to be."""

    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 3), event("kept"), lines(5), event("lost"))
            command(valkey, "DEL", key_of(log, "log"))
            assert await log.read(RUN, after=4) is None
            assert await log.begin(RUN, 2, lease=10, lines=4) == 4
            batch = (event("kept", fence=2), event("lost", fence=2))
            assert await append(log, *batch) == [(4, False), (5, True)]
            assert await text_of(log, after=4) == b"event\n"

    run(test)


def test_a_finished_run_that_begins_again_goes_on(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 2), event("x"))
            await log.finish(RUN, 1)
            assert await log.begin(RUN, 2, lease=10, lines=3) == 3
            assert await append(log, lines(4, fence=2)) == [(4, True)]
            # All that was before is the store's, which may have forgotten it by now.
            assert await log.read(RUN, after=2) is None
            assert await append(log, event("x", fence=2)) == [(5, True)]
            ttl = int(command(valkey, "PTTL", key_of(log, "log"))[1:])
            assert ttl > 1_000_000

    run(test)


# -- append


def test_what_is_appended_is_read_from_every_cursor(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            batch = (lines(1), lines(2, 3), lines(5, 10), lines(15))
            assert await append(log, *batch) == [
                (1, True),
                (2, True),
                (5, True),
                (15, True),
            ]
            for after in range(18):
                assert await text_of(log, after=after) == text(after + 1, 15)

    run(test)


@pytest.mark.parametrize("size", [1, 20, 64, 10_000])
def test_a_page_has_whole_lines_and_one_at_least(valkey, size):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, *(lines(k) for k in range(1, 300)))
            await append(log, lines(300, 40), lines(340, 1))
            chunks, end = await log.read(RUN, after=4, limit_bytes=size)
            assert end == 340
            assert chunks[0].first == 5
            read = sum(len(chunk.data) for chunk in chunks)
            assert len(chunks) == 1 or read <= size
            assert read >= min(size, 500) - 12
            assert await text_of(log, limit_bytes=size) == text(1, 340)

    run(test)


def test_a_negative_cursor_is_refused(valkey):
    async def test():
        async with opened(valkey) as log:
            with pytest.raises(ValueError, match="0 or more"):
                await log.read(RUN, after=-1)

    run(test)


def test_lines_that_are_there_are_not_written_again(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 2), lines(3))
            batch = (lines(1, 2), lines(3), lines(4), lines(4))
            assert await append(log, *batch) == [
                (1, False),
                (3, False),
                (4, True),
                (4, False),
            ]
            assert await text_of(log) == text(1, 4)

    run(test)


def test_an_event_is_appended_where_the_log_ends_and_once(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            batch = (lines(1, 2), event("x"), event("x"), event("\ud800é"), event(""))
            assert await append(log, *batch) == [
                (1, True),
                (3, True),
                (3, False),
                (4, True),
                (5, True),
            ]
            assert await append(log, event("\ud800é"), event("")) == [
                (4, False),
                (5, False),
            ]
            chunks, end = await log.read(RUN, after=2)
            assert [chunk.event_id for chunk in chunks] == ["x", "\ud800é", ""]
            assert end == 5

    run(test)


def test_an_event_stays_known_when_its_line_was_trimmed(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, event("x"), lines(2))
            await log.trim(RUN, upto=2)
            assert await append(log, event("x")) == [(1, False)]

    run(test)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([lines(4)], "append what comes between first"),
        ([lines(2, 2)], "overlap"),
        ([lines(0)], "numbered from 1"),
        ([Lines(RUN, 1, 3, 0, b"")], "numbered from 1"),
        ([lines(3), lines(5)], "append what comes between first"),
    ],
)
def test_lines_that_do_not_fit_are_refused_and_nothing_of_the_run_written(
    valkey, batch, said
):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 2))
            with pytest.raises(ValueError, match=said):
                await append(log, *batch)
            assert await text_of(log) == text(1, 2)

    run(test)


def test_a_batch_goes_to_each_run_and_one_refusal_hinders_no_other(valkey):
    async def test():
        async with opened(valkey) as log:
            for k in range(50):
                await log.begin(f"run {k}", 1, lease=10, lines=0)
            batch = [lines(n, run_id=f"run {k}") for n in (1, 2) for k in range(50)]
            batch.insert(30, lines(1, run_id="nobody's"))
            batch.insert(60, lines(2, fence=7, run_id="run 3"))
            answers = await append(log, *batch)
            assert answers.pop(60) is None
            assert answers.pop(30) is None
            assert answers == [(1, True)] * 50 + [(2, True)] * 50
            assert await log.append([]) == []

    run(test)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("wrong", [lines(5), lines(1, 3), lines(0), lines(4)])
def test_lines_that_do_not_fit_are_refused_with_all_of_their_batch(valkey, wrong, same):
    """By the object that began the runs, which knows their ends, and by another."""

    async def test():
        prefix = fresh_prefix()
        async with (
            opened(valkey, prefix=prefix) as owner,
            opened(valkey, prefix=prefix) as other,
        ):
            log = owner if same else other
            for name in (RUN, "good", "better"):
                await owner.begin(name, 1, lease=10, lines=0)
            await append(owner, lines(1, 2))
            batch = [lines(1, run_id="good"), wrong, lines(1, run_id="better")]
            if wrong == lines(4):
                batch = [event("x"), event("x"), batch[0], lines(5), batch[2]]
            with pytest.raises(ValueError, match=f"{RUN}|numbered from 1"):
                await append(log, *batch)
            for name in ("good", "better"):
                assert await text_of(log, name) == b""
            assert await text_of(log) == text(1, 2)

    run(test)


@pytest.mark.parametrize("run_id", IDS)
def test_ids_hold_any_characters(valkey, run_id):
    async def test():
        async with opened(valkey) as log:
            for other in IDS:
                await log.begin(other, 1, lease=10, lines=0)
            assert await append(log, lines(1, run_id=run_id)) == [(1, True)]
            waiting = asyncio.create_task(log.wait(run_id, after=1, timeout=30))
            await append(log, lines(2, run_id=run_id))
            await waiting
            for other in IDS:
                end = 2 * (other == run_id)
                assert await text_of(log, other) == text(1, end)
                for key in log._keys(other):
                    start = key.index("{")
                    assert key.index("}") > start + 1
                    assert key.count("{") == key.count("}") == 1

    run(test)


def test_a_hundred_thousand_lines_are_kept_in_order(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=100, lines=0)
            for first in range(1, 100_000, 2_000):
                await log.append(
                    [lines(k, 20) for k in range(first, first + 2_000, 20)]
                )
            assert await text_of(log) == text(1, 100_000)
            assert await text_of(log, after=99_990) == text(99_991, 100_000)

    run(test)


def test_a_line_of_megabytes_passes(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=100, lines=0)
            data = b"x" * (3 << 20) + b"\r\n\x00\n"
            data = data.replace(b"\r\n\x00", b"\r\x00")
            await log.append([Lines(RUN, 1, 1, 1, data), lines(2)])
            assert await text_of(log, limit_bytes=10) == data + line(2)

    run(test)


# -- fences and leases


def test_a_stale_fence_never_appends(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await log.begin(RUN, 2, lease=10, lines=0)
            assert await append(log, lines(1, fence=1), event("x", fence=1)) == [
                None,
                None,
            ]
            assert await append(log, lines(1, fence=2)) == [(1, True)]
            # Not even what is there already is confirmed to it.
            assert await append(log, lines(1, fence=1)) == [None]
            assert await text_of(log) == text(1, 1)

    run(test)


def test_a_fence_whose_lease_is_over_by_the_servers_clock_never_appends(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=0.05, lines=0)
            while await append(log, lines(1)) != [None]:
                await asyncio.sleep(0.01)
            held = await text_of(log)
            await log.renew({RUN: 1}, lease=100)
            assert await append(log, lines(1), lines(2)) == [None, None]
            assert await text_of(log) == held

    run(test)


def test_renewing_keeps_live_leases_and_only_those(valkey):
    async def test():
        async with opened(valkey) as log:
            for name in ("live", "over", "stale", "done"):
                await log.begin(name, 1, lease=100, lines=0)
            lapsed(log, valkey, "over")
            await log.begin("stale", 2, lease=100, lines=0)
            await log.finish("done", 1)
            before = {
                name: command(valkey, "HGET", log._keys(name)[0], "until")
                for name in ("live", "over", "stale", "done")
            }
            fences = dict.fromkeys(["live", "over", "stale", "done", "unknown"], 1)
            await log.renew(fences, lease=10_000)
            after = {
                name: command(valkey, "HGET", log._keys(name)[0], "until")
                for name in before
            }
            assert {name for name in before if before[name] != after[name]} == {"live"}
            assert command(valkey, "EXISTS", log._keys("unknown")[0]) == b":0\r\n"
            await log.renew({}, lease=1)

    run(test)


def test_a_run_that_the_log_does_not_know_is_the_stores(valkey):
    async def test():
        async with opened(valkey) as log:
            assert await log.read("nobody's") is None
            assert await append(log, lines(1, run_id="nobody's")) == [None]
            await log.trim("nobody's", upto=5)
            await log.finish("nobody's", 1)
            assert command(valkey, "EXISTS", *log._keys("nobody's")) == b":0\r\n"

    run(test)


# -- trimming, bounds, expiry


def test_what_was_trimmed_is_the_stores_and_the_rest_stays(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 4), lines(5, 4), lines(9, 2))
            await log.trim(RUN, upto=0)
            await log.trim(RUN, upto=6)
            assert await log.read(RUN, after=3) is None
            # A chunk that is only in part archived stays whole.
            assert await text_of(log, after=4) == text(5, 10)
            await log.trim(RUN, upto=4)
            assert await text_of(log, after=4) == text(5, 10)
            await log.trim(RUN, upto=10)
            assert await log.read(RUN, after=9) is None
            assert await log.read(RUN, after=10) == ((), 10)
            assert await append(log, lines(11)) == [(11, True)]
            assert await append(log, lines(9, 2)) == [(9, False)]
            assert await text_of(log, after=10) == line(11)

    run(test)


def test_a_run_that_holds_too_much_refuses_and_drops_nothing(valkey):
    async def test():
        async with opened(valkey, max_bytes=90) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await log.begin("other", 1, lease=10, lines=0)
            await append(log, lines(1, 4), lines(5, 4))
            with pytest.raises(StoreFull, match="max_bytes=90"):
                await append(log, lines(9), lines(1, run_id="other"))
            assert await append(log, lines(5, 4)) == [(5, False)]
            assert await text_of(log) == text(1, 8)
            assert await text_of(log, "other") == text(1, 1)
            await log.trim(RUN, upto=4)
            assert await append(log, lines(9)) == [(9, True)]
            assert await text_of(log, after=4) == text(5, 9)

    run(test)


def test_a_chunk_larger_than_the_bound_passes_alone(valkey):
    async def test():
        async with opened(valkey, max_bytes=10) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            assert await append(log, lines(1, 5)) == [(1, True)]
            with pytest.raises(StoreFull):
                await append(log, lines(6))
            await log.trim(RUN, upto=5)
            assert await append(log, lines(6, 5)) == [(6, True)]

    run(test)


def test_an_abandoned_run_expires_and_a_renewed_one_does_not(valkey):
    async def test():
        async with opened(valkey, ttl=0.3) as log:
            for name in ("abandoned", "kept"):
                await log.begin(name, 1, lease=0.1, lines=0)
                await append(log, lines(1, run_id=name))
            while await log.read("abandoned") is not None:
                await log.renew({"kept": 1}, lease=0.2)
                await asyncio.sleep(0.02)
            assert await text_of(log, "kept") == text(1, 1)
            assert command(valkey, "EXISTS", *log._keys("abandoned")) == b":0\r\n"

    run(test)


def test_every_key_expires_whatever_was_called(valkey):
    async def test():
        async with opened(valkey, ttl=1_000) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            for k in range(1, 4):
                await append(log, lines(k))
                for key in log._keys(RUN):
                    assert 0 < int(command(valkey, "PTTL", key)[1:]) <= 1_000_000
                await log.trim(RUN, upto=k)
            await log.begin(RUN, 2, lease=5_000, lines=3)
            left = int(command(valkey, "PTTL", log._keys(RUN)[0])[1:])
            assert left > 9_000_000, "a run outlives its lease"

    run(test)


def test_a_finished_run_is_read_on_for_a_while_and_appended_to_no_more(valkey):
    async def test():
        async with opened(valkey, linger=0.3) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 3))
            await log.finish(RUN, 2)
            assert await append(log, lines(4)) == [(4, True)]
            await log.finish(RUN, 1)
            await log.finish(RUN, 1)
            assert await append(log, lines(5), lines(4)) == [None, None]
            assert await text_of(log) == text(1, 4)
            while await log.read(RUN) is not None:
                await asyncio.sleep(0.02)
            assert command(valkey, "EXISTS", *log._keys(RUN)) == b":0\r\n"

    run(test)


# -- using it


def test_scripts_that_the_server_forgot_are_sent_again(valkey):
    async def test():
        async with opened(valkey) as log:
            for k in range(20):
                await log.begin(f"{k}", 1, lease=10, lines=0)
            command(valkey, "SCRIPT", "FLUSH")
            batch = [lines(1, run_id=f"{k}") for k in range(20)]
            assert await append(log, *batch) == [(1, True)] * 20
            assert await text_of(log, "7") == text(1, 1)

    run(test)


def test_two_objects_on_one_prefix_share_their_runs_and_others_do_not(valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(valkey, prefix=prefix) as one,
            opened(valkey, prefix=prefix) as two,
            opened(valkey) as other,
        ):
            await one.begin(RUN, 1, lease=10, lines=0)
            await append(one, lines(1, 2))
            assert await text_of(two) == text(1, 2)
            assert await other.read(RUN) is None

    run(test)


def test_a_closed_log_says_so_and_closes_again(valkey):
    async def test():
        log = RedisLog(valkey.url, prefix=fresh_prefix())
        await log.begin(RUN, 1, lease=10, lines=0)
        await log.close()
        await log.close()
        with pytest.raises(StoreError, match="closed"):
            await log.read(RUN)
        await log.wait(RUN, after=0, timeout=60)
        await RedisLog(valkey.url).close()

    run(test)


def test_a_log_belongs_to_one_loop(valkey):
    log = RedisLog(valkey.url, prefix=fresh_prefix())

    async def first():
        await log.begin(RUN, 1, lease=10, lines=0)

    async def second():
        with pytest.raises(StoreError, match="second event loop"):
            await log.read(RUN)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(first())
        asyncio.run(second())
    finally:
        loop.run_until_complete(log.close())
        loop.close()


@pytest.mark.parametrize(
    "url", ["http://host", "redis://:s3cret/x@host:1", "redis://h?db=x", ""]
)
def test_a_url_that_cannot_be_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match="redis://user:password@host") as caught:
        RedisLog(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""},
        {"prefix": "a{b}"},
        {"ttl": 0},
        {"linger": -1},
        {"max_bytes": 0},
        {"connections": 0},
        {"timeout": 0},
    ],
)
def test_bounds_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RedisLog("redis://localhost", **options)
