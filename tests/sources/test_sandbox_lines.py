"""The splitter of an agent's stream: server-sent events, and what is sent instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.errors import SourceProtocol
from pipeline.sources.sandbox_lines import Line, LineSplitter
from pipeline.sources.sse import Splitter
from tests.sources.helpers import TRANSCRIPTS
from tests.sources.test_sse import CASES, ENDINGS, one_by_one

FILES = [
    file
    for file in sorted(TRANSCRIPTS.glob("*.sse"))
    if not file.read_bytes().startswith(b"{")  # a body of JSON, not a stream
]

# Each of them: what is sent, and the records in it.
LINES = {
    "JSON lines": (b'{"a":1}\n{"b":2}\n', [Line(b'{"a":1}'), Line(b'{"b":2}')]),
    "JSON lines, parted by empty ones": (
        b'{"a":1}\n\n{"b":2}\n\n',
        [Line(b'{"a":1}'), Line(b'{"b":2}')],
    ),
    "a last line without an end": (
        b'{"a":1}\n{"b":2}',
        [Line(b'{"a":1}'), Line(b'{"b":2}')],
    ),
    "only a line, without an end": (b'{"a":1}', [Line(b'{"a":1}')]),
    "a last line that is cut": (b'{"a":1}\n{"b":', [Line(b'{"a":1}')]),
    "data lines without empty lines": (
        b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n',
        [Line(b'{"a":1}'), Line(b'{"b":2}'), Line(b"[DONE]")],
    ),
    "data lines without empty lines, the last one cut": (
        b'data: {"a":1}\ndata: {"b":2}\ndata: {"c"',
        [Line(b'{"a":1}'), Line(b'{"b":2}')],
    ),
    "data lines and lines": (
        b'data: {"a":1}\n{"b":2}\ndata: {"c":3}\n',
        [Line(b'{"a":1}'), Line(b'{"b":2}'), Line(b'{"c":3}')],
    ),
    "ids before data lines": (
        b'{"a":1}\nid: 2\ndata: {"b":2}\nid: 3\ndata: {"c":3}\n',
        [Line(b'{"a":1}'), Line(b'{"b":2}', id="2"), Line(b'{"c":3}', id="3")],
    ),
    "the mark alone": (b'{"a":1}\n[DONE]\n', [Line(b'{"a":1}'), Line(b"[DONE]")]),
    "comments between lines": (
        b': hi\n{"a":1}\n: ping\n{"b":2}\n',
        [Line(b'{"a":1}'), Line(b'{"b":2}')],
    ),
    "an object over several data lines": (
        b'data: {\ndata: "a": {\ndata: }}\n\n',
        [Line(b'{\n"a": {\n}}')],
    ),
    "an id of one's own": (
        b"id: 7\ndata: a\n\ndata: b\n\n",
        [Line(b"a", id="7"), Line(b"b")],
    ),
    "an id after its data": (b"data: a\nid: 7\n\n", [Line(b"a", id="7")]),
    "an id alone": (b"id: 7\n\ndata: b\n\n", [Line(None, id="7"), Line(b"b")]),
    "an id that is taken back": (b"id\ndata: a\n\n", [Line(b"a", id="")]),
    "an id with NUL": (b"id: 7\0\ndata: a\n\n", [Line(b"a")]),
    "an event that is cut": (b'data: {"a":1}\n', []),
}  # fmt: skip


def split(*chunks: bytes, lines: bool = False) -> list[Line]:
    splitter = LineSplitter(lines=lines)
    records = [record for chunk in chunks for record in splitter.feed(chunk)]
    return records + splitter.eof()[0]


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("case", LINES)
def test_what_agents_send_is_split(case: str, ending: bytes) -> None:
    sent, expected = LINES[case]
    sent = sent.replace(b"\n", ending)
    assert split(sent) == expected
    assert split(*one_by_one(sent)) == expected


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("case", CASES)
def test_server_sent_events_are_those_of_the_standard(case: str, ending: bytes) -> None:
    sent, expected = CASES[case]
    sent = sent.replace(b"\n", ending)
    told = [(record.data, record.name) for record in expected]
    for chunks in ([sent], one_by_one(sent)):
        found = [line for line in split(*chunks) if line.data is not None]
        assert [(line.data, line.name or "message") for line in found] == told


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recorded_streams_are_split_as_the_other_splitter_does(file: Path) -> None:
    data = file.read_bytes()
    splitter = Splitter()
    expected = [record.data for record in splitter.feed(data)]
    assert [line.data for line in split(data)] == expected
    assert [line.data for line in split(*one_by_one(data))] == expected


@given(
    st.lists(st.sampled_from([*(sent for sent, _ in LINES.values())]), max_size=4),
    st.data(),
)
def test_however_it_is_cut_the_records_are_the_same(
    pieces: list[bytes], data: st.DataObject
) -> None:
    sent = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    chunks = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert split(*chunks) == split(sent)


def test_with_lines_every_line_is_a_record_for_whoever_decodes_it() -> None:
    sent = b'oops\n{"a":1}\n[1]\n: no\ndata: {"b":2}\n\n'
    records = [Line(b"oops"), Line(b'{"a":1}'), Line(b"[1]"), Line(b'{"b":2}')]
    assert split(sent, lines=True) == records
    assert split(*one_by_one(sent), lines=True) == records
    assert split(sent) == [records[1], records[3]]


def test_the_reconnection_time_is_kept() -> None:
    splitter = LineSplitter()
    splitter.feed(b"retry: 250\n\nretry: soon\n\nretry: -1\n\n")
    assert splitter.retry == 250


def test_what_is_cut_is_given_at_the_end() -> None:
    splitter = LineSplitter()
    splitter.feed(b'data: {"a":1}\nda')
    assert splitter.eof() == ([], b'{"a":1}\nda')


@pytest.mark.parametrize(
    "long",
    [
        b"data: " + b"x" * 50 + b"\n\n",
        b'{"a":"' + b"x" * 50 + b'"}\n',
        b"data: x\n" * 9,
    ],
)
def test_a_record_longer_than_the_limit_is_refused_after_those_before_it(
    long: bytes,
) -> None:
    short = b'data: {"a":1}\n\n'
    for chunks in ([short * 9 + long], [short * 9, long], one_by_one(short * 9 + long)):
        splitter = LineSplitter(limit_bytes=40)
        found: list[Line] = []
        with pytest.raises(SourceProtocol, match="longer than 40 bytes"):
            for chunk in [*chunks, b""]:
                found += splitter.feed(chunk)
        assert found == [Line(b'{"a":1}')] * 9
        with pytest.raises(SourceProtocol):
            splitter.eof()


def test_pings_are_never_too_long() -> None:
    splitter = LineSplitter(limit_bytes=40)
    for _ in range(100):
        assert splitter.feed(b": ping ping\n") == []
    assert splitter.feed(b"data: a\n\n") == [Line(b"a")]
