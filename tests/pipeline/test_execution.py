"""Execution ids and canonical JSON: the golden cases, and what they leave open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import execution
from pipeline.execution import (
    canonical_hash,
    canonical_json,
    derive_execution_id,
    manifest_hash,
    step_id,
)

VECTORS = Path(__file__).parents[1] / "data" / "vectors" / "functions.jsonl"
CASES = [
    case
    for case in map(json.loads, VECTORS.read_text("utf-8").split("\n")[:-1])
    if case["fn"] != "encode_sse"
]
ERRORS = {"TypeError": TypeError, "RangeError": ValueError}


def call(fn: str, args: list[Any]) -> object:
    if fn == "derive_execution_id":
        given = args[0]
        args = [given["projectId"], given["sessionId"], given["turnIndex"]]
    return getattr(execution, fn)(*args)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['fn']}-{c['name']}")
def test_the_golden_cases_hold(case: dict[str, Any]) -> None:
    expected = case["expected"]
    if "error" in expected:
        with pytest.raises(ERRORS[expected["error"]]) as caught:
            call(case["fn"], case["args"])
        assert str(caught.value) == expected["message"]
    else:
        assert call(case["fn"], case["args"]) == expected["value"]


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    str.strip
)


@given(ids, ids, st.integers(0, 2**53 - 1))
def test_an_execution_id_can_be_taken_apart_again(
    project: str, session: str, index: int
) -> None:
    """So different turns never share one."""
    name = derive_execution_id(project, session, index)
    assert [unquote(part) for part in name.split(":")] == [
        project,
        session,
        str(index),
    ]
    assert name.isascii()


def test_ids_are_encoded_as_encode_uri_component_does() -> None:
    assert derive_execution_id("a:b/c?", "-_.!~*'()é 😀", 7) == (
        "a%3Ab%2Fc%3F:-_.!~*'()%C3%A9%20%F0%9F%98%80:7"
    )


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((None, "s", 0), TypeError, "projectId must be a non-empty string"),
        ((b"p", "s", 0), TypeError, "projectId must be a non-empty string"),
        (("p", 3, 0), TypeError, "sessionId must be a non-empty string"),
        (("p", "\ud800", 0), ValueError, "sessionId has a lone surrogate"),
        (("p", "s", True), ValueError, "turnIndex must be a non-negative safe"),
        (("p", "s", 1.0), ValueError, "turnIndex must be a non-negative safe"),
        (("p", "s", 2**53), ValueError, "turnIndex must be a non-negative safe"),
        (("p", "s" * 253, 0), ValueError, "has 257 characters, at most 256"),
    ],
)
def test_bad_ids_are_refused(args: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        derive_execution_id(*args)


def test_an_execution_id_may_have_256_characters() -> None:
    assert len(derive_execution_id("p", "s" * 252, 0)) == 256


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_canonical_numbers_read_back_as_themselves(number: float) -> None:
    assert float(canonical_json(number)) == number


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (-0.0, "0"),
        (100.0, "100"),
        (1e-6, "0.000001"),
        (1.5e300, "1.5e+300"),
        (2**53 - 1, "9007199254740991"),
        (-(2**60), "-1152921504606847000"),
        (2**53 + 1, '{"__bigint":"9007199254740993"}'),
        (10**400, f'{{"__bigint":"1{"0" * 400}"}}'),
        ([{"b": 2**53 + 1, "a": (1, None)}], '[{"a":[1,null],"b":'
         '{"__bigint":"9007199254740993"}}]'),
    ],
)  # fmt: skip
def test_canonical_values_are_written_as_the_original_writes_them(
    value: Any, written: str
) -> None:
    assert canonical_json(value) == written


def circle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def tower() -> list[Any]:
    made: list[Any] = []
    for _ in range(5000):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), TypeError, "value: nan is not JSON"),
        ({"a": [float("-inf")]}, TypeError, r"value\['a'\]\[0\]: -inf is not JSON"),
        ({"a": {1}}, TypeError, r"value\['a'\]: set is not JSON"),
        ({"a": b""}, TypeError, r"value\['a'\]: bytes is not JSON"),
        ({1: 1}, TypeError, "value: key 1 is int, JSON keys are strings: use str"),
        ({"\ud800": 1}, ValueError, r"value: lone surrogate in '\\ud800'"),
        (["\ud800"], ValueError, r"value\[0\]: lone surrogate in '\\ud800'"),
        ([10**5000 + 1], ValueError, r"value\[0\]: integer too long to write"),
        (circle(), ValueError, r"value\[0\]: circular structure"),
        (tower(), ValueError, "value is nested too deeply"),
    ],
)
def test_what_has_no_canonical_form_is_named(
    value: Any, error: type[Exception], message: str
) -> None:
    for function in (canonical_json, canonical_hash):
        with pytest.raises(error, match=message):
            function(value)


MANIFEST: dict[str, Any] = {
    "project_id": "p",
    "task": {"id": "t", "intent": "chat", "domain": "d"},
    "input": {"message": "hi"},
}


def test_a_manifest_hash_is_that_of_the_named_fields() -> None:
    expected = canonical_hash(
        {
            "projectId": "p",
            "scenarioId": None,
            "taskId": "t",
            "taskIntent": "chat",
            "taskDomain": "d",
            "input": {"message": "hi"},
        }
    )
    assert manifest_hash(MANIFEST) == expected
    assert manifest_hash({**MANIFEST, "tags": ["x"], "metadata": {"y": 1}}) == expected
    assert manifest_hash({**MANIFEST, "scenario_id": "s"}) != expected
    assert manifest_hash({**MANIFEST, "input": {"message": "ho"}}) != expected


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "manifest.task is missing"),
        ({"task": 1, "project_id": "p"}, "manifest.task must be a dict, not int"),
        ({**MANIFEST, "project_id": None}, "manifest.project_id is missing"),
        (
            {**MANIFEST, "task": {"id": "t", "intent": "i"}},
            "manifest.task.domain is missing",
        ),
        (3, "manifest must be a dict, not int"),
    ],
)
def test_an_incomplete_manifest_says_what_is_missing(
    manifest: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        manifest_hash(manifest)


def test_a_step_id_is_the_hash_of_its_place_and_intent() -> None:
    assert step_id("r", 0, "llm") == canonical_hash(
        {"runId": "r", "stepIndex": 0, "intent": "llm"}
    )
    assert step_id("r", 1, "llm") != step_id("r", 0, "llm")
