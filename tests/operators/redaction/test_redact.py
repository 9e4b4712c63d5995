import json

import pytest

import operators as ops
from operators import CompositionError
from operators import event as ev
from operators.redaction import (
    Detector,
    RedactionOverflow,
    Vault,
    detectors,
    redact,
    restore,
)
from operators.testing import chop, deltas, feed

MAIL = "alice@example.com"
KEY = "sk-proj-abcdefghijklmnopqrstuvwx1234"
ALL = redact(*detectors.DEFAULT)
TEXT, OTHER = ev.text_part("a"), ev.reasoning_part("b")
TOOL = {"type": "tool", "id": "t", "tool": "send", "callID": "c"}


def text_of(events, part_id="p1"):
    return "".join(
        [
            event["data"]["delta"]
            for event in events
            if "delta" in event["data"] and event["data"]["part"]["id"] == part_id
        ]
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
async def test_a_secret_cut_anywhere_never_leaves(size):
    events = deltas(*chop(f"Hi {MAIL}, the key is {KEY}.", [size]))
    out = await feed(ALL, events)
    assert text_of(out) == "Hi [EMAIL], the key is [API_KEY]."
    assert all(event["data"]["part"] is events[0]["data"]["part"] for event in out)


async def test_what_holds_no_secret_passes_as_the_object_that_came():
    events = [ev.delta(TEXT, "Hello, "), {"type": "x", "data": {"n": [1, "two"]}}]
    events += [
        ev.tool_part("t", tool="f", call_id="c", status="running", input={"a": 1})
    ]
    out = await feed(ALL, events)
    assert all(a is b for a, b in zip(out, events, strict=True))


async def test_no_event_that_came_is_changed():
    events = [
        {
            "type": ev.PART_UPDATED,
            "data": {"part": {**TEXT, "text": MAIL}, "delta": MAIL},
        },
        ev.tool_part("t", tool="f", call_id="c", status="running", input={"a": [MAIL]}),
        ev.result(MAIL),
    ]
    before = json.dumps(events)
    await feed(ALL, events)
    assert json.dumps(events) == before


async def test_parts_side_by_side_keep_their_own_text():
    events = [
        ev.delta(TEXT, "to ali"),
        ev.delta(OTHER, "think sk-proj-abcdefghijklm"),
        ev.delta(TEXT, "ce@exam"),
        ev.delta(OTHER, "nopqrstuvwx ok"),
        ev.delta(TEXT, "ple.com ok"),
    ]
    out = await feed(ALL, events)
    assert text_of(out, "a") == "to [EMAIL] ok"
    assert text_of(out, "b") == "think [API_KEY] ok"


async def test_nothing_but_text_overtakes_held_text():
    tick = {"type": "tick"}
    events = [
        ev.delta(TEXT, "so hel"),
        tick,
        ev.delta(TEXT, "lo"),
        ev.delta(TOOL, "{}"),
    ]
    out = await feed(ALL, events)
    assert [one["data"]["delta"] if "data" in one else "tick" for one in out] == [
        "so ", "hel", "tick", "lo", "{}",
    ]  # fmt: skip


async def test_a_secret_around_an_event_is_masked_on_both_sides():
    events = [
        ev.delta(TEXT, f"a {KEY[:16]}"),
        {"type": "tick"},
        ev.delta(TEXT, KEY[16:] + " b"),
    ]
    out = await feed(ALL, events)
    assert [one.get("data", {}).get("delta") for one in out] == [
        "a ", "[API_KEY]", None, " ", "b",
    ]  # fmt: skip


async def test_growing_snapshots_show_what_is_decided_and_end_whole():
    text = f"mail {MAIL} now"
    events = [
        {"type": ev.PART_UPDATED, "data": {"part": {**TEXT, "text": text[:end]}}}
        for end in range(1, len(text) + 1)
    ]
    out = [event["data"]["part"]["text"] for event in await feed(ALL, events)]
    assert out[-1] == "mail [EMAIL] now"
    assert all(out[-1].startswith(shown) for shown in out)


async def test_a_delta_with_the_text_so_far_is_redacted_in_both():
    text = f"mail {MAIL} now"
    events = [
        {
            "type": ev.PART_UPDATED,
            "data": {"part": {**TEXT, "text": text[: k + 3]}, "delta": text[k : k + 3]},
        }
        for k in range(0, len(text), 3)
    ]
    turn_text = ""
    for event in await feed(ALL, events):
        turn_text += event["data"]["delta"]
        assert event["data"]["part"]["text"] == turn_text
    assert turn_text == "mail [EMAIL] now"


@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_tool_arguments_are_redacted_in_their_escapes_and_stay_json(size):
    raw = json.dumps({"to": [MAIL], "n": 4111111111111111}).replace("al", "\\u0061l")
    out = await feed(ALL, [ev.delta(TOOL, piece) for piece in chop(raw, [size])])
    assert json.loads(text_of(out, "t")) == {"to": ["[EMAIL]"], "n": "[CREDIT_CARD]"}


async def test_tool_arguments_shown_as_they_grow_are_redacted():
    raw = json.dumps({"to": MAIL, "text": f"key {KEY}"})
    events = [
        ev.tool_part("t", tool="f", call_id="c", status="pending", inputText=raw[:end])
        for end in range(len(raw) + 1)
    ]
    out = [e["data"]["part"]["state"]["inputText"] for e in await feed(ALL, events)]
    assert json.loads(out[-1]) == {"to": "[EMAIL]", "text": "key [API_KEY]"}
    assert all(out[-1].startswith(shown) for shown in out)


async def test_a_tools_state_is_redacted_deep_and_its_names_stay():
    state = {
        "input": {MAIL: [MAIL, 4111111111111111, {"x": (MAIL, 1.5, None, True)}]},
        "output": {"rows": [MAIL]},
        "error": {"message": MAIL},
        "note": MAIL,
    }
    event = ev.tool_part(
        "t", tool="f", call_id="4111111111111111", status="error", **state
    )
    (out,) = await feed(ALL, [event])
    part = out["data"]["part"]
    assert (part["id"], part["tool"], part["callID"]) == ("t", "f", "4111111111111111")
    assert part["state"]["status"] == "error"
    assert part["state"]["input"] == {
        "[EMAIL]": ["[EMAIL]", "[CREDIT_CARD]", {"x": ["[EMAIL]", 1.5, None, True]}]
    }
    assert MAIL not in json.dumps(out)


async def test_keys_that_become_alike_are_all_kept():
    (out,) = await feed(ALL, [{"type": "x", "a@b.co": 1, "c@d.de": 2, "[EMAIL]": 3}])
    assert sorted(v for k, v in out.items() if k != "type") == [1, 2, 3]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "data": {"message": MAIL, "details": {"cause": [MAIL]}}},
        {"type": "session.run.failed", "data": {"sessionId": "s", "message": MAIL}},
        {"type": "session.run.cancelled", "data": {"sessionId": "s", "reason": MAIL}},
        {"type": "result", "data": {"finalText": MAIL}},
        {"type": "of.a.product", "text": MAIL, "data": [MAIL, {MAIL: MAIL}]},
        {"type": "llm_call", "data": {"model": "m", "prompt": MAIL}},
        {"type": "x", "data": MAIL},
        {"no": "type", "data": {"delta": MAIL, "part": 3}},
        {"type": ["odd", MAIL]},
        {"type": ev.PART_UPDATED, "data": {"delta": MAIL}},
        {
            "type": ev.PART_UPDATED,
            "data": {"part": {"id": 1, "type": []}, "delta": MAIL},
        },
        {"type": ev.PART_UPDATED, "data": {"part": MAIL, "delta": MAIL}},
        {"type": ev.PART_UPDATED, "data": {"part": {"type": "file", "url": MAIL}}},
        {"type": ev.PART_UPDATED, "data": {"part": TEXT, "delta": MAIL, "meta": MAIL}},
        {"type": ev.PART_UPDATED, "data": {"part": TEXT, "delta": ""}, "meta": MAIL},
        {"type": ev.PART_UPDATED, "data": {"part": TEXT, "delta": "x "}, "meta": MAIL},
        {"type": ev.PART_UPDATED, "data": {"part": {**TEXT, "m": MAIL}, "delta": "x "}},
        {"type": ev.PART_UPDATED, "data": {"part": {**TEXT, "text": MAIL}}},
        {"type": ev.PART_UPDATED, "data": MAIL},
    ],
)
async def test_every_string_of_every_event_is_redacted(event):
    out = await feed(ALL, [event])
    assert MAIL not in json.dumps(out)
    assert "[EMAIL]" in json.dumps(out)


