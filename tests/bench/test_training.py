"""What the benches of training print and look at, from trainings that were made up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.large import FEATURES, fit, write_rows
from bench.training import Course, Look, table


def looks(*losses, seconds=1.0):
    return [Look(seconds * at, 2 * seconds * at, loss) for at, loss in enumerate(losses, 1)]


def test_the_table_compares_the_time_to_a_loss_that_each_reaches():
    rows = np.zeros((4, 2), np.float32)
    runs = {
        "slow": [looks(5, 4, 3, 2, seconds=10), looks(5, 4, 2.5, 2.5, seconds=10)],
        "worse": [looks(3, 3, 2.4, 2.3), looks(9, 9, 9, 2.1)],
        "unlucky": [looks(2.1, 9, 9, 9), looks(2.6, 9, 9, 9)],
    }

    lines = table(Course("2-1 mirrored", (), 1, rows, rows, 4), runs).splitlines()

    assert lines[1] == "2-1 mirrored; 4 rows, 4 epochs, 2 seeds"
    assert "to a validation loss of 2.35000" in lines[2]
    found = [re.split(r"\s{2,}", line) for line in lines[3:]]
    assert found == [
        ["slow", "40.0", "80.0", "4", "20.00", "2.25000", "(1 of 2 not)"],
        ["worse", "4.0", "8.0", "4", "2.00", "2.20000"],
        ["unlucky", "1.0", "2.0", "1", "2.00", "2.35000", "(1 of 2 not)"],
    ]


def test_made_up_rows_are_float32_with_holes_and_heavy_tails(tmp_path):
    write_rows(tmp_path / "a.parquet", 3000)

    rows = np.stack([c.to_numpy() for c in pq.read_table(tmp_path / "a.parquet")], axis=1)
    assert rows.shape == (3000, FEATURES)
    assert rows.dtype == np.float32
    assert 0.005 < np.isnan(rows).mean() < 0.015
    assert np.nanmax(np.abs(rows[:, 0])) > 50 * np.nanstd(rows[:, 1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_fit_is_looked_at_while_it_runs(tmp_path):
    write_rows(tmp_path / "events.parquet", 500)

    taken = fit(tmp_path / "events.parquet", ["--set", "epochs=1", "--set", "steps_min=1"])

    assert taken.exit_code == 0
    assert 50e6 < taken.anonymous < 2e9
    assert any("500 normal events" in line for _, _, line in taken.lines)
    # As soon as it was looked at, each line has memory beside it, however soon it came.
    peaks = [peak for _, peak, _ in taken.lines]
    assert all(peaks[next(at for at, peak in enumerate(peaks) if peak) :])
    assert max(peaks) <= taken.anonymous
