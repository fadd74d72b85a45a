"""From scores to records: verdicts, explanations, and one output for every record."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letter import DETAIL_CHARS_MAX, DeadLetter, Reason
from schemas.score import Score, UnscorableReason, decode_score
from tests.builders import Recipe, a_model, an_event, an_extrapolation, records
from tests.schemas.bad_events import BAD_EVENTS
from worker.model import Model, Scored
from worker.results import judge, to_results
from worker.turn import Outputs, Records

MODEL = a_model()
REFUSING = a_model(Recipe(refuse_missing=frozenset({"x1"})))
THRESHOLD = np.float32(MODEL.contract.threshold.value)


def outputs_of(taken: Records, model: Model = MODEL, top_features_max: int = 5) -> Outputs:
    batch = model.decoder.decode(taken)
    return to_results(taken, batch, model.score(batch.features), model, top_features_max)


def scores_of(taken: Records, model: Model = MODEL, top_features_max: int = 5) -> list[Score]:
    values = outputs_of(taken, model, top_features_max).scores.values
    return [decode_score(value or b"") for value in values]


def score_of(*features: float | None, model: Model = MODEL, top_features_max: int = 5) -> Score:
    return scores_of(records([an_event(*features)]), model, top_features_max)[0]


@given(st.lists(st.floats(width=32), max_size=30))
def test_verdict_and_p_value_agree_and_what_is_not_finite_is_never_normal(scores):
    scores = np.array([*scores, THRESHOLD, np.nextafter(THRESHOLD, np.float32(np.inf))], np.float32)
    judged = judge(scores, MODEL.contract)
    verdicts = judged.verdicts
    assert judged.flagged == [n for n, verdict in enumerate(verdicts) if verdict == "anomalous"]
    assert judged.unscorable == [n for n, verdict in enumerate(verdicts) if verdict == "unscorable"]
    for score, p_value, verdict in zip(scores, judged.p_values, verdicts, strict=True):
        if not np.isfinite(score):
            assert verdict == "unscorable"
            assert np.isnan(p_value)
        else:
            assert (verdict == "anomalous") == (score > THRESHOLD) == (p_value <= 0.1)
            assert verdict in ("normal", "anomalous")


EXTRAPOLATING = a_model(**an_extrapolation(Recipe()))
LARGEST = np.finfo(np.float32).max


@given(st.lists(st.floats(width=32), max_size=30), st.integers(0, 19))
def test_they_agree_as_well_where_a_tail_extrapolates(scores, step):
    contract = EXTRAPOLATING.contract
    threshold = np.float32(contract.threshold.value)
    near = [threshold, np.nextafter(threshold, LARGEST), np.nextafter(threshold, -LARGEST)]
    known = contract.calibration.tail.steps[0][step]
    scores = np.array([*scores, *near, known, np.nextafter(known, LARGEST), LARGEST], np.float32)
    judged = judge(scores, contract)
    for score, p_value, verdict in zip(scores, judged.p_values, judged.verdicts, strict=True):
        if np.isfinite(score):
            assert (verdict == "anomalous") == (score > threshold) == (p_value <= 1e-4)
            assert p_value >= contract.calibration.reach


def test_a_p_value_below_those_of_the_calibration_comes_from_a_tail_alone():
    far = score_of(50, 50, 50, model=EXTRAPOLATING)
    near = score_of(2, 2, 2, model=EXTRAPOLATING)
    assert (far.verdict, far.p_value) == ("anomalous", 0.25 * 0.5**19)
    assert (near.verdict, score_of(2, 2, 2).verdict) == ("normal", "anomalous")
    assert score_of(50, 50, 50).p_value == 1 / 200


def test_a_normal_event_is_said_to_be():
    score = score_of(0.1, 0.1, 0.1)
    assert score.verdict == "normal"
    assert score.score == pytest.approx(0.01)
    assert score.p_value > 0.1
    assert score.threshold == MODEL.contract.threshold.value
    assert score.model == MODEL.reference
    assert score.reason is None
    assert score.top_features == []


def test_an_anomalous_event_says_what_gave_it_away():
    score = score_of(1.0, -10.0, 2.0)
    assert score.verdict == "anomalous"
    assert score.p_value == 1 / 200
    assert [top.name for top in score.top_features] == ["x1", "x2", "x0"]
    assert [top.value for top in score.top_features] == [-10.0, 2.0, 1.0]
    assert [top.expected for top in score.top_features] == [0.0, 0.0, 0.0]
    assert [top.share for top in score.top_features] == pytest.approx(
        [100 / 105, 4 / 105, 1 / 105], abs=1e-6
    )


def test_no_more_features_than_asked_for_explain_an_event():
    assert [top.name for top in score_of(1, -10, 2, top_features_max=1).top_features] == ["x1"]
    assert score_of(1, -10, 2, top_features_max=0).top_features == []


def test_a_missing_feature_explains_nothing():
    score = score_of(None, -10, 0)
    assert [(top.name, top.share) for top in score.top_features] == [("x1", 1.0)]


def test_an_event_that_misses_everything_is_unscorable():
    score = score_of(None, None, None)
    assert (score.verdict, score.score, score.p_value) == ("unscorable", None, None)
    assert score.reason == UnscorableReason.ALL_MISSING


def test_an_event_that_misses_what_must_be_there_is_unscorable():
    score = score_of(1, None, 1, model=REFUSING)
    assert (score.verdict, score.score) == ("unscorable", None)
    assert score.reason == UnscorableReason.MISSING_REFUSED
    assert score_of(None, 1, 1, model=REFUSING).verdict == "normal"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_whose_output_is_not_finite_makes_an_event_unscorable(bad):
    taken = records([an_event(1, 2, 3)])
    batch = MODEL.decoder.decode(taken)
    part = np.full((1, 3), bad, np.float32)
    outputs = to_results(taken, batch, Scored(np.array([bad], np.float32), part, part), MODEL, 5)
    score = decode_score(outputs.scores.values[0] or b"")
    assert (score.verdict, score.score, score.p_value) == ("unscorable", None, None)
    assert score.reason == UnscorableReason.NOT_FINITE
    assert outputs.tally.outcomes["unscorable"] == 1
    assert len(outputs.tally.p_values) == 0


def test_each_record_says_where_its_event_was_read():
    taken = Records(
        "pulses",
        [2, 0, 2],
        [7, 9, 8],
        [1, 2, 3],
        [b"a", None, b"c"],
        [an_event(1, 1, 1, event_id=None, timestamp=None), b"rubbish", an_event(1, 1, 1)],
        [None, None, None],
    )
    first, third = scores_of(taken)
    assert (first.event_id, first.timestamp) == ("pulses-2-7", 1)
    assert (third.event_id, third.timestamp) == ("e", 1000)
    assert (first.source.topic, first.source.partition, first.source.offset) == ("pulses", 2, 7)
    outputs = outputs_of(taken)
    assert outputs.scores.keys == [b"a", b"c"]
    assert outputs.dead_letters.keys == [None]
    letter = DeadLetter.from_headers(outputs.dead_letters.headers[0])
    assert (letter.source_topic, letter.source_partition, letter.source_offset) == ("pulses", 0, 9)
    assert letter.model_digest == MODEL.digest


def test_headers_are_carried_to_where_the_event_goes():
    taken = records([an_event(1, 1, 1), an_event(1, 1, 1), b"rubbish"])
    # The content type is the event's, and a score record has another.
    taken.headers[0] = [("content-type", b"application/json"), ("trace", b"1")]
    taken.headers[2] = [("trace", b"2"), ("odradek.reason", b"of an earlier dead letter")]
    outputs = outputs_of(taken)
    assert outputs.scores.headers == [[("trace", b"1")], []]
    headers = outputs.dead_letters.headers[0]
    assert headers[0] == ("trace", b"2")
    assert [value for name, value in headers if name == "odradek.reason"] == [b"not_json"]


@pytest.mark.parametrize(
    ("given", "attempts"), [(None, 1), (b"1", 2), (b"41", 42), (b"rubbish", 1), (b"0", 1)]
)
def test_a_record_that_was_sent_again_and_fails_again_counts_its_attempts(given, attempts):
    taken = records([b"rubbish", an_event(1, 1, 1)])
    for row in range(2):
        taken.headers[row] = [("trace", b"1"), ("odradek.attempts", given)]
    outputs = outputs_of(taken)
    letter = DeadLetter.from_headers(outputs.dead_letters.headers[0])
    assert letter.attempts == attempts
    assert letter.source_timestamp == 5000
    assert outputs.scores.headers == [[("trace", b"1")]]


def test_without_headers_the_scores_take_the_quick_road():
    assert outputs_of(records([an_event(1, 1, 1)])).scores.headers == []


def test_a_dead_letter_keeps_the_bytes_and_a_bounded_detail():
    name = "n" * 2000
    model = a_model(Recipe(features=1))
    value = b'{"features":{"x0":"' + name.encode() + b'"}}'
    letters = outputs_of(records([value]), model).dead_letters
    assert letters.values == [value]
    letter = DeadLetter.from_headers(letters.headers[0])
    assert letter.reason == Reason.TEXT
    assert len(letter.detail) <= DETAIL_CHARS_MAX


EVENTS = st.one_of(
    st.lists(st.floats(-5, 5, width=32) | st.none(), min_size=3, max_size=3).map(
        lambda features: an_event(*features)
    ),
    st.sampled_from([value for value, _, _ in BAD_EVENTS.values()][:20]),
)


@settings(max_examples=100)
@given(st.lists(EVENTS, max_size=30))
def test_every_record_has_exactly_one_output(values):
    taken = records(values)
    outputs = outputs_of(taken)
    scores = [decode_score(value or b"") for value in outputs.scores.values]
    letters = [DeadLetter.from_headers(headers) for headers in outputs.dead_letters.headers]
    places = [score.source.offset for score in scores]
    places += [letter.source_offset for letter in letters]
    assert sorted(places) == [*range(len(values))]
    assert len(outputs.scores) == len(outputs.scores.keys) == len(scores)
    tally = outputs.tally
    assert tally.outcomes == {
        **Counter(score.verdict for score in scores),
        "dead_letter": len(letters),
    }
    assert tally.reasons == Counter(letter.reason for letter in letters)
    assert len(tally.p_values) == sum(score.verdict != "unscorable" for score in scores)
    assert tally.timestamps_ms == [score.timestamp for score in scores]


def test_an_empty_turn_has_no_outputs():
    outputs = outputs_of(records([]))
    assert len(outputs.scores) == len(outputs.dead_letters) == 0
