"""The plan: a chain of stages compiled into one flat async generator.

The source text is generated from the chain's *shape* (what each stage is, never which
functions it holds), cached by it, and registered with `linecache`, so a traceback shows
the line of the operator. One `try` stands around the whole loop: the line at which an
exception left it tells whose it is (`Segment.owners`), which costs the hot path nothing.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count, pairwise
from operator import length_hint
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

from operators.event import PART_UPDATED
from operators.heartbeat import Heartbeat

from .batch import edited, passed
from .wire.ndjson import LARGE_CHUNK, encode_large

if TYPE_CHECKING:
    from operators.drive import Hooks, Opened
    from operators.operator import Operator, Stage

Mode: TypeAlias = Literal["events", "ndjson", "wire"]

SOURCE: Final = -1
EVENT: Final = -2
ENCODE: Final = -3
READER: Final = -4
"""Owners of a generated line, beside the operators' positions."""

StageKey: TypeAlias = tuple[str, str, bool, str, str, bool]
"""(name, shape, awaits, types, on_error, folds) of a stage; shape "" for none.

Of its types only this counts: "" for all, "parts" where message parts are among them,
else "others".
"""


class Segment:
    """One generated function: what it does with one stretch of the chain."""

    __slots__ = ("code", "function", "owners", "text")

    def __init__(
        self, function: FunctionType, owners: tuple[int | None, ...], text: str
    ) -> None:
        """Keep it, with whose each line of its `text` is."""
        self.function: Callable[..., Any] = function
        self.code = function.__code__
        self.owners = owners
        self.text = text


class Plan:
    """The segments of a turn, in order; the last one is what the reader iterates."""

    __slots__ = ("boundaries", "segments", "spans")

    def __init__(
        self,
        segments: tuple[Segment, ...],
        spans: tuple[tuple[int, int], ...],
        boundaries: tuple[int, ...],
    ) -> None:
        """Keep them, with the operators of each, and the `through`s between them."""
        self.segments = segments
        self.spans = spans
        self.boundaries = boundaries

    def owner(self, traceback: TracebackType | None) -> int:
        """Tell whose line an exception left: an operator's position, SOURCE...READER.

        The innermost line in generated code counts: an error of the source surfaces in
        every segment after it.
        """
        codes = {segment.code: segment for segment in self.segments}
        found = READER
        while traceback is not None:
            segment = codes.get(traceback.tb_frame.f_code)
            if segment is not None:
                owner = segment.owners[traceback.tb_lineno]
                found = found if owner is None else owner
            traceback = traceback.tb_next
        return found

    def outer(self, traceback: TracebackType | None) -> int:
        """Tell the owner of the line of the outermost segment."""
        assert traceback is not None, "it was caught there, so it begins there"
        owner = self.segments[-1].owners[traceback.tb_lineno]
        return READER if owner is None else owner


class Recipe:
    """What all turns of a pipeline share: how to call the source, operators, plans."""

    __slots__ = ("_fixed", "_plans", "call_source", "heartbeat", "hooks", "operators")

    def __init__(
        self, call_source: Callable[[Any], Any], operators: tuple[Operator, ...]
    ) -> None:
        """Keep plans only where every operator opens one shape of stage."""
        self.call_source = call_source
        self.operators = operators
        self._fixed = all(op.fixed for op in operators)
        self._plans: dict[Mode, Plan] = {}
        self.hooks: Hooks | None = None
        self.heartbeat: Heartbeat | None = None
        for op in operators:
            if isinstance(op, Heartbeat):
                self.heartbeat = op

    def plan(self, opened: Opened, mode: Mode, *, debug: bool = False) -> Plan:
        """Return the plan of a turn with these stages."""
        plan = None if debug else self._plans.get(mode)
        if plan is None or opened.broken is not None:
            plan = compile_plan(self.operators, opened.stages, mode)
            if self._fixed and opened.broken is None and not debug:
                self._plans[mode] = plan
                self.hooks = opened.hooks
        return plan


