"""Writes alerts.yaml: the alert rules as the Prometheus operator takes them.

python -m deploy.kubernetes                                        what is in the repository, anew
python -m deploy.kubernetes --set runbook=https://... --out FILE   with other parameters

The rules are those of `deploy.alerts`, with the number of workers that the manifests ask for.
"""

from __future__ import annotations

import argparse
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


def main() -> int:
    """Write the manifest; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kubernetes", description=main.__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, help="default: the manifest that is shipped")
    chosen = parser.parse_args()
    if chosen.set and chosen.out is None:
        parser.error("--set goes with --out; seen no --out. Nothing is written")
    try:
        changed = Parameters(workers_expected=WORKERS).with_changes(chosen.set)
    except ValueError as error:
        parser.error(f"--set: {error}. Nothing is written")
    (chosen.out or ALERTS).write_text(prometheus_rule(changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
