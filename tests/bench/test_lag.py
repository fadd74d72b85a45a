"""The simulation of a group that falls behind, against what can be said without one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lag import Bursts, Group, Scaler, simulate

TICK_S = 0.1
RATE = 1000.0
TURN = 70  # Which does not divide what a worker does in a tick.


def steady(load: float, seconds: float) -> np.ndarray:
    return np.full(round(seconds / TICK_S), load)


def a_group(partitions: int = 6, workers: int = 3, **changes) -> Group:
    return Group(partitions, workers, RATE, turn_records=TURN, **changes)


def growth_per_s(group: Group, load: float) -> float:
    """How fast lag grows once it does."""
    lag = simulate(group, steady(load, 200), TICK_S).lag
    return (lag[-1] - lag[len(lag) // 2]) / (len(lag) / 2 * TICK_S)


@pytest.mark.parametrize("use", [0.1, 0.5, 0.9, 0.99])
def test_below_what_the_workers_can_do_a_steady_load_waits_for_a_turn_at_most(use):
    history = simulate(a_group(), steady(use * 3 * RATE, 300), TICK_S)
    assert history.age_s.max() <= TURN / RATE + TICK_S


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_above_it_lag_grows_by_the_difference(workers):
    over = 250.0
    grown = growth_per_s(a_group(workers=workers), workers * RATE + over)
    assert grown == pytest.approx(over, rel=0.01)


@pytest.mark.parametrize(("workers", "load"), [(3, 1000.0), (3, 2500.0), (6, 4000.0)])
def test_a_burst_drains_in_its_size_by_what_the_workers_have_to_spare(workers, load):
    burst = 30_000.0
    rates = steady(load, 300)
    rates[0] += burst / TICK_S
    lag = simulate(a_group(workers=workers), rates, TICK_S).lag
    drained_s = np.flatnonzero(lag > load * TICK_S)[-1] * TICK_S
    to_spare = workers * RATE - load
    last_turns_s = workers * TURN / to_spare
    assert drained_s == pytest.approx(burst / to_spare, abs=2 * TICK_S + last_turns_s)


def test_the_age_of_what_waits_is_how_long_ago_it_came():
    """After a burst at the start, the last of it is read when all of it is done."""
    rates = steady(0, 100)
    rates[0] = 30_000 / TICK_S
    history = simulate(a_group(), rates, TICK_S)
    assert history.age_s.max() == pytest.approx(10, abs=2 * TICK_S)
    assert history.late_s == pytest.approx(9, abs=3 * TICK_S)


def test_more_workers_than_partitions_add_nothing():
    rates = Bursts(5000, factor=2, burst_s=5, pause_s=20).rates(3000, TICK_S, seed=1)
    six, many = (simulate(a_group(workers=workers), rates, TICK_S) for workers in (6, 9))
    assert six.lag.max() > 0
    assert np.array_equal(six.lag, many.lag)


def test_workers_that_do_not_divide_the_partitions_are_as_good_as_their_busiest():
    """Of 6 partitions 4 workers have 2, 2, 1 and 1: two of them can do a third of the load each."""
    load = 3.3 * RATE
    assert growth_per_s(a_group(workers=4), load) == pytest.approx(2 * (load / 3 - RATE), rel=0.02)
    assert growth_per_s(a_group(workers=6), load) == pytest.approx(0, abs=1)


def test_a_hot_partition_is_bounded_by_one_worker_however_many_there_are():
    hot = a_group(workers=6, shares=(0.5, 0.1, 0.1, 0.1, 0.1, 0.1))
    assert growth_per_s(hot, 2.4 * RATE) == pytest.approx(0.2 * RATE, rel=0.01)


@given(
    loads=st.lists(st.floats(0, 20_000), min_size=1, max_size=60),
    workers=st.integers(1, 9),
    partitions=st.integers(1, 9),
)
def test_records_are_neither_lost_nor_done_faster_than_the_workers_can(loads, workers, partitions):
    rates = np.array(loads)
    history = simulate(a_group(partitions, workers), rates, TICK_S)
    came = np.cumsum(rates) * TICK_S
    done = came - history.lag
    assert (history.lag >= -1e-6).all()
    assert (np.diff(done) >= -1e-6).all()
    active = min(workers, partitions)
    times = np.arange(1, len(rates) + 1) * TICK_S
    assert (done <= active * (RATE * times + TURN) + 1e-6).all()


class TestTheAutoscaler:
    SCALER = Scaler(2 * RATE, least=1, most=6, interval_s=10.0, start_s=20.0, patience_s=60.0)

    def history(self, rates: np.ndarray):
        return simulate(a_group(workers=1, scaler=self.SCALER), rates, TICK_S)

    def test_it_brings_workers_once_they_have_started_and_no_more_than_it_may(self):
        history = self.history(steady(5 * RATE, 120))
        # Nothing waits at the first look; the second one sees 10 s of 4,000 records a second.
        began = np.flatnonzero(history.workers > 1)[0] * TICK_S
        assert began == pytest.approx(30, abs=TICK_S)
        assert history.workers.max() == 6

    def test_wishes_that_grow_at_every_look_do_not_put_off_the_workers_that_are_coming(self):
        """Looks come sooner than workers start: 2 are wanted at 10 s, 3 at 20 s, 4 at 30 s."""
        history = self.history(steady(1.25 * RATE, 60))
        began = {n: np.flatnonzero(history.workers >= n)[0] * TICK_S for n in (2, 3)}
        assert began == {2: pytest.approx(30, abs=TICK_S), 3: pytest.approx(40, abs=TICK_S)}

    def test_a_change_stops_everybody_for_the_rebalance(self):
        history = self.history(steady(5 * RATE, 40))
        lag = history.lag[round(30 / TICK_S) : round(33 / TICK_S)]
        assert np.allclose(np.diff(lag), 5 * RATE * TICK_S)
        assert history.lag[round(34 / TICK_S)] < lag[-1]

    def test_it_sends_workers_away_only_when_fewer_were_wanted_for_long(self):
        rates = np.concatenate([steady(5 * RATE, 60), steady(0, 300)])
        history = self.history(rates)
        drained = np.flatnonzero(history.lag > 6 * 2 * RATE)[-1] * TICK_S
        gone = np.flatnonzero(history.workers == 6)[-1] * TICK_S
        assert history.workers[-1] == 1
        assert gone - drained >= 60

    def test_on_lag_alone_it_sends_away_the_workers_that_keep_lag_small(self):
        """Why the page says: keep as many as the mean load needs."""
        history = self.history(steady(3 * RATE, 3600))
        assert history.changes > 10
        assert history.age_s.max() > 20


def test_a_load_has_its_mean_its_bursts_and_its_seed():
    load = Bursts(100.0, swing=0.5, swing_period_s=100, factor=3, burst_s=50, pause_s=50)
    rates = load.rates(200_000, TICK_S, seed=3)
    assert rates.mean() == pytest.approx(100, rel=0.05)
    # Half of the time it is burst: 50 without, between 25 and 75, and 100 on top.
    assert 25 <= rates.min() < 30
    assert 170 < rates.max() <= 175
    assert np.array_equal(rates, load.rates(200_000, TICK_S, seed=3))
    assert not np.array_equal(rates, load.rates(200_000, TICK_S, seed=4))
