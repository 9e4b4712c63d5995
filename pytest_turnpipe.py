"""The pytest plugin: fixtures, one marker, and readable assertions.

It runs no `async def` tests: that is the work of anyio's or pytest-asyncio's plugin.
With anyio's, a whole test runs in virtual time with

    @pytest.fixture
    def anyio_backend():
        return "asyncio", {"loop_factory": VirtualLoop}

* `virtual_clock`: `virtual_clock(coroutine)` runs it in virtual time, in a plain test
* `no_leaks`: `async with no_leaks():`
* `scripted`: the function, so that a test need not import it
* `exit_matrix`: `check_exit_matrix`, for a plain test
* `@pytest.mark.turnpipe_no_leaks`: fails a test that leaves an open file or socket
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

pytest.register_assert_rewrite("pipeline.testing.chunking", "pipeline.testing.laws")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that the conformance suite of stores reads."""
    parser.addoption(
        "--turnpipe-store",
        metavar="MODULE:FACTORY",
        help="for `--pyargs pipeline.testing.conformance`: a function that takes a folder "
        "and returns a Place",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "turnpipe_no_leaks: fail the test if it leaves a file or socket open",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Compare the open files where the marker asks for it."""
    if item.get_closest_marker("turnpipe_no_leaks") is None:
        return (yield)
    import gc

    from pipeline.testing.leaks import LeakError, open_files

    before = open_files()
    result = yield
    gc.collect()
    now = open_files()
    left = [f"file {fd}: {now[fd]}" for fd in now if now[fd] != before.get(fd)]
    if left:
        raise LeakError("left behind:" + "".join([f"\n  {one}" for one in left]))
    return result


@pytest.fixture
def virtual_clock() -> Callable[..., Any]:
    """Run a coroutine in virtual time: `virtual_clock(scenario(), limit=60)`."""
    from pipeline.testing.clock import run_virtual

    return run_virtual


@pytest.fixture
def no_leaks() -> Callable[..., Any]:
    """Check a block of a test: `async with` what this gives, called."""
    from pipeline.testing.leaks import no_leaks

    return no_leaks


@pytest.fixture
def scripted() -> Callable[..., Any]:
    """Make a source that does what the test says."""
    from pipeline.testing.script import scripted

    return scripted


@pytest.fixture
def exit_matrix() -> Callable[..., Any]:
    """Check a pipeline on every way in which a turn may end."""
    from pipeline.testing.exit_matrix import check_exit_matrix

    return check_exit_matrix
