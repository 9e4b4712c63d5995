"""The scan: a text in pieces of any size in, the same redacted text out.

The rule, for a text as a whole: at the first place where a detector matches, the longest
match of all detectors is replaced (of two as long, the earlier detector's), and the scan
goes on at its end. Cutting the text changes nothing, since what is decided at a
character depends on the characters before it alone, and text is let out only when it is
decided.

An *end* (`flush`) is the end of the text, or an event that must not be overtaken by
text. There a match that is cut short is masked where its detector's `partial` agrees,
and else let out. The candidates stay: what comes after the end and completes a match,
or goes on with one that was masked, is masked too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from ..errors import TurnError
from .automaton import BEHIND, DEAD, FOUND, INNER, START, Automaton, Run, State
from .detector import Detector
from .texts import Hit, Piece, shown

Replace: TypeAlias = Callable[[Detector, str], str]
"""Gives what stands in place of a match."""
More: TypeAlias = Callable[[str], object]
"""Is told what goes on with the match that was replaced last."""

_BLOCK_CHARS: Final = 2048
_NONE: Final[tuple[tuple[int, int], ...]] = ()
_NOBODY: Final = frozenset[int]()
_NO_RUNS: Final[dict[str, Run]] = {}


class RedactionOverflow(TurnError):
    """A secret was longer than its detector's `max_len`, and that was to fail."""

    code = "redaction_overflow"


class Rules:
    """Detectors, compiled once for all turns of an operator."""

    def __init__(
        self, detectors: Sequence[Detector], *, overflow_fails: bool = False
    ) -> None:
        """Compile them."""
        self.overflow_fails = overflow_fails
        self.main = Automaton(detectors)
        self.closers = {
            d: Automaton((detector.closer,))
            for d, detector in enumerate(detectors)
            if detector.closer is not None
        }
        self.shortest_limit = self.main.shortest_limit
        self.longest_limit = max(self.main.limits, default=0)

    def redact(
        self,
        text: str,
        replace: Replace,
        *,
        before: str = "",
        more: More | None = None,
    ) -> str:
        """Redact a whole text; `before` is what stands left of it, as context."""
        scanner = Scanner(self, replace, before=before, more=more)
        return scanner.feed(text) + scanner.flush()


class _Candidate(NamedTuple):
    """A candidate put aside."""

    state: State
    start: int
    inner: int
    best: tuple[int, int] | None
    maybe: tuple[tuple[int, int], ...]
    seen: frozenset[int]
    careful: bool


