"""A pipeline explained and drawn: what runs as one loop, and what stands between.

Operators are opened once, in a turn that is never read, to find the shape of their
stages; no event passes, and no hook is called. What an operator opens anew in every turn
may differ there.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from operators.heartbeat import Heartbeat
from operators.operator import Stage, name_of
from operators.turn import TurnContext, TurnIdentity

from .plan import Plan, compile_plan

if TYPE_CHECKING:
    from operators.operator import Operator

    from .pipeline import Pipeline

_WHEN: Final = {
    "drained": "when the source was drained",
    "always": "on every end",
    "needed": "where a later one settles",
}
_ON_ERROR: Final = {
    "log": "its errors are logged",
    "disable": "its first error is logged and disables it",
}
_DOES: Final = {"finish": "finishes", "settle": "settles", "close": "closes"}
_ALONE: Final = "takes the stream itself"
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class _Node:
    """One operator, opened for the look of it; `error` where that raised."""

    position: int
    operator: Operator
    stage: Stage
    error: Exception | None

    @property
    def id(self) -> str:
        return f"op{self.position}"

    @property
    def label(self) -> str:
        return f"{self.position} {_printable(self.operator.name)}"

    @property
    def note(self) -> str:
        """Say in a few words what it does."""
        stage = self.stage
        if self.error is not None:
            return "unknown until a turn opens"
        said: list[str] = []
        if stage.through is not None:
            said.append(_ALONE)
        elif stage.envelope is not None:
            said.append("envelope")
        elif stage.on_event is not None:
            said.append(f"async {stage.shape}" if stage.awaits else stage.shape)
        said += [does for part, does in _DOES.items() if getattr(stage, part)]
        if isinstance(self.operator, Heartbeat):
            said.append(
                f"beats on the wire, every {self.operator.every:g} s of silence"
            )
        return ", ".join(said) or "does nothing"


@dataclass(frozen=True, slots=True)
class _Loop:
    """Operators that run as one generator; the last loop encodes, too."""

    number: int
    nodes: tuple[_Node, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """A pipeline laid out: loops and boundaries, along the stream."""

    source: str
    nodes: tuple[_Node, ...]
    plan: Plan
    steps: tuple[_Loop | _Node, ...]

    def ids(self) -> Iterator[str]:
        """Name every box in the order of the stream."""
        yield "source"
        yield from [node.id for node in self.nodes]
        yield "wire"
        yield "reader"


def _look(pipeline: Pipeline) -> _Look:
    identity = TurnIdentity(session_id="explain", turn_index=0)
    turn = TurnContext(identity, log_to=_unheard)
    nodes: list[_Node] = []
    for position, operator in enumerate(pipeline.operators, 1):
        error: Exception | None = None
        try:
            stage = operator.open(turn)
        except Exception as exc:  # shown where the operator is
            stage, error = Stage(), exc
        nodes.append(_Node(position, operator, stage, error))
    stages = [node.stage for node in nodes]
    plan = compile_plan(pipeline.operators, stages, "ndjson")
    steps: list[_Loop | _Node] = []
    loops = 0
    for start, stop in plan.spans:
        last = stop == len(nodes)
        if start < stop or last:
            loops += 1
            steps.append(_Loop(loops, tuple(nodes[start:stop]), last))
        if not last:
            steps.append(nodes[stop])
    source = _printable(name_of(pipeline.source))
    return _Look(source, tuple(nodes), plan, tuple(steps))


def _unheard(message: str, meta: Mapping[str, Any]) -> None:
    """Take what an operator logs that is opened for the look of it."""


def _printable(text: str) -> str:
    """Spell what does not print (line ends, escapes, bidi marks) and cut what is long."""
    spelled = "".join(
        [c if c.isprintable() else ascii(c)[1:-1] for c in text[: _LONGEST + 1]]
    )
    return spelled if len(spelled) <= _LONGEST else f"{spelled[: _LONGEST - 1]}…"


# -- explained


def explain(pipeline: Pipeline, *, source: bool = False) -> str:
    """Tell the plan: what is fused, why a boundary is one, in which order it settles.

    With `source` the generated code of an NDJSON body comes last.
    """
    look = _look(pipeline)
    lines = [f"source: {look.source}, called once a turn"]
    for step in look.steps:
        if isinstance(step, _Loop):
            lines += ["", f"loop {step.number}: {_fused(step)}"]
            lines += [f"  {node.label}: {_at_work(node)}" for node in step.nodes]
            if step.last:
                lines.append("  wire: NDJSON is encoded in the loop, others by a call")
        else:
            reads = " or the lists of one read" if step.stage.lists else ""
            lines += [
                "",
                f"boundary: {step.label}",
                f"  not fused, because it {_ALONE}: single events{reads} in and out",
            ]
    lines += ["", "settlement, once, when the source is closed:", *_settlement(look)]
    unknown = list(_unknown(look))
    if unknown:
        lines += ["", "known only when a turn opens:", *unknown]
    if source:
        for k, segment in enumerate(look.plan.segments, 1):
            lines += ["", f"generated code, {k} of {len(look.plan.segments)}:"]
            lines += [f"  {line}" for line in segment.text.splitlines()]
    return "\n".join(lines)


def _fused(loop: _Loop) -> str:
    called = sum(node.stage.on_event is not None for node in loop.nodes)
    with_wire = " and the wire" if loop.last else ""
    if not called:
        return f"one async generator{with_wire and ' for the wire'}, calls no operator"
    plural = "s" if called > 1 else ""
    return f"{called} operator{plural}{with_wire} fused into one async generator"


def _at_work(node: _Node) -> str:
    """Say what the loop does with a stage."""
    stage = node.stage
    if node.error is not None:
        return "unknown, it could not be opened"
    if stage.on_event is None:
        return f"not called in the loop, {node.note}"
    said: list[str] = [stage.shape]
    if stage.awaits:
        said.append("awaited in place")
    if stage.types is not None:
        said.append(f"only {', '.join(map(_printable, sorted(stage.types)))}")
    if stage.fold is not None:
        said.append("deltas of one part are appended without a call")
    if stage.envelope is not None:
        said.append("what stands after it sees the envelope too")
    if stage.shape == "tap" and stage.on_error in _ON_ERROR:
        said.append(_ON_ERROR[stage.on_error])
    if node.operator.guards:
        said.append("guards, so it is never bypassed")
    return "; ".join(said)


def _settlement(look: _Look) -> Iterator[str]:
    """List the hooks in the order in which a drained turn calls them."""
    nodes = look.nodes
    *inner, (start, stop) = look.plan.spans
    early = [node for a, b in inner for node in nodes[a:b]]
    boundaries = [nodes[k] for k in reversed(look.plan.boundaries)]
    finishing = [
        node.label
        for node in (*early, *boundaries, *nodes[start:stop])
        if node.stage.finish is not None
    ]
    if finishing:
        yield f"  finish: {', '.join(finishing)}"
    if any(node.stage.finish for node in boundaries):
        yield "    (after a stop the boundaries first, the last of them first)"
    for node in nodes:
        if node.stage.settle is not None:
            yield f"  settle: {node.label}, {_WHEN[node.stage.when]}"
    envelope = [node for node in nodes if node.stage.envelope is not None]
    if envelope:
        after = nodes[envelope[-1].position :]
        seen = [node.label for node in after if node.stage.on_event is not None]
        seen_by = f", then through {', '.join(seen)}" if seen else ""
        yield f"  terminal event: made by {envelope[-1].label}{seen_by}"
    else:
        yield "  no lifecycle: there is no terminal event, a failure raises to the reader"
    for node in nodes:
        if node.stage.close is not None:
            yield f"  close: {node.label}, on every end"


def _unknown(look: _Look) -> Iterator[str]:
    for node in look.nodes:
        if node.error is not None:
            error = f"{type(node.error).__name__}: {node.error}"
            yield f"  {node.label}: its open raised {_printable(error)}"
        elif not node.operator.fixed:
            yield f"  {node.label}: opened anew each time; the above is one of them"


# -- drawn


def draw(pipeline: Pipeline, format: str = "mermaid") -> str:  # noqa: A002 - its word
    """Draw the pipeline as `mermaid`, `dot`, `svg` or `ascii`: text that stands alone.

    What runs as one loop is a group; a boundary stands between groups.

    Raises:
        ValueError: an unknown format.
    """
    drawn = _FORMATS.get(format)
    if drawn is None:
        known = ", ".join(_FORMATS)
        raise ValueError(f"no graph format is named {format!r}; there are: {known}")
    return drawn(_look(pipeline))


def _mermaid(look: _Look) -> str:
    def box(node: _Node) -> str:
        return f'"{_in_mermaid(node.label)}<br/>{_in_mermaid(node.note)}"'

    lines = ["flowchart LR", f'    source(["{_in_mermaid(look.source)}"])']
    for step in look.steps:
        if isinstance(step, _Node):
            lines.append(f"    {step.id}{{{{{box(step)}}}}}")
            continue
        lines.append(f'    subgraph loop{step.number}["one loop"]')
        lines += [f"        {node.id}[{box(node)}]" for node in step.nodes]
        lines += ['        wire["wire"]'] if step.last else []
        lines.append("    end")
    lines.append('    reader(["reader"])')
    lines += [f"    {a} --> {b}" for a, b in pairwise(look.ids())]
    return "\n".join(lines)


def _in_mermaid(text: str) -> str:
    """Write a label's text: what could be markup becomes a numeric entity."""
    return "".join(
        [c if c.isalnum() or c in " _.,:()=-/" else f"#{ord(c)};" for c in text]
    )


