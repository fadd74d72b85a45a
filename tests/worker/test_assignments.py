"""Which partitions are ours, under which number: rules one by one, and against a plain model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.assignments import Assignments
from worker.turn import Records, Turn


def a_turn(ours: Assignments, ends: dict[int, int]) -> Turn:
    """A turn whose records end there, read now; it has one record of each partition."""
    n = len(ends)
    offsets = [end - 1 for end in ends.values()]
    columns = Records("t", [*ends], offsets, [0] * n, [None] * n, [b""] * n, [None] * n)
    return Turn(columns, ends, ours.read(ends))


def begun(*partitions: int, offset: int = 0) -> Assignments:
    ours = Assignments()
    ours.assign(partitions)
    for partition in partitions:
        ours.begin(partition, offset)
    return ours


def test_a_partition_has_no_number_until_its_start_is_known():
    ours = Assignments()
    ours.assign([0, 1])
    assert ours.owned == {0, 1}
    assert not ours.numbers
    ours.begin(1, 40)
    assert ours.numbers.keys() == {1}
    assert ours.done == ours.positions == {1: 40}


def test_a_turn_of_what_is_still_ours_commits_its_ends():
    ours = begun(0, 1)
    turn = a_turn(ours, {0: 5, 1: 9})
    assert ours.finish(turn) == {0: 5, 1: 9}
    assert ours.done == {0: 5, 1: 9}


def test_a_partition_that_went_is_left_out_and_the_others_are_committed():
    ours = begun(0, 1)
    turn = a_turn(ours, {0: 5, 1: 9})
    ours.give_up([0])
    assert ours.finish(turn) == {1: 9}
    assert ours.owned == {1}
    assert 0 not in ours.done


def test_a_partition_that_went_and_came_back_does_not_take_the_old_turn():
    ours = begun(0)
    turn = a_turn(ours, {0: 5})
    ours.give_up([0])
    ours.assign([0])
    ours.begin(0, 2)
    assert ours.finish(turn) == {}
    assert ours.done == {0: 2}


def test_a_rewind_goes_back_behind_what_is_done_and_what_was_read_counts_no_more():
    ours = begun(0, offset=3)
    assert ours.finish(a_turn(ours, {0: 5})) == {0: 5}
    in_hand = a_turn(ours, {0: 9})
    ours.rewind()
    assert ours.positions == {0: 5}
    assert ours.given_up == {0}
    assert ours.finish(in_hand) == {}


def test_behind_a_gap_what_was_read_before_it_still_counts():
    ours = begun(0)
    turn = a_turn(ours, {0: 5})
    ours.move(0, 70)
    assert ours.positions == {0: 70}
    assert ours.finish(turn) == {0: 5}


def test_what_is_placed_anew_stays_ours_and_drops_what_was_read():
    ours = begun(0, 1)
    turn = a_turn(ours, {0: 5, 1: 5})
    ours.unplace([0])
    assert ours.owned == {0, 1}
    assert ours.finish(turn) == {1: 5}


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_giving_up_what_is_not_ours_does_no_harm(assigned, gone):
    ours = begun(*assigned)
    ours.give_up(gone)
    assert ours.owned == ours.numbers.keys() == set(assigned) - set(gone)


class OneMember(RuleBasedStateMachine):
    """Any order of assignments, rewinds and turns, against the rule in its plainest words: a turn
    commits what was, without a break, ours since it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.ours = Assignments()
        self.used: set[int] = set()
        self.unbroken: dict[int, object] = {}  # Replaced whenever a partition's records expire.
        self.reached: dict[int, int] = {}
        self.turn: Turn | None = None
        self.read_under: dict[int, object] = {}

    @rule(partition=st.integers(0, 3), offset=st.integers(0, 50))
    def begin(self, partition: int, offset: int) -> None:
        self.ours.assign([partition])
        self.ours.begin(partition, offset)
        assert self.ours.numbers[partition] not in self.used, "a number is never used again"
        self.unbroken[partition] = object()
        self.reached[partition] = offset

    @rule(partition=st.integers(0, 3))
    def give_up(self, partition: int) -> None:
        self.ours.give_up([partition])
        self.unbroken.pop(partition, None)

    @rule()
    def rewind(self) -> None:
        self.ours.rewind()
        self.unbroken = {partition: object() for partition in self.unbroken}
        for partition in self.unbroken:
            assert self.ours.positions[partition] == self.reached[partition]

    @precondition(lambda self: self.unbroken)
    @rule(count=st.integers(1, 9))
    def read(self, count: int) -> None:
        ends = {p: self.ours.positions[p] + count for p in self.unbroken}
        self.turn = a_turn(self.ours, ends)
        self.read_under = {p: self.unbroken[p] for p in ends}

    @precondition(lambda self: self.turn is not None)
    @rule()
    def finish(self) -> None:
        assert self.turn is not None
        wanted = {
            partition: end
            for partition, end in self.turn.offsets.items()
            if self.unbroken.get(partition) is self.read_under[partition]
        }
        assert self.ours.finish(self.turn) == wanted
        self.reached.update(wanted)
        self.turn = None

    @invariant()
    def numbers_are_of_what_is_ours(self) -> None:
        assert self.ours.numbers.keys() == self.unbroken.keys() <= self.ours.owned
        assert len(set(self.ours.numbers.values())) == len(self.ours.numbers)
        self.used |= set(self.ours.numbers.values())


TestOneMember = OneMember.TestCase
