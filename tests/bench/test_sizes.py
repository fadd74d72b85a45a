"""The benchmark of sizes: which networks it takes, what it concludes, and that it runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from bench.model import WIDTHS
from bench.sizes import FEATURES, NARROWEST, PARAMETERS, Cost, Size, findings, main, sizes, table

COST = Cost(
    widths=(8, 16, 4, 16, 8),
    parameters=500,
    event_bytes=100,
    turn_records=4096,
    decode_us=1.0,
    score_us=8.0,
    encode_us=1.0,
    score_us_by_batch={1: 40.0, 16: 12.0, 64: 9.0, 256: 8.0},
    threads={1: (8.0, 8.0), 2: (4.0, 9.0)},
)


def test_networks_have_about_the_parameters_that_are_asked_for():
    wanted = {
        size.widths: min(PARAMETERS, key=lambda p: abs(p - size.parameters)) for size in sizes()
    }
    for size in sizes():
        if size.widths != WIDTHS:
            assert size.parameters == pytest.approx(wanted[size.widths], rel=0.05)
            assert size.widths[1] >= NARROWEST


def test_parameters_are_weights_and_biases():
    assert Size((3, 2, 3)).parameters == 3 * 2 + 2 + 2 * 3 + 3


def test_every_number_of_features_has_a_small_and_a_large_network():
    for features in FEATURES:
        of_it = [size.parameters for size in sizes([features])]
        assert len(of_it) >= 3
        assert of_it == sorted(of_it)
        assert of_it[0] < 1_100_000 <= 1_100_000 * (features == 8) + of_it[-1]


def test_the_smallest_batch_that_is_enough_costs_a_quarter_more_at_most():
    assert COST.enough_rows == 64
    assert replace(COST, score_us_by_batch={1: 11.0}).enough_rows == 4096


def test_free_scoring_leaves_the_other_stages():
    assert COST.free_score == 5
    assert COST.score_share == 0.8


def test_threads_speed_up_the_score_alone():
    assert COST.with_threads(2) == pytest.approx(10 / 6)


def test_it_names_the_smallest_network_from_which_on_it_is_so():
    small = replace(COST, parameters=100, score_us=1.0, threads={1: (1.0, 1.0), 2: (1.0, 1.0)})
    (line,) = [line for line in findings([COST, small]) if line]
    assert line == (
        "8 features: the model is the larger half from 500 parameters on; 2 threads make a turn "
        "more than 1.5 times as fast from 500 parameters on."
    )
    (line,) = [line for line in findings([small]) if line]
    assert "larger half for none of these; " in line


def test_a_quick_run_prints_a_row_for_each_network_and_writes_them(tmp_path, capsys):
    written = tmp_path / "sizes.json"
    assert main(["--quick", "--features", "8", "57", "--json", str(written)]) == 0
    costs = json.loads(written.read_text())["costs"]
    said = capsys.readouterr().out
    assert [tuple(cost["widths"]) for cost in costs] == [s.widths for s in sizes([8, 57], 100_000)]
    for cost in costs:
        assert f"| {'-'.join(map(str, cost['widths']))} | {cost['parameters']:,} |" in said
        assert min(cost["decode_us"], cost["score_us"], cost["encode_us"]) > 0
        assert len(cost["threads"]) == len([n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores()])
    assert "57 features: the model is" in said


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def test_a_table_has_as_many_cells_in_every_line():
    assert {line.count("|") for line in table([COST, COST]).splitlines()} == {12}
