"""Names of executions and fingerprints of their input: ids, canonical JSON, hashes.

Canonical JSON is RFC 8785, by the library `rfc8785`: keys sorted by UTF-16 code unit,
numbers as ECMAScript prints them, no spaces. Equal values give equal bytes, here and in
any other implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

MAX_EXECUTION_ID: Final = 256
"""Characters of an execution id: what fits a header and a database key."""

_SAFE_INTEGER: Final = 2**53 - 1

# What encodeURIComponent leaves as it is (ECMA-262, 19.2.6.4: uriUnescaped).
_UNRESERVED: Final = "-_.!~*'()"
_PLAIN: Final = _UNRESERVED.encode() + (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)


def derive_execution_id(project_id: str, session_id: str, turn_index: int) -> str:
    """Name the execution of one turn: `project:session:index`, ids percent-encoded.

    The encoding is `encodeURIComponent`'s, so different turns never share a name.

    Raises:
        TypeError: an id is not a string, or blank.
        ValueError: the index is not a non-negative safe integer, an id has a lone
            surrogate, or the name has more than 256 characters.
    """
    try:  # mostly nothing is left of them without what needs no encoding
        plain = (
            project_id
            and session_id
            and not project_id.encode().translate(None, _PLAIN)
            and not session_id.encode().translate(None, _PLAIN)
        )
    except (AttributeError, UnicodeEncodeError):
        plain = False
    if not plain:
        project_id = _encoded("projectId", project_id)
        session_id = _encoded("sessionId", session_id)
    if turn_index.__class__ is not int or not 0 <= turn_index <= _SAFE_INTEGER:
        raise ValueError("turnIndex must be a non-negative safe integer")
    name = f"{project_id}:{session_id}:{turn_index}"
    if len(name) > MAX_EXECUTION_ID:
        raise ValueError(
            f"the execution id has {len(name)} characters, at most {MAX_EXECUTION_ID} "
            f"are allowed: use shorter ids"
        )
    return name


def _encoded(name: str, given: object) -> str:
    from urllib.parse import quote

    if not isinstance(given, str) or not given.strip():
        raise TypeError(f"{name} must be a non-empty string")
    try:
        return quote(given, safe=_UNRESERVED)
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has a lone surrogate: {given!a}") from error


def canonical_json(value: Any) -> str:
    """Write `value` as RFC 8785 canonical JSON.

    It takes None, booleans, strings, finite numbers, lists, tuples and dicts with
    string keys. An integer beyond 2**53 is written as a number when a double holds it
    exactly; otherwise as the original writes a BigInt, `{"__bigint": "<digits>"}`.

    Raises:
        TypeError: something else is in it, NaN and Infinity included.
        ValueError: a string has a lone surrogate, or the structure is circular or
            nested too deeply.
    """
    return _canonical(value).decode()


def canonical_hash(value: Any) -> str:
    """Fingerprint `value`: the SHA-256 of its canonical JSON, in lower-case hex.

    Raises:
        TypeError: as `canonical_json`.
        ValueError: as `canonical_json`.
    """
    import hashlib

    return hashlib.sha256(_canonical(value)).hexdigest()


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Fingerprint what a durable run is asked to do.

    `manifest` is `{"project_id", "task": {"id", "intent", "domain"}, "input"}`, with
    `scenario_id` if there is one; `input` may be left out. Other keys do not count.

    Raises:
        TypeError: a key is missing, or something in `input` is not JSON.
        ValueError: as `canonical_json`.
    """
    task = _needed(manifest, "task", "manifest")
    return canonical_hash(
        {
            "projectId": _needed(manifest, "project_id", "manifest"),
            "scenarioId": manifest.get("scenario_id"),
            "taskId": _needed(task, "id", "manifest.task"),
            "taskIntent": _needed(task, "intent", "manifest.task"),
            "taskDomain": _needed(task, "domain", "manifest.task"),
            "input": manifest.get("input"),
        }
    )


def step_id(run_id: str, step_index: int, intent: str) -> str:
    """Name one step of a run: the hash of the run, the step's place and its intent."""
    return canonical_hash({"runId": run_id, "stepIndex": step_index, "intent": intent})


def _needed(holder: object, key: str, name: str) -> Any:
    if not isinstance(holder, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(holder).__name__}")
    found = cast("Mapping[str, Any]", holder).get(key)
    if found is None:
        raise TypeError(f"{name}.{key} is missing")
    return found


def _canonical(value: Any) -> bytes:
    from rfc8785 import dumps

    try:
        return dumps(value)
    except (ValueError, RecursionError):
        pass
    try:
        return dumps(_mended(value, "value", set()))
    except RecursionError:
        raise ValueError("value is nested too deeply: flatten it") from None


def _mended(value: Any, path: str, above: set[int]) -> Any:
    """Copy `value` with long integers spelled out, or say what is not JSON in it."""
    if value is None or isinstance(value, bool):
        return value
    for kind, mend in _LEAVES.items():
        if isinstance(value, kind):
            return mend(value, path)
    if not isinstance(value, dict | list | tuple):
        raise TypeError(f"{path}: {type(value).__name__} is not JSON")
    if id(cast("object", value)) in above:
        raise ValueError(f"{path}: circular structure, it contains itself")
    above.add(id(cast("object", value)))
    copy: Any
    if isinstance(value, dict):
        members = cast("dict[Any, Any]", value)
        copy = {
            _key(key, path): _mended(member, f"{path}[{key!r}]", above)
            for key, member in members.items()
        }
    else:
        items = enumerate(cast("list[Any]", value))
        copy = [_mended(member, f"{path}[{k}]", above) for k, member in items]
    above.discard(id(cast("object", value)))
    return copy


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(
            f"{path}: key {key!r} is {type(key).__name__}, JSON keys are strings: "
            f"use str(key)"
        )
    return _string(key, path)


def _string(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: lone surrogate in {text[:60]!a}") from None
    return text


def _integer(number: int, path: str) -> Any:
    if -_SAFE_INTEGER <= number <= _SAFE_INTEGER:
        return number
    try:
        double = float(number)
    except OverflowError:
        double = math.nan
    if double == number:
        return double
    try:
        return {"__bigint": int.__repr__(number)}
    except ValueError as error:  # more digits than the interpreter converts
        raise ValueError(f"{path}: integer too long to write: send text") from error


def _float(number: float, path: str) -> float:
    if not math.isfinite(number):
        raise TypeError(
            f"{path}: {float(number)} is not JSON: use None or a finite number"
        )
    return number


_LEAVES: Final[dict[type, Callable[[Any, str], Any]]] = {
    str: _string,
    int: _integer,
    float: _float,
}