async def test_a_scope_that_is_not_chosen_is_left_alone():
    events = [
        *deltas("a@b.co "),
        ev.delta(OTHER, "a@b.co "),
        ev.delta(TOOL, '"a@b.co"'),
        ev.result("a@b.co"),
        {"type": "error", "data": {"message": "a@b.co"}},
        {"type": "x", "data": "a@b.co"},
    ]
    out = json.dumps(
        await feed(redact(detectors.EMAIL, scopes=["reasoning", "error"]), events)
    )
    assert out.count("[EMAIL]") == 2
    assert out.count("a@b.co") == 4


async def test_the_producers_own_final_text_is_redacted_before_it_is_stored(turn):
    seen = []
    turn.produced = f"whole {MAIL}"
    chain = ALL | ops.accumulate() | ops.persist(seen.append)
    await feed(chain, deltas("a"), turn=turn)
    assert [record.text for record in seen] == ["whole [EMAIL]"]


async def test_on_match_is_told_names_and_scopes_and_may_fail(turn, logged):
    told = []

    def tell(name, scope, turn):
        told.append((name, scope, turn.execution_id))
        raise ValueError("broken")

    op = redact(*detectors.DEFAULT, on_match=tell)
    out = await feed(op, [*deltas(f"{MAIL} "), ev.result(KEY)], turn=turn)
    assert told == [("EMAIL", "text", "x-1"), ("API_KEY", "result", "x-1")]
    assert [one["type"] for one in out] == [ev.PART_UPDATED, ev.RESULT]
    assert len(logged) == 2
    assert MAIL not in str(logged)


