"""Text cut into what `smooth` shows at a time: words, graphemes or lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from .grapheme import is_boundary

Unit: TypeAlias = Literal["word", "grapheme", "line"]
Cut: TypeAlias = Callable[[str], tuple[list[str], str]]
"""Gives the units that are complete, and the rest, which more text may complete."""

LONGEST: Final = 4096
"""The characters (code points) after which a unit is cut in any case."""

_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u2e80-\u2fdf\u3001-\u30ff\u31f0-\u31ff"  # radicals, kana and CJK punctuation
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
_EDGE: Final = re.compile(rf"(?<=\S)(?=\s)|(?=[{_UNSPACED}])|(?<=[{_UNSPACED}])")


def cut_words(text: str) -> tuple[list[str], str]:
    """Cut into words, each with the space before it.

    A character of a script that is written without spaces is a word by itself.
    """
    words: list[str] = []
    start = 0
    for edge in _EDGE.finditer(text):
        at = edge.start()
        if (
            start < at < len(text)
            and is_boundary(text, at, start)
            and not text[start:at].isspace()
        ):
            words += _bounded(text[start:at])
            start = at
    return _with_rest(words, text[start:])


def cut_graphemes(text: str) -> tuple[list[str], str]:
    """Cut into graphemes; more text may go on with the last one."""
    if text.isascii() and "\r" not in text:
        return list(text[:-1]), text[-1:]
    graphemes: list[str] = []
    start = 0
    for at in range(1, len(text)):
        if is_boundary(text, at, start):
            graphemes += _bounded(text[start:at])
            start = at
    return _with_rest(graphemes, text[start:])


def cut_lines(text: str) -> tuple[list[str], str]:
    r"""Cut into lines, each with its `\n`."""
    *lines, rest = text.split("\n")
    made = [part for line in lines for part in _bounded(line + "\n")]
    return _with_rest(made, rest)


CUTS: Final[dict[str, Cut]] = {
    "word": cut_words,
    "grapheme": cut_graphemes,
    "line": cut_lines,
}


def _with_rest(units: list[str], rest: str) -> tuple[list[str], str]:
    if len(rest) > LONGEST:
        *more, rest = _bounded(rest)
        units += more
    return units, rest


def _bounded(unit: str) -> list[str]:
    """Cut a unit that is too long, between graphemes where there is such a place."""
    made: list[str] = []
    while len(unit) > LONGEST:
        at = LONGEST
        while at and not is_boundary(unit, at):
            at -= 1
        at = at or LONGEST
        made.append(unit[:at])
        unit = unit[at:]
    made.append(unit)
    return made
