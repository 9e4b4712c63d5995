"""A whole turn full of secrets, on every way it can end: nothing that left shows one."""

import asyncio
import json

import pytest

import operators as ops
from operators import event as ev
from operators.redaction import detectors, redact
from operators.testing import chop
from pipeline import ChatTurnProducer, Pipeline, TurnIdentity

IDENTITY = TurnIdentity(session_id="s-1", turn_index=0)
SECRETS = {
    "mail": "alice.smith@example.com",
    "phone": "+1 415 555 2671",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ssn": "078-05-1120",
    "ip": "192.168.171.17",
    "ip6": "2001:db8:85a3::8a2e:370:7348",
    "key": "sk-proj-abcdefghijklmnopqrstuvwx1234",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3jVmNHl0w5",
    "bearer": "Bearer ZYXwvu0123456789abcDEF",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "pem": "-----BEGIN PRIVATE KEY-----\nMIIEsecretsecret\n-----END PRIVATE KEY-----",
    "url": "postgres://bob:hunter2@db.example.net",
}
TELLTALES = [
    *SECRETS.values(),
    *["alice.smith", "5552671", "555 2671", "1111 1111", "0532 0130", "05-1120"],
    *["168.171", "8a2e:370", "qrstuvwx1234", "dozjgNry", "0123456789abcDEF"],
    *["IOSFODNN7", "MIIEsecret", "hunter2"],
]
TEXT = "; ".join(SECRETS.values())
OBJECT = {**SECRETS, "deep": [{"list": list(SECRETS.values())}]}


def produce(size, *, error=None, hang=False, final=None):
    async def events():
        text, thought = ev.text_part("t"), ev.reasoning_part("r")
        call = {"type": "tool", "id": "c", "tool": "send", "callID": "c1"}
        for piece in chop(TEXT, [size]):
            yield ev.delta(text, piece)
            yield ev.delta(thought, piece)
        for piece in chop(json.dumps(OBJECT), [size]):
            yield ev.delta(call, piece)
        for escaped in chop(json.dumps(OBJECT).replace("a", "\\u0061"), [size]):
            yield ev.delta({**call, "id": "c2"}, escaped)
        yield ev.tool_part(
            "c", tool="send", call_id="c1", status="completed", input=OBJECT,
            inputText=json.dumps(OBJECT), output=OBJECT, error=TEXT,
        )  # fmt: skip
        yield {
            "type": ev.PART_UPDATED,
            "data": {"part": {**text, "id": "u", "text": TEXT}},
        }
        yield {"type": "product.status", "note": TEXT, "data": OBJECT}
        yield ev.llm_call(model="m", inputTokens=3, prompt=TEXT)
        if final is None:
            yield ev.result(TEXT)
        for piece in chop(TEXT, [size])[:-3]:
            yield ev.delta(ev.text_part("cut"), piece)
        if error == "in-band":
            yield {"type": "error", "data": {"message": TEXT, "details": OBJECT}}
        elif error:
            raise RuntimeError(TEXT)
        if hang:
            await asyncio.get_running_loop().create_future()

    if final is None:
        return events
    return lambda: ChatTurnProducer(stream=events(), final_text=lambda: final)


def assert_clean(*left):
    for thing in left:
        shown = thing if isinstance(thing, str) else json.dumps(thing, default=repr)
        plain = shown.replace("\\n", "\n").replace('\\"', '"')
        found = [one for one in TELLTALES if one in shown or one in plain]
        assert not found, found


PLACES = {
    "after lifecycle": lambda red: ops.lifecycle(errors="message") | red,
    "before and after": lambda red: red | ops.lifecycle(errors="message") | red,
    "after coalesce": lambda red: (
        ops.coalesce() | ops.lifecycle(errors="message") | red
    ),
    "behind a boundary": lambda red: (
        ops.lifecycle(errors="message") | ops.timeout(idle=30) | red
    ),
}
EXITS = {
    "completed": {},
    "completed with its own final text": {"final": TEXT},
    "failed by the source": {"error": "raised"},
    "failed in-band": {"error": "in-band"},
    "cancelled": {"hang": True},
}


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("exit_", EXITS.values(), ids=EXITS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_nothing_that_leaves_shows_a_secret(place, exit_, size):
    seen, saved, done, flushed = [], [], [], []
    chat = (
        Pipeline(produce(size, **exit_))
        | place(redact(*detectors.DEFAULT))
        | ops.tap(seen.append)
        | ops.accumulate()
        | ops.persist(saved.append, partial=True)
        | ops.complete(done.append)
        | ops.trace_flush(lambda turn: flushed.append((turn.text(), turn.parts())))
    )
    run = chat.start(IDENTITY, log=lambda message, meta: None)
    body = []
    async for chunk in run.body():
        body.append(chunk)
        if exit_.get("hang") and b"product.status" in chunk:
            asyncio.get_running_loop().call_soon(run.cancel, f"because of {TEXT}")
    outcome = await run.outcome()
    written = b"".join(body).decode()
    assert_clean(written, seen, flushed, outcome.text, outcome.final_text or "")
    assert_clean([[one.text, one.parts] for one in [*saved, *done]])
    assert len(saved) == len(flushed) == 1
    assert json.loads(written.splitlines()[-1])["type"].startswith("session.run.")
    assert written.count("[EMAIL]") > 10
    for name in ("text", "delta", "inputText", "output", "note", "prompt"):
        assert f'"{name}"' in written


async def test_a_reader_that_leaves_takes_no_secret_along():
    seen = []

    def save(record):
        seen.append([record.text, record.parts])

    for stop in range(1, 60, 7):
        chat = (
            Pipeline(produce(5))
            | ops.lifecycle()
            | redact(*detectors.DEFAULT)
            | ops.tap(seen.append)
            | ops.accumulate()
            | ops.persist(save, partial=True)
        )
        run = chat.start(IDENTITY)
        body = run.events()
        for _ in range(stop):
            seen += [await anext(body)]
        await body.aclose()
        assert_clean(seen)


async def test_an_operator_that_raises_after_it_shows_no_secret():
    def broken(event):
        if event.get("type") == "product.status":
            raise ValueError(event["note"])

    chat = (
        Pipeline(produce(5))
        | ops.lifecycle(errors="message")
        | redact(*detectors.DEFAULT)
        | ops.tap(broken, on_error="fail")
    )
    run = chat.start(IDENTITY, log=lambda message, meta: None)
    assert_clean(b"".join([chunk async for chunk in run.body()]).decode())
