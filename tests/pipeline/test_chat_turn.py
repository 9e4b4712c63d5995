"""The golden cases: what the original engine did, line by line and hook by hook."""

import asyncio
import hashlib
import json
import re
from pathlib import Path

import pytest

from operators.source import ChatTurnProducer
from pipeline import TurnIdentity
from pipeline.chat_turn import ChatTurnHooks, handle_chat_turn
from pipeline.wire import decode

from .support import alone, read

VECTORS = Path(__file__).parent.parent / "data" / "vectors" / "chat_turn.jsonl"
CASES = [json.loads(line) for line in VECTORS.read_text("utf-8").splitlines()]
TRANSFORMS = {
    "upper": str.upper,
    "empty": lambda text: "",
    "reverse_codepoints": lambda text: text[::-1],
    "redact_ssn": lambda text: re.sub(r"\d{3}-\d{2}-\d{4}", "[REDACTED]", text),
    "append_bang": lambda text: text + "!",
}


def expand(events):
    for event in events:
        if "$times" in event:
            for index in range(event["$times"]):
                yield json.loads(json.dumps(event["event"]).replace('"$i"', str(index)))
        else:
            yield event


def text_of(value):
    return value["$repeat"][0] * value["$repeat"][1] if "$repeat" in value else value


class Case:
    """One scenario: its hooks, and the order in which they were called."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.hooks = scenario.get("hooks", {})
        self.order = []
        self.saved = []
        self.logs = []
        self.handed_over = []

    def identity(self):
        given = self.scenario.get("identity") or {
            "tenantId": "ws-1",
            "sessionId": "thread-1",
            "userId": "user-1",
            "turnIndex": 0,
        }
        return TurnIdentity(
            tenant_id=given["tenantId"],
            session_id=given["sessionId"],
            user_id=given["userId"],
            turn_index=given["turnIndex"],
        )

    async def stream(self):
        scenario = self.scenario
        throws = scenario.get("producer_throws")
        events = list(expand(scenario.get("events", [])))
        try:
            for event in events if throws is None else events[: throws["after"]]:
                await asyncio.sleep(scenario.get("event_gap_ms", 0) / 1000)
                yield event
            if throws is not None:
                raise RuntimeError(throws["error"])
        finally:
            self.order.append("producer_closed")

    def final_text(self):
        self.order.append("final_text")
        text = self.scenario.get("final_text", "")
        if isinstance(text, dict) and "throws" in text:
            raise RuntimeError(text["throws"]["error"])
        return text_of(text)

    def produce(self):
        self.order.append("produce")
        if "produce_throws" in self.scenario:
            raise RuntimeError(self.scenario["produce_throws"]["error"])
        return ChatTurnProducer(stream=self.stream(), final_text=self.final_text)

    def persist(self, *, identity, final_text):
        spec = self.hooks.get("persist", {})
        self.order.append("persist")
        self.saved.append((identity, final_text))
        if spec.get("mode") == "sync":
            self.throw(spec)
            self.order.append("persist_done")
            return None
        return self.later(spec, "persist_done")

    async def later(self, spec, done):
        await asyncio.sleep(spec.get("delay_ms", 0) / 1000)
        self.throw(spec)
        self.order.append(done)

    def throw(self, spec):
        if "throws" in spec:
            raise RuntimeError(spec["throws"]["error"])

    async def on_turn_complete(self, *, identity, final_text):
        spec = self.hooks["on_turn_complete"]
        said = json.dumps(final_text, ensure_ascii=False)
        self.order.append(f"on_turn_complete:{said}")
        await self.later(spec, "on_turn_complete_done")

    def on_event(self, event):
        spec = self.hooks["on_event"]
        kind = event["type"]
        self.order.append(f"on_event:{kind}")
        if kind in spec.get("only", [kind]):
            self.throw(spec)
        if "delay_ms" in spec or spec.get("mode") == "async":
            return self.later(
                {"delay_ms": spec.get("delay_ms", 0)}, f"on_event_done:{kind}"
            )
        return None

    def transform(self, text):
        spec = self.hooks["transform"]
        self.order.append("transform")
        self.throw(spec)
        made = TRANSFORMS[spec["name"]](text)
        if spec.get("mode") != "async":
            return made

        async def soon():
            await asyncio.sleep(0)
            return made

        return soon()

    async def trace_flush(self):
        spec = self.hooks["trace_flush"]
        self.order.append("trace_flush")
        await asyncio.sleep(spec.get("delay_ms", 0) / 1000)
        if "rejects" in spec:
            raise RuntimeError(spec["rejects"]["error"])
        self.order.append("trace_flush_done")

    def wait_until(self, pending):
        self.order.append("wait_until")
        self.handed_over.append(pending)

    def run(self):
        optional = {
            "on_turn_complete": self.on_turn_complete,
            "on_event": self.on_event,
            "transform": self.transform,
            "trace_flush": self.trace_flush,
        }
        given = {name: hook for name, hook in optional.items() if name in self.hooks}
        if "transform" in given:
            given["transform_final_text"] = given.pop("transform")
        return handle_chat_turn(
            identity=self.identity(),
            hooks=ChatTurnHooks(
                produce=self.produce, persist_assistant_message=self.persist, **given
            ),
            wait_until=self.wait_until if self.scenario.get("wait_until") else None,
            log=lambda message, meta: self.logs.append([message, dict(meta)]),
        )


def test_all_golden_cases_are_here():
    assert len(CASES) >= 36
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_turn_does_what_the_original_engine_did(case, debug):
    ran = Case(case["scenario"])
    expected = case["expected"]

    async def turn():
        result = ran.run()
        assert result.content_type == expected["content_type"]
        chunks = await read(result.body)
        for pending in ran.handed_over:
            await pending
        return chunks

    async def check():
        body = b"".join(await turn())
        assert body.endswith(b"\n")
        got = body[:-1].split(b"\n")
        want = [line.encode("utf-8", "surrogatepass") for line in expected["lines"]]
        if case["compare"] == "bytes":
            assert got == want
            assert hashlib.sha256(body).hexdigest() == expected["body_sha256"]
        else:
            assert [decode(line) for line in got] == [json.loads(line) for line in want]
        assert ran.order == expected["hook_order"]
        assert ran.logs == expected["logs"]
        assert len(ran.saved) == expected["persist_calls"]
        if expected["persisted"] is not None:
            identity, final_text = ran.saved[-1]
            assert identity == ran.identity()
            assert final_text == text_of(expected["persisted"]["finalText"])

    alone(check(), debug=debug)


def producer(*texts, final_text=""):
    async def stream():
        for text in texts:
            yield {"type": "result", "data": {"finalText": text}}

    return ChatTurnProducer(stream=stream(), final_text=lambda: final_text)


def chat_turn(produce, saved, **hooks):
    return handle_chat_turn(
        identity=TurnIdentity(session_id="s", turn_index=0),
        hooks=ChatTurnHooks(
            produce=produce,
            persist_assistant_message=lambda *, identity, final_text: saved.append(
                final_text
            ),
            **hooks,
        ),
    )


async def test_produce_may_be_async_and_hooks_may_be_plain_functions():
    async def produce():
        return producer("a", final_text="b")

    saved, flushed = [], []
    result = chat_turn(produce, saved, trace_flush=lambda: flushed.append(1))
    await read(result.body)
    assert (saved, flushed) == (["b"], [1])


async def test_hooks_with_optional_parameters_are_given_one_argument_only():
    got = []

    def on_event(event, more=None):
        got.append(more)

    def transform(text, more=None):
        got.append(more)
        return text

    saved = []
    result = chat_turn(
        lambda: producer("a"), saved, on_event=on_event, transform_final_text=transform
    )
    await read(result.body)
    assert saved == ["a"]
    assert set(got) == {None}


async def test_a_log_that_raises_does_not_break_the_body(caplog):
    def log(message, meta):
        raise RuntimeError("log down")

    def fail():
        raise RuntimeError("no")

    result = handle_chat_turn(
        identity=TurnIdentity(session_id="s", turn_index=0),
        hooks=ChatTurnHooks(
            produce=fail, persist_assistant_message=lambda *, identity, final_text: None
        ),
        log=log,
    )
    chunks = await read(result.body)
    assert [decode(chunk)["type"] for chunk in chunks] == [
        "session.run.started",
        "error",
        "session.run.failed",
    ]


def test_the_two_hooks_that_every_turn_needs_are_required():
    with pytest.raises(TypeError, match="persist_assistant_message"):
        ChatTurnHooks(produce=lambda: None)
    with pytest.raises(TypeError, match="produce"):
        ChatTurnHooks(persist_assistant_message=lambda **_: None)
