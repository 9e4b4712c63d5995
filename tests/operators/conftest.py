"""Run `async def` tests, and fail those that leave a task or a generator behind."""

import asyncio
import gc
import inspect

import pytest


async def alone_in_its_loop(test):
    ours = asyncio.current_task()
    await asyncio.wait_for(test, 20)  # a guard against hangs, not a claim about time
    gc.collect()
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not ours]
    assert not left, f"tasks left behind: {left}"
    opened = (
        asyncio.get_running_loop()._asyncgens
    )  # finished ones stay while referred to
    unfinished = [agen for agen in opened if agen.ag_frame is not None]
    assert not unfinished, f"generators left behind: {unfinished}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(alone_in_its_loop(pyfuncitem.obj(**given)))
    return True


@pytest.fixture
def logged():
    """A log for a turn: a list of (message, meta)."""
    return []


@pytest.fixture
def turn(logged):
    from operators import TurnContext, TurnIdentity

    return TurnContext(
        identity=TurnIdentity(session_id="s-1", tenant_id="t-1", turn_index=3),
        execution_id="x-1",
        log_to=lambda message, meta: logged.append((message, dict(meta))),
    )
