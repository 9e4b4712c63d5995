"""The audit names everybody who sees text before it is redacted, by scope."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import operators as ops
from pipeline import Pipeline
from pipeline.audit import SCOPES, audit

COMMAND = (sys.executable, "-c", "from pipeline.cli import main; main()")
EMAIL = ops.detectors.EMAIL


def save(record): ...


def look(event): ...


def views(chat):
    return {view.name: view for view in audit(chat).views}


def chat(*stages):
    made = Pipeline(list)
    for stage in stages:
        made |= stage
    return made


def test_without_redaction_every_observer_is_open():
    found = views(
        chat(ops.lifecycle(), ops.tap(look), ops.accumulate(), ops.persist(save))
    )
    assert found["tap(look)"].open == SCOPES
    assert set(found["persist(save)"].open) == set(SCOPES) - {"error"}
    assert found["the wire"].open == SCOPES
    assert found["the log and the trace"].open == ()


def test_redaction_closes_what_stands_right_of_it_and_names_who_did():
    found = audit(
        chat(
            ops.tap(look, name="before"),
            ops.lifecycle(),
            ops.redact(EMAIL),
            ops.tap(look, name="after"),
            ops.accumulate(),
            ops.persist(save),
        )
    )
    assert [view.name for view in found.open] == ["before"]
    after = next(view for view in found.views if view.name == "after")
    assert after.covered == dict.fromkeys(SCOPES, "3 redact")


def test_what_is_stored_is_what_was_accumulated_wherever_the_sink_stands():
    found = views(
        chat(ops.lifecycle(), ops.accumulate(), ops.redact(EMAIL), ops.persist(save))
    )
    assert set(found["persist(save)"].open) == set(SCOPES) - {"error"}
    assert found["the wire"].open == ()


def test_the_lifecycles_own_messages_pass_who_stands_before_it():
    for errors, open_ in (("message", ("error",)), ("masked", ())):
        found = views(chat(ops.redact(EMAIL), ops.lifecycle(errors=errors)))
        assert found["the wire"].open == open_


def test_scopes_left_out_stay_open_and_several_redactions_add_up():
    texts = ops.redact(EMAIL, scopes=("text", "result"))
    found = views(chat(ops.lifecycle(), texts))
    assert "text" not in found["the wire"].open
    assert "tool_output" in found["the wire"].open
    rest = ops.redact(EMAIL, scopes=[s for s in SCOPES if s not in ("text", "result")])
    found = views(chat(ops.lifecycle(), texts, rest))
    assert found["the wire"].open == ()
    assert found["the wire"].covered["text"] == "2 redact"
    assert found["the wire"].covered["error"] == "3 redact"


def test_a_tap_of_other_types_sees_only_their_texts():
    found = views(
        chat(
            ops.tap(look, types=["llm_call"]), ops.tap(look, types=["error"], name="e")
        )
    )
    assert found["tap(look)"].open == ("other",)
    assert found["e"].open == ("error",)


def test_what_is_restored_is_open_again():
    vault = ops.Vault()
    found = views(
        chat(ops.lifecycle(), ops.redact(EMAIL, vault=vault), ops.restore(vault))
    )
    assert found["the wire"].open == SCOPES


def test_a_class_that_only_looks_is_an_observer():
    class Meter:
        def on_event(self, event): ...

    class Broken:
        def __init__(self):
            raise ValueError

        def on_event(self, event): ...

    found = views(chat(ops.operator(Meter), ops.operator(Broken)))
    assert found["Meter"].open == SCOPES
    assert found["Broken"].open == SCOPES


@pytest.mark.parametrize("redacted", [True, False])
def test_the_command_exits_with_1_where_a_path_is_open(tmp_path, redacted):
    middle = "| ops.redact(ops.detectors.EMAIL)" if redacted else ""
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            f"""
            import operators as ops
            from pipeline import Pipeline
            chat = Pipeline(list) | ops.lifecycle() {middle} | ops.tap(print)
            """
        )
    )
    done = subprocess.run(
        [*COMMAND, "audit", "mine:chat"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if redacted else 1), done
    assert "tap(print)" in done.stdout
    assert ("OPEN" in done.stdout) is not redacted
    assert not done.stderr
