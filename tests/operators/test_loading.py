"""What importing the packages loads, and what stands under the names they export."""

import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import operators as ops
import pipeline

ROOT = Path(ops.__file__).parent.parent
HEAVY = ("aiostream", "httpx", "opentelemetry", "typer", "rich", "sqlite3", "decimal")
MODULES = ("detectors", "event")
"""What is exported as a module."""

LAZY_FILES = sorted(
    path.stem
    for path in (ROOT / "operators").glob("*.py")
    if path.stem in ops.__all__ and path.stem not in MODULES
)
"""The exported operators whose files are named like them."""


def printed(code: str) -> list[str]:
    """Run `code` in a fresh interpreter; gives what it prints, word by word."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.split()


def test_a_plain_turn_loads_neither_heavy_libraries_nor_operators_it_has_not():
    code = """
import asyncio, sys
import operators as ops
from pipeline import Pipeline, TurnIdentity

chat = (
    Pipeline(lambda: [{"type": "x"}])
    | ops.lifecycle()
    | ops.tap(lambda event: None)
    | ops.accumulate()
    | ops.transform(str.strip)
    | ops.persist(lambda record: None)
    | ops.complete(lambda record: None)
    | ops.trace_flush(lambda: None)
)

async def turn():
    run = chat.start(TurnIdentity(session_id="s", turn_index=0))
    return [line async for line in run.body()]

assert len(asyncio.run(turn())) == 3
print(*sys.modules)
"""
    loaded = set(printed(code))
    assert loaded.isdisjoint(HEAVY)
    unused = {"budget", "guard", "meter", "prices", "redaction", "smooth", "switch"}
    assert loaded.isdisjoint({f"operators.{name}" for name in unused})
    assert "pipeline.chat_turn" not in loaded


@pytest.mark.parametrize(
    "order",
    [
        "import operators.{0}; from operators import {0}",
        "from operators import {0}; import operators.{0}",
        "from operators.{0} import {0} as first; from operators import {0}",
        "import operators; operators.{0}; import operators.{0}; {0} = operators.{0}",
        "import operators.{0}; from operators import *",
        "from importlib import import_module as i; i('operators.{0}'); "
        "from operators import {0}",
    ],
)
def test_an_operator_is_the_function_whoever_imported_its_file_before(order):
    lines = [
        line
        for name in LAZY_FILES
        for line in (order.format(name), f"print({name}.__module__, {name}.__name__)")
    ]
    named = [word for name in LAZY_FILES for word in (f"operators.{name}", name)]
    assert printed("\n".join(lines)) == named


def test_every_exported_name_is_there_and_no_other():
    for package in (ops, pipeline):
        assert dir(package) == sorted(package.__all__)
        for name in package.__all__:
            made: object = getattr(package, name)
            assert isinstance(made, ModuleType) == (name in MODULES), name
        with pytest.raises(AttributeError, match=f"'{package.__name__}'.*'nothing'"):
            _ = package.nothing


def test_what_is_exported_can_be_pickled_by_name():
    for package in (ops, pipeline):
        for name in package.__all__:
            made = getattr(package, name)
            if isinstance(made, type) or callable(made):
                assert pickle.loads(pickle.dumps(made)) == made, name


def test_an_export_can_be_replaced_as_in_any_module(monkeypatch):
    def fake():
        """Stand in for it."""

    for replacement in (fake, ModuleType("fake")):
        with monkeypatch.context() as patch:
            patch.setattr(ops, "lifecycle", replacement)
            assert ops.lifecycle is replacement
    with monkeypatch.context() as patch:
        patch.setattr(ops, "meter", fake)
        assert ops.meter is fake
    assert ops.meter.__name__ == "meter"
