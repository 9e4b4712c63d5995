"""The scan: what is held, what an end does, what goes on beyond a limit."""

import sys
import time

import pytest

from operators.redaction import automaton
from operators.redaction import detectors as shipped
from operators.redaction.detector import Detector
from operators.redaction.editor import _Untouched
from operators.redaction.scanner import RedactionOverflow, Rules, Scanner
from operators.testing import chop, chunkings

NEVER = r"(?!)"
ALL = Rules(shipped.DEFAULT)
KEY = "sk-proj-abcdefghijklmnopqrstuvwx1234"


def named(detector, text):
    return f"[{detector.name}]"


def scanner(*detectors):
    return Scanner(Rules(detectors), named)


def regex(name, pattern, *args, **options):
    options.setdefault("partial", NEVER)
    return Detector.regex(name, pattern, *args, **options)


def test_leftmost_then_longest_then_first_named():
    a, b = regex("A", "ab"), regex("B", "abc|bcdef")
    c, d = regex("C", "xy"), regex("D", "x[yz]")
    rules = Rules([a, b, c, d])
    assert rules.redact("abcdef xy xz", named) == "[B]def [C] [D]"


def test_a_failed_candidate_gives_way_to_those_inside():
    rules = Rules([regex("A", "aaab"), regex("B", "aac")])
    assert rules.redact("aaaac aaab", named) == "aa[B] [A]"


def test_every_way_of_cutting_gives_the_same():
    rules = Rules([*shipped.DEFAULT, regex("S", r"(?<=x)b@|é\b")])
    for text in ("xb@c.de é1", "a@b.co.", "+12345678", "sk-é a@bc"):
        whole = rules.redact(text, named)
        for pieces in chunkings(text):
            one = Scanner(rules, named)
            out = "".join([one.feed(piece) for piece in pieces]) + one.flush()
            assert out == whole


def test_only_what_may_still_change_is_held():
    one = Scanner(ALL, named)
    assert one.feed("Hello wor") == "Hello "
    assert one.held == 3
    assert one.feed("ld, al") == "world, "
    assert one.feed("ice@exam") == ""
    assert one.feed("ple.com now") == "[EMAIL] "
    assert one.flush() == "now"
    assert one.flush() == ""


def test_what_is_let_out_is_never_taken_back():
    text = f"so {KEY} and alice@example.com, 4111 1111 1111 1111 end"
    whole = ALL.redact(text, named)
    for at in range(len(text)):
        one = Scanner(ALL, named)
        assert whole.startswith(one.feed(text[:at]))


@pytest.mark.parametrize("size", [1, 3, 7, 5000])
def test_a_match_beyond_its_limit_is_masked_to_its_end_with_one_replacement(size):
    rules = Rules(shipped.DEFAULT)
    text = f"a sk-{'Ab1' * 4000} b"
    one = Scanner(rules, named)
    most = 0
    out = ""
    for piece in chop(text, [size]):
        out += one.feed(piece)
        most = max(most, one.held)
    assert out + one.flush() == "a [API_KEY] b"
    assert most <= 512 + size  # the largest of those that begin alike


def test_a_match_beyond_its_limit_fails_where_that_is_asked_and_shows_nothing():
    rules = Rules([regex("A", "x-[a-z]{3,}", 8)], overflow_fails=True)
    one = Scanner(rules, named)
    with pytest.raises(RedactionOverflow, match="max_len=8"):
        one.feed("x-abcdefghijkl")
    assert one.feed("mno") + one.flush() == "[A]"


def test_a_candidate_that_is_no_match_within_its_limit_is_none():
    rules = Rules([regex("A", "a+!", 5), regex("B", "a{7}b")])
    assert rules.redact("aaaa! aaaaaaa! aaaaaaab", named) == "[A] aaa[A] [B]"


def test_a_limit_is_a_matter_of_characters_not_of_pieces():
    text = "aaaaaaaaaaaa!aaa!aaaaaaaxaaaa"
    rules = Rules(
        [regex("A", "a+!?", 5, validate=lambda t: len(t) > 2), regex("B", "a!x?", 9)]
    )
    whole = rules.redact(text, named)
    for size in range(1, 9):
        one = Scanner(rules, named)
        assert "".join(map(one.feed, chop(text, [size]))) + one.flush() == whole


