"""All detectors of an operator as one automaton, its states made when they are met.

A state stands for one candidate: every detector's nodes for a match that began at one
place, together. Taking a character is one look-up, `state[char]`, and costs the same
however many detectors there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from .detector import Detector
from .pattern import ACCEPT, Guard, Test

START: Final = 1
"""A candidate begins with the character just taken."""
INNER: Final = 2
"""With it another candidate could begin, inside of the one under way."""
FOUND: Final = 4
"""The candidate is a match that ends after it."""
DEAD: Final = 8
"""The candidate cannot go on with it, and leaves something to decide."""
BEHIND: Final = 16
"""The candidate that begins has a lookbehind to be tested on the text."""

Key = tuple[bool, ...]
"""What the guards need to know of a character: the answers of their `key`s."""

_MOST_STATES: Final = 4_000
_MOST_CHARACTERS: Final = 256
_MOST_RUNS: Final = 40_000
_LONGEST_RUN: Final = 16

Run: TypeAlias = tuple["State", int, str, str]
"""Where a piece of text leads: the state; where the first other candidate inside of its
candidate begins, -1 where it does not in this piece; the piece cut at its candidate's
start, two empty ones where none begins. Counted from that cut, or the piece's start."""


class State(dict[str, "State"]):
    """Where a candidate is; `state[char]` is where it is then.

    `live`: there is a candidate; without one, the text so far is decided. `found`:
    detectors that match here. `alive`: those that could still. `inner`: the nodes of
    candidates that began inside, together, empty again once all of them have ended
    without a match; `kept`: the candidate has been a match.
    """

    __slots__ = (
        "_automaton",
        "alive",
        "found",
        "inner",
        "kept",
        "key",
        "live",
        "mark",
        "nodes",
        "runs",
    )

    def __init__(
        self,
        automaton: Automaton,
        nodes: frozenset[int],
        key: Key,
        mark: int = 0,
        inner: frozenset[int] = frozenset(),
        *,
        kept: bool = False,
    ) -> None:
        """Make a state; only the automaton does."""
        self._automaton = automaton
        self.nodes = nodes
        self.key = key
        self.mark = mark
        self.runs: dict[str, Run] = {}
        self.inner = inner
        self.kept = kept
        self.live = bool(nodes)
        owner = automaton.owner
        self.found = tuple(sorted({owner[n] for n in nodes if n in automaton.accepts}))
        self.alive = tuple(sorted({owner[n] for n in nodes if n in automaton.goes_on}))

    def __missing__(self, char: str) -> State:
        """Find the next state, and keep it."""
        state = self._automaton.step(self, char)
        if len(self) < _MOST_CHARACTERS:
            self[char] = state
        return state


