"""Writes alerts.yaml: the alert rules as the Prometheus operator takes them.

python -m deploy.kubernetes

The rules are those of `deploy.alerts`, with the number of workers that the manifests ask for.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rule_file

ALERTS = Path(__file__).with_name("alerts.yaml")
# The replicas of the Deployment and of the StatefulSet, and KEDA's least.
WORKERS = 2

HEAD = """\
# Made by `python -m deploy.kubernetes` from the rules of `python -m deploy.alerts`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: odradek-worker
  labels:
    app.kubernetes.io/name: odradek-worker
    app.kubernetes.io/part-of: odradek
spec:
"""


def prometheus_rule(parameters: Parameters) -> str:
    """Return the manifest, YAML, with these parameters' rules inside."""
    return HEAD + textwrap.indent(rule_file(parameters), "  ")


def shipped() -> str:
    """Return the text that the repository holds."""
    return prometheus_rule(Parameters(workers_expected=WORKERS))


if __name__ == "__main__":
    ALERTS.write_text(shipped())
    sys.exit(0)
