"""`Detector`: one kind of secret, by its shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..errors import CompositionError
from .pattern import Program, compile_pattern

_LEAST_SHOWN = 4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detector:
    """A kind of secret: make one with `regex`, `words` or `block`.

    `max_len` bounds what is held back, in characters: a candidate that is no match by
    then is none. One that is a match by then and goes on is masked to its end.
    """

    name: str
    pattern: str
    program: Program
    max_len: int
    validate: Callable[[str], bool] | None = None
    partial: Callable[[str], bool]
    closer: Detector | None = None

    @property
    def open_ended(self) -> bool:
        """Tell whether the pattern alone could take more than `max_len` characters."""
        longest = self.program.longest
        return longest is None or longest > self.max_len

    @property
    def exact(self) -> bool:
        """Tell whether every match of the nodes is one."""
        return self.validate is None and self.program.confirm is None

    def confirms(self, text: str, start: int, stop: int) -> bool:
        """Tell whether `text[start:stop]`, which the nodes take, is a match."""
        if self.validate is not None and not self.validate(text[start:stop]):
            return False
        confirm = self.program.confirm
        return confirm is None or confirm(text, start, stop)

    def __repr__(self) -> str:
        """Name it."""
        return f"<detector {self.name}>"

    @classmethod
    def regex(
        cls,
        name: str,
        pattern: str,
        max_len: int | None = None,
        *,
        flags: int = 0,
        validate: Callable[[str], bool] | None = None,
        partial: str | None = None,
    ) -> Detector:
        """Detect what `pattern` matches and `validate(text)`, if given, agrees to.

        Of all matches that begin at one place the longest counts, whatever is lazy in
        the pattern. `max_len` must be given where the pattern has no longest match.

        `partial` is a pattern too: a match cut short by the end of the text, or by an
        event that is not text, is masked where its text so far matches that wholly. By
        default where it has at least 4 characters and half the shortest match.

        Raises:
            CompositionError: the pattern is not valid, unbounded without `max_len`,
                can match the empty text, or looks ahead without a bound.
        """
        _named(name)
        program = compile_pattern(name, pattern, flags)
        longest = program.longest
        if max_len is None:
            if longest is None:
                raise CompositionError(
                    f"detector {name!r}: {pattern!r} has no longest match, so text "
                    f"would be held back without end: give max_len=, the most "
                    f"characters after which a secret of this kind is recognised, or "
                    f"bound its repeats, as in {{1,64}}"
                )
            max_len = longest
        elif not _count(max_len) or max_len < program.shortest:
            raise CompositionError(
                f"detector {name!r}: max_len must be a whole number of at least "
                f"{program.shortest}, the pattern's shortest match, not {max_len!r}"
            )
        elif longest is not None and longest < max_len:
            max_len = longest
        if partial is None:
            shown = _at_least(max(_LEAST_SHOWN, (program.shortest + 1) // 2))
        else:
            shown = _whole(name, partial)
        return cls(
            name=name,
            pattern=pattern,
            program=program,
            max_len=max_len,
            validate=validate,
            partial=shown,
        )

    @classmethod
    def words(
        cls, name: str, words: Iterable[str], *, ignore_case: bool = True
    ) -> Detector:
        """Detect these words and phrases, where they stand as whole words.

        Any white space stands for a space in a phrase.

        Raises:
            CompositionError: one string instead of several, none, or an empty one.
        """
        _named(name)
        if isinstance(words, str):
            raise CompositionError(
                f"detector {name!r}: words={words!r} would be taken letter by letter: "
                f"write words=({words!r},)"
            )
        known = sorted({word.strip() for word in words})
        if not known or not all(known):
            raise CompositionError(
                f"detector {name!r}: words must be one or more non-empty strings"
            )
        spelled = "|".join([_spelled(word) for word in known])
        flags = re.IGNORECASE if ignore_case else 0
        made = cls.regex(name, rf"(?<!\w)(?:{spelled})(?!\w)", flags=flags)
        begun = [
            _spelled(prefix)
            for word in known
            for prefix in _prefixes(word, max(_LEAST_SHOWN, (len(word) + 1) // 2))
        ]
        shown = _whole(name, "|".join(begun) or r"(?!)", flags)
        return replace(made, partial=shown)

    @classmethod
    def block(cls, name: str, opener: str, closer: str, *, max_len: int) -> Detector:
        """Detect what stands between two patterns: from the opener to the closer.

        Without a closer all the rest is masked. `max_len` bounds opener and closer.
        """
        opened = cls.regex(name, opener, max_len)
        closed = cls.regex(name, closer, max_len)
        if closed.open_ended:
            raise CompositionError(
                f"detector {name!r}: closer {closer!r} can be longer than max_len="
                f"{max_len}: bound its repeats, or give a larger max_len"
            )
        return replace(opened, closer=closed)


def _named(name: str) -> None:
    if name.__class__ is not str or not name:
        raise CompositionError(
            f"a detector's name must be a non-empty string: {name!r}"
        )


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _at_least(characters: int) -> Callable[[str], bool]:
    return lambda text: len(text) >= characters


def _spelled(word: str) -> str:
    return r"\s{1,4}".join([re.escape(piece) for piece in re.split(r"\s+", word)])


def _prefixes(word: str, least: int) -> list[str]:
    return [word[:size] for size in range(least, len(word))]


def _whole(name: str, pattern: str, flags: int = 0) -> Callable[[str], bool]:
    try:
        whole = re.compile(pattern, flags)
    except re.error as exc:
        raise CompositionError(
            f"detector {name!r}: partial={pattern!r} is no regular expression: {exc}"
        ) from exc
    return lambda text: whole.fullmatch(text) is not None
