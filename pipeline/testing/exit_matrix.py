"""`assert_exit_matrix`: a pipeline proven on every way in which a turn may end."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

from operators.accumulate import accumulate
from operators.errors import CompositionError
from operators.lifecycle import lifecycle
from operators.operator import Chain, Composable
from operators.persist import persist

from ..pipeline import Pipeline
from ..run import OnDisconnect
from .case import Action, Case, Factory, Reading, Seen
from .conservation import lost_at_the_end
from .independence import broken_independence
from .laws import LAWS, Breach, Law, broken_laws, texts_of
from .rows import EVENTS, rows, steps
from .trial import Subject

Tested: TypeAlias = "Factory | Pipeline | Composable"

_STEPS = 2000
_COLLECT_RUNS = 200  # asyncio looks at all tasks that are not collected yet, each time
_MORE_RUNS = 300  # after a first breach: what else is wrong shows soon, or not at all
_SECONDS = (0, 1, 3, 8)
_BOTH: tuple[OnDisconnect, ...] = ("cancel", "detach")
_READINGS: tuple[Reading, ...] = ("events", "body")


class ExitMatrixError(AssertionError):
    """A pipeline broke a law; `breaches` has each law once, with its first run."""

    def __init__(self, message: str, breaches: list[Breach]) -> None:
        """Keep the breaches."""
        super().__init__(message)
        self.breaches = breaches


async def assert_exit_matrix(
    tested: Tested,
    *,
    events: Iterable[Any] | None = None,
    waive: Iterable[Law] = (),
    thorough: bool = False,
) -> int:
    """Run a pipeline through every way in which a turn may end; return how many runs.

    `tested` is a function that composes the pipeline around the source it is given, a
    pipeline (its source is replaced), or an operator, which is tested between a
    `lifecycle` and a `persist`. Each run has an event loop of virtual time of its own,
    in another thread: timeouts take no time, and what an operator uses must not belong
    to the calling loop.

    Every row of the table of endings is read as events, as bytes and headless, inline
    and owned by its own task; then `run.cancel`, a cancelled reader, a closed and a
    detached one come at every step of the loop, and a second cancellation some steps
    later (`thorough`: at every later step). `LAWS` says what must hold. `events` is
    what the source says, in case the pipeline does not let the usual through; a law
    that an operator breaks on purpose can be waived by its name.

    Raises:
        ExitMatrixError: a law was broken; it names the row, the step, the law and, as
            far as it can be found out, the operator.
        ValueError: there is no such law to waive.
    """
    matrix = _Matrix(tested, events, waive, thorough=thorough)
    try:
        return await asyncio.to_thread(matrix.check)
    finally:
        matrix.given_up = True


def check_exit_matrix(
    tested: Tested,
    *,
    events: Iterable[Any] | None = None,
    waive: Iterable[Law] = (),
    thorough: bool = False,
) -> int:
    """Do as `assert_exit_matrix`, for a test that is a plain function."""
    return _Matrix(tested, events, waive, thorough=thorough).check()


class _Matrix:
    """One check: its subject, and the breaches found so far."""

    def __init__(
        self,
        tested: Tested,
        events: Iterable[Any] | None,
        waive: Iterable[Law],
        *,
        thorough: bool,
    ) -> None:
        self.factory = _factory(tested)
        self.events = EVENTS if events is None else tuple(events)
        self.waived = frozenset(waive)
        unknown = self.waived - LAWS.keys()
        if unknown:
            raise ValueError(
                f"there is no law {sorted(unknown)}: waive any of {', '.join(LAWS)}"
            )
        self.thorough = thorough
        self.subject = Subject(self.factory, self.events)
        self.found: dict[Law, Breach] = {}
        self.runs = 0
        self.given_up = False
        self.last_run = sys.maxsize

    def check(self) -> int:
        normal = self.run(Case("the source ends", drained=True), compared=False)
        outcome = normal.outcome
        if not self.found and (outcome is None or outcome.status != "completed"):
            raise ExitMatrixError(
                f"an undisturbed turn did not complete: {outcome}; give `events` that "
                f"this pipeline lets through",
                [],
            )
        if not self.found:
            for case in self.cases(normal):
                if self.given_up or self.runs > self.last_run:
                    break
                if not self.runs % _COLLECT_RUNS:
                    gc.collect()
                self.run(case)
        for breach in broken_independence(self.subject):
            self.note(breach)
        self._conserved(normal)
        if self.found:
            breaches = list(self.found.values())
            raise ExitMatrixError(self.report(breaches), breaches)
        return self.runs

    def cases(self, normal: Seen) -> Iterator[Case]:
        """Give all cases; those at steps as long as the turn has steps."""
        for k in normal.stages:
            yield Case("the source ends", inject=(k, "watch"), drained=True)
        yield from rows(self.events, normal)
        actions: tuple[Action, ...] = ("cancel", "task", "aclose", "detach", "stop")
        for mode in _BOTH:
            for reading in _READINGS:
                for action in actions:
                    yield from self.stepped(action, reading, mode)
        total = self._steps_of(normal)
        seconds = range(total) if self.thorough else _SECONDS
        for mode in _BOTH:
            for action in actions[:4]:
                for second in seconds:
                    yield from self.stepped(action, "events", mode, second)

    def _steps_of(self, normal: Seen) -> int:
        last = 0
        for case in islice(steps("cancel", "events", "cancel"), _STEPS):
            if not self.subject.run(case).acted:
                break
            last = case.step
        return last

    def stepped(
        self,
        action: Action,
        reading: Reading,
        mode: OnDisconnect,
        second: int | None = None,
    ) -> Iterator[Case]:
        """Give the cases of one disturbance until the turn is over before it comes."""
        for case in islice(steps(action, reading, mode, second), _STEPS):
            self.acted = True
            yield case
            if not self.acted and case.step:
                return

    def run(self, case: Case, *, compared: bool = True) -> Seen:
        """Run one case, and note the laws that it broke."""
        seen = self.subject.run(case)
        self.runs += 1
        self.acted = seen.acted
        normal = self.subject.normal(case.events) if compared and _fits(case) else None
        for breach in broken_laws(seen, normal):
            self.note(breach)
        return seen

    def note(self, breach: Breach) -> None:
        """Keep the first breach of a law."""
        if breach.law in self.waived or breach.law in self.found:
            return
        if not self.found:
            self.last_run = self.runs + _MORE_RUNS
        self.found[breach.law] = breach

    def _conserved(self, normal: Seen) -> None:
        """Note where the end of the text does not come out of a whole turn."""
        told = lost_at_the_end(self.subject, normal)
        if told is not None:
            self.note(Breach("kept", told, normal))

    def report(self, breaches: list[Breach]) -> str:
        """Say what was found, for a person to act on."""
        first = breaches[0].seen
        lines = [
            f"{len(breaches)} of {len(LAWS)} laws broken in {self.runs} runs of "
            f"{' | '.join(['source', *first.names])}"
        ]
        for breach in breaches:
            lines += [
                f"  {breach.law}: {LAWS[breach.law]}",
                f"    {breach.told}",
                f"    when: {breach.seen.case}",
                f"    whose: {breach.operator or self.culprit(breach)}",
                f"    taps saw: {_shown(breach.seen.events)}",
            ]
        return "\n".join(lines)

    def culprit(self, breach: Breach) -> str:
        """Find the operators without which the law holds."""
        case = breach.seen.case
        if breach.law == "mutation" and breach.seen.wrote:
            return "; ".join(breach.seen.wrote[:1])
        names: list[str] = []
        for k, name in enumerate(breach.seen.names):
            stage = breach.seen.stages.get(k)
            if stage is not None and stage.envelope is not None:
                continue
            try:
                if not self.breaks(breach.law, _moved(case, k), without=k):
                    names.append(f"operator {k + 1}, {name}")
            except CompositionError:  # another needs it
                continue
        if not names:
            return "the source, what wraps it, or more than one operator"
        return f"{', or '.join(names)} (without it the law holds)"

    def breaks(self, law: Law, case: Case, *, without: int) -> bool:
        """Tell whether the law breaks also without one operator."""
        subject = Subject(self.factory, self.events, without=without)
        if law == "independent":
            return any(True for _ in broken_independence(subject))
        normal = subject.normal()
        if law == "kept" and lost_at_the_end(subject, normal) is not None:
            return True
        cases: Iterable[Case] = (case,)
        if case.action:
            cases = islice(
                steps(case.action, case.reading, case.mode, case.second), _STEPS
            )
        for one in cases:
            seen = subject.run(one)
            compared = subject.normal(one.events) if _fits(one) else None
            if any(breach.law == law for breach in broken_laws(seen, compared)):
                return True
            if one.action and one.step and not seen.acted:
                break
        return False


def _moved(case: Case, without: int) -> Case:
    """Let the faults of a case stay at their places when one operator is left out."""
    insert, inject = case.insert, case.inject
    if insert is not None and insert[0] > without:
        case = replace(case, insert=(insert[0] - 1, insert[1]))
    if inject is not None and inject[0] == without:
        case = replace(case, inject=None)
    elif inject is not None and inject[0] > without:
        case = replace(case, inject=(inject[0] - 1, inject[1]))
    return case


def _fits(case: Case) -> bool:
    """Tell whether a whole turn of the same events is there to compare with."""
    return case.code != "invalid_event" and case.wrap is None


def _factory(tested: Tested) -> Factory:
    if isinstance(tested, Pipeline):
        chain = Chain(tested.operators)
        return lambda source: Pipeline(source) | chain
    if isinstance(tested, Composable):
        operator = tested
        return lambda source: (
            Pipeline(source)
            | lifecycle()
            | operator
            | accumulate()
            | persist(_kept_nowhere, partial=True)
        )
    factory: Callable[[Callable[..., Any]], Pipeline] = tested
    return factory


def _kept_nowhere(record: object) -> None:
    """Stand in for a sink."""


def _shown(events: list[Any]) -> str:
    shown: list[str] = []
    for event in events:
        text = "".join(texts_of([event]).values())
        kind = str(event.get("type"))
        shown.append(repr(text) if text else kind.rpartition(".")[2])
    return ", ".join(shown) or "nothing"
