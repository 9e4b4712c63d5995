"""The ledger: one row of what a turn used and cost, by its execution id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from .errors import CompositionError

if TYPE_CHECKING:
    from decimal import Decimal

    from .turn import Provenance, Status, TurnIdentity, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What one turn used. `usage` is None where nothing tells that a model was called.

    `models` are those that answered, each once, in order; `calls` counts the calls.
    Times are UNIX seconds. `status` and `code` are those of the outcome.
    """

    execution_id: str
    identity: TurnIdentity
    status: Status
    code: str | None
    models: tuple[str, ...]
    calls: int
    usage: Usage | None
    started_at: float
    ended_at: float

    @property
    def idempotency_key(self) -> str:
        """What the row is stored by: the execution id."""
        return self.execution_id

    @property
    def cost(self) -> Decimal | None:
        """What it cost; None where that is not known, which is not 0."""
        return None if self.usage is None else self.usage.cost

    @property
    def currency(self) -> str | None:
        """What the cost is in."""
        return None if self.usage is None else self.usage.currency

    @property
    def provenance(self) -> Provenance | None:
        """How the usage came to be known."""
        return None if self.usage is None else self.usage.provenance


class Writes(Protocol):
    """A ledger as an object."""

    def write(self, row: LedgerRow, /) -> object:
        """Store a row; may be async."""
        ...


Ledger: TypeAlias = "Writes | Callable[[LedgerRow], object]"


class MemoryLedger:
    """Keep the rows of turns in memory, one an execution id.

    A row replaces the one before of the same execution id; one that knows no usage
    replaces none that does. In SQL that is

        INSERT INTO usage (execution_id, status, cost) VALUES (?, ?, ?)
        ON CONFLICT (execution_id) DO UPDATE
        SET status = excluded.status, cost = excluded.cost
        WHERE excluded.provenance IS NOT NULL OR usage.provenance IS NULL
    """

    def __init__(self) -> None:
        """Start empty."""
        self._rows: dict[str, LedgerRow] = {}

    def write(self, row: LedgerRow) -> None:
        """Store a row."""
        before = self._rows.get(row.execution_id)
        if before is None or before.usage is None or row.usage is not None:
            self._rows[row.execution_id] = row

    @property
    def rows(self) -> tuple[LedgerRow, ...]:
        """All rows, in the order of their first writing."""
        return tuple(self._rows.values())

    def row(self, execution_id: str) -> LedgerRow | None:
        """The row of one turn."""
        return self._rows.get(execution_id)


def writer(ledger: Ledger) -> Callable[[LedgerRow], Any]:
    """Tell what to call with a row.

    Raises: CompositionError: the ledger can neither be called nor written to.
    """
    write: Any = getattr(ledger, "write", None)
    if callable(write):
        return cast("Callable[[LedgerRow], Any]", write)
    if callable(ledger):
        return ledger
    raise CompositionError(
        f"{ledger!r} is no ledger: pass a function of a LedgerRow, or an object with "
        f"write(row)"
    )
