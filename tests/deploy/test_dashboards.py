"""The dashboards' files: kept true to their code, and read back by Grafana's own types."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import recorded, rules
from deploy.grafana.__main__ import shipped
from deploy.grafana.boards import BOARDS
from deploy.grafana.overview import OVERVIEW, WHICH_ALERTS
from deploy.grafana.panels import as_json
from tests.deploy.picture import OF_GRAFANA, draw
from worker.declared import DECLARED

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "deploy/grafana/provisioning"
# What says more on the page of one worker, or in `top`, than over time.
NOT_SHOWN = {
    *("odradek_alive", "odradek_build_info", "odradek_calibration_events"),
    *("odradek_last_turn_timestamp_seconds", "odradek_last_event_timestamp_seconds"),
    *("odradek_last_beat_timestamp_seconds", "odradek_model_loaded_timestamp_seconds"),
    *("odradek_position_offset", "odradek_sample_stride", "odradek_drift_window_events"),
    *("odradek_drift_window_seconds", "odradek_drift_window_start_timestamp_seconds"),
    *("odradek_kafka_statistics_timestamp_seconds", "odradek_kafka_round_trip_seconds"),
    *("odradek_kafka_outbound_bytes", "odradek_kafka_waiting_requests"),
}


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_what_is_shipped_is_what_the_code_makes(path: Path):
    assert path.read_text() == shipped()[path], "run `python -m deploy.grafana`"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafanas_own_types_read_it_back(board):
    register_default_plugins()
    read = Dashboard.from_json(json.loads(as_json(board)))
    assert read.title == board.title
    assert [panel.title for panel in read.panels] == [panel.title for panel in board.panels]
    for panel, declared in zip(read.panels, board.panels, strict=True):
        assert [target.expr for target in panel.targets] == [
            query.expression for query in declared.queries
        ]
        assert panel.description == declared.question


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_lie_beside_and_below_each_other_and_never_on_another(board):
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(as_json(board))["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def as_read() -> dict[tuple[str, str], dict[str, Any]]:
    """Every panel as Grafana reads it, by its kind and its title."""
    return {
        (panel["type"], panel["title"]): panel
        for board in BOARDS
        for panel in json.loads(as_json(board))["panels"]
    }


def steps_of(panel: dict[str, Any]) -> list[dict[str, Any]]:
    return panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])


def test_what_has_the_colour_of_its_value_says_from_where_on():
    """Without thresholds of its own Grafana shows green, and from 80 on red."""
    coloured = {"stat", "bargauge", "gauge", "state-timeline"}
    found = [panel for (kind, _), panel in as_read().items() if kind in coloured]
    assert {panel["type"] for panel in found} == coloured - {"gauge"}
    for panel in found:
        assert steps_of(panel), panel["title"]
        first, *others = [step["value"] for step in steps_of(panel)]
        assert first is None, panel["title"]
        assert others == sorted(others), panel["title"]


@pytest.mark.parametrize(
    ("title", "value", "colour"),
    [
        ("Workers", 0, "red"),
        ("Ready", 0, "red"),
        ("Ready", 2, "green"),
        ("Alerts that fire", 0, "green"),
        ("Alerts that fire", 5, "red"),
        ("Records a second", 400, "blue"),
        ("Lag", 100, "green"),
        ("Lag", 20_000, "orange"),
        ("Age of the model", 80, "green"),
        ("Age of the model", 40 * 86_400, "orange"),
    ],
)
def test_a_number_is_red_where_it_is_bad_and_not_where_it_is_large(title, value, colour):
    passed = [
        step["color"]
        for step in steps_of(as_read()["stat", title])
        if step["value"] is None or step["value"] <= value
    ]
    assert passed[-1] == colour


def test_every_unit_is_one_of_grafanas_and_none_is_of_requests():
    known = {value for name, value in vars(units).items() if name[0].isupper()} - {"reqps", "rps"}
    assert {panel.unit for board in BOARDS for panel in board.panels} <= known


def test_every_metric_is_shown_or_said_to_be_no_matter_of_dashboards():
    asked = {
        query.expression for board in BOARDS for panel in board.panels for query in panel.queries
    }
    asked |= {each.expression for each in recorded(Parameters())}
    used = set(re.findall(r"\bodradek_[a-z_0-9]+", " ".join(asked)))
    used |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert {metric.scraped_name for metric in DECLARED} - used == NOT_SHOWN


def test_a_picture_shows_when_an_alert_fired_by_its_colour():
    board = dataclasses.replace(OVERVIEW, panels=(WHICH_ALERTS,))
    drawn = draw(board, lambda _: [("OdradekHolding", [(0.0, 0.0), (2.0, 1.0)])])
    assert drawn.count("OdradekHolding") == 1
    assert drawn.index(OF_GRAFANA["green"]) < drawn.index(OF_GRAFANA["red"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_is_in_the_picture_of_its_dashboard(board):
    picture = (ROOT / f"docs/{board.uid}.svg").read_text()
    drawn = re.findall(r'<text class="t"[^>]*>([^<]*)</text>', picture)
    wanted = [escape(panel.title) for panel in board.panels]
    assert sorted(drawn) == sorted(wanted), "run `python -m tests.deploy.picture`"


def provisioned(name: str) -> dict:
    return yaml.safe_load((PROVISIONING / "alerting" / name).read_text())


def test_grafana_is_given_every_rule_with_its_comparison():
    found = {
        rule["title"]: rule
        for group in provisioned("rules.yml")["groups"]
        for rule in group["rules"]
    }
    declared = {rule.name: rule for rule in rules(Parameters())}
    assert list(found) == list(declared)
    for name, rule in found.items():
        query, condition = rule["data"]
        assert rule["condition"] == condition["refId"]
        assert condition["model"]["expression"] == query["refId"]
        assert query["model"]["expr"] == declared[name].operand
        evaluator = condition["model"]["conditions"][0]["evaluator"]
        assert evaluator["params"] == [declared[name].bound]
        assert evaluator["type"] == ("lt" if declared[name].below else "gt")
        assert ("keepFiringFor" in rule) == (declared[name].keep_s > 0)
        assert len(rule["uid"]) <= 40  # Grafana's limit.
        assert "$value " not in rule["annotations"]["summary"]


def test_policies_and_contact_points_name_each_other():
    points = {point["name"] for point in provisioned("contact-points.yml")["contactPoints"]}
    policy = provisioned("policies.yml")["policies"][0]
    assert {policy["receiver"], *(route["receiver"] for route in policy["routes"])} == points
    source = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())
    used = set(
        re.findall(r"datasourceUid: (\w+)", (PROVISIONING / "alerting/rules.yml").read_text())
    )
    assert used == {source["datasources"][0]["uid"], "__expr__"}