async def test_the_figures_of_a_turn_are_given_when_it_closes():
    seen = []
    op = redact(*detectors.DEFAULT, on_close=seen.append)
    await feed(op, deltas("Hello ", "wor", "ld ", MAIL, " ", f"{MAIL} "))
    (stats,) = seen
    assert stats.matches == {"EMAIL": 2}
    assert (stats.deltas, stats.held_p50, stats.held_p99) == (6, 0, len(MAIL))
    await feed(op, [])
    assert (seen[1].deltas, seen[1].held_p99) == (0, 0)


async def test_replacements_are_formats_or_functions():
    out = await feed(redact(detectors.EMAIL, replacement="<{name}>"), deltas(MAIL))
    assert text_of(out) == "<EMAIL>"
    op = redact(detectors.EMAIL, replacement=lambda name, text: text[0] + "***")
    assert text_of(await feed(op, deltas(MAIL))) == "a***"


async def test_a_replacement_that_raises_shows_nothing_of_the_event():
    def broken(name, text):
        raise ValueError("no")

    chain = ops.lifecycle() | redact(detectors.EMAIL, replacement=broken)
    out = await feed(chain, [ev.result(MAIL)])
    assert MAIL not in json.dumps(out)
    assert out[-1]["type"] == "session.run.failed"


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError, ValueError])
async def test_a_replacement_that_raises_between_deltas_fails_and_shows_nothing(error):
    calls = []

    def breaks_once(name, text):
        calls.append(name)
        if len(calls) == 1:
            raise error("no")
        return "***"

    chain = ops.lifecycle() | redact(detectors.EMAIL, replacement=breaks_once)
    out = await feed(chain, deltas("Hi ", f"{MAIL} ", "and more"))
    assert "example" not in json.dumps(out)
    assert out[-1]["type"] == "session.run.failed"


