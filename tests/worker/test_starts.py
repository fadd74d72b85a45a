"""Where to begin in a partition: the rules, one by one and as properties. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.starts import (
    Note,
    OutOfRange,
    Place,
    Range,
    StartRules,
    epoch_ms,
    offsets_of,
    start_of,
)

HELD = Range(low=100, high=200, topic_id="one")
OFFSETS = st.integers(0, 2**62)
NOTES = st.builds(Note, st.none() | st.text(), st.none() | st.text())


def a_place(offset: int, topic_id: str | None = "one", start: str | None = None) -> Place:
    return Place(offset, Note(topic_id, start))


@pytest.mark.parametrize(("rule", "offset"), [("earliest", 100), ("latest", 200)])
def test_a_group_without_commits_begins_where_the_rule_says(rule, offset):
    start = start_of(0, None, HELD, StartRules(new_group=rule))
    assert (start.offset, start.gap) == (offset, None)
    assert start.why == f"no committed offset: starting at the {rule}"


@pytest.mark.parametrize("offset", [100, 150, 200])
def test_a_committed_place_that_exists_is_gone_on_from(offset):
    start = start_of(0, a_place(offset), HELD, StartRules(new_group="latest"))
    assert (start.offset, start.why, start.gap) == (offset, "committed", None)


def test_a_place_that_retention_has_passed_is_a_gap_that_is_counted():
    start = start_of(0, a_place(40), HELD, StartRules())
    assert (start.offset, start.lost_records) == (100, 60)
    assert "retention or a deletion was faster" in (start.gap or "")
    assert "had reached 40, and the partition holds 100 to 200" in (start.gap or "")


def test_a_place_beyond_the_end_is_a_gap():
    start = start_of(0, a_place(230), HELD, StartRules())
    assert (start.offset, start.lost_records) == (100, 30)
    assert "shorter than it was" in (start.gap or "")


@pytest.mark.parametrize("offset", [40, 150, 230])
def test_a_topic_that_was_made_again_is_told_by_its_id_wherever_the_place_was(offset):
    start = start_of(0, a_place(offset, "another"), HELD, StartRules())
    assert start.offset == 100
    assert "deleted and made again" in (start.gap or "")


def test_a_commit_that_says_nothing_of_its_topic_is_believed():
    """Other programs commit without a note."""
    start = start_of(0, a_place(150, None), HELD, StartRules())
    assert (start.offset, start.gap) == (150, None)


def test_a_deliberate_start_is_heeded_once():
    rules = StartRules(from_offsets={None: 120})
    assert start_of(0, a_place(150), HELD, rules).offset == 120
    assert start_of(0, None, HELD, rules).why == "ODRADEK_FROM_OFFSET"
    # Each commit carries the mark: from then on the place counts.
    assert start_of(0, a_place(150, start=rules.mark), HELD, rules).offset == 150


def test_another_deliberate_start_is_heeded_again():
    first, second = StartRules(from_time_ms=1000), StartRules(from_time_ms=2000)
    held = Range(100, 200, "one", from_time=170)
    assert start_of(0, a_place(150, start=first.mark), held, second).offset == 170
    assert start_of(0, a_place(150, start=second.mark), held, second).offset == 150


def test_a_time_after_the_last_record_begins_at_the_end():
    start = start_of(0, a_place(150), HELD, StartRules(from_time_ms=1000))
    assert (start.offset, start.why) == (200, "ODRADEK_FROM_TIME")


def test_offsets_by_partition_leave_the_other_partitions_alone():
    rules = StartRules(from_offsets={1: 120})
    assert start_of(1, a_place(150), HELD, rules).offset == 120
    assert start_of(0, a_place(150), HELD, rules).offset == 150


@pytest.mark.parametrize("wanted", [99, 201])
def test_a_deliberate_start_where_nothing_is_is_refused(wanted):
    with pytest.raises(OutOfRange, match=f"offset {wanted} of partition 3, which holds 100 to 200"):
        start_of(3, None, HELD, StartRules(from_offsets={None: wanted}))


def test_a_deliberate_start_hides_no_gap_of_a_later_restart():
    rules = StartRules(from_time_ms=1000)
    assert start_of(0, a_place(40, start=rules.mark), HELD, rules).gap


@given(
    st.none() | st.builds(Place, OFFSETS, NOTES),
    st.tuples(OFFSETS, OFFSETS).map(sorted),
    st.sampled_from(["earliest", "latest"]),
    st.none() | st.integers(0, 2**41),
)
def test_a_start_lies_in_the_partition_and_a_loss_is_never_silent(place, held, rule, from_time_ms):
    low, high = held
    rules = StartRules(new_group=rule, from_time_ms=from_time_ms)
    start = start_of(0, place, Range(low, high, "one"), rules)
    assert low <= start.offset <= high
    assert start.why
    assert start.lost_records >= 0
    heeded = place is not None and (from_time_ms is None or place.note.start == rules.mark)
    if heeded:
        assert start.gap is not None or start.offset == place.offset
    else:
        assert start.gap is None


@given(NOTES)
def test_a_note_comes_back_as_it_was_written(note):
    assert Note.read(note.text()) == note
    # librdkafka hands metadata over with the zero that ends it.
    assert Note.read(note.text() + "\0") == note


@given(st.none() | st.text())
def test_whatever_others_wrote_there_is_no_error(text):
    assert isinstance(Note.read(text), Note)


def test_notes_are_small_and_hold_no_nothing():
    assert Note().text() == "{}"
    assert Note("id").text() == '{"topic_id":"id"}'


def test_marks_tell_deliberate_starts_apart():
    starts = [
        StartRules(),
        StartRules(from_time_ms=0),
        StartRules(from_time_ms=1),
        StartRules(from_offsets={None: 0}),
        StartRules(from_offsets={0: 0}),
        StartRules(from_offsets={0: 0, 1: 5}),
    ]
    marks = [start.mark for start in starts]
    assert marks[0] is None
    assert len(set(marks)) == len(marks)
    assert StartRules(from_offsets={1: 5, 0: 0}).mark == marks[-1], "their order says nothing"


@given(st.integers(0, 7_000_000_000), st.integers(-14, 14))
def test_a_time_is_read_in_its_zone(epoch_s, hours):
    there = datetime.fromtimestamp(epoch_s, timezone(timedelta(hours=hours)))
    assert epoch_ms(there.isoformat()) == epoch_s * 1000


def test_a_time_is_epoch_milliseconds_or_rfc_3339():
    assert epoch_ms("1767247200000") == 1767247200000
    assert epoch_ms("2026-01-01T06:00:00Z") == 1767247200000
    assert epoch_ms("2026-01-01T06:00:00.250+00:00") == 1767247200250
    assert datetime.fromtimestamp(1767247200, UTC).isoformat() == "2026-01-01T06:00:00+00:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        str(2**63),
        "yesterday",
        "-5",
        "1.5",
        "2026-01-01",
        "2026-01-01T06:00:00",
        "2026-13-01T00:00Z",
    ],
)
def test_what_is_no_time_or_has_no_zone_is_refused(text):
    with pytest.raises(ValueError, match="wanted epoch milliseconds, or RFC 3339 such as"):
        epoch_ms(text)


@given(st.dictionaries(st.integers(0, 500), OFFSETS, min_size=1, max_size=8))
def test_offsets_by_partition_are_read_back(offsets):
    text = ", ".join(f"{partition}:{offset}" for partition, offset in offsets.items())
    assert offsets_of(text) == offsets


def test_one_offset_is_for_every_partition():
    assert offsets_of("17") == {None: 17}


@pytest.mark.parametrize("text", ["", "x", "-1", "0:", ":5", "0:1,5", "5,6", "0:1,0:2", "0:1;1:2"])
def test_what_is_no_offset_is_refused(text):
    with pytest.raises(ValueError, match="wanted one offset, or partition:offset pairs"):
        offsets_of(text)
