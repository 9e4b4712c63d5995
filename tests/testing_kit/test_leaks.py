"""`no_leaks` sees what a block leaves behind."""

import asyncio
import os

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from pipeline.testing import LeakError, no_leaks, run_virtual


async def numbers():
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)


async def test_what_cleans_up_is_let_pass():
    async with no_leaks():
        await asyncio.ensure_future(asyncio.sleep(0))
        stream = numbers()
        async for _ in stream:
            break
        await stream.aclose()


async def test_a_task_is_named_with_its_line():
    with pytest.raises(LeakError, match=r"task 'left' .*Event\.wait"):
        async with no_leaks():
            task = asyncio.create_task(asyncio.Event().wait(), name="left")
    task.cancel()


async def test_an_open_generator_is_named():
    stream = numbers()
    with pytest.raises(LeakError, match="async generator numbers is still open"):
        async with no_leaks():
            await anext(stream)
    await stream.aclose()


async def test_a_dropped_generator_is_named():
    with pytest.raises(LeakError, match="numbers was dropped, not closed"):
        async with no_leaks():
            await anext(numbers())


def test_a_timer_is_seen_in_virtual_time():
    async def main():
        with pytest.raises(LeakError, match="timer <TimerHandle"):
            async with no_leaks():
                asyncio.get_running_loop().call_later(100, print)

    run_virtual(main())


async def test_an_open_file_is_named():
    made = []
    with pytest.raises(LeakError, match=r"file .*pipe:"):
        async with no_leaks():
            made += os.pipe()
    for fd in made:
        os.close(fd)
    async with no_leaks(files=False):
        made = os.pipe()
    for fd in made:
        os.close(fd)


async def test_a_span_that_was_not_ended_is_named(monkeypatch):
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    tracer = provider.get_tracer("test")
    async with no_leaks():
        tracer.start_span("fine").end()
    with pytest.raises(LeakError, match="span 'left open' was not ended"):
        async with no_leaks():
            span = tracer.start_span("left open")
    span.end()


async def test_the_blocks_own_error_wins():
    with pytest.raises(KeyError):
        async with no_leaks():
            task = asyncio.create_task(asyncio.sleep(50))
            raise KeyError
    task.cancel()
