"""The stack of docker-compose.yml as `make stack-test` has it: brought up, asked, and taken down.

A project of its own, ports that are free, and the stack's own alert rules with a short time for the
alert about a missing worker.
"""

from __future__ import annotations

import json
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.kafka_wire import free_port
from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rule_file
from tests.deploy.engine import Compose, Engine

PROJECT = "odradek-test"
WORKERS = 2
MISSING_FOR_S = 30  # Longer than a worker takes to start.
GRAFANA = "grafana/grafana:12.1.1"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
POLL_S = 1.0


class NotSeen(Exception):
    """Something did not come about; the text says what, and what was seen instead."""


class Stack:
    """One stack: its services, what it answers, and the log of what was seen when."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.engine = compose.engine
        self.services = services_of(compose)
        self._started_s = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line of the log, with the seconds since the start."""
        print(f"{time.monotonic() - self._started_s:6.1f} s  {text}", flush=True)

    def wait(self, what: str, look: Callable[[], Any], within_s: float) -> Any:
        """Wait until `look` returns something true, say so, and return it.

        Raises:
            NotSeen: it did not within its time.
        """
        deadline = time.monotonic() + within_s
        while True:
            seen = look()
            if seen:
                self.say(what)
                return seen
            if time.monotonic() > deadline:
                raise NotSeen(f"not within {within_s:g} s: {what}; last seen: {seen!r}")
            time.sleep(POLL_S)

    def container(self, service: str, number: int = 1) -> str:
        """Return the name that compose gives to a service's container."""
        return f"{self.compose.project}-{service}-{number}"

    def query(self, expression: str) -> float:
        """Return the one value of a query to Prometheus; 0 where there is none, or no answer."""
        asked = urllib.parse.urlencode({"query": expression})
        answer = self._get("PROMETHEUS_PORT", f"/api/v1/query?{asked}")
        result = answer["data"]["result"] if answer else []
        return float(result[0]["value"][1]) if result else 0.0

    def alerts(self) -> set[str] | None:
        """Return the names of the alerts that are active in Alertmanager; None: no answer."""
        answer = self._get("ALERTMANAGER_PORT", "/api/v2/alerts?active=true")
        return None if answer is None else {one["labels"]["alertname"] for one in answer}

    def paged(self, text: str) -> list[str]:
        """Return the lines of the pager that hold a text, such as "FIRING " and an alert's name."""
        said = self.compose("logs", "--no-log-prefix", "pager").splitlines()
        return [line for line in said if text in line]

    def _get(self, port: str, path: str) -> Any:
        address = f"http://127.0.0.1:{self.compose.variables[port]}{path}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return None


def services_of(compose: Compose) -> list[str]:
    """Return the services to bring up: all, or all but Grafana where its image is not here."""
    listed = compose("config", "--services").split()
    if compose.engine.name == "podman" and not compose.engine.has_image(GRAFANA):
        print(f"left out: grafana, for {GRAFANA} is not on this machine")
        listed.remove("grafana")
    return listed


@contextmanager
def a_stack(engine: Engine, *, secure: bool, keep: bool) -> Iterator[Stack]:
    """Yield a stack that is not up yet, and take all of it down at the end, unless it is kept.

    Raises:
        NotSeen: something of it was left.
    """
    with tempfile.TemporaryDirectory() as folder:
        variables = {name: str(free_port()) for name in PORTS}
        variables["ALERT_RULES"] = str(_write_rules(Path(folder)))
        variables["STACK_SECURITY"] = "secure" if secure else "plain"
        compose = Compose(engine, PROJECT, variables, ("secure",) if secure else ())
        try:
            yield Stack(compose)
        finally:
            if not keep:
                compose._replace(profiles=("gpu", "secure"))("down", "--volumes")
    if not keep:
        _nothing_is_left(engine)


def _nothing_is_left(engine: Engine) -> None:
    ours = f"--filter=label=com.docker.compose.project={PROJECT}"
    for kind in (("ps", "--all"), ("volume", "ls"), ("network", "ls")):
        if left := engine.run(*kind, "--quiet", ours).split():
            raise NotSeen(f"nothing left of the stack; seen by {' '.join(kind)}: {left}")


def _write_rules(folder: Path) -> Path:
    """Write the stack's alert rules: two workers expected, missed after some seconds."""
    rules = folder / "alerts.yml"
    parameters = Parameters(
        workers_expected=WORKERS, workers_missing_for_s=MISSING_FOR_S, keep_firing_s=MISSING_FOR_S
    )
    rules.write_text(rule_file(parameters))
    folder.chmod(0o755)  # Prometheus is another user.
    rules.chmod(0o644)
    return rules
