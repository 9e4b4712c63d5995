"""A regular expression as the nodes of an automaton, and what is known of its width.

The parse tree is Python's own. Set semantics: a pattern stands for all spans that it can
match, so greedy, lazy and possessive repeats are alike here. What an automaton of plain
nodes cannot tell (assertions inside, back references, possessive and atomic groups) is
left out of the nodes, which then accept too much, and `Program.confirm` decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Final, NoReturn, TypeAlias, cast

from ..errors import CompositionError

# The parser has no public name since 3.11 took `sre_parse` out of the open, and no stubs.
_parser: Any = import_module("re._parser")

Test: TypeAlias = Callable[[str], bool]
"""Tells whether one character fits."""

ACCEPT: Final = -1
MAX_NODES: Final = 20_000
_EVERY: Final = int(_parser.MAXREPEAT)
_INLINE: Final = re.compile(r"\(\?([aiLmsux]+)\)")
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on the place where a match begins: the characters on its two sides.

    `key(before)` is what counts of the character before, "" at the start of the text.
    """

    key: Test
    holds: Callable[[bool, str], bool]


@dataclass(slots=True)
class Program:
    """One pattern, ready to be put together with others.

    `tests[n]` and `follow[n]`: what node n takes, and which nodes (or ACCEPT) come
    next. `longest` is None without a bound. `behind(text before)` is a lookbehind at
    the head. `before` and `after` count the characters of context that it and `confirm`
    want to see; without `confirm` the nodes are exact.
    """

    tests: list[Test] = field(default_factory=list[Test])
    follow: list[frozenset[int]] = field(default_factory=list[frozenset[int]])
    entry: frozenset[int] = frozenset()
    shortest: int = 0
    longest: int | None = 0
    guards: tuple[Guard, ...] = ()
    behind: Callable[[str], bool] | None = None
    before: int = 0
    after: int = 0
    confirm: Callable[[str, int, int], bool] | None = None


def compile_pattern(name: str, pattern: str, flags: int = 0) -> Program:
    """Compile `pattern`; `name` is whose it is, for the message of an error.

    Raises:
        CompositionError: it is no valid pattern, can match the empty text, looks ahead
            without bound, or repeats too much to be laid out.
    """
    given = _INLINE.match(pattern)
    while given is not None:
        for letter in given[1]:
            flags |= int(getattr(re, letter.upper()))
        pattern = pattern[given.end() :]
        given = _INLINE.match(pattern)
    try:
        tree = _parser.parse(pattern, flags)
        re.compile(pattern, flags)
    except (re.error, OverflowError, RecursionError) as exc:
        raise CompositionError(
            f"detector {name!r}: {pattern!r} is no regular expression: {exc}"
        ) from exc
    return _Compiler(name, pattern, int(tree.state.flags)).compile(list(tree))


