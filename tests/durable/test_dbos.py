"""The very same tasks on stores and on DBOS, with SQLite and with PostgreSQL."""

import importlib.util
import subprocess
import sys

import pytest

from pipeline.durable.runs import run_durable

from . import tasks
from .durable_support import run
from .processes import Process, ran
from .tasks import effects

needs_dbos = pytest.mark.skipif(
    importlib.util.find_spec("dbos") is None, reason="no DBOS: pip install dbos"
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/dbos.db"
    return request.getfixturevalue("postgres").fresh()


def expected(result):
    assert len(result.pop("ids")) == 2
    assert result == {
        "first": {"t": [1, 2]},
        "both": ["✓ \u2028"] * 2,
        "emitted": [True, False, {"n": 1}],
        "heard": [{"n": 1}] * 2,
        "who": ["r", "ws-1", "sc-1"],
    }


INTENTS = [
    ["slow", "llm", "completed"],
    ["quick", "logic", "completed"],
    ["quick", "logic", "completed"],
    ["event:ready", "event", "completed"],
    ["event:ready", "event", "completed"],
    ["deterministic:now", "deterministic", "completed"],
    ["deterministic:uuid", "deterministic", "completed"],
]


def test_everything_on_a_store(backend, tmp_path):
    async def test():
        path = tmp_path / "effects"
        tasks.use(path)
        given = ("r", tasks.manifest(path), backend.open(), tasks.everything)
        first = await run_durable(*given)
        again = await run_durable(*given)
        assert [[s.intent, s.kind, s.status] for s in first.steps] == INTENTS
        assert again.result["ids"] == first.result["ids"]
        expected(first.result)
        assert effects(path) == ["slow", "quick", "quick"]

    run(backend, test)


def test_failing_once_on_a_store(backend, tmp_path):
    async def test():
        path = tmp_path / "effects"
        tasks.use(path)
        given = ("r", tasks.manifest(path), backend.open(), tasks.fails_once)
        with pytest.raises(ValueError, match="the first time"):
            await run_durable(*given)
        assert (await run_durable(*given)).result == [None, "good"]
        assert effects(path) == ["good", "bad", "bad"]

    run(backend, test)


@needs_dbos
def test_everything_on_dbos(url, tmp_path):
    path = tmp_path / "effects"
    first = ran("dbos", url, "run", "everything", "r", path)
    again = ran("dbos", url, "run", "everything", "r", path)
    assert first["steps"] == INTENTS
    assert first["status"] == "completed"
    assert again["result"] == first["result"]
    expected(first["result"])
    assert effects(path) == ["slow", "quick", "quick"]
    assert ran("dbos", url, "emit", "r", "ready") == {
        "accepted": False,
        "payload": {"n": 1},
    }
    assert ran("dbos", url, "emit", "unknown", "ready")["error"] == "UnknownTurn"
    other = ran("dbos", url, "run", "everything", "r", tmp_path / "another input")
    assert other["error"] == "InputMismatch"


@needs_dbos
def test_failing_once_on_dbos_runs_the_failed_step_again_alone(url, tmp_path):
    path = tmp_path / "effects"
    first = ran("dbos", url, "run", "fails_once", "r", path)
    assert (first["error"], first["message"]) == ("ValueError", "the first time")
    second = ran("dbos", url, "run", "fails_once", "r", path)
    assert second["result"] == [None, "good"]
    assert effects(path) == ["good", "bad", "bad"]


@needs_dbos
def test_a_process_that_is_killed_in_mid_step_is_recovered_by_dbos(url, tmp_path):
    path = tmp_path / "effects"
    with Process("dbos", url, "run", "sticks_once", "r", path) as first:
        first.until(path, "stick")
        first.kill()
    second = ran("dbos", url, "run", "sticks_once", "r", path)
    assert second["result"][0] == "went on"
    assert effects(path) == ["before", "stick", "stick", "after"]


@needs_dbos
def test_a_changed_task_diverges_on_dbos_too(url, tmp_path):
    path = tmp_path / "effects"
    with Process("dbos", url, "run", "sticks_once", "r", path) as first:
        first.until(path, "stick")
        first.kill()
    second = ran("dbos", url, "run", "changed", "r", path)
    assert second["error"] == "StepDivergence"
    assert effects(path) == ["before", "stick"]


def test_importing_the_durable_api_does_not_import_dbos():
    code = "import sys, pipeline.durable.runs; assert 'dbos' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
