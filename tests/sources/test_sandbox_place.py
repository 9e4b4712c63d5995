"""What of a repetition is new: the seam between two connections, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.errors import SourceIncomplete
from pipeline.sources.sandbox_place import Place, join_id, split_id

Records = list[tuple[str | None, int]]  # each its id, if it has one, and what it says


def admitted(place: Place, records: Records) -> list[int]:
    return [said for own, said in records if place.admit(own, said)]


@st.composite
def runs(draw: st.DrawFn) -> Records:
    """Make a run: some of its records have ids, each another one; the first has one."""
    named = draw(st.lists(st.booleans(), min_size=1, max_size=12))
    same = st.sampled_from([1, 2])  # what it says may be said again
    return [
        (str(n) if one or not n else None, draw(same)) for n, one in enumerate(named)
    ]


@given(runs(), st.data())
def test_wherever_it_breaks_and_resumes_each_record_is_new_once(
    run: Records, data: st.DataObject
) -> None:
    place = Place()
    had: list[int] = []
    for _ in range(data.draw(st.integers(1, 4))):
        begin = 0
        if place.id:
            at = [own for own, _ in run].index(place.id)
            begin = data.draw(
                st.sampled_from([at + 1, at, data.draw(st.integers(0, at)), 0])
            )
            while begin and begin <= at and run[begin][0] is None:
                begin -= 1  # who repeats begins with an id
            place.connect()
        end = data.draw(st.integers(begin, len(run)))
        had += admitted(place, run[begin:end])
        if not place.id and had:
            return
    if place.id:
        place.connect()
        had += admitted(place, run[[own for own, _ in run].index(place.id) + 1 :])
    else:
        had += admitted(place, run)
    assert had == [said for _, said in run]


@given(runs(), st.data())
def test_another_reader_goes_on_where_the_first_one_got_to(
    run: Records, data: st.DataObject
) -> None:
    first = Place()
    had = admitted(first, run[: data.draw(st.integers(1, len(run)))])
    place, part = Place.after(first.mark(), first=first.first, hello=first.hello)
    assert part == 0
    at = [own for own, _ in run].index(place.id)
    place.connect()
    had += admitted(place, run[data.draw(st.sampled_from([at + 1, at, 0])) :])
    assert had == [said for _, said in run]
    assert not place.rewinding


def test_what_every_connection_opens_with_is_not_new() -> None:
    place = Place()
    assert admitted(place, [(None, 90), (None, 91), ("1", 1), (None, 2)]) == [
        90,
        91,
        1,
        2,
    ]
    place.connect()
    assert admitted(place, [(None, 90), (None, 91), (None, 2), ("2", 3)]) == [3]
    place.connect()
    assert (
        admitted(place, [(None, 90), (None, 91), ("1", 1), (None, 2), ("2", 3)]) == []
    )
    assert admitted(place, [(None, 90)]) == [90]


@pytest.mark.parametrize(
    "again",
    [
        [("1", 7)],  # another content
        [("2", 2), (None, 8)],  # and after it
        [(None, 8)],
    ],
)
def test_a_second_run_is_not_spliced_to_the_first(again: Records) -> None:
    place = Place()
    admitted(place, [("1", 1), ("2", 2), (None, 3)])
    place.connect()
    with pytest.raises(SourceIncomplete, match="with another run"):
        admitted(place, again)


def test_only_where_ids_tell_events_apart_there_is_going_on() -> None:
    place = Place()
    assert "sends no event ids" in str(place.hindrance)
    place.admit(None, 1)
    assert "sends no event ids" in str(place.hindrance)
    place.admit("1", 2)
    assert place.hindrance is None
    place.admit("", 3)
    assert "taken its event ids back" in str(place.hindrance)
    place.admit("ü", 3)
    assert "cannot be sent" in str(place.hindrance)
    place.admit("x" * 2000, 3)
    assert "cannot be sent" in str(place.hindrance)
    place.admit("2", 4)
    assert place.hindrance is None
    place.move("3")
    assert place.id == "3"
    place.move("2")  # a ping that tells an id once more
    assert place.id == "3"
    assert place.hindrance is None
    place.admit("2", 5)
    assert "the same id" in str(place.hindrance)


def test_an_id_without_an_event_moves_the_place() -> None:
    place = Place()
    admitted(place, [("1", 1), (None, 2)])
    place.move("5")
    assert place.mark() == "5"
    place.connect()
    assert place.id == "5"
    assert admitted(place, [(None, 3)]) == [3]
    place.connect()
    place.move("5")
    assert admitted(place, [(None, 3), (None, 4)]) == [4]


@given(
    st.text(st.sampled_from("a7~.0\n:é"), max_size=9),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_event_ids_tell_a_place_and_no_two_the_same(
    own: str, had: int, part: int
) -> None:
    made = join_id(own, had, part)
    assert split_id(made) == (own, had, part)
    if not had and not part and own and "~" not in own:
        assert made == own
