"""All rules with their parameters put in, and the rule file of Prometheus that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import yaml

from deploy.alerts import detection, flow
from deploy.alerts.parameters import Parameters
from deploy.alerts.rule import Recorded, Rule, duration

HEAD = """\
# Made by `python -m deploy.alerts`, which takes other times, thresholds and a number of workers:
# python -m deploy.alerts --set workers_expected=3 --set job=payments --out alerts.yml
# docs/runbook.md says of each alert what it means, how to look and what to do.
"""


def rules(parameters: Parameters) -> tuple[Rule, ...]:
    """Return every alert rule, group by group."""
    return (
        *flow.worker_rules(parameters),
        *flow.flow_rules(parameters),
        *flow.record_rules(parameters),
        *flow.delivery_rules(parameters),
        *detection.flag_rate_rules(parameters),
        *detection.drift_rules(parameters),
        *detection.model_rules(parameters),
    )


def recorded(parameters: Parameters) -> tuple[Recorded, ...]:
    """Return every recording rule."""
    return detection.recorded(parameters)


def told_of(rule: Rule, parameters: Parameters) -> dict[str, str]:
    """Return what is told of an alert beside its labels."""
    return {
        "summary": rule.summary,
        "description": rule.description,
        "runbook_url": f"{parameters.runbook}#{rule.anchor}",
    }


def rule_file(parameters: Parameters, alerts: Sequence[Rule] | None = None) -> str:
    """Return Prometheus' rule file, YAML; with all alerts unless some are given."""
    labels = {"job": parameters.job}
    groups: list[dict[str, Any]] = [
        {
            "name": "odradek-recorded",
            "rules": [
                {"record": each.name, "expr": each.expression, "labels": labels}
                for each in recorded(parameters)
            ],
        }
    ]
    for name, members in groupby(alerts or rules(parameters), lambda rule: rule.group):
        groups.append({"name": name, "rules": [_alert(rule, parameters) for rule in members]})
    return HEAD + dump({"groups": groups})


def _alert(rule: Rule, parameters: Parameters) -> dict[str, Any]:
    keep = {"keep_firing_for": duration(rule.keep_s)} if rule.keep_s else {}
    return {
        "alert": rule.name,
        "expr": rule.expression,
        "for": duration(rule.for_s),
        **keep,
        "labels": {"severity": rule.severity, "job": parameters.job},
        "annotations": told_of(rule, parameters),
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and no aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(content: object) -> str:
    """Return YAML for people: in the order given, long lines left as they are."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1_000, allow_unicode=True)
    return text
