"""Writes the files that are made from the rules: Prometheus' own, or all that are shipped.

python -m deploy.alerts                                      what is in the repository, anew
python -m deploy.alerts --set workers_expected=3 --out FILE  one rule file, with other parameters;
                                                             --grafana FILE: Grafana's as well
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.alerts.grafana import provisioning
from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rule_file

DEPLOY = Path(__file__).parents[1]


def shipped() -> dict[Path, str]:
    """Return the text of each file that is made from the rules as they are shipped."""
    parameters = Parameters()
    alerting = DEPLOY / "grafana/provisioning/alerting"
    return {
        DEPLOY / "prometheus/alerts.yml": rule_file(parameters),
        **{alerting / name: text for name, text in provisioning(parameters).items()},
    }


def main() -> int:
    """Write the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.alerts", description=main.__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, help="Prometheus' rule file; default: those shipped")
    parser.add_argument("--grafana", type=Path, help="and Grafana's rule file")
    chosen = parser.parse_args()
    if (chosen.set or chosen.grafana) and chosen.out is None:
        parser.error("--set and --grafana go with --out; seen no --out. Nothing is written")
    try:
        changed = Parameters().with_changes(chosen.set)
    except ValueError as error:
        parser.error(f"--set: {error}. Nothing is written")
    files = {chosen.out: rule_file(changed)} if chosen.out else shipped()
    if chosen.grafana:
        files[chosen.grafana] = provisioning(changed)["rules.yml"]
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
