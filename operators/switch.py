"""`switch`: another way for every type of event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .drive import Opened
from .errors import CompositionError
from .kinds import Kinds, checked_kinds
from .operator import Composable, Operator, Stage, refuse
from .turn import TurnContext, TurnIdentity

if TYPE_CHECKING:
    from .event import Event

Route = tuple[Kinds, tuple[Operator, ...]]


def switch(
    routes: Mapping[str | tuple[str, ...], Composable],
    /,
    *,
    default: Composable | None = None,
) -> Operator:
    """Send events through the operator, or chain, of their type's route; `"x.*"` works.

    The first route that has the type takes it; what has none takes `default`, or passes
    as it is. Events leave in the order in which they came; what a route holds back is
    overtaken by the events of others, and goes on in its own route's order. A route's
    operators finish, settle and close with the turn, routes in their order.

    Raises (failing the turn): what a route's operators raise; a note names them.
        CompositionError: no routes; `lifecycle`, `accumulate` or an operator that takes
        the stream itself (`through`, `timeout`) in one: put it beside the switch.
    Order: one more function call per event than its operators, and async.
    """
    if not routes:
        raise CompositionError(
            "switch has no routes: switch({'result': ops.map(...)}), say"
        )
    table: list[Route] = []
    for kinds, way in routes.items():
        given = (kinds,) if isinstance(kinds, str) else kinds
        table.append((Kinds(checked_kinds(given, "switch")), _way(way)))
    last = () if default is None else _way(default)

    def open_(turn: TurnContext) -> Stage:
        switched = _Switch(turn, table, last)
        return Stage(
            switched.on_event,
            shape="flat_map",
            finish=switched.finish,
            settle=switched.settle,
            when="always",
            close=switched.close,
        )

    detail = {
        "kind": "switch",
        "routes": {
            " ".join((*sorted(kinds.exact), *[f"{one}*" for one in kinds.prefixes])): [
                op.name for op in way
            ]
            for kinds, way in table
        },
    }
    return Operator(
        "switch",
        open_,
        detail=detail,
        fixed=True,
        guards=any(op.guards for way in (*[w for _, w in table], last) for op in way),
    )


def _way(way: Composable) -> tuple[Operator, ...]:
    """Return a route's operators, looked over in a turn that is never read."""
    if not isinstance(way, Composable):
        refuse(way)
    turn = TurnContext(TurnIdentity(session_id="switch", turn_index=0), log_to=_unheard)
    for operator in way.operators:
        stage = operator.open(turn)
        if stage.envelope is not None or stage.through is not None or stage.fold:
            raise CompositionError(
                f"{operator.name} cannot stand in a route of switch, which sees some "
                f"events only: put it left or right of the switch"
            )
    return way.operators


def _unheard(message: str, meta: Mapping[str, Any]) -> None:
    """Log nothing: the turn is none."""


class _Way(Opened):
    """One route's stages: what fails them fails the switch, which tells the turn."""

    __slots__ = ("failure",)

    failure: BaseException | None

    def turn_failed(self, error: BaseException, k: int | None = None) -> None:
        """Keep the first failure for the switch to raise."""
        assert k is not None, "only operators fail in a route"
        if self.failure is None:
            error.add_note(f"raised by {self.operators[k].name}, in a route")
            self.failure = error

    def check(self) -> None:
        """Raise it."""
        error, self.failure = self.failure, None
        if error is not None:
            raise error


class _Switch:
    """The routes of one turn."""

    def __init__(
        self, turn: TurnContext, table: Iterable[Route], last: tuple[Operator, ...]
    ) -> None:
        self.routes = [(kinds, _Way(way, turn)) for kinds, way in table]
        self.last = _Way(last, turn)
        self.ways = [*[way for _, way in self.routes], self.last]
        for way in self.ways:
            way.failure = None
            if way.broken is not None:
                raise way.broken[1]

    def _way(self, kind: object) -> _Way:
        for kinds, way in self.routes:
            if kind in kinds:
                return way
        return self.last

    async def on_event(self, event: Event) -> list[Event]:
        """Send one event its way."""
        out: list[Event] = []
        way = self._way(event.get("type"))
        await way.push(0, event, out)
        way.check()
        return out

    async def finish(self) -> list[Event]:
        """Give what the routes held back."""
        out: list[Event] = []
        for way in self.ways:
            await way.finish(out)
            way.check()
        return out

    async def settle(self) -> None:
        """Settle the routes' operators, as this ending asks for."""
        for way in self.ways:
            await way.settle()
            way.check()

    async def close(self) -> None:
        """Close them all."""
        for way in self.ways:
            await way.closing(way.close())
