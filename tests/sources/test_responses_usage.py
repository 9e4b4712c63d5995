"""Usage in the same terms from all three protocols."""

from __future__ import annotations

from operators.usage import Calls
from pipeline.sources.chat_chunks import ChatAssembler
from pipeline.sources.chat_stream import ChatStream
from tests.sources.helpers import TRANSCRIPTS
from tests.sources.test_anthropic_messages import WHOLE, a_stream, ending, start
from tests.sources.test_responses_openai import folded


def calls_of(events: list[dict[str, object]]) -> Calls:
    return Calls([e["data"] for e in events if e["type"] == "llm_call"])  # type: ignore[misc]  # events are JSON


def test_a_chat_completion_names_its_call_and_says_how_to_join() -> None:
    stream = ChatStream(ChatAssembler())
    events = stream.feed((TRANSCRIPTS / "basic_usage.sse").read_bytes())
    call = (events + stream.finish())[-1]["data"]
    assert call["callId"].startswith("chatcmpl-")
    assert call["merge"] == "last"


def test_several_reports_of_one_message_count_once() -> None:
    stream = a_stream()
    calls = calls_of(stream.feed(WHOLE) + stream.finish())
    assert len(calls.all) == 1
    assert calls.usage is not None
    assert (calls.usage.input_tokens, calls.usage.output_tokens) == (33, 16)
    assert calls.usage.provenance == "reported"


def test_a_message_that_is_cut_has_its_input_counted() -> None:
    calls = calls_of(a_stream().feed(start(input_tokens=7, output_tokens=1)))
    assert calls.usage is not None
    assert calls.usage.input_tokens == 7
    assert calls.usage.provenance == "cumulative"


def test_an_end_without_a_reason_is_final_too() -> None:
    stream = a_stream()
    done = ending("", output_tokens=2)
    calls = calls_of(stream.feed(start() + done) + stream.finish())
    assert calls.usage is not None
    assert calls.usage.provenance == "reported"


def test_a_response_counts_cached_input_as_input() -> None:
    data = (TRANSCRIPTS / "responses_api.sse").read_bytes()
    usage = calls_of(folded(data)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.cached_input_tokens) == (33, 24)