async def test_an_overflow_fails_the_turn_where_that_is_asked():
    op = redact(Detector.regex("X", "x[a-z]+", 10), on_overflow="fail")
    with pytest.raises(RedactionOverflow):
        await feed(op, deltas("so x" + "a" * 20 + " b"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: redact(), "detects nothing"),
        (lambda: redact("EMAIL"), "not str"),
        (lambda: redact(detectors.DEFAULT), r"unpack them"),
        (lambda: redact(detectors.EMAIL, detectors.EMAIL), "two detectors"),
        (lambda: redact(detectors.EMAIL, scopes="text"), "letter by letter"),
        (lambda: redact(detectors.EMAIL, scopes=["txt"]), "'txt'"),
        (lambda: redact(detectors.EMAIL, scopes=[]), "nothing"),
        (lambda: redact(detectors.EMAIL, on_overflow="pass"), "on_overflow"),
        (lambda: redact(detectors.EMAIL, replacement="{nam}"), "does not format"),
        (lambda: redact(detectors.EMAIL, replacement="{"), "does not format"),
        (lambda: redact(detectors.EMAIL, replacement="[x]", vault={}), "{n}"),
        (lambda: redact(detectors.EMAIL, on_match=3), "not callable"),
    ],
)
def test_a_wrong_composition_is_refused_with_the_mend(make, why):
    with pytest.raises(CompositionError, match=why):
        make()


