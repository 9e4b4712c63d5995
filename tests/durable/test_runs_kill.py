"""Workers in processes of their own, killed and stopped: on SQLite, and nothing is lost."""

import random
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from .processes import Process, ran
from .run_process import EVENTS, LEASE_S
from .tasks import effects


@pytest.fixture
def place(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db", tmp_path / "effects"


def whole(url):
    """All that a database holds."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        return {
            name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}")))
            for name in names
        }


def after_lease(*arguments):
    """Run a worker as soon as the lease lets it."""
    gives_up = time.monotonic() + 20
    while (told := ran(*arguments)).get("error") == "LeaseHeld":
        assert time.monotonic() < gives_up
        time.sleep(0.05)
    return told


def test_a_worker_that_is_killed_in_mid_step_is_gone_on_from(place):
    url, path = place
    with Process("store", url, "run", "sticks_once", "r", path) as first:
        first.until(path, "stick")
        held = ran("store", url, "run", "sticks_once", "r", path)
        assert held["error"] == "LeaseHeld"
        first.kill()
    killed = time.monotonic()
    told = after_lease("store", url, "run", "sticks_once", "r", path)
    assert time.monotonic() - killed < LEASE_S + 3  # with the start of an interpreter
    assert told["result"][0] == "went on"
    assert told["attempts"] == [1, 1, 2, 1]
    assert effects(path) == ["before", "stick", "stick", "after"]
    again = ran("store", url, "run", "sticks_once", "r", path)
    assert again["result"] == told["result"]
    assert len(effects(path)) == 4


def test_a_worker_that_was_stopped_beyond_its_lease_writes_nothing_when_it_wakes(place):
    url, path = place
    with Process("store", url, "run", "dawdles", "r", path) as first:
        first.until(path, "inside")
        first.signal(signal.SIGSTOP)
        told = after_lease("store", url, "run", "dawdles", "r", path)
        assert told["result"] == "done"
        before = whole(url)
        first.signal(signal.SIGCONT)
        assert first.ended()[-1]["error"] == "LeaseLost"
    assert whole(url) == before
    assert effects(path) == ["dawdle", "inside", "dawdle", "after"]


def test_a_stopped_worker_writes_nothing_though_nobody_took_its_run(place):
    url, path = place
    with Process("store", url, "run", "dawdles", "r", path) as first:
        first.until(path, "inside")
        first.signal(signal.SIGSTOP)
        time.sleep(LEASE_S + 1)  # the lease is over and its step's sleep as well
        before = whole(url)
        first.signal(signal.SIGCONT)
        assert first.ended()[-1]["error"] == "LeaseLost"
    assert whole(url) == before
    assert "after" not in effects(path)


@pytest.mark.parametrize("seed", range(2))
def test_a_supervised_turn_survives_kills_in_mid_stream(place, seed):
    url, path = place
    chance = random.Random(seed)
    every = list(range(EVENTS))
    reached = 0
    for _ in range(4):
        reached = chance.randint(reached + 1, reached + EVENTS // 5)
        with Process("store", url, "turn", "r", path) as worker:
            said = worker.told_until(reached)
            worker.kill()
        # From the first on, none twice, none left out.
        assert said == every[: len(said)]
        assert len(said) == reached
        time.sleep(LEASE_S)
    with Process("store", url, "turn", "r", path) as worker:
        *told, last = worker.ended()
    assert last == {"mode": "resumed"}
    assert [line["at"] for line in told] == every
    assert effects(path) == ["started", *["attached"] * 4]
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        rows = connection.execute("SELECT event_id FROM turnpipe_log").fetchall()
    assert sorted(int(event_id) for (event_id,) in rows) == every
    *told, last = ran_whole("store", url, "turn", "r", path)
    assert last == {"mode": "replayed"}
    assert [line["at"] for line in told] == every


def ran_whole(*arguments):
    with Process(*arguments) as worker:
        return worker.ended()
