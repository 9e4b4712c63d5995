"""The chunking law is found broken, and shown at its smallest cut."""

import pytest

import operators as ops
from operators.event import delta
from operators.redaction import detectors
from operators.redaction.redact import redact
from pipeline.testing import assert_chunking_invariant
from pipeline.testing.chunking import ChunkingError, check_chunking_invariant


def naive(event):
    """Redact each delta for itself, as if secrets were never cut."""
    text = event["data"]["delta"]
    return delta(event["data"]["part"], text.replace("secret", "***"))


NAIVE = ops.map(naive, types=("message.part.updated",))


async def test_what_only_merges_is_invariant():
    assert await assert_chunking_invariant(ops.coalesce(), "abc def") > 64
    assert (
        await assert_chunking_invariant(ops.coalesce(), "long " * 10, at=(3, 9)) > 100
    )


async def test_redaction_is_invariant():
    text = "write to ada@example.org, or call."
    await assert_chunking_invariant(
        lambda: redact(*detectors.DEFAULT), text, samples=40
    )


async def test_a_naive_one_is_found_at_its_smallest_cut():
    with pytest.raises(ChunkingError) as caught:
        await assert_chunking_invariant(NAIVE, "a secret here, once")
    cut = caught.value.cut
    assert "".join(cut) == "a secret here, once"
    assert len(cut) == 2
    assert "secret" not in cut[0]
    assert "in one piece: 'a *** here, once'" in str(caught.value)


def test_a_short_text_is_cut_in_every_way():
    with pytest.raises(ChunkingError):
        check_chunking_invariant(NAIVE, "secret")
    assert check_chunking_invariant(NAIVE, "other") == 1 + 3 * 2**4
    assert check_chunking_invariant(NAIVE, "") > 0


def test_events_that_change_their_place_are_found():
    class Late:
        """Hold the text back past other events."""

        shape = "flat_map"

        def __init__(self):
            self.held = []

        def on_event(self, event):
            if event["type"] == "mark":
                return [event]
            self.held.append(event)
            return [self.held.pop(0)] if len(self.held) > 3 else []

        def finish(self):
            return self.held

    with pytest.raises(ChunkingError):
        check_chunking_invariant(
            ops.operator(Late, shape="flat_map"), "some text here", at=(5,)
        )


def test_a_place_outside_of_the_text_is_refused():
    with pytest.raises(ValueError, match="0 to 3"):
        check_chunking_invariant(NAIVE, "abc", at=[4])


def test_other_kinds_of_parts_are_cut_too():
    seen = set()

    def note(event):
        seen.add(event["data"]["part"]["type"])

    check_chunking_invariant(ops.tap(note, on_error="fail"), "ab", kind="reasoning")
    assert seen == {"reasoning"}
