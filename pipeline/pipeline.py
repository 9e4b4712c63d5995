"""`Pipeline`: a source and the operators its events go through, as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from operators.errors import CompositionError
from operators.operator import (
    Composable,
    Operator,
    check_order,
    is_async,
    name_of,
    refuse,
)
from operators.source import source_call
from operators.turn import Log, TurnContext, TurnIdentity

from .execution import derive_execution_id
from .plan import Recipe
from .run import OnDisconnect, TurnRun

if TYPE_CHECKING:
    from aiostream.core import Stream

    from operators.event import Event

    from .audit import Audit

_DETACH_S: Final = 300.0
_SETTLE_S: Final = 10.0

GraphFormat = Literal["mermaid", "dot", "svg", "ascii"]


class Pipeline:
    """An immutable description of a turn: `Pipeline(source) | operator | ...`.

    `source` is called once per turn, with the TurnContext if it has a required positional
    parameter. It returns, or is a coroutine that returns, an async iterable of events or
    of lists of events, or a `ChatTurnProducer`; an async generator function works.

    Safe to share between turns and tasks: what a turn keeps lives in the stages that it
    opens.

    Raises:
        CompositionError: what cannot stand together, where it is composed.
    """

    __slots__ = ("_recipe", "operators", "source")

    source: Callable[..., Any]
    operators: tuple[Operator, ...]

    def __init__(self, source: Callable[..., Any]) -> None:
        """Begin with a source."""
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "_recipe", Recipe(source_call(source), ()))
        object.__setattr__(self, "operators", ())

    if TYPE_CHECKING:
        _recipe: Recipe

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a pipeline is a value."""
        raise AttributeError("a Pipeline is immutable: compose another with `|`")

    def __or__(self, other: Composable) -> Pipeline:
        """Put an operator, or a chain, at the end."""
        if not isinstance(other, Composable):
            _refuse_right(other)
        operators = self.operators + other.operators
        check_order(operators, whole=True)
        made = object.__new__(Pipeline)
        object.__setattr__(made, "source", self.source)
        recipe = Recipe(self._recipe.call_source, operators)
        object.__setattr__(made, "_recipe", recipe)
        object.__setattr__(made, "operators", operators)
        return made

    def __repr__(self) -> str:
        """Show the pipeline as it is written."""
        names = [
            f"Pipeline({name_of(self.source)})",
            *[op.name for op in self.operators],
        ]
        return " | ".join(names)

    def start(
        self,
        identity: TurnIdentity,
        *,
        request: Any = None,
        execution_id: str | None = None,
        on_disconnect: OnDisconnect = "cancel",
        detach_timeout: float = _DETACH_S,
        settle_timeout: float = _SETTLE_S,
        wait_until: Callable[[Awaitable[object]], object] | None = None,
        log: Log | None = None,
        clock: Callable[[], float] | None = None,
    ) -> TurnRun:
        """Prepare one turn; nothing happens until it is read.

        `request` is what the source finds as `turn.request`. Without `execution_id` it is
        derived from the identity. With `on_disconnect="detach"` the turn runs on when its
        reader leaves, for at most `detach_timeout` seconds. `settle_timeout` (seconds)
        bounds what comes after the last event. `wait_until` is given an async trace
        flush. `log(message, meta)` replaces the logger `turnpipe`. The caller's context
        variables are captured here.

        Raises:
            TypeError: `identity` is not a TurnIdentity, an id not a string, a hook not
                a plain function, a timeout not a number.
            ValueError: an unknown `on_disconnect`, or a timeout that is not positive.
        """
        if identity.__class__ is not TurnIdentity:
            raise TypeError(f"identity must be a TurnIdentity, not {identity!r}")
        if on_disconnect not in ("cancel", "detach"):
            raise ValueError(
                f'on_disconnect must be "cancel" or "detach", not {on_disconnect!r}'
            )
        # Every turn comes through here: what is left at its default is not looked at.
        if settle_timeout != _SETTLE_S:
            _check_seconds("settle_timeout", settle_timeout)
        if detach_timeout != _DETACH_S:
            _check_seconds("detach_timeout", detach_timeout)
        if wait_until is not None:
            _check_function("wait_until", wait_until)
        if log is not None:
            _check_function("log", log)
        if clock is not None:
            _check_function("clock", clock)
        if execution_id is None:
            execution_id = derive_execution_id(
                identity.tenant_id or "-", identity.session_id, identity.turn_index
            )
        elif execution_id.__class__ is not str or not execution_id:
            raise TypeError(
                f"execution_id must be a non-empty string, not {execution_id!r}: leave "
                f"it out to derive it from the identity"
            )
        return TurnRun(
            self._recipe,
            TurnContext(
                identity,
                request=request,
                execution_id=execution_id,
                clock=clock,
                wait_until=wait_until,
                log_to=log,
            ),
            on_disconnect=on_disconnect,
            detach_timeout=detach_timeout,
            settle_timeout=settle_timeout,
        )

    def stream(self, identity: TurnIdentity, **options: Any) -> Stream[Event]:
        """Make the turn's events an aiostream Stream; every iteration is a turn.

        `options` are those of `start`.
        """
        from aiostream.core import Stream

        return Stream(lambda: self.start(identity, **options).events())

    def audit(self) -> Audit:
        """Tell which sinks, taps, wires and traces see which text before redaction."""
        from .audit import audit

        return audit(self)

    def describe(self) -> Mapping[str, Any]:
        """Describe the pipeline as data: the source, and each operator in order."""
        return {
            "source": name_of(self.source),
            "operators": [
                {"position": k, "name": op.name, **op.detail, "guards": op.guards}
                for k, op in enumerate(self.operators, 1)
            ],
        }

    def explain(self) -> str:
        """Tell the plan: what is fused into one loop, and why each boundary is one."""
        from .graph import explain

        return explain(self)

    def graph(self, format: GraphFormat = "mermaid") -> str:  # noqa: A002 - its word
        """Draw the pipeline as Mermaid, DOT, SVG or ASCII text.

        Raises:
            ValueError: an unknown format.
        """
        from .graph import draw

        return draw(self, format)


def _check_function(name: str, hook: object) -> None:
    if not callable(hook) or (name == "clock" and is_async(hook)):
        raise TypeError(f"{name} must be a plain function, not {hook!r}")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds, a number, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be positive seconds, not {value!r}")


def _refuse_right(other: object) -> NoReturn:
    if isinstance(other, Pipeline):
        raise CompositionError(
            f"{name_of(other.source)} is a second source, and a pipeline has one: merge "
            f"sources inside it, or keep the operators as a chain of their own"
        )
    refuse(other)
