"""Recordings replayed: what they hold, in their time, and what is wrong with them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from operators.errors import SourceError, SourceIncomplete, SourceProtocol, SourceStatus
from pipeline.sources import recorded
from tests.sources.helpers import (
    TRANSCRIPTS,
    events_until_failure,
    flat,
    reads_of,
    text_of,
)
from tests.sources.test_chat_stream import CHATS, folded


def replayed(path: Path, **more: Any) -> list[list[Any]]:
    return asyncio.run(reads_of(recorded(path, **more)))


def failure_of(path: Path) -> tuple[list[Any], Any]:
    return asyncio.run(events_until_failure(recorded(path)))


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
@pytest.mark.parametrize("name", CHATS)
def test_a_recorded_stream_gives_its_events_record_by_record(
    name: str, ending: bytes, tmp_path: Path
) -> None:
    data = (TRANSCRIPTS / f"{name}.sse").read_bytes()
    file = tmp_path / "again.txt"
    file.write_bytes(data.replace(b"\n", ending))
    reads = replayed(file)
    assert flat(reads) == folded(data)
    assert max(map(len, reads)) <= 2
    assert replayed(file) == reads


def test_a_recording_that_begins_with_pings_is_a_stream(tmp_path: Path) -> None:
    file = tmp_path / "x.sse"
    file.write_bytes(
        b"\xef\xbb\xbf: ping\n\n" + (TRANSCRIPTS / "json.sse").read_bytes()
    )
    assert flat(replayed(file)) == folded((TRANSCRIPTS / "json.sse").read_bytes())


TIMED = TRANSCRIPTS / "basic_usage.timed.jsonl"


def test_a_timed_recording_gives_the_same_events_and_its_latency() -> None:
    events = flat(replayed(TIMED))
    expected = folded((TRANSCRIPTS / "basic_usage.sse").read_bytes())
    assert events[-1]["data"].pop("latencyMs") == 1037
    assert events == expected


def test_speed_is_kept_and_none_never_waits() -> None:
    began = monotonic()
    replayed(TIMED)
    assert monotonic() - began < 0.5
    began = monotonic()
    replayed(TIMED, speed=2.0)
    assert 0.5 <= monotonic() - began < 0.8


def rows(path: Path, *rows: tuple[float, str]) -> Path:
    lines = [json.dumps({"t_ms": at, "line": line}) for at, line in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lines_of_one_moment_are_one_read(tmp_path: Path) -> None:
    one = 'data: {"choices":[{"delta":{"content":"%s"}}]}'
    file = rows(
        tmp_path / "t.timed.jsonl",
        (1, one % "a"), (1, ""), (1, one % "b"), (1, ""),
        (2, one % "c"), (2, ""), (3, "data: [DONE]"), (3, ""),
    )  # fmt: skip
    reads = replayed(file)
    assert [text_of(read) for read in reads] == ["ab", "c", ""]


def test_a_slow_reader_does_not_delay_what_comes_later() -> None:
    async def main() -> float:
        began = monotonic()
        async for _ in recorded(TIMED, speed=5.0)(None):  # type: ignore[arg-type]
            if monotonic() - began < 0.15:
                await asyncio.sleep(0.05)
        return monotonic() - began

    assert asyncio.run(main()) < 0.35


def test_recorded_events_are_given_as_they_are(tmp_path: Path) -> None:
    events = [
        {"type": "session.run.started", "data": {"sessionId": "s"}},
        {"type": "x", "data": {"n": 2**70, "half": "\ud83d"}, "more": 1},
        {"type": "session.run.completed", "data": {"sessionId": "s"}},
    ]
    file = tmp_path / "run.ndjson"
    file.write_text("\n\n".join(map(json.dumps, events)))
    assert replayed(file) == [[event] for event in events]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", SourceIncomplete, "is empty"),
        (b"\n \n", SourceIncomplete, "is empty"),
        (b"hello\n", SourceIncomplete, "ended after 0 records"),
        (b"data: hello\n\n", SourceProtocol, "record 1 of the recording x.jsonl"),
        (b'{"a": 1}\n', SourceProtocol, "line 1 of x.jsonl is not an event"),
        (b'{"type": 1}\n', SourceProtocol, "line 1 of x.jsonl is not an event"),
        (b'{"type": "a"}\n{oops}\n{"type": "b"}\n', SourceProtocol, "line 2 of x.jsonl"),
        (b'{"type": "a"}\n[1]\n{"type": "b"}\n', SourceProtocol, "is an array"),
        (b'{"type": "a"}\n\xff\n{}', SourceProtocol, "not UTF-8"),
        (b'{"type": "a"}\n{"ty', SourceIncomplete, "in the middle of line 2"),
        (b'{"ty', SourceProtocol, "line 1 of x.jsonl is not JSON"),
        (b'{"type": "session.run.started"}\n', SourceIncomplete, "but not ended"),
        (b'{"t_ms": 1, "line": "data: {}"}\n{"t_ms": "2", "line": ""}\n',
         SourceProtocol, "line 2 of x.jsonl is not a timed line"),
        (b'{"t_ms": 1, "line": "data: {\\"choices\\": []}"}\n',
         SourceIncomplete, "ended after 1 records"),
        (b'{"t_ms": 1, "line": "data: \\ud83d"}\n', SourceProtocol, "not UTF-8"),
        (b'{"error": {"code": 404, "message": "no"}}', SourceStatus, "an error: no"),
        (b'{"error": "no"}', SourceStatus, "an error: no"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_recording_is_told(
    content: bytes, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(content)
    _, failure = failure_of(file)
    assert isinstance(failure, kind)
    assert said in str(failure)


def test_a_recording_of_a_killed_server_is_incomplete_after_its_events() -> None:
    events, failure = failure_of(TRANSCRIPTS / "truncated_server_killed.sse")
    assert isinstance(failure, SourceIncomplete)
    assert "the recording truncated_server_killed.sse ended after 210" in str(failure)
    assert len(events) == 209


@pytest.mark.parametrize(("name", "status"), [("bad", 400), ("overflow", 400)])
def test_a_recorded_refusal_is_one(name: str, status: int) -> None:
    _, failure = failure_of(TRANSCRIPTS / f"{name}.sse")
    assert isinstance(failure, SourceStatus)
    assert failure.status == status


@pytest.mark.parametrize("name", ["anthropic_messages", "responses_api"])
def test_another_protocol_is_told(name: str) -> None:
    _, failure = failure_of(TRANSCRIPTS / f"{name}.sse")
    assert isinstance(failure, SourceProtocol)


def test_a_failure_comes_after_the_events_of_its_read(tmp_path: Path) -> None:
    one = 'data: {"choices":[{"delta":{"content":"a"}}]}'
    file = rows(tmp_path / "t.jsonl", (1, one), (1, "data: oops"), (1, one))
    events, failure = failure_of(file)
    assert text_of(events) == "a"
    assert isinstance(failure, SourceProtocol)


def test_a_missing_file_is_told_when_the_turn_runs(tmp_path: Path) -> None:
    _, failure = failure_of(tmp_path / "none.sse")
    assert type(failure) is SourceError
    assert failure.code == "source.recording"
    assert "none.sse cannot be read: No such file" in str(failure)
    _, failure = failure_of(tmp_path)
    assert "Is a directory" in str(failure)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_speed_that_cannot_be_is_refused_at_once(speed: Any) -> None:
    with pytest.raises(ValueError, match="speed="):
        recorded("x.sse", speed=speed)
