# ruff: noqa: D103 - a claim's name is what it says
"""Claims about the log: numbered lines, appended once, read from every cursor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from operators.errors import UnknownTurn

from ...stores.contract import Appended, Chunk, Lines
from .claiming import IDS, claim, event, lines, owned, put, raises, whole
from .place import Place

if TYPE_CHECKING:
    from ...stores.contract import Store


@claim
async def lines_are_numbered_from_1_and_read_from_every_cursor(place: Place) -> None:
    store, other = place.store(), place.store()
    for run_id in IDS:
        fence = (await owned(store, run_id)).fence
        end = 0
        for count in (1, 3, 1, 5, 2):
            said = [f"{end + k + 1}" for k in range(count)]
            piece = lines(run_id, fence, end + 1, *said)
            assert await put(store, piece) == (end + 1, True)
            end += count
            assert (await other.status(run_id)).lines == end
        every = [f"{k}\n".encode() for k in range(1, end + 1)]
        for after in range(end + 3):
            rest = b"".join(every[after:])
            assert await whole(other, run_id, after) == rest
            page = await store.read(run_id, after=after)
            assert (page.lines, page.closed, page.lapsed_s) == (end, False, None)
            assert bool(page.chunks) == (after < end)
    assert not (await store.read(IDS[0], after=10**12)).chunks


@claim
async def pages_hold_whole_lines_about_as_many_bytes_as_asked(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    large = "x" * 300_000
    said = ["a", large, "b", "c" * 1000, large, "d"]
    for k, text in enumerate(said):
        await put(store, lines("r", fence, k + 1, text))
    every = "".join([f"{text}\n" for text in said]).encode()
    for limit in (0, 1, 1_000, 301_000, 10**7):
        after, found = 0, b""
        while True:
            page = await store.read("r", after=after, limit_bytes=limit)
            if not page.chunks:
                break
            size = sum([len(chunk.data) for chunk in page.chunks])
            assert size <= limit or len(page.chunks) == 1
            for chunk in page.chunks:
                assert chunk.first == after + 1
                after += chunk.count
                found += chunk.data
        assert found == every
    page = await store.read("r", limit_bytes=10**7)
    assert sum([chunk.count for chunk in page.chunks]) == len(said)


@claim
async def a_chunk_is_read_from_its_middle_in_pages_of_any_size(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    every: list[str] = []
    for count in (4, 1, 3, 7):
        said = [f"{len(every) + k}" * (k + 1) for k in range(count)]
        await put(store, lines("r", fence, len(every) + 1, *said))
        every += said
    for after in range(len(every) + 1):
        rest = "".join([f"{text}\n" for text in every[after:]]).encode()
        for limit in (1, 2, 5, 11, 30, 1 << 20):
            assert await whole(store, "r", after, limit_bytes=limit) == rest


@claim
async def lines_of_a_megabyte_and_thousands_of_lines_come_back(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    large = [f"{k}" + "y" * (1 << 20) for k in range(3)]
    await store.append([lines("r", fence, k + 1, text) for k, text in enumerate(large)])
    many = [str(k) for k in range(5_000)]
    batch = [lines("r", fence, 4 + k, text) for k, text in enumerate(many[:2_500])]
    await store.append([*batch, lines("r", fence, 2_504, *many[2_500:])])
    expected = "".join([f"{text}\n" for text in large + many]).encode()
    assert await whole(store, "r") == expected
    assert await whole(store, "r", limit_bytes=10_000) == expected
    assert (await store.status("r")).lines == 5_003


@claim
async def appending_again_writes_nothing(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence
    first = lines("r", fence, 1, "1", "2", "3")
    for accepted in (True, False, False):
        assert await put(store, first) == (1, accepted)
    assert await put(other, lines("r", fence, 2, "2")) == (2, False)
    assert await put(other, lines("r", fence, 2, "2", "3")) == (2, False)
    again = await store.append([first, lines("r", fence, 4, "4"), first])
    assert list(again) == [Appended(1, False), Appended(4, True), Appended(1, False)]
    assert await whole(store, "r") == b"1\n2\n3\n4\n"


@claim
async def gaps_and_overlaps_are_refused_with_all_of_their_batch(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    other = (await owned(store, "other")).fence
    await put(store, lines("r", fence, 1, "1", "2", "3"))
    for wrong in (
        lines("r", fence, 5, "5"),
        lines("r", fence, 3, "3", "4"),
        lines("r", fence, 1, "1", "2", "3", "4"),
        lines("r", fence, 0, "0"),
        lines("r", fence, -1, "-1"),
        Lines("r", fence, 4, 0, b""),
    ):
        await raises(ValueError, store.append([wrong]))
        good = lines("other", other, 1, "x"), event("other", other, "e", "y")
        await raises(ValueError, store.append([*good, wrong]))
        await raises(ValueError, store.append([wrong, *good]))
    ahead = [lines("r", fence, 4, "4"), lines("r", fence, 6, "6")]
    await raises(ValueError, store.append(ahead))
    assert await whole(store, "r") == b"1\n2\n3\n"
    assert await whole(store, "other") == b""
    assert await put(store, event("other", other, "e", "y")) == (1, True)


@claim
async def a_batch_is_of_many_runs_and_one_stale_fence_hinders_no_other(
    place: Place,
) -> None:
    store = place.store()
    fences = {f"r{k}": (await owned(store, f"r{k}")).fence for k in range(20)}
    ended = await owned(store, "ended")
    await store.settle("ended", ended.fence, status="completed", outcome={})
    released = await owned(store, "released")
    await store.release("released", released.fence)
    batch = [lines(run_id, fence, 1, run_id) for run_id, fence in fences.items()]
    batch.insert(3, lines("r1", 99, 2, "stale"))
    batch.insert(7, lines("ended", ended.fence, 1, "late"))
    batch.insert(8, lines("nobody", 1, 1, "never"))
    batch.insert(9, event("released", released.fence, "e", "late"))
    batch += [lines(run_id, fence, 2, "more") for run_id, fence in fences.items()]
    answers = list(await store.append(batch))
    assert [k for k, one in enumerate(answers) if one is None] == [3, 7, 8, 9]
    assert all(one.accepted for one in answers if one is not None)
    for run_id in fences:
        assert await whole(store, run_id) == f"{run_id}\nmore\n".encode()
    assert await whole(store, "ended") == b""
    assert await whole(store, "released") == b""
    assert list(await store.append([])) == []


@claim
async def event_ids_are_appended_once_each(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence

    async def said(to: Store, *pieces: tuple[str, str]) -> list[tuple[int, bool]]:
        answers = await to.append([event("r", fence, *piece) for piece in pieces])
        return [(one.line, one.accepted) for one in answers if one is not None]

    first = await said(store, ("a", "1"), ("b", "2"), ("a", "3"))
    assert first == [(1, True), (2, True), (1, False)]
    assert await said(other, ("b", "other"), ("c", "3")) == [(2, False), (3, True)]
    page = await store.read("r", after=1)
    assert page.chunks == (Chunk(2, 1, b"2\n", "b"), Chunk(3, 1, b"3\n", "c"))
    assert (await store.read("r")).chunks[0] == Chunk(1, 1, b"1\n", "a")
    later = (await owned(store)).fence
    assert await put(store, event("r", later, "a", "under another fence")) == (1, False)
    mixed = [lines("r", later, 4, "4"), event("r", later, "d", "5")]
    answers = await store.append([*mixed, lines("r", later, 6, "6"), *mixed])
    assert [one and (one.line, one.accepted) for one in answers] == [
        (4, True),
        (5, True),
        (6, True),
        (4, False),
        (5, False),
    ]
    second = (await owned(store, "r2")).fence
    assert await put(store, event("r2", second, "a", "x")) == (1, True)
    for k, event_id in enumerate(IDS):
        for accepted in (True, False):
            piece = event("r2", second, event_id, event_id.replace("\n", ""))
            assert await put(store, piece) == (k + 2, accepted)


@claim
async def what_a_log_holds_comes_back_byte_for_byte(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    said = [
        b"\x00\xff\xfe\n",
        "\u2028 \u0085 \ufeff \v\f\r\n".encode(),
        b"\\ud800 \xed\xa0\x80\n",
        b"\n",
        b"\r\n",
        bytes(set(range(256)) - {10}) + b"\n",
    ]
    for k, data in enumerate(said):
        await store.append([Lines("r", fence, k + 1, 1, data)])
    await store.append([Lines("r", fence, 7, 4, b"\n\n\n\n")])
    await store.append([Lines("r", fence, 0, 1, b"\xff\n", "e")])
    assert await whole(store, "r") == b"".join(said) + b"\n\n\n\n\xff\n"
    for after in range(6):
        page = await store.read("r", after=after, limit_bytes=1)
        assert page.chunks[0].data == said[after]
        assert isinstance(page.chunks[0].data, bytes)
    assert await whole(store, "r", 9) == b"\n\xff\n"


@claim
async def bad_cursors_and_unknown_runs_are_told(place: Place) -> None:
    store = place.store()
    await owned(store)
    await raises(ValueError, store.read("r", after=-1))
    await raises(ValueError, store.read("nobody", after=-1))
    for pending in (
        lambda: store.read("nobody"),
        lambda: store.read("R"),
        lambda: store.status("nobody"),
        lambda: store.request_cancel("nobody", "x"),
        lambda: store.emit("nobody", "k", 1),
        lambda: store.emit("nobody", "k", 1, fence=1),
        lambda: store.settle("nobody", 1, status="failed", outcome={}),
        lambda: store.begin_step("nobody", 1, 0, intent="i", kind="k"),
        lambda: store.end_step("nobody", 1, 0),
        lambda: store.set_handle("nobody", 1, {}),
    ):
        assert (await raises(UnknownTurn, pending())).execution_id in {"nobody", "R"}
    assert list(await store.steps("nobody")) == []
    assert await store.signal("nobody", "k") is None
    assert await put(store, lines("nobody", 1, 1, "x")) is None
    assert [run.id for run in await store.runs()] == ["r"]


@claim
async def a_wait_ends_with_the_next_line_the_close_or_the_time(place: Place) -> None:
    store, other = place.store(), place.store()
    got = await owned(store)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await store.wait("r", after=0, timeout=0.1)
    assert loop.time() - began < 5
    for reader in (store, other):
        line = (await store.status("r")).lines
        waiting = asyncio.ensure_future(reader.wait("r", after=line, timeout=20))
        await asyncio.sleep(0.05)
        await put(store, lines("r", got.fence, line + 1, "x"))
        await asyncio.wait_for(waiting, 10)
    began = loop.time()
    await store.wait("r", after=0, timeout=20)
    await other.wait("r", after=1, timeout=20)
    assert loop.time() - began < 10, "what is there is not waited for"
    waits = [
        asyncio.ensure_future(reader.wait("r", after=2, timeout=20))
        for reader in (store, other, store, other)
    ]
    await asyncio.sleep(0.05)
    await store.settle("r", got.fence, status="completed", outcome={})
    await asyncio.wait_for(asyncio.gather(*waits), 10)
    began = loop.time()
    await store.wait("r", after=99, timeout=20)
    assert loop.time() - began < 10, "a log that is closed is not waited for"


@claim
async def a_log_is_followed_to_its_close_without_a_loss(place: Place) -> None:
    """Reads and waits in turn, while another writes: nothing falls between the two."""
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence

    async def follow(reader: Store, pause: int) -> bytes:
        after, found = 0, b""
        while True:
            page = await reader.read("r", after=after)
            for chunk in page.chunks:
                assert chunk.first == after + 1
                after += chunk.count
                found += chunk.data
            if page.closed and after == page.lines:
                return found
            if not page.chunks:
                for _ in range(pause):
                    await asyncio.sleep(0)
                began = asyncio.get_running_loop().time()
                await reader.wait("r", after=after, timeout=20)
                assert asyncio.get_running_loop().time() - began < 15

    readers = [
        asyncio.ensure_future(follow(one, pause))
        for one in (store, other)
        for pause in (0, 1, 7)
    ]
    for k in range(40):
        await put(store, lines("r", fence, k + 1, str(k)))
        for _ in range(k % 5):
            await asyncio.sleep(0)
    last = lines("r", fence, 41, "end")
    await store.settle("r", fence, status="failed", outcome={}, lines=last)
    expected = "".join([f"{k}\n" for k in (*range(40), "end")]).encode()
    assert await asyncio.gather(*readers) == [expected] * 6


@claim
async def closing_ends_waits_and_may_be_asked_again(place: Place) -> None:
    store = place.store()
    await owned(store)
    waits = [
        asyncio.ensure_future(store.wait("r", after=0, timeout=60)) for _ in range(3)
    ]
    await asyncio.sleep(0.05)
    await store.close()
    done, _ = await asyncio.wait(waits, timeout=10)
    assert len(done) == len(waits)
    for one in done:
        assert one.cancelled() or one.exception() is None or one.exception()
    await store.close()
    await place.store().close()
