"""A store in a page: what the contract says, to compare random calls with.

Written from the contract alone. Its time is counted in units, which are long beside what
calls take; leases end half a unit later than asked, so never while the clock is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from operators.errors import (
    CursorGone,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
    StepDivergence,
    TurnActive,
    UnknownTurn,
)


class Piece(NamedTuple):
    """Lines to append: from `first` on, or with the id `event`."""

    run_id: str
    fence: int
    first: int
    said: Sequence[bytes]
    event: str | None = None


@dataclass(slots=True)
class ModelRun:
    """One run."""

    hash: str
    session: str | None
    owner: str | None
    until: float
    created: int
    fence: int = 1
    status: str = "running"
    ended: int | None = None
    settled_by: int = 0
    lines: list[bytes] = field(default_factory=list[bytes])
    kept_from: int = 1
    forgotten: bool = False
    events: dict[str, int] = field(default_factory=dict[str, int])
    steps: dict[int, list[Any]] = field(default_factory=dict[int, list[Any]])
    signals: dict[str, Any] = field(default_factory=dict[str, Any])
    outcome: Any = None
    handle: Any = None
    cancel: str | None = None


class Model:
    """All runs, and the rules."""

    def __init__(self) -> None:
        """Start empty."""
        self.now = 0
        self.runs: dict[str, ModelRun] = {}

    def leased(self, run: ModelRun) -> bool:
        """Whether somebody holds a run."""
        return run.owner is not None and run.until > self.now

    def known(self, run_id: str) -> ModelRun:
        """Return a run."""
        if run_id not in self.runs:
            raise UnknownTurn(run_id)
        return self.runs[run_id]

    def owned(self, run_id: str, fence: int) -> ModelRun:
        """Return a run that may be written under this fence."""
        run = self.known(run_id)
        if not self.leased(run) or run.fence != fence:
            raise LeaseLost(run_id)
        return run

    def claim(
        self,
        run_id: str,
        worker: str,
        *,
        hash_: str,
        session: str | None,
        lease: float,
        reenter: bool,
    ) -> tuple[str, int]:
        """Give the mode and the fence."""
        run = self.runs.get(run_id)
        if run is None:
            self._free(session)
            self.runs[run_id] = ModelRun(
                hash_, session, worker, self.now + lease, self.now
            )
            return "created", 1
        if run.hash != hash_:
            raise InputMismatch(run_id)
        ended = run.status != "running"
        if ended and not reenter:
            return "finished", 0
        live = self.leased(run)
        if live and run.owner != worker:
            raise LeaseHeld(run_id, run.owner or "", 1)
        if ended and run.status != "completed":
            self._free(run.session)
            run.status, run.outcome, run.ended = "running", None, None
            run.cancel, run.forgotten = None, False
        run.owner, run.until = worker, self.now + lease
        run.fence += 1
        return "reentered" if live or ended else "taken", run.fence

    def _free(self, session: str | None) -> None:
        for run_id, run in self.runs.items():
            if session and run.session == session and run.status == "running":
                raise TurnActive(run_id, lapsed=run.until <= self.now)

    def renew(self, worker: str, lease: float) -> dict[str, tuple[int, str | None]]:
        """Tell which runs a worker keeps."""
        kept = {k: r for k, r in self.runs.items() if self.leased(r)}
        kept = {k: r for k, r in kept.items() if r.owner == worker}
        for run in kept.values():
            run.until = self.now + lease
        return {run_id: (run.fence, run.cancel) for run_id, run in kept.items()}

    def release(self, run_id: str, fence: int) -> bool:
        """End a lease."""
        try:
            run = self.owned(run_id, fence)
        except (LeaseLost, UnknownTurn):
            return False
        run.owner, run.until = None, self.now
        return True

    def append(self, batch: Sequence[Piece]) -> list[tuple[int, bool] | None]:
        """Give the line and whether it is new; None where it may not be written."""
        grown: dict[str, list[bytes]] = {}
        events: dict[tuple[str, str], int] = {}
        answers: list[tuple[int, bool] | None] = []
        for piece in batch:
            run = self.runs.get(piece.run_id)
            if (
                run is None
                or not self.leased(run)
                or run.fence != piece.fence
                or run.status != "running"
            ):
                answers.append(None)
                continue
            new = grown.setdefault(piece.run_id, [])
            end = len(run.lines) + len(new)
            if piece.event is not None:
                key = piece.run_id, piece.event
                at = run.events.get(piece.event) or events.get(key)
                if at is not None:
                    answers.append((at, False))
                    continue
                events[key] = end + 1
            elif piece.first + len(piece.said) - 1 <= end:
                answers.append((piece.first, False))
                continue
            elif piece.first != end + 1:
                raise ValueError("a gap, or an overlap")
            new += piece.said
            answers.append((end + 1, True))
        for run_id, new in grown.items():
            self.runs[run_id].lines += new
        for (run_id, event), line in events.items():
            self.runs[run_id].events[event] = line
        return answers

    def read(self, run_id: str, after: int) -> tuple[bytes, bool]:
        """Give the rest of a log, and whether it is closed."""
        run = self.known(run_id)
        if after < len(run.lines) and after + 1 < run.kept_from:
            raise CursorGone(run_id, run.kept_from, len(run.lines))
        return b"".join(run.lines[after:]), run.status != "running"

    def settle(
        self, run_id: str, fence: int, status: str, outcome: Any, last: Piece | None
    ) -> None:
        """End a run."""
        run = self.known(run_id)
        if run.status == status and run.settled_by == fence:
            return
        again = run.status == "completed" and last is None
        if run.status != "running" and not again:
            raise LeaseLost(run_id)
        self.owned(run_id, fence)
        if last is not None:
            self.append([last])
        run.status, run.outcome, run.settled_by = status, outcome, fence
        run.owner, run.until, run.ended = None, self.now, self.now

    def request_cancel(self, run_id: str, reason: str) -> bool:
        """Leave word."""
        run = self.known(run_id)
        if run.status != "running":
            return False
        run.cancel = run.cancel if run.cancel is not None else reason
        return True

    def begin_step(
        self, run_id: str, fence: int, index: int, intent: str, hash_: str
    ) -> tuple[str, int]:
        """Give the status and the attempts."""
        run = self.owned(run_id, fence)
        step = run.steps.get(index)
        if step is None:
            run.steps[index] = [intent, hash_, "running", 1, None, None]
            return "running", 1
        if step[0] != intent or (step[1] and hash_ and step[1] != hash_):
            raise StepDivergence(run_id, index, "", "")
        step[2:4] = "running", step[3] + 1
        step[5] = None
        return "running", step[3]

    def end_step(
        self, run_id: str, fence: int, index: int, result: Any, error: Any
    ) -> tuple[str, int]:
        """Give the status and the attempts."""
        run = self.owned(run_id, fence)
        if index not in run.steps:
            raise LookupError
        step = run.steps[index]
        step[2] = "completed" if error is None else "failed"
        step[5] = error
        if error is None:
            step[4] = result
        return step[2], step[3]

    def emit(
        self, run_id: str, key: str, payload: Any, fence: int | None
    ) -> tuple[Any, bool]:
        """Give what holds, and whether it is this."""
        run = self.known(run_id) if fence is None else self.owned(run_id, fence)
        if key in run.signals:
            return run.signals[key], False
        run.signals[key] = payload
        return payload, True

    def set_handle(self, run_id: str, fence: int, handle: Any) -> None:
        """Keep it."""
        self.owned(run_id, fence).handle = handle

    def forget(self, older_than: float) -> int:
        """Let go of what has ended so many units ago."""
        gone = 0
        for run in self.runs.values():
            if run.ended is None or run.forgotten or self.now - run.ended < older_than:
                continue
            run.forgotten = True
            run.kept_from = len(run.lines) + 1
            run.events.clear()
            run.steps.clear()
            run.signals.clear()
            gone += 1
        return gone

    def orphans(self) -> dict[str, float]:
        """Give when the leases of running runs ended that have none."""
        return {
            run_id: run.until
            for run_id, run in self.runs.items()
            if run.status == "running" and run.until <= self.now
        }
