"""Who writes a store of their own runs the suite on it by one command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MINE = """
from time import time

from pipeline.stores import MemoryStore
from pipeline.testing.conformance import Place


class Careless(MemoryStore):
    async def release(self, run_id, fence):
        return await super().release(run_id, fence) or True


def made(kind):
    ahead = 0.0
    store = kind(clock=lambda: time() + ahead)

    async def advance(seconds):
        nonlocal ahead
        ahead += seconds

    return Place(lambda: store, advance)


def whole(folder):
    return made(MemoryStore)


def careless(folder):
    return made(Careless)
"""


def suite(folder, *arguments):
    (folder / "mine.py").write_text(MINE)
    asked = "import pytest_turnpipe, pytest, sys; from importlib.metadata import "
    asked += "entry_points; known = [e.value for e in entry_points(group='pytest11')]; "
    asked += "plugins = [] if 'pytest_turnpipe' in known else [pytest_turnpipe]; "
    asked += "sys.exit(pytest.main(sys.argv[1:], plugins))"
    command = [sys.executable, "-c", asked, "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--pyargs", "pipeline.testing.conformance", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("name", "status"), [("whole", 0), ("careless", 1)])
def test_the_command_tells_whether_a_store_keeps_its_contract(tmp_path, name, status):
    found = suite(tmp_path, "--turnpipe-store", f"mine:{name}")
    assert found.returncode == status, found.stdout
    failed = "a_released_run_may_be_taken_at_once" in found.stdout
    assert failed == (name == "careless")


def test_without_a_store_it_says_how_to_name_one(tmp_path):
    found = suite(tmp_path, "-rs")
    assert "--turnpipe-store package.module:factory" in found.stdout
