"""`explain` and `graph`: what fused, where the boundaries are, and nothing that escapes."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import aiostream
import pytest

import operators as ops
from operators.operator import Operator, Stage
from pipeline import Pipeline
from pipeline.graph import draw, explain

HOSTILE = 'a"]); <b>&amp;\\N\\"#quot;`|{}\n-->\x1b[31m\u202e é海'
SVG = "{http://www.w3.org/2000/svg}"


def never(*args):
    pytest.fail("a hook was called")


async def produce():
    pytest.fail("the source was called")
    yield


class Meter:
    """A stage with every hook there is."""

    def on_event(self, event):
        never()

    finish = settle = close = never


def broken():
    raise ValueError("not\ntoday")


SEVEN = (
    Pipeline(produce)
    | ops.lifecycle()
    | ops.tap(never, name="tap(broadcast)")
    | ops.accumulate()
    | ops.transform(never, name="transform(strip)")
    | ops.persist(never, name="persist(save)")
    | ops.complete(never, name="complete(tell)")
    | ops.trace_flush(never, name="trace_flush(flush)")
)
CUT = (
    Pipeline(produce)
    | ops.lifecycle()
    | ops.coalesce()
    | ops.through(aiostream.pipe.timeout(30), name="limit")
    | ops.timeout(idle=1.0)
    | ops.operator(Meter)
    | ops.coalesce(max_delay=1.0)
    | ops.tap(never, name="end", on_error="disable")
)

SEVEN_EXPLAINED = """\
source: produce, called once a turn

loop 1: 3 operators and the wire fused into one async generator
  1 lifecycle: filter_map; only error, session.run.completed, session.run.failed; \
what stands after it sees the envelope too
  2 tap(broadcast): tap; its errors are logged
  3 accumulate: tap; only llm_call, message.part.updated, result; \
deltas of one part are appended without a call
  4 transform(strip): not called in the loop, settles
  5 persist(save): not called in the loop, settles
  6 complete(tell): not called in the loop, settles
  7 trace_flush(flush): not called in the loop, closes
  wire: NDJSON is encoded in the loop, others by a call