def test_from_an_opener_on_all_is_masked_until_the_closer_or_the_end():
    key = "-----BEGIN RSA PRIVATE KEY-----"
    one = Scanner(ALL, named)
    assert one.feed(f"a {key}\nMII") == "a [PRIVATE_KEY]"
    assert one.feed("x" * 5000) == ""
    assert one.held == 0
    assert one.flush() == ""
    assert one.feed("more -----END RSA PRIVATE") == ""
    assert one.feed(" KEY----- b") == " "
    assert one.flush() == "b"


def test_an_opener_with_an_end_in_it_opens_all_the_same():
    key = "-----BEGIN RSA PRIVATE KEY-----"
    for at in range(1, len(key) + 1):
        one = Scanner(ALL, named)
        out = one.feed(f"a {key[:at]}") + one.flush()
        out += one.feed(f"{key[at:]}\nMIIE") + one.flush()
        out += one.feed("\nabcd\n-----END RSA PRIVATE KEY----- b") + one.flush()
        assert "MIIE" not in out
        assert "abcd" not in out
        assert out.endswith(" b")


def test_at_an_end_a_secret_cut_short_is_masked_and_so_is_its_rest():
    one = Scanner(ALL, named)
    assert one.feed(f"key {KEY[:14]}") + one.flush() == "key [API_KEY]"
    assert one.feed(KEY[14:]) == ""
    assert one.feed(" then") + one.flush() == " then"


