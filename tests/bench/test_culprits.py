"""The count of culprits, on parts that are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.culprits import hit_rate, incidents, main

WRITTEN = "2-3:1,3\n7-8:2"


def test_incidents_are_read_with_their_rows_and_columns_from_nought():
    assert list(incidents(WRITTEN)) == [(slice(2, 4), [0, 2]), (slice(7, 9), [1])]


def test_every_incident_counts_alike_and_every_row_of_it():
    parts = np.tile([3.0, 2.0, 1.0], (10, 1))
    # Row 2 names both culprits, row 3 one of two; rows 7 and 8 miss theirs.
    parts[2] = [3, 0, 2]

    assert hit_rate(parts, list(incidents(WRITTEN))) == pytest.approx((0.75 + 0.0) / 2)


def test_a_folder_without_streams_is_told(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no streams/*.npz" in capsys.readouterr().err
