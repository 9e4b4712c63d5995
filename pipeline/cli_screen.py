"""How the command shows a turn to a person: the text as it comes, then a summary."""

from __future__ import annotations

import sys
from typing import Any, Final, cast

from operators.event import PART_UPDATED, RESULT, Event
from operators.turn import Part, TurnOutcome

from .cli_trace import Watch

# A model's text must not steer the terminal: no C0 or C1 controls but LF and tab.
_HARMLESS: Final[dict[int, None]] = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


class Prose:
    """The answer's text alone."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self._shown: dict[Any, str] = {}
        self._ended = "\n"

    def show(self, event: Event) -> str:
        """Give what `event` adds to what is shown."""
        held = event.get("data")
        if not isinstance(held, dict):
            return ""
        data = cast("dict[str, Any]", held)
        if event.get("type") == PART_UPDATED:
            part = data.get("part")
            known = cast("Part", part) if isinstance(part, dict) else {}
            return self._part(known, data)
        if event.get("type") == RESULT:
            return self._whole("result", str(data.get("finalText") or ""))
        return ""

    def end(self) -> str:
        """Give the line end that is still missing."""
        return "" if self._ended.endswith("\n") else "\n"

    def _part(self, part: Part, data: dict[str, Any]) -> str:
        if part.get("type", "text") != "text":
            return ""
        text = data.get("delta")
        if text:
            key = part.get("id")
            self._shown[key] = self._shown.get(key, "") + text
            return self._put(text)
        return self._whole(part.get("id"), str(part.get("text") or ""))

    def _whole(self, key: Any, text: str) -> str:
        """Show a whole text as far as it goes on from what is shown."""
        before = "".join(self._shown.values()) if key == "result" else ""
        before = before or self._shown.get(key, "")
        if not text.startswith(before):
            return ""
        self._shown[key] = text
        return self._put(text[len(before) :])

    def _put(self, text: str) -> str:
        if text:
            self._ended = text
        return text


class Screen(Prose):
    """The answer on a terminal: reasoning dimmed, tools named, controls taken out."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        super().__init__()
        self._called: set[Any] = set()
        self._thinking = False

    def _part(self, part: Part, data: dict[str, Any]) -> str:
        kind = part.get("type", "text")
        if kind == "reasoning":
            self._thinking = True
            return self._put(f"{_DIM}{_harmless(data.get('delta'))}{_PLAIN}")
        if kind == "tool":
            call = part.get("callID")
            if call in self._called:
                return ""
            self._called.add(call)
            lead = self.end()
            return self._put(f"{lead}{_DIM}[{_harmless(part.get('tool'))}]{_PLAIN}\n")
        shown = _harmless(super()._part(part, data))
        if shown and self._thinking:
            self._thinking = False
            return "\n\n" + shown
        return shown


def _harmless(text: object) -> str:
    return str(text or "").translate(_HARMLESS)


def summary(outcome: TurnOutcome, watch: Watch, *, message: str, trace: str) -> None:
    """Tell on standard error how the turn went and where it is kept."""
    facts = " · ".join(_facts(outcome, watch))
    rows = [(outcome.status, facts), ("message", message), ("trace", trace)]
    if sys.stderr.isatty():
        _styled(outcome, rows)
        return
    for name, value in rows:
        print(f"{name:<9}  {value}", file=sys.stderr)


def _styled(outcome: TurnOutcome, rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    colour = {"completed": "green", "failed": "red"}.get(outcome.status, "yellow")
    table = Table.grid(padding=(0, 2))
    table.add_column(style=f"bold {colour}", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console = Console(stderr=True, highlight=False, markup=False)
    console.print()
    console.print(table)


def _facts(outcome: TurnOutcome, watch: Watch) -> list[str]:
    facts: list[str] = []
    if outcome.reason:
        facts.append(outcome.reason)
    if watch.call.get("model"):
        facts.append(str(watch.call["model"]))
    if watch.first_s is not None and watch.last_s is not None:
        facts.append(f"first token after {watch.first_s:.2f} s")
        usage = outcome.usage
        tokens = usage.output_tokens if usage else watch.deltas
        span = watch.last_s - watch.first_s
        if tokens > 1 and span > 0:
            facts.append(f"{(tokens - 1) / span:.1f} tokens/s")
    if outcome.usage is not None:
        usage = outcome.usage
        facts.append(f"{usage.input_tokens} tokens in, {usage.output_tokens} out")
    facts.append(f"{outcome.duration_s:.2f} s in all")
    return facts
