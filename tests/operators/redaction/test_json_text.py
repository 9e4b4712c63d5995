import json

import pytest

from operators.redaction import detectors as shipped
from operators.redaction.json_text import JsonText
from operators.redaction.scanner import Rules, Scanner
from operators.testing import chop, chunkings

RULES = Rules(shipped.DEFAULT)
KEY = "sk-proj-abcdefghijklmnopqrstuvwx1234"


def begin(before):
    return Scanner(RULES, lambda one, text: f'["{one.name}"]', before=before)


def edited(*pieces):
    text = JsonText(begin)
    return "".join([text.feed(piece) for piece in pieces]) + text.flush(last=True)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"to": "alice@example.com"}, {"to": '["EMAIL"]'}),
        ({"alice@example.com": 1}, {'["EMAIL"]': 1}),
        ({"n": 4111111111111111, "m": 12}, {"n": '["CREDIT_CARD"]', "m": 12}),
        ([f"a {KEY} b", [KEY], None, True, 1.5], None),
        ({"secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}, None),
        ('\ud83d\ude00 \u00e9 \\ " / \b\f\n\r\t alice@example.com', None),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_what_it_says_is_redacted_and_it_stays_json(said, shown, size):
    for ascii_only in (True, False):
        raw = json.dumps(said, ensure_ascii=ascii_only)
        out = edited(*chop(raw, [size]))
        loaded = json.loads(out)
        if shown is not None:
            assert loaded == shown
        flat = json.dumps(loaded)
        assert not any(one in flat for one in (KEY, "alice", "wJalr", "4111"))


def test_a_secret_in_escapes_is_seen_however_it_is_cut():
    raw = '"\\u0061l@b\\u002eco"'
    for pieces in chunkings(raw[:14]):
        assert edited(*pieces, raw[14:]) == '"[\\"EMAIL\\"]"'


@pytest.mark.parametrize(
    "raw",
    [
        '{"a": "caf\\u00e9 \\/ \\ud83d\\ude00 \\ud83d x", "n": [1, -2.5e3]}',
        '{"cut": "\\u12',
        '{"cut": "\\ud83d',
        '{"odd": "\\uZZ \\u00"x\\q \\u0\\n',
        "print('hello', \"world\")",
        "\\ no string",
        "",
    ],
)
def test_what_holds_no_secret_stays_as_it_was_written(raw):
    for size in (1, 2, 3, 100):
        assert edited(*chop(raw, [size])) == raw


def test_an_end_in_an_escape_waits_for_its_other_half():
    text = JsonText(begin)
    out = text.feed('{"k": "so al\\u00') + text.flush()
    assert out == '{"k": "so al'
    assert text.held == 4
    out += text.feed('69ce@example.com"}') + text.flush()
    assert out == '{"k": "so al[\\"EMAIL\\"]"}'


def test_it_tells_whether_it_is_whole():
    text = JsonText(begin)
    assert text.complete
    text.feed('{"a": "}')
    assert not text.complete
    text.feed('"}')
    assert text.complete


@pytest.mark.parametrize(
    "raw",
    [r'"a\u12\n b"', r'"a\u12"', r'"a\u\u0041"', r'"\ud83d\u12\\x"', r'"\u1\"x"'],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_an_escape_that_is_none_stays_as_it_is(raw, size):
    assert edited(*chop(raw, [size])) == raw


@pytest.mark.parametrize("rest", ['"}', 'kkk"}', 'kkk", "b": "see you"}'])
def test_a_secret_that_was_cut_short_in_a_string_ends_with_it(rest):
    text = JsonText(begin)
    out = text.feed('{"a": "' + KEY[:20]) + text.flush()
    out += text.feed(rest) + text.flush(last=True)
    said = json.loads(out)
    assert said["a"] == '["API_KEY"]'
    assert said.get("b", "see you") == "see you"
