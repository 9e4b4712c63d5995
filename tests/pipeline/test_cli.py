"""The command, driven as a person or a script drives it: as a process of its own."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()"]
ANSWER = "The sea is blue."
PATIENCE = 30.0
"""Seconds after which a command that hangs is ended, and its test with it."""


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "tiny",
        "choices": [choice],
    }


CHUNKS: list[dict[str, Any]] = [
    chunk({"role": "assistant", "content": None}),
    *(chunk({"content": word}) for word in ("The ", "sea ", "is ", "blue.")),
    chunk({}, finish_reason="stop"),
    {
        **chunk({}),
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11},
    },
]
LINES = [*(f"data: {json.dumps(c)}" for c in CHUNKS), "data: [DONE]"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A whole answer, to be had at once."""
    path = tmp_path / "answer.sse"
    path.write_text("".join(f"{line}\n\n" for line in LINES))
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """An answer whose third word comes after an hour."""
    times = [0, 1, 2, 3_600_000, 3_600_000, 3_600_001, 3_600_002, 3_600_003]
    path = tmp_path / "slow.timed.jsonl"
    path.write_text(
        "".join(
            f"{json.dumps({'t_ms': t, 'line': line})}\n"
            for t, line in zip(times, LINES, strict=True)
        )
    )
    return path


class Home(NamedTuple):
    """Where one test's command keeps its things."""

    path: Path
    env: dict[str, str]

    @property
    def db(self) -> Path:
        return self.path / "turnpipe" / "turns.db"

    def rows(self) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(self.db)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM messages")]

    def spans(self) -> list[dict[str, Any]]:
        lines = self.db.with_suffix(".traces.jsonl").read_bytes().split(b"\n")
        assert lines.pop() == b""
        spans: list[dict[str, Any]] = []
        for line in lines:
            for resource in json.loads(line)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    spans += scope["spans"]
        return spans

    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, args)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=self.env,
            cwd=ROOT,
            timeout=PATIENCE,
            check=False,
        )

    @contextlib.contextmanager
    def started(
        self, *args: str | Path, **more: Any
    ) -> Iterator[subprocess.Popen[Any]]:
        with subprocess.Popen(
            [*COMMAND, *map(str, args)],
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "env": self.env,
                "cwd": ROOT,
                **more,
            },
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    path = tmp_path / "data"
    return Home(path, {**kept, "XDG_DATA_HOME": str(path), "COLUMNS": "200"})


def types(out: str | bytes) -> list[str]:
    return [json.loads(line)["type"] for line in out.splitlines()]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}


def test_piped_it_prints_ndjson_and_nothing_else(home: Home, recording: Path) -> None:
    done = home.run("run", "Why?", "--source", recording)
    assert done.returncode == 0, done.stderr
    kinds = types(done.stdout)
    assert kinds[0] == "session.run.started"
    assert kinds[-1] == "session.run.completed"
    assert kinds.count("session.run.completed") == 1
    deltas = [
        event["data"]["delta"]
        for event in map(json.loads, done.stdout.splitlines())
        if event["type"] == "message.part.updated" and event["data"].get("delta")
    ]
    assert "".join(deltas) == ANSWER


def test_the_message_is_stored_and_told_where(home: Home, recording: Path) -> None:
    done = home.run("run", "Why?", "--source", recording, "--session", "s:1")
    assert [
        (
            row["execution_id"],
            row["session_id"],
            row["turn_index"],
            row["status"],
            row["question"],
            row["text"],
            json.loads(row["usage"])["output_tokens"],
            [part["text"] for part in json.loads(row["parts"])],
        )
        for row in home.rows()
    ] == [("local:s%3A1:0", "s:1", 0, "completed", "Why?", ANSWER, 4, [ANSWER])]
    assert f"{home.db} (local:s%3A1:0)" in done.stderr
    assert "completed" in done.stderr
    assert "7 tokens in, 4 out" in done.stderr


def test_a_session_goes_on_with_the_next_turn(home: Home, recording: Path) -> None:
    for _ in range(2):
        home.run("run", "--source", recording, "--session", "s")
    home.run("run", "--source", recording)
    rows = home.rows()
    assert [row["turn_index"] for row in rows] == [0, 1, 0]
    assert rows[2]["session_id"] != "s"


def test_quiet_says_nothing_besides_the_output(home: Home, recording: Path) -> None:
    assert home.run("run", "--source", recording, "--quiet").stderr == ""


def test_the_trace_is_one_ended_span_in_otlp_json(home: Home, recording: Path) -> None:
    home.run("run", "--source", recording, "--session", "s", "--model", "asked")
    (span,) = home.spans()
    assert span["name"] == "chat tiny"
    assert span["kind"] == 3
    assert len(span["traceId"]) == 32
    assert len(span["spanId"]) == 16
    assert int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"])
    assert span["status"]["code"] == 0
    told = attributes(span)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.conversation.id"] == "s"
    assert told["gen_ai.request.model"] == "asked"
    assert told["gen_ai.response.model"] == "tiny"
    assert told["gen_ai.usage.input_tokens"] == "7"
    assert told["gen_ai.usage.output_tokens"] == "4"
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    assert told["turnpipe.status"] == "completed"
    assert "error.type" not in told


