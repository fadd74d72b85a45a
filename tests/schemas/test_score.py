"""The score record on the wire."""

from __future__ import annotations

import json

import msgspec
import pytest

from schemas.score import decode_score, encode_score, truncate_score
from tests.schemas.golden_records import ANOMALOUS, NORMAL, OF_A_GROUP, POOLED, UNSCORABLE


@pytest.mark.parametrize("score", [NORMAL, ANOMALOUS, UNSCORABLE], ids=lambda score: score.verdict)
def test_a_score_record_comes_back_as_it_was(score):
    assert decode_score(encode_score(score)) == score


def test_only_a_model_with_groups_says_which_calibration_judged():
    assert json.loads(encode_score(OF_A_GROUP))["calibration_group"] == "café"
    assert json.loads(encode_score(POOLED))["calibration_group"] is None
    assert "calibration_group" not in json.loads(encode_score(NORMAL))
    for score in (OF_A_GROUP, POOLED):
        assert decode_score(truncate_score(encode_score(score))) == msgspec.structs.replace(
            score, truncated=True
        )


def test_an_unscorable_event_says_null_and_why():
    record = json.loads(encode_score(UNSCORABLE))
    assert record["score"] is None
    assert record["p_value"] is None
    assert record["reason"] == "all_missing"


def test_a_normal_event_carries_nothing_that_it_does_not_need():
    assert not {"reason", "truncated", "top_features"} & json.loads(encode_score(NORMAL)).keys()


def test_the_smaller_form_says_that_it_is_and_keeps_the_verdict():
    whole, smaller = encode_score(ANOMALOUS), truncate_score(encode_score(ANOMALOUS))
    assert len(smaller) < len(whole)
    assert decode_score(smaller) == msgspec.structs.replace(
        ANOMALOUS, top_features=[], truncated=True
    )
    assert truncate_score(smaller) == smaller


def test_a_verdict_outside_the_three_is_not_read():
    record = encode_score(NORMAL).replace(b'"normal"', b'"fine"')
    with pytest.raises(msgspec.ValidationError, match="fine"):
        decode_score(record)


def test_a_later_reader_may_add_fields():
    record = {**json.loads(encode_score(NORMAL)), "added_later": 1}
    assert decode_score(json.dumps(record).encode()) == NORMAL
