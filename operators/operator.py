"""The contract of an operator: `Operator`, the `Stage` it opens, `Chain`, and `|`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeAlias

from .errors import CompositionError

if TYPE_CHECKING:
    from aiostream.core import Stream

    from .event import Event
    from .turn import Ending, TurnContext

Shape: TypeAlias = Literal["tap", "map", "filter", "flat_map", "filter_map"]
When: TypeAlias = Literal["drained", "always", "needed"]
OnError: TypeAlias = Literal["fail", "log", "disable"]

SHAPES: tuple[Shape, ...] = ("tap", "map", "filter", "flat_map", "filter_map")
PARTS = ("on_event", "finish", "settle", "close", "through")


class Envelope:
    """What a lifecycle adds around the source's events; only `lifecycle` has one.

    `reported` is the merged data of the failures that the source reported in-band.
    """

    __slots__ = ("reported",)

    reported: dict[str, Any] | None

    def started(self) -> Event:
        """Make the event that opens the turn."""
        raise NotImplementedError

    def terminals(self, ending: Ending) -> Iterable[Event]:
        """Make the events that end it: an `error` if none was sent, then a terminal."""
        raise NotImplementedError


class Fold(Protocol):
    """What a stage shows that gathers text: the part it is at, and where text goes."""

    @property
    def last(self) -> object:
        """The `part` whose deltas `append` takes, by identity."""
        ...

    @property
    def append(self) -> Callable[[str], object]:
        """Add the text of one delta of `last`."""
        ...


class Stage:
    """An operator at work in one turn. All parts are optional.

    `on_event(event)`: every event, in order; what it returns depends on `shape`: a
    *tap* nothing, a *map* one event, a *filter* a bool, a *flat_map* an iterable of
    events, a *filter_map* an event or None to drop it. A coroutine function is awaited
    in place (`awaits`). With `types`, only events of those types reach it; others pass.

    `finish()`: once, when the source is closed; may be async; returns events that were
    held back. That of a `through` comes before the others': what it holds is older.

    `settle()`: once, after every `finish`, before the terminal event; may be async.
    `when` says on which ends: `"drained"`, the source ran to its own end; `"always"`;
    `"needed"`, when a later stage settles.

    `close()`: always, after the terminal event; may be async; errors are logged.

    `through(source)`: instead of `on_event`: an async iterator in, one out. With
    `lists` it also takes and gives the lists that one read of the source delivered.

    `fold`: where the plan may append text deltas of the part that the stage is at,
    without a call of `on_event`, which sees all others.

    A stage that keeps nothing between events may be one for all turns; with `by_turn`
    its `finish`, `settle` and `close` are given the turn.
    """

    __slots__ = (
        "awaits",
        "by_turn",
        "close",
        "envelope",
        "finish",
        "fold",
        "lists",
        "on_error",
        "on_event",
        "settle",
        "shape",
        "through",
        "types",
        "when",
    )

    def __init__(
        self,
        on_event: Callable[..., Any] | None = None,
        *,
        shape: Shape = "tap",
        awaits: bool | None = None,
        types: frozenset[str] | None = None,
        finish: Callable[..., Any] | None = None,
        settle: Callable[..., Any] | None = None,
        when: When = "drained",
        close: Callable[..., Any] | None = None,
        by_turn: bool = False,
        through: Callable[[AsyncIterable[Any]], AsyncIterable[Any]] | None = None,
        lists: bool = False,
        on_error: OnError = "fail",
        envelope: Envelope | None = None,
        fold: Fold | None = None,
    ) -> None:
        """Put the parts together; `awaits` is found out when not given."""
        self.on_event = on_event
        self.shape: Shape = shape
        self.awaits = (
            on_event is not None and is_async(on_event) if awaits is None else awaits
        )
        self.types = types
        self.finish = finish
        self.settle = settle
        self.when: When = when
        self.close = close
        self.by_turn = by_turn
        self.through = through
        self.lists = lists
        self.on_error: OnError = on_error
        self.envelope = envelope
        self.fold = fold


class Composable:
    """What stands on either side of `|`: an operator or a chain of them."""

    __slots__ = ()

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators in order."""
        raise NotImplementedError

    def __or__(self, other: Composable) -> Chain:
        """Put `other` after this."""
        if not isinstance(other, Composable):
            refuse(other)
        return Chain(self.operators + other.operators)

    def __call__(self, source: AsyncIterable[Any]) -> Stream[Event]:
        """Act on any aiostream stream: this is what `xs | operator` calls.

        The operators get a turn of their own: opened when the stream is iterated,
        finished, settled and closed with it. A failure is raised to the reader.
        """
        from .alone import stream_through

        return stream_through(self.operators, source)


