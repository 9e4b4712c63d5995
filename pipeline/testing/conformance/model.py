"""A store in a page: what the contract says, for the random driver to compare with.

Written from the contract alone. It knows no time: a lease lives until it is released,
or all of them lapse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from operators.errors import (
    CursorGone,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
    StepDivergence,
    TurnActive,
    UnknownTurn,
)


@dataclass(slots=True)
class ModelRun:
    """One run."""

    hash: str
    session: str | None
    owner: str | None
    live: bool = True
    fence: int = 1
    status: str = "running"
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

    @property
    def leased(self) -> bool:
        """Whether somebody holds it."""
        return self.owner is not None and self.live


class Model:
    """All runs, and the rules."""

    def __init__(self) -> None:
        """Start empty."""
        self.runs: dict[str, ModelRun] = {}

    def lapse(self) -> None:
        """End every lease."""
        for run in self.runs.values():
            run.live = False

    def known(self, run_id: str) -> ModelRun:
        """Return a run."""
        if run_id not in self.runs:
            raise UnknownTurn(run_id)
        return self.runs[run_id]

    def owned(self, run_id: str, fence: int) -> ModelRun:
        """Return a run that may be written under this fence."""
        run = self.known(run_id)
        if not run.leased or run.fence != fence:
            raise LeaseLost(run_id)
        return run

    def claim(
        self, run_id: str, hash_: str, session: str | None, worker: str, reenter: bool
    ) -> tuple[str, int]:
        """Give the mode and the fence."""
        run = self.runs.get(run_id)
        if run is None:
            self._free(session)
            self.runs[run_id] = ModelRun(hash_, session, worker)
            return "created", 1
        if run.hash != hash_:
            raise InputMismatch(run_id)
        ended = run.status != "running"
        if ended and not reenter:
            return "finished", 0
        if run.leased and run.owner != worker:
            raise LeaseHeld(run_id, run.owner or "", 1)
        if ended and run.status != "completed":
            self._free(run.session)
            run.status, run.outcome, run.cancel = "running", None, None
            run.forgotten = False
        mode = "reentered" if run.leased or ended else "taken"
        run.owner, run.live = worker, True
        run.fence += 1
        return mode, run.fence

    def _free(self, session: str | None) -> None:
        for run_id, run in self.runs.items():
            if session and run.session == session and run.status == "running":
                raise TurnActive(run_id)

    def renew(self, worker: str) -> dict[str, tuple[int, str | None]]:
        """Tell which runs a worker keeps."""
        return {
            run_id: (run.fence, run.cancel)
            for run_id, run in self.runs.items()
            if run.leased and run.owner == worker
        }

    def release(self, run_id: str, fence: int) -> bool:
        """End a lease."""
        try:
            self.owned(run_id, fence).owner = None
        except (LeaseLost, UnknownTurn):
            return False
        return True

    def append(
        self, run_id: str, fence: int, first: int, said: list[bytes], event: str | None
    ) -> tuple[int, bool] | None:
        """Give the line and whether it is new; None where it may not be written."""
        run = self.runs.get(run_id)
        if (
            run is None
            or not run.leased
            or run.fence != fence
            or run.status != "running"
        ):
            return None
        end = len(run.lines)
        if event is not None:
            if event in run.events:
                return run.events[event], False
            run.events[event] = end + 1
        elif first <= end and first + len(said) - 1 <= end:
            return first, False
        elif first != end + 1:
            raise ValueError("a gap, or an overlap")
        run.lines.extend(said)
        return end + 1, True

    def read(self, run_id: str, after: int) -> tuple[bytes, bool]:
        """Give the rest of a log, and whether it is closed."""
        run = self.known(run_id)
        if after < len(run.lines) and after + 1 < run.kept_from:
            raise CursorGone(run_id, run.kept_from, len(run.lines))
        return b"".join(run.lines[after:]), run.status != "running"

    def settle(
        self, run_id: str, fence: int, status: str, outcome: Any, said: list[bytes]
    ) -> None:
        """End a run."""
        run = self.known(run_id)
        if run.status == status and run.settled_by == fence:
            return
        again = run.status == "completed" and not said
        if run.status != "running" and not again:
            raise LeaseLost(run_id)
        self.owned(run_id, fence)
        run.lines.extend(said)
        run.status, run.outcome, run.settled_by = status, outcome, fence
        run.owner = None

    def begin(
        self, run_id: str, fence: int, index: int, intent: str, hash_: str
    ) -> int:
        """Give the attempts."""
        run = self.owned(run_id, fence)
        step = run.steps.get(index)
        if step is None:
            run.steps[index] = [intent, hash_, "running", 1, None]
            return 1
        if step[0] != intent or (step[1] and hash_ and step[1] != hash_):
            raise StepDivergence(run_id, index, "", "")
        step[2] = "running"
        step[3] += 1
        return int(step[3])

    def end(
        self, run_id: str, fence: int, index: int, result: Any, failed: bool
    ) -> None:
        """End a step."""
        run = self.owned(run_id, fence)
        if index not in run.steps:
            raise LookupError
        run.steps[index][2] = "failed" if failed else "completed"
        if not failed:
            run.steps[index][4] = result

    def emit(
        self, run_id: str, key: str, payload: Any, fence: int | None
    ) -> tuple[Any, bool]:
        """Give what holds, and whether it is this."""
        run = self.known(run_id) if fence is None else self.owned(run_id, fence)
        if key in run.signals:
            return run.signals[key], False
        run.signals[key] = payload
        return payload, True

    def forget(self) -> int:
        """Let go of what has ended."""
        gone = 0
        for run in self.runs.values():
            if run.status != "running" and not run.forgotten:
                run.forgotten = True
                run.kept_from = len(run.lines) + 1
                run.events.clear()
                run.steps.clear()
                run.signals.clear()
                gone += 1
        return gone