def compile_plan(
    operators: Sequence[Operator], stages: Sequence[Stage], mode: Mode
) -> Plan:
    """Compile the stages of a turn; a shape seen before costs one look-up."""
    key = tuple(
        [
            (
                op.name,
                "through"
                if stage.through is not None
                else ""
                if stage.on_event is None
                else stage.shape,
                stage.lists if stage.through is not None else stage.awaits,
                ""
                if stage.types is None
                else "parts"
                if PART_UPDATED in stage.types
                else "others",
                stage.on_error,
                stage.fold is not None,
            )
            for op, stage in zip(operators, stages, strict=True)
        ]
    )
    envelope = -1
    for k, stage in enumerate(stages):
        if stage.envelope is not None:
            envelope = k
    return plan_of(key, envelope, mode)


@lru_cache(maxsize=512)
def plan_of(key: tuple[StageKey, ...], envelope: int, mode: Mode) -> Plan:
    """Generate the segments of one shape."""
    boundaries = tuple(k for k, stage in enumerate(key) if stage[1] == "through")
    edges = (-1, *boundaries, len(key))
    spans = tuple((a + 1, b) for a, b in pairwise(edges))
    segments = tuple(
        _Emitter(
            key,
            span,
            mode if last else "lists" if key[span[1]][2] else "events",
            envelope if last else -1,
            index=j,
            last=last,
        ).segment()
        for j, span in enumerate(spans)
        for last in (j == len(spans) - 1,)
    )
    return Plan(segments, spans, boundaries)


_TAKEN: Final = ("types", "fold", "last", "append")
"""What else the plan numbers among its locals."""

_GLOBALS: Final[dict[str, Any]] = {
    "edited": edited,
    "encode_large": encode_large,
    "length_hint": length_hint,
    "passed": passed,
}
"""What generated code calls that no turn changes."""

_serial = count(1)
_NEWLINE: Final = orjson.OPT_APPEND_NEWLINE


