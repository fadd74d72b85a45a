"""The same rules for Grafana's own alerting, as the files that it is provisioned with.

Grafana compares by itself: query A is a rule's operand, condition B its comparison. Its query is
the last value of now; where it returns nothing there is nothing to compare, and the rule is quiet,
as it is in Prometheus.
"""

from __future__ import annotations

import hashlib
from itertools import groupby
from typing import Any

from deploy.alerts.parameters import Parameters
from deploy.alerts.rule import Rule, duration
from deploy.alerts.rules import dump, rules, told_of

DATA_SOURCE = "prometheus"  # Its uid, by provisioning/datasources.
EXPRESSIONS = "__expr__"  # Grafana's own name for what it computes itself.
FOLDER, RECEIVER = "Odradek", "odradek-pager"
INTERVAL_S = 30
RANGE_S = 600
HEAD = (
    "# Made by `python -m deploy.alerts`: the rules of deploy/prometheus/alerts.yml for Grafana.\n"
)


def provisioning(parameters: Parameters) -> dict[str, str]:
    """Return the text of each provisioning file by its name."""
    groups = [
        {
            "orgId": 1,
            "name": name,
            "folder": _folder(parameters),
            "interval": duration(INTERVAL_S),
            "rules": [_rule(rule, parameters) for rule in members],
        }
        for name, members in groupby(rules(parameters), lambda rule: rule.group)
    ]
    return {
        "rules.yml": HEAD + dump({"apiVersion": 1, "groups": groups}),
        "contact-points.yml": HEAD + dump(_contact_points()),
        "policies.yml": HEAD + dump(_policies()),
    }


def _rule(rule: Rule, parameters: Parameters) -> dict[str, Any]:
    return {
        "uid": _uid(rule, parameters),
        "title": rule.name,
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": {"from": RANGE_S, "to": 0},
                "datasourceUid": DATA_SOURCE,
                "model": {"refId": "A", "expr": rule.operand, "instant": True, "range": False},
            },
            {
                "refId": "B",
                "relativeTimeRange": {"from": RANGE_S, "to": 0},
                "datasourceUid": EXPRESSIONS,
                "model": {
                    "refId": "B",
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [
                        {
                            "evaluator": {
                                "type": "lt" if rule.below else "gt",
                                "params": [rule.bound],
                            }
                        }
                    ],
                },
            },
        ],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": _looks(rule.for_s),
        **({"keepFiringFor": _looks(rule.keep_s)} if rule.keep_s else {}),
        "labels": {"severity": rule.severity, "job": parameters.job},
        # Its $value is a text about all queries; that of A is here.
        "annotations": {
            name: text.replace("$value", "$values.A.Value")
            for name, text in told_of(rule, parameters).items()
        },
        "isPaused": False,
    }


def _folder(parameters: Parameters) -> str:
    """Return a folder for each job: within one, Grafana wants a rule's title only once."""
    return FOLDER if parameters.job == Parameters.job else f"{FOLDER} {parameters.job}"


def _uid(rule: Rule, parameters: Parameters) -> str:
    """Return what no rule of another job has, of the 40 characters that Grafana takes."""
    name = rule.name.lower()
    if parameters.job == Parameters.job:
        return name
    return f"{name}-{hashlib.sha256(parameters.job.encode()).hexdigest()[:8]}"


def _looks(seconds: int) -> str:
    """Return the next whole number of looks: Grafana refuses a wait that is no multiple of them."""
    return duration(-(-seconds // INTERVAL_S) * INTERVAL_S)


def _contact_points() -> dict[str, Any]:
    webhook = {"url": "http://pager:9199/", "httpMethod": "POST"}
    receiver = {"uid": RECEIVER, "type": "webhook", "settings": webhook}
    point = {"orgId": 1, "name": RECEIVER, "receivers": [receiver]}
    return {"apiVersion": 1, "contactPoints": [point]}


def _policies() -> dict[str, Any]:
    policy = {
        "orgId": 1,
        "receiver": RECEIVER,
        "group_by": ["grafana_folder", "alertname"],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "4h",
        "routes": [
            {
                "receiver": RECEIVER,
                "object_matchers": [["severity", "=", "ticket"]],
                "group_wait": "1m",
                "repeat_interval": "24h",
            }
        ],
    }
    return {"apiVersion": 1, "policies": [policy]}