class Operator(Composable):
    """An immutable description of one step; `open(turn)` makes its `Stage`.

    `name` shows in tracebacks, `explain` and `describe`; `detail` in `describe`. `once`
    operators stand once in a pipeline; `needs` names an operator that must stand
    before. One that keeps nothing between events gives its one `stage` instead, for all
    turns. One that is `fixed` opens stages of one shape in every turn, so the plan of a
    pipeline is looked up once. One that `guards` is never bypassed: what it cannot
    process loses its free text. Subclass it and write `open`, or give the opener to
    `operator`.
    """

    __slots__ = (
        "_open",
        "detail",
        "fixed",
        "guards",
        "name",
        "needs",
        "once",
        "stage",
    )

    def __init__(
        self,
        name: str,
        open: Callable[[TurnContext], Stage] | None = None,  # noqa: A002 - its verb
        *,
        stage: Stage | None = None,
        detail: Mapping[str, Any] | None = None,
        once: bool = False,
        needs: str | None = None,
        guards: bool = False,
        fixed: bool = False,
    ) -> None:
        """Describe the step."""
        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "_open", open)
        set_(self, "stage", stage)
        set_(self, "detail", dict(detail or {}))
        set_(self, "once", once)
        set_(self, "needs", needs)
        set_(self, "guards", guards)
        set_(self, "fixed", fixed or stage is not None)

    if TYPE_CHECKING:
        name: str
        detail: Mapping[str, Any]
        once: bool
        needs: str | None
        guards: bool
        fixed: bool
        stage: Stage | None
        _open: Callable[[TurnContext], Stage] | None

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: an operator is a value, shared between turns and tasks."""
        raise AttributeError(f"{self!r} is immutable; make another operator")

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Itself, alone."""
        return (self,)

    def open(self, turn: TurnContext) -> Stage:
        """Make the stage of one turn, or give the one of all turns."""
        if self.stage is not None:
            return self.stage
        if self._open is None:
            raise CompositionError(
                f"operator {self.name!r} has no open(turn): write one, or pass it as "
                f"Operator(name, open)"
            )
        return self._open(turn)

    def __repr__(self) -> str:
        """Read as the call that makes it."""
        return f"<operator {self.name}>"