class Scanner:
    """One text being redacted: `feed` its pieces, `flush` at its end.

    `_buffer` holds the text from the oldest undecided character on, all indices count
    from it. `_out` is how much of it has been let out or taken out. `_before` ends with
    the character before it.
    """

    __slots__ = (
        "_automaton",
        "_before",
        "_best",
        "_block",
        "_buffer",
        "_careful",
        "_inner",
        "_left",
        "_masked",
        "_maybe",
        "_more",
        "_out",
        "_pieces",
        "_plain",
        "_replace",
        "_rules",
        "_runs",
        "_seen",
        "_start",
        "_state",
        "_swallows",
        "_tail",
    )

    def __init__(
        self,
        rules: Rules,
        replace: Replace,
        *,
        before: str = "",
        more: More | None = None,
    ) -> None:
        """Begin a text; `before` is what stands left of it, as context."""
        self._rules = rules
        self._replace: Replace = _left_alone
        self._more: More | None = None
        self._automaton: Automaton = rules.main
        self._state: State = rules.main.idle("")
        self._buffer: str = ""
        self._before: str = ""
        self._left: str = ""
        self._start: int = 0
        self._inner: int = -1
        self._best: tuple[int, int] | None = None
        self._maybe: tuple[tuple[int, int], ...] = _NONE
        self._seen: frozenset[int] = _NOBODY
        self._out: int = 0
        self._tail: int = -1
        self._careful: bool = False
        self._swallows: bool = False
        self._masked: str | None = None
        self._block: int | None = None
        self._pieces: list[Piece] = []
        self._plain: bool = not rules.main.before
        self._runs: dict[str, Run] = self._state.runs if self._plain else _NO_RUNS
        if before:
            self._buffer = before
            self._advance(0)
            self._out = len(self._buffer)
            self._release()
            self._pieces = []
        self._replace = replace
        self._more = more

    @property
    def held(self) -> int:
        """Count the characters held back."""
        return len(self._buffer) - self._out

    def feed(self, text: str) -> str:
        """Take the next piece of the text; return what is decided now."""
        # Most text gets along with this: candidates that begin, and end without trace.
        run = self._runs.get(text)
        if run is None:
            if not self._plain or len(text) > _BLOCK_CHARS:
                return shown(self.take(text))
            run = self._automaton.run(self._state, text)
            if run is None:
                return shown(self.take(text))
        state, inner, head, tail = run
        held = self._buffer
        if tail:
            self._state = state
            self._runs = state.runs
            self._inner = inner
            self._buffer = tail
            if head:
                self._before = head
                return held + head if held else head
            if held:
                self._before = held
            return held
        if not state.live:
            self._state = state
            self._runs = state.runs
            if text:
                self._before = text
            if held:
                self._buffer = ""
                return held + text
            return text
        if len(held) + len(text) >= self._rules.shortest_limit:
            return shown(self.take(text))
        self._state = state
        self._runs = state.runs
        self._buffer = held + text
        if inner >= 0:
            self._inner = len(held) + inner
        return ""

    def flush(self, *, last: bool = False) -> str:
        """End the text; return the rest of it."""
        if not self._buffer:
            return ""
        return shown(self.end())

    def take(self, text: str) -> list[Piece]:
        """Do as `feed`, and tell what was taken out."""
        self._runs = _NO_RUNS  # also where this raises
        for at in range(0, len(text), _BLOCK_CHARS):
            known = len(self._buffer)
            self._buffer += text[at : at + _BLOCK_CHARS]
            self._advance(known)
            self._release()
        return self._taken()

    def end(self) -> list[Piece]:
        """Do as `flush`, and tell what was taken out."""
        self._runs = _NO_RUNS
        size = len(self._buffer)
        oldest: _Candidate | None = None
        while True:
            if self._swallows:
                self._drop(size if self._tail < 0 else self._tail)
                if self._tail < 0 or self._tail == size:
                    break
                self._swallows = False  # a whole match, and what is none of it
                self._advance(self._resume(self._tail))
                continue
            if self._block is not None or not self._state.live:
                self._let_out(size)
                break
            best = self._winner()
            if best is None or any(map(str.isalnum, self._buffer[best[0] :])):
                unsafe = self._unsafe()
                if unsafe is not None:
                    oldest = None
                    self._mask(size, unsafe, opens=False)
                    self._go_on_swallowing(-1)
                    break
            if best is not None:
                # It may go on after the end, beyond what is let out now.
                oldest = self._candidate()
                stop, d = best
                opens = self._automaton.detectors[d].closer is not None
                self._mask(stop, d)
                if opens:
                    oldest = None
                elif stop == size:
                    oldest = None
                    self._go_on_swallowing(size)
                    break
                self._advance(self._resume(stop))
                continue
            if oldest is None:
                oldest = self._candidate()
            if self._inner < 0:
                self._let_out(size)
                break
            self._advance(self._resume(self._inner))
        if oldest is not None:
            self._state, self._careful = oldest.state, oldest.careful
            self._start, self._inner = oldest.start, oldest.inner
            self._best, self._maybe = oldest.best, oldest.maybe
            self._seen = oldest.seen
        self._release()
        return self._taken()

    # -- taking characters

    def _advance(self, at: int) -> None:
        """Take the characters from `at` on."""
        size = len(self._buffer)
        while at < size:
            if self._swallows:
                at = self._swallow(at)
            elif self._careful:
                at = self._step(at)
            else:
                at = self._run(at)
        if (
            self._state.live
            and not self._careful
            and not self._swallows
            and size - self._start >= self._rules.shortest_limit
            and self._block is None
        ):
            self._advance(self._again())

    def _run(self, at: int) -> int:
        """Take characters until something is decided; return where to go on."""
        state = self._state
        for char in self._buffer[at:]:
            after = state[char]
            at += 1
            if after.mark:
                if after.mark & DEAD:
                    self._state = state
                    return self._resolve(at - 1)
                after = self._marked(after, at)
            state = after
        self._state = state
        return at

    def _marked(self, state: State, at: int) -> State:
        """Note what the character before `at` brought."""
        if state.mark & START:
            self._start = at - 1
            self._inner, self._best, self._maybe = -1, None, _NONE
            self._seen = _NOBODY
            if state.mark & BEHIND:
                state = self._looked_behind(state, at - 1)
        if state.mark & INNER:
            self._inner = at - 1
        if state.mark & FOUND:
            self._seen |= {*state.found}
            for d in state.found:
                if not self._automaton.detectors[d].exact:
                    self._maybe += ((at, d),)
                elif self._best is None or self._best[0] < at:
                    self._best = (at, d)
        return state

    def _looked_behind(self, state: State, at: int) -> State:
        text = self._left + self._buffer[:at]
        detectors = self._automaton.detectors
        gone = [
            d
            for d in state.alive
            if (behind := detectors[d].program.behind) is not None and not behind(text)
        ]
        return self._automaton.without(state, gone) if gone else state

    def _step(self, at: int) -> int:
        """Take one character of a candidate that has come to the limit of a detector."""
        state = self._state[self._buffer[at]]
        at += 1
        if state.mark & DEAD:
            return self._resolve(at - 1)
        if not state.live or (state.mark & START and at - 1 > self._start):
            self._careful = False  # it ended without trace
        if state.mark:
            state = self._marked(state, at)
        self._state = state
        length = at - self._start
        limited = self._automaton.limits.get(length, ())
        if not (self._careful and limited):
            return at
        seen = self._seen
        gone = [d for d in limited if d in state.alive and d not in seen]
        if gone:
            self._state = state = self._automaton.without(state, gone)
            if not state.live:
                return self._resolve(at)
        detectors = self._automaton.detectors
        if (
            seen
            and state.alive
            and all(length >= detectors[d].max_len for d in state.alive)
        ):
            found = [*self._maybe, *([self._best] if self._best else [])]
            found.sort(key=_longest_first)
            stop, d = found[0]
            self._mask(stop, d)
            if self._block is not None:
                return self._resume(stop)
            self._swallows, self._tail, self._masked = True, stop, None
            if self._rules.overflow_fails:
                raise RedactionOverflow(
                    f"a match of detector {detectors[d].name!r} is longer than its "
                    f"max_len={detectors[d].max_len}: give it a larger one, or use "
                    f'on_overflow="mask"'
                )
        return at

    def _again(self) -> int:
        """Go back to the candidate's start, and on with care for its limits."""
        at = self._start
        self._state = self._automaton.idle(self._char_before(at))
        self._careful = True
        return at

    def _swallow(self, at: int) -> int:
        """Take out what goes on with a match that was masked before its end."""
        state = self._state
        buffer = self._buffer
        while at < len(buffer):
            after = state[buffer[at]]
            if (
                not after.live
                or after.mark & START
                or (self._tail >= 0 and at - self._tail > self._rules.longest_limit)
            ):
                stop = self._tail if self._tail >= 0 else at
                self._drop(stop)
                self._swallows = False
                return self._resume(stop)
            state = after
            at += 1
            if state.mark & FOUND and self._agreed(state, at):
                self._tail = at
                opener = next(
                    (d for d in state.found if d in self._rules.closers), None
                )
                if opener is not None:
                    self._drop(at)
                    self._swallows = False
                    self._open_block(opener)
                    return self._resume(at)
        self._state = state
        self._drop(len(buffer) if self._tail < 0 else self._tail)
        return len(buffer)

    def _go_on_swallowing(self, tail: int) -> None:
        """Swallow what goes on after an end; `tail` is where a whole match ended."""
        self._swallows, self._tail = True, tail
        self._masked = ""

    def _agreed(self, state: State, at: int) -> bool:
        """Tell whether a match that goes on is one here, too.

        Beyond its limit the pattern alone tells.
        """
        if self._masked is None:
            return True
        text = self._masked + self._buffer[max(self._start, 0) : at]
        detectors = [self._automaton.detectors[d] for d in state.found]
        return any(one.validate is None or one.validate(text) for one in detectors)

    # -- deciding

    def _resolve(self, at: int) -> int:
        """Decide on the candidate, which cannot take the character at `at`."""
        if (
            not self._careful
            and self._block is None
            and at - self._start >= self._rules.shortest_limit
        ):
            return self._again()
        best = self._winner()
        if best is None:
            return self._resume(self._inner if self._inner >= 0 else at)
        stop, d = best
        if self._block is not None:
            self._drop(stop)
            self._block = None
            self._automaton = self._rules.main
        else:
            self._mask(stop, d)
        return self._resume(stop)

    def _winner(self) -> tuple[int, int] | None:
        """Choose the longest match of the candidate, and whose it is."""
        if not self._maybe:
            return self._best
        found = [*self._maybe, *([self._best] if self._best else [])]
        found.sort(key=_longest_first)
        detectors = self._automaton.detectors
        text = self._left + self._buffer
        left = len(self._left)
        for one in found:
            stop, d = one
            if one is self._best or detectors[d].confirms(
                text, left + self._start, left + stop
            ):
                return one
        return None

    def _unsafe(self) -> int | None:
        """Tell whose match the candidate could become, if it must not be shown."""
        text = self._buffer[self._start :]
        for d in self._state.alive:
            if self._automaton.detectors[d].partial(text):
                return d
        return None

    def _resume(self, at: int) -> int:
        self._state = self._automaton.idle(self._char_before(at))
        self._careful = False
        return at

    def _char_before(self, at: int) -> str:
        return self._buffer[at - 1] if at else self._before[-1:]

    def _candidate(self) -> _Candidate:
        return _Candidate(
            self._state,
            self._start,
            self._inner,
            self._best,
            self._maybe,
            self._seen,
            self._careful,
        )

    # -- letting out

    def _mask(self, stop: int, d: int, *, opens: bool = True) -> None:
        """Replace the candidate's text up to `stop`."""
        self._let_out(self._start)
        detector = self._automaton.detectors[d]
        if stop > self._out:
            shown = self._replace(detector, self._buffer[self._start : stop])
            self._pieces.append(Hit(stop - self._out, shown))
            self._out = stop
        if detector.closer is not None and opens:
            self._open_block(d)

    def _open_block(self, d: int) -> None:
        """Mask all from here on, until the closer."""
        self._block = d
        self._automaton = self._rules.closers[d]

    def _let_out(self, stop: int) -> None:
        if self._block is not None:
            self._drop(stop)
        elif stop > self._out:
            self._pieces.append(self._buffer[self._out : stop])
            self._out = stop

    def _drop(self, stop: int) -> None:
        if stop > self._out:
            if self._more is not None:
                self._more(self._buffer[self._out : stop])
            self._pieces.append(Hit(stop - self._out, ""))
            self._out = stop

    def _release(self) -> None:
        """Let out what is decided, and forget it."""
        size = len(self._buffer)
        if self._swallows:
            keep = size if self._tail < 0 else self._tail
        else:
            keep = self._start if self._state.live else size
            self._let_out(keep)
        if keep:
            if self._swallows and self._masked is not None:
                self._masked += self._buffer[max(self._start, 0) : keep]
                if len(self._masked) > _BLOCK_CHARS:
                    self._masked = None
            self._before = self._buffer[keep - 1]
            if self._rules.main.before:
                seen = self._left + self._buffer[:keep]
                self._left = seen[-self._rules.main.before - 1 :]
            self._buffer = self._buffer[keep:]
            self._start -= keep
            self._inner -= keep if self._inner >= 0 else 0
            self._tail -= keep if self._tail >= 0 else 0
            self._out -= keep
            if self._best is not None:
                self._best = (self._best[0] - keep, self._best[1])
            self._maybe = tuple([(stop - keep, d) for stop, d in self._maybe])
        self._plain = (
            not self._out
            and not self._swallows
            and not self._careful
            and self._block is None
            and not self._rules.main.before
        )
        self._runs = self._state.runs if self._plain else _NO_RUNS
        if self._plain and not self._state.live:
            # The next candidate may begin in a run, which does not set these.
            self._start, self._inner = 0, -1
            self._best, self._maybe, self._seen = None, _NONE, _NOBODY

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces


def _left_alone(detector: Detector, text: str) -> str:
    return text


def _longest_first(found: tuple[int, int]) -> tuple[int, int]:
    return -found[0], found[1]