class _Compiler:
    """Lays one parse tree out, from its end to its start."""

    def __init__(self, name: str, pattern: str, flags: int) -> None:
        self.name = name
        self.pattern = pattern
        self.flags = flags
        self.program = Program()
        self.exact = True
        self.follow: list[set[int]] = []
        self.empty: dict[int, set[int]] = {}
        self.widths: dict[int, tuple[int, int | None]] = {}

    def compile(self, tree: list[Any]) -> Program:
        program = self.program
        tree, ending = self.tail(self.head(tree))
        program.shortest, program.longest = self.width(tree)
        if program.shortest == 0:
            self.refuse("can match the empty text: make it need a character")
        entry = self.sequence(tree, {ACCEPT}, self.flags)
        program.follow = [self.closure(nodes) for nodes in self.follow]
        program.entry = self.closure(entry)
        if not self.exact:
            program.after = max(program.after, 1 if ending else 0)
            program.confirm = _confirming(self.pattern, self.flags, program)
        elif ending is not None:
            program.after = 1
            program.confirm = ending
        return program

    def refuse(self, why: str) -> NoReturn:
        raise CompositionError(f"detector {self.name!r}: {self.pattern!r} {why}")

    # -- nodes

    def closure(self, nodes: Iterable[int]) -> frozenset[int]:
        """Follow empty nodes (below ACCEPT) to those that take a character."""
        found: set[int] = set()
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += self.empty.get(node, ())
        return frozenset(node for node in found if node >= ACCEPT)

    def node(self, test: Test, then: set[int]) -> set[int]:
        self.program.tests.append(test)
        self.follow.append(then)
        if len(self.follow) > MAX_NODES:
            self.refuse("repeats too much: give smaller bounds, or none and a max_len")
        return {len(self.follow) - 1}

    def sequence(self, tree: Iterable[Any], then: set[int], flags: int) -> set[int]:
        for kind, value in reversed(list(tree)):
            then = self.item(str(kind), value, then, flags)
        return then

    def item(self, kind: str, value: Any, then: set[int], flags: int) -> set[int]:
        if kind == "SUBPATTERN":
            group, add, remove, inner = value
            if group is not None:
                self.widths[group] = self.width(inner)
            return self.sequence(inner, then, (flags | add) & ~remove)
        if kind == "BRANCH":
            entries = [self.sequence(one, then, flags) for one in value[1]]
            return set[int]().union(*entries)
        if kind in _REPEATS:
            if kind == "POSSESSIVE_REPEAT":
                self.exact = False
            low, high, inner = value
            return self.repeat((low, high), inner, then, flags)
        if kind == "ATOMIC_GROUP":
            self.exact = False
            return self.sequence(value, then, flags)
        if kind in ("AT", "ASSERT", "ASSERT_NOT"):
            self.assertion(kind, value)
            return then
        if kind in ("GROUPREF", "GROUPREF_EXISTS"):
            self.exact = False
            if kind == "GROUPREF":
                low, high = self.widths.get(value, (0, None))
                return self.any_of(low, high, then)
            _, yes, no = value
            return self.sequence(yes, then, flags) | self.sequence(
                no or (), then, flags
            )
        return self.node(_test(kind, _frozen(value), flags & _TELLING), then)

    def any_of(self, low: int, high: int | None, then: set[int]) -> set[int]:
        anything = [("IN", [("NEGATE", None)])]
        bounds = (low, _EVERY if high is None else high)
        return self.repeat(bounds, anything, then, 0)

    def repeat(
        self, bounds: tuple[int, int], inner: Any, then: set[int], flags: int
    ) -> set[int]:
        low, high = bounds
        if high == _EVERY:
            loop = ACCEPT - 1 - len(self.empty)
            self.empty[loop] = set()
            self.empty[loop] = self.sequence(inner, {loop}, flags) | then
            then = {loop}
        else:
            end = then
            for _ in range(high - low):
                then = self.sequence(inner, then, flags) | end
        for _ in range(low):
            then = self.sequence(inner, then, flags)
        return then

    # -- assertions

    def head(self, tree: list[Any]) -> list[Any]:
        """Take the conditions on the match's start off the tree."""
        program = self.program
        guards: list[Guard] = []
        at = 0  # a pattern of conditions alone was refused before: it matches nothing
        while (guard := self.guard(str(tree[at][0]), tree[at][1])) is not None:
            at += 1
            guards.append(guard)
        program.guards = tuple(guards)
        if str(tree[at][0]) in ("ASSERT", "ASSERT_NOT"):
            kind, (direction, inner) = tree[at]
            if direction < 0:
                program.behind = self.behind(inner, wanted=str(kind) == "ASSERT")
        return tree[at:]

    def tail(
        self, tree: list[Any]
    ) -> tuple[list[Any], Callable[[str, int, int], bool] | None]:
        """Take a condition on the one character after the match off the tree."""
        if len(tree) < 2 or str(tree[-1][0]) not in ("ASSERT", "ASSERT_NOT"):
            return tree, None
        kind, (direction, inner) = tree[-1]
        test = self.one(inner)
        if direction < 0 or test is None:
            return tree, None
        wanted = str(kind) == "ASSERT"

        def ending(text: str, start: int, stop: int) -> bool:
            return (stop < len(text) and test(text[stop])) is wanted

        return tree[:-1], ending

    def one(self, tree: Any) -> Test | None:
        """Make the test of a pattern that is one character, if it is."""
        if tree.getwidth() != (1, 1) or len(tree) != 1:
            return None
        ((kind, value),) = tree
        if str(kind) in ("SUBPATTERN", "BRANCH", *_REPEATS):
            return None
        return _test(str(kind), _frozen(value), self.flags & _TELLING)

    def behind(self, tree: Any, *, wanted: bool) -> Callable[[str], bool] | None:
        """Make the test of a lookbehind, given the text before the match."""
        inner = _Compiler(self.name, self.pattern, self.flags)
        entry = inner.sequence(list(tree), {ACCEPT}, self.flags)
        if not inner.exact:  # `confirm` decides later
            return None
        follow = [inner.closure(nodes) for nodes in inner.follow]
        tests = inner.program.tests
        width = int(tree.getwidth()[1])

        def holds(text: str) -> bool:
            nodes = inner.closure(entry) if len(text) >= width else frozenset[int]()
            for char in text[len(text) - width :]:
                taken = [follow[n] for n in nodes if n != ACCEPT and tests[n](char)]
                nodes = frozenset[int]().union(*taken)
            return (ACCEPT in nodes) is wanted

        return holds

    def guard(self, kind: str, value: Any) -> Guard | None:
        if kind == "AT":
            where = str(value)
            if where in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
                word = _test(
                    "IN", (("CATEGORY", "CATEGORY_WORD"),), self.flags & _TELLING
                )
                differs = where == "AT_BOUNDARY"
                return Guard(
                    lambda before: before != "" and word(before),
                    lambda key, char: (key != word(char)) is differs,
                )
            if where == "AT_BEGINNING" and self.flags & re.MULTILINE:
                return Guard(lambda before: before in ("", "\n"), lambda key, _: key)
            if where in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
                return Guard(lambda before: before == "", lambda key, _: key)
            return None
        if kind not in ("ASSERT", "ASSERT_NOT") or value[0] > 0:
            return None
        test = self.one(value[1])
        if test is None:
            return None
        wanted = kind == "ASSERT"
        return Guard(
            lambda before: (before != "" and test(before)) is wanted,
            lambda key, _: key,
        )

    def assertion(self, kind: str, value: Any) -> None:
        self.exact = False
        program = self.program
        if kind == "AT":
            program.before = max(program.before, 1)
            program.after = max(program.after, 2)  # `$` also before a last line feed
            return
        direction, inner = value
        width = self.width(inner)[1]
        if width is None:
            self.refuse(
                "looks ahead without a bound: give the lookahead a largest length"
            )
        if direction < 0:
            program.before = max(program.before, width)
        else:
            program.after = max(program.after, width)

    # -- width

    def width(self, tree: Iterable[Any]) -> tuple[int, int | None]:
        low = 0
        high: int | None = 0
        for kind, value in tree:
            a, b = self.width_of(str(kind), value)
            low += a
            high = None if high is None or b is None else high + b
        return low, high

    def width_of(self, kind: str, value: Any) -> tuple[int, int | None]:
        if kind in ("AT", "ASSERT", "ASSERT_NOT"):
            return 0, 0
        if kind == "SUBPATTERN":
            self.widths[value[0]] = width = self.width(value[3])
            return width
        if kind == "ATOMIC_GROUP":
            return self.width(value)
        if kind == "BRANCH":
            return _either([self.width(one) for one in value[1]])
        if kind == "GROUPREF":
            return self.widths.get(value, (0, None))
        if kind == "GROUPREF_EXISTS":
            return _either([self.width(one or ()) for one in value[1:]])
        if kind in _REPEATS:
            least, most, inner = value
            a, b = self.width(inner)
            return least * a, None if b is None or most == _EVERY else most * b
        return 1, 1


