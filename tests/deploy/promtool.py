"""Prometheus' own judge of rules and expressions: series that are made up, and what must follow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.components import program


def run(name: str, package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a Debian package."""
    command = [program(name, package), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("promtool", "prometheus", *arguments)


def judge(folder: Path, rule_text: str, tests: Sequence[Mapping[str, Any]]) -> str:
    """Return what promtool has against these rules; nothing if all is as the tests say."""
    (folder / "alerts.yml").write_text(rule_text)
    judged = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "cases.yml").write_text(json.dumps(judged))  # JSON is YAML too.
    answer = promtool("test", "rules", str(folder / "cases.yml"))
    return "" if answer.returncode == 0 else answer.stdout + answer.stderr


def a_test(series: Mapping[str, str], job: str, **what: object) -> dict[str, Any]:
    """Return a test of `what` must follow; series that name no job are of this one."""
    return {
        "interval": "1m",
        "input_series": [
            {"series": _of_the_job(name, job), "values": values} for name, values in series.items()
        ],
        **what,
    }


def _of_the_job(series: str, job: str) -> str:
    return series if "job=" in series else series.replace("{", f'{{job="{job}", ', 1)