def test_it_describes_what_it_covers():
    op = redact(detectors.EMAIL, detectors.JWT, scopes=["result", "text"])
    assert op.guards
    assert op.detail == {
        "kind": "redact",
        "detectors": ["EMAIL", "JWT"],
        "scopes": ["text", "result"],
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_what_the_vault_keeps_is_restored_however_it_is_cut(size, turn):
    vault = Vault()
    text = f"to {MAIL}, {KEY} and {MAIL} [EMAIL_x"
    chain = redact(*detectors.DEFAULT, vault=vault) | ops.accumulate() | restore(vault)
    out = await feed(chain, deltas(*chop(text, [size])), turn=turn)
    assert text_of(out) == text
    assert turn.text() == "to [EMAIL_1], [API_KEY_1] and [EMAIL_1] [EMAIL_x"
    assert MAIL not in repr(vault)


async def test_placeholders_are_restored_in_tool_arguments_results_and_errors():
    vault = {}
    raw = json.dumps({"to": MAIL, "say": f'"{MAIL}"'})
    events = [ev.delta(TOOL, piece) for piece in chop(raw, [3])]
    events += [ev.result(MAIL), {"type": "error", "data": {"message": MAIL}}]
    out = await feed(redact(detectors.EMAIL, vault=vault) | restore(vault), events)
    assert json.loads(text_of(out[:-2], "t")) == json.loads(raw)
    assert out[-2:] == events[-2:]


async def test_a_secret_of_one_turn_is_none_of_anothers():
    vault = Vault()
    out = await feed(redact(detectors.EMAIL, vault=vault), deltas(MAIL))
    assert text_of(await feed(restore(vault), out)) == "[EMAIL_1]"


async def test_a_secret_beyond_its_limit_is_kept_whole_in_the_vault():
    vault = {}
    key = "sk-" + "Ab1" * 1000
    await feed(redact(*detectors.DEFAULT, vault=vault), deltas(*chop(f"{key} x", [7])))
    assert vault == {"[API_KEY_1]": key}


async def test_a_part_whose_text_is_written_anew_is_redacted_anew():
    def shown(text):
        return {"type": ev.PART_UPDATED, "data": {"part": {**TEXT, "text": text}}}

    out = await feed(ALL, [shown(f"I am {MAIL} now"), shown(f"No: {KEY} it is")])
    assert out[-1]["data"]["part"]["text"] == "No: [API_KEY] it is"
    assert out[0]["data"]["part"]["text"].startswith("I am [EMAIL]")


async def test_a_part_that_says_nothing_passes_as_the_object_that_came():
    event = {"type": ev.PART_UPDATED, "data": {"part": {**TEXT}}}
    assert (await feed(ALL, [event]))[0] is event


async def test_what_stands_beside_no_part_is_redacted():
    event = {"type": ev.PART_UPDATED, "data": {"part": None, "note": MAIL}}
    assert (await feed(ALL, [event]))[0]["data"] == {"part": None, "note": "[EMAIL]"}


async def test_a_scope_that_is_left_alone_passes_at_once():
    reasoning = ev.delta(OTHER, "mail ")
    events = [reasoning, ev.delta(OTHER, MAIL), ev.delta(TEXT, MAIL)]
    out = await feed(redact(*detectors.DEFAULT, scopes=["text"]), events)
    assert out[0] is reasoning
    assert text_of(out, "b") == f"mail {MAIL}"
    assert text_of(out, "a") == "[EMAIL]"


async def test_keys_that_become_alike_are_numbered():
    data = {MAIL: 1, "b@example.org": 2, 3: MAIL, "[EMAIL]": 5}
    (out,) = await feed(ALL, [{"type": "x", "data": data}])
    assert out["data"] == {"[EMAIL] 2": 1, "[EMAIL] 3": 2, 3: "[EMAIL]", "[EMAIL]": 5}


async def test_a_replacement_may_be_a_function_of_name_and_text():
    op = redact(
        *detectors.DEFAULT, replacement=lambda name, text: f"<{name}{len(text)}>"
    )
    assert text_of(await feed(op, deltas(f"at {MAIL}."))) == f"at <EMAIL{len(MAIL)}>."


async def test_a_vault_keeps_a_number_that_is_taken():
    vault = {"[EMAIL_1]": "somebody else"}
    op = redact(*detectors.DEFAULT, vault=vault)
    assert text_of(await feed(op, deltas(f"at {MAIL}."))) == "at [EMAIL_2]."
    assert vault == {"[EMAIL_1]": "somebody else", "[EMAIL_2]": MAIL}


async def test_a_vault_that_lost_an_entry_is_given_it_again():
    vault = {}
    op = redact(*detectors.DEFAULT, vault=vault, on_match=lambda name, scope: None)
    assert text_of(await feed(op, deltas(f"{MAIL} "))) == "[EMAIL_1] "
    vault.clear()
    assert text_of(await feed(op, deltas(f"{MAIL} "))) == "[EMAIL_1] "
    assert vault == {"[EMAIL_1]": MAIL}


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_a_placeholder_that_may_be_a_longer_one_waits(size):
    table = {"[A]": "one", "[A][B]": "both", "[A][B][C]": "all"}
    text = "x [A][B][C] [A][B][ [A][ [A]"
    out = await feed(restore(table), deltas(*chop(text, [size])))
    assert text_of(out) == "x all both[ one[ one"


async def test_a_vault_takes_what_a_function_makes():
    vault = {}
    op = redact(detectors.EMAIL, vault=vault, replacement=lambda name, text: "<mail>")
    assert (
        text_of(await feed(op, deltas(f"at {MAIL}, b@c.de."))) == "at <mail>, <mail>."
    )
    assert vault == {"<mail>": "b@c.de"}


async def test_a_vault_that_forgets_is_not_given_the_rest_of_a_secret():
    class Forgets(dict):
        def __setitem__(self, key, value):
            pass

    note = {"type": "note"}
    op = redact(*detectors.DEFAULT, vault=Forgets())
    out = await feed(op, [*deltas(KEY[:20]), note, *deltas(KEY[20:], ". Hm")])
    assert KEY[20:] not in str(out)