def _dot(look: _Look) -> str:
    def box(node: _Node) -> str:
        return f'label="{_in_dot(node.label)}\\n{_in_dot(node.note)}"'

    lines = [
        "digraph pipeline {",
        "    rankdir=LR;",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
        '    graph [fontname="sans-serif"];',
        f'    source [shape=ellipse, label="{_in_dot(look.source)}"];',
    ]
    for step in look.steps:
        if isinstance(step, _Node):
            lines.append(f"    {step.id} [shape=hexagon, style=solid, {box(step)}];")
            continue
        lines += [f"    subgraph cluster_{step.number} {{", '        label="one loop";']
        lines += [f"        {node.id} [{box(node)}];" for node in step.nodes]
        lines += ['        wire [label="wire"];'] if step.last else []
        lines.append("    }")
    lines.append("    reader [shape=ellipse];")
    lines += [f"    {a} -> {b};" for a, b in pairwise(look.ids())]
    return "\n".join([*lines, "}"])


def _in_dot(text: str) -> str:
    """Write a label's text: neither escapes nor entities are left in it."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _ascii(look: _Look) -> str:
    rows = [(_in_ascii(node.label), node.note) for node in look.nodes]
    rows.append(("wire", "encodes"))
    left = max(len(label) for label, _ in rows)
    width = max(left + 2 + max(len(note) for _, note in rows), 24)

    def row(label: str, note: str) -> str:
        return f"{label.ljust(left)}  {note.ljust(width - left - 2)}"

    down = ["    |", "    v"]
    lines = [f"  {_in_ascii(look.source)}"]
    for step in look.steps:
        lines += down
        if isinstance(step, _Node):
            lines.append(f"  < {row(_in_ascii(step.label), step.note)} >")
            continue
        lines.append(f"  +-- one loop {'-' * (width - 10)}+")
        within = [(_in_ascii(node.label), node.note) for node in step.nodes]
        within += [("wire", "encodes")] if step.last else []
        lines += [f"  | {row(*one)} |" for one in within]
        lines.append(f"  +{'-' * (width + 2)}+")
    return "\n".join([*lines, *down, "  reader"])


def _in_ascii(text: str) -> str:
    return text.replace("…", "...").encode("ascii", "backslashreplace").decode()


_STYLE: Final = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .note { font-size: 11px; fill: #59636e }
    .box { fill: #ffffff; stroke: #8c959f }
    .loop { fill: #ddf4ff; stroke: #54aeff }
    .boundary { fill: #fff8c5; stroke: #bf8700; stroke-dasharray: 5 3 }
    .flow { stroke: #8c959f; stroke-width: 1.5 }
    .tip { fill: #8c959f }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .note { fill: #9198a1 }
      .box { fill: #151b23; stroke: #656c76 }
      .loop { fill: #10233d; stroke: #1f6feb }
      .boundary { fill: #2d2409; stroke: #d29922 }
    }
"""
_BOX: Final = 40
_GAP: Final = 26


