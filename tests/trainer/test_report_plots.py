"""What the report's plots are drawn from, and its measurement of cost."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.calibration import Calibration
from tests.trainer.pages import a_model
from trainer.metrics import share_above
from trainer.report import measure_cost
from trainer.report_page import score_plots
from trainer.report_page.alarm_plots import flag_rates, p_value_bins
from trainer.report_page.drawing import log_ticks

scores = st.lists(st.integers(0, 30), min_size=1, max_size=40).map(
    lambda some: np.array(some, np.float32)
)


@given(scores, scores)
def test_every_normal_event_is_in_one_range_of_p_values(calibration, normal):
    held = Calibration.of(calibration)
    bins = p_value_bins(held, normal)

    assert sum(one.events for one in bins) == len(normal)
    assert (bins[0].start, bins[-1].end) == (0, 1)
    assert all(one.end == after.start for one, after in pairwise(bins))
    p_values = held.p_values(normal)
    for one in bins:
        inside = (p_values > one.start + 1e-9) & (p_values <= one.end + 1e-9)
        assert one.events == inside.sum()


@given(scores, scores, st.floats(0.001, 0.999))
def test_an_observed_flag_rate_is_the_one_that_the_threshold_gives(calibration, normal, rate):
    held = Calibration.of(calibration)
    if rate < held.smallest_rate:
        return
    (seen,) = flag_rates(held, normal, [rate])

    assert seen.observed == share_above(normal, held.threshold(rate))
    assert 0 <= seen.low <= seen.high <= 1


@given(st.floats(1e-12, 1e12), st.floats(1.001, 1e18))
@settings(max_examples=300)
def test_a_logarithmic_axis_has_a_few_marks_all_of_them_on_it(low, ratio):
    ticks = log_ticks(low, low * ratio)

    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert low * (1 - 1e-6) <= ticks[0] <= ticks[-1] <= low * ratio * (1 + 1e-6)


def test_kinds_with_the_same_scores_have_the_same_area_and_stand_on_the_same_ground():
    values = np.random.default_rng(0).exponential(size=500).astype(np.float32)
    calibration = score_plots.calibration_series(Calibration.of(values))
    svg = score_plots.distribution([calibration, score_plots.anomaly_series(values)], 2.0).svg

    areas = re.findall(r'fill="var\(--\w+\)" fill-opacity="[^"]+" d="([^"]+)"', svg)
    areas += re.findall(r'd="([^"]+)" fill="var\(--\w+\)" fill-opacity', svg)
    assert len(areas) == 2
    assert areas[0] == areas[1]


def test_the_cost_is_measured_in_cpu_time_of_whole_batches(tmp_path):
    cost = measure_cost(a_model(tmp_path))

    assert 0 < cost.lowest <= cost.median <= cost.highest
    assert 5 <= cost.batches <= 200
    assert cost.processor
