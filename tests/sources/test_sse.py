"""The splitter against the rules of the standard, without a socket."""

from __future__ import annotations

import re
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import SourceProtocol
from pipeline.sources.sse import Record, Splitter
from tests.sources.helpers import TRANSCRIPTS

FILES = sorted(TRANSCRIPTS.glob("*.sse"))
ENDINGS = {"lf": b"\n", "cr": b"\r", "crlf": b"\r\n"}

# Each of them: what is sent, and what the standard says is dispatched.
CASES = {
    "a data line": (b"data: a\n\n", [Record(b"a")]),
    "no space after the colon": (b"data:a\n\n", [Record(b"a")]),
    "one space is taken off, no more": (b"data:  a\n\n", [Record(b" a")]),
    "several data lines": (b"data: a\ndata: b\n\n", [Record(b"a\nb")]),
    "empty data": (b"data\n\ndata:\n\n", [Record(b""), Record(b"")]),
    "two empty data lines": (b"data\ndata\n\n", [Record(b"\n")]),
    "a comment": (b": ping\n\ndata: a\n\n", [Record(b"a")]),
    "a comment inside": (b"data: a\n: ping\ndata: b\n\n", [Record(b"a\nb")]),
    "a name": (b"event: delta\ndata: a\n\ndata: b\n\n",
               [Record(b"a", "delta"), Record(b"b")]),
    "a name without data": (b"event: x\n\ndata: b\n\n", [Record(b"b")]),
    "an id that stays": (b"id: 7\ndata: a\n\ndata: b\n\n",
                         [Record(b"a", id="7"), Record(b"b", id="7")]),
    "an id without data": (b"id: 7\n\ndata: b\n\n", [Record(b"b", id="7")]),
    "an id with NUL": (b"id: 7\0\ndata: a\n\n", [Record(b"a")]),
    "an unknown field": (b"what: x\ndata: a\nwhatever\n\n", [Record(b"a")]),
    "more empty lines": (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [Record(b"a"), Record(b"b")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [Record(b"a")]),
    "only one byte order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
                                 [Record(b"b")]),
    "what ends no line": ("data: a\u2028b\u0085c\fd\x0be\n\n".encode(),
                          [Record("a\u2028b\u0085c\fd\x0be".encode())]),
    "no end": (b"data: a\n\ndata: b\n", [Record(b"a")]),
}  # fmt: skip


def split(*chunks: bytes) -> list[Record]:
    splitter = Splitter()
    records = [record for chunk in chunks for record in splitter.feed(chunk)]
    splitter.eof()
    return records


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("case", CASES)
def test_the_standard_is_kept_however_it_is_cut(case: str, ending: bytes) -> None:
    data, records = CASES[case]
    sent = data.replace(b"\n", ending)
    assert split(sent) == records
    assert split(*one_by_one(sent)) == records
    for at in range(len(sent) + 1):
        assert split(sent[:at], sent[at:]) == records, at
        assert split(sent[:at], b"", sent[at:]) == records, at


def test_mixed_line_ends_are_line_ends() -> None:
    sent = b"data: a\rdata: b\r\ndata: c\n\r\ndata: d\r\r\ndata: e\n\r"
    records = [Record(b"a\nb\nc"), Record(b"d"), Record(b"e")]
    assert split(sent) == records
    assert split(*one_by_one(sent)) == records


def test_a_cr_dispatches_at_once_and_its_lf_is_no_empty_line() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: a\r\n\r") == [Record(b"a")]
    assert splitter.feed(b"\ndata: b\r") == []
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"\r\n") == [Record(b"b")]


def test_retry_is_kept_when_it_is_a_number() -> None:
    splitter = Splitter()
    splitter.feed(b"retry: 1500\n\n")
    assert splitter.retry == 1500
    splitter.feed(b"retry: soon\nretry:\nretry: -1\nretry: " + b"9" * 5000 + b"\n\n")
    assert splitter.retry == 1500


def test_what_is_left_at_the_end_is_told_and_discarded() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: a\n\n\ndata: [DONE]\n") == [Record(b"a")]
    assert splitter.eof() == b"data: [DONE]\n"
    assert splitter.eof() == b""
    half = Splitter()
    half.feed(b"\xef\xbb")
    assert half.eof() == b"\xef\xbb"


def test_a_record_beyond_the_limit_is_refused_before_it_is_whole() -> None:
    splitter = Splitter(limit_bytes=100)
    assert splitter.feed(b"data: " + b"x" * 94) == []
    with pytest.raises(SourceProtocol, match="longer than 100 bytes"):
        splitter.feed(b"x")
    with pytest.raises(SourceProtocol):
        splitter.feed(b"\n\n")
    with pytest.raises(SourceProtocol):
        splitter.eof()


def test_records_before_one_beyond_the_limit_are_given() -> None:
    long = b"data: " + b"x" * 200 + b"\n\n"
    splitter = Splitter(limit_bytes=100)
    assert splitter.feed(b"data: a\n\n" + long) == [Record(b"a")]
    with pytest.raises(SourceProtocol):
        splitter.feed(b"data: b\n\n")
    with pytest.raises(SourceProtocol):
        Splitter(limit_bytes=100).feed(long)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_cut_anywhere_has_the_same_records(path, ending: bytes) -> None:
    data = path.read_bytes().replace(b"\n", ending)
    whole = split(data)
    # a splitter between two records is as new: a cut needs only its surroundings
    blocks = [block + ending * 2 for block in data.split(ending * 2)]
    for at in range(len(blocks)):
        around = b"".join(blocks[at : at + 2])
        there = split(around)
        assert there == whole[at : at + len(there)]
        for cut in range(len(around)):
            assert split(around[:cut], around[cut:]) == there


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_byte_by_byte_has_the_same_records(path, ending: bytes) -> None:
    data = path.read_bytes()
    assert split(*one_by_one(data.replace(b"\n", ending))) == split(data)


def by_the_book(data: bytes) -> list[Record]:
    """Do what the standard says, in its words, line by line."""
    records: list[Record] = []
    lines = re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))[:-1]
    values: list[bytes] = []
    name, last_id = "", ""
    for line in lines:
        if not line:
            if values:
                records.append(Record(b"\n".join(values), name or "message", last_id))
            values, name = [], ""
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field == b"data":
            values.append(value)
        elif field == b"event":
            name = value.decode()
        elif field == b"id" and b"\0" not in value:
            last_id = value.decode()
    return records


pieces = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"data", b"data: ", b":", b" ", b"a", b"id: 1", b"event: e",
     b"\xef\xbb\xbf", b"\n\n", "\u2028".encode(), b"\0", b"retry: 5"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=30).map(b"".join), st.data())
def test_any_bytes_cut_anyhow_are_split_by_the_book(data: bytes, draw) -> None:
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=6).map(sorted))
    bounds = [0, *cuts, len(data)]
    chunks = [data[a:b] for a, b in pairwise(bounds)]
    assert split(*chunks) == by_the_book(data)


def test_a_long_record_in_small_pieces_takes_linear_time() -> None:
    splitter = Splitter()
    began = process_time()
    splitter.feed(b"data: ")
    for _ in range(400_000):
        splitter.feed(b"0123456789")
    assert [len(record.data) for record in splitter.feed(b"\n\n")] == [4_000_000]
    assert process_time() - began < 5  # joined each time, it would be minutes
