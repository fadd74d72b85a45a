"""/metrics, /healthz and /readyz on a real port."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import OutsideError
from tests.components import within
from worker.health import Health
from worker.http import serve_http
from worker.metric import Asked
from worker.metrics import Metrics


class Served:
    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(60.0, last_beat=1000.0, joined=True)
        self.metrics = Metrics()
        self.server = serve_http(
            "127.0.0.1", 0, self.metrics.registry, self.health, lambda: self.now
        )

    def get(self, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_the_metrics_are_served_as_prometheus_reads_them(served):
    status, text, headers = served.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"odradek_records", "odradek_p_value"} <= names


def test_a_query_does_not_matter(served):
    assert served.get("/metrics?name=x")[0] == 200


def test_a_healthy_worker_says_ok(served):
    assert served.get("/healthz")[:2] == (200, "ok\n")
    assert served.get("/readyz")[:2] == (200, "ok\n")


def test_a_stuck_worker_says_why(served):
    served.now = 2000.0
    status, text, _ = served.get("/healthz")
    assert status == 503
    assert "no turn or poll ended for 1000 s" in text
    assert served.get("/readyz")[0] == 503


def test_a_draining_worker_is_alive_and_not_ready(served):
    served.health.draining = True
    assert served.get("/healthz")[0] == 200
    status, text, _ = served.get("/readyz")
    assert (status, text) == (503, "draining: it was told to stop\n")


def test_a_stuck_worker_has_its_stacks_logged_once(served, caplog):
    served.now = 2000.0
    for _ in range(3):
        assert served.get("/healthz")[0] == 503
    (line,) = caplog.messages
    assert line.startswith("Stuck: no turn or poll ended for 1000 s")
    assert "thread MainThread:" in line
    assert "test_a_stuck_worker_has_its_stacks_logged_once" in line
    served.health.beat(2000.0)
    assert served.get("/healthz")[0] == 200
    served.now = 3000.0
    assert served.get("/healthz")[0] == 503
    assert len(caplog.messages) == 2


def test_one_that_leaves_in_the_middle_of_an_answer_is_no_news(served, caplog, capsys):
    caplog.set_level("INFO")
    with socket.create_connection(("127.0.0.1", served.server.server_port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET /metrics HTTP/1.1\r\n")  # Reset before the request has ended.
    assert served.get("/healthz")[0] == 200
    assert not caplog.messages
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_our_own_in_a_scrape_is_logged(served, caplog):
    def fails():
        raise RuntimeError("what is this")
        yield

    Asked(served.metrics.registry, (), fails)
    with pytest.raises(http.client.RemoteDisconnected):
        served.get("/metrics")
    assert within(lambda: "An answer failed." in caplog.messages)


def test_another_path_says_what_is_here(served):
    status, text, _ = served.get("/")
    assert status == 404
    assert text == "/ is not here; /metrics, /healthz, /readyz are\n"


def test_another_method_is_refused(served):
    assert served.get("/metrics", "POST")[0] == 501


def test_a_port_in_use_is_the_outside_worlds_fault(served):
    port = served.server.server_port
    with pytest.raises(OutsideError, match=f"port {port} on 127.0.0.1 cannot be had") as refused:
        serve_http("127.0.0.1", port, served.metrics.registry, served.health, lambda: 0.0)
    assert "ODRADEK_HTTP_PORT" in str(refused.value)
    assert served.get("/healthz")[0] == 200


def test_an_address_of_another_machine_is_the_outside_worlds_fault():
    metrics = Metrics()
    with pytest.raises(OutsideError, match=r"on 192\.0\.2\.1 cannot be had"):
        serve_http("192.0.2.1", 0, metrics.registry, Health(1.0, last_beat=0.0), lambda: 0.0)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_listens_by_ipv6_too():
    server = serve_http("::1", 0, Metrics().registry, Health(60.0, last_beat=0.0), lambda: 0.0)
    try:
        connection = http.client.HTTPConnection("::1", server.server_port, timeout=10)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.shutdown()
        server.server_close()


def test_an_address_of_another_machine_is_told_as_such():
    with pytest.raises(OutsideError, match=r"192\.0\.2\.1 cannot be had.*Set ODRADEK_HTTP_HOST"):
        serve_http("192.0.2.1", 0, Metrics().registry, Health(60.0, last_beat=0.0), lambda: 0.0)
