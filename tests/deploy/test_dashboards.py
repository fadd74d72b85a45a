"""The dashboards' files: kept true to their code, and read back by Grafana's own types."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rules
from deploy.grafana.__main__ import shipped
from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import as_json

PROVISIONING = Path(__file__).parents[2] / "deploy/grafana/provisioning"


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
