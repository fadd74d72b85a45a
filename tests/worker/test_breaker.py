"""The breaker: what opens it, what does not, and what it says. Pure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import Reason
from worker.breaker import IN_A_ROW, RECORDS_MIN, WINDOW_RECORDS, Breaker
from worker.turn import Tally

TURNS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 400)).map(
        lambda sizes: (max(sizes), min(sizes))  # Records, and the bad ones among them.
    ),
    max_size=30,
)
RATIOS = st.sampled_from([0.1, 0.5, 0.9, 1.0])


def a_tally(records: int, bad: int = 0, reason: Reason = Reason.NOT_JSON) -> Tally:
    outcomes = {"normal": records - bad, "dead_letter": bad}
    return Tally(outcomes, {reason: bad} if bad else {}, np.array([]), [])


def judged(breaker: Breaker, tally: Tally) -> str | None:
    """Take a turn as the worker does: one at which it opens does not count, any other does."""
    why = breaker.opens_at(tally)
    if why is None:
        breaker.count(tally)
    else:
        breaker.forget()
    return why


def test_a_turn_of_rubbish_opens_it_and_it_says_what_was_seen():
    assert judged(Breaker(0.9), a_tally(200, 190)) == (
        "190 of the latest 200 records cannot be scored, most of the last turn for 'not_json'"
    )


def test_one_bad_record_among_good_ones_is_a_dead_letter_and_no_more():
    breaker = Breaker(0.9)
    assert all(judged(breaker, a_tally(10, 1)) is None for _ in range(500))


def test_too_few_records_tell_nothing():
    assert judged(Breaker(0.9), a_tally(RECORDS_MIN - 1, RECORDS_MIN - 1)) is None


@pytest.mark.parametrize(("bad", "opens"), [(899, False), (900, True), (901, True)])
def test_the_ratio_itself_opens_it(bad, opens):
    assert (judged(Breaker(0.9), a_tally(1000, bad)) is not None) is opens


def test_a_flood_after_days_of_good_records_opens_it_within_a_hundred():
    """The window is full of good records then, and a quiet topic would take days to turn it."""
    breaker = Breaker(0.9)
    assert judged(breaker, a_tally(WINDOW_RECORDS)) is None
    opened = [judged(breaker, a_tally(1, 1)) for _ in range(IN_A_ROW)]
    assert opened[:-1] == [None] * (IN_A_ROW - 1)
    assert opened[-1] == (
        "the latest 100 records cannot be scored, most of the last turn for 'not_json'"
    )


def test_a_good_record_begins_the_row_anew():
    breaker = Breaker(1.0)
    judged(breaker, a_tally(WINDOW_RECORDS))
    for _ in range(20):
        assert judged(breaker, a_tally(IN_A_ROW - 1, IN_A_ROW - 1)) is None
        assert judged(breaker, a_tally(1)) is None


def test_an_event_that_cannot_be_scored_is_as_bad_as_a_dead_letter():
    """One whose features have all been renamed is that."""
    tally = Tally({"normal": 0, "unscorable": 150}, {}, np.array([]), [])
    assert "'unscorable'" in (judged(Breaker(0.9), tally) or "")


def test_the_commonest_reason_of_the_last_turn_is_named():
    reasons = {Reason.NOT_JSON: 30, Reason.TOMBSTONE: 120}
    tally = Tally({"dead_letter": 150}, reasons, np.array([]), [])
    assert (judged(Breaker(0.9), tally) or "").endswith("for 'tombstone'")


def test_once_open_it_judges_the_next_turn_by_itself():
    breaker = Breaker(0.9)
    assert judged(breaker, a_tally(500, 500))
    assert judged(breaker, a_tally(100, 50)) is None
    assert judged(breaker, a_tally(10, 10)) is None


def test_what_it_forgets_counts_no_more():
    breaker = Breaker(0.9)
    judged(breaker, a_tally(99, 99))
    breaker.forget()
    assert judged(breaker, a_tally(99, 99)) is None


@given(TURNS, RATIOS)
def test_to_ask_changes_nothing(turns, ratio):
    """A turn is judged again where it had to be read again, and counts once."""
    asked, plain = Breaker(ratio), Breaker(ratio)
    for records, bad in turns:
        tally = a_tally(records, bad)
        assert asked.opens_at(tally) == asked.opens_at(tally)
        assert judged(asked, tally) == judged(plain, tally)


@given(TURNS, RATIOS)
def test_it_opens_exactly_at_its_rules(turns, ratio):
    """Against the rules written out: the shortest tail of turns of 1,000 records, or the row."""
    breaker = Breaker(ratio)
    seen: list[tuple[int, int]] = []
    for records, bad in turns:
        seen.append((records, bad))
        tail: list[tuple[int, int]] = []
        for turn in reversed(seen):
            if sum(n for n, _ in tail) >= WINDOW_RECORDS:
                break
            tail.append(turn)
        latest, latest_bad = sum(n for n, _ in tail), sum(b for _, b in tail)
        row = 0
        for n, b in reversed(seen):
            if n != b:
                break
            row += b
        wanted = (latest >= RECORDS_MIN and latest_bad >= ratio * latest) or row >= IN_A_ROW
        assert (judged(breaker, a_tally(records, bad)) is not None) is wanted
        if wanted:
            seen.clear()


@given(TURNS, st.floats(0.01, 1.0))
def test_good_records_alone_never_open_it(turns, ratio):
    breaker = Breaker(ratio)
    assert all(judged(breaker, a_tally(records)) is None for records, _ in turns)
