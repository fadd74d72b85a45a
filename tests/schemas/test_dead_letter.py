"""A dead letter's headers: round trip, stubs, and the closed list of reasons."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import dead_letter as module
from schemas.dead_letter import (
    DeadLetter,
    Reason,
    attempts_before,
    attempts_header,
    without_ours,
)
from tests.schemas.golden_records import LETTER

WORDS = st.text(st.characters(codec="utf-8"), max_size=30)
LETTERS = st.builds(
    DeadLetter,
    schema_version=st.just(1),
    reason=st.sampled_from(Reason),
    detail=WORDS,
    source_topic=WORDS,
    source_partition=st.integers(0, 10_000),
    source_offset=st.integers(0, 2**63 - 1),
    model_name=WORDS,
    model_version=WORDS,
    model_digest=WORDS,
    original_bytes=st.none() | st.integers(0, 2**40),
    original_sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    source_timestamp=st.none() | st.integers(0, 2**50),
    attempts=st.integers(1, 10**6),
)
OTHERS = st.lists(
    st.tuples(st.sampled_from(["trace", "odradek", "x.odradek."]), st.none() | st.binary()),
    max_size=3,
)


@given(LETTERS, OTHERS)
def test_a_dead_letter_comes_back_whatever_stands_beside_it(letter, others):
    assert DeadLetter.from_headers([*others, *letter.to_headers(), *others]) == letter


@given(LETTERS, OTHERS)
def test_our_headers_are_told_from_the_records_own(letter, others):
    assert without_ours([*letter.to_headers(), *others]) == others
    assert without_ours(None) == []


def test_a_stub_says_what_the_value_was():
    value = b"\xff" * 70_000
    stub = LETTER.as_stub(value)
    assert stub.original_bytes == 70_000
    assert stub.original_sha256 == hashlib.sha256(value).hexdigest()
    assert msgspec.structs.replace(stub, original_bytes=None, original_sha256=None) == LETTER


def test_what_is_as_by_default_has_no_header():
    names = [name for name, _ in LETTER.to_headers()]
    absent = {"original_bytes", "original_sha256", "source_timestamp", "attempts"}
    assert names == [
        "odradek." + field for field in DeadLetter.__struct_fields__ if field not in absent
    ]
    assert DeadLetter.from_headers(LETTER.to_headers()).attempts == 1


def test_a_letter_that_is_there_again_says_how_often_it_failed():
    again = msgspec.structs.replace(LETTER, attempts=2)
    assert ("odradek.attempts", b"2") in again.to_headers()
    assert attempts_before(again.to_headers()) == 2


@given(st.integers(0, 999_999_999), OTHERS)
def test_a_count_of_attempts_comes_back(attempts, others):
    assert attempts_before([*others, attempts_header(attempts), *others]) == attempts


@pytest.mark.parametrize(
    "rubbish",
    [None, b"", b"-1", b"1.5", b"two", b"\xff", b" 1", b"1\n", b"9" * 30, "\u0663".encode()],
)
def test_rubbish_in_the_count_of_attempts_is_ignored(rubbish):
    assert attempts_before([("odradek.attempts", rubbish)]) == 0
    assert attempts_before(None) == attempts_before([]) == 0


@pytest.mark.parametrize("lost", ["reason", "source_offset"])
def test_a_letter_without_a_header_of_ours_is_not_read(lost):
    headers = [header for header in LETTER.to_headers() if header[0] != f"odradek.{lost}"]
    with pytest.raises(msgspec.ValidationError, match=lost):
        DeadLetter.from_headers(headers)


def test_a_reason_outside_the_list_is_not_read():
    headers = [h for h in LETTER.to_headers() if h[0] != "odradek.reason"]
    with pytest.raises(msgspec.ValidationError, match="reason"):
        DeadLetter.from_headers([*headers, ("odradek.reason", b"because")])


def test_a_header_of_ours_that_is_not_utf8_is_not_read():
    headers = [h for h in LETTER.to_headers() if h[0] != "odradek.detail"]
    with pytest.raises(msgspec.ValidationError, match="not UTF-8"):
        DeadLetter.from_headers([*headers, ("odradek.detail", b"\xff")])


def test_reasons_are_labels_that_a_metric_takes_and_each_has_its_sentence():
    source = Path(module.__file__).read_text()
    for reason in Reason:
        assert re.fullmatch("[a-z0-9_]+", reason)
        assert re.search(rf'{reason.name} = "{reason}"  # [A-Za-z].*\.', source)
