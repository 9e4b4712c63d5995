"""`redact`: secrets never leave, however they are cut into deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import CompositionError
from ..operator import Operator, Stage, bind_turn
from .detector import Detector
from .editor import Editor
from .places import SCOPES, Scope
from .scanner import More, Replace, Rules, Scanner
from .stats import RedactionStats, stats_of
from .vault import Vault, table_of

if TYPE_CHECKING:
    from ..turn import TurnContext

Replacement: TypeAlias = str | Callable[[str, str], str]
OnMatch: TypeAlias = Callable[..., object]
OnOverflow: TypeAlias = Literal["mask", "fail"]

_NAMED = "[{name}]"
_NUMBERED = "[{name}_{n}]"


def redact(
    *detectors: Detector,
    replacement: Replacement = _NAMED,
    scopes: Iterable[Scope] | None = None,
    on_match: OnMatch | None = None,
    on_overflow: OnOverflow = "mask",
    vault: Vault | MutableMapping[str, str] | None = None,
    on_close: Callable[[RedactionStats], object] | None = None,
) -> Operator:
    """Replace what the detectors find, in every text of every event.

    Of all detectors the leftmost match counts, then the longest, then the one named
    first. The text that comes out does not depend on how it was cut into deltas.

    `scopes`, by default all: "text", "reasoning", "tool_input" (what JSON escapes say),
    "tool_output", "error", "result", and "other": every other string, in events of
    unknown types too. Ids, types, codes and the model of known events stay.
    `replacement` is a format with `{name}`, and with `{n}` where there is a vault; or a
    function of the detector's name and the text found. `on_match(name, scope)` is told
    of each match; with a third required parameter it gets the turn. A secret that goes
    on beyond its detector's `max_len` is masked to its end with one replacement, or
    with `on_overflow="fail"` fails the turn. `vault` keeps what was taken out, under
    the replacement, for `restore`. `on_close(stats)` is given a RedactionStats.

    Emits: deltas of the same parts, with less or later text; one that leaves nothing is
        dropped. Every other event in its place.
    Holds back: of each text what a match may have begun in, at most the largest
        `max_len`. Text goes out before any event that is no delta of text or reasoning,
        and at the end: what is there of a secret cut short is masked then, and so is
        the rest of it when it follows. A text that shows a match's first characters
        only, too few to tell (`Detector.regex(partial=...)`), goes out as it is.

    Secrets split over several events of a type of your own are not joined: only the
    deltas of parts are. What an operator before it logs is not its affair.

    Raises: RedactionOverflow, code `redaction_overflow`, as said. CompositionError: no
        detectors, two of one name, an unknown scope, or a replacement that does not
        format.
    Order: after `lifecycle`, so that error messages are covered; before every tap,
        `accumulate` and whatever else shall not see secrets. Where it stands before
        `accumulate` the stored message and `final_text()` are covered, too.
    """
    _checked(detectors, on_overflow)
    chosen = _scopes(scopes)
    if vault is not None and replacement == _NAMED:
        replacement = _NUMBERED
    if isinstance(replacement, str):
        _formats(replacement, numbered=vault is not None)
    bind = None if on_match is None else bind_turn(on_match, 2)
    rules = Rules(detectors, overflow_fails=on_overflow == "fail")

    def open_(turn: TurnContext) -> Stage:
        told = on_match if bind is None else bind(turn)
        redaction = _Redaction(
            turn,
            rules=rules,
            scopes=chosen,
            replacement=replacement,
            on_match=told,
            table=None if vault is None else table_of(vault, turn),
        )
        held: dict[int, int] = {}
        counted = None if on_close is None else held
        editor = Editor(redaction.scanner, redaction.whole, chosen, held=counted)

        def settle() -> None:
            if turn.produced:
                turn.produced = redaction.whole("result", turn.produced, "")

        def close() -> object:
            assert on_close is not None, "else nobody calls it"
            return on_close(stats_of(redaction.matches, held))

        return Stage(
            editor.on_event,
            shape="flat_map",
            awaits=False,
            finish=editor.finish,
            settle=settle,
            when="needed",
            close=None if on_close is None else close,
        )

    detail = {
        "kind": "redact",
        "detectors": [detector.name for detector in detectors],
        "scopes": [scope for scope in SCOPES if scope in chosen],
    }
    return Operator("redact", open_, detail=detail, guards=True, fixed=True)


class _Redaction:
    """What one turn's texts share: replacements, counts, the vault's table."""

    def __init__(
        self,
        turn: TurnContext,
        *,
        rules: Rules,
        scopes: frozenset[str],
        replacement: Replacement,
        on_match: OnMatch | None,
        table: MutableMapping[str, str] | None,
    ) -> None:
        self.turn = turn
        self.rules = rules
        self.scopes = scopes
        self.replacement = replacement
        self.on_match = on_match
        self.table = table
        self.matches: dict[str, int] = {}
        self.known: dict[tuple[str, str], str] = {}
        self.numbers: dict[str, int] = {}

    def scanner(self, scope: Scope) -> Callable[[str], Scanner]:
        """Tell how to begin a text of this scope."""
        replace, more = self.replacing(scope)

        def begin(before: str) -> Scanner:
            return Scanner(self.rules, replace, before=before, more=more)

        return begin

    def whole(self, scope: Scope, text: str, before: str) -> str:
        """Redact a whole text."""
        if scope not in self.scopes or not text:
            return text
        replace, more = self.replacing(scope)
        return self.rules.redact(text, replace, before=before, more=more)

    def replacing(self, scope: Scope) -> tuple[Replace, More | None]:
        """Make what gives the replacements for a text, and is told how one goes on."""
        table = self.table
        last = ""

        def replace(detector: Detector, text: str) -> str:
            nonlocal last
            self.matches[detector.name] = self.matches.get(detector.name, 0) + 1
            if self.on_match is not None:
                self.tell(detector.name, scope)
            last = self.put(detector.name, text)
            return last

        def more(text: str) -> None:
            if table is not None and last in table:
                table[last] += text

        return replace, None if table is None else more

    def tell(self, name: str, scope: Scope) -> None:
        """Call `on_match`; what it raises is logged, it must not cost the text."""
        try:
            assert self.on_match is not None
            self.on_match(name, scope)
        except Exception as exc:
            self.turn.log("redact's on_match raised", exc, operator="redact")

    def put(self, name: str, text: str) -> str:
        """Make the replacement of one match; the same secret gets the same one."""
        replacement = self.replacement
        if self.table is None:
            if isinstance(replacement, str):
                return replacement.format(name=name)
            return replacement(name, text)
        found = self.known.get((name, text))
        if found is not None and self.table.get(found) == text:
            return found
        while True:
            number = self.numbers[name] = self.numbers.get(name, 0) + 1
            if isinstance(replacement, str):
                made = replacement.format(name=name, n=number)
            else:
                made = replacement(name, text)
            if made not in self.table or not isinstance(replacement, str):
                break
        self.table[made] = text
        self.known[name, text] = made
        return made


def _checked(detectors: tuple[Any, ...], on_overflow: str) -> None:
    if not detectors:
        raise CompositionError(
            "redact() detects nothing: name detectors, such as "
            "redact(*ops.detectors.DEFAULT)"
        )
    names: set[str] = set()
    for detector in detectors:
        if not isinstance(detector, Detector):
            star = isinstance(detector, (tuple, list))
            raise CompositionError(
                f"redact() takes detectors, not {type(detector).__name__}: "
                + ("unpack them, redact(*DETECTORS)" if star else "see ops.Detector")
            )
        if detector.name in names:
            raise CompositionError(
                f"redact() has two detectors named {detector.name!r}: rename one"
            )
        names.add(detector.name)
    if on_overflow not in ("mask", "fail"):
        raise CompositionError(
            f'on_overflow must be "mask" or "fail", not {on_overflow!r}'
        )


def _scopes(scopes: Iterable[str] | None) -> frozenset[str]:
    if isinstance(scopes, str):
        raise CompositionError(
            f"scopes={scopes!r} would be taken letter by letter: write "
            f"scopes=({scopes!r},)"
        )
    chosen = frozenset(SCOPES if scopes is None else scopes)
    unknown = chosen - set(SCOPES)
    if unknown or not chosen:
        raise CompositionError(
            f"redact(scopes=...) takes one or more of {', '.join(SCOPES)}, not "
            f"{', '.join(map(repr, sorted(unknown))) or 'nothing'}"
        )
    return chosen


def _formats(replacement: str, *, numbered: bool) -> None:
    try:
        values = {"n": 1} if numbered else {}
        one = replacement.format(name="NAME", **values)
        other = replacement.format(name="NAME", n=2) if numbered else ""
    except (AttributeError, IndexError, KeyError, ValueError) as exc:
        known = "{name} and {n}" if numbered else "{name}"
        raise CompositionError(
            f"replacement={replacement!r} does not format: it may hold {known}, "
            f"and braces of its own doubled"
        ) from exc
    if one == other:
        raise CompositionError(
            f"replacement={replacement!r} is the same for every secret, so the vault "
            f"could not tell them apart: put {{n}} into it"
        )