class Automaton:
    """The detectors put together: begin at `idle(the character before)`."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        """Lay the detectors' nodes side by side."""
        self.detectors = tuple(detectors)
        self.tests: list[Test] = []
        self.follow: list[frozenset[int]] = []
        self.owner: list[int] = []
        self.accepts: set[int] = set()
        self.goes_on: set[int] = set()
        self.entry: list[
            tuple[tuple[tuple[int, Guard], ...], frozenset[int], bool]
        ] = []
        self.keys: list[Test] = []
        self.limits: dict[int, tuple[int, ...]] = {}
        self.before = 0
        for d, detector in enumerate(self.detectors):
            self._add(d, detector)
        self.shortest_limit = min(self.limits, default=1 << 60)
        self._states: dict[object, State] = {}
        self._runs = 0
        self._key_of: dict[str, Key] = {}
        self.dead = State(self, frozenset(), (), DEAD)

    def _add(self, d: int, detector: Detector) -> None:
        program = detector.program
        self.before = max(self.before, program.before)
        base = len(self.tests)
        accept = base + len(program.tests)
        # A match whose end is to be confirmed waits for the characters that tell.
        waits = range(1, program.after)
        ended = frozenset({accept, *([accept + 1] if waits else ())})

        def moved(nodes: frozenset[int]) -> frozenset[int]:
            made = {base + n for n in nodes if n != ACCEPT}
            return frozenset(made | ended) if ACCEPT in nodes else frozenset(made)

        self.tests += [*program.tests, _nothing, *[_anything for _ in waits]]
        self.follow += [*[moved(nodes) for nodes in program.follow], frozenset()]
        self.follow += [frozenset({accept + k + 1}) for k in waits]
        if waits:  # the last one takes nothing more
            self.tests.append(_nothing)
            self.follow.append(frozenset())
        self.owner += [d] * (len(self.tests) - len(self.owner))
        self.accepts.add(accept)
        self.goes_on.update(range(base, accept))
        guards: list[tuple[int, Guard]] = []
        for guard in program.guards:
            guards.append((len(self.keys), guard))
            self.keys.append(guard.key)
        self.entry.append(
            (tuple(guards), moved(program.entry), program.behind is not None)
        )
        if detector.open_ended:
            self.limits[detector.max_len] = (
                *self.limits.get(detector.max_len, ()),
                d,
            )

    def key_of(self, char: str) -> Key:
        """Tell what the guards need to know of a character ("" for the text's start)."""
        key = self._key_of.get(char)
        if key is None:
            key = tuple([test(char) for test in self.keys])
            if len(self._key_of) < _MOST_CHARACTERS:
                self._key_of[char] = key
        return key

    def idle(self, before: str) -> State:
        """Return the state without a candidate, after the character `before`."""
        return self._state(frozenset(), self.key_of(before))

    def step(self, state: State, char: str) -> State:
        """Find the state after `char`."""
        key = self.key_of(char)
        begun: set[int] = set()
        behind = 0
        for guards, entry, looks_behind in self.entry:
            if all(guard.holds(state.key[k], char) for k, guard in guards):
                taken = self._taken(entry, char)
                if taken:
                    begun |= taken
                    behind |= BEHIND if looks_behind else 0
        if not state.live:
            if not begun:
                return self._state(frozenset(), key)
            return self._state(frozenset(begun), key, START | behind)
        moved = self._taken(state.nodes, char)
        # A match inside is not forgotten: its last node stays.
        inside = self._taken(state.inner, char) | (state.inner & self.accepts)
        if not moved:
            if state.kept or inside:
                return self.dead
            return self._state(frozenset(), state.key)[char]
        inside |= begun
        mark = INNER if inside and not state.inner else 0
        return self._state(
            frozenset(moved), key, mark, frozenset(inside), kept=state.kept
        )

    def run(self, state: State, text: str) -> Run | None:
        """Take a piece of text in which nothing is decided; None where something is.

        What is short is remembered: a language model has few tokens, and repeats them.
        """
        after = state
        at = start = inner = -1
        for char in text:
            at += 1
            after = after[char]
            if after.mark:
                if after.mark == START:
                    start, inner = at, -1
                elif after.mark == INNER:
                    inner = at
                else:
                    return None
        if start < 0 or not after.live:
            run = (after, inner, "", "")
        else:
            inner -= start if inner >= 0 else 0
            run = (after, inner, text[:start], text[start:])
        if len(text) <= _LONGEST_RUN:
            self._runs += 1
            if self._runs > _MOST_RUNS:
                self._runs = 0
                for one in self._states.values():
                    one.runs.clear()
            state.runs[text] = run
        return run

    def without(self, state: State, gone: Iterable[int]) -> State:
        """Take detectors out of a candidate; nothing may be left of it."""
        nodes = frozenset(n for n in state.nodes if self.owner[n] not in set(gone))
        return self._state(nodes, state.key, 0, state.inner, kept=state.kept)

    def _taken(self, nodes: Iterable[int], char: str) -> set[int]:
        found: set[int] = set()
        for node in nodes:
            if self.tests[node](char):
                found |= self.follow[node]
        return found

    def _state(
        self,
        nodes: frozenset[int],
        key: Key,
        mark: int = 0,
        inner: frozenset[int] = frozenset(),
        *,
        kept: bool = False,
    ) -> State:
        if not nodes.isdisjoint(self.accepts):
            mark |= FOUND
            kept = True
        known = (nodes, key, mark, inner, kept)
        state = self._states.get(known)
        if state is None:
            if len(self._states) >= _MOST_STATES:
                # Begin anew: a text that keeps making states must not fill the memory.
                for old in self._states.values():
                    old.clear()
                    old.runs.clear()
                self._states.clear()
            state = self._states[known] = State(
                self, nodes, key, mark, inner, kept=kept
            )
        return state


def _nothing(char: str) -> bool:
    return False


def _anything(char: str) -> bool:
    return True
