"""A recording replays what it recorded, read by read."""

import json
from contextlib import aclosing
from pathlib import Path

import pytest

import operators as ops
from operators.errors import SourceError, SourceIncomplete, SourceProtocol
from pipeline import Pipeline, TurnIdentity
from pipeline.testing import loop_clock, record, replayed, run_virtual, scripted

IDENTITY = TurnIdentity(session_id="s", turn_index=0)
READS = [{"type": "a"}, [{"type": "b"}, {"type": "c", "data": {"x": "\u2028é"}}]]
TIMED = Path(__file__).parents[1] / "data" / "transcripts" / "basic_usage.timed.jsonl"


async def read(source):
    """Read a source as the pipeline would; give what came, and when."""
    async with aclosing(source(None)) as stream:
        return [(round(loop_clock(), 3), item) async for item in stream]


def recording(path, **script):
    async def main():
        pipeline = Pipeline(scripted(READS, **script)) | record(path) | ops.lifecycle()
        run = pipeline.start(IDENTITY, clock=loop_clock)
        events = [event async for event in run.events()]
        await run.outcome()
        return events

    return run_virtual(main())


def test_reads_come_back_as_they_were(tmp_path):
    path = tmp_path / "turn.jsonl"
    events = recording(path, delays=[0.5, 1.0])
    assert [event["type"] for event in events[1:-1]] == ["a", "b", "c"]
    assert [item for _, item in run_virtual(read(replayed(path)))] == READS


@pytest.mark.parametrize(
    ("speed", "times"), [(1.0, [0.5, 1.5]), (2, [0.25, 0.75]), (None, [0, 0])]
)
def test_times_come_back_at_their_speed(tmp_path, speed, times):
    path = tmp_path / "turn.jsonl"
    recording(path, delays=[0.5, 1.0])
    got = run_virtual(read(replayed(path, speed=speed)))
    assert [at for at, _ in got] == times


def test_a_stream_that_failed_replays_as_cut(tmp_path):
    path = tmp_path / "turn.jsonl"
    recording(path, errors={1: OSError("gone")})
    with pytest.raises(SourceIncomplete, match="was cut"):
        run_virtual(read(replayed(path)))


def test_a_recording_without_its_last_line_is_cut(tmp_path):
    path = tmp_path / "turn.jsonl"
    recording(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(SourceIncomplete, match="no last line"):
        run_virtual(read(replayed(path)))


def test_a_line_that_is_none_is_told_with_its_number(tmp_path):
    path = tmp_path / "turn.jsonl"
    path.write_text(json.dumps({"t_ms": 1, "read": {}}) + '\n{"x": 1}\n')
    with pytest.raises(SourceProtocol, match=r"line 2 of turn\.jsonl"):
        run_virtual(read(replayed(path)))


def test_other_recordings_are_read_as_well():
    got = run_virtual(read(replayed(TIMED)))
    text = "".join(
        event["data"].get("delta", "")
        for _, read_ in got
        for event in read_
        if event["type"] == "message.part.updated"
    )
    assert text


def test_no_file_and_no_speed_are_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        run_virtual(read(replayed(tmp_path / "none.jsonl")))
    with pytest.raises(ValueError, match="speed=0"):
        replayed(tmp_path / "none.jsonl", speed=0)


def test_a_reader_that_leaves_closes_the_source_and_the_file(tmp_path):
    path = tmp_path / "turn.jsonl"
    source = scripted(READS, hang=1)

    async def main():
        run = (Pipeline(source) | record(path) | ops.lifecycle()).start(IDENTITY)
        body = run.events()
        await anext(body)
        await anext(body)
        await body.aclose()
        return await run.outcome()

    assert run_virtual(main()).status == "cancelled"
    assert (source.opened, source.closed) == (1, 1)
    assert json.loads(path.read_text().splitlines()[-1])["end"] == "cut"