class Chain(Composable):
    """Operators in a row: a named, reusable fragment, itself usable as an operator."""

    __slots__ = ("_operators",)

    def __init__(self, operators: Iterable[Operator] = ()) -> None:
        """Keep the operators, checked against each other."""
        self._operators = tuple(operators)
        check_order(self._operators, whole=False)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators in order."""
        return self._operators

    def __iter__(self) -> Iterator[Operator]:
        """Go through the operators."""
        return iter(self._operators)

    def __len__(self) -> int:
        """Count the operators."""
        return len(self._operators)

    def __repr__(self) -> str:
        """Show the chain as it is written."""
        return " | ".join(op.name for op in self._operators) or "Chain()"


def check_order(operators: tuple[Operator, ...], *, whole: bool) -> None:
    """Raise CompositionError for what cannot stand together.

    A fragment (`whole=False`) may still get what it needs from what stands before it.
    """
    seen: dict[str, int] = {}
    for k, op in enumerate(operators, 1):
        kind = str(op.detail.get("kind", op.name))
        if op.once and kind in seen:
            raise CompositionError(
                f"{op.name} stands twice, at {seen[kind]} and {k}: remove one of "
                f"the two"
            )
        if whole and op.needs is not None and op.needs not in seen:
            raise CompositionError(
                f"{op.name} (operator {k}) needs {op.needs} before it: put "
                f"`| ops.{op.needs}()` somewhere left of it"
            )
        seen.setdefault(kind, k)


def refuse(thing: object) -> NoReturn:
    """Raise the CompositionError that names the mend for what is not an operator."""
    what = getattr(thing, "__name__", None) or repr(thing)
    if str(getattr(thing, "__module__", "")).startswith("aiostream."):
        raise CompositionError(
            "an aiostream operator stands in a pipeline through ops.through(...), such "
            "as ops.through(aiostream.pipe.take(5))"
        )
    if inspect.isclass(thing):
        mend = f"ops.operator({what})"
    elif callable(thing):
        mend = (
            f"say what it does: ops.tap({what}), ops.map({what}), ops.filter({what}), "
            f"ops.flat_map({what}), or ops.through({what}) for an aiostream operator"
        )
    else:
        mend = "only operators and chains of them stand right of `|`"
    raise CompositionError(f"{what} is not an operator: {mend}")


def operator(
    factory: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    shape: Shape | None = None,
    types: Iterable[str] | None = None,
    guards: bool = False,
) -> Operator:
    """Make an operator of a class (or factory) whose object lives for one turn.

    The factory is called once per turn, with the TurnContext if it has a required
    positional parameter. The object has any of `on_event`, `finish`, `settle`, `close`
    and `through`; `shape`, `types` and `when` are taken from it when not given here.

    Raises:
        CompositionError: `factory` is an object whose state all turns would share, or
            the shape is unknown.
    """
    if not callable(factory):
        raise CompositionError(
            f"{factory!r} would be shared by all turns: pass its class or a factory"
        )
    label = name or name_of(factory)
    if shape is not None:
        known_shape(shape, label)
    parameters = required_parameters(factory)
    if parameters > 1:
        raise CompositionError(
            f"{label} has {parameters} required parameters: it gets the turn, and "
            f"nothing else; bind the others, as in functools.partial"
        )
    if shape is None:
        known_shape(getattr(factory, "shape", "tap"), label)
    wants = parameters > 0
    wanted = only_types(types)

    def open_(turn: TurnContext) -> Stage:
        made = factory(turn) if wants else factory()
        if isinstance(made, Stage):
            return made
        if not any(callable(getattr(made, part, None)) for part in PARTS):
            raise CompositionError(
                f"{label} made {type(made).__name__}, which has none of "
                f"{', '.join(PARTS)}: write one; a plain function goes into ops.tap, "
                f"ops.map, ops.filter or ops.flat_map"
            )
        return Stage(
            getattr(made, "on_event", None),
            shape=known_shape(shape or getattr(made, "shape", "tap"), label),
            types=wanted or only_types(getattr(made, "types", None)),
            finish=getattr(made, "finish", None),
            settle=getattr(made, "settle", None),
            when=getattr(made, "when", "drained"),
            close=getattr(made, "close", None),
            through=getattr(made, "through", None),
        )

    return Operator(label, open_, guards=guards)


def known_shape(shape: Any, label: str) -> Shape:
    """Return `shape` if there is such a one.

    Raises:
        CompositionError: there is not; `label` names whose it is.
    """
    if shape not in SHAPES:
        raise CompositionError(
            f"{label}: shape {shape!r} is not one of {', '.join(SHAPES)}"
        )
    known: Shape = shape
    return known


def only_types(types: Iterable[str] | None) -> frozenset[str] | None:
    """Keep the event types that an operator is limited to; None for all.

    Raises:
        CompositionError: one string, which would be taken letter by letter.
    """
    if isinstance(types, str):
        raise CompositionError(
            f"types={types!r} would be taken letter by letter: write types=({types!r},)"
        )
    if types is None:
        return None
    wanted = frozenset(types)
    if not all(isinstance(one, str) for one in wanted):
        raise CompositionError(f"types must be event types, strings, not {types!r}")
    return wanted


def name_of(function: Callable[..., Any]) -> str:
    """Tell a callable's name, partials and callable objects included."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else name


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a coroutine, partials and objects included."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object's async __call__
    )


def required_parameters(function: Callable[..., Any]) -> int:
    """Count the positional parameters without a default (0 where there is no telling).

    Only required ones count, so that `str.strip` or `print` are not mistaken for
    functions that want the turn.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature
        return 0
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def bind_turn(
    function: Callable[..., Any],
    parameters: int = 1,
    *,
    generators: Literal["none", "sync", "any"] = "none",
) -> Callable[[TurnContext], Callable[..., Any]] | None:
    """Tell how to give `function` the turn, or None when it does not want it.

    It wants it when it has more than `parameters` required positional parameters.

    Raises:
        CompositionError: it is not callable, wants more than the turn, or is a
            generator function, whose body would never run, where `generators` does not
            allow it.
    """
    if not callable(function):
        raise CompositionError(f"{function!r} is not callable: pass a function")
    if (inspect.isgeneratorfunction(function) and generators == "none") or (
        inspect.isasyncgenfunction(function) and generators != "any"
    ):
        raise CompositionError(
            f"{name_of(function)} is a generator function, its body would never run: "
            f"return the value instead of yielding it, or use ops.flat_map (`def`) or "
            f"ops.through (`async def`)"
        )
    wanted = required_parameters(function) - parameters
    if wanted <= 0:
        return None
    if wanted > 1:
        raise CompositionError(
            f"{name_of(function)} has {parameters + wanted} required parameters: it "
            f"gets {parameters} and, if it wants it, the turn"
        )
    if is_async(function):

        def bind_async(turn: TurnContext) -> Callable[..., Any]:
            async def with_turn(*args: Any) -> Any:
                return await function(*args, turn)

            return with_turn

        return bind_async

    def bind(turn: TurnContext) -> Callable[..., Any]:
        def with_turn(*args: Any) -> Any:
            return function(*args, turn)

        return with_turn

    return bind
