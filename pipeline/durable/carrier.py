"""One turn that this process owns: pulled, logged, settled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from operators.errors import LeaseLost
from operators.turn import Ending, TurnOutcome, logger

from ..stores.contract import Lines
from .journal import AHEAD_BYTES, Account, Journal
from .patience import patiently
from .records import outcome_to_json, record_from_json, record_to_json
from .tail import Tail

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnRecord

    from ..run import TurnRun
    from ..stores.contract import Claim, Store

_YIELD_EVERY: Final = 64


class Carrier:
    """Reads a turn into its log, in a task of its own, and settles it in the store.

    Nothing is delivered that the log does not hold. Before a sink stores the message
    the log has all of it, and the record is kept in the store: who takes the turn over
    stores the same.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        claim: Claim,
        run: TurnRun,
        patience: float,
    ) -> None:
        """Carry `run`, under the lease that `claim` gave."""
        self._store = store
        self._journal = journal
        self._patience = patience
        self.run: Final = run
        self.execution_id: Final = claim.run.id
        self.manifest_hash: Final = claim.run.manifest_hash
        self.fence: Final = claim.fence
        self.tail: Final = Tail(journal.room, lines=claim.run.lines)
        self._account = Account(claim.run.id, claim.fence, self.tail, self.lose)
        self._sinks = 0
        self._settled = False
        self.outcome: TurnOutcome | None = None
        run._journal = self._before_settle
        run.context.recording = self._record
        self.task: Final = asyncio.create_task(
            self._carry(), name=f"turnpipe turn {claim.run.id}"
        )

    @property
    def over(self) -> bool:
        """Whether the turn has ended, in the store too."""
        return self._settled

    def lose(self, error: BaseException) -> None:
        """Stop: the log takes nothing more from us."""
        self._account.error = error
        self.run._stop(error)
        self.tail.close(lost=True)

    def lease_lost(self) -> None:
        """Stop: the lease is over, or another has it."""
        if not self._settled:
            self._account.fail(LeaseLost(self.execution_id))

    def stop(self, reason: str, code: str | None = None) -> None:
        """Let the turn settle as cancelled."""
        self.run._ask(Ending("cancelled", drained=False, reason=reason, code=code))

    async def _carry(self) -> None:
        run = self.run
        account = self._account
        put = self._journal.put
        last: list[bytes] = []
        read = 0
        try:
            async for chunk in run.body(heartbeat=False):
                left = run.settled_now()
                if left is None:
                    put(account, chunk, chunk.count(b"\n"))
                    read += 1
                    if account.size >= AHEAD_BYTES:
                        await account.room()
                    elif read % _YIELD_EVERY == 0:  # a source that never waits
                        await asyncio.sleep(0)
                else:
                    last.append(chunk)
                    if not left:  # before `close`: that may take its time
                        await self._settle(last)
        except Exception as exc:
            # Without a lifecycle a turn raises its failure; the outcome has it too.
            if run.context.ending is None:
                raise
            logger.debug("turn %s raised %r", self.execution_id, exc)
        except asyncio.CancelledError:  # the loop is torn down: recovering is another's
            self.tail.close(lost=True)
            raise
        await self._settle(last)
        self.outcome = await run.outcome()

    async def _settle(self, last: list[bytes]) -> None:
        """End the run in the store, then let the readers have its last lines."""
        if self._settled or self.tail.lost:
            return
        data = b"".join(last)
        outcome = self.run._make_outcome()
        try:
            await self._account.flushed()
            lines = None
            if data:
                first = self.tail.lines + 1
                count = data.count(b"\n")
                lines = Lines(self.execution_id, self.fence, first, count, data)
            kept = outcome_to_json(outcome, self.run.context.message["parts"])
            await patiently(
                lambda: self._store.settle(
                    self.execution_id,
                    self.fence,
                    status=outcome.status,
                    outcome=kept,
                    lines=lines,
                ),
                self._patience,
            )
        except Exception as exc:
            self.run.context.log("the turn's end was not stored", exc)
            self._account.error = self._account.error or exc
            self.tail.close(lost=True)
            return
        self._settled = True
        if data:
            self.tail.put(data, data.count(b"\n"))
        self.tail.close()

    async def _before_settle(self, out: list[Event]) -> None:
        """Log what was held back, then wait until the log has all that came before."""
        lines = list(self.run._encoded(out))
        out.clear()
        if lines:
            self._journal.put(self._account, b"".join(lines), len(lines))
        await self._account.flushed()

    async def _record(self, sink: str, record: TurnRecord) -> TurnRecord:
        """Keep the record that a sink is about to store; the first one kept is stored."""
        key = record_key(self._sinks, sink)
        self._sinks += 1
        ending = self.run.context.ending
        kept = {
            "drained": ending is not None and ending.drained,
            "record": record_to_json(record),
        }
        signal = await patiently(
            lambda: self._store.emit(self.execution_id, key, kept, fence=self.fence),
            self._patience,
        )
        if signal.accepted:
            return record
        return record_from_json(
            signal.payload["record"], record.identity, record.execution_id
        )


def record_key(sink_index: int, sink: str) -> str:
    """Name the record of a turn's sink, in the order in which they settle."""
    return f"record:{sink_index}:{sink}"
