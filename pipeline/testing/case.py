"""What one run of the exit matrix is to do, and what it did: `Case` and `Seen`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from operators.operator import Operator, Stage
from operators.turn import TurnIdentity, TurnOutcome

from ..pipeline import Pipeline
from ..run import OnDisconnect
from .script import Scripted

Factory: TypeAlias = Callable[[Callable[..., Any]], Pipeline]
Reading: TypeAlias = Literal["events", "body", "headless", "unread"]
Action: TypeAlias = Literal["", "cancel", "task", "aclose", "detach", "stop"]

IDENTITY = TurnIdentity(
    tenant_id="tenant", session_id="session", user_id="user", turn_index=0
)
SETTLE_S = 10.0
DETACH_S = 300.0
PATIENCE_S = DETACH_S + 10 * SETTLE_S
"""Virtual seconds after which a reader, or an outcome, does not come any more."""


class Injected(Exception):
    """Raised on purpose, to see what the pipeline makes of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run and to disturb a turn: a row, or one step of a row.

    `action` comes when the loop goes around for the `step`th time, `second` that many
    rounds later. `inject` makes a part of an operator raise, or hang, on its first
    call. `insert` puts an operator before the one of that index. `expect` is how the
    turn may end, `code` its code.
    """

    row: str
    reading: Reading = "events"
    mode: OnDisconnect = "cancel"
    script: Mapping[str, Any] = field(default_factory=dict[str, Any])
    events: tuple[Any, ...] | None = None
    action: Action = ""
    step: int = 0
    second: int | None = None
    inject: tuple[int, str] | None = None
    hangs: bool = False
    insert: tuple[int, Operator] | None = None
    wrap: Callable[[Scripted], Callable[..., Any]] | None = None
    expect: frozenset[str] = frozenset({"completed"})
    code: str | None = None
    faulty: bool = False
    drained: bool = False

    def __str__(self) -> str:
        """Name the row and the step."""
        how = {"cancel": "inline", "detach": "owned"}[self.mode]
        told = [self.row, how, self.reading]
        if self.action:
            told.append(f"step {self.step}")
        if self.second is not None:
            told.append(f"again {self.second} later")
        return ", ".join(told)


@dataclass(slots=True)
class Seen:
    """What one run did."""

    case: Case
    script: Scripted
    names: list[str]
    events: list[Any] = field(default_factory=list[Any])
    got: list[Any] = field(default_factory=list[Any])
    raised: BaseException | None = None
    cancelled: bool = False
    acted: bool = False
    read_all: bool = False
    stuck: str | None = None
    outcome: TurnOutcome | None = None
    took: float = 0.0
    logs: list[tuple[str, dict[str, Any]]] = field(
        default_factory=list[tuple[str, dict[str, Any]]]
    )
    stages: dict[int, Stage] = field(default_factory=dict[int, Stage])
    begun: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    ended: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    injected: bool = False
    wrote: list[str] = field(default_factory=list[str])
    source_open: bool = False
    left: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])

    def note(self, event: Any) -> None:
        """Keep what came out of the operators."""
        self.events.append(event)

    @property
    def enveloped(self) -> bool:
        """Whether a lifecycle stands in the pipeline."""
        return any(stage.envelope is not None for stage in self.stages.values())
