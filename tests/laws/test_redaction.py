"""The law of redaction, in small; `python -m tests.fuzz.redaction` is the long run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.redaction import detectors as shipped
from operators.redaction.scanner import Rules, Scanner
from operators.testing import chop

from ..fuzz import redaction as fuzzed

RULES = Rules(shipped.DEFAULT)
ODD = st.text(
    st.sampled_from("a1@.:-_/+ \n\"'=eyJskAKBG\u0663\u00e9\u200b\ud800"), max_size=60
)
WHOLE = st.lists(
    st.sampled_from(["alice@example.com", "4111 1111 1111 1111", "sk-"]) | ODD
)


def whole(text):
    return RULES.redact(text, fuzzed.named)


@given(WHOLE.map("".join), st.lists(st.integers(1, 7), min_size=1))
def test_the_text_is_redacted_alike_however_it_is_cut(text, sizes):
    assert fuzzed.streamed(RULES, chop(text, sizes)) == whole(text)


@given(ODD)
def test_the_rule_read_a_second_time_agrees(text):
    text += "\n"
    assert whole(text) == fuzzed.oracle(shipped.DEFAULT, text)


@given(ODD, ODD)
def test_redacted_text_that_stands_still_is_a_prefix_of_all_that_comes(one, more):
    scanner = Scanner(RULES, fuzzed.named)
    assert whole(one + more).startswith(scanner.feed(one))


@pytest.mark.parametrize("name", [*fuzzed.SECRETS, "ALL"])
def test_adversarial_texts_in_small(name):
    fuzzed.fuzz(name, 60, seed=name, every=1)