def test_at_an_end_prose_is_let_out_and_what_completes_a_secret_is_masked():
    one = Scanner(ALL, named)
    assert one.feed("write to alice") + one.flush() == "write to alice"
    assert one.feed("@example.com now") + one.flush() == "[EMAIL] now"


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "alice@example.com",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "078-05-1120",
        "+49 30 1234567",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3jVmNHl0w5",
        "2001:db8:85a3:8d3:1319:8a2e:370:7348",
        "postgres://bob:hunter2@db.example",
        "Authorization: Bearer abcDEF0123456789abcDEF01",
    ],
)
def test_no_end_in_a_secret_lets_its_second_half_out(secret):
    for at in range(1, len(secret)):
        one = Scanner(ALL, named)
        out = one.feed(f"so {secret[:at]}") + one.flush()
        out += one.feed(f"{secret[at:]} ok") + one.flush()
        assert out.startswith("so ")
        assert out.endswith("ok")
        assert secret[len(secret) // 2 :] not in out
        assert secret[-6:] not in out


def test_two_ends_in_a_row_change_nothing():
    text = f"a {KEY[:20]}"
    one, two = Scanner(ALL, named), Scanner(ALL, named)
    assert one.feed(text) + one.flush() + one.feed("1 b") == two.feed(
        text
    ) + two.flush() + two.flush() + two.feed("1 b")


def test_a_context_on_the_left_counts_and_is_not_shown():
    rules = Rules([regex("A", r"(?<=key: )\w{3,8}|pass=\w{3,8}")])
    assert rules.redact("hunter", named, before="key: ") == "[A]"
    assert rules.redact("hunter x", named, before="pass=") == "[A] x"
    assert rules.redact("hunter", named) == "hunter"


def test_a_piece_met_before_is_read_anew_behind_a_context():
    rules = Rules(shipped.DEFAULT)
    piece = "qrstuvwx12345678"
    assert rules.redact(piece, named) == piece
    before = "sk-proj-abcdefghijklmnop"
    assert rules.redact(piece, named, before=before) == "[API_KEY]"


def test_the_left_context_survives_any_cut():
    rules = Rules([regex("A", r"(?<=Authorization: )\w{3,8}")])
    one = Scanner(rules, named)
    out = "".join(map(one.feed, "xx Authorization: abc1, Xuthorization: abc1"))
    assert out + one.flush() == "xx Authorization: [A], Xuthorization: abc1"


HOSTILE = {
    "a@": "a@",
    "1-": "1-",
    "eyJ": "eyJ",
    "4 ": "4 ",
    "a.": "a.",
    "1.": "1.",
    "::": "::",
    "DE12 ": "DE12 ",
    "opener": "-----BEGIN ",
    "scheme": "x://a:",
    "sk-": "sk-",
    "bearer": "Bearer ",
    "zero width": "a\u200b\ufeff",
    "lone surrogates": "\ud800\udfff",
    "nul and line ends": "\0\r\n",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_the_work_grows_with_the_text_and_not_with_its_square(unit):
    def steps(size):
        text = unit * (size // len(unit))
        calls = 0

        def count(frame, event, arg):
            nonlocal calls
            calls += 1

        one = Scanner(ALL, named)
        one.feed(unit * 300)  # the states are made
        sys.setprofile(count)
        try:
            for char in text:
                one.feed(char)
            one.flush()
        finally:
            sys.setprofile(None)
        return calls

    assert steps(8000) < 2.5 * steps(4000) + 200


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_ends(unit):
    text = unit * (60_000 // len(unit))
    began = time.process_time()
    ALL.redact(text, named)
    assert time.process_time() - began < 30  # a guard against a blow-up, not a claim


def test_the_states_stay_bounded_whatever_comes():
    rules = Rules([regex("A", "(?:a|b){0,4}a(?:a|b){14}c", 40)])
    text = "abbabaabbbaabababbabaaabbabbbaababab" * 40
    out = rules.redact(text + "c", named)
    assert out.endswith("[A]")
    assert len(rules.main._states) <= 4000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ababcx", "[A][C]x"),
        ("abbbbx abcd", "[A]x [B]"),
        ("abb", "[A]"),
        ("abbd", "[B]"),
        ("abbbd", "[B]"),
        ("abbbbd", "[A]d"),
        ("aab <b", "[D] <b"),
        ("acbx", "acbx"),
    ],
)
def test_limits_of_several_detectors_at_once_in_every_cut(text, shown):
    detectors = [
        regex("A", "ab+", 3),
        regex("B", "a[bc]+d", 5),
        regex("C", "abc"),
        regex("D", "aab"),
    ]
    rules = Rules(detectors)
    assert rules.redact(text, named) == shown
    for pieces in chunkings(text):
        one = Scanner(rules, named)
        assert "".join([one.feed(piece) for piece in pieces]) + one.flush() == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x <aaa> b", "x [K]"),
        ("x <aaaab b", "x [A] b"),
        ("x <aaaaaaaaaaaa b", "x [K]"),
        ("x <aab aab", "x [A] [B]"),
    ],
)
def test_a_block_whose_opener_is_a_longer_match_takes_the_rest(text, shown):
    block = Detector.block("K", "<a+", "a>", max_len=8)
    rules = Rules([block, regex("A", "<a+b?", 4), regex("B", "aab")])
    whole = rules.redact(text, named)
    for pieces in chunkings(text):
        one = Scanner(rules, named)
        assert "".join([one.feed(piece) for piece in pieces]) + one.flush() == whole
    assert whole == shown


@pytest.mark.parametrize("rest", [1, 3, 3_000, 9_000])
def test_what_goes_on_after_an_end_is_masked_however_long_and_often_it_ends(rest):
    one = Scanner(ALL, named)
    out = one.feed(KEY[:20]) + one.flush()
    for _ in range(3):
        out += one.feed("k" * rest) + one.flush()
    out += one.feed("k. Then") + one.flush()
    assert out == "[API_KEY]. Then"


def test_what_was_found_before_is_found_again_however_much_came_between(monkeypatch):
    monkeypatch.setattr(automaton, "_MOST_RUNS", 20)
    rules = Rules(shipped.DEFAULT)
    for k in range(200):
        one = Scanner(rules, named)
        out = "".join([one.feed(p) for p in (f"w{k} ", f"m{k}", "@b.co ", f"{k}x")])
        assert out + one.flush() == f"w{k} [EMAIL] {k}x"


def test_a_text_left_alone_holds_nothing():
    text = _Untouched()
    assert (text.feed(KEY), text.held, text.flush(), text.flush(last=True)) == (
        *(KEY, 0),
        *("", ""),
    )
