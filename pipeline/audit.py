"""Who sees a turn's text before it is redacted: every sink, tap, wire and trace.

Found from the operators' descriptions alone: nothing is run but `open`. What a `redact`
does not detect is not seen here either; the audit tells of places, not of patterns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from operators.event import (
    ERROR,
    PART_UPDATED,
    RESULT,
    RUN_CANCELLED,
    RUN_FAILED,
    Event,
)
from operators.operator import Stage
from operators.turn import TurnContext, TurnIdentity

if TYPE_CHECKING:
    from operators.operator import Operator

    from .pipeline import Pipeline

SCOPES: Final = (
    "text",
    "reasoning",
    "tool_input",
    "tool_output",
    "error",
    "result",
    "other",
)
"""Where free text stands in events, as `redact` names it."""

_OF_TYPE: Final[Mapping[str, frozenset[str]]] = {
    PART_UPDATED: frozenset(
        {"text", "reasoning", "tool_input", "tool_output", "other"}
    ),
    RESULT: frozenset({"result"}),
    ERROR: frozenset({"error"}),
    RUN_FAILED: frozenset({"error"}),
    RUN_CANCELLED: frozenset({"error"}),
}
_STORED: Final = frozenset(SCOPES) - {"error"}
_ALL: Final = frozenset(SCOPES)
_OBSERVERS: Final = ("tap", "share", "guard")
_SINKS: Final = ("persist", "complete", "transform")


@dataclass(frozen=True, slots=True)
class View:
    """What one observer sees: `open` unredacted, `covered` redacted, by whom.

    `kind` is `tap`, `sink`, `wire`, `log` or the operator's own kind; `position` counts
    the operators from 1, and is None for what is no operator.
    """

    name: str
    kind: str
    position: int | None
    open: tuple[str, ...]
    covered: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """The views of a pipeline, in the order of the stream."""

    views: tuple[View, ...]

    @property
    def open(self) -> tuple[View, ...]:
        """The views in which something is unredacted."""
        return tuple([view for view in self.views if view.open])

    def __str__(self) -> str:
        """Tell every view in a few lines."""
        lines: list[str] = []
        for view in self.views:
            at = f"{view.position} " if view.position else ""
            lines.append(f"{'OPEN  ' if view.open else 'closed'} {at}{view.name}")
            if view.open:
                lines.append(f"         unredacted: {', '.join(view.open)}")
            by: dict[str, list[str]] = {}
            for scope, who in view.covered.items():
                by.setdefault(who, []).append(scope)
            lines += [
                f"         {', '.join(scopes)}: by {who}" for who, scopes in by.items()
            ]
            if view.note:
                lines.append(f"         {view.note}")
        return "\n".join(lines)


def audit(pipeline: Pipeline) -> Audit:
    """Find out who sees which text before it is redacted."""
    return Audit(tuple(_views(pipeline)))


def _views(pipeline: Pipeline) -> Iterator[View]:
    turn = TurnContext(TurnIdentity(session_id="audit", turn_index=0), log_to=_unheard)
    covered: dict[str, str] = {}
    stored: dict[str, str] = {}
    for position, operator in enumerate(pipeline.operators, 1):
        kind = str(operator.detail.get("kind", operator.name))
        stage = _opened(operator, turn)
        label = f"{position} {operator.name}"
        if operator.name == "lifecycle":
            if operator.detail.get("errors") == "message":
                # Its own messages are new text: who stands before it never sees them.
                covered.pop("error", None)
        elif kind == "redact":
            for scope in _scopes(operator):
                covered[scope] = (
                    f"{covered[scope]}, {label}" if scope in covered else label
                )
        elif kind == "restore":
            covered.clear()
        elif kind == "accumulate":
            stored = dict(covered)
        elif kind in _SINKS:
            yield _view(operator.name, "sink", position, _STORED, stored)
        elif kind in _OBSERVERS or _only_looks(operator, stage):
            yield _view(operator.name, kind, position, _seen(stage), covered)
    yield _view("the wire", "wire", None, _ALL, covered)
    yield View(
        "the log and the trace",
        "log",
        None,
        (),
        {},
        "an error's own text goes there unredacted, under its errorId; nothing else does",
    )


def _unheard(message: str, meta: Mapping[str, Any]) -> None:
    """Log nothing: the turn is none."""


def _sees_all(event: Event) -> None:
    """Stand in for an operator that cannot be opened now."""


def _opened(operator: Operator, turn: TurnContext) -> Stage:
    try:
        return operator.open(turn)
    except Exception:
        return Stage(_sees_all)


def _only_looks(operator: Operator, stage: Stage) -> bool:
    """Tell whether it is somebody's own class that sees the events and changes none."""
    own = "kind" not in operator.detail and stage.envelope is None
    return own and stage.on_event is not None and stage.shape == "tap"


def _scopes(operator: Operator) -> tuple[str, ...]:
    scopes: Any = operator.detail.get("scopes")
    if scopes is None:
        return SCOPES
    return tuple([str(scope) for scope in cast("tuple[object, ...]", scopes)])


def _seen(stage: Stage) -> frozenset[str]:
    if stage.types is None:
        return _ALL
    seen: frozenset[str] = frozenset()
    for kind in stage.types:
        seen |= _OF_TYPE.get(kind, frozenset({"other"}))
    return seen


def _view(
    name: str,
    kind: str,
    position: int | None,
    seen: frozenset[str],
    covered: Mapping[str, str],
) -> View:
    return View(
        name,
        kind,
        position,
        tuple([scope for scope in SCOPES if scope in seen and scope not in covered]),
        {
            scope: covered[scope]
            for scope in SCOPES
            if scope in seen and scope in covered
        },
    )
