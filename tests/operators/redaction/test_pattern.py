"""Patterns of a user's own: what is refused, what is computed, what is confirmed."""

import re

import pytest

from operators import CompositionError
from operators.redaction.detector import Detector
from operators.redaction.scanner import Rules


def masked(detector, text):
    return Rules([detector]).redact(text, lambda one, found: f"[{one.name}]")


def regex(pattern, *args, **options):
    options.setdefault("partial", r"(?!)")
    return Detector.regex("X", pattern, *args, **options)


@pytest.mark.parametrize(
    "pattern", ["a+", ".*x", "a{3,}", "(?:ab)*c", r"(a+)\1", "x|y+", "(?i)z+?"]
)
def test_an_unbounded_pattern_is_refused_with_its_name_and_the_mend(pattern):
    with pytest.raises(CompositionError, match=r"'X'.*max_len="):
        Detector.regex("X", pattern)
    assert Detector.regex("X", pattern, 50).max_len == 50


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "no regular expression"),
        ("a{0,3}", "empty"),
        ("(?:|a)", "empty"),
        ("a(?=.*b)", "without a bound"),
        ("(?:a{1,200}){1,200}", "repeats too much"),
    ],
)
def test_what_cannot_be_detected_is_refused(pattern, why):
    with pytest.raises(CompositionError, match=why):
        Detector.regex("X", pattern, 10)


@pytest.mark.parametrize("max_len", [0, -1, 2, 1.5, True, "9"])
def test_a_max_len_below_the_shortest_match_is_refused(max_len):
    with pytest.raises(CompositionError, match="max_len"):
        Detector.regex("X", "abc+", max_len)


def test_names_and_partials_are_checked():
    for name in ("", None, 3):
        with pytest.raises(CompositionError, match="name"):
            Detector.regex(name, "a")
    with pytest.raises(CompositionError, match="partial"):
        Detector.regex("X", "a", partial="(")
    with pytest.raises(CompositionError, match="letter by letter"):
        Detector.words("X", "secret")
    with pytest.raises(CompositionError, match="non-empty"):
        Detector.words("X", ["", "a"])
    with pytest.raises(CompositionError, match="closer"):
        Detector.block("X", "<", ">+", max_len=5)


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        ("abc", 3),
        ("a{2,5}b?", 6),
        (r"(?<!a)x|yy(?=z)", 2),
        (r"(ab?)\1c", 5),
        (r"\bé.\b", 2),
    ],
)
def test_the_longest_match_is_computed(pattern, longest):
    assert Detector.regex("X", pattern).max_len == longest
    assert Detector.regex("X", pattern, 1000).max_len == longest


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"\bcat\b", "cat concat cat.", "[X] concat [X]."),
        (r"\Bcat", "cat concat", "cat con[X]"),
        (r"^ab", "ab ab\nab", "[X] ab\nab"),
        (r"(?m)^ab", "ab ab\nab", "[X] ab\n[X]"),
        (r"ab$", "ab ab", "ab [X]"),
        (r"ab\Z", "ab\nab", "ab\n[X]"),
        (r"(?<=key: )\w{3,9}", "key: hunter2 not: hunter2", "key: [X] not: hunter2"),
        (r"(?<!no )abc", "abc no abc", "[X] no abc"),
        (r"abc(?=\d{2})", "abc1 abc12", "abc1 [X]12"),
        (r"abc(?!\d{2})", "abc1 abc12", "[X]1 abc12"),
        (r"a(?:b|(?=cd)c)", "ab acd ac", "[X] [X]d ac"),
        (r"(a|b)\1", "aa ab bb", "[X] ab [X]"),
        (r"(?P<q>['\"])x{1,3}(?P=q)", "'xx' \"x' \"x\"", "[X] \"x' [X]"),
        (r"a++b", "aaab", "[X]"),
        (r"(?>a|ab)c", "ac abc", "[X] abc"),
        (r"(?i)straße", "STRAßE", "[X]"),
        (r"(?i:k)x", "\u212ax Kx kx", "[X] [X] [X]"),
        (r"(?a:\w){2}", "éé ab", "éé [X]"),
        (r"\d\D\s\S\w\W", "1a b_-", "[X]"),
        (r"(?x) a b  # spaced", "ab", "[X]"),
        (r"[^a-c\d]{2}", "a1xyb", "a1[X]b"),
        (r"(?s)a.b", "a\nb", "[X]"),
        (r"a.b", "a\nb", "a\nb"),
        (r"(a)?(?(1)b|c)d", "abd cd bd", "[X] [X] bd"),
        (r"a{2,4}?", "aaaaa", "[X]a"),
    ],
)
def test_a_pattern_means_what_it_means_to_re(pattern, text, expected):
    detector = regex(pattern, 20) if "+" in pattern else regex(pattern)
    assert masked(detector, text) == expected


def test_characters_are_classed_as_by_re():
    for pattern in (
        r"\w",
        r"\s",
        r"\d",
        r"[^\w]",
        r"(?a:\w)",
        r"(?i:ſ)",
        r"(?i:[a-z])",
    ):
        rules = Rules([regex(pattern)])
        known = re.compile(pattern)
        for code in [*range(0x500), 0x2028, 0x3000, 0xFF11, 0x212A, 0xD800, 0x1F600]:
            char = chr(code)
            found = rules.redact(char, lambda one, text: "") == ""
            assert found == (known.fullmatch(char) is not None), (pattern, hex(code))


def test_a_validator_may_leave_a_shorter_match():
    even = Detector.regex("X", "[0-9]{1,4}", validate=lambda text: int(text) % 2 == 0)
    assert masked(even, "1234 1235 11 7") == "[X] [X]35 11 7"


def test_words_are_whole_whatever_their_case_and_spacing():
    names = Detector.words("NAME", ["Project Falcon", "Bo", "C++"])
    assert (
        masked(names, "project  falcon, BO, Bob, C++!")
        == "[NAME], [NAME], Bob, [NAME]!"
    )
    exact = Detector.words("NAME", ["Bo"], ignore_case=False)
    assert masked(exact, "Bo BO") == "[NAME] BO"
    assert masked(names, "about Project Fa") == "about [NAME]"
    assert masked(names, "about Proj") == "about Proj"


def test_a_detector_shows_its_name_only():
    assert repr(Detector.words("NAME", ["secret"])) == "<detector NAME>"


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?=ab)a\w{1,2}",
        r"(?<=ab)x",
        r"(?<!ab)x",
        r"(?<=a$)b",
        r"^ab",
        r"(?m)^ab",
        r"(?:a|a)b",
        r"\Bab",
        r"(?!x)yz",
        r"(?<!(?<=q)a)bc",
        r"a(?:b|(?=c))",
        r"x(?=(a))",
        r"x(?!(a))",
        r"ab\Z",
        r"a(?<=xa)b",
        r"ab$",
        r"$ab",
        r"(?<=[ab])(?<!a)x",
        r"(?:a*b*)*c",
        r"(?:a?){2}b",
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab\nab",
        "xabc ab abx",
        "abx aax x",
        "qabc abc bc",
        "yz xyz ac",
        "xa xb",
        "aab",
    ],
)
def test_a_pattern_of_any_kind_finds_what_re_finds(pattern, text):
    assert masked(regex(pattern, 10), text) == re.sub(pattern, "[X]", text)
