"""What a person sees of a turn, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from operators.event import delta, reasoning_part, result, text_part, tool_part
from operators.turn import TurnOutcome, Usage
from pipeline.cli_screen import Prose, Screen, summary
from pipeline.cli_trace import Watch

TEXT = text_part("t")


def snapshot(text: str, part_id: str = "t") -> dict[str, Any]:
    part = {"type": "text", "id": part_id, "text": text}
    return {"type": "message.part.updated", "data": {"part": part}}


def shown(view: Prose, *events: dict[str, Any]) -> str:
    return "".join(view.show(event) for event in events) + view.end()


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([], ""),
        ([delta(TEXT, "a"), delta(TEXT, "b")], "ab\n"),
        ([delta(TEXT, "a\n")], "a\n"),
        ([snapshot("ab"), snapshot("abc")], "abc\n"),
        ([delta(TEXT, "ab"), snapshot("abc")], "abc\n"),
        ([delta(TEXT, "ab"), snapshot("other")], "ab\n"),
        ([delta(TEXT, "ab"), result("abc")], "abc\n"),
        ([result("abc")], "abc\n"),
        ([snapshot("a", "1"), snapshot("b", "2"), result("ab")], "ab\n"),
        ([{"type": "x"}, {"type": "x", "data": {}}, {"data": 1}], ""),
        ([delta(reasoning_part("r"), "hm"), delta(TEXT, "a")], "a\n"),
        ([{"type": "message.part.updated", "data": {"delta": "a"}}], "a\n"),
    ],
)
def test_prose_is_the_text_once(events: list[dict[str, Any]], text: str) -> None:
    assert shown(Prose(), *events) == text


def test_a_screen_dims_reasoning_and_sets_it_apart() -> None:
    view = Screen()
    events = [delta(reasoning_part("r"), "hm"), delta(TEXT, "a"), delta(TEXT, "b")]
    assert shown(view, *events) == "\x1b[2mhm\x1b[0m\n\nab\n"


def test_a_screen_names_each_tool_call_once() -> None:
    call = tool_part("p", tool="sea\x1b", call_id="c", status="pending")
    view = Screen()
    assert shown(view, delta(TEXT, "a"), call, call) == "a\n\x1b[2m[sea]\x1b[0m\n"


def test_the_summary_tells_speed_only_where_it_was_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = Watch()
    summary(
        TurnOutcome(status="cancelled", reason="interrupted"),
        watch,
        message="m",
        trace="t",
    )
    watch.first_s, watch.last_s = 1.0, 3.0
    outcome = TurnOutcome(
        status="completed", usage=Usage(input_tokens=3, output_tokens=5)
    )
    summary(outcome, watch, message="m", trace="t")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cancelled  interrupted · 0.00 s in all"
    assert lines[3] == (
        "completed  first token after 1.00 s · 2.0 tokens/s · 3 tokens in, 5 out"
        " · 0.00 s in all"
    )
    assert lines[1:3] == ["message    m", "trace      t"]