class _Emitter:
    """Writes one segment, remembering for each line whose it is."""

    def __init__(
        self,
        key: tuple[StageKey, ...],
        span: tuple[int, int],
        mode: str,
        envelope: int,
        *,
        index: int,
        last: bool,
    ) -> None:
        self.key = key
        self.start, self.stop = span
        self.mode = mode
        self.envelope = envelope
        self.index = index
        self.last = last
        self.lines: list[str] = []
        self.owners: list[int | None] = [None]
        self.started_sent = False
        self.whole = False
        """The batch under way is the source's own list: what changes is noted."""

    def line(self, depth: int, text: str, owner: int | None = None) -> None:
        self.lines.append("    " * depth + text)
        self.owners.append(owner)

    def local(self, k: int) -> str:
        name = re.sub(r"[^0-9A-Za-z]+", "_", self.key[k][0]).strip("_")
        if name in _TAKEN or name[:1].isdigit():
            name = f"op_{name}"
        return f"{name}_{k + 1}"

    def segment(self) -> Segment:
        if self.last:
            self.body()
        else:
            self.inner()
        text = "\n".join(self.lines) + "\n"
        first, last = self.start + 1, self.stop
        filename = f"<turnpipe plan {next(_serial)}: operators {first}-{last}>"
        linecache.cache[filename] = (
            len(text),
            None,
            text.splitlines(keepends=True),  # our own text: it has no other separators
            filename,
        )
        names: dict[str, Any] = {**_GLOBALS}
        exec(compile(text, filename, "exec"), names)
        function: FunctionType = names["body" if self.last else "segment"]
        # The vocabulary's own string: what is the same object is not compared.
        code = function.__code__
        function.__code__ = code.replace(
            co_consts=tuple(
                [PART_UPDATED if one == PART_UPDATED else one for one in code.co_consts]
            )
        )
        return Segment(function, tuple(self.owners), text)

    # -- the head: operators as locals

    def locals(self, depth: int) -> None:
        for k in range(self.start, self.stop):
            if self.key[k][1]:
                self.line(depth, f"{self.local(k)} = stages[{k}].on_event")
                if self.key[k][3]:
                    self.line(depth, f"types_{k + 1} = stages[{k}].types")
                if self.key[k][5]:
                    self.line(depth, f"fold_{k + 1} = stages[{k}].fold")
                    self.line(depth, f"last_{k + 1} = fold_{k + 1}.last")
                    self.line(depth, f"append_{k + 1} = fold_{k + 1}.append")

    def guarded(self, k: int) -> bool:
        return self.key[k][1] == "tap" and self.key[k][4] != "fail"

    # -- one event through the operators

    def operators(
        self, depth: int, start: int, sink: Callable[[int], None], *, kind: bool = False
    ) -> None:
        """Emit what one `event` meets from operator `start` on; `sink` ends it."""
        fresh = kind
        for k in range(start, self.stop):
            name, shape, awaits, typed, _, folds = self.key[k]
            if not shape:
                continue
            call = f"{'await ' if awaits else ''}{self.local(k)}(event)"
            shown = "".join([c if c.isprintable() else " " for c in name])
            note = f"  # {k + 1} {shown}"
            inside = depth
            if typed:
                if not fresh:
                    self.kind(depth)
                    fresh = True
                if shape != "flat_map" and not folds:
                    self.line(depth, f"if {self.wanted(k)}:", EVENT)
                    inside += 1
            if folds:
                self.fold(inside, k, call, note)
            elif shape == "tap":
                self.tap(inside, k, call, note)
            elif shape in ("map", "filter_map"):
                self.line(inside, f"event = {call}{note}", k)
                if self.whole:
                    self.line(inside, "edits += ((length_hint(rest), event),)", k)
                if shape == "filter_map":
                    self.line(inside, "if event is None:", k)
                    self.line(inside + 1, "continue", k)
                self.line(inside, "if event.__class__ is not dict:", k)
                self.line(inside + 1, f"event = checked(event, {name!r})", k)
                fresh = bool(typed)
                if typed:
                    self.kind(inside)
            elif shape == "filter":
                self.line(inside, f"seen = {call}{note}", k)
                self.line(
                    inside, f"if seen is not True and not passes(seen, {name!r}):", k
                )
                self.line(inside + 1, "continue", k)
            else:
                if typed:
                    call = f"{call} if {self.wanted(k)} else (event,)"
                self.line(inside, f"for event in {call}:{note}", k)
                self.line(inside + 1, "if event.__class__ is not dict:", k)
                self.line(inside + 2, f"event = checked(event, {name!r})", k)
                depth = inside + 1
                fresh = False
        sink(depth)

    def wanted(self, k: int) -> str:
        """Write the test of an event's type; message parts, most events, take `==`."""
        if self.key[k][3] == "parts":
            return f"kind == {PART_UPDATED!r} or kind in types_{k + 1}"
        return f"kind != {PART_UPDATED!r} and kind in types_{k + 1}"

    def kind(self, depth: int) -> None:
        """Emit the look at an event's type."""
        self.line(depth, "try:", EVENT)
        self.line(depth + 1, 'kind = event["type"]', EVENT)
        self.line(depth, "except KeyError:", EVENT)
        self.line(depth + 1, "kind = None", EVENT)

    def fold(self, depth: int, k: int, call: str, note: str) -> None:
        """Emit the append of one more delta of the same part; the call for the rest."""
        n = k + 1
        again = (
            (call, k),
            (f"last_{n} = fold_{n}.last", k),
            (f"append_{n} = fold_{n}.append", k),
        )
        self.line(depth, f"if kind == {PART_UPDATED!r}:", EVENT)
        self.line(depth + 1, "try:", k)
        self.line(depth + 2, 'data = event["data"]', k)
        self.line(depth + 2, 'text = data["delta"]', k)
        self.line(depth + 2, f'if data["part"] is not last_{n}:', k)
        self.line(depth + 3, "text = None", k)
        self.line(depth + 1, "except (AttributeError, KeyError, TypeError):", k)
        self.line(depth + 2, "text = None", k)
        self.line(depth + 1, f"if text.__class__ is str and text:{note}", k)
        self.line(depth + 2, f"append_{n}(text)", k)
        self.line(depth + 1, "else:", k)
        for text, owner in again:
            self.line(depth + 2, text, owner)
        self.line(depth, f"elif kind in types_{n}:", EVENT)
        for text, owner in again:
            self.line(depth + 1, text, owner)

    def tap(self, depth: int, k: int, call: str, note: str) -> None:
        if self.guarded(k):
            self.line(depth, "try:", k)
            self.tap_call(depth + 1, k, call, note)
            self.line(depth, "except BaseException as exc:", k)
            self.line(depth + 1, f"{self.local(k)} = run.tap_failed({k}, exc)", k)
        else:
            self.tap_call(depth, k, call, note)

    def tap_call(self, depth: int, k: int, call: str, note: str) -> None:
        if self.key[k][2]:
            self.line(depth, f"{call}{note}", k)
            return
        self.line(depth, f"seen = {call}{note}", k)
        self.line(depth, "if seen is not None and isawaitable(seen):", k)
        self.line(depth + 1, "await seen", k)

    # -- where an event leaves

    def send(self, depth: int) -> None:
        """Emit the yield of one event, encoded where the mode says so."""
        if self.mode == "ndjson":
            self.line(depth, "try:", ENCODE)
            self.line(depth + 1, f"chunk = dumps(event, None, {_NEWLINE})", ENCODE)
            self.line(depth, "except TypeError:", ENCODE)
            self.line(depth + 1, "chunk = encode(event)", ENCODE)
            self.counted(depth)
            self.chunk(depth)
        elif self.mode == "wire":
            self.line(depth, "chunk = encode(event)", ENCODE)
            self.counted(depth)
            self.chunk(depth)
        else:
            self.counted(depth)
            self.line(depth, "yield event", READER)

    def chunk(self, depth: int) -> None:
        """Emit the yield of a chunk; kept, it would pin 4 kB while the source is slow."""
        self.line(depth, "yield chunk", READER)
        self.line(depth, "chunk = None", READER)

    def counted(self, depth: int) -> None:
        if not self.last or not self.started_sent:
            return
        self.line(depth, "if not n:", READER)
        self.line(depth + 1, "run.first()", READER)
        self.line(depth, "n += 1", READER)

    def check(self, depth: int) -> None:
        self.line(depth, "if event.__class__ is not dict:", SOURCE)
        self.line(depth + 1, 'event = checked(event, "the source")', SOURCE)

    def batch(self, depth: int) -> None:
        """Emit the branch for a list: all of it passes the operators, then leaves."""
        if self.mode == "events":
            rest = "rest" if self.last else "event"
            if self.last:  # what is left of it when the reader leaves is not lost
                self.line(depth, "rest = iter(event)", SOURCE)
            self.line(depth, f"for event in {rest}:", SOURCE)
            self.check(depth + 1)
            self.operators(depth + 1, self.start, self.send)
            return
        self.whole = self.keeps_lists()
        if self.whole:
            self.line(depth, "batch = event", SOURCE)
            self.line(depth, "rest = iter(event)", SOURCE)
            self.line(depth, "for event in rest:", SOURCE)
        else:
            self.line(depth, "batch = []", SOURCE)
            self.line(depth, "for event in event:", SOURCE)

        def keep(depth: int) -> None:
            if not self.whole:
                self.line(depth, "batch.append(event)", EVENT)

        first = next((k for k in range(self.start, self.stop) if self.key[k][1]), None)
        if self.mode == "ndjson" and first is not None and self.key[first][3]:
            # Its type is looked at first: what has none is seen there to be no dict,
            # what is another mapping when it is encoded.
            self.line(depth + 1, "try:", EVENT)
            self.line(depth + 2, 'kind = event["type"]', EVENT)
            self.line(depth + 1, "except (KeyError, TypeError):", EVENT)
            self.line(depth + 2, 'event = checked(event, "the source")', SOURCE)
            self.line(depth + 2, 'kind = event.get("type")', EVENT)
            self.operators(depth + 1, self.start, keep, kind=True)
        else:
            self.check(depth + 1)
            self.operators(depth + 1, self.start, keep)
        if self.whole:
            self.line(depth, "rest = None", READER)
            self.line(depth, "if edits:", READER)
            self.line(depth + 1, "batch = edited(batch, edits)", READER)
            self.line(depth + 1, "edits = ()", READER)
            self.whole = False
        self.line(depth, "if batch:", READER)
        if self.mode == "lists":
            self.line(depth + 1, "events, batch = batch, ()", READER)
            self.line(depth + 1, "yield events", READER)
            return
        self.line(depth + 1, "chunk = encode_list(batch)", ENCODE)
        self.line(depth + 1, "if not n:", READER)
        self.line(depth + 2, "run.first()", READER)
        self.line(depth + 1, "n += len(batch)", READER)
        self.line(depth + 1, "batch = ()", READER)
        if self.mode == "ndjson":  # the next will be much like it
            self.line(depth + 1, f"if len(chunk) > {LARGE_CHUNK}:", READER)
            self.line(depth + 2, "encode_list = encode_large", READER)
            self.line(depth + 1, "else:", READER)
            self.line(depth + 2, "encode_list = encode_many", READER)
        self.chunk(depth + 1)

    def keeps_lists(self) -> bool:
        """Tell whether a list leaves as it came, but for an event now and then."""
        return self.mode != "lists" and all(
            shape in ("", "tap")
            or (shape in ("map", "filter_map") and typed == "others")
            for _, shape, _, typed, _, _ in self.key[self.start : self.stop]
        )

    def loop(self, depth: int) -> None:
        self.line(depth, "async for event in source:", SOURCE)
        self.line(depth + 1, "if event.__class__ is not dict:", SOURCE)
        self.line(depth + 2, "if isinstance(event, list):", SOURCE)
        self.batch(depth + 3)
        self.line(depth + 3, "continue", SOURCE)
        self.line(depth + 2, 'event = checked(event, "the source")', SOURCE)
        self.operators(depth + 1, self.start, self.send)

    # -- the two kinds of function

    def body(self) -> None:
        """Emit the outermost segment: what the reader iterates."""
        self.line(
            0,
            "async def body(run, stages, checked, passes, isawaitable, dumps, encode, "
            "encode_many):",
        )
        self.locals(1)
        self.line(1, "n = 0")
        if self.mode == "events":
            left = "rest"
            self.line(1, "rest = ()")
        else:
            left = "passed(batch, rest, edits)" if self.keeps_lists() else "batch"
            self.line(1, "batch = edits = ()")
            self.line(1, "rest = None")
            self.line(1, "encode_list = encode_many")
        self.line(1, "try:")
        if self.envelope >= self.start:
            self.line(2, "for event in run.started():", READER)
            self.operators(3, self.envelope + 1, self.send)
        elif self.envelope >= 0:
            over = f"await run.started_over({self.start})"
            self.line(2, f"for event in {over}:", READER)
            self.operators(3, self.start, self.send)
        self.started_sent = True
        self.line(2, f"source = await run.source({self.index})", SOURCE)
        self.loop(2)
        self.line(1, "except BaseException as exc:")
        self.line(2, f"if run.stopped(exc, n, {left}):")
        self.line(3, "await run.left()")
        self.line(3, "raise")
        self.line(1, "else:")
        self.line(2, "if run.stopped(None, n, ()):", READER)
        self.line(3, "await run.left()", READER)
        self.line(1, "chunks = run.settled_now() or await run.settled()", READER)
        self.line(1, "try:")
        self.line(2, "while chunks:", READER)
        self.line(3, "yield chunks.popleft()", READER)
        self.line(1, "finally:")
        self.line(2, "if not run.closed_now():", READER)
        self.line(3, "await run.closed()", READER)
        self.line(1, "run.raise_failure()", READER)

    def inner(self) -> None:
        """Emit a segment that ends at a `through` operator."""
        self.line(0, "async def segment(run, stages, checked, passes, isawaitable):")
        self.locals(1)
        self.line(1, f"source = await run.source({self.index})", SOURCE)
        if self.mode == "lists":
            self.line(1, "batch = ()")
            self.line(1, "try:")
            self.loop(2)
            self.line(1, "except Exception:")
            self.line(2, f"run.held({self.index}, batch)")
            self.line(2, "raise")
        else:
            self.loop(1)
        self.line(1, f"for event in await run.finish_segment({self.index}):", EVENT)
        self.line(2, "yield event", READER)
