"""What panels say of series whose truth is known, asked of promtool with the shipped rules."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rule_file, rules
from deploy.grafana.boards import BOARDS
from tests.deploy.promtool import a_test, judge

A, B = 'instance="a:9108"', 'instance="b:9108"'
JOB = Parameters.job
HOLDING = next(rule for rule in rules(Parameters()) if rule.name == "OdradekHolding")
HELD = {f'odradek_held{{{A}, hold="rejects"}}': "0x4 1x6 0x30"}  # From minute 5 to 11.
WHICH, HOW_LONG = "Which alerts fire", "For how long they hold"
ALERT = f'{{alertname="{HOLDING.name}", severity="page"}}'
NO_ALERT = {'{alertname="none"}': 0.0}


class Case(NamedTuple):
    """At `minutes`, the panel's query says this of these series, as promtool writes them."""

    panel: str
    why: str
    series: dict[str, str]
    said: dict[str, float]
    minutes: int = 60
    kind: str = "lines"


CASES = (
    Case(
        "Lag",
        "a partition that changes hands is there twice, and counts once",
        {
            f'odradek_lag_records{{{A}, partition="0"}}': "100x60",
            f'odradek_lag_records{{{B}, partition="0"}}': "90x60",
            f'odradek_lag_records{{{B}, partition="1"}}': "7x60",
        },
        {"{}": 107.0},
        kind="number",
    ),
    Case(
        "Lag",
        "of each partition too",
        {
            f'odradek_lag_records{{{A}, partition="0"}}': "100x60",
            f'odradek_lag_records{{{B}, partition="0"}}': "90x60",
        },
        {'{partition="0"}': 100.0},
    ),
    Case(
        "What a worker does",
        "two workers of which each spends half its time are not one that is full",
        {
            f'odradek_turn_stage_seconds_sum{{{A}, stage="score"}}': "0+30x60",
            f'odradek_turn_stage_seconds_sum{{{B}, stage="score"}}': "0+27x60",
            f'odradek_turn_stage_seconds_sum{{{B}, stage="read"}}': "0+20x60",
        },
        {'{stage="score"}': 0.5},
    ),
    Case(
        "Flags, and false alarms to expect",
        "the second model expects three times as many, of the events that it scores",
        {
            f'odradek_records_total{{{A}, outcome="anomalous"}}': "0+5x120",
            f"odradek_expected_false_alarms_total{{{A}}}": "0+1x90 93+3x30",
            f"odradek_expected_flag_rate{{{A}}}": "0.01x90 0.03x30",
        },
        {"{}": 120.0},
        minutes=120,
    ),
    Case(
        "Features that miss values most",
        "what is always missing is no change; without a reference the share stands for itself",
        {
            f"odradek_sampled_events_total{{{A}}}": "0+60x60",
            f'odradek_sampled_missing_values_total{{{A}, feature="optional"}}': "0+60x60",
            f'odradek_sampled_missing_values_total{{{A}, feature="silent"}}': "0+45x60",
            f'odradek_sampled_missing_values_total{{{A}, feature="new"}}': "0+15x60",
            f'odradek_reference_missing_values{{{A}, feature="optional"}}': "1x60",
            f'odradek_reference_missing_values{{{A}, feature="silent"}}': "0.25x60",
        },
        {'{feature="optional"}': 0.0, '{feature="silent"}': 0.5, '{feature="new"}': 0.25},
    ),
    Case(
        "Input that was lost",
        "a jump at start is in the first scrape already",
        {
            f"odradek_gaps_total{{{A}}}": "1x60",
            f"odradek_lost_records_total{{{A}}}": "300x60",
        },
        {"{}": 300.0},
    ),
    Case(WHICH, "one that is pending does not fire", HELD, NO_ALERT, 5, "timeline"),
    Case(WHICH, "its name, while it fires", HELD, {ALERT: 1.0}, 10, "timeline"),
    Case(WHICH, "afterwards there is none", HELD, NO_ALERT, 30, "timeline"),
    Case(HOW_LONG, "one that is pending does not fire", HELD, NO_ALERT, 5, "bars"),
    Case(HOW_LONG, "since it first held", HELD, {ALERT: 300.0}, 10, "bars"),
    Case("Alerts that fire", "none", HELD, {"{}": 0.0}, 5, "number"),
    Case("Alerts that fire", "one", HELD, {"{}": 1.0}, 10, "number"),
    Case("Workers", "of none that is found", {}, {"{}": 0.0}, kind="number"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.panel}: {case.why}")
def test_a_panel_says_what_is_so(case: Case, tmp_path: Path):
    (panel,) = {
        panel
        for board in BOARDS
        for panel in board.panels
        if (panel.title, panel.kind) == (case.panel, case.kind)
    }
    # The last query: where there are more, it is the one in question.
    asked = panel.queries[-1].expression.replace("$job", JOB).replace("$__rate_interval", "5m")
    what = {
        "expr": f"round({asked}, 0.001)",
        "eval_time": f"{case.minutes}m",
        "exp_samples": [{"labels": labels, "value": value} for labels, value in case.said.items()],
    }
    test = a_test(case.series, JOB, promql_expr_test=[what])
    assert judge(tmp_path, rule_file(Parameters(), [HOLDING]), [test]) == ""
