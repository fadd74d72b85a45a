"""Calibration by group: who has a threshold of their own, and that each keeps the promised rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.contract import Contract
from schemas.datafiles import Table
from schemas.datafiles.groups import RowGroups
from schemas.errors import DataError, SettingsError
from schemas.event import EventLayout
from schemas.groups import GROUPS_MAX
from tests.schemas.golden_records import GROUPED
from trainer.calibrate import CALIBRATE_SHARE_MAX, CalibrationPlan, GroupPlan, events_needed
from trainer.data import split
from trainer.group_rates import GroupRate, furthest_off_first, rates_by_group
from trainer.groups import (
    GroupPlace,
    calibrate_by_group,
    calibrating_first,
    plan_by_group,
    planned,
)

PLACE = GroupPlace("site", "event", ("site",))


def rows_of(*counts: int, without: int = 0) -> RowGroups:
    """Groups g000, g001, ... of so many rows, and rows that name none, shuffled."""
    codes = np.repeat(np.arange(len(counts) + 1), [*counts, without])
    codes[codes == len(counts)] = -1
    codes = np.random.default_rng(0).permutation(codes).astype(np.int32)
    return RowGroups(codes, tuple(f"g{place:03}" for place in range(len(counts))))


COUNTS = st.lists(st.integers(0, 3_000), min_size=1, max_size=8)


@given(COUNTS, st.integers(0, 500), st.sampled_from([0.001, 0.01, 0.05, 0.2]))
def test_a_group_has_its_own_threshold_if_its_rows_support_the_rate(counts, without, rate):
    groups = rows_of(*counts, without=without)
    able = [n for n in counts if events_needed(rate) <= math.floor(n * CALIBRATE_SHARE_MAX)]
    if not able:
        with pytest.raises(SettingsError, match="no group supports --target-flag-rate"):
            plan_by_group(groups, "site", rate)
        return
    plan = plan_by_group(groups, "site", rate)
    assert plan.groups is not None
    *own, others = zip(plan.groups.rows, plan.groups.events, strict=True)
    assert [rows for rows, _ in own] == able
    assert plan.groups.shared == sum(n > 0 for n in counts) - len(able)
    assert others[0] == sum(counts) + without - sum(able)
    for rows, events in own:
        # Near the target, and not above it: all of the rate is made use of.
        flagged = math.floor(rate * (events + 1) * (1 + 1e-9))
        assert 0.99 * rate < flagged / (events + 1) <= rate * (1 + 1e-9)
        assert events <= rows * CALIBRATE_SHARE_MAX
    assert plan.events == sum(plan.groups.events)


@given(COUNTS, st.integers(0, 300), st.integers(0, 9))
def test_as_many_rows_of_each_group_calibrate_as_are_planned_and_none_twice(counts, without, seed):
    groups = rows_of(2_000, *counts, without=without)
    plan = plan_by_group(groups, "site", 0.05)
    assert plan.groups is not None
    codes = groups.recoded(plan.groups.texts)
    parts = split(len(codes), 2, plan, seed, combines=True, groups=codes)
    seen = np.bincount(codes[parts.calibrate], minlength=len(plan.groups.events))
    assert seen.tolist() == [*plan.groups.events]
    everything = np.concatenate([parts.calibrate, parts.stop, parts.combine, parts.fit])
    assert sorted(everything.tolist()) == [*range(len(codes))]


def test_which_rows_of_a_group_calibrate_is_chance():
    plan = plan_by_group(rows_of(100, 100), "site", 0.05)
    codes = np.repeat([0, 1], 100)
    rng = np.random.default_rng(1)
    picked = np.zeros(200)
    for _ in range(2_000):
        order = calibrating_first(rng.permutation(200), codes, plan.groups)
        picked[order[: plan.events]] += 1
    share = plan.events / 200
    assert np.abs(picked / 2_000 - share).max() < 5 * math.sqrt(share * (1 - share) / 2_000)


def contract_of(pooled, threshold, groups) -> Contract:
    return replace(GROUPED, calibration=pooled, threshold=threshold, groups=groups)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(100, 900), min_size=2, max_size=4),
    st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    st.sampled_from([0.02, 0.05, 0.1]),
    st.integers(0, 2**32),
)
def test_the_mean_rate_of_every_group_is_the_target_or_just_below(counts, scales, rate, seed):
    """Scores are uniform, as wide as the group's scale: a threshold's true rate is known."""
    groups = rows_of(1_500, *counts)
    plan = plan_by_group(groups, "site", rate)
    codes = groups.recoded(plan.groups.texts)
    rng, draws = np.random.default_rng(seed), 300
    rows = np.array(plan.groups.events)
    of = np.repeat(np.arange(len(rows)), rows)
    scale = np.resize(scales, len(rows))
    realised = np.empty((draws, len(rows) - 1))
    for draw in range(draws):
        scores = (rng.random(len(of)) * scale[of]).astype(np.float32)
        found = calibrate_by_group(scores, of, plan, PLACE)[2]
        assert found.texts == plan.groups.texts
        realised[draw] = [1 - m.threshold / s for m, s in zip(found.members, scale, strict=False)]
    assert len(codes) == 1_500 + sum(counts)
    n = rows[:-1]
    k = np.floor(rate * (n + 1) * (1 + 1e-9))
    mean = k / (n + 1)  # Of Beta(k, n + 1 - k).
    assert (mean <= rate * (1 + 1e-9)).all()
    assert (mean > 0.98 * rate).all()
    error = np.sqrt(mean * (1 - mean) / (n + 2) / draws)
    assert (np.abs(realised.mean(axis=0) - mean) < 5 * error).all()


@pytest.mark.parametrize(("rate", "rows", "draws"), [(0.05, 3_000, 400), (0.02, 5_000, 300)])
def test_the_pooled_rate_holds_among_all_groups_that_are_not_listed(rate, rows, draws):
    """Who is pooled depends on how many rows each group happens to have: it costs nothing to see.

    Sixty groups, their shares as by Zipf's law, scores uniform and of different widths.
    """
    rng, many = np.random.default_rng(3), 60
    share = 1 / np.arange(1, many + 1)
    share /= share.sum()
    scale = rng.uniform(0.5, 4, many)
    realised = []
    for _ in range(draws):
        of = rng.choice(many, rows, p=share)
        groups = RowGroups(of.astype(np.int32), tuple(f"{place:02}" for place in range(many)))
        plan = plan_by_group(groups, "site", rate)
        codes = groups.recoded(plan.groups.texts)
        picked = calibrating_first(rng.permutation(rows), codes, plan.groups)[: plan.events]
        scores = (rng.random(rows) * scale[of]).astype(np.float32)[picked]
        _, threshold, found = calibrate_by_group(scores, codes[picked], plan, PLACE)
        assert found.pooled == "others"
        rest = np.setdiff1d(np.arange(many), [int(text) for text in found.texts])
        rates = np.clip(1 - threshold.value / scale[rest], 0, 1)
        realised.append(float(np.average(rates, weights=share[rest])))
    error = np.std(realised) / math.sqrt(draws)
    assert np.mean(realised) < rate + 3 * error
    assert np.mean(realised) > 0.9 * rate


def plan_of(*events: int, rate: float = 0.1) -> CalibrationPlan:
    """A plan of groups a, b, ... and, last, of all others."""
    texts = tuple("abcdef"[: len(events) - 1])
    groups = GroupPlan(texts, events, events, shared=1)
    return CalibrationPlan(rate, rate, sum(events), groups=groups)


def test_too_few_others_are_judged_by_all_and_the_file_says_so():
    of = np.repeat([0, 1, 2], [9, 19, 8])
    scores = np.arange(36, dtype=np.float32)
    pooled, threshold, groups = calibrate_by_group(scores, of, plan_of(9, 19, 8), PLACE)
    assert groups.pooled == "all"
    assert [member.calibration.n for member in groups.members] == [9, 19]
    assert (pooled.n, threshold.value) == (36, 33)
    contract_of(pooled, threshold, groups).check()
    more = np.repeat([0, 1, 2], [9, 19, 9])
    pooled, _, groups = calibrate_by_group(np.arange(37.0), more, plan_of(9, 19, 9), PLACE)
    assert (groups.pooled, pooled.n, pooled.scores[0]) == ("others", 9, 28)


def test_a_group_without_enough_scores_joins_the_pooled_ones():
    of = np.repeat([0, 1, 2], [9, 9, 9])
    scores = np.arange(27, dtype=np.float32)
    scores[3] = np.nan
    pooled, _, groups = calibrate_by_group(scores, of, plan_of(9, 9, 9), PLACE)
    assert groups.texts == ("b",)
    assert pooled.n == 8 + 9
    scores[9:18] = np.nan
    with pytest.raises(DataError, match="no group of 'site' has 9 calibration events with a score"):
        calibrate_by_group(scores, of, plan_of(9, 9, 9), PLACE)


def test_without_a_rate_asked_for_half_of_the_rows_must_have_it_from_their_own_group():
    assert plan_by_group(rows_of(2_600, 2_000), "site", None).target_flag_rate == 0.001
    plan = plan_by_group(rows_of(2_600, *[300] * 20), "site", None)
    assert plan.target_flag_rate == 0.01
    assert plan.requested is None
    assert len(plan.groups.texts) == 21
    # Asked for, it is met or refused: by one group, if that is all.
    plan = plan_by_group(rows_of(2_600, *[300] * 20), "site", 0.001)
    assert plan.groups.texts == ("g000",)
    with pytest.raises(DataError, match="in groups with half of all rows"):
        plan_by_group(rows_of(*[40] * 50, without=10), "site", None)


def test_a_rate_that_no_group_supports_is_refused_with_what_there_is():
    with pytest.raises(SettingsError) as caught:
        plan_by_group(rows_of(500, 100, 0, without=20), "site", 0.001)
    assert str(caught.value) == (
        "--group-by site: no group supports --target-flag-rate 0.001: 2 group(s) in 620 usable "
        "rows, 20 of them without one; the largest has 500 rows, and a flag rate of 0.001 takes "
        "2,498 in a group. Nothing was trained; name a coarser group, bring more events, or ask "
        "for 0.005 or more"
    )
    with pytest.raises(SettingsError, match=r"0 group\(s\) in 30 usable rows, 30 of them without"):
        plan_by_group(rows_of(without=30), "site", 0.05)


def test_of_more_groups_than_there_may_be_those_with_most_rows_are_listed():
    plan = plan_by_group(rows_of(*[60] * GROUPS_MAX, 61, 59), "site", 0.05)
    assert len(plan.groups.texts) == GROUPS_MAX
    assert f"g{GROUPS_MAX}" in plan.groups.texts
    assert f"g{GROUPS_MAX + 1}" not in plan.groups.texts
    assert plan.groups.shared == 2


def test_groups_and_a_tail_do_not_go_together():
    table = Table(("x",), (("x",),), np.zeros((10, 1), np.float32), groups=rows_of(10))
    with pytest.raises(SettingsError, match="--extrapolate does not go with --group-by"):
        planned(table, PLACE, 1e-5, extrapolate=True)


def test_a_place_where_something_else_stands_is_refused():
    table = Table(("x",), (("x",),), np.zeros((1, 1), np.float32))
    for path in (("event_id",), ("timestamp",), ("features",), ("features", "x")):
        with pytest.raises(SettingsError, match="where an event has something else"):
            GroupPlace("site", "event", path).check(EventLayout(), table)
    PLACE.check(EventLayout(), table)
    GroupPlace("site", "key").check(EventLayout(), table)


def test_a_rate_beyond_chance_comes_before_small_groups_that_are_further_off():
    tiny = GroupRate("tiny", 1.0, normal_events=3, flagged=2, low=0, high=3)
    large = GroupRate("large", 1.0, normal_events=10_000, flagged=900, low=400, high=600)
    good = GroupRate("good", 1.0, normal_events=10_000, flagged=510, low=400, high=600)
    assert furthest_off_first([good, tiny, large], 0.05) == [large, tiny, good]


def test_rates_by_group_say_what_chance_explains():
    of = np.repeat([0, 1, 2], [99, 99, 99])
    rng = np.random.default_rng(0)
    scores = (rng.random(297) * np.array([1, 10, 100])[of]).astype(np.float32)
    contract = contract_of(*calibrate_by_group(scores, of, plan_of(99, 99, 99, rate=0.25), PLACE))
    fresh = np.repeat([0, 1, 2], [1_000, 1_000, 10])
    drifted = (rng.random(2_010) * np.array([1, 40, 100])[fresh]).astype(np.float32)
    first, second, rest = rates_by_group(contract, drifted, fresh)
    assert (first.group, second.group, rest.group) == ("a", "b", None)
    assert first.inside
    assert not second.inside
    assert second.flagged > 500
    assert rest.inside
    assert (first.normal_events, rest.normal_events) == (1_000, 10)
    assert [r.group for r in rates_by_group(contract, drifted[:5], fresh[:5])] == ["a"]
    unpromised = replace(contract, groups=replace(contract.groups, pooled="all"))
    assert rates_by_group(unpromised, drifted, fresh)[-1].low is None
