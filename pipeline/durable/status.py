"""What a hub tells of a turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..stores.contract import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStatus:
    """How a turn stands, as its store knows it.

    `status` is `"lost"` while its worker is gone and nobody has recovered it. `cursor`
    is the number of its last line. Times are UNIX seconds of the store's clock.
    """

    execution_id: str
    session_id: str | None
    status: Literal["running", "completed", "failed", "cancelled", "lost"]
    cursor: int
    owner: str | None
    error_code: str | None
    cancel_reason: str | None
    started_at: float
    updated_at: float
    ended_at: float | None


def is_turn(run: Run) -> bool:
    """Tell a hub's turn from a durable run, which a store may keep beside it."""
    return "identity" in run.meta


def status_of(run: Run) -> TurnStatus:
    """Make the status of a run of the store."""
    identity: Any = run.meta.get("identity") or {}
    return TurnStatus(
        execution_id=run.id,
        session_id=identity.get("sessionId"),
        status="lost" if run.lapsed_s is not None else run.status,
        cursor=run.lines,
        owner=run.owner,
        error_code=(run.outcome or {}).get("code"),
        cancel_reason=run.cancel,
        started_at=run.created_at,
        updated_at=run.updated_at,
        ended_at=run.ended_at,
    )
