"""`turnpipe status, attach, tail, cancel`: a kept turn, from another process."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.durable import TurnHub
from pipeline.stores import RedisLog, SqlStore

from .worker import EXECUTION_ID, IDENTITY, Gate, chat, delta, logged

ROOT = Path(__file__).resolve().parents[2]


# What runs in the background is started with Ctrl-C ignored: a terminal's is not.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from pipeline.cli import main; main()"
)


def turnpipe(*arguments):
    return [sys.executable, "-c", START, *arguments]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def asked(*arguments):
    return subprocess.run(
        turnpipe(*arguments),
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "turns.db"

    async def run():
        source = Gate(*[delta(f"{k} ") for k in range(20)])
        source.all()
        async with TurnHub(SqlStore(f"sqlite:///{path}")) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            await turn.outcome()
            return b"".join([chunk async for chunk in turn.body()])

    return str(path), asyncio.run(run())


def test_status_tells_how_a_turn_stands(ended):
    path, _ = ended
    found = asked("status", EXECUTION_ID, "--db", path)
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["status"], told["cursor"]) == ("completed", 22)
    assert told["sessionId"] == "s-1"


def test_attach_prints_the_lines_after_a_cursor(ended):
    path, body = ended
    whole = asked("attach", EXECUTION_ID, "--db", path)
    assert (whole.returncode, whole.stdout) == (0, body)
    assert b"completed, 22 lines" in whole.stderr
    rest = asked("attach", EXECUTION_ID, "--db", f"sqlite:///{path}", "--after", "15")
    assert rest.stdout == b"".join(body.splitlines(keepends=True)[15:])


def test_tail_prints_the_last_lines(ended):
    path, body = ended
    found = asked("tail", EXECUTION_ID, "--db", path, "-n", "3")
    assert found.stdout == b"".join(body.splitlines(keepends=True)[-3:])


def test_what_is_not_there_is_said_in_one_line(ended, tmp_path):
    path, _ = ended
    for command in ("status", "attach", "tail", "cancel"):
        unknown = asked(command, "nobody", "--db", path)
        assert unknown.returncode == 1
        assert b"no turn has the execution id 'nobody'" in unknown.stderr
        assert unknown.stderr.count(b"\n") == 1
        missing = asked(command, "x", "--db", str(tmp_path / "none.db"))
        assert missing.returncode == 2
        assert b"there is no such file" in missing.stderr
    assert asked("cancel", EXECUTION_ID, "--db", path).returncode == 1
    wrong = asked("status", "x", "--db", "mysql://u:secret@h/n")
    assert wrong.returncode == 1
    assert b"secret" not in wrong.stderr


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with a log"])
def test_a_running_turn_is_followed_and_cancelled_from_another_process(
    tmp_path, request, beside
):
    path = tmp_path / "turns.db"
    url = request.getfixturevalue("valkey").url if beside else None
    kept = ("--db", str(path), *(("--log", url) if beside else ()))

    async def test():
        source = Gate(*[delta(f"{k} ") for k in range(20)])
        log = RedisLog(url) if beside else None
        async with TurnHub(SqlStore(f"sqlite:///{path}", log=log)) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            source.let(3)
            await logged(hub._store, 4)
            attached = await asyncio.create_subprocess_exec(
                *turnpipe("attach", EXECUTION_ID, *kept),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
            )
            for _ in range(4):
                await attached.stdout.readline()
            source.let()
            line = json.loads(await attached.stdout.readline())
            assert line["data"]["delta"] == "3 "
            cancel = await asyncio.create_subprocess_exec(
                *turnpipe("cancel", EXECUTION_ID, *kept, "--reason", "stop it"),
                env=environment(),
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await cancel.communicate()
            assert (cancel.returncode, b"is cancelled" in said) == (0, True)
            rest, _ = await attached.communicate()
            assert json.loads(rest.splitlines()[-1])["data"]["reason"] == "stop it"
            assert attached.returncode == 130
            assert (await turn.outcome()).reason == "stop it"

    asyncio.run(asyncio.wait_for(test(), 60))


def test_leaving_an_attached_turn_does_not_end_it(tmp_path):
    path = tmp_path / "turns.db"

    async def test():
        source = Gate(delta("a"))
        async with TurnHub(SqlStore(f"sqlite:///{path}")) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            attached = await asyncio.create_subprocess_exec(
                *turnpipe("attach", EXECUTION_ID, "--db", str(path)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
            )
            await attached.stdout.readline()
            attached.send_signal(2)
            _, said = await attached.communicate()
            assert attached.returncode == 130
            assert b"go on with --after 1" in said
            source.all()
            assert (await turn.outcome()).status == "completed"

    asyncio.run(asyncio.wait_for(test(), 60))
