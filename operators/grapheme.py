"""Where one user-perceived character ends: an own, coarser rule after UAX #29."""

from __future__ import annotations

from typing import Final
from unicodedata import category, combining

_FIRST_MARK: Final = "\u0300"
_ZWNJ: Final = "\u200c"
_ZWJ: Final = "\u200d"
_VIRAMA: Final = 9
"""The combining class of what joins two consonants of an Indic script."""

_MARKS: Final = frozenset({"Mn", "Mc", "Me"})
_CONTROLS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_PREPENDED: Final = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e"
    "\U000110bd\U000110cd\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a"
    "\U00011d46\U00011f02"
)


def is_boundary(text: str, at: int, start: int = 0) -> bool:
    """Tell whether a grapheme ends before `text[at]`; one is known to begin at `start`.

    Marks, variation selectors, emoji modifiers and tags stay with what they follow;
    what follows a zero-width joiner or a virama with that; prepended signs with what
    they precede; so do CR LF, the letters of a Hangul syllable, and two regional
    indicators. Where this differs from UAX #29 (https://unicode.org/reports/tr29/, GB3
    to GB13) it joins more, it never splits what that joins. `text[at]` decides: no
    later text changes the answer.
    """
    before, after = text[at - 1], text[at]
    if before < _FIRST_MARK and after < _FIRST_MARK:
        return before != "\r" or after != "\n"
    if _is_control(before) or _is_control(after):
        return True
    if after == _ZWJ or _extends(after):
        return False
    if before == _ZWJ:
        return after.isspace()
    if before in _PREPENDED:
        return False
    if combining(before) == _VIRAMA and category(after) == "Lo":
        return False
    if _is_indicator(before) and _is_indicator(after):
        first = at
        while first > start and _is_indicator(text[first - 1]):
            first -= 1
        return (at - first) % 2 == 0
    return not _is_syllable(before, after)


def _is_control(char: str) -> bool:
    """Tell what stands alone: GB4 and GB5."""
    return (
        category(char) in _CONTROLS
        and char not in (_ZWJ, _ZWNJ)
        and char not in _PREPENDED
        and not "\U000e0020" <= char <= "\U000e007f"  # tags: the flag of Scotland
    )


def _extends(char: str) -> bool:
    """Tell what belongs to the character before it: GB9 and GB9a."""
    return (
        category(char) in _MARKS
        or char in "\u200c\u0e33\u0eb3\uff9e\uff9f"
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"
    )


def _is_indicator(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _is_syllable(before: str, after: str) -> bool:
    """Tell whether two letters of Hangul belong to one syllable: GB6 to GB8."""
    one, other = _hangul(before), _hangul(after)
    match one:
        case "L":
            return other in ("L", "V", "LV", "LVT")
        case "V" | "LV":
            return other in ("V", "T")
        case "T" | "LVT":
            return other == "T"
        case _:
            return False


def _hangul(char: str) -> str:
    """Tell the syllable type of a letter: leading, vowel, trailing, or composed."""
    if "\u1100" <= char <= "\u115f" or "\ua960" <= char <= "\ua97c":
        return "L"
    if "\u1160" <= char <= "\u11a7" or "\ud7b0" <= char <= "\ud7c6":
        return "V"
    if "\u11a8" <= char <= "\u11ff" or "\ud7cb" <= char <= "\ud7fb":
        return "T"
    if "\uac00" <= char <= "\ud7a3":
        return "LVT" if (ord(char) - 0xAC00) % 28 else "LV"
    return ""