settlement, once, when the source is closed:
  settle: 3 accumulate, where a later one settles
  settle: 4 transform(strip), where a later one settles
  settle: 5 persist(save), when the source was drained
  settle: 6 complete(tell), when the source was drained
  terminal event: made by 1 lifecycle, then through 2 tap(broadcast), 3 accumulate
  close: 7 trace_flush(flush), on every end"""

SEVEN_ASCII = """\
  produce
    |
    v
  +-- one loop ------------------------+
  | 1 lifecycle           envelope     |
  | 2 tap(broadcast)      tap          |
  | 3 accumulate          tap, settles |
  | 4 transform(strip)    settles      |
  | 5 persist(save)       settles      |
  | 6 complete(tell)      settles      |
  | 7 trace_flush(flush)  closes       |
  | wire                  encodes      |
  +------------------------------------+
    |
    v
  reader"""


def test_the_seven_stages_are_one_loop():
    assert SEVEN.explain() == SEVEN_EXPLAINED


def test_a_boundary_is_named_with_its_reason_and_cuts_the_loop():
    told = CUT.explain()
    assert re.findall(r"^(?:loop|boundary).*", told, re.MULTILINE) == [
        "loop 1: 2 operators fused into one async generator",
        "boundary: 3 limit",
        "boundary: 4 timeout",
        "loop 2: 1 operator fused into one async generator",
        "boundary: 6 coalesce",
        "loop 3: 1 operator and the wire fused into one async generator",
    ]
    assert "takes the stream itself: single events in and out" in told
    assert "takes the stream itself: single events or the lists of one read" in told


def test_the_hooks_are_listed_in_the_order_of_a_drained_turn():
    settlement = CUT.explain().partition("settlement")[2]
    assert settlement.splitlines()[1:8] == [
        "  finish: 2 coalesce, 5 Meter, 6 coalesce",
        "    (after a stop the boundaries first, the last of them first)",
        "  settle: 5 Meter, when the source was drained",
        "  terminal event: made by 1 lifecycle, then through 2 coalesce, 5 Meter, 7 end",
        "  close: 5 Meter, on every end",
        "",
        "known only when a turn opens:",
    ]


def test_what_only_a_turn_knows_is_said():
    told = (Pipeline(produce) | ops.operator(Meter) | ops.operator(broken)).explain()
    assert "  1 Meter: opened anew each time; the above is one of them" in told
    assert r"  2 broken: its open raised ValueError: not\ntoday" in told
    assert "  2 broken: unknown, it could not be opened" in told


def test_without_operators_there_is_still_a_loop_that_encodes():
    bare = Pipeline(produce)
    told = bare.explain()
    assert "loop 1: one async generator for the wire, calls no operator" in told
    assert "no lifecycle: there is no terminal event" in told
    assert bare.graph("ascii").count("one loop") == 1


def test_a_loop_between_boundaries_may_call_nothing():
    through = ops.through(aiostream.pipe.take(1))
    told = (Pipeline(produce) | ops.trace_flush(never) | through).explain()
    assert "loop 1: one async generator, calls no operator" in told


def test_guards_awaits_and_stages_without_parts_are_shown():
    async def look(event):
        never()

    guard = Operator("guard", lambda turn: Stage(never, shape="map"), guards=True)
    empty = Operator("empty", lambda turn: Stage())
    told = (Pipeline(produce) | guard | ops.tap(look) | empty).explain()
    assert "  1 guard: map; guards, so it is never bypassed" in told
    assert "  2 tap(look): tap; awaited in place; its errors are logged" in told
    assert "  3 empty: not called in the loop, does nothing" in told


def test_the_generated_code_comes_last_where_asked_for():
    told = explain(CUT, source=True)
    assert told.startswith(CUT.explain())
    assert told.count("generated code, ") == 4
    assert "\n  async def body(run, stages" in told
    assert "generated code" not in CUT.explain()


def test_a_log_of_an_operator_that_opens_goes_nowhere(caplog):
    def noisy(turn):
        turn.log("opening")
        return Stage()

    explain(Pipeline(produce) | Operator("noisy", noisy))
    assert not caplog.records


# -- drawn


def test_ascii_shows_a_loop_as_a_box():
    assert SEVEN.graph("ascii") == SEVEN_ASCII


@pytest.mark.parametrize("pipeline", [Pipeline(produce), SEVEN, CUT])
def test_ascii_boxes_are_straight(pipeline):
    boxes = [
        line for line in pipeline.graph("ascii").splitlines() if line[2:3] in "+|<"
    ]
    assert len({len(line) for line in boxes if line[2] in "+|<" and line[4:5]}) == 1


def mermaid_groups(text):
    return [
        re.findall(r"^ +(\w+)\[", group, re.MULTILINE)
        for group in re.findall(r"subgraph \w+\[.*?\n(.*?)\n    end", text, re.DOTALL)
    ]


def test_mermaid_groups_what_is_fused_and_joins_all_in_order():
    text = CUT.graph()
    assert text.startswith("flowchart LR\n")
    assert mermaid_groups(text) == [["op1", "op2"], ["op5"], ["op7", "wire"]]
    assert re.findall(r"^    (\w+)\{\{", text, re.MULTILINE) == ["op3", "op4", "op6"]
    edges = re.findall(r"^    (\w+) --> (\w+)$", text, re.MULTILINE)
    way = ["source", *[f"op{k}" for k in range(1, 8)], "wire", "reader"]
    assert edges == list(pairwise(way))


def test_dot_groups_what_is_fused_and_joins_all_in_order():
    text = CUT.graph("dot")
    assert text.startswith("digraph pipeline {\n")
    assert text.endswith("\n}")
    groups = re.findall(r"subgraph cluster_\d+ \{(.*?)\n    \}", text, re.DOTALL)
    assert [re.findall(r"^ +(\w+) \[", g, re.MULTILINE) for g in groups] == [
        ["op1", "op2"],
        ["op5"],
        ["op7", "wire"],
    ]
    edges = re.findall(r"^    (\w+) -> (\w+);$", text, re.MULTILINE)
    way = ["source", *[f"op{k}" for k in range(1, 8)], "wire", "reader"]
    assert edges == list(pairwise(way))
    assert text.count("{") == text.count("}")


def test_svg_is_well_formed_and_every_box_lies_within():
    root = ET.fromstring(CUT.graph("svg"))
    assert root.tag == f"{SVG}svg"
    _, _, width, height = map(int, root.get("viewBox").split())
    rects = root.findall(f"{SVG}rect")
    sorts = [rect.get("class") for rect in rects]
    assert sorts.count("loop") == 3
    assert sorts.count("boundary") == 3
    for rect in rects:
        x, y, w, h = (int(rect.get(k)) for k in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text


def test_svg_loops_hold_the_boxes_of_their_operators():
    root = ET.fromstring(CUT.graph("svg"))
    inside = []
    for rect in root.findall(f"{SVG}rect"):
        top = int(rect.get("y"))
        if rect.get("class") == "loop":
            bottom = top + int(rect.get("height"))
            inside.append(0)
        elif inside and rect.get("class") == "box" and top < bottom:
            inside[-1] += 1
    assert inside == [2, 1, 2]


def named(name):
    return Pipeline(produce) | ops.tap(never, name=name) | ops.tap(never)


def test_a_hostile_name_stays_text_in_svg():
    texts = [
        t.text for t in ET.fromstring(draw(named(HOSTILE), "svg")).iter(f"{SVG}text")
    ]
    assert r'1 a"]); <b>&amp;\N\"#quot;`|{}\n-->\x1b[31m\u202e é海' in texts


def test_a_hostile_name_stays_within_its_label_in_mermaid():
    text = draw(named(HOSTILE), "mermaid")
    (line,) = [one for one in text.splitlines() if " op1[" in one]
    label = re.fullmatch(r' +op1\["([^"]*)<br/>tap"\]', line)[1]
    assert not set(label) & set('"<>[]{}|`\\&\n\x1b\u202e')
    shown = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label)
    assert shown == r'1 a"]); <b>&amp;\N\"#quot;`|{}\n-->\x1b[31m\u202e é海'
    assert mermaid_groups(text) == [["op1", "op2", "wire"]]


def test_a_hostile_name_stays_within_its_label_in_dot():
    text = draw(named(HOSTILE), "dot")
    (line,) = [one for one in text.splitlines() if " op1 [" in one]
    label = re.fullmatch(r' +op1 \[label="((?:[^"\\]|\\.)*)\\ntap"\];', line)[1]
    plain = label.replace('\\"', '"').replace("\\\\", "\\")
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        plain = plain.replace(entity, char)
    assert plain == r'1 a"]); <b>&amp;\N\"#quot;`|{}\n-->\x1b[31m\u202e é海'


def test_a_hostile_name_is_one_line_of_ascii():
    text = draw(named(HOSTILE), "ascii")
    assert text.isascii()
    assert "\x1b" not in text
    (line,) = [one for one in text.splitlines() if "| 1 a" in one]
    assert r"\x1b[31m\u202e \xe9\u6d77" in line


def test_a_name_that_ends_in_a_backslash_does_not_open_its_quote():
    assert '[label="1 x\\\\\\ntap"];' in draw(named("x\\"), "dot")


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg", "ascii"])
def test_a_long_name_is_cut(form):
    text = draw(named("x" * 5000), form)
    assert "x" * 59 in text
    assert "x" * 60 not in text


def test_a_name_of_no_characters_can_be_written_out():
    def nameless():
        never()

    nameless.__name__ = "\ud800\ufffe\x00"
    pipeline = Pipeline(nameless)
    for form in ("mermaid", "dot", "svg", "ascii"):
        assert draw(pipeline, form).encode()
    assert r"source: \ud800\ufffe\x00, called" in explain(pipeline)
    ET.fromstring(draw(pipeline, "svg"))


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg", "ascii"])
def test_an_operator_that_cannot_be_opened_is_drawn_as_unknown(form):
    pipeline = Pipeline(produce) | ops.operator(broken)
    assert "unknown until a turn opens" in draw(pipeline, form)


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(ValueError, match="'png'; there are: mermaid, dot, svg, ascii"):
        SEVEN.graph("png")
