"""Measure cases against each other: CPU time, interleaved, as ratios per round."""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
import platform
import random
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from time import process_time
from typing import Any, TypeAlias, cast

Case: TypeAlias = Callable[[], object]
"""What is measured: a function, or a coroutine function, without parameters."""

PACKAGES = ("turnpipe", "orjson", "aiostream", "msgspec")


@dataclass(frozen=True, slots=True)
class Settings:
    """How long to measure."""

    rounds: int = 101
    stretch_s: float = 0.003

    @classmethod
    def of(cls, options: argparse.Namespace) -> Settings:
        """Take `--quick` into account."""
        return cls(rounds=15, stretch_s=0.001) if options.quick else cls()


class Measured:
    """CPU seconds a call, for each case one figure a round, in the same order."""

    def __init__(self, seconds: Mapping[str, Sequence[float]]) -> None:
        """Keep them."""
        self.seconds = seconds

    def median(self, name: str) -> float:
        """Tell the seconds of one call."""
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, base: str) -> list[float]:
        """Divide, round by round: what slows the machine slows both."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return [a / b for a, b in pairs]

    def added(self, name: str, base: str) -> float:
        """Tell the seconds that `name` takes more than `base`."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median([a - b for a, b in pairs])

    def ratio(self, name: str, base: str) -> float:
        """Tell the median of the rounds' ratios."""
        return statistics.median(self.ratios(name, base))

    def spread(self, name: str, base: str) -> tuple[float, float]:
        """Tell the quartiles of the rounds' ratios."""
        low, _, high = statistics.quantiles(self.ratios(name, base), n=4)
        return low, high


def measure(cases: Mapping[str, Case], settings: Settings) -> Measured:
    """Run every case once a round, in random order, each for about `stretch_s`."""
    return asyncio.run(_measure(cases, settings))


async def _measure(cases: Mapping[str, Case], settings: Settings) -> Measured:
    loops: dict[str, int] = {}
    for name, case in cases.items():
        await _stretch(case, 2)  # what is compiled or imported at first use
        took = min([await _stretch(case, 2) for _ in range(3)]) / 2
        loops[name] = max(1, round(settings.stretch_s / max(took, 1e-8)))
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    # The collector runs for all alike, over what the cases make and nothing older.
    gc.collect()
    gc.freeze()
    try:
        for _ in range(settings.rounds):
            random.shuffle(order)
            for name in order:
                gc.collect()
                took = await _stretch(cases[name], loops[name])
                seconds[name].append(took / loops[name])
    finally:
        gc.unfreeze()
    return Measured(seconds)


async def _stretch(case: Case, loops: int) -> float:
    """Tell the CPU seconds of some calls."""
    if inspect.iscoroutinefunction(case):
        work = cast("Callable[[], Awaitable[object]]", case)
        began = process_time()
        for _ in range(loops):
            await work()
        return process_time() - began
    began = process_time()
    for _ in range(loops):
        case()
    return process_time() - began


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise: a figure, what it must not exceed, and what it shall reach."""

    name: str
    figure: float
    limit: float
    stretch: float
    unit: str = "x"
    spread: tuple[float, float] | None = None

    @property
    def met(self) -> bool:
        """Tell whether the figure, as it is shown, is within the limit."""
        return round(self.figure, 2) <= self.limit


def by_version(old: float, new: float) -> float:
    """Choose a limit: Python 3.11's, or that of all newer ones."""
    return old if sys.version_info < (3, 12) else new


@dataclass(slots=True)
class Table:
    """Rows under a title; the first column is text, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])

    def __str__(self) -> str:
        """Lay it out in columns."""
        cells = [self.columns, *[tuple(map(_shown, row)) for row in self.rows]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if k else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self.title, *[f"  {line}" for line in lines]])


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


@dataclass(slots=True)
class Report:
    """What one benchmark found."""

    tables: list[Table] = field(default_factory=list[Table])
    bars: list[Bar] = field(default_factory=list[Bar])

    def __add__(self, other: Report) -> Report:
        """Put two reports together."""
        return Report(self.tables + other.tables, self.bars + other.bars)


def alone(name: str, settings: Settings) -> Report:
    """Run the benchmark of this name, as a process of its own can be told to."""
    report: Report = import_module(f"{__package__}.{name}").run(settings)
    return report


def versions() -> dict[str, str]:
    """Name what was measured, and on what."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def bars_table(bars: Sequence[Bar]) -> Table:
    """Set the bars out, with what became of them."""
    table = Table("Bars", ("measure", "figure", "bar", "stretch", "quartiles", ""))
    for bar in bars:
        low_high = (
            "" if bar.spread is None else f"{bar.spread[0]:.2f}-{bar.spread[1]:.2f}"
        )
        figure = f"{_shown(bar.figure)} {bar.unit}"
        verdict = "met" if bar.met else "NOT met"
        table.rows.append((bar.name, figure, bar.limit, bar.stretch, low_high, verdict))
    return table


def options(doc: str | None) -> argparse.Namespace:
    """Read the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 where a bar is not met"
    )
    return parser.parse_args()


def main(run: Callable[[Settings], Report], doc: str | None) -> int:
    """Run one benchmark and print what it found; returns the exit status."""
    given = options(doc)
    report = run(Settings.of(given))
    print(as_json(report) if given.json else as_text(report))
    return int(given.strict and not all(bar.met for bar in report.bars))


def as_text(report: Report) -> str:
    """Write a report for a reader."""
    named = ", ".join(f"{name} {number}" for name, number in versions().items())
    tables = [*report.tables, *([bars_table(report.bars)] if report.bars else [])]
    return "\n\n".join([named, *map(str, tables)])


def as_json(report: Report) -> str:
    """Write a report for a program."""
    data: dict[str, Any] = {
        "versions": versions(),
        "tables": [
            {
                "title": table.title,
                "rows": [
                    dict(zip(table.columns, row, strict=True)) for row in table.rows
                ],
            }
            for table in report.tables
        ],
        "bars": [{**asdict(bar), "met": bar.met} for bar in report.bars],
    }
    return json.dumps(data, indent=2)