def test_the_trace_file_is_what_otlp_readers_read(home: Home, recording: Path) -> None:
    from google.protobuf.json_format import Parse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    home.run("run", "--source", recording)
    line = home.db.with_suffix(".traces.jsonl").read_text().rstrip("\n")
    read = Parse(line, ExportTraceServiceRequest())
    resource = read.resource_spans[0].resource.attributes
    told = {attribute.key: attribute.value.string_value for attribute in resource}
    assert told["service.name"] == "turnpipe"
    assert read.resource_spans[0].scope_spans[0].spans[0].kind == 3


class Collector(http.server.BaseHTTPRequestHandler):
    """What an OTLP server is to the command: it keeps what it was sent."""

    sent: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        self.sent.append((self.path, self.rfile.read(size)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_the_trace_goes_to_the_server_of_the_environment(
    home: Home, recording: Path
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        address = f"http://127.0.0.1:{server.server_port}"
        home.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
        done = home.run("run", "--source", recording)
        server.shutdown()
        serving.join()
    ((path, body),) = Collector.sent
    read = ExportTraceServiceRequest.FromString(body)
    assert path == "/v1/traces"
    assert read.resource_spans[0].scope_spans[0].spans[0].name == "chat tiny"
    assert address in done.stderr


def test_a_trace_server_that_is_not_there_is_told_and_fails_nothing(
    home: Home, recording: Path
) -> None:
    home.env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = "http://127.0.0.1:9/v1/traces"
    home.env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "0.2"
    done = home.run("run", "--source", recording)
    assert done.returncode == 0
    assert "not delivered to http://127.0.0.1:9/v1/traces" in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_the_text_wire_prints_the_text_alone(home: Home, recording: Path) -> None:
    done = home.run("run", "--source", recording, "--wire", "text")
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")


def test_files_may_lie_elsewhere(home: Home, recording: Path, tmp_path: Path) -> None:
    db, trace = tmp_path / "a" / "x.db", tmp_path / "b" / "x.jsonl"
    done = home.run("run", "--source", recording, "--db", db, "--trace", trace)
    assert done.returncode == 0
    assert db.stat().st_size
    assert trace.stat().st_size
    assert not home.path.exists()


def test_a_cut_recording_fails_and_keeps_what_came(home: Home, tmp_path: Path) -> None:
    cut = tmp_path / "cut.sse"
    cut.write_text("".join(f"{line}\n\n" for line in LINES[:3]))
    done = home.run("run", "--source", cut)
    assert done.returncode == 1
    assert types(done.stdout)[-2:] == ["error", "session.run.failed"]
    assert [line for line in done.stderr.splitlines() if "source.incomplete" in line]
    assert "Traceback" not in done.stderr
    (row,) = home.rows()
    assert (row["status"], row["text"]) == ("failed", "The sea")
    (span,) = home.spans()
    assert attributes(span)["error.type"] == "source.incomplete"
    assert span["status"]["code"] == 2


def test_a_failure_that_the_source_reports_is_one_clear_line(
    home: Home, tmp_path: Path
) -> None:
    told = tmp_path / "told.ndjson"
    told.write_text('{"type":"error","data":{"message":"no more\\ncredit"}}\n')
    done = home.run("run", "--source", told, "--wire", "text", "--quiet")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("turnpipe: failed")
    assert line.endswith(": no more credit")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "--source", "nowhere.sse"], "--source nowhere.sse: there is no such"),
        (["run", "--source", "http://", "--model", "m"], "--source http://: "),
        (["run", "--source", "LICENSE", "--speed", "-1"], "--source LICENSE: speed=-1"),
        (["run", "--wire", "morse"], "morse"),
        (["graph", "examples.seven_stages"], "is not MODULE:NAME"),
        (["graph", "examples.nowhere:chat"], "cannot import examples.nowhere"),
        (["explain", "examples.seven_stages:x"], "x in examples.seven_stages is"),
        (["explain", "examples.seven_stages:seen"], "a list, not a Pipeline; there"),
        (["graph", "examples.seven_stages:chat", "--format", "png"], "png"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(
    home: Home, args: list[str], message: str
) -> None:
    done = home.run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_one_clear_line(home: Home) -> None:
    done = home.run("run", "--source", "http://127.0.0.1:9/v1")
    assert done.returncode == 1
    assert types(done.stdout)[-1] == "session.run.failed"
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("turnpipe: failed")]
    assert "source.unreachable" in line
    assert "Traceback" not in done.stderr
    told = attributes(home.spans()[0])
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", "9")


def test_a_folder_that_cannot_be_written_is_told(home: Home, recording: Path) -> None:
    done = home.run("run", "--source", recording, "--db", "/dev/null/x.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot keep messages in /dev/null/x.db" in done.stderr
    done = home.run("run", "--source", recording, "--trace", "/dev/null/x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot write the trace to /dev/null/x" in done.stderr


def read_until(stream: Any, found: Callable[[bytes], bool]) -> bytes:
    got = b""
    while not found(got):
        ready, _, _ = select.select([stream], [], [], PATIENCE)
        assert ready, got
        piece = os.read(stream.fileno(), 65536)
        assert piece, got
        got += piece
    return got


def test_an_interrupt_cancels_the_turn_and_keeps_what_came(
    home: Home, slow: Path
) -> None:
    with home.started("run", "--source", slow) as process:
        got = read_until(process.stdout, lambda got: b'"sea ' in got)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    last = json.loads((got + out).splitlines()[-1])
    assert last["type"] == "session.run.cancelled"
    assert last["data"]["reason"] == "interrupted"
    assert b"Traceback" not in err
    (row,) = home.rows()
    assert (row["status"], row["text"]) == ("cancelled", "The sea")
    assert attributes(home.spans()[0])["turnpipe.status"] == "cancelled"


def test_a_second_interrupt_leaves_at_once(
    home: Home, slow: Path, tmp_path: Path
) -> None:
    with home.started("run", "--source", slow) as process:
        read_until(process.stdout, lambda got: b'"sea ' in got)
        with contextlib.closing(sqlite3.connect(home.db, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")  # so that saving waits
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=5.0) == 130


def test_a_reader_that_leaves_ends_the_turn(home: Home, slow: Path) -> None:
    """As `turnpipe run | head -1` does, but sooner than the next event."""
    with home.started("run", "--source", slow, "--speed", "10000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read() if process.stderr else b""
        assert process.wait(timeout=PATIENCE) == 130
    assert err == b""
    assert home.rows()[0]["status"] == "cancelled"


def test_an_output_that_cannot_be_written_is_told(home: Home, recording: Path) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        home.started("run", "--source", recording, stdout=full) as process,
    ):
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert b"cannot write the output" in err


def on_a_terminal(home: Home, *args: str | Path) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    with home.started(*args, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        got = b""
        with contextlib.suppress(OSError):  # the terminal is gone with its process
            while piece := os.read(ours, 65536):
                got += piece
        os.close(ours)
        return process.wait(timeout=PATIENCE), got.decode()


def test_a_terminal_shows_the_text_then_how_it_went(
    home: Home, recording: Path
) -> None:
    code, shown = on_a_terminal(home, "run", "--source", recording)
    assert code == 0
    text, _, rest = shown.partition("\r\n")
    assert text == ANSWER
    for fact in ("completed", "first token after", "7 tokens in, 4 out", "message"):
        assert fact in rest
    assert str(home.db) in rest.replace("\r\n", "").replace(" ", "")
    assert "{" not in shown


def test_a_model_cannot_steer_the_terminal(home: Home, tmp_path: Path) -> None:
    evil = tmp_path / "evil.sse"
    texts = ("a\x1b]0;x\x07", "b\x9b2J")
    lines = [f"data: {json.dumps(chunk({'content': text}))}" for text in texts]
    evil.write_text("".join(f"{line}\n\n" for line in (*lines, *LINES[-3:])))
    _, shown = on_a_terminal(home, "run", "--source", evil)
    assert shown.startswith("a]0;xb2J\r\n")


@pytest.mark.parametrize(
    ("format_", "mark"),
    [("mermaid", "flowchart"), ("dot", "digraph"), ("ascii", "tap"), ("svg", "<svg")],
)
def test_a_pipeline_is_drawn(home: Home, format_: str, mark: str) -> None:
    done = home.run("graph", "examples.seven_stages:chat", "--format", format_)
    assert done.returncode == 0, done.stderr
    assert mark in done.stdout
    for name in ("lifecycle", "broadcast", "accumulate", "strip_ssn", "save_message"):
        assert name in done.stdout


def test_a_plan_is_explained(home: Home) -> None:
    done = home.run("explain", "examples.seven_stages:chat")
    assert done.returncode == 0, done.stderr
    assert "lifecycle" in done.stdout


def test_the_example_runs_and_stores_what_the_transform_made() -> None:
    done = subprocess.run(
        [sys.executable, "examples/seven_stages.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE,
        check=True,
    )
    assert types(done.stdout)[-1] == "session.run.completed"
    assert "078-05-1120" in done.stdout
    assert "[redacted]" in done.stderr
    assert "078-05-1120" not in done.stderr


def test_without_the_cli_extra_the_mend_is_told(home: Home) -> None:
    hide = "import sys; sys.modules['typer'] = None; sys.modules['rich'] = None; "
    done = subprocess.run(
        [sys.executable, "-c", hide + "from pipeline.cli import main; main()"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'turnpipe[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
