"""NDJSON: what goes out is one line an event, what comes back is the event."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import InvalidEvent
from pipeline.wire import (
    NDJSON,
    Lines,
    decode,
    encode,
    encode_many,
    encode_slow,
    wire_named,
)
from pipeline.wire.ndjson import MAX_DEPTH

text = st.text(st.characters(exclude_categories=["Cs"]))
any_text = st.text(st.characters(exclude_categories=[]))
floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | floats | text
int64 = st.integers(-(2**63), 2**64 - 1)


def json_values(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner) | st.dictionaries(text, inner),
        max_leaves=8,
    )


def events(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(text, json_values(leaf), max_size=5)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@given(events(leaves | st.integers()))
def test_what_is_encoded_decodes_to_itself(event: dict[str, Any]) -> None:
    assert decode(encode(event)) == event


@given(any_text)
def test_lone_surrogates_come_back_and_pairs_are_joined(value: str) -> None:
    line = encode({value: value})
    line.decode()  # valid UTF-8, always
    joined = value.encode("utf-16-le", "surrogatepass").decode(
        "utf-16-le", "surrogatepass"
    )
    assert decode(line) == {joined: joined}


@given(events(leaves | int64 | st.sampled_from([float("nan"), float("inf")])))
def test_the_slow_path_writes_the_bytes_of_the_fast_one(event: dict[str, Any]) -> None:
    assert encode_slow(event) == orjson.dumps(event) + b"\n" == encode(event)


@given(st.lists(events(leaves | st.integers()), max_size=4))
def test_a_batch_is_its_events_in_a_row(batch: list[dict[str, Any]]) -> None:
    singles = b"".join(encode(event) for event in batch)
    assert encode_many(batch) == singles == NDJSON.encode_many(batch)


@settings(max_examples=50)
@given(st.text("\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e\r\nx"))
def test_no_text_splits_a_line(value: str) -> None:
    line = encode({"data": value})
    assert line.splitlines() == [line[:-1]]
    assert Lines().feed(line) == [line[:-1]]


class Colour(enum.Enum):
    RED = "red"
    BIG = 2**80


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: Any
    _hidden: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any
    _hidden: int = 0


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 11, 23, 2, 9, tzinfo=datetime.UTC),
        datetime.date(2026, 11, 23),
        datetime.time(2, 9),
        uuid.UUID(int=7),
        Colour.RED,
        Number.ONE,
        Point(1),
        Slotted([1, {"y": None}]),
        (1, (2,)),
        1e16,
        -0.0,
        5e-324,
        "\x00\x1f\x7f/<\u2028\ufeff\U0001f600",
    ],
)
def test_what_orjson_takes_natively_stays_on_both_paths(value: Any) -> None:
    event = {"data": [value, {"again": value}]}
    assert encode_slow(event) == encode(event) == orjson.dumps(event) + b"\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2**70, b"1180591620717411303424"),
        (-(2**63) - 1, b"-9223372036854775809"),
        ("a\ud800b", rb'"a\ud800b"'),
        ("\udfff", rb'"\udfff"'),
        ('"\ud83d\ude00\n\ude00', '"\\"\U0001f600\\n\\ude00"'.encode()),
        ([float("nan"), 2**64], b"[null,18446744073709551616]"),
        ([-float("inf"), 2**64], b"[null,18446744073709551616]"),
        (Point(2**64), b'{"x":18446744073709551616}'),
        (Slotted("\ud800"), rb'{"x":"\ud800"}'),
        (Colour.BIG, str(2**80).encode()),
        ({}, b"{}"),
        ([], b"[]"),
    ],
)
def test_the_slow_path_writes_what_orjson_refuses(value: Any, written: bytes) -> None:
    event = {"k\udc00": value}
    assert encode(event) == rb'{"k\udc00":' + written + b"}\n"
    assert encode_many([event, event]) == encode(event) * 2


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"data": {"parts": [0, 1, 2, {"x": {1}}]}}, "data.parts[3].x: set is not"),
        ({"data": b"x"}, "data: bytes is not JSON: send text, base64 if it is none"),
        ({"data": 1j}, "data: complex is not JSON"),
        ({"data": ValueError("x")}, "data: ValueError is not JSON: send its text"),
        ({"data": Point}, "data: type is not JSON"),
        ({"data": Point({1})}, "data.x: set is not JSON: send a list"),
        ({"a b": [{"1c": {1}}]}, "['a b'][0]['1c']: set is not JSON"),
        ({"data": {3: 1}}, "data: key 3 is int, JSON keys are strings: use str(key)"),
        ({None: 1}, "key None is NoneType, JSON keys are strings: use str(key)"),
        ({"n": 10**5000}, "n: integer too long to write: send it as a string"),
        ([1], "an event is a dict, not list: send"),
        (None, "an event is a dict, not NoneType"),
        ("x", "an event is a dict, not str"),
    ],
)
def test_what_is_not_json_is_named_with_its_path(event: Any, message: str) -> None:
    for attempt in (encode, encode_slow, lambda e: encode_many([{}, e])):
        with pytest.raises(InvalidEvent) as caught:
            attempt(event)
        assert str(caught.value).startswith(message)
        assert caught.value.code == "invalid_event"


def test_a_circular_structure_is_named_where_it_closes() -> None:
    parts: list[Any] = [1]
    parts.append({"up": parts})
    with pytest.raises(InvalidEvent, match=r"^data\[1\]\.up: circular structure"):
        encode({"data": parts})


def test_the_same_object_twice_is_no_circle() -> None:
    part = {"type": "text"}
    assert encode_slow({"a": part, "b": [part, part]}) == encode(
        {"a": part, "b": [part, part]}
    )


def test_nesting_has_the_same_limit_on_both_paths() -> None:
    assert encode_slow(nested(MAX_DEPTH)) == encode(nested(MAX_DEPTH))
    with pytest.raises(orjson.JSONEncodeError):
        orjson.dumps(nested(MAX_DEPTH + 1))
    for depth in (MAX_DEPTH + 1, 300):
        with pytest.raises(InvalidEvent, match="nested deeper than 254 levels") as e:
            encode({"data": nested(depth)})
        assert e.value.path == "data.a.a.a ... a.a.a.a"


def test_a_stack_that_is_nearly_full_is_told_like_deep_nesting() -> None:
    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        else:
            encode_slow(nested(200))

    with pytest.raises((InvalidEvent, RecursionError)) as caught:
        for left in range(0, 2000, 50):
            deep(left)
    assert caught.type is RecursionError or "too deeply" in str(caught.value)


def test_ten_megabytes_are_one_line() -> None:
    event = {"type": "x", "data": {"text": "é\n" * 5_000_000}}
    line = encode(event)
    assert line.count(b"\n") == 1
    assert decode(line) == event
    event["data"]["more"] = "\ud800"
    assert decode(encode(event)) == event


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "a line is not JSON"),
        (b"{", "a line is not JSON"),
        (b'{"a": 12345678901234567890', "a line is not JSON"),
        (b'{"a":"\xff"}', "a line is not JSON"),
        (rb'{"a":"\ud800', "a line is not JSON"),
        (b"[1]", "a line holds an object, not list"),
        (b"12345678901234567890", "a line holds an object, not int"),
    ],
)
def test_a_line_that_is_no_event_says_so(line: bytes, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message):
        decode(line)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**18, -(10**18), 0.1 + 0.2])
def test_numbers_come_back_exactly(number: float) -> None:
    back = decode(json.dumps({"n": number}).encode())["n"]
    assert (back, type(back)) == (number, type(number))


class Cuts:
    """A reference splitter: whole input, one pass."""

    @staticmethod
    def lines(whole: bytes) -> tuple[list[bytes], bytes]:
        pieces = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return pieces[:-1], pieces[-1]


@given(st.lists(st.binary(max_size=6) | st.text("\r\nab\x0c", max_size=5), max_size=8))
def test_lines_are_the_same_however_they_are_cut(cut: list[bytes | str]) -> None:
    chunks = [c.encode() if isinstance(c, str) else c for c in cut]
    expected, rest = Cuts.lines(b"".join(chunks))
    for pieces in (chunks, [bytes([b]) for b in b"".join(chunks)]):
        splitter = Lines()
        assert [line for c in pieces for line in splitter.feed(c)] == expected
        assert splitter.flush() == rest
        assert splitter.flush() == b""


def test_a_line_end_may_fall_between_two_chunks() -> None:
    splitter = Lines()
    fed = [splitter.feed(c) for c in (b"a\r", b"\n", b"b\r", b"", b"\nc", b"\rd")]
    assert fed == [[b"a"], [], [b"b"], [], [], [b"c"]]
    assert splitter.flush() == b"d"


@pytest.mark.parametrize("sizes", [(4_000, 5), (5, 4_000), (4_000,), (4_000, 4_000, 1)])
def test_a_batch_of_large_events_is_its_events_in_a_row(sizes: tuple[int, ...]) -> None:
    batch = [{"type": "x", "data": {"text": "y" * size}} for size in sizes]
    assert encode_many(batch) == b"".join(encode(event) for event in batch)


def test_a_large_batch_takes_the_slow_path_where_it_must() -> None:
    batch = [{"text": "y" * 4_000}, {"n": 2**70}, {"text": "\ud83d"}]
    assert encode_many(batch) == b"".join(encode(event) for event in batch)
    with pytest.raises(InvalidEvent, match="x: set"):
        encode_many([{"text": "y" * 4_000}, {"x": {1}}])


def test_a_wire_is_found_by_name() -> None:
    wire = wire_named("ndjson")
    assert wire.content_type == "application/x-ndjson"
    assert wire.encode({"type": "x"}) == b'{"type":"x"}\n'
    with pytest.raises(ValueError, match=r"no wire is named 'x'; there are: ndjson"):
        wire_named("x")
