"""A real Prometheus and a real Alertmanager for tests, and the webhook that is told."""

from __future__ import annotations

import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from demo.broker import free_port
from demo.process import start_child
from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rule_file
from tests.components import program, within

HOST = "127.0.0.1"


class Told(NamedTuple):
    """One alert of one notification."""

    job: str
    alert: str
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Pager:
    """What the webhook was told, in order."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        pager = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                for alert in json.loads(self.rfile.read(length))["alerts"]:
                    labels = alert["labels"]
                    pager.told.append(
                        Told(
                            labels["job"],
                            labels["alertname"],
                            alert["status"],
                            labels,
                            alert["annotations"],
                        )
                    )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Hook)
        self.url = f"http://{HOST}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def heard(self, job: str, alert: str, status: str) -> Told | None:
        """Return the latest that was told of an alert, if it is of this status."""
        told = [each for each in list(self.told) if (each.job, each.alert) == (job, alert)]
        return told[-1] if told and told[-1].status == status else None

    def alerts_of(self, job: str) -> set[str]:
        return {each.alert for each in list(self.told) if each.job == job}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Prometheus(NamedTuple):
    """Prometheus' HTTP interface."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self._ask("query", query=expression)

    def query_range(
        self, expression: str, start: float, end: float, step_s: float
    ) -> list[dict[str, Any]]:
        span = {"start": str(start), "end": str(end), "step": str(step_s)}
        return self._ask("query_range", query=expression, **span)

    def knows_whom_to_tell(self) -> bool:
        url = f"http://{HOST}:{self.port}/api/v1/alertmanagers"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(json.load(answer)["data"]["activeAlertmanagers"])

    def _ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode(parameters).encode()
        url = f"http://{HOST}:{self.port}/api/v1/{what}"
        with urllib.request.urlopen(url, asked, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


@contextmanager
def monitoring(
    folder: Path, targets: Mapping[str, int], parameters: Mapping[str, Parameters]
) -> Iterator[tuple[Prometheus, Pager]]:
    """Scrape each job's port every second, with its rules and parameters."""
    programs = (
        program("prometheus", "prometheus"),
        program("prometheus-alertmanager", "prometheus-alertmanager"),
    )
    pager, ports = Pager(), (free_port(), free_port())
    for job, chosen in parameters.items():
        (folder / f"rules-{job}.yml").write_text(rule_file(chosen))
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules-*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{HOST}:{ports[1]}"]}]}]},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{port}"]}]}
            for job, port in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    route = {"receiver": "pager", "group_by": ["alertname", "job"], "repeat_interval": "1h"}
    route |= {"group_wait": "0s", "group_interval": "1s"}
    receiver = {"name": "pager", "webhook_configs": [{"url": pager.url, "send_resolved": True}]}
    (folder / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": [receiver]}))
    commands = (
        (
            programs[0],
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={HOST}:{ports[0]}",
        ),
        (
            programs[1],
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={HOST}:{ports[1]}",
            "--cluster.listen-address=",  # No gossip.
        ),
    )
    with (folder / "monitoring.log").open("wb") as log:
        started = [start_child(command, stdout=log, stderr=log) for command in commands]
        try:
            assert within(lambda: all(map(_is_ready, ports)))
            prometheus = Prometheus(ports[0])
            # An alert that fires before Alertmanager is known is told a minute later.
            assert within(prometheus.knows_whom_to_tell)
            yield prometheus, pager
        finally:
            for process in started:
                process.kill()
                process.wait()
            pager.close()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/-/ready", timeout=1):
            return True
    except OSError:
        return False
