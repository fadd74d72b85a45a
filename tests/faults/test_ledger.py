"""The ledger misses nothing, and forgives only what a fault explains."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.entries import Balance, Blow, Output, Position
from tests.faults.ledger import Ledger

KILL = Blow("kill", began_ms=1000, over_ms=4000, committed={0: 10}, interrupts=True)
STOP = Blow("stop", began_ms=1000, over_ms=4000, committed={0: 10}, interrupts=False)


def an_output(number: int | None, offset: int, written_ms: int, **changes: object) -> Output:
    output = Output(number, 0, offset, "normal", 0.5, "model", False, written_ms)
    return output._replace(**changes)


def a_ledger(*blows: Blow, exactly_once: bool = False) -> Ledger:
    """Twenty events sent and answered, one a tick of 100 ms, with these faults."""
    ledger = Ledger(exactly_once=exactly_once, blows=list(blows))
    for number in range(20):
        ledger.enter_sent(number, Position(0, number), now=number / 10)
        ledger.enter_output(an_output(number, number, 100 * number))
    return ledger


def balance(ledger: Ledger, committed: int = 20) -> Balance:
    return ledger.balance({0: committed}, {0: 20})


def test_books_without_faults_balance():
    closed = balance(a_ledger())
    assert closed.is_clean
    assert (closed.sent, closed.scored, closed.dead_letters, closed.repeats) == (20, 20, 0, 0)


def test_an_event_without_output_is_lost_and_named():
    ledger = a_ledger()
    ledger.enter_sent(99, Position(0, 20), now=3.0)
    assert ledger.waiting == 1
    assert balance(ledger).misses == ("1 events lost: 0@20 (event 99)",)


def test_an_output_of_no_event_is_a_miss():
    ledger = a_ledger()
    ledger.enter_output(an_output(77, 50, 100))
    ledger.enter_output(an_output(None, 51, 100))
    assert balance(ledger).misses == ("2 outputs of no event that was sent",)


def test_an_output_may_come_before_the_report_of_its_event():
    ledger = Ledger()
    ledger.enter_output(an_output(0, 0, 10))
    ledger.enter_output(an_output(None, 1, 10, is_dead_letter=True))
    ledger.enter_sent(0, Position(0, 0), now=0.0)
    ledger.enter_sent(1, Position(0, 1), now=0.0)
    closed = ledger.balance({0: 2}, {0: 2})
    assert closed.is_clean
    assert closed.dead_letters == 1


def test_a_repeat_without_a_fault_is_a_miss():
    ledger = a_ledger()
    ledger.enter_output(an_output(15, 15, 2000))
    assert "1 repeats that no fault explains" in balance(ledger).misses[0]


def test_a_repeat_of_the_turn_that_a_kill_cut_off_is_explained():
    ledger = a_ledger(KILL)
    ledger.enter_output(an_output(15, 15, 2000))
    closed = balance(ledger)
    assert closed.is_clean
    assert closed.repeats == 1
    assert closed.repeats_by_blow == {"kill": (1, 1)}


def test_a_kill_does_not_explain_a_repeat_of_what_was_committed():
    ledger = a_ledger(KILL)
    ledger.enter_output(an_output(9, 9, 2000))
    assert not balance(ledger).is_clean


def test_a_kill_does_not_explain_repeats_before_it_or_after_the_flow_was_steady():
    for again_ms in (500, 9000):
        ledger = a_ledger(KILL)
        ledger.enter_output(an_output(15, 15, again_ms)._replace(written_ms=again_ms))
        ledger._first[15] = ledger._first[15]._replace(written_ms=400)
        assert not balance(ledger).is_clean


def test_a_kill_explains_no_more_repeats_of_a_partition_than_a_turn_has():
    for most, is_clean in ((2, True), (1, False)):
        ledger = a_ledger(replace(KILL, repeats_max=most))
        ledger.enter_output(an_output(15, 15, 2000))
        ledger.enter_output(an_output(16, 16, 2000))
        assert balance(ledger).is_clean is is_clean


def test_a_clean_stop_explains_nothing():
    ledger = a_ledger(STOP)
    ledger.enter_output(an_output(15, 15, 2000))
    assert not balance(ledger).is_clean


def test_exactly_once_forgives_nothing():
    ledger = a_ledger(KILL, exactly_once=True)
    ledger.enter_output(an_output(15, 15, 2000))
    assert not balance(ledger).is_clean


def test_a_repeat_must_say_the_same():
    for change in ({"outcome": "anomalous"}, {"score": 0.6}, {"score": None}):
        ledger = a_ledger(KILL)
        ledger.enter_output(an_output(15, 15, 2000, **change))
        assert "another verdict or score" in balance(ledger).misses[0]
    ledger = a_ledger(KILL)
    ledger.enter_output(an_output(15, 15, 2000, score=0.6, model="another model"))
    assert balance(ledger).is_clean


def test_an_output_must_name_the_position_of_its_event():
    ledger = Ledger()
    ledger.enter_sent(0, Position(0, 0), now=0.0)
    ledger.enter_output(an_output(0, 1, 10))
    assert "name another position" in ledger.balance({0: 1}, {0: 1}).misses[0]


def test_what_is_deleted_unread_is_destroyed_and_what_was_committed_is_not():
    ledger = a_ledger()
    for number in range(20, 30):
        ledger.enter_sent(number, Position(0, number), now=3.0)
    ledger.enter_deletion({0: 28}, committed={0: 22})
    closed = ledger.balance({0: 30}, {0: 30})
    assert closed.destroyed == 6
    assert closed.misses[0].startswith("4 events lost: 0@20 (event 20), 0@21")


def test_what_is_deleted_before_its_report_has_come_is_destroyed_too():
    ledger = a_ledger()
    ledger.enter_deletion({0: 22}, committed={0: 20})
    for number in range(20, 23):
        ledger.enter_sent(number, Position(0, number), now=3.0)
    assert ledger.waiting == 1
    closed = ledger.balance({0: 23}, {0: 23})
    assert closed.destroyed == 2
    assert closed.misses == ("1 events lost: 0@22 (event 22)",)


def test_positions_begin_anew_when_the_topic_is_made_again():
    ledger = a_ledger()
    ledger.enter_sent(20, Position(0, 20), now=3.0)
    ledger.enter_new_incarnation({0: 20})
    ledger.enter_sent(21, Position(0, 0, 1), now=4.0)
    ledger.enter_output(an_output(None, 0, 9000))
    closed = ledger.balance({0: 1}, {0: 1})
    assert closed.is_clean
    assert closed.destroyed == 1


def test_commits_must_reach_the_end_and_never_go_back():
    ledger = a_ledger()
    ledger.enter_committed({0: 12})
    ledger.enter_committed({0: 11})
    assert balance(ledger, committed=19).misses == (
        "the committed offset of partition 0 went back from 12 to 11",
        "partition 0 ends at 20, and 19 is committed",
    )


def test_the_flow_is_steady_when_every_partition_answers_and_nothing_is_late():
    ledger = Ledger()
    ledger.enter_sent(0, Position(0, 0), now=1.0)
    ledger.enter_output(an_output(0, 0, 10))
    assert not ledger.is_steady(since=0.5, now=1.1, partitions=[0, 1], age_s=0.5)
    ledger.enter_sent(1, Position(1, 0), now=1.2)
    assert not ledger.is_steady(since=0.5, now=1.3, partitions=[0, 1], age_s=0.5)
    ledger.enter_output(Output(1, 1, 0, "normal", 0.5, "model", False, 10))
    assert ledger.is_steady(since=0.5, now=1.4, partitions=[0, 1], age_s=0.5)
    assert not ledger.is_steady(since=1.1, now=1.4, partitions=[0, 1], age_s=0.5)
    ledger.enter_sent(2, Position(0, 1), now=1.5)
    assert not ledger.is_steady(since=0.5, now=2.5, partitions=[0, 1], age_s=0.5)
