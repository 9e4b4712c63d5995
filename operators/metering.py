"""The usage of a turn, however it ends: the pure part of `meter`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .produced import Produced
from .usage import TOKENS, Call, Calls, is_tokens, total

if TYPE_CHECKING:
    from .estimate import Estimate
    from .turn import Usage


class Metering:
    """Put reports and texts together; what was not reported is estimated.

    The text between two reports is taken for the output of the call that reports next,
    or of the one before where that is still open. A report that has `outputTokens`
    covers the text before it.
    """

    __slots__ = ("_parts", "_texts", "_under_way", "calls", "chunks", "produced")

    def __init__(
        self, parts: Callable[[], Iterable[Mapping[str, Any]]] | None = None
    ) -> None:
        """Start with nothing; the text comes through `produced`, or from `parts()`."""
        self.calls = Calls()
        self.chunks: list[str] = []
        self._parts = parts
        self.produced = Produced(self.chunks.append)
        self._texts: dict[Call, _Text] = {}
        self._under_way: dict[Call, None] = {}

    def report(self, data: Mapping[str, Any]) -> None:
        """Take the data of one `llm_call` event."""
        before = self._open()
        call = self.calls.add(data)
        if call is None:
            return
        if call.ended:
            self._under_way.pop(call, None)
        else:
            self._under_way[call] = None
        chunks = self._take()
        begins = call not in self._texts
        text = self._texts.setdefault(call, _Text())
        if begins and not call.ended and before is not None:
            self._texts[before].chunks += chunks
        elif is_tokens(data.get("outputTokens")):
            text.counted = bool(text.counted or text.chunks or chunks)
            text.chunks.clear()
        else:
            text.chunks += chunks

    def _open(self) -> Call | None:
        """Find the last call that has not ended."""
        return next(reversed(self._under_way), None)

    def _take(self) -> list[str]:
        for part in self._parts() if self._parts is not None else ():
            self.produced.look(part)
        taken = self.chunks.copy()
        self.chunks.clear()  # in place: the plan knows its `append`
        return taken

    def conclude(
        self, *, completed: bool, estimate: Estimate, prompt: Callable[[], int]
    ) -> list[Usage]:
        """Tell the usage of every call, once the source is closed.

        In a turn that `completed` every call has ended, and a text after the last
        report is no model's; in one that was cut it is that of the call under way, if
        need be of one that has said nothing yet. `prompt` tells the input tokens of a
        call that did not report them.
        """
        chunks = self._take()
        call = self._open()
        if call is None and chunks and not (completed and self.calls.all):
            call = Call()
            self.calls.all.append(call)
        if call is not None:
            self._texts.setdefault(call, _Text()).chunks += chunks
        return [
            self._usage(call, completed=completed, estimate=estimate, prompt=prompt)
            for call in self.calls.all
        ]

    def _usage(
        self,
        call: Call,
        *,
        completed: bool,
        estimate: Estimate,
        prompt: Callable[[], int],
    ) -> Usage:
        from .turn import Usage

        usage = call.usage or Usage()
        if usage.provenance == "cumulative" and completed:
            usage = replace(usage, provenance=call.provenance or "reported")
        text = self._texts.get(call)
        tokens = usage.output_tokens
        if text is not None and text.chunks:
            tokens = estimate("".join(text.chunks))
            if text.counted:
                tokens += usage.output_tokens
        if tokens > usage.output_tokens:
            usage = replace(usage, output_tokens=tokens, provenance="estimated")
        if "input_tokens" not in call.tokens:
            usage = replace(usage, input_tokens=prompt(), provenance="estimated")
        return usage

    def merged(self, usages: list[Usage]) -> dict[str, Any]:
        """Make the data of the one `llm_call` that stands for all."""
        usage = total(usages)
        calls = self.calls.all
        data: dict[str, Any] = {}
        for key in ("model", "provider"):
            found = [name for call in calls if (name := getattr(call, key))]
            if found:
                data[key] = found[-1]
        if len(models := self.models()) > 1:
            data["models"] = list(models)
        for key, field in TOKENS.items():
            tokens = getattr(usage, field)
            if tokens or key in ("inputTokens", "outputTokens"):
                data[key] = tokens
        assert usage is not None, "there is a call"
        data["provenance"] = usage.provenance
        if usage.cost is not None:
            data["cost"] = format(usage.cost, "f")
            if usage.currency is not None:
                data["currency"] = usage.currency
        data["calls"] = len(calls)
        if calls[-1].finish_reason is not None:
            data["finishReason"] = calls[-1].finish_reason
        latencies = [call.latency_ms for call in calls if call.latency_ms is not None]
        if latencies:
            data["latencyMs"] = sum(latencies)
        return data

    def models(self) -> tuple[str, ...]:
        """Tell the models that reported, each once, in order."""
        return tuple(
            dict.fromkeys([call.model for call in self.calls.all if call.model])
        )


class _Text:
    """What a call wrote that no report of it covers; whether one covered any."""

    __slots__ = ("chunks", "counted")

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self.counted = False
