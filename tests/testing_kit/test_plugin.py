"""The pytest plugin, in a pytest of its own."""

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points

ROOT = __file__.rpartition("/tests/")[0]


INSTALLED = any(
    point.value == "pytest_turnpipe" for point in entry_points(group="pytest11")
)


def pytest_of(tmp_path, text, *args):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-W", "error"),
            *(() if INSTALLED else ("-p", "pytest_turnpipe")),
            *("-p", "no:cacheprovider", *args),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": ROOT, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_its_fixtures_work_without_warnings(tmp_path):
    done = pytest_of(
        tmp_path,
        """
        import asyncio
        import operators as ops
        from pipeline import Pipeline

        def test_virtual(virtual_clock):
            async def main():
                await asyncio.sleep(1000)
                return 7
            assert virtual_clock(main()) == 7

        def test_leaks(virtual_clock, no_leaks):
            async def main():
                async with no_leaks():
                    pass
            virtual_clock(main())

        def test_scripted(scripted):
            assert scripted([{"type": "a"}], steps=1).events

        def test_matrix(exit_matrix):
            exit_matrix(lambda source: Pipeline(source) | ops.lifecycle())
        """,
        "--strict-markers",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_its_marker_fails_a_test_that_leaves_a_file_open(tmp_path):
    done = pytest_of(
        tmp_path,
        """
        import os
        import pytest

        kept = []

        @pytest.mark.turnpipe_no_leaks
        def test_leaky():
            kept.extend(os.pipe())

        @pytest.mark.turnpipe_no_leaks
        def test_clean():
            for fd in os.pipe():
                os.close(fd)

        def test_unmarked():
            kept.extend(os.pipe())
        """,
        "--strict-markers",
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "pipe:" in done.stdout