class _Svg:
    """A drawing from top to bottom; lengths are pixels."""

    def __init__(self, look: _Look) -> None:
        texts = [look.source, *[text for n in look.nodes for text in (n.label, n.note)]]
        # No font is at hand to measure: wide, and wider for what is not ASCII.
        longest = max(sum(8 if c.isascii() else 14 for c in text) for text in texts)
        self.width = max(180, longest + 24)
        self.middle = self.width // 2 + 20
        self.y = 10
        self.shapes: list[str] = []
        self.box("box", look.source, "source", radius=20)
        for step in look.steps:
            self.arrow()
            if isinstance(step, _Node):
                self.box("boundary", step.label, step.note, radius=0)
            else:
                self.loop(step)
        self.arrow()
        self.box("box", "reader", "events() or body()", radius=20)

    def box(self, sort: str, label: str, note: str, *, radius: int) -> None:
        self.shapes.append(
            f'  <rect class="{sort}" x="20" y="{self.y}" width="{self.width}" '
            f'height="{_BOX}" rx="{radius}"/>'
        )
        self.text(self.y + 17, label)
        self.text(self.y + 32, note, sort="note")
        self.y += _BOX

    def loop(self, loop: _Loop) -> None:
        boxes = [(node.label, node.note) for node in loop.nodes]
        boxes += [("wire", "encodes")] if loop.last else []
        height = 24 + len(boxes) * (_BOX + 8)
        self.shapes.append(
            f'  <rect class="loop" x="10" y="{self.y}" width="{self.width + 20}" '
            f'height="{height}" rx="8"/>'
        )
        self.text(self.y + 16, "one loop", sort="note")
        self.y += 24
        for label, note in boxes:
            self.box("box", label, note, radius=6)
            self.y += 8

    def arrow(self) -> None:
        x, y = self.middle, self.y + _GAP
        self.shapes += [
            f'  <path class="flow" d="M{x} {self.y}V{y - 6}"/>',
            f'  <path class="tip" d="M{x - 5} {y - 8}h10l-5 8z"/>',
        ]
        self.y = y

    def text(self, y: int, text: str, *, sort: str = "name") -> None:
        self.shapes.append(
            f'  <text class="{sort}" x="{self.middle}" y="{y}" text-anchor="middle">'
            f"{html.escape(text)}</text>"
        )

    def __str__(self) -> str:
        width, height = self.width + 40, self.y + 10
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}" role="img">',
                "  <title>A pipeline</title>",
                f"  <style>{_STYLE}  </style>",
                *self.shapes,
                "</svg>",
            ]
        )


def _svg(look: _Look) -> str:
    return str(_Svg(look))


_FORMATS: Final[Mapping[str, Callable[[_Look], str]]] = {
    "mermaid": _mermaid,
    "dot": _dot,
    "svg": _svg,
    "ascii": _ascii,
}