def _either(widths: list[tuple[int, int | None]]) -> tuple[int, int | None]:
    highs = [high for _, high in widths]
    bounded = [high for high in highs if high is not None]
    return min(low for low, _ in widths), (
        max(bounded) if len(bounded) == len(highs) else None
    )


def _confirming(
    pattern: str, flags: int, program: Program
) -> Callable[[str, int, int], bool]:
    """Make the test that `text[start:end]` is a match, seen in its context."""
    end = "\n" if flags & re.VERBOSE else ""

    @cache
    def pinned(after: int) -> re.Pattern[str]:
        return re.compile(f"(?:{pattern}{end})(?=[\\s\\S]{{{after}}}\\Z)", flags)

    def confirm(text: str, start: int, stop: int) -> bool:
        after = min(len(text) - stop, program.after)
        # One character more than it looks back on: else `^` were true in mid-text.
        first = max(0, start - program.before - 1)
        match = pinned(after).match(text[first : stop + after], start - first)
        return match is not None

    return confirm


# -- single characters

_TELLING: Final = int(re.IGNORECASE | re.ASCII | re.DOTALL)


def _frozen(value: Any) -> Any:
    """Make the value of a node something to look up."""
    if isinstance(value, list):
        items = cast("list[tuple[Any, Any]]", value)  # what IN holds
        return tuple((str(kind), _frozen(inner)) for kind, inner in items)
    return str(value) if type(value).__name__ == "_NamedIntConstant" else value


_CATEGORIES: Final = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


@lru_cache(maxsize=4096)
def _test(kind: str, value: Any, flags: int) -> Test:
    """Make the test of one character: `re` itself knows case and categories best."""
    if kind == "ANY":
        spelled = "."
    elif kind == "IN":
        negate = value[0] == ("NEGATE", None)
        inside = "".join([_spelled(*item) for item in value[negate:]])
        spelled = f"[{'^' if negate else ''}{inside}]"
        if negate and not inside:
            return lambda char: True
    else:
        inside = _spelled("LITERAL", value)
        spelled = f"[^{inside}]" if kind == "NOT_LITERAL" else inside
    matches = re.compile(spelled, flags).fullmatch
    return lambda char: matches(char) is not None


def _spelled(kind: str, value: Any) -> str:
    if kind == "RANGE":
        return "-".join([f"\\U{code:08x}" for code in value])
    return _CATEGORIES[value] if kind == "CATEGORY" else f"\\U{int(value):08x}"
