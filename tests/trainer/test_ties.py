"""Training data that is mostly repeats: scores tie, the threshold still means what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.calibration import Calibration
from schemas.contract import Threshold
from tests.trainer.conftest import QUICK, normal_rows, write_csv
from trainer.__main__ import main
from trainer.narrate import tied
from trainer.runtime import open_sealed, run


def threshold_of(calibration, rate):
    return Threshold(
        value=calibration.threshold(rate), target_flag_rate=rate, requested_flag_rate=rate
    )


def test_ties_at_the_threshold_are_told_with_the_rate_that_is_left():
    calibration = Calibration.of([1.0] * 900 + [*range(2, 101)])

    assert tied(calibration, threshold_of(calibration, 0.05)) is None
    told = tied(calibration, threshold_of(calibration, 0.5))

    assert "900 of 999 calibration events have one and the same score" in told
    assert "about 10.00% of normal events will be, instead of 50.00%" in told


@given(st.lists(st.integers(0, 6), min_size=20, max_size=60), st.floats(0.05, 0.9))
def test_ties_are_told_exactly_when_they_take_a_tenth_from_the_flag_rate(scores, rate):
    calibration = Calibration.of(scores)
    threshold = threshold_of(calibration, rate)

    flagged = sum(score > threshold.value for score in scores)
    without_ties = calibration.flagged_max(rate) - 1

    assert flagged / len(scores) <= rate
    at_the_top = without_ties == 0 and scores.count(max(scores)) > 1
    assert (tied(calibration, threshold) is not None) == (
        at_the_top or 10 * (flagged + 1) < 9 * (without_ties + 1)
    )


def test_ties_at_the_highest_score_are_told_where_it_is_the_threshold():
    calibration = Calibration.of([*range(190), *[500.0] * 9])

    told = tied(calibration, threshold_of(calibration, 0.005))

    assert "9 of 199 calibration events share the highest score" in told
    assert tied(Calibration.of([*range(199)]), threshold_of(calibration, 0.005)) is None


def test_scores_that_differ_have_no_ties_to_tell():
    calibration = Calibration.of(np.random.default_rng(0).normal(size=500))
    assert [tied(calibration, threshold_of(calibration, r)) for r in (0.01, 0.1, 0.5)] == [None] * 3


def test_mostly_repeated_rows_train_a_model_whose_threshold_holds_and_say_so(tmp_path, capsys):
    rows = np.nan_to_num(normal_rows(600))
    rows[np.arange(600) % 10 > 0] = rows[0]
    path, out = write_csv(tmp_path / "a.csv", rows), tmp_path / "m.onnx"

    assert main(["fit", str(path), "--out", str(out), "--target-flag-rate", "0.3", *QUICK]) == 0

    model = open_sealed(out)
    threshold = model.contract.threshold.value
    scores = run(model.session, rows).score
    p_values = model.contract.calibration.p_values(scores)
    assert ((scores > np.float32(threshold)) == (p_values <= 0.3)).all()
    assert 0.05 < (scores > np.float32(threshold)).mean() < 0.15
    said = capsys.readouterr().err
    assert "warning: 540 of the 600 events repeat another, value for value." in said
    assert "calibration events have one and the same score" in said


@pytest.mark.parametrize("rate", [0.3, 0.01])
def test_one_score_for_all_flags_nothing(rate):
    calibration = Calibration.of([1.0] * 200)
    assert calibration.p_values([1.0]).tolist() == [1.0]
    assert "instead of" in (tied(calibration, threshold_of(calibration, rate)) or "")
